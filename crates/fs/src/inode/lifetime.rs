//! Handles, and how an inode ends.
//!
//! A file lives while it has a name or a handle. The last name may go while handles are open: then the inode sits on the
//! orphan list with a link count of 0, and the last handle gives it back. Otherwise whoever removed the last name does.
//!
//! # Locking
//! Handles come under the INODE lock, shared, or under the lock of a directory that names the inode, or from another
//! handle; they go at any time. A name goes under both locks, exclusively. So when the last name goes no first handle comes,
//! and of the last handle and the last name the one that goes last gives the inode back, under the INODE lock, once.

use alloc::sync::Arc;
use alloc::vec::Vec;

use ext2dax_format::{FileBlock, FileType, Ino, Result};
use ext2dax_getblock::Detached;
use ext2dax_sync::atomic::Ordering;

use super::{Node, Record, TreeMap};
use crate::mount::{Core, Mount, MountParts};
use crate::orphan::Released;
use crate::xattr;

/// Whether a dead inode is on the orphan list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Yes,
    No,
}

/// A handle: while it lives, so does the file.
#[derive(Debug)]
pub(crate) struct Handle {
    mount: Arc<Mount>,
    node: Arc<Node>,
}

impl Handle {
    /// # Errors
    /// `NotFound` if the inode died before the handle was there.
    pub(crate) fn open(mount: &Arc<Mount>, node: &Arc<Node>) -> Result<Self> {
        let _inode = node.lock.read();
        node.check_alive()?;
        node.handles.fetch_add(1, Ordering::AcqRel);
        Ok(Self {
            mount: mount.near(),
            node: Arc::clone(node),
        })
    }

    /// For a caller who holds the lock of a directory that names the inode: as long as he does, the last name cannot go,
    /// so the inode is alive, and whoever takes that name next sees the handle.
    pub(crate) fn adopt(mount: &Arc<Mount>, node: Arc<Node>) -> Self {
        node.handles.fetch_add(1, Ordering::AcqRel);
        Self {
            mount: mount.near(),
            node,
        }
    }

    pub(crate) fn mount(&self) -> &Arc<Mount> {
        &self.mount
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        // One handle is open, so nobody gives the inode back meanwhile.
        self.node.handles.fetch_add(1, Ordering::AcqRel);
        Self {
            mount: self.mount.near(),
            node: Arc::clone(&self.node),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Whoever takes the last name marks the inode before he looks for handles, and this handle goes before the mark is
        // looked for: at least one of the two sees that it is over.
        if self.node.handles.fetch_sub(1, Ordering::SeqCst) == 1 {
            last_close(&self.mount, &self.node);
        }
    }
}

/// The last handle is gone: gives reservations back, and the inode, if its names are gone.
fn last_close(mount: &Mount, node: &Arc<Node>) {
    if node.was_opened() {
        let tree = node.tree();
        tree.release_reservations(&mut tree.lock());
    }
    if !node.is_unlinked() {
        return;
    }
    let _writing = mount.core.gates.write.enter();
    let _inode = node.lock.write();
    end_if_unused(mount, node);
}

/// Gives an inode back that has neither name nor handle, unless that has been done. The caller is inside GATE_WRITE and
/// holds the INODE lock exclusively; the inode is on the orphan list if it was marked as unlinked.
pub(crate) fn end_if_unused(mount: &Mount, node: &Arc<Node>) {
    if node.is_open() || !node.is_unlinked() {
        return;
    }
    node.mark_dead();
    // What fails here leaves a listed, dead inode: the next mount gives it back.
    if let Err(error) = reclaim(mount, node, Listed::Yes, Remains::none(node)) {
        mount.core.report(error);
    }
}

/// Files with more than this are stripped of their blocks when the directory is free again: finding them takes a while.
const STRIPPED_AT_ONCE: u32 = (64 << 20) / 512;

/// What a dead file had, as far as it has let go of it.
#[must_use = "what was detached must be freed"]
pub(crate) struct Remains<'a> {
    node: &'a Node,
    detached: Option<Result<Detached>>,
}

impl<'a> Remains<'a> {
    /// The file still has everything.
    pub(crate) fn none(node: &'a Node) -> Self {
        Self {
            node,
            detached: None,
        }
    }

    /// The fence of the epoch in which the file was stripped, unless it has been.
    pub(crate) fn fence(&self) {
        let fenced = matches!(&self.detached, Some(Ok(detached)) if !detached.is_empty());
        if !fenced {
            self.node.record().pmem().fence();
        }
    }
}

/// Takes the blocks from a dead file, if they are few. Call [`Remains::fence`] next. The caller holds the INODE lock
/// exclusively, and the file's death is durable.
pub(crate) fn strip(node: &Node) -> Remains<'_> {
    node.mark_dead();
    node.forget_contents();
    let few = node.record().sectors() <= STRIPPED_AT_ONCE;
    Remains {
        node,
        detached: few.then(|| detach_blocks(node.record())),
    }
}

/// Gives a dead inode back: blocks, attribute block, the place on the orphan list, the number.
///
/// The caller is inside GATE_WRITE and holds the INODE lock exclusively; the links are 0 and the name is gone, durably.
/// The node is dead to everybody else from here on. Bits are cleared last and lazily: a crash leaks them.
///
/// # Errors
/// `Corrupt`: the rest of the blocks stays marked as used, and so does the inode; fsck gives them back.
pub(crate) fn reclaim(
    mount: &Mount,
    node: &Arc<Node>,
    listed: Listed,
    remains: Remains<'_>,
) -> Result<()> {
    node.mark_dead();
    let record = node.record();
    match remains.detached {
        Some(detached) => mount.core.volume.free(detached?),
        None => {
            node.forget_contents();
            free_blocks(record)?;
        }
    }
    xattr::release(record)?;
    mount.inodes.forget(node.ino());
    let core = &mount.core;
    match listed {
        Listed::No => core.volume.free_inode(node.ino(), node.is_dir()),
        // It could not be listed after its death, for damage.
        Listed::Yes if !core.orphans.contains(node.ino()) => {
            core.volume.free_inode(node.ino(), node.is_dir());
        }
        Listed::Yes => free_numbers(core, core.orphans.remove(node.ino())),
    }
    Ok(())
}

/// Gives back the numbers of dead inodes that left the orphan list: a death time each (rule R1), then the bit.
pub(crate) fn free_numbers(core: &Arc<Core>, released: Released) {
    if released.is_empty() {
        return;
    }
    let dead: Vec<_> = released
        .into_iter()
        .filter_map(|ino| Record::new(core, ino).ok())
        .collect();
    for record in &dead {
        record.set_dtime(record.death_time());
        record.flush_line0();
    }
    core.pmem.fence();
    for record in &dead {
        let is_dir = record.file_type() == Ok(FileType::Directory);
        core.volume.free_inode(record.ino(), is_dir);
    }
}

/// Finishes what the last user of the image did not: one member of the orphan list, before any file is served. The caller
/// goes from the tail of the list to its head. Does nothing twice, so a crash in between is just another crash.
///
/// # Errors
/// `Corrupt` if its blocks cannot be read; the member stays listed.
pub(crate) fn recover(mount: &Mount, ino: Ino) -> Result<()> {
    let core = &mount.core;
    let record = Record::new(core, ino)?;
    if record.links() == 0 {
        free_blocks(&record)?;
        xattr::release(&record)?;
        free_numbers(core, core.orphans.remove(ino));
        return Ok(());
    }
    if record.file_type()? == FileType::Regular {
        record.check_contents()?;
        let map = TreeMap::new(Arc::new(record));
        map.cut_to_size()?;
    }
    free_numbers(core, core.orphans.remove(ino));
    Ok(())
}

/// Makes the contents of every file durable that somebody stored to through a mapping.
///
/// # Errors
/// `Io`, the first one met; the other files have been tried.
pub(crate) fn sync_all(mount: &MountParts) -> Result<()> {
    let mut result = Ok(());
    for node in mount.inodes.opened() {
        if let Some(file) = node.opened_file() {
            result = result.and(file.sync(0..u64::MAX));
        }
    }
    result
}

/// Detaches and frees every block of the tree.
pub(crate) fn free_blocks(record: &Record) -> Result<()> {
    record.core().volume.free(detach_blocks(record)?);
    Ok(())
}

/// Detaches every block of the tree; durable, unless there was none.
fn detach_blocks(record: &Record) -> Result<Detached> {
    let tree = record.tree();
    if !has_tree(record)? {
        return Ok(tree.detach_nothing());
    }
    record.check_contents()?;
    tree.detach(&mut tree.lock(), FileBlock(0), FileBlock(u32::MAX))
}

/// Whether `i_block` holds pointers.
fn has_tree(record: &Record) -> Result<bool> {
    Ok(match record.file_type()? {
        FileType::Regular | FileType::Directory => record.sectors() > 0,
        FileType::Symlink => !record.is_fast_symlink(),
        _ => false,
    })
}
