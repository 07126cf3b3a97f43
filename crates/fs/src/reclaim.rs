//! Blocks and inodes that crashes have leaked, given back at mount for who asks.
//!
//! A recovery completes or undoes what was in flight, but bits that were set in an epoch that a crash tore, or whose
//! clearing it lost, name nobody that could be asked. So every inode in use is looked at once, and what bitmaps say besides
//! is cleared. On the way, counts of blocks are made exact and blocks behind the ends of files are cut off, which is what
//! torn appends leave. Then nothing that a checker would repair is left, and the image will be clean at its unmount.
//!
//! The time depends on the inodes and indirect blocks in use, not on contents. Each step leaves less residue than it found,
//! so a crash in between is just another crash.

use alloc::sync::Arc;

use ext2dax_format::{CorruptKind, Error, FileType, GroupNr, Ino, Result};
use ext2dax_getblock::{Owner, Survey};

use crate::inode::{Record, TreeMap};
use crate::mount::Core;

/// Gives back what nobody has. Nobody else uses the mount yet, what was in flight is recovered, and the orphan list is
/// empty. Says whether everything is accounted for; if not, nothing was given back.
///
/// # Errors
/// `Corrupt`: the image contradicts itself. Nothing was given back.
pub(crate) fn reclaim(core: &Arc<Core>) -> Result<bool> {
    if !core.geometry.features().unknown_compat().is_empty() {
        // Blocks may belong to something that no inode of ours leads to.
        return Ok(false);
    }
    let mut survey = core.volume.survey();
    for group in core.geometry.all_groups() {
        match look_at(core, &mut survey, group) {
            Err(Error::ForeignContents { .. }) => return Ok(false),
            looked => looked?,
        }
    }
    // EPOCH: files end where their sizes say, and count what they have.
    core.pmem.fence();
    survey.finish()?;
    // EPOCH: no bit is leaked.
    core.pmem.fence();
    Ok(true)
}

fn look_at(core: &Arc<Core>, survey: &mut Survey<'_>, group: GroupNr) -> Result<()> {
    for (ino, in_use) in survey.inodes(group)? {
        let record = Record::new(core, ino)?;
        if ino != Ino::ROOT && ino.get() < core.geometry.first_ino() {
            system_inode(survey, &record)?;
        } else if record.links() == 0 {
            bury(&record);
            if in_use {
                survey.dead(ino);
            }
        } else if in_use {
            live_inode(survey, record)?;
        } else {
            return Err(CorruptKind::InodeMarkedFree { inode: ino.get() }.into());
        }
    }
    Ok(())
}

/// One of the file system's own: what it has is its own, whatever it is.
fn system_inode(survey: &mut Survey<'_>, record: &Record) -> Result<()> {
    if record.sectors() > 0 {
        record.check_contents()?;
        survey.tree(record.ino(), Owner::System)?;
    }
    if record.file_acl() != 0 {
        survey.attribute_block(record.ino(), record.file_acl())?;
    }
    Ok(())
}

fn live_inode(survey: &mut Survey<'_>, record: Record) -> Result<()> {
    let ino = record.ino();
    let record = Arc::new(record);
    let file_type = record.file_type()?;
    let has_tree = match file_type {
        FileType::Regular | FileType::Directory => true,
        FileType::Symlink => !record.is_fast_symlink(),
        _ => false,
    };
    if file_type == FileType::Directory {
        survey.directory(ino);
    }
    let mut blocks = 0;
    if has_tree {
        record.check_contents()?;
        cut(&record, file_type)?;
        blocks = survey.tree(ino, Owner::File)?.blocks;
    }
    if record.file_acl() != 0 {
        survey.attribute_block(ino, record.file_acl())?;
        blocks += 1;
    }
    settle(&record, blocks);
    Ok(())
}

/// A free inode that has ever been one has a death time, which one that was made without a name may lack, and one whose
/// making a crash tore. Flushed.
fn bury(record: &Record) {
    if record.mode() != 0 && record.dtime() < record.core().geometry.inodes_count() {
        record.set_dtime(record.death_time());
        record.flush_line0();
    }
}

/// Blocks behind the end: of a file they are what an append left that did not come to its end, of a directory they have
/// been taken in by the recovery of the operation that needed them.
fn cut(record: &Arc<Record>, file_type: FileType) -> Result<()> {
    if file_type != FileType::Regular {
        return Ok(());
    }
    let map = TreeMap::new(Arc::clone(record));
    if map.has_blocks_past_end()? {
        map.cut_to_size()?;
    }
    Ok(())
}

/// What a torn epoch may have left in an inode that is alive: a wrong count of blocks, the death time of its birth. Flushed.
fn settle(record: &Record, blocks: u64) {
    let sectors = blocks * u64::from(record.core().geometry.sectors_per_block());
    let right = u32::try_from(sectors).unwrap_or(u32::MAX);
    if record.sectors() != right {
        record.set_sectors(right);
        record.flush_line0();
    }
    if record.dtime() != 0 {
        record.set_dtime(0);
        record.flush_line0();
    }
}
