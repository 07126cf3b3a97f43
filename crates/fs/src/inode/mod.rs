//! In-core inodes.
//!
//! | module | holds |
//! |---|---|
//! | `record` | one inode on the medium, read and written in place |
//! | `versions` | what keeps the times of an inode in one piece for readers |
//! | `attr` | what `stat` answers and a caller may set; bodies of new inodes |
//! | `cache` | inode number -> [`Node`], at most one a number |
//! | `blockmap` | what `dax` asks of a file: blocks by get_blocks, sizes by the orders of the crash rules |
//! | `contents` | read, write, append, sync of one regular file |
//! | `ranges` | truncate, punch, zero, allocate, copy, seek, list of its ranges |
//! | `lifetime` | handles, unlinked-open files, giving an inode back |
//! | `handle` | [`Inode`], the inode layer for kernels and FUSE |
//! | `map` | mappings of a file by an embedder's page table |
//!
//! # Invariants
//! At most one [`Node`] lives for an inode number; it leaves the cache before the number can be used again. A node that
//! is dead stays dead: a new file of the same number gets a new node.
//!
//! # Locking
//! `Node::lock` is the INODE lock (rank 40, ordered by number): shared to read contents, exclusive to write, truncate,
//! punch, or change names and attributes. `Node::file` and the shards of the cache are leaves (rank TABLE).

pub(crate) mod attr;
mod blockmap;
pub(crate) mod cache;
mod contents;
mod handle;
pub(crate) mod lifetime;
mod map;
mod ranges;
pub(crate) mod record;
mod versions;

use alloc::sync::Arc;
use core::fmt;

use ext2dax_dax::DaxFile;
use ext2dax_format::{Error, FileType, Ino, InodeFlags, Result};
use ext2dax_getblock::BlockTree;
use ext2dax_sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use ext2dax_sync::{RwLock, rank};

pub use attr::{Attributes, SetAttributes};
pub use handle::Inode;
pub use map::{Map, Window};
pub use ranges::Fallocate;

pub(crate) use blockmap::TreeMap;
pub(crate) use cache::Inodes;
pub(crate) use contents::Position;
pub(crate) use record::Record;
pub(crate) use versions::Versions;

use crate::dir;
use crate::mount::Core;

/// Where an in-core inode stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Life {
    /// It has a name, or is about to get its first.
    Linked = 0,
    /// No name is left, but handles are; it is on the orphan list.
    Unlinked = 1,
    /// It has never had a name and may get one; otherwise as `Unlinked`.
    Nameless = 3,
    /// Gone. Whoever still holds the node gets an error.
    Dead = 2,
}

/// One in-core inode. See the module's documentation. On cache lines of its own: directories that different threads work in must
/// not meet at the counts of their locks.
#[repr(align(64))]
pub(crate) struct Node {
    record: Arc<Record>,
    file_type: FileType,
    /// The INODE lock. What it holds besides is the name index of a directory.
    pub(crate) lock: RwLock<dir::Slot>,
    /// The contents as memory, made when a regular file is first opened.
    file: RwLock<Option<Arc<DaxFile<TreeMap>>>>,
    /// Whether they have been made; set before anybody has them.
    opened: AtomicBool,
    /// Open handles; a view counts as one.
    handles: AtomicU32,
    life: AtomicU8,
    /// Looked up since the cache last went by.
    recent: AtomicBool,
    /// A way that is remembered may lead through this directory.
    passed: AtomicBool,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("ino", &self.ino())
            .field("type", &self.file_type)
            .finish_non_exhaustive()
    }
}

impl Node {
    fn new(record: Record, file_type: FileType) -> Self {
        let ino = record.ino();
        Self {
            file_type,
            record: Arc::new(record),
            lock: RwLock::with_order(rank::INODE, u64::from(ino.get()), dir::Slot::default()),
            file: RwLock::new(rank::TABLE, None),
            opened: AtomicBool::new(false),
            handles: AtomicU32::new(0),
            life: AtomicU8::new(Life::Linked as u8),
            recent: AtomicBool::new(true),
            passed: AtomicBool::new(false),
        }
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.record.core()
    }

    pub(crate) fn ino(&self) -> Ino {
        self.record.ino()
    }

    pub(crate) fn generation(&self) -> u32 {
        self.record.generation()
    }

    pub(crate) fn file_type(&self) -> FileType {
        self.file_type
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }

    pub(crate) fn tree(&self) -> &BlockTree {
        self.record.tree()
    }

    /// Whether handles are open. That none is holds while the caller has `lock` exclusively, and the lock of the directory
    /// that names the inode, if one does; the last one may go at any time.
    pub(crate) fn is_open(&self) -> bool {
        self.handles.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.life.load(Ordering::Acquire) == Life::Dead as u8
    }

    /// Whether no name is left, or there never was one, but handles are.
    pub(crate) fn is_unlinked(&self) -> bool {
        let life = self.life.load(Ordering::SeqCst);
        life == Life::Unlinked as u8 || life == Life::Nameless as u8
    }

    /// Whether it has no name and may get its first.
    pub(crate) fn is_nameless(&self) -> bool {
        self.life.load(Ordering::SeqCst) == Life::Nameless as u8
    }

    /// It is made without a name. Nobody else knows it yet.
    pub(crate) fn mark_nameless(&self) {
        self.life.store(Life::Nameless as u8, Ordering::SeqCst);
    }

    /// It has got its first name. The caller holds `lock` exclusively.
    pub(crate) fn mark_linked(&self) {
        self.life.store(Life::Linked as u8, Ordering::SeqCst);
    }

    /// No name is left; the orphan list keeps it. The caller holds `lock` exclusively and listed it.
    pub(crate) fn mark_unlinked(&self) {
        self.life.store(Life::Unlinked as u8, Ordering::SeqCst);
    }

    /// Whether a walk has passed it that may be remembered: see `path::ways`.
    pub(crate) fn is_passed(&self) -> bool {
        self.passed.load(Ordering::SeqCst)
    }

    /// The caller holds the lock of the directory that names it.
    pub(crate) fn mark_passed(&self) {
        if !self.passed.load(Ordering::Relaxed) {
            self.passed.store(true, Ordering::SeqCst);
        }
    }

    /// The inode is gone. The caller holds `lock` exclusively.
    pub(crate) fn mark_dead(&self) {
        self.life.store(Life::Dead as u8, Ordering::Release);
    }

    /// Whether its last name is gone. A directory without one has no names of its own any more, and gets none.
    pub(crate) fn is_removed(&self) -> bool {
        self.life.load(Ordering::Acquire) != Life::Linked as u8
    }

    /// # Errors
    /// `NotFound` if the inode is gone.
    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.is_dead() {
            Err(Error::NotFound)
        } else {
            Ok(())
        }
    }

    pub(crate) fn flags(&self) -> InodeFlags {
        self.record.flags()
    }

    /// The contents of a regular file as memory.
    ///
    /// # Errors
    /// `IsADirectory` or `InvalidArgument` if this is no regular file; `ForeignContents` if a flag says that the blocks
    /// are not found by pointers; `Corrupt` if the size exceeds what block pointers reach.
    pub(crate) fn file(&self) -> Result<Arc<DaxFile<TreeMap>>> {
        match self.file_type {
            FileType::Regular => {}
            FileType::Directory => return Err(Error::IsADirectory),
            _ => return Err(Error::InvalidArgument),
        }
        if let Some(file) = &*self.file.read() {
            return Ok(Arc::clone(file));
        }
        self.record.check_contents()?;
        let size = self.record.size();
        TreeMap::check_size(&self.record, size)?;
        let mut slot = self.file.write();
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let map = TreeMap::new(Arc::clone(&self.record));
        let file = Arc::new(DaxFile::new(
            map,
            self.record.pmem().clone(),
            Arc::clone(&self.core().gates),
            size,
        ));
        self.opened.store(true, Ordering::Release);
        *slot = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Lets go of the contents of a dead inode.
    fn forget_contents(&self) {
        if self.was_opened() {
            *self.file.write() = None;
        }
    }

    /// Whether somebody has opened the contents since the inode came into core.
    fn was_opened(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// The contents, if somebody has opened them.
    fn opened_file(&self) -> Option<Arc<DaxFile<TreeMap>>> {
        if !self.was_opened() {
            return None;
        }
        // Also called under the lock of a cache shard, a leaf of the same rank.
        self.file.read_nested().clone()
    }
}
