//! One inode's tree of blocks, in place.
//!
//! | Module | Does |
//! |---|---|
//! | `lookup` | file block to run, without a lock |
//! | `grow` | new branches: prepared aside, spliced in by single stores |
//! | `cut` | truncate and punch: pointers cleared, blocks detached |
//! | `recent` | runs found lately |
//! | `swing` | a block replaced by another one |
//!
//! # Locking
//! [`BlockTree::lock`] (rank `TREE`) for everything that stores pointers or `i_blocks`. Look-up takes no lock: pointers
//! are single words, loaded with Acquire and checked each time. Whoever takes blocks away keeps readers out by locks of
//! his own (`INVALIDATE` and the entry lock, `faults.md` P6).

mod cut;
mod grow;
mod lookup;
mod recent;
mod swing;

use core::fmt;

use ext2dax_format::{FileBlock, FsBlock, Ino, RawInode, Result, Run};
use ext2dax_pmem::{Off, Pmem, field};
use ext2dax_sync::{Mutex, MutexGuard, rank};
use zerocopy::little_endian::U32;

use self::recent::Recent;
use crate::place::Windows;
use crate::volume::Volume;

pub use grow::Branch;

/// What is behind a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// So many blocks without anything.
    Hole(u32),
    /// Consecutive blocks of the image that were there before.
    Existing(Run),
    /// Consecutive blocks of the image, allocated by this call: zero, durable, published.
    New(Run),
}

impl Mapping {
    /// File blocks it covers, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub const fn len(&self) -> u32 {
        match self {
            Self::Hole(len) => *len,
            Self::Existing(run) | Self::New(run) => run.len,
        }
    }

    /// The blocks, `None` for a hole.
    #[must_use]
    pub const fn run(&self) -> Option<Run> {
        match self {
            Self::Hole(_) => None,
            Self::Existing(run) | Self::New(run) => Some(*run),
        }
    }
}

/// What to take where there is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The block to have if it is free. `None`: behind the previous file block, as ever.
    pub goal: Option<FsBlock>,
    /// May take blocks that are reserved for the superuser.
    pub privileged: bool,
}

/// What [`BlockTree::get_blocks`] is to do about a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Report it.
    Lookup,
    /// Fill it with zero blocks.
    Allocate(Hints),
}

/// One inode's tree. Holds no blocks and no copies: only where the inode stands, and what is reserved for its growth.
pub struct BlockTree {
    volume: Volume,
    ino: Ino,
    at: Off<RawInode>,
    windows: Mutex<Windows>,
    recent: Recent,
}

/// The right to change one tree.
#[must_use = "the tree is unlocked when the guard is dropped"]
#[derive(Debug)]
pub struct TreeGuard<'t>(pub(crate) MutexGuard<'t, Windows>);

impl fmt::Debug for BlockTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockTree")
            .field("ino", &self.ino)
            .finish_non_exhaustive()
    }
}

impl BlockTree {
    /// The tree of an inode whose `i_block` holds pointers: a regular file, a directory, a slow symlink.
    ///
    /// # Errors
    /// `Corrupt`: the inode's group descriptor is damaged.
    pub fn new(volume: &Volume, ino: Ino) -> Result<Self> {
        Ok(Self {
            volume: volume.clone(),
            ino,
            at: volume.inode_offset(ino)?,
            windows: Mutex::with_order(rank::TREE, u64::from(ino.get()), Windows::default()),
            recent: Recent::default(),
        })
    }

    /// The volume.
    #[must_use]
    pub const fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The inode's number.
    #[must_use]
    pub const fn ino(&self) -> Ino {
        self.ino
    }

    /// Where the inode stands.
    #[must_use]
    pub const fn offset(&self) -> Off<RawInode> {
        self.at
    }

    /// Waits for the right to change the tree.
    #[track_caller]
    pub fn lock(&self) -> TreeGuard<'_> {
        TreeGuard(self.windows.lock())
    }

    /// The right to change the tree, if nobody has it.
    #[track_caller]
    pub fn try_lock(&self) -> Option<TreeGuard<'_>> {
        self.windows.try_lock().map(TreeGuard)
    }

    /// Gives back the space reserved in memory for the file's growth: when it is closed.
    pub fn release_reservations(&self, guard: &mut TreeGuard<'_>) {
        guard.0.release(&self.volume);
    }

    /// `i_blocks`: 512-byte sectors in use, indirect blocks and the attribute block included.
    #[must_use]
    pub fn sectors(&self) -> u32 {
        self.pmem().load(self.sectors_off()).get()
    }

    /// Counts blocks that hang off the inode outside the tree: the attribute block. Stored and flushed, not fenced.
    pub fn add_sectors(&self, _guard: &mut TreeGuard<'_>, blocks: i32) {
        let step = i64::from(blocks) * i64::from(self.volume.geometry().sectors_per_block());
        let sectors = (i64::from(self.sectors()) + step).clamp(0, i64::from(u32::MAX));
        self.store_sectors(u32::try_from(sectors).unwrap_or(u32::MAX));
    }

    fn store_sectors(&self, sectors: u32) {
        let at = self.sectors_off();
        self.pmem().store(at, U32::new(sectors));
        self.pmem().flush(at.at(), 4);
    }

    fn sectors_off(&self) -> Off<U32> {
        field!(self.at, RawInode, i_blocks)
    }

    #[inline]
    fn pmem(&self) -> &Pmem {
        self.volume.pmem()
    }

    /// A slot of `i_block`.
    #[inline]
    fn root_slot(&self, index: u32) -> Off<U32> {
        field!(self.at, RawInode, i_block)
            .cast::<U32>()
            .index(u64::from(index))
    }

    /// A slot of an indirect block.
    #[inline]
    fn table_slot(&self, table: FsBlock, index: u32) -> Off<U32> {
        Off::<U32>::new(self.volume.geometry().offset(table)).index(u64::from(index))
    }

    /// A pointer; what it leads to is visible to whoever sees it.
    #[inline]
    fn pointer(&self, slot: Off<U32>) -> u32 {
        self.pmem().load_acquire(slot).get()
    }

    #[inline]
    fn check(&self, raw: u32, at: FileBlock) -> Result<FsBlock> {
        self.volume.check_pointer(raw, self.ino, at.0)
    }
}

impl Drop for BlockTree {
    fn drop(&mut self) {
        self.windows.get_mut().release(&self.volume);
    }
}
