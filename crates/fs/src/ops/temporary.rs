//! Temporary links: a second name for a file whose last name is about to lead elsewhere.
//!
//! When a rename replaces the last name of a file, one store takes the name from the old file and gives it to the new
//! one. Around that store the old file must be neither nameless and alive (checkers ask a human then) nor dead under its
//! own name (the name would be lost, and a rename promises that the target always exists). So it first gets a temporary
//! link, which holds it until it is dead.
//!
//! These links live in one block of `lost+found`, cut into empty entries of fixed size once, so that a link is made and
//! removed by one store of an inode number, and operations do not meet at the directory's lock. The block belongs to no
//! listing and no look-up while the file system is mounted; between mounts it is a block of empty entries.
//!
//! # Locking
//! The free list is a leaf (rank TABLE). Setting the block up takes the locks of the root and of `lost+found` and happens
//! with no other lock held.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use ext2dax_format::{Error, FileType, Ino, Result};
use ext2dax_pmem::{Off, Pmem};
use ext2dax_sync::atomic::{AtomicU32, Ordering};
use ext2dax_sync::{Condvar, Mutex, rank};
use zerocopy::little_endian::U32;

use super::New;
use crate::dir::Dir;
use crate::inode::Node;
use crate::mount::Mount;
use crate::slots::Mark;

/// Bytes of each entry: a line of its own, so that operations do not share one.
pub(crate) const ENTRY: u32 = 64;

/// The temporary links of a mounted file system.
pub(crate) struct Temporaries {
    block: Mutex<Option<Block>>,
    returned: Condvar,
    /// The inode of the `lost+found` that has the block; 0 without one. Changes under that directory's lock.
    home: AtomicU32,
}

struct Block {
    /// Where the block lies in the region.
    at: u64,
    free: Vec<Place>,
    used: usize,
}

/// An entry of the block, the type that stands in it, and the slot that may still speak of it.
#[derive(Debug)]
struct Place {
    index: u32,
    kind: u8,
    mark: Mark,
}

/// A temporary link that the holder may use. Given back by [`Temporary::clear`] or when dropped; then it must not lead
/// anywhere.
pub(super) struct Temporary<'a> {
    owner: &'a Temporaries,
    pmem: &'a Pmem,
    at: u64,
    place: Place,
}

impl fmt::Debug for Temporaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Temporaries").finish_non_exhaustive()
    }
}

impl Temporaries {
    pub(crate) const fn new() -> Self {
        Self {
            block: Mutex::new(rank::TABLE, None),
            returned: Condvar::new(),
            home: AtomicU32::new(0),
        }
    }

    /// A link nobody else uses; `None` if the block has not been set up: see [`set_up`]. Waits while all are in use:
    /// whoever has one has all the locks it needs.
    pub(super) fn take<'a>(&'a self, pmem: &'a Pmem) -> Option<Temporary<'a>> {
        let mut guard = self.block.lock();
        loop {
            let block = guard.as_mut()?;
            if let Some(place) = block.free.pop() {
                block.used += 1;
                let at = block.at + u64::from(place.index * ENTRY);
                return Some(Temporary {
                    owner: self,
                    pmem,
                    at,
                    place,
                });
            }
            guard = self.returned.wait(guard);
        }
    }

    fn give_back(&self, place: Place) {
        let mut guard = self.block.lock();
        if let Some(block) = guard.as_mut() {
            block.free.push(place);
            block.used -= 1;
        }
        drop(guard);
        self.returned.notify_one();
    }

    /// `dir`, which may be `lost+found`, is about to be removed. The caller holds its lock exclusively.
    ///
    /// # Errors
    /// `Busy` if a link is in use.
    pub(super) fn retire(&self, dir: &Node) -> Result<()> {
        // Every removal of a directory comes here: only that of `lost+found` meets others.
        if self.home.load(Ordering::Relaxed) != dir.ino().get() {
            return Ok(());
        }
        let mut guard = self.block.lock();
        if guard.as_ref().is_some_and(|block| block.used > 0) {
            return Err(Error::Busy);
        }
        *guard = None;
        self.home.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// Finds or makes `lost+found` and a block of empty entries in it. The caller holds no lock.
///
/// # Errors
/// `NoSpace`, `NoInodes` if it must be made or grown; `NotADirectory` if the name is taken by something else.
pub(super) fn set_up(mount: &Arc<Mount>) -> Result<()> {
    let core = &mount.core;
    let root = mount.inodes.get(core, Ino::ROOT)?;
    let lost_found = match super::lookup(mount, &root, b"lost+found") {
        Err(Error::NotFound) => {
            let new = New {
                mode: 0o700,
                ..New::default()
            };
            match super::mkdir(mount, &root, b"lost+found", &new) {
                Err(Error::AlreadyExists) => super::lookup(mount, &root, b"lost+found")?,
                made => Arc::clone(made?.node()),
            }
        }
        found => found?,
    };
    let _writing = core.gates.write.enter();
    let mut dir = Dir::lock(core, &lost_found)?;
    if mount.temporaries.block.lock().is_some() {
        return Ok(());
    }
    let at = dir.reserve_hidden_block(dir.kind(FileType::Regular))?;
    let free = (0..core.geometry.block_size() / ENTRY)
        .rev()
        .map(|index| Place {
            index,
            kind: dir.kind(FileType::Regular),
            mark: Mark::default(),
        })
        .collect();
    let block = Block { at, free, used: 0 };
    *mount.temporaries.block.lock() = Some(block);
    let home = &mount.temporaries.home;
    home.store(lost_found.ino().get(), Ordering::Relaxed);
    Ok(())
}

impl Temporary<'_> {
    /// The slot that may still speak of the entry.
    pub(super) fn mark(&self) -> &Mark {
        &self.place.mark
    }

    /// Where the entry lies in the region.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Sets the entry's type, out of sight. Flushed, not fenced.
    pub(super) fn prepare(&mut self, kind: u8) {
        if self.place.kind == kind {
            return;
        }
        let at: Off<u8> = Off::new(self.at + 7);
        self.pmem.store(at, kind);
        self.pmem.flush(at.at(), 1);
        self.place.kind = kind;
    }

    /// Lets the link lead to `ino`. Flushed, not fenced.
    pub(super) fn publish(&self, ino: Ino) {
        // PUBLISH: the file has a second name. Before: an empty entry, and a count one too high. After: both names.
        self.store(ino.get());
    }

    /// Lets the link lead nowhere. Flushed, not fenced.
    pub(super) fn clear(&self) {
        // PUBLISH: the temporary name goes. Before: a name of a dead inode, or one of several. After: an empty entry.
        self.store(0);
    }

    fn store(&self, ino: u32) {
        let at: Off<U32> = Off::new(self.at);
        self.pmem.store(at, U32::new(ino));
        self.pmem.flush(at.at(), 4);
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let free = Place {
            index: self.place.index,
            kind: self.place.kind,
            mark: core::mem::take(&mut self.place.mark),
        };
        self.owner.give_back(free);
    }
}

impl fmt::Debug for Temporary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Temporary")
            .field("at", &self.at)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
