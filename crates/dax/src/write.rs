//! Writing: from the caller's memory to the medium, steps W1 to W3. (W0 and W4, gate and INODE, are the caller's.)
//!
//! Into a hole: blocks are taken, filled and only then linked in. Elsewhere: the bytes are copied in place. Both with
//! nothing held that a fault needs; then the size rises. So a fault on the source, even on the very page that is written,
//! finds its way; a reader never sees anything but old bytes, zeroes of a hole, or new bytes; and a crash leaves blocks
//! past the end at worst.

use core::ops::Range;

use ext2dax_format::Error;
use ext2dax_pmem::{Pmem, UserSlice};
use ext2dax_sync::{mutant, rank};

use crate::blockmap::{Allocated, BlockMap, Extent};
use crate::file::DaxFile;
use crate::read::usize_of;

/// Blocks taken for one copy: bounds what a short copy has to give back, and how long new zeroes stay in the cache.
const CHUNK: u64 = 1 << 20;

/// Where the bytes of a write come from.
pub(crate) trait Source {
    /// Copies the next `len` bytes to byte `off` of the medium, flushed. Fewer: the source ends early.
    fn copy(&mut self, pmem: &Pmem, off: u64, len: u64) -> u64;
}

/// The caller's memory, which may be a view. `len` is never more than what is left of it.
impl Source for UserSlice<'_> {
    fn copy(&mut self, pmem: &Pmem, off: u64, len: u64) -> u64 {
        let (now, later) = self.split_at(usize_of(len));
        *self = later;
        pmem.copy_in_flushed(off, now) as u64
    }
}

/// What became of one run.
struct Written {
    copied: u64,
    /// The source ended early.
    short: bool,
    /// Where the blocks that it may have taken end, in bytes of the file.
    end: u64,
    /// Whether the size may be stored behind them, and behind all runs before, without a fence.
    ordered: bool,
}

/// A write under way, of one piece or of several: it has the file to itself, and the size covers all of it at once.
pub(crate) struct Writing {
    pub(crate) pos: u64,
    /// What may be written: the rest does not fit below the largest size.
    pub(crate) room: u64,
    pub(crate) done: u64,
    old_size: u64,
    /// Where the blocks that it has taken, or found and zeroed, end.
    taken_to: u64,
    ordered: bool,
    outcome: Result<(), Error>,
}

impl Writing {
    /// The next byte of the file to be written.
    pub(crate) fn at(&self) -> u64 {
        self.pos + self.done
    }

    /// Blocks from here on that are attached are residue of a crash: past the old end, and not taken by this write.
    pub(crate) fn residue_from(&self) -> u64 {
        self.old_size.max(self.taken_to)
    }

    /// The next `len` bytes are as they shall be, by stores that a fence still has to order before the size.
    pub(crate) fn skipped(&mut self, len: u64, taken_to: u64) {
        self.done += len;
        self.taken_to = taken_to;
        self.ordered = false;
    }

    /// Ends the write early, with what it has done.
    pub(crate) fn stop(&mut self, error: Error) {
        self.outcome = Err(error);
    }
}

impl<M: BlockMap> DaxFile<M> {
    /// Copies the caller's memory to `pos` and on, and makes it durable (for a page cache below: notes it for `sync`).
    ///
    /// Returns how many bytes; fewer than given where the memory ends early, space runs out, or the largest size is
    /// reached. The size of the file covers just these.
    ///
    /// # Locking
    /// The caller holds GATE_WRITE and INODE exclusively and nothing of rank INVALIDATE or above: the memory may be a
    /// view, of this file, too.
    ///
    /// # Errors
    /// Only if nothing was written: `FileTooLarge`, `NoSpace`, `BadAddress`, `Corrupt`, `Io`, `ReadOnlyFs`.
    pub fn write_at(&self, pos: u64, mut from: UserSlice<'_>) -> Result<usize, Error> {
        let len = from.len() as u64;
        if len == 0 {
            return self.map.writable().map(|()| 0);
        }
        let mut writing = self.begin_write(pos)?;
        self.write_part(&mut writing, &mut from, len);
        self.end_write(&writing).map(usize_of)
    }

    /// The same from several pieces of memory, one after the other, as one write.
    ///
    /// # Locking
    /// As [`DaxFile::write_at`].
    ///
    /// # Errors
    /// As [`DaxFile::write_at`].
    pub fn write_vectored_at(&self, pos: u64, from: &[UserSlice<'_>]) -> Result<usize, Error> {
        if from.iter().all(UserSlice::is_empty) {
            return self.map.writable().map(|()| 0);
        }
        let mut writing = self.begin_write(pos)?;
        for part in from {
            let mut part = *part;
            let len = part.len() as u64;
            if !self.write_part(&mut writing, &mut part, len) {
                break;
            }
        }
        self.end_write(&writing).map(usize_of)
    }

    /// W1, before the first byte. Nothing has changed if it fails.
    pub(crate) fn begin_write(&self, pos: u64) -> Result<Writing, Error> {
        self.map.writable()?;
        let room = self
            .map
            .max_size()
            .checked_sub(pos)
            .filter(|room| *room > 0)
            .ok_or(Error::FileTooLarge)?;
        self.map.touch();
        Ok(Writing {
            pos,
            room,
            done: 0,
            old_size: self.size(),
            taken_to: 0,
            ordered: true,
            outcome: Ok(()),
        })
    }

    /// W1 for the next `len` bytes. Whether more may follow.
    pub(crate) fn write_part(
        &self,
        writing: &mut Writing,
        from: &mut impl Source,
        len: u64,
    ) -> bool {
        let end = (writing.done + len).min(writing.room);
        let whole = end == writing.done + len;
        while writing.done < end {
            let part = (end - writing.done).min(CHUNK);
            match self.write_run(writing.at(), part, from, writing.residue_from()) {
                Ok(run) => {
                    writing.done += run.copied;
                    writing.taken_to = self.block_end(writing.at()).max(run.end);
                    if run.copied > 0 {
                        writing.ordered = run.ordered;
                    }
                    if run.short {
                        writing.stop(Error::BadAddress);
                        return false;
                    }
                }
                Err(error) => {
                    writing.stop(error);
                    return false;
                }
            }
        }
        whole
    }

    /// W2 and W3: the size covers what was written, and no more. How much that is.
    pub(crate) fn end_write(&self, writing: &Writing) -> Result<u64, Error> {
        let (old_size, end) = (writing.old_size, writing.at());
        self.note_unsynced(writing.pos..end);
        let grows = writing.done > 0 && end > old_size;
        // The store of the size is fenced, and so is all before it.
        if !(grows && writing.ordered) {
            self.pmem.fence();
        }
        let grown = if grows {
            self.grow(old_size, end, writing.pos)
        } else {
            Ok(())
        };
        if writing.taken_to > self.block_end(self.size()) {
            self.give_back(self.size())?;
        }
        grown?;
        if writing.done == 0 {
            writing.outcome?;
        }
        Ok(writing.done)
    }

    /// W1 for one run: as many bytes from `at` on as lie together, at most `len`.
    fn write_run(
        &self,
        at: u64,
        len: u64,
        from: &mut impl Source,
        residue_from: u64,
    ) -> Result<Written, Error> {
        let within = at & self.block_mask();
        let block = at >> self.block_bits;
        let blocks = (within + len).div_ceil(1 << self.block_bits);
        let run = match self.map.lookup(block, blocks)? {
            Extent::Data { off, len } => Allocated {
                off,
                len,
                new: false,
            },
            Extent::Hole { len: hole } => {
                if let Some(written) = self.write_hole(at, len, hole.min(blocks), from)? {
                    return Ok(written);
                }
                self.map.allocate(block, hole.min(blocks))?
            }
        };
        let bytes = run.len << self.block_bits;
        if !run.new {
            // Attached wholly past the end: residue of a crash, whose bytes nobody wrote.
            let known = self.block_end(residue_from).saturating_sub(at - within);
            if known < bytes {
                self.pmem.zero_flushed(run.off + known, bytes - known);
                self.pmem.fence();
            }
        }
        self.drop_zero_pages(block..block + run.len);
        let wanted = (bytes - within).min(len);
        let copied = self.copy_in(at, run.off + within, from, wanted);
        Ok(Written {
            copied,
            short: copied < wanted,
            end: (block << self.block_bits) + bytes,
            ordered: false,
        })
    }

    /// The same for a hole of `hole` blocks, if the map can fill blocks before it links them in.
    fn write_hole(
        &self,
        at: u64,
        len: u64,
        hole: u64,
        from: &mut impl Source,
    ) -> Result<Option<Written>, Error> {
        let within = at & self.block_mask();
        let block = at >> self.block_bits;
        let mut copied = 0;
        let mut wanted = 0;
        let filled = self.map.fill_hole(block, hole, &mut |off, bytes| {
            wanted = (bytes - within).min(len);
            copied = self.copy_in(at, off + within, from, wanted);
            if copied > 0 {
                self.pmem.zero_flushed(off, within);
                let end = within + copied;
                self.pmem.zero_flushed(off + end, bytes - end);
            }
            within..within + copied
        })?;
        let Some(filled) = filled else {
            return Ok(None);
        };
        self.drop_zero_pages(block..block + filled.len);
        let end = (block + filled.len) << self.block_bits;
        Ok(Some(Written {
            copied,
            short: copied < wanted,
            end,
            ordered: filled.ordered,
        }))
    }

    /// The blocks have just got, or are just getting, their place on the medium: no view may go on showing zeroes there.
    ///
    /// Also waits for a fault that has published one of the blocks and not yet taken the zero page away, so that who
    /// loads after the write has returned sees it.
    pub(crate) fn drop_zero_pages(&self, blocks: Range<u64>) {
        use crate::entry::Kind;
        /// Entries owned at once, for one shoot-down.
        const BATCH: usize = 16;
        if self.space.is_untouched() || mutant("write(2) leaves the zero page") {
            return;
        }
        let mut owned = alloc::vec::Vec::new();
        self.space.each_present(blocks, |unit, word| {
            let suspect = word.is_locked() || matches!(word.kind(), Kind::Zero | Kind::Empty);
            if suspect
                && let Some(mut entry) = self.space.lock_present(unit)
                && entry.kind() == Kind::Zero
            {
                entry.delete();
                owned.push(entry);
            }
            if owned.len() == BATCH {
                self.unmap_owned(&mut owned);
            }
        });
        self.unmap_owned(&mut owned);
    }

    fn unmap_owned(&self, owned: &mut alloc::vec::Vec<crate::EntryGuard<'_>>) {
        if let (Some(first), Some(last)) = (owned.first(), owned.last()) {
            self.space
                .unmap(self.space.pages_of(first.unit()..last.unit() + 1), false);
        }
        owned.clear();
    }

    /// W1c. The only thing held is INODE and what is above it.
    fn copy_in(&self, at: u64, off: u64, from: &mut impl Source, len: u64) -> u64 {
        let unit = at >> self.space.unit_bits();
        let _entry = mutant("ENTRY held across the copy").then(|| self.space.lock(unit));
        let _invalidate =
            mutant("INVALIDATE held across the copy").then(|| self.space.invalidate_exclusive());
        if !mutant("ENTRY held across the copy") && !mutant("INVALIDATE held across the copy") {
            rank::assert_below(rank::INVALIDATE);
        }
        from.copy(&self.pmem, off, len)
    }

    /// W3: blocks past the new end that the copy did not reach.
    fn give_back(&self, end: u64) -> Result<(), Error> {
        let _invalidate = self.space.invalidate_exclusive();
        let detached = self
            .map
            .detach(self.block_end(end) >> self.block_bits..u64::MAX)?;
        self.release(detached);
        Ok(())
    }

    /// Gives every hole in these bytes blocks of zeroes. Bytes past the end of the file are not touched.
    ///
    /// # Locking
    /// The caller holds GATE_WRITE and INODE exclusively.
    ///
    /// # Errors
    /// `NotSupported`: the range leaves the file (blocks past the end are no clean state of the image). `NoSpace`: some
    /// of the holes may have been filled. `Corrupt`, `Io`, `ReadOnlyFs`.
    pub fn allocate_range(&self, bytes: Range<u64>) -> Result<(), Error> {
        self.map.writable()?;
        if bytes.end > self.size() {
            return Err(Error::NotSupported);
        }
        self.map.touch();
        let mut block = bytes.start >> self.block_bits;
        let end = self.block_end(bytes.end) >> self.block_bits;
        while block < end && !bytes.is_empty() {
            let len = match self.map.lookup(block, end - block)? {
                Extent::Data { len, .. } => len,
                Extent::Hole { len } => {
                    let run = self
                        .map
                        .allocate(block, len.min(CHUNK >> self.block_bits).max(1))?;
                    self.drop_zero_pages(block..block + run.len);
                    run.len
                }
            };
            block += len;
        }
        Ok(())
    }
}
