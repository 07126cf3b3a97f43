//! Groups: how many, how long, and where their tables lie.

use super::{DESC_SIZE, Geometry};
use crate::features::{Compat, RoCompat};
use crate::{Error, FsBlock, GroupNr, Result, Run};

impl Geometry {
    /// A group number from outside.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such group.
    pub fn group(&self, raw: u32) -> Result<GroupNr> {
        self.group_if_exists(raw).ok_or(Error::InvalidArgument)
    }

    pub(super) fn group_if_exists(&self, raw: u32) -> Option<GroupNr> {
        (raw < self.groups).then(|| GroupNr::checked(raw))
    }

    /// All groups, lowest first.
    pub fn all_groups(
        &self,
    ) -> impl DoubleEndedIterator<Item = GroupNr> + ExactSizeIterator + use<> {
        (0..self.groups).map(GroupNr::checked)
    }

    /// The first block of a group.
    #[must_use]
    pub const fn group_first_block(&self, group: GroupNr) -> FsBlock {
        let before = group.get().saturating_mul(self.blocks_per_group);
        FsBlock::checked(before.saturating_add(self.first_data_block))
    }

    /// Blocks in a group: `blocks_per_group`, or fewer in the last.
    #[must_use]
    pub const fn group_len(&self, group: GroupNr) -> u32 {
        let left = self
            .blocks_count
            .saturating_sub(self.group_first_block(group).get());
        if left < self.blocks_per_group {
            left
        } else {
            self.blocks_per_group
        }
    }

    /// All blocks of a group.
    #[must_use]
    pub const fn group_run(&self, group: GroupNr) -> Run {
        Run {
            start: self.group_first_block(group),
            len: self.group_len(group),
        }
    }

    /// The group of a block.
    #[must_use]
    pub fn group_of_block(&self, block: FsBlock) -> GroupNr {
        self.locate_block(block).0
    }

    /// The group of a block, and the block's bit in that group's bitmap.
    #[must_use]
    pub fn locate_block(&self, block: FsBlock) -> (GroupNr, u32) {
        // A checked block is never below the first data block; blocks_per_group is not zero.
        let index = block.get().saturating_sub(self.first_data_block);
        let group = index.checked_div(self.blocks_per_group).unwrap_or(0);
        (
            GroupNr::checked(group),
            index.checked_rem(self.blocks_per_group).unwrap_or(0),
        )
    }

    /// The block behind bit `index` of a group's bitmap, `None` past the group's end.
    #[must_use]
    pub const fn block_in_group(&self, group: GroupNr, index: u32) -> Option<FsBlock> {
        self.group_run(group).get(index)
    }

    /// Group descriptors in a block.
    #[must_use]
    pub const fn desc_per_block(&self) -> u32 {
        self.block_size() / DESC_SIZE
    }

    /// The descriptor block of a group, counted from 0.
    const fn meta_group(&self, group: GroupNr) -> u32 {
        group.get() >> self.desc_per_block().trailing_zeros()
    }

    /// The place of a group's descriptor in its block.
    const fn index_in_meta_group(&self, group: GroupNr) -> u32 {
        group.get() & self.desc_per_block().saturating_sub(1)
    }

    /// Blocks of group descriptors, the reserved ones not counted.
    #[must_use]
    pub const fn desc_blocks(&self) -> u32 {
        self.groups.div_ceil(self.desc_per_block())
    }

    /// `s_reserved_gdt_blocks`: descriptor blocks kept for growing, behind those in use.
    #[must_use]
    pub const fn reserved_gdt_blocks(&self) -> u32 {
        self.reserved_gdt_blocks
    }

    /// Descriptor blocks behind each superblock copy, the reserved ones included.
    const fn old_desc_blocks(&self) -> u32 {
        if self.has_meta_bg() {
            self.first_meta_bg
        } else {
            self.desc_blocks().saturating_add(self.reserved_gdt_blocks)
        }
    }

    /// Whether the descriptors of this group lie behind the superblock copies, as ever, or in their own meta group.
    const fn in_meta_bg(&self, group: GroupNr) -> bool {
        self.has_meta_bg() && self.meta_group(group) >= self.first_meta_bg
    }

    /// Whether a group begins with a superblock or a backup of it.
    ///
    /// # On disk
    /// All groups; with `sparse_super` 0, 1 and powers of 3, 5 and 7; with `sparse_super2` 0 and `s_backup_bgs`.
    #[must_use]
    pub fn group_has_super(&self, group: GroupNr) -> bool {
        let nr = group.get();
        if nr == 0 {
            return true;
        }
        if self.features.compat.contains(Compat::SPARSE_SUPER2) {
            return self.backup_groups.contains(&nr);
        }
        nr == 1
            || !self.features.ro_compat.contains(RoCompat::SPARSE_SUPER)
            || [3, 5, 7].iter().any(|&base| is_power_of(nr, base))
    }

    /// Where the primary descriptor of a group lies, in bytes from the start of the file system.
    #[must_use]
    pub fn desc_offset(&self, group: GroupNr) -> u64 {
        let table_block = self.meta_group(group);
        let within =
            u64::from(self.index_in_meta_group(group)).saturating_mul(u64::from(DESC_SIZE));
        self.offset(self.desc_block(table_block))
            .saturating_add(within)
    }

    /// The primary copy of block `index` of the descriptor table. `index` is below [`Geometry::desc_blocks`].
    #[must_use]
    pub fn desc_block(&self, index: u32) -> FsBlock {
        let first = GroupNr::checked(index.saturating_mul(self.desc_per_block()));
        if self.in_meta_bg(first) {
            let skip = u32::from(self.group_has_super(first));
            FsBlock::checked(self.group_first_block(first).get().saturating_add(skip))
        } else {
            FsBlock::checked(
                self.first_data_block
                    .saturating_add(1)
                    .saturating_add(index),
            )
        }
    }

    /// Superblock copy and descriptor blocks at the start of a group, in blocks: 0 in most groups.
    ///
    /// With `meta_bg` the first, second and last group of a meta group hold a copy of its one descriptor block.
    #[must_use]
    pub fn group_super_blocks(&self, group: GroupNr) -> u32 {
        let has_super = self.group_has_super(group);
        let desc = if self.in_meta_bg(group) {
            let within = self.index_in_meta_group(group);
            u32::from(within <= 1 || within == self.desc_per_block().saturating_sub(1))
        } else if has_super {
            self.old_desc_blocks()
        } else {
            0
        };
        u32::from(has_super).saturating_add(desc)
    }

    /// Blocks of a group that its own tables take: superblock copy, descriptors, bitmaps, inode table.
    #[must_use]
    pub fn group_overhead(&self, group: GroupNr) -> u32 {
        self.group_super_blocks(group)
            .saturating_add(2)
            .saturating_add(self.inode_table_blocks())
    }
}

const fn is_power_of(nr: u32, base: u32) -> bool {
    let mut power = base;
    while power < nr {
        power = power.saturating_mul(base);
    }
    power == nr
}
