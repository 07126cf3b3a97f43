//! Contents of regular files: read, write, append, sync.
//!
//! The calls here are the outer half of the read and write paths: gates, the INODE lock, flags, limits, times. The
//! inner half, blocks and page tables, is `dax`'s.
//!
//! # Locking
//! Changes: GATE_WRITE, then INODE exclusively. Reads: INODE shared and no gate, so that a frozen file system can be read.

use ext2dax_dax::DaxFile;
use ext2dax_format::{Error, InodeFlags, Result};
use ext2dax_pmem::{Persist, UserSlice, UserSliceMut};

use super::record::TimeChange;
use super::{Node, TreeMap};
use crate::options::Atime;

/// Seconds after which a read sets the access time even if nothing was written since.
const ACCESS_TIME_STALE_SECS: i64 = 24 * 60 * 60;

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// At this byte offset.
    At(u64),
    /// At the end of the file, wherever that is when the write has the file to itself.
    End,
}

impl Node {
    /// Reads at most `buf` bytes from `pos` on; fewer only at the end of the file, or where `buf` cannot be written.
    pub(crate) fn read_at(
        &self,
        file: &DaxFile<TreeMap>,
        pos: u64,
        buf: UserSliceMut<'_>,
    ) -> Result<usize> {
        let done = {
            let _inode = self.lock.read();
            self.check_alive()?;
            file.read_at(pos, buf)?
        };
        self.note_access();
        Ok(done)
    }

    /// [`Node::read_at`] into several pieces of memory.
    pub(crate) fn read_vectored_at(
        &self,
        file: &DaxFile<TreeMap>,
        pos: u64,
        bufs: &mut [UserSliceMut<'_>],
    ) -> Result<usize> {
        let done = {
            let _inode = self.lock.read();
            self.check_alive()?;
            file.read_vectored_at(pos, bufs)?
        };
        self.note_access();
        Ok(done)
    }

    /// Sets the access time as Linux's relatime does: if it is not after the last change.
    pub(super) fn note_access(&self) {
        let record = self.record();
        if record.is_access_noted() {
            return;
        }
        let times = record.times();
        if times.access <= times.modify || times.access <= times.change {
            self.set_access_time();
        } else {
            record.set_access_noted();
        }
    }

    /// The other half of relatime, asked once a handle: an access time that is a day old is set though nothing changed.
    pub(crate) fn note_opened(&self) {
        let now = self.core().now();
        if now.secs.saturating_sub(self.record().times().access.secs) >= ACCESS_TIME_STALE_SECS {
            self.set_access_time();
        }
    }

    fn set_access_time(&self) {
        let core = self.core();
        let wanted =
            core.options.atime == Atime::Relative && !self.flags().contains(InodeFlags::NOATIME);
        if !wanted || core.writable().is_err() {
            // Nor will it be for the next read.
            self.record().set_access_noted();
            return;
        }
        // A closed gate means that the image must not change now: then this access goes unnoted. The lines are flushed
        // and need no fence: an access time may be lost.
        if let Some(_writing) = core.gates.write.try_enter() {
            self.record().set_times(TimeChange {
                access: Some(core.now()),
                ..TimeChange::default()
            });
        }
    }

    /// Writes `src` and answers where and how much: all of it, or less if the medium is full, the file at its limit, or
    /// `src` not readable to its end.
    ///
    /// # Errors
    /// `ReadOnlyFs`; `NotPermitted` by the immutable flag, or by the append-only flag away from the end;
    /// `FileTooLarge` if not a byte fits below the limit; `NoSpace`, `BadAddress` if nothing was written.
    pub(crate) fn write_at(
        &self,
        file: &DaxFile<TreeMap>,
        position: Position,
        src: UserSlice<'_>,
    ) -> Result<(u64, usize)> {
        self.write_with(file, position, |pos| file.write_at(pos, src))
    }

    /// [`Node::write_at`] from several pieces of memory, as one write.
    pub(crate) fn write_vectored_at(
        &self,
        file: &DaxFile<TreeMap>,
        position: Position,
        srcs: &[UserSlice<'_>],
    ) -> Result<(u64, usize)> {
        self.write_with(file, position, |pos| file.write_vectored_at(pos, srcs))
    }

    /// What every write begins with. The times are set inside, and ride on the fence of the data.
    fn write_with<R>(
        &self,
        file: &DaxFile<TreeMap>,
        position: Position,
        write: impl FnOnce(u64) -> Result<R>,
    ) -> Result<(u64, R)> {
        let core = self.core();
        core.writable()?;
        let _writing = core.gates.write.enter();
        let _inode = self.lock.write();
        self.check_writable_at(file, position)
            .and_then(|pos| Ok((pos, write(pos)?)))
    }

    /// Where a write goes. The caller holds INODE exclusively.
    ///
    /// # Errors
    /// `NotPermitted` by the immutable flag, or by the append-only flag away from the end; `NotFound`.
    pub(super) fn check_writable_at(
        &self,
        file: &DaxFile<TreeMap>,
        position: Position,
    ) -> Result<u64> {
        self.check_alive()?;
        let end = file.size();
        let pos = match position {
            Position::At(pos) => pos,
            Position::End => end,
        };
        let flags = self.flags();
        if flags.contains(InodeFlags::IMMUTABLE) || flags.contains(InodeFlags::APPEND) && pos != end
        {
            return Err(Error::NotPermitted);
        }
        Ok(pos)
    }

    /// Makes contents and attributes durable, to what the region promises.
    pub(crate) fn sync(&self) -> Result<()> {
        if let Some(file) = self.opened_file() {
            file.sync(0..u64::MAX)?;
        }
        let pmem = self.record().pmem();
        self.record().flush();
        pmem.fence();
        if pmem.persist() == Persist::PageCache {
            // Names, bitmaps and indirect blocks lie anywhere in the image, and a page cache below keeps no order.
            pmem.sync(0..pmem.len()).map_err(|_| Error::Io)?;
        }
        Ok(())
    }
}
