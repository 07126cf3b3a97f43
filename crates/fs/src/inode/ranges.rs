//! Ranges of regular files: truncate, punch, zero, allocate, copy, seek, list.
//!
//! # Locking
//! As in `contents`. A copy takes the INODE locks of both files, in the order of their numbers.

use alloc::vec::Vec;
use core::ops::Range;

use ext2dax_dax::{DaxFile, FileExtent};
use ext2dax_format::{Error, InodeFlags, Result};

use super::contents::Position;
use super::{Node, TreeMap};

/// What fallocate(2) can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallocate {
    /// Every hole of the range becomes zeroes with blocks; the file grows if it must. Mode 0.
    Allocate,
    /// The same, but the size stays (`KEEP_SIZE`): only inside the file, since a block past the end is no clean state of
    /// ext2. Linux grows such a file's space; here it is `NotSupported`.
    AllocateKeepSize,
    /// The range becomes a hole, as far as it lies inside the file (`PUNCH_HOLE`).
    PunchHole,
    /// The range reads zero, its blocks stay; the file grows if it must (`ZERO_RANGE`).
    ZeroRange,
    /// The same, inside the file only (`ZERO_RANGE`, `KEEP_SIZE`).
    ZeroRangeKeepSize,
    /// Takes the range out of the file: always `NotSupported`. Between two stores a block would have two owners.
    CollapseRange,
    /// Makes room in the file: always `NotSupported`.
    InsertRange,
}

impl Fallocate {
    /// From the `mode` of Linux's system call.
    ///
    /// # Errors
    /// `NotSupported` for a combination that Linux refuses, too, and for bits that mean nothing here.
    pub fn from_linux_mode(mode: u32) -> Result<Self> {
        Ok(match mode {
            0 => Self::Allocate,
            0x01 => Self::AllocateKeepSize,
            0x03 => Self::PunchHole,
            0x08 => Self::CollapseRange,
            0x10 => Self::ZeroRange,
            0x11 => Self::ZeroRangeKeepSize,
            0x20 => Self::InsertRange,
            _ => return Err(Error::NotSupported),
        })
    }
}

impl Node {
    /// Cuts the file off at `size`, or extends it with a hole.
    ///
    /// # Errors
    /// As for writes; `FileTooLarge` past the limit.
    pub(crate) fn set_len(&self, file: &DaxFile<TreeMap>, size: u64) -> Result<()> {
        self.change(|| {
            if self.flags().contains(InodeFlags::APPEND) {
                return Err(Error::NotPermitted);
            }
            file.truncate(size)
        })
    }

    /// Makes the bytes of `range` a hole, as far as they lie inside the file: whole blocks are given back, the
    /// edges zeroed.
    pub(crate) fn punch_hole(&self, file: &DaxFile<TreeMap>, range: Range<u64>) -> Result<()> {
        let Range { start, end } = range;
        check_range(&range)?;
        self.change(|| {
            if self.flags().contains(InodeFlags::APPEND) {
                return Err(Error::NotPermitted);
            }
            file.punch(start..end.min(file.size()).max(start))
        })
    }

    /// Makes the bytes of `range` read zero; blocks stay. Past the end the file grows.
    pub(crate) fn zero_range(&self, file: &DaxFile<TreeMap>, range: Range<u64>) -> Result<()> {
        let Range { start, end } = range;
        check_range(&range)?;
        self.change(|| {
            if self.flags().contains(InodeFlags::APPEND) {
                return Err(Error::NotPermitted);
            }
            if end > file.size() {
                file.truncate(end)?;
            }
            file.zero_range(start..end)
        })
    }

    /// Gives every block of the range a place on the medium, zeroed; past the end the file grows first, since blocks
    /// past the end are not a clean state of ext2.
    pub(crate) fn allocate_range(&self, file: &DaxFile<TreeMap>, range: Range<u64>) -> Result<()> {
        let Range { start, end } = range;
        check_range(&range)?;
        self.change(|| {
            let before = file.size();
            if end > before {
                file.truncate(end)?;
            }
            file.allocate_range(start..end).inspect_err(|_| {
                // What could not be allocated must not look as if it had been.
                let _ = file.truncate(before.min(file.size()));
            })
        })
    }

    /// fallocate(2), with what ext2 can express.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty range; `NotSupported` for what leaves blocks past the end of the file or moves
    /// bytes; `FileTooLarge` past the limit; `NotPermitted` by flags. Nothing has changed then.
    pub(crate) fn fallocate(
        &self,
        file: &DaxFile<TreeMap>,
        how: Fallocate,
        range: Range<u64>,
    ) -> Result<()> {
        if range.is_empty() {
            return Err(Error::InvalidArgument);
        }
        if range.end > file.max_size() && how != Fallocate::PunchHole {
            return Err(Error::FileTooLarge);
        }
        let inside = |change: &dyn Fn() -> Result<()>| {
            self.change(|| {
                if self.flags().contains(InodeFlags::APPEND) && how != Fallocate::AllocateKeepSize {
                    Err(Error::NotPermitted)
                } else if range.end > file.size() {
                    Err(Error::NotSupported)
                } else {
                    change()
                }
            })
        };
        match how {
            Fallocate::Allocate => self.allocate_range(file, range),
            Fallocate::ZeroRange => self.zero_range(file, range),
            Fallocate::PunchHole => self.punch_hole(file, range),
            Fallocate::AllocateKeepSize => inside(&|| file.allocate_range(range.clone())),
            Fallocate::ZeroRangeKeepSize => inside(&|| file.zero_range(range.clone())),
            Fallocate::CollapseRange | Fallocate::InsertRange => Err(Error::NotSupported),
        }
    }

    /// What every change of contents but a write begins and ends with.
    fn change(&self, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let core = self.core();
        core.writable()?;
        let _writing = core.gates.write.enter();
        let _inode = self.lock.write();
        self.check_alive()?;
        if self.flags().contains(InodeFlags::IMMUTABLE) {
            return Err(Error::NotPermitted);
        }
        // Fences are the operation's own, and its times ride on them.
        change()
    }

    /// The first byte of data at or behind `pos`.
    ///
    /// # Errors
    /// `NoSuchOffset` if there is none, as at and past the end.
    pub(crate) fn seek_data(&self, file: &DaxFile<TreeMap>, pos: u64) -> Result<u64> {
        let _inode = self.lock.read();
        file.seek_data(pos)
    }

    /// The first byte of a hole at or behind `pos`; the end of the file counts as one.
    ///
    /// # Errors
    /// `NoSuchOffset` at and past the end.
    pub(crate) fn seek_hole(&self, file: &DaxFile<TreeMap>, pos: u64) -> Result<u64> {
        let _inode = self.lock.read();
        file.seek_hole(pos)
    }

    /// Copies `len` bytes from `pos` of `file` to `to_pos` of another file, or of the same, as copy_file_range(2) does:
    /// one write for other writers, and nothing that changes the source comes in between. The answer is how many.
    ///
    /// # Errors
    /// `InvalidArgument` if the two ranges of one file meet; `Overflow` if one ends past 2^64; else as for writes.
    pub(crate) fn copy_range(
        &self,
        file: &DaxFile<TreeMap>,
        pos: u64,
        (to, to_file): (&Self, &DaxFile<TreeMap>),
        to_pos: u64,
        len: u64,
    ) -> Result<u64> {
        if pos.checked_add(len).is_none() || to_pos.checked_add(len).is_none() {
            return Err(Error::Overflow);
        }
        let core = self.core();
        core.writable()?;
        let done = {
            let _writing = core.gates.write.enter();
            // Two inodes in the order of their numbers.
            let _first = (self.ino() < to.ino()).then(|| self.lock.read());
            let _target = to.lock.write();
            let _second = (self.ino() > to.ino()).then(|| self.lock.read());
            self.check_alive()?;
            to.check_writable_at(to_file, Position::At(to_pos))?;
            let len = len.min(file.size().saturating_sub(pos));
            if len == 0 {
                return Ok(0);
            }
            let max = to_file.max_size();
            if to_pos >= max {
                return Err(Error::FileTooLarge);
            }
            let len = len.min(max - to_pos);
            let same = self.ino() == to.ino();
            if same && to_pos + len > pos && to_pos < pos + len {
                return Err(Error::InvalidArgument);
            }
            to_file.copy_range(to_pos, file, pos, len)?
        };
        self.note_access();
        Ok(done)
    }

    /// The extents of a range, at most `max`.
    pub(crate) fn extents(
        &self,
        file: &DaxFile<TreeMap>,
        range: Range<u64>,
        max: usize,
    ) -> Result<Vec<FileExtent>> {
        let _inode = self.lock.read();
        self.check_alive()?;
        file.extents(range, max)
    }
}

fn check_range(range: &Range<u64>) -> Result<()> {
    if range.start <= range.end {
        Ok(())
    } else {
        Err(Error::InvalidArgument)
    }
}
