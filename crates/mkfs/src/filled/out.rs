//! Bytes on their way to the medium: neighbours go out together.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use ext2dax_pmem::{Buffer, Pmem};
use rustix::fs::{copy_file_range, fstat, fstatfs};

use super::huge::Huge;
use crate::source::Open;

/// Where an image goes.
#[derive(Clone, Copy, Debug)]
pub struct Medium<'a> {
    pmem: &'a Pmem,
    /// The same bytes as a file, and where they start in it.
    file: Option<(&'a File, u64)>,
}

impl<'a> Medium<'a> {
    /// A region of memory.
    #[must_use]
    pub fn memory(pmem: &'a Pmem) -> Self {
        Self { pmem, file: None }
    }

    /// A mapped file behind a page cache, whose region starts at byte `offset` of the file. Bulk data goes through
    /// write calls, which need no page faults.
    #[must_use]
    pub fn file(pmem: &'a Pmem, file: &'a File, offset: u64) -> Self {
        Self {
            pmem,
            file: Some((file, offset)),
        }
    }

    pub(crate) fn pmem(&self) -> &'a Pmem {
        self.pmem
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        match self.file {
            Some((file, offset)) => file.write_all_at(bytes, offset + at),
            None => {
                self.pmem.write_flushed(at, bytes);
                Ok(())
            }
        }
    }
}

/// Copies inside the kernel start at this length.
const WORTH_A_CALL: u64 = 256 << 10;
/// Bytes gathered before they are written.
const GATHER: usize = 512 << 10;

/// Whether bytes are only copied if that is done by sharing blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copying {
    /// By whatever the kernel finds best.
    Any,
    /// By sharing alone, so that a copy costs no time and no room.
    Shared,
}

/// A writer of one thread.
pub(super) struct Out<'a> {
    medium: Medium<'a>,
    huge: &'a Huge,
    bytes: Buffer,
    /// How many of `bytes` are waiting.
    used: usize,
    /// Where they belong.
    at: u64,
}

impl<'a> Out<'a> {
    pub(super) fn new(medium: Medium<'a>, huge: &'a Huge) -> Self {
        Self {
            medium,
            huge,
            bytes: Buffer::new(GATHER),
            used: 0,
            at: 0,
        }
    }

    pub(super) const MAX: usize = GATHER;

    /// Room for `len` zero bytes at `at`, to be filled by the caller before the next call.
    pub(super) fn room(&mut self, at: u64, len: usize) -> io::Result<&mut [u8]> {
        let room = self.dirty_room(at, len)?;
        room.fill(0);
        Ok(room)
    }

    /// Room for `len` bytes at `at`, all of which the caller writes.
    pub(super) fn dirty_room(&mut self, at: u64, len: usize) -> io::Result<&mut [u8]> {
        let end = self.at + self.used as u64;
        if at != end || self.used + len > self.bytes.len() {
            self.flush()?;
            self.at = at;
        }
        let from = self.used;
        self.used += len;
        Ok(&mut self.bytes[from..from + len])
    }

    /// Stores bytes at the start of `len` that are zero, if they have memory already: the rest needs no touch.
    pub(super) fn store(&mut self, at: u64, bytes: &[u8], len: u64) -> bool {
        let has_memory = self.huge.run(at, at + len) == (true, at + len);
        if has_memory {
            self.medium.pmem.write(at, bytes);
        }
        has_memory
    }

    /// Room for bytes that go nowhere.
    pub(super) fn scratch(&mut self, len: usize) -> io::Result<&mut [u8]> {
        self.flush()?;
        Ok(&mut self.bytes[..len])
    }

    /// Lets the kernel copy, or share blocks where the file system can, as far as it goes: whoever calls does the rest.
    pub(super) fn copy_inside(
        &mut self,
        open: &Open<'_>,
        from: u64,
        to: u64,
        len: u64,
        how: Copying,
    ) -> io::Result<u64> {
        // A piece of a block, such as the end of a file, is for the caller, who pads it.
        let whole = len.min(open.len_from(from)) & !4095;
        if whole < WORTH_A_CALL {
            return Ok(0);
        }
        let (Some((file, offset)), Some((source, from))) =
            (self.medium.file, open.place(from, whole))
        else {
            return Ok(0);
        };
        let wanted = match how {
            Copying::Any => !self.huge.run(to, to + whole).0,
            Copying::Shared => share_blocks(source, file),
        };
        if !wanted {
            return Ok(0);
        }
        self.flush()?;
        let mut done = 0;
        while done < whole {
            let (mut from, mut to) = (from + done, offset + to + done);
            let step = usize::try_from(whole - done).unwrap_or(usize::MAX);
            match copy_file_range(source, Some(&mut from), file, Some(&mut to), step) {
                Ok(0) | Err(_) => break,
                Ok(copied) => done += copied as u64,
            }
        }
        Ok(done & !4095)
    }

    /// Writes what was gathered: with stores where nothing can refuse them any more, which several threads can do at once.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let used = std::mem::take(&mut self.used);
        let mut rest = &self.bytes[..used];
        let (mut at, end) = (self.at, self.at + used as u64);
        while !rest.is_empty() {
            let (has_memory, stop) = self.huge.run(at, end);
            let len = usize::try_from(stop - at).expect("at most what was gathered");
            let (now, later) = rest.split_at(len);
            if has_memory {
                self.medium.pmem.write(at, now);
            } else {
                self.medium.write(at, now)?;
            }
            (at, rest) = (stop, later);
        }
        Ok(())
    }
}

/// Whether two files lie on one file system that can have a block in both.
fn share_blocks(source: &File, target: &File) -> bool {
    // Linux magic numbers, statfs(2): XFS, btrfs, bcachefs, OCFS2. One that was made without the ability copies instead.
    const SHARING: [u64; 4] = [0x5846_5342, 0x9123_683e, 0xca45_1a4e, 0x7461_636f];
    let device = |file| fstat(file).map(|stat| stat.st_dev).ok();
    device(source).is_some()
        && device(source) == device(target)
        && fstatfs(target).is_ok_and(|system| {
            u64::try_from(system.f_type).is_ok_and(|magic| SHARING.contains(&magic))
        })
}
