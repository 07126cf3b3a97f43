//! Truncation down, steps T1 to T9, and extension, E1 to E5.

use ext2dax_format::Error;
use ext2dax_sync::mutant;

use crate::blockmap::{BlockMap, Extent};
use crate::entry::MAX_UNITS;
use crate::file::DaxFile;

impl<M: BlockMap> DaxFile<M> {
    /// Makes the file `to` bytes long. What is cut off is gone for views, too (SIGBUS); what is added reads as zeroes.
    ///
    /// # Locking
    /// The caller holds GATE_WRITE and INODE exclusively. Takes INVALIDATE.
    ///
    /// # Errors
    /// `FileTooLarge`, `ReadOnlyFs`: nothing has changed. `Corrupt`, `Io` while blocks are detached: the size has changed,
    /// and blocks may have leaked.
    pub fn truncate(&self, to: u64) -> Result<(), Error> {
        self.map.writable()?;
        let from = self.size();
        // A file that is too large already, made elsewhere, may still shrink.
        if to > self.map.max_size() && to > from {
            return Err(Error::FileTooLarge);
        }
        // The times ride on the fences of what follows.
        self.map.touch();
        if to > from {
            self.grow(from, to, self.block_end(to))
        } else if to < from {
            self.shrink(from, to)
        } else {
            Ok(())
        }
    }

    fn shrink(&self, from: u64, to: u64) -> Result<(), Error> {
        let space = &self.space;
        // T1: faults and pin acquisitions are out. T2: the size falls before any page goes.
        let _invalidate = space.invalidate_exclusive();
        self.set_size(to);
        space.resized(to);
        // T3: the tail unit goes as well, so that no store races with T6. T4.
        let first = to >> space.unit_bits();
        let tail_in_unit = to & ((1 << space.unit_bits()) - 1) != 0;
        if !mutant("blocks freed before the unmap") {
            space.unmap(space.pages_of(first..MAX_UNITS), true);
        }
        space.delete(first + u64::from(tail_in_unit)..MAX_UNITS);
        // T5 commits.
        if let Err(error) = self.map.commit_size(from, to) {
            self.set_size(from);
            space.resized(from);
            return Err(error);
        }
        let detached = self.cut_off(to);
        if mutant("blocks freed before the unmap") {
            space.unmap(space.pages_of(first..MAX_UNITS), true);
        }
        self.map.finish_shrink()?;
        detached
    }

    /// T6 to T8.
    fn cut_off(&self, to: u64) -> Result<(), Error> {
        self.zero_media(to..self.block_end(to))?;
        let detached = self
            .map
            .detach(self.block_end(to) >> self.block_bits..u64::MAX)?;
        // One fence for both: neither zeroes nor pointers may be missing once the truncation counts as finished.
        self.fence_if_empty(&detached);
        self.release(detached);
        Ok(())
    }

    /// E1 to E5, also the end of a write past the end of the file (W2): the bytes from `written` on have been written.
    pub(crate) fn grow(&self, from: u64, to: u64, written: u64) -> Result<(), Error> {
        let space = &self.space;
        if mutant("size raised before the tail is zeroed, outside INVALIDATE") {
            self.set_size(to);
        }
        let _invalidate = space.invalidate_exclusive();
        // E2, E3: stores past the old end through a view must not become content. With the page unmapped none can
        // come between the zeroes and the size.
        let tail_end = self.block_end(from);
        if tail_end != from {
            let unit = from >> space.unit_bits();
            if !mutant("tail zeroed while mapped") {
                space.unmap(space.pages_of(unit..unit + 1), false);
            }
            if !mutant("tail not zeroed by an extension") {
                let stale = from..tail_end.min(written.max(from));
                if !stale.is_empty() {
                    self.zero_media(stale)?;
                    self.pmem.fence();
                }
            }
        }
        // E4: blocks between the old end and the first new byte are residue of a crash.
        self.drop_residue(tail_end, written)?;
        // E5. The views' tables learn of it first: whoever sees the new size may load up to it at once. A fault that
        // comes earlier waits for INVALIDATE, and is judged by the size that it finds then.
        space.resized(to);
        if let Err(error) = self.map.commit_size(from, to) {
            space.resized(from);
            let unit_end = from.div_ceil(1 << space.unit_bits());
            space.unmap(space.pages_of(unit_end..MAX_UNITS), true);
            return Err(error);
        }
        self.set_size(to);
        Ok(())
    }

    /// Detaching fences only if it cleared something.
    pub(crate) fn fence_if_empty(&self, detached: &M::Detached) {
        let mut empty = true;
        self.map.runs(detached, &mut |_, _| empty = false);
        if empty {
            self.pmem.fence();
        }
    }

    /// Detaches blocks that lie wholly in the bytes `from..to`, both past the end of the file.
    fn drop_residue(&self, from: u64, to: u64) -> Result<(), Error> {
        let mut block = from >> self.block_bits;
        let end = to >> self.block_bits;
        while block < end {
            let extent = self.map.lookup(block, end - block)?;
            if matches!(extent, Extent::Data { .. }) {
                let detached = self.map.detach(block..end)?;
                self.release(detached);
                return Ok(());
            }
            block += extent.len();
        }
        Ok(())
    }
}
