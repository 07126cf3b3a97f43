//! Blocks taken in two steps: looked for first, and used before their bits are set.
//!
//! For what must be on the medium before the medium says that it is in use. The caller is alone with the volume.

use ext2dax_format::{Error, FsBlock, GroupNr, Result, Run};

use crate::groups::Kind;
use crate::volume::State;

impl State {
    /// A free block, without taking it. What is stored there is nobody's, as long as nobody else takes it.
    #[must_use]
    pub fn vacant_block(&self) -> Option<FsBlock> {
        crate::inodes::around(self.geometry(), GroupNr::FIRST).find_map(|group| {
            let _guard = self.lock_group(group);
            // A damaged group has nothing to give.
            self.count_group(group).ok()?;
            let bitmap = self
                .groups
                .bitmap(self.pmem(), self.geometry(), group, Kind::Blocks);
            let nr = bitmap
                .ok()?
                .find_clear(0, self.geometry().group_len(group))?;
            self.geometry().block_in_group(group, nr)
        })
    }

    /// Takes that very block: bit set and flushed, durable with the next fence. Does nothing if the bit is set.
    ///
    /// # Errors
    /// `InvalidArgument` if the block belongs to the tables, `Corrupt` if its group is damaged. Nothing has changed then.
    pub fn claim_block(&self, block: FsBlock) -> Result<()> {
        if self.is_metadata(Run::single(block))? {
            return Err(Error::InvalidArgument);
        }
        let (group, nr) = self.geometry().locate_block(block);
        let _guard = self.lock_group(group);
        self.count_group(group)?;
        let bitmap = self
            .groups
            .bitmap(self.pmem(), self.geometry(), group, Kind::Blocks)?;
        let set = bitmap.set(nr, 1);
        self.adjust(group, Kind::Blocks, -set.cast_signed());
        Ok(())
    }
}
