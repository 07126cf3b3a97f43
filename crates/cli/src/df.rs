//! `ext2dax df`.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use ext2dax::FileSystem;

use crate::args::Args;

pub(crate) fn run(args: &Args, image: &Path, fs: &FileSystem, out: &mut dyn Write) -> Result<bool> {
    let stat = fs.statfs();
    let used = stat.blocks - stat.blocks_free;
    let inodes_used = u64::from(stat.inodes) - stat.inodes_free;
    if args.json {
        let object = serde_json::json!({
            "image": image.display().to_string(),
            "block_size": stat.block_size,
            "blocks": stat.blocks,
            "blocks_used": used,
            "blocks_free": stat.blocks_free,
            "blocks_available": stat.blocks_available,
            "inodes": stat.inodes,
            "inodes_used": inodes_used,
            "inodes_free": stat.inodes_free,
        });
        writeln!(out, "{object}")?;
        return Ok(true);
    }
    let kib = |blocks: u64| blocks * u64::from(stat.block_size) / 1024;
    writeln!(
        out,
        "{:<12} {:>12} {:>12} {:>12} {:>5}",
        "", "total", "used", "available", "used"
    )?;
    let space = (kib(stat.blocks), kib(used), kib(stat.blocks_available));
    writeln!(
        out,
        "{:<12} {:>12} {:>12} {:>12} {:>4}%",
        "KiB",
        space.0,
        space.1,
        space.2,
        percent(space.1, space.1 + space.2)
    )?;
    let inodes = u64::from(stat.inodes);
    writeln!(
        out,
        "{:<12} {:>12} {:>12} {:>12} {:>4}%",
        "inodes",
        inodes,
        inodes_used,
        stat.inodes_free,
        percent(inodes_used, inodes)
    )?;
    Ok(true)
}

/// Rounded up, as df(1) does: nothing that is used shows as 0 %.
fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        0
    } else {
        (part * 100).div_ceil(whole)
    }
}
