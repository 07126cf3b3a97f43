//! What pass 1 counts and the later passes ask for.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::Error;
use crate::bits::{BitMap, zeroed};
use crate::inodes::Inodes;
use crate::layout::{Layout, ROOT_INO};

/// What an inode is, in one byte. The numbers 1 to 7 are the file types of directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(pub(crate) u8);

impl Kind {
    pub(crate) const FREE: Self = Self(0);
    pub(crate) const REGULAR: Self = Self(1);
    pub(crate) const DIRECTORY: Self = Self(2);
    pub(crate) const CHAR: Self = Self(3);
    pub(crate) const BLOCK: Self = Self(4);
    pub(crate) const FIFO: Self = Self(5);
    pub(crate) const SOCKET: Self = Self(6);
    pub(crate) const SYMLINK: Self = Self(7);
    /// In use, with a mode or fields that fit no type.
    pub(crate) const BAD: Self = Self(8);
    /// In use by its number alone (reserved inodes).
    pub(crate) const RESERVED: Self = Self(9);

    #[inline]
    pub(crate) fn used(self) -> bool {
        self != Self::FREE
    }

    /// The type byte that an entry of this inode has.
    #[inline]
    pub(crate) fn entry_type(self) -> u8 {
        if self.0 < 8 { self.0 } else { 0 }
    }

    /// The kind that a mode names.
    pub(crate) fn of_mode(mode: u16) -> Self {
        match mode >> 12 {
            8 => Self::REGULAR,
            4 => Self::DIRECTORY,
            2 => Self::CHAR,
            6 => Self::BLOCK,
            1 => Self::FIFO,
            12 => Self::SOCKET,
            10 => Self::SYMLINK,
            _ => Self::BAD,
        }
    }
}

/// One directory. Parents are learnt in pass 2, by all threads at once.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) ino: u32,
    /// Directory that has an entry for it; [`NOBODY`] if none has.
    parent: AtomicU32,
    /// Where its `..` leads; 0 if there is none.
    dotdot: AtomicU32,
}

/// No directory has this number as its inode: it stands where a parent is not known.
const NOBODY: u32 = u32::MAX;

impl Dir {
    pub(crate) fn new(ino: u32) -> Self {
        Self {
            ino,
            parent: AtomicU32::new(NOBODY),
            dotdot: AtomicU32::new(0),
        }
    }

    /// The directory that has an entry for it; 0 if none has.
    pub(crate) fn parent(&self) -> u32 {
        match self.parent.load(Ordering::Relaxed) {
            NOBODY => 0,
            parent => parent,
        }
    }

    /// `parent` has an entry for it. Of several the lowest number wins, whoever comes first. Says whether it is the only
    /// one so far.
    pub(crate) fn offer_parent(&self, parent: u32) -> bool {
        self.parent.fetch_min(parent, Ordering::Relaxed) == NOBODY
    }

    /// Of several directories that have an entry for it, this is the one.
    pub(crate) fn set_parent(&self, parent: u32) {
        self.parent.store(parent, Ordering::Relaxed);
    }

    pub(crate) fn dotdot(&self) -> u32 {
        self.dotdot.load(Ordering::Relaxed)
    }

    pub(crate) fn set_dotdot(&self, ino: u32) {
        self.dotdot.store(ino, Ordering::Relaxed);
    }
}

/// A reference to an attribute block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct XattrRef {
    pub(crate) block: u32,
    pub(crate) ino: u32,
}

/// Files by type, as `-v` prints them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inodes in use by type: index 1 regular, 2 directory, 3 character device, 4 block device, 5 FIFO, 6 socket,
    /// 7 symbolic link, 8 broken, 9 reserved.
    pub kinds: [u64; 10],
    /// Symbolic links inside their inode.
    pub fast_symlinks: u64,
    /// Files that are not in one run of blocks.
    pub fragmented: u64,
    /// Regular files of 2 GiB and more.
    pub large: u64,
    /// Inodes with single, double and triple indirect blocks.
    pub indirect: [u64; 3],
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.kinds.iter_mut().zip(other.kinds) {
            *mine += theirs;
        }
        for (mine, theirs) in self.indirect.iter_mut().zip(other.indirect) {
            *mine += theirs;
        }
        self.fast_symlinks += other.fast_symlinks;
        self.fragmented += other.fragmented;
        self.large += other.large;
    }

    /// Inodes in use.
    #[must_use]
    pub fn inodes(&self) -> u64 {
        self.kinds.iter().sum()
    }
}

/// The state that the passes share: two bits a block; a byte and two bits for each thread an inode, and four bytes more
/// where several entries lead to it; twelve bytes a directory. Where no inode is in use and no block claimed, the memory
/// is never touched.
#[derive(Debug)]
pub(crate) struct Census {
    /// Blocks that something claims.
    pub(crate) claimed: BitMap,
    /// Blocks that are claimed more than once.
    pub(crate) shared: BitMap,
    any_shared: AtomicBool,
    pub(crate) inodes: Inodes,
    /// Inodes in use in each group.
    pub(crate) used_in_group: Vec<AtomicU32>,
    /// In the order of their numbers.
    pub(crate) dirs: Vec<Dir>,
    pub(crate) counts: Counts,
    /// How many blocks pass 5 found claimed.
    pub(crate) claimed_count: u64,
}

impl Census {
    /// # Errors
    /// There is not enough memory.
    pub(crate) fn new(layout: &Layout) -> Result<Self, Error> {
        let blocks = u64::from(layout.blocks);
        let new = || {
            Ok(Self {
                // Every group has its own metadata.
                claimed: BitMap::spread(blocks)?,
                shared: BitMap::new(blocks)?,
                any_shared: AtomicBool::new(false),
                inodes: Inodes::new(layout.inodes)?,
                used_in_group: zeroed(layout.groups.into())?,
                dirs: Vec::new(),
                counts: Counts::default(),
                claimed_count: 0,
            })
        };
        new().map_err(|_: Error| Self::no_memory(layout))
    }

    /// What a check of this file system needs.
    pub(crate) fn no_memory(layout: &Layout) -> Error {
        let (blocks, inodes) = (u64::from(layout.blocks), u64::from(layout.inodes));
        let needed = blocks / 4 + 6 * inodes + 4 * u64::from(layout.groups);
        Error::NoMemory { needed }
    }

    /// More inodes of a group are in use.
    pub(crate) fn add_used_in_group(&self, group: u32, count: u32) {
        if let Some(slot) = self.used_in_group.get(group as usize) {
            slot.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn used_in_group(&self, group: u32) -> u32 {
        let count = self.used_in_group.get(group as usize);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn kind(&self, ino: u32) -> Kind {
        self.inodes.kind(ino)
    }

    /// The inodes in use of a group, with what they are.
    pub(crate) fn used_inodes<'c>(
        &'c self,
        layout: &Layout,
        group: u32,
    ) -> impl Iterator<Item = (u32, Kind)> + use<'c> {
        let first = layout.first_ino_of(group);
        let count = match self.used_in_group(group) {
            0 => 0,
            _ => layout.inodes_per_group,
        };
        (first..)
            .zip(self.inodes.kinds(first, count))
            .filter(|(_, kind)| kind.used())
    }

    /// Claims a block and remembers if somebody else had it.
    #[inline]
    pub(crate) fn claim(&self, block: u32) -> bool {
        let taken = self.claimed.set(block);
        if taken {
            self.shared.set(block);
            self.any_shared.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// Claims a run of blocks of the file system.
    #[inline]
    pub(crate) fn claim_run(&self, first: u32, len: u32) {
        self.claimed.set_run(first, len, |at, bits| {
            for i in (0..64).filter(|i| bits >> i & 1 != 0) {
                self.shared.set(crate::layout::saturate(at + i));
            }
            self.any_shared.store(true, Ordering::Relaxed);
        });
    }

    /// Whether any block is claimed more than once.
    pub(crate) fn has_shared(&self) -> bool {
        self.any_shared.load(Ordering::Relaxed)
    }

    pub(crate) fn dir_index(&self, ino: u32) -> Option<usize> {
        self.dirs.binary_search_by_key(&ino, |dir| dir.ino).ok()
    }

    pub(crate) fn dir(&self, ino: u32) -> Option<&Dir> {
        self.dirs.get(self.dir_index(ino)?)
    }

    /// The parent that pass 2 found; the root is its own.
    pub(crate) fn parent(&self, ino: u32) -> u32 {
        if ino == ROOT_INO {
            ROOT_INO
        } else {
            self.dir(ino).map_or(0, Dir::parent)
        }
    }
}
