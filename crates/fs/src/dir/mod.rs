//! Directories: linear blocks on the medium, a hash index in memory.
//!
//! | module | holds |
//! |---|---|
//! | `index` | the index of one directory: blocks, names, starts, gaps |
//! | `names` | hash table from a name to its entry |
//! | `gaps` | where there is room for another entry |
//! | `starts` | where entries begin |
//! | `build` | reads a directory and builds its index |
//! | `edit` | writes, publishes and removes single entries |
//! | `replace` | removes one entry and publishes another in one store |
//! | `read` | lists a directory |
//! | `spot` | single entries by their place, for the recovery at mount, without an index |
//! | `hidden` | the block of `lost+found` that holds temporary links |
//!
//! A directory that came with a hash tree is read like any other: its index blocks are, to a linear reader, blocks with
//! one empty entry. Before the first change its index flag is cleared (rule R10 of the crash rules), because a name added
//! behind a stored index would be found by linear readers only.
//!
//! # Invariants
//! An index says exactly what the blocks say, under the directory's INODE lock. It is a cache: dropping it costs time only.
//!
//! # Locking
//! Everything here happens under the INODE lock of the directory: shared to look a name up and to list, exclusive to
//! build the index and to change names.

mod build;
mod edit;
mod gaps;
mod hidden;
mod index;
mod names;
mod read;
mod replace;
mod spot;
mod starts;

use alloc::boxed::Box;

use ext2dax_format::dirent::needed_len;
use ext2dax_format::{Error, FileType, InodeFlags, Result};
use ext2dax_sync::{RwLockWriteGuard, mutant};

use crate::inode::Node;
use crate::mount::Core;

pub(crate) use edit::{Staged, dot_entries};
pub(crate) use index::DirIndex;
pub(crate) use names::Found;
pub use read::{Entry, EntryRef};
pub(crate) use read::{read_dir, visit_dir};
pub(crate) use replace::Edit;
pub(crate) use spot::{Spot, take_in};

/// What the INODE lock of a directory guards besides the inode. Other inodes have an empty one.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    index: Option<Box<DirIndex>>,
}

/// Looks `name` up under the directory's lock, shared, and hands the answer to `then` before the lock goes: whoever turns
/// the number into an inode must do it there, since the number may mean another file afterwards.
///
/// # Errors
/// `NotADirectory`; `NotFound` if there is no such name or the directory has been removed; `Corrupt` if the directory
/// cannot be read.
pub(crate) fn lookup<R>(
    node: &Node,
    name: &[u8],
    then: impl FnOnce(Found) -> Result<R>,
) -> Result<R> {
    if !node.is_dir() {
        return Err(Error::NotADirectory);
    }
    let core = node.core();
    let slot = node.lock.read();
    if let Some(index) = &slot.index {
        check_linked(node)?;
        return then(index.find(core, name).ok_or(Error::NotFound)?);
    }
    drop(slot);
    let dir = Dir::lock(core, node)?;
    then(dir.find(name).ok_or(Error::NotFound)?)
}

/// A directory without a name is empty for good, though it can be open.
fn check_linked(node: &Node) -> Result<()> {
    if node.is_removed() {
        Err(Error::NotFound)
    } else {
        Ok(())
    }
}

/// A directory whose INODE lock is held exclusively, with its index.
#[derive(Debug)]
pub(crate) struct Dir<'a> {
    pub(crate) core: &'a Core,
    pub(crate) node: &'a Node,
    slot: RwLockWriteGuard<'a, Slot>,
}

impl<'a> Dir<'a> {
    /// Locks a directory and sees to its index.
    ///
    /// # Errors
    /// `NotADirectory`; `NotFound` if it has been removed meanwhile; `Corrupt` if it cannot be read.
    pub(crate) fn lock(core: &'a Core, node: &'a Node) -> Result<Self> {
        Self::with_guard(core, node, || node.lock.write())
    }

    /// Locks a directory that is to be removed, inside the lock of the one that names it, and says whether it is empty. For
    /// one that has a single block with `.` and `..` this is seen there, and no index is built.
    ///
    /// # Errors
    /// As [`Dir::lock`].
    pub(crate) fn lock_victim(core: &'a Core, node: &'a Node) -> Result<(Victim<'a>, bool)> {
        if node.is_dir() {
            let slot = node.lock.write_nested();
            check_linked(node)?;
            if slot.index.is_none() && build::is_bare(core, node)? {
                return Ok((Victim(slot), true));
            }
        }
        let dir = Self::lock_nested(core, node)?;
        let is_empty = dir.is_empty();
        Ok((Victim(dir.slot), is_empty))
    }

    /// The same while another directory's lock is held. The caller has seen to the order: parent before child, else by
    /// number.
    pub(crate) fn lock_nested(core: &'a Core, node: &'a Node) -> Result<Self> {
        Self::with_guard(core, node, || node.lock.write_nested())
    }

    fn with_guard(
        core: &'a Core,
        node: &'a Node,
        lock: impl FnOnce() -> RwLockWriteGuard<'a, Slot>,
    ) -> Result<Self> {
        if !node.is_dir() {
            return Err(Error::NotADirectory);
        }
        let mut slot = lock();
        if !mutant("a lock is not followed by another look") {
            check_linked(node)?;
        }
        if slot.index.is_none() {
            slot.index = Some(Box::new(build::index(core, node)?));
        }
        Ok(Self { core, node, slot })
    }

    pub(crate) fn index(&self) -> &DirIndex {
        self.slot
            .index
            .as_deref()
            .expect("made when the directory was locked, dropped only with the directory")
    }

    fn index_mut(&mut self) -> &mut DirIndex {
        self.slot
            .index
            .as_deref_mut()
            .expect("made when the directory was locked, dropped only with the directory")
    }

    /// Finds `name`, `.` and `..` included.
    pub(crate) fn find(&self, name: &[u8]) -> Option<Found> {
        self.index().find(self.core, name)
    }

    /// Whether there is no name but `.` and `..`.
    pub(crate) fn is_empty(&self) -> bool {
        self.index().is_empty()
    }

    /// The lowest block with room for an entry of this name.
    pub(crate) fn block_with_room(&self, name: &[u8]) -> Option<u32> {
        self.index()
            .gaps
            .find(needed_len(name.len()))
            .map(|(block, _)| block)
    }

    /// Whether the directory's flags allow a change: Linux looks at them before it looks at what the name leads to.
    ///
    /// # Errors
    /// `NotPermitted` for an immutable directory, and for one in which names may only be added if `change` removes one.
    pub(crate) fn check_change(&self, change: Change) -> Result<()> {
        let forbidden = match change {
            Change::Add => InodeFlags::IMMUTABLE,
            Change::Remove => InodeFlags::IMMUTABLE | InodeFlags::APPEND,
        };
        if self.node.record().flags().intersects(forbidden) {
            return Err(Error::NotPermitted);
        }
        Ok(())
    }

    /// Must come before the first change of a name: an immutable directory refuses, a stored hash index is given up.
    ///
    /// # Errors
    /// As [`Dir::check_change`].
    pub(crate) fn begin_change(&self, change: Change) -> Result<()> {
        self.check_change(change)?;
        let record = self.node.record();
        let flags = record.flags();
        if self.count() {
            // EPOCH: the count, exact. Before: 1, which stands for more than can be counted as long as there is an index.
            self.core.pmem.fence();
        }
        if flags.contains(InodeFlags::INDEX) {
            // PUBLISH: the stored hash index is given up. Before: a directory with a valid index. After: the same names in
            // the same blocks, linear; index blocks are empty entries.
            record.set_flags(flags - InodeFlags::INDEX);
            record.flush_line0();
            self.core.pmem.fence();
        }
        Ok(())
    }

    /// Gives a directory its count again that the ext4 driver has given up counting (`dir_nlink`): other than with a stored
    /// index nobody expects that. With more subdirectories than it counts to, it stays 1. Flushed; says whether it was.
    pub(crate) fn count(&self) -> bool {
        let record = self.node.record();
        if record.links() != 1 {
            return false;
        }
        let links = u16::try_from(self.subdirectories().saturating_add(2)).unwrap_or(u16::MAX);
        let counted = links <= COUNTED_MAX;
        if counted {
            record.put_links(links);
        }
        counted
    }

    /// The type byte of an entry: 0 without the `filetype` feature.
    pub(crate) fn kind(&self, file_type: FileType) -> u8 {
        if self.core.geometry.has_filetype() {
            file_type.dirent()
        } else {
            0
        }
    }

    /// Forgets the index, when the directory is gone.
    pub(crate) fn forget(mut self) {
        self.slot.index = None;
    }
}

/// A directory that is about to go: its INODE lock, held exclusively.
#[derive(Debug)]
pub(crate) struct Victim<'a>(RwLockWriteGuard<'a, Slot>);

impl Victim<'_> {
    /// Forgets the index, when the directory is gone.
    pub(crate) fn forget(mut self) {
        self.0.index = None;
    }
}

/// The largest link count of a directory that drivers and checkers know; with more, it is 1 (`dir_nlink`).
const COUNTED_MAX: u16 = 65_000;

/// What a change does to a directory's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Names are added, none goes away.
    Add,
    /// A name goes away or leads elsewhere.
    Remove,
}
