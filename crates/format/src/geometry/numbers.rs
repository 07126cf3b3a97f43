//! Numbers from the medium: blocks, runs, inodes.

use core::num::NonZeroU32;

use super::Geometry;
use crate::{CorruptKind, FsBlock, GroupNr, Ino, Result, Run};

impl Geometry {
    /// A block pointer that is not a hole.
    ///
    /// # Errors
    /// [`CorruptKind::BlockOutOfRange`]. Whether the block holds tables of the file system is a question for whoever
    /// knows the descriptors.
    pub fn fs_block(&self, raw: u32) -> Result<FsBlock> {
        if raw < self.first_data_block || raw >= self.blocks_count {
            let kind = CorruptKind::BlockOutOfRange {
                block: raw,
                first: self.first_data_block,
                end: self.blocks_count,
            };
            return Err(kind.into());
        }
        Ok(FsBlock::checked(raw))
    }

    /// `len` consecutive blocks.
    ///
    /// # Errors
    /// [`CorruptKind::BlockOutOfRange`] for the first block, [`CorruptKind::RunOutOfRange`] for the rest.
    pub fn fs_run(&self, raw: u32, len: u32) -> Result<Run> {
        let start = self.fs_block(raw)?;
        if len > self.blocks_count.saturating_sub(raw) {
            return Err(CorruptKind::RunOutOfRange {
                block: raw,
                len,
                end: self.blocks_count,
            }
            .into());
        }
        Ok(Run { start, len })
    }

    /// An inode number.
    ///
    /// # Errors
    /// [`CorruptKind::InodeOutOfRange`], for 0 too.
    pub fn ino(&self, raw: u32) -> Result<Ino> {
        match NonZeroU32::new(raw) {
            Some(nr) if raw <= self.inodes_count => Ok(Ino::checked(nr)),
            _ => Err(CorruptKind::InodeOutOfRange {
                inode: raw,
                inodes: self.inodes_count,
            }
            .into()),
        }
    }

    /// An inode number that a name may lead to: the root, or one that is not reserved. 0 and the rest give `None`.
    #[must_use]
    pub fn named_ino(&self, raw: u32) -> Option<Ino> {
        let reserved = raw < self.first_ino && raw != Ino::ROOT.get();
        if reserved { None } else { self.ino(raw).ok() }
    }

    /// The group of an inode, and its index in that group's table and bitmap.
    #[must_use]
    pub fn locate_ino(&self, ino: Ino) -> (GroupNr, u32) {
        let index = ino.get().saturating_sub(1);
        let group = index.checked_div(self.inodes_per_group).unwrap_or(0);
        (
            GroupNr::checked(group),
            index.checked_rem(self.inodes_per_group).unwrap_or(0),
        )
    }

    /// The inode behind bit `index` of a group's inode bitmap, `None` past its end.
    #[must_use]
    pub fn ino_in_group(&self, group: GroupNr, index: u32) -> Option<Ino> {
        if index >= self.inodes_per_group {
            return None;
        }
        self.ino(
            group
                .get()
                .saturating_mul(self.inodes_per_group)
                .saturating_add(index)
                .saturating_add(1),
        )
        .ok()
    }

    /// Where a block lies, in bytes from the start of the file system.
    #[must_use]
    pub const fn offset(&self, block: FsBlock) -> u64 {
        // A u32 shifted by at most 16 bits cannot leave a u64.
        (block.get() as u64) << self.block_bits
    }

    /// The block that holds a byte of the region, given from the start of the file system.
    ///
    /// # Errors
    /// [`CorruptKind::BlockOutOfRange`].
    pub fn block_at(&self, offset: u64) -> Result<FsBlock> {
        self.fs_block(u32::try_from(offset >> self.block_bits).unwrap_or(u32::MAX))
    }

    /// Bytes from the start of the first block to the end of the last: the image's own length.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        (self.blocks_count as u64) << self.block_bits
    }
}
