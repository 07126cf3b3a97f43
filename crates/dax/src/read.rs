//! Reading: from the medium to the caller's memory.

use ext2dax_format::Error;
use ext2dax_pmem::UserSliceMut;
use ext2dax_sync::rank;

use crate::blockmap::{BlockMap, Extent};
use crate::file::DaxFile;

impl<M: BlockMap> DaxFile<M> {
    /// Copies bytes from `pos` on into the caller's memory, zeroes for holes, up to the end of the file.
    ///
    /// Returns how many, fewer than asked for at the end of the file, where the caller's memory ends early, or where the
    /// image is damaged. Stores that happen at the same time through views are seen or not, byte by byte.
    ///
    /// # Locking
    /// The caller holds INODE shared and nothing of rank INVALIDATE or above: the memory may be a view.
    ///
    /// # Errors
    /// Only if nothing was copied: `BadAddress`, or what the block map says.
    #[inline]
    pub fn read_at(&self, pos: u64, to: UserSliceMut<'_>) -> Result<usize, Error> {
        rank::assert_below(rank::INVALIDATE);
        self.read_stable(pos, to)
    }

    /// The same into several pieces of memory, one after the other.
    ///
    /// # Locking
    /// As [`DaxFile::read_at`].
    ///
    /// # Errors
    /// As [`DaxFile::read_at`].
    pub fn read_vectored_at(&self, pos: u64, to: &mut [UserSliceMut<'_>]) -> Result<usize, Error> {
        let mut done = 0;
        for part in to {
            let len = part.len();
            match self.read_at(pos.saturating_add(done as u64), part.reborrow()) {
                Ok(copied) => {
                    done += copied;
                    if copied < len {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// The same for memory that is known to be no view.
    #[inline]
    pub(crate) fn read_stable(&self, pos: u64, mut to: UserSliceMut<'_>) -> Result<usize, Error> {
        let size = self.size();
        if pos >= size {
            return Ok(0);
        }
        let len = (to.len() as u64).min(size - pos);
        let mut done = 0;
        while done < len {
            let at = pos + done;
            let within = at & self.block_mask();
            let blocks = (within + (len - done)).div_ceil(1 << self.block_bits);
            let extent = match self.map.lookup(at >> self.block_bits, blocks) {
                Ok(extent) => extent,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            };
            let wanted = ((extent.len() << self.block_bits) - within).min(len - done);
            let (mut part, rest) = to.split_at(usize_of(wanted));
            to = rest;
            let copied = match extent {
                Extent::Data { off, .. } => self.pmem.copy_out(off + within, part),
                Extent::Hole { .. } => part.zero(),
            };
            done += copied as u64;
            if (copied as u64) < wanted {
                break;
            }
        }
        if done == 0 && len > 0 {
            Err(Error::BadAddress)
        } else {
            Ok(usize_of(done))
        }
    }
}

/// A length that is bounded by one in memory.
#[expect(
    clippy::cast_possible_truncation,
    reason = "bounded by the length of a slice in memory"
)]
pub(crate) fn usize_of(len: u64) -> usize {
    len as usize
}
