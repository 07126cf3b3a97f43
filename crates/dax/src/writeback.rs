//! Making stores through views and pins durable, steps B1 to B5.

use core::ops::Range;

use alloc::vec::Vec;

use ext2dax_format::Error;
use ext2dax_pmem::Persist;
use ext2dax_sync::mutant;

use crate::blockmap::{BlockMap, Extent};
use crate::entry::{Kind, MAX_UNITS};
use crate::file::DaxFile;
use crate::space::EntryGuard;
use crate::{PAGE_BITS, PAGE_SIZE};

/// Neighbouring entries owned at once, for one shoot-down and one fence.
const BATCH: usize = 16;

/// One entry under write-back, and whether a pin may go on storing to it.
struct Dirty<'a> {
    entry: EntryGuard<'a>,
    block: u64,
    keep: bool,
}

impl<M: BlockMap> DaxFile<M> {
    /// Makes every byte of the range durable that was stored before the call, by whatever route.
    ///
    /// # Locking
    /// The caller holds nothing of rank ENTRY or above; no INODE is needed. May block in the medium's `sync`.
    ///
    /// # Errors
    /// `Io`: what could not be written stays dirty.
    pub fn sync(&self, bytes: Range<u64>) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self.pmem.persist() {
            // Stores are durable once they are visible, or never: dirty marks stay for freezing and stability.
            Persist::FenceOnly | Persist::Volatile => {
                self.pmem.fence();
                Ok(())
            }
            Persist::FlushLines => self.write_back(&bytes),
            Persist::PageCache => {
                self.write_back(&bytes)?;
                self.sync_unsynced()
            }
        }
    }

    /// For a freezer that has closed and drained the gates: no entry stays dirty, no translation writable, and the bytes
    /// past the end of the file are zero on the medium.
    ///
    /// # Locking
    /// All gates are drained, and INODE is not needed, so it must not be held: a reader may hold it and wait for the thaw.
    ///
    /// # Errors
    /// As [`DaxFile::sync`].
    pub fn settle(&self) -> Result<(), Error> {
        self.write_back(&(0..u64::MAX))?;
        self.sync_unsynced()?;
        if mutant("freeze leaves bytes past the end") {
            Ok(())
        } else {
            self.zero_tail()
        }
    }

    fn write_back(&self, bytes: &Range<u64>) -> Result<(), Error> {
        let bits = self.space.unit_bits();
        let end = (((bytes.end - 1) >> bits) + 1).min(MAX_UNITS);
        let mut at = bytes.start >> bits;
        let mut batch: Vec<Dirty<'_>> = Vec::new();
        while let Some(unit) = self.next_dirty(at..end) {
            at = unit + 1;
            if batch
                .last()
                .is_some_and(|last| last.entry.unit() + 1 != unit)
                || batch.len() == BATCH
            {
                self.clean(&mut batch)?;
            }
            batch.extend(self.own_dirty(unit));
        }
        self.clean(&mut batch)
    }

    fn next_dirty(&self, units: Range<u64>) -> Option<u64> {
        self.space
            .first_present(units, |word| word.is_locked() || word.dirty() != 0)
    }

    /// B1.
    fn own_dirty(&self, unit: u64) -> Option<Dirty<'_>> {
        let entry = self.space.lock_present(unit)?;
        match entry.kind() {
            Kind::Block(block) if entry.dirty() != 0 => {
                // Sampled before the flush: a pin that stores after it and drops before a later sample would be missed.
                let keep = self.pins.is_written(block) && !mutant("fsync cleans a pinned page");
                Some(Dirty { entry, block, keep })
            }
            _ => None,
        }
    }

    /// B2 to B5 for neighbouring entries.
    fn clean(&self, batch: &mut Vec<Dirty<'_>>) -> Result<(), Error> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            return Ok(());
        };
        if !mutant("fsync without write-protect") {
            self.space.write_protect(
                self.space
                    .pages_of(first.entry.unit()..last.entry.unit() + 1),
            );
        }
        let done = batch.iter().try_for_each(|dirty| self.persist_pages(dirty));
        self.pmem.fence();
        if done.is_ok() {
            for dirty in batch.iter_mut() {
                let keep = if mutant("fsync samples pins after the flush") {
                    self.pins.is_written(dirty.block)
                } else {
                    dirty.keep
                };
                if !keep {
                    dirty.entry.set_dirty(0);
                }
            }
        }
        batch.clear();
        done
    }

    /// B3: the dirty pages of one unit.
    fn persist_pages(&self, dirty: &Dirty<'_>) -> Result<(), Error> {
        let off = dirty.block << self.block_bits;
        let bits = dirty.entry.dirty();
        let mut page = 0;
        while page < self.space.pages_per_unit() {
            let count =
                u64::from((bits >> page).trailing_ones()).min(self.space.pages_per_unit() - page);
            if count > 0 {
                self.persist(off + (page << PAGE_BITS), count * PAGE_SIZE)?;
            }
            page += count + 1;
        }
        Ok(())
    }

    fn persist(&self, off: u64, len: u64) -> Result<(), Error> {
        if self.pmem.persist() == Persist::PageCache {
            self.pmem.sync(off..off + len).map_err(|_| Error::Io)
        } else {
            self.pmem.flush(off, len);
            Ok(())
        }
    }

    /// What write(2) left in the page cache below.
    fn sync_unsynced(&self) -> Result<(), Error> {
        let bytes = core::mem::take(&mut *self.unsynced.lock());
        let done = self.sync_blocks(&bytes);
        if done.is_err() {
            self.note_unsynced(bytes);
        }
        done
    }

    fn sync_blocks(&self, bytes: &Range<u64>) -> Result<(), Error> {
        let mut block = bytes.start >> self.block_bits;
        let end = self.block_end(bytes.end) >> self.block_bits;
        while block < end {
            let extent = self.map.lookup(block, end - block)?;
            if let Extent::Data { off, len } = extent {
                self.pmem
                    .sync(off..off + (len << self.block_bits))
                    .map_err(|_| Error::Io)?;
            }
            block += extent.len();
        }
        Ok(())
    }
}
