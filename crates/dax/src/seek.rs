//! SEEK_DATA, SEEK_HOLE and the list of extents: the same walk as reading.

use core::ops::Range;

use alloc::vec::Vec;

use ext2dax_format::Error;

use crate::blockmap::{BlockMap, Extent};
use crate::file::DaxFile;

/// Consecutive blocks of a file that lie together on the medium, as FIEMAP reports them. In bytes; whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileExtent {
    /// Where it begins in the file.
    pub logical: u64,
    /// Where it begins in the region.
    pub physical: u64,
    /// Length. The last one may reach past the end of the file, to the end of its block.
    pub len: u64,
    /// Whether no other follows in the whole file.
    pub last: bool,
}

impl<M: BlockMap> DaxFile<M> {
    /// The extents that hold some byte of the range, cut at the blocks at its ends; holes are what lies between them.
    ///
    /// At most `max` of them, in ascending order: a longer list goes on behind the end of the last one.
    ///
    /// # Locking
    /// The caller holds INODE shared.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn extents(&self, bytes: Range<u64>, max: usize) -> Result<Vec<FileExtent>, Error> {
        let size = self.size();
        let mut found: Vec<FileExtent> = Vec::new();
        let mut block = bytes.start >> self.block_bits;
        let end = self.block_end(bytes.end.min(size)) >> self.block_bits;
        while block < end {
            let extent = self.map.lookup(block, end - block)?;
            if let Extent::Data { off, len } = extent {
                let (logical, len) = (block << self.block_bits, len << self.block_bits);
                let joined = found.last_mut().filter(|before| {
                    before.logical + before.len == logical && before.physical + before.len == off
                });
                if let Some(before) = joined {
                    before.len += len;
                } else if found.len() == max {
                    break;
                } else {
                    found.push(FileExtent {
                        logical,
                        physical: off,
                        len,
                        last: false,
                    });
                }
            }
            block += extent.len();
        }
        if let Some(last) = found.last_mut() {
            let behind = last.logical + last.len;
            last.last = behind >= size || self.seek_data(behind) == Err(Error::NoSuchOffset);
        }
        Ok(found)
    }

    /// The first byte at or after `pos` that is in a block.
    ///
    /// # Locking
    /// The caller holds INODE shared.
    ///
    /// # Errors
    /// `NoSuchOffset`: at or past the end of the file, or only a hole follows. `Corrupt`, `Io`.
    pub fn seek_data(&self, pos: u64) -> Result<u64, Error> {
        self.seek(pos, |extent| matches!(extent, Extent::Data { .. }))?
            .ok_or(Error::NoSuchOffset)
    }

    /// The first byte at or after `pos` that is in no block; the end of the file counts as a hole.
    ///
    /// # Locking
    /// The caller holds INODE shared.
    ///
    /// # Errors
    /// `NoSuchOffset`: at or past the end of the file. `Corrupt`, `Io`.
    pub fn seek_hole(&self, pos: u64) -> Result<u64, Error> {
        Ok(self
            .seek(pos, |extent| matches!(extent, Extent::Hole { .. }))?
            .unwrap_or(self.size()))
    }

    fn seek(&self, pos: u64, wanted: impl Fn(Extent) -> bool) -> Result<Option<u64>, Error> {
        let size = self.size();
        if pos >= size {
            return Err(Error::NoSuchOffset);
        }
        let mut block = pos >> self.block_bits;
        let end = self.block_end(size) >> self.block_bits;
        while block < end {
            let extent = self.map.lookup(block, end - block)?;
            if wanted(extent) {
                return Ok(Some(pos.max(block << self.block_bits)));
            }
            block += extent.len();
        }
        Ok(None)
    }
}
