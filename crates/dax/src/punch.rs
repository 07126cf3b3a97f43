//! Punching holes, steps H1 to H7, and zeroing in place.

use core::ops::Range;

use ext2dax_format::Error;
use ext2dax_sync::mutant;

use crate::blockmap::{BlockMap, Extent};
use crate::file::DaxFile;

impl<M: BlockMap> DaxFile<M> {
    /// Makes a hole: whole blocks of the range go, the rest of it is zeroed. The size stays, and a range past the end
    /// changes nothing. Pages that a private view has made its own stay.
    ///
    /// # Locking
    /// The caller holds GATE_WRITE and INODE exclusively. Takes INVALIDATE.
    ///
    /// # Errors
    /// `ReadOnlyFs`: nothing has changed. `Corrupt`, `Io`: some of the range may be zero already.
    pub fn punch(&self, bytes: Range<u64>) -> Result<(), Error> {
        self.map.writable()?;
        let Some(bytes) = self.inside(bytes) else {
            return Ok(());
        };
        self.map.touch();
        // H1 to H3.
        let _invalidate = self.space.invalidate_exclusive();
        if mutant("punch waits for pins, INVALIDATE dropped") {
            drop(_invalidate);
            self.pins.wait_for_none();
            return self.punch_mutant_without_invalidate(bytes);
        }
        self.unmap_and_delete(&bytes);
        self.punch_unmapped(&bytes)
    }

    fn punch_mutant_without_invalidate(&self, bytes: Range<u64>) -> Result<(), Error> {
        let _invalidate = self.space.invalidate_exclusive();
        self.unmap_and_delete(&bytes);
        self.punch_unmapped(&bytes)
    }

    /// H4 to H7.
    fn punch_unmapped(&self, bytes: &Range<u64>) -> Result<(), Error> {
        let first = self.block_end(bytes.start);
        let last = bytes.end & !self.block_mask();
        if first >= last {
            // Edges of one block, or of two neighbours.
            self.zero_media(bytes.clone())?;
            self.pmem.fence();
        } else {
            self.zero_media(bytes.start..first)?;
            self.zero_media(last..bytes.end)?;
            let detached = self
                .map
                .detach(first >> self.block_bits..last >> self.block_bits)?;
            self.fence_if_empty(&detached);
            if mutant("punch waits for pins holding INVALIDATE") {
                self.pins.wait_for_none();
            }
            self.release(detached);
        }
        Ok(())
    }

    /// The same for a range that may lie past the end, as a part of a write, and costs next to nothing where a hole is.
    pub(crate) fn make_hole(&self, bytes: Range<u64>) -> Result<(), Error> {
        let mut block = bytes.start >> self.block_bits;
        let end = self.block_end(bytes.end) >> self.block_bits;
        while block < end {
            let extent = self.map.lookup(block, end - block)?;
            if matches!(extent, Extent::Data { .. }) {
                let _invalidate = self.space.invalidate_exclusive();
                self.unmap_and_delete(&bytes);
                return self.punch_unmapped(&bytes);
            }
            block += extent.len();
        }
        Ok(())
    }

    /// Zeroes the range in place: blocks stay, holes stay holes. Past the end of the file nothing changes.
    ///
    /// # Locking
    /// The caller holds GATE_WRITE and INODE exclusively. Takes INVALIDATE.
    ///
    /// # Errors
    /// `ReadOnlyFs`: nothing has changed. `Corrupt`, `Io`: some of the range may be zero already.
    pub fn zero_range(&self, bytes: Range<u64>) -> Result<(), Error> {
        self.map.writable()?;
        let Some(bytes) = self.inside(bytes) else {
            return Ok(());
        };
        self.map.touch();
        let _invalidate = self.space.invalidate_exclusive();
        self.unmap_outward(&bytes);
        self.zero_media(bytes)?;
        self.pmem.fence();
        Ok(())
    }

    /// The part of the range inside the file. A range that reaches the end takes the rest of the last block, too: its
    /// bytes past the end are nobody's content.
    fn inside(&self, bytes: Range<u64>) -> Option<Range<u64>> {
        let size = self.size();
        let end = if bytes.end >= size {
            self.block_end(size)
        } else {
            bytes.end
        };
        (bytes.start < size && bytes.start < end).then_some(bytes.start..end)
    }

    /// Takes every unit that the range touches out of all views: an edge page left mapped would show stores and zeroes
    /// of the same moment.
    fn unmap_outward(&self, bytes: &Range<u64>) {
        let bits = self.space.unit_bits();
        let units = bytes.start >> bits..((bytes.end - 1) >> bits) + 1;
        self.space.unmap(self.space.pages_of(units), false);
    }

    /// H2, H3. Entries of units at the edges stay, unmapped and as dirty as they were.
    fn unmap_and_delete(&self, bytes: &Range<u64>) {
        self.unmap_outward(bytes);
        let bits = self.space.unit_bits();
        let whole = bytes.start.div_ceil(1 << bits)..bytes.end >> bits;
        if !whole.is_empty() {
            self.space.delete(whole);
        }
    }
}
