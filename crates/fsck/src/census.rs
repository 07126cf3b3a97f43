//! What pass 1 counts and the later passes ask for.

use ext2dax_sync::atomic::{AtomicU16, Ordering};

use crate::bits::BitMap;
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

    pub(crate) fn used(self) -> bool {
        self != Self::FREE
    }

    /// The type byte that an entry of this inode has.
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

/// One directory. Parents are learnt in pass 2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dir {
    pub(crate) ino: u32,
    /// Directory that has an entry for it; 0 if none has.
    pub(crate) parent: u32,
    /// Where its `..` leads; 0 if there is none.
    pub(crate) dotdot: u32,
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

/// The state that the passes share.
#[derive(Debug)]
pub(crate) struct Census {
    /// Blocks that something claims.
    pub(crate) claimed: BitMap,
    /// Blocks that are claimed more than once.
    pub(crate) shared: BitMap,
    /// A byte an inode, a vector a group; empty where a group has no inode in use.
    kinds: Vec<Vec<u8>>,
    inodes_per_group: u32,
    /// Entries that lead to each inode.
    links: Vec<AtomicU16>,
    /// In the order of their numbers.
    pub(crate) dirs: Vec<Dir>,
    pub(crate) counts: Counts,
}

impl Census {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            claimed: BitMap::new(layout.blocks.into()),
            shared: BitMap::new(layout.blocks.into()),
            kinds: vec![Vec::new(); layout.groups as usize],
            inodes_per_group: layout.inodes_per_group,
            links: (0..=layout.inodes).map(|_| AtomicU16::new(0)).collect(),
            dirs: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub(crate) fn set_group(&mut self, group: u32, kinds: Vec<u8>) {
        if let Some(slot) = self.kinds.get_mut(group as usize) {
            *slot = kinds;
        }
    }

    pub(crate) fn group_kinds(&self, group: u32) -> &[u8] {
        self.kinds.get(group as usize).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn kind(&self, ino: u32) -> Kind {
        let Some(index) = ino.checked_sub(1) else {
            return Kind::FREE;
        };
        let kinds = self.group_kinds(index / self.inodes_per_group);
        kinds
            .get((index % self.inodes_per_group) as usize)
            .map_or(Kind::FREE, |&kind| Kind(kind))
    }

    /// Claims a block and remembers if somebody else had it.
    pub(crate) fn claim(&self, block: u32) -> bool {
        let taken = self.claimed.set(block);
        if taken {
            self.shared.set(block);
        }
        taken
    }

    /// One more entry leads to `ino`. The count stays at its largest value once it is there.
    pub(crate) fn add_link(&self, ino: u32) {
        if let Some(links) = self.links.get(ino as usize)
            && links.fetch_add(1, Ordering::Relaxed) == u16::MAX
        {
            links.store(u16::MAX, Ordering::Relaxed);
        }
    }

    pub(crate) fn links(&self, ino: u32) -> u16 {
        self.links
            .get(ino as usize)
            .map_or(0, |links| links.load(Ordering::Relaxed))
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
            self.dir(ino).map_or(0, |dir| dir.parent)
        }
    }
}
