//! The program `mkfs.ext2dax`, as a library so that `ext2dax mkfs` and the manual page are the same thing.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use crate::{Before, Plan, Progress};

mod args;
mod extended;
mod refused;
mod report;
mod size;
mod target;

use args::Args;
use target::Target;

/// The command line, for help texts and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the program on the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the program; the first argument is its name. Exit status 0: made. 1: not made, usage included.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match make(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever went wrong.
            let _ = writeln!(std::io::stderr(), "mkfs.ext2dax: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // Up to the usage text, on one line.
    let text = error.render().to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"));
    let words: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let first = words.join(" ");
    let first = first.strip_prefix("error: ").unwrap_or(&first);
    let _ = writeln!(std::io::stderr(), "mkfs.ext2dax: {first}; see --help");
    ExitCode::FAILURE
}

fn make(args: &Args) -> anyhow::Result<()> {
    refused::check(args)?;
    let mut request = args.request()?;
    for note in &request.notes {
        if args.verbose {
            let _ = writeln!(std::io::stderr(), "mkfs.ext2dax: {note}");
        }
    }
    let target = Target::look(
        &args.image,
        request.offset,
        request.size,
        request.explicit_block_size,
    )?;
    if !request.reproducible {
        request
            .options
            .uuid
            .get_or_insert_with(|| *uuid::Uuid::new_v4().as_bytes());
    }
    let plan = Plan::new(&request.options, target.len())
        .map_err(|refusal| anyhow::anyhow!("{}: {refusal}", target.name()))?;
    if args.dry_run {
        return report::plan(args, &plan, &target, false);
    }
    target.check_free_to_use(args.force)?;
    write(args, &plan, &target, request.prezeroed)?;
    report::plan(args, &plan, &target, true)
}

fn write(args: &Args, plan: &Plan, target: &Target, prezeroed: bool) -> anyhow::Result<()> {
    let (pmem, found) = target.open(plan.len_bytes())?;
    let before = if prezeroed { Before::Zeroes } else { found };
    let bar = (std::io::stderr().is_terminal() && !args.quiet && !args.json)
        .then(|| indicatif::ProgressBar::new(u64::from(plan.geometry().groups())));
    let written = plan.write_with(&pmem, before, |Progress { done, .. }| {
        if let Some(bar) = &bar {
            bar.set_position(u64::from(done));
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if let Err(refusal) = written {
        drop(pmem);
        target.undo();
        anyhow::bail!("{}: {refusal}", target.name());
    }
    Ok(())
}
