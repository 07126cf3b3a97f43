//! Writing: from the caller's memory to the medium, steps W1 to W3. (W0 and W4, gate and INODE, are the caller's.)
//!
//! Into a hole: blocks are taken, filled and only then linked in. Elsewhere: the bytes are copied in place. Both with
//! nothing held that a fault needs; then the size rises. So a fault on the source, even on the very page that is written,
//! finds its way; a reader never sees anything but old bytes, zeroes of a hole, or new bytes; and a crash leaves blocks
//! past the end at worst.

use core::ops::Range;

use ext2dax_format::Error;
use ext2dax_pmem::UserSlice;
use ext2dax_sync::{mutant, rank};

use crate::blockmap::{Allocated, BlockMap, Extent};
use crate::file::DaxFile;
use crate::read::usize_of;

/// Blocks taken for one copy: bounds what a short copy has to give back, and how long new zeroes stay in the cache.
const CHUNK: u64 = 1 << 20;

/// What became of one run.
struct Written {
    copied: u64,
    /// The caller's memory ended early.
    short: bool,
    /// Where the blocks that it may have taken end, in bytes of the file.
    end: u64,
    /// Whether the size may be stored behind them, and behind all runs before, without a fence.
    ordered: bool,
}

/// The first `len` bytes, taken off.
fn take<'a>(from: &mut UserSlice<'a>, len: u64) -> UserSlice<'a> {
    let (now, later) = from.split_at(usize_of(len));
    *from = later;
    now
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
        self.map.writable()?;
        if from.is_empty() {
            return Ok(0);
        }
        let room = self
            .map
            .max_size()
            .checked_sub(pos)
            .filter(|room| *room > 0)
            .ok_or(Error::FileTooLarge)?;
        let len = (from.len() as u64).min(room);
        let old_size = self.size();
        self.map.touch();
        let mut done = 0;
        let mut taken_to = pos;
        let mut ordered = true;
        let mut outcome = Ok(());
        while done < len {
            match self.write_run(pos + done, (len - done).min(CHUNK), &mut from, old_size) {
                Ok(run) => {
                    done += run.copied;
                    taken_to = self.block_end(pos + done).max(run.end);
                    ordered = run.ordered;
                    if run.short {
                        outcome = Err(Error::BadAddress);
                        break;
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        self.note_unsynced(pos..pos + done);
        let end = pos + done;
        // W2. The size covers what was copied, and no more. Its store is fenced, and so is all before it.
        let grows = done > 0 && end > old_size;
        if !(grows && ordered) {
            self.pmem.fence();
        }
        let grown = if grows {
            self.grow(old_size, end, pos)
        } else {
            Ok(())
        };
        if taken_to > self.block_end(self.size()) {
            self.give_back(self.size())?;
        }
        grown?;
        if done == 0 {
            outcome.map(|()| 0)
        } else {
            Ok(usize_of(done))
        }
    }

    /// W1 for one run: as many bytes from `at` on as lie together, at most `len`.
    fn write_run(
        &self,
        at: u64,
        len: u64,
        from: &mut UserSlice<'_>,
        old_size: u64,
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
        if !run.new && block << self.block_bits >= self.block_end(old_size) {
            // Attached wholly past the end: residue of a crash, whose bytes nobody wrote.
            self.pmem.zero_flushed(run.off, bytes);
            self.pmem.fence();
        }
        self.drop_zero_pages(block..block + run.len);
        let wanted = (bytes - within).min(len);
        let copied = self.copy_in(at, run.off + within, take(from, wanted));
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
        from: &mut UserSlice<'_>,
    ) -> Result<Option<Written>, Error> {
        let within = at & self.block_mask();
        let block = at >> self.block_bits;
        let mut copied = 0;
        let mut wanted = 0;
        let filled = self.map.fill_hole(block, hole, &mut |off, bytes| {
            wanted = (bytes - within).min(len);
            copied = self.copy_in(at, off + within, take(from, wanted));
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
    fn copy_in(&self, at: u64, off: u64, part: UserSlice<'_>) -> u64 {
        let unit = at >> self.space.unit_bits();
        let _entry = mutant("ENTRY held across the copy").then(|| self.space.lock(unit));
        let _invalidate =
            mutant("INVALIDATE held across the copy").then(|| self.space.invalidate_exclusive());
        if !mutant("ENTRY held across the copy") && !mutant("INVALIDATE held across the copy") {
            rank::assert_below(rank::INVALIDATE);
        }
        self.pmem.copy_in_flushed(off, part) as u64
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
