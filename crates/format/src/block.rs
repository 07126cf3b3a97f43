//! Checked numbers: blocks of the image, blocks of a file, inodes, groups, runs.

use core::fmt;
use core::num::NonZeroU32;

/// A block of the image, known to lie inside the file system. Only [`Geometry`](crate::Geometry) makes one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FsBlock(u32);

impl FsBlock {
    pub(crate) const fn checked(raw: u32) -> Self {
        Self(raw)
    }

    /// The number as it stands in block pointers and descriptors.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for FsBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FsBlock({})", self.0)
    }
}

impl fmt::Display for FsBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A logical block of a file, counted from its start in units of the block size. Any value is legal to hold; whether a
/// block tree reaches it is [`indirect::path`](crate::indirect::path)'s answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileBlock(pub u32);

impl fmt::Display for FileBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An inode number: not zero and not above `s_inodes_count`. Only [`Geometry`](crate::Geometry) makes one, but for the
/// constants, which every geometry allows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(NonZeroU32);

impl Ino {
    /// The bad-blocks inode.
    pub const BAD_BLOCKS: Self = Self::constant(1);
    /// The root directory.
    pub const ROOT: Self = Self::constant(2);
    /// Reserved for a boot loader.
    pub const BOOT_LOADER: Self = Self::constant(5);
    /// The inode that owns the reserved descriptor blocks (`resize_inode`).
    pub const RESIZE: Self = Self::constant(7);
    /// The journal, which this project leaves untouched.
    pub const JOURNAL: Self = Self::constant(8);

    const fn constant(raw: u32) -> Self {
        match NonZeroU32::new(raw) {
            Some(raw) => Self(raw),
            None => panic!("a reserved inode number is not zero"),
        }
    }

    pub(crate) const fn checked(raw: NonZeroU32) -> Self {
        Self(raw)
    }

    /// The number as it stands in directory entries; at least 1.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Debug for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ino({})", self.0)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block group, less than the number of groups. Only [`Geometry`](crate::Geometry) makes one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupNr(u32);

impl GroupNr {
    /// Group 0, which every file system has.
    pub const FIRST: Self = Self(0);

    pub(crate) const fn checked(raw: u32) -> Self {
        Self(raw)
    }

    /// The number, counted from 0.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number as an index of a table with one element a group.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for GroupNr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupNr({})", self.0)
    }
}

impl fmt::Display for GroupNr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `len` consecutive blocks of the image from `start` on, all of them inside the file system.
///
/// # Invariants
/// `start + len` is at most `s_blocks_count`. [`Geometry::fs_run`](crate::Geometry::fs_run) checks it; a part of a run
/// (see [`Run::split`]) keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The first block.
    pub start: FsBlock,
    /// How many blocks there are.
    pub len: u32,
}

impl Run {
    /// One block.
    #[must_use]
    pub const fn single(block: FsBlock) -> Self {
        Self {
            start: block,
            len: 1,
        }
    }

    /// The number after the last block: at most `s_blocks_count`, so not always a block itself.
    #[must_use]
    pub const fn end(self) -> u32 {
        self.start.0.saturating_add(self.len)
    }

    /// Whether there is no block in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whether `block` is one of the blocks.
    #[must_use]
    pub const fn contains(self, block: FsBlock) -> bool {
        block.0 >= self.start.0 && block.0 < self.end()
    }

    /// Whether the two runs share a block.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end() && other.start.0 < self.end()
    }

    /// Block number `index` of the run, `None` past its end.
    #[must_use]
    pub const fn get(self, index: u32) -> Option<FsBlock> {
        if index < self.len {
            Some(FsBlock(self.start.0.saturating_add(index)))
        } else {
            None
        }
    }

    /// The first `at` blocks and the rest. With `at` at or past the end the second part is empty.
    #[must_use]
    pub const fn split(self, at: u32) -> (Self, Self) {
        let at = if at < self.len { at } else { self.len };
        let head = Self {
            start: self.start,
            len: at,
        };
        let rest = Self {
            start: FsBlock(self.start.0.saturating_add(at)),
            len: self.len.saturating_sub(at),
        };
        (head, rest)
    }

    /// The blocks, lowest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = FsBlock> + ExactSizeIterator {
        (self.start.0..self.end()).map(FsBlock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = Run {
        start: FsBlock(10),
        len: 4,
    };

    #[test]
    fn split_keeps_every_block_once() {
        for at in 0..6 {
            let (head, rest) = RUN.split(at);
            let both: Vec<u32> = head.iter().chain(rest.iter()).map(FsBlock::get).collect();
            assert_eq!(both, [10, 11, 12, 13], "split at {at}");
        }
    }

    #[test]
    fn a_run_is_half_open() {
        assert!(
            RUN.contains(FsBlock(13)) && !RUN.contains(FsBlock(14)) && !RUN.contains(FsBlock(9))
        );
        assert!(!RUN.overlaps(Run {
            start: FsBlock(14),
            len: 1
        }));
        assert!(RUN.overlaps(Run {
            start: FsBlock(13),
            len: 9
        }));
        assert_eq!((RUN.get(3), RUN.get(4)), (Some(FsBlock(13)), None));
    }
}
