//! `--merge`: contents into an image that is there.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::bail;
use ext2dax::clock::FixedClock;
use ext2dax::{FileSystem, MountOptions, Timestamp};
use ext2dax_pmem::{Access, FileRegion, Medium, Pmem};
use serde_json::json;

use super::args::{Args, Request};
use super::progress::Bar;
use super::target::Target;
use crate::{MergePlan, Merged, Merging, Tree};

/// Puts the contents into the image, or says what would happen.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    args.check_merge()?;
    let request = &args.request()?;
    let found = Target::look(&args.image, request.offset)?;
    let name = found.name().to_string();
    if found.is_missing() {
        bail!("{name}: does not exist; --merge is for an image that is there");
    }
    let target = found.sized(0);
    let _claim = match args.dry_run {
        true => None,
        // A signature is what we want to see; somebody who uses it is not.
        false => target.check_free_to_use(args.force.max(1))?,
    };
    let tree = args
        .contents
        .tree_over(Tree::overlay(), request, &args.image)?;
    let access = if args.dry_run {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let region = FileRegion::open_at(&args.image, access, request.offset, None)?;
    let spare = host_spare(&region);
    let pmem = Pmem::new(region);
    let mut options = MountOptions::new();
    if let Some(time) = request.latest {
        options = options.clock(Arc::new(FixedClock(Timestamp::from_secs(time))));
    }
    let blame = |error: ext2dax::Error| anyhow::anyhow!("{name}: {error}");
    // A mount for writing leaves its mark in the superblock: not before it is known that there is something to do.
    let fs =
        FileSystem::mount_pmem(pmem.clone(), &options.clone().read_only(true)).map_err(blame)?;
    let plan = plan(args, request, &fs, tree, spare);
    let stat = fs.statfs();
    fs.unmount().map_err(blame)?;
    let plan = plan.map_err(|error| anyhow::anyhow!("{name}: {error:#}"))?;
    if args.dry_run {
        return report(args, &name, None, &stat);
    }
    let fs = FileSystem::mount_pmem(pmem, &options).map_err(blame)?;
    let mut bar = Bar::new(args)?;
    let merged = plan.write(&fs, |progress| bar.step(progress));
    bar.finish();
    let stat = fs.statfs();
    // What is in stays in, whatever happened.
    let ended = fs.unmount();
    let merged = merged.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    ended.map_err(blame)?;
    report(args, &name, Some(merged), &stat)
}

fn plan(
    args: &Args,
    request: &Request,
    fs: &FileSystem,
    tree: Tree,
    spare: Option<u64>,
) -> anyhow::Result<MergePlan> {
    let merging = Merging {
        holes: args.contents.holes()?,
        latest: request.latest,
        threads: args.contents.threads(),
    };
    let plan = merging.plan(fs, tree)?;
    let bytes = plan.needed().0 * u64::from(fs.statfs().block_size);
    if let Some(spare) = spare.filter(|&spare| spare < bytes) {
        // A store into a hole of a file that cannot grow would end the program.
        bail!(
            "the file system that it lies on has {} KiB free, {} may be needed; nothing was changed",
            spare / 1024,
            bytes / 1024
        );
    }
    Ok(plan)
}

/// Bytes that a sparse file can still grow by; `None` where its blocks are its own.
fn host_spare(region: &FileRegion) -> Option<u64> {
    match region.medium() {
        Medium::File | Medium::MemoryFile | Medium::DaxFile => {
            let stat = rustix::fs::fstatvfs(region.file()).ok()?;
            let holes = region
                .file()
                .metadata()
                .is_ok_and(|meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512 < meta.len());
            holes.then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
        }
        Medium::BlockDevice | Medium::DaxDevice => None,
    }
}

fn report(
    args: &Args,
    name: &str,
    merged: Option<Merged>,
    stat: &ext2dax::StatFs,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let Merged {
        files,
        directories,
        replaced,
        removed,
        bytes,
    } = merged.unwrap_or_default();
    if args.json {
        let object = json!({
            "schema": 1,
            "image": name,
            "merged": merged.is_some(),
            "files": files,
            "directories": directories,
            "replaced": replaced,
            "removed": removed,
            "bytes": bytes,
            "block_size": stat.block_size,
            "blocks_free": stat.blocks_free,
            "inodes_free": stat.inodes_free,
        });
        writeln!(out, "{object}")?;
    } else if merged.is_none() {
        writeln!(out, "{name}: everything fits")?;
    } else if !args.quiet {
        writeln!(
            out,
            "{name}: merged {files} files and {directories} new directories, {} KiB; {replaced} names replaced, \
             {removed} removed; {} KiB and {} inodes free",
            bytes / 1024,
            stat.blocks_free * u64::from(stat.block_size) / 1024,
            stat.inodes_free
        )?;
    }
    Ok(())
}
