//! Bytes on their way to the medium: neighbours go out together.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use ext2dax_pmem::Pmem;
use rustix::fs::copy_file_range;

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

/// A writer of one thread.
pub(super) struct Out<'a> {
    medium: Medium<'a>,
    bytes: Box<[u8]>,
    /// How many of `bytes` are waiting.
    used: usize,
    /// Where they belong.
    at: u64,
}

impl<'a> Out<'a> {
    pub(super) fn new(medium: Medium<'a>) -> Self {
        Self {
            medium,
            bytes: vec![0; GATHER].into(),
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

    /// Lets the kernel copy, or share blocks where the file system can, as far as it goes: whoever calls does the rest.
    pub(super) fn copy_inside(
        &mut self,
        open: &Open<'_>,
        from: u64,
        to: u64,
        len: u64,
    ) -> io::Result<u64> {
        let (Some((file, offset)), Some((source, from))) =
            (self.medium.file, open.place(from, len))
        else {
            return Ok(0);
        };
        if len < WORTH_A_CALL {
            return Ok(0);
        }
        self.flush()?;
        let mut done = 0;
        while done < len {
            let (mut from, mut to) = (from + done, offset + to + done);
            let step = usize::try_from(len - done).unwrap_or(usize::MAX);
            match copy_file_range(source, Some(&mut from), file, Some(&mut to), step) {
                Ok(0) | Err(_) => break,
                Ok(copied) => done += copied as u64,
            }
        }
        // A piece of a block is for the caller, who pads it.
        Ok(done - done % 4096)
    }

    /// Writes what was gathered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let used = std::mem::take(&mut self.used);
        self.medium.write(self.at, &self.bytes[..used])
    }
}
