//! Copying from file to file inside one image: from block to block, with no memory of the caller's in between.

use ext2dax_format::Error;
use ext2dax_pmem::Pmem;

use crate::blockmap::{BlockMap, Extent};
use crate::file::DaxFile;
use crate::write::{Source, Writing};

/// Bytes of the medium, from here on.
struct OnMedium(u64);

impl Source for OnMedium {
    fn copy(&mut self, pmem: &Pmem, off: u64, len: u64) -> u64 {
        pmem.copy_within(self.0, off, len);
        pmem.flush(off, len);
        self.0 += len;
        len
    }
}

impl<M: BlockMap> DaxFile<M> {
    /// Copies `len` bytes of `from`, from `from_pos` on, to `pos` and on, as one write.
    ///
    /// Holes stay holes as far as they cover whole blocks here: blocks that are there go. Returns how many bytes; fewer
    /// at the end of `from`, where space runs out, or at the largest size.
    ///
    /// `from` may be this very file, if the two ranges do not meet (that is the caller's to check).
    ///
    /// # Locking
    /// The caller holds GATE_WRITE, INODE of this file exclusively and that of `from` at least shared, and nothing of
    /// rank INVALIDATE or above.
    ///
    /// # Errors
    /// Only if nothing was copied: `FileTooLarge`, `NoSpace`, `Corrupt`, `Io`, `ReadOnlyFs`.
    pub fn copy_range(
        &self,
        pos: u64,
        from: &DaxFile<M>,
        from_pos: u64,
        len: u64,
    ) -> Result<u64, Error> {
        debug_assert!(self.pmem.same_place(&from.pmem), "files of two images");
        let len = len.min(from.size().saturating_sub(from_pos));
        let mut writing = self.begin_write(pos)?;
        let len = len.min(writing.room);
        while writing.done < len {
            let at = from_pos + writing.done;
            let within = at & self.block_mask();
            let blocks = (within + (len - writing.done)).div_ceil(1 << self.block_bits);
            let extent = match from.map.lookup(at >> self.block_bits, blocks) {
                Ok(extent) => extent,
                Err(error) => {
                    writing.stop(error);
                    break;
                }
            };
            let part = ((extent.len() << self.block_bits) - within).min(len - writing.done);
            let goes_on = match extent {
                Extent::Data { off, .. } => {
                    self.write_part(&mut writing, &mut OnMedium(off + within), part)
                }
                Extent::Hole { .. } => self.write_hole_part(&mut writing, part),
            };
            if !goes_on {
                break;
            }
        }
        self.end_write(&writing)
    }

    /// The next `len` bytes of a write read zero: whole blocks become a hole. Whether more may follow.
    fn write_hole_part(&self, writing: &mut Writing, len: u64) -> bool {
        let (at, end) = (writing.at(), writing.at() + len);
        let known = self.block_end(writing.residue_from());
        // A block past the old end that is attached all the same is zero as a whole before any of it counts.
        let (first, last) = (at & !self.block_mask(), self.block_end(end));
        let from = if first >= known { first } else { at };
        let to = if end >= known { last } else { end };
        match self.make_hole(from..to) {
            Ok(()) => {
                writing.skipped(len, last);
                true
            }
            Err(error) => {
                writing.stop(error);
                false
            }
        }
    }
}
