//! Options of mke2fs that are refused by name, each with what to use instead.

use anyhow::bail;
use clap::Args as ClapArgs;

use super::args::Args;

/// Known and not done.
#[derive(ClapArgs, Debug)]
pub(crate) struct Refused {
    #[arg(short = 'c', hide = true, action = clap::ArgAction::Count)]
    check: u8,
    #[arg(short = 'C', hide = true)]
    cluster: Option<String>,
    #[arg(short = 'D', hide = true)]
    direct: bool,
    #[arg(short = 'f', hide = true)]
    fragment: Option<String>,
    #[arg(short = 'G', hide = true)]
    flex: Option<String>,
    #[arg(short = 'j', hide = true)]
    journal: bool,
    #[arg(short = 'J', hide = true)]
    journal_options: Option<String>,
}

pub(crate) fn check(args: &Args) -> anyhow::Result<()> {
    let given = &args.refused;
    let table = [
        (
            given.check > 0,
            "-c: does not look for bad blocks; run badblocks on the device first",
        ),
        (
            given.cluster.is_some(),
            "-C: bigalloc is an ext4 feature; use mke2fs",
        ),
        (
            given.direct,
            "-D: there is no page cache of ours to go around; leave it out",
        ),
        (
            given.fragment.is_some(),
            "-f: fragments are as large as blocks; leave it out",
        ),
        (
            given.flex.is_some(),
            "-G: flex_bg is an ext4 feature; use mke2fs",
        ),
        (
            given.journal,
            "-j: a journal is an ext3 feature; use mke2fs -j",
        ),
        (
            given.journal_options.is_some(),
            "-J: a journal is an ext3 feature; use mke2fs -J",
        ),
    ];
    match table.iter().find(|row| row.0) {
        Some((_, text)) => bail!("{text}"),
        None => Ok(()),
    }
}
