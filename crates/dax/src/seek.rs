//! SEEK_DATA and SEEK_HOLE: the same walk as reading.

use ext2dax_format::Error;

use crate::blockmap::{BlockMap, Extent};
use crate::file::DaxFile;

impl<M: BlockMap> DaxFile<M> {
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
