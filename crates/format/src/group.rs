//! Group descriptors.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{CorruptKind, FsBlock, Geometry, GroupNr, Result, Run};

/// A block group's descriptor, 32 bytes.
///
/// # On disk
/// *The Second Extended File System*, "Block Group Descriptor Table". `bg_flags` and what follows it belong to ext4's
/// `uninit_bg`: kept, never used.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the specification's names; each is explained where it is used"
)]
pub struct RawGroupDesc {
    pub bg_block_bitmap: U32,
    pub bg_inode_bitmap: U32,
    pub bg_inode_table: U32,
    pub bg_free_blocks_count: U16,
    pub bg_free_inodes_count: U16,
    pub bg_used_dirs_count: U16,
    pub bg_flags: U16,
    pub bg_exclude_bitmap: U32,
    pub bg_block_bitmap_csum: U16,
    pub bg_inode_bitmap_csum: U16,
    pub bg_itable_unused: U16,
    pub bg_checksum: U16,
}

const _: () = {
    assert!(size_of::<RawGroupDesc>() == 32);
    assert!(core::mem::offset_of!(RawGroupDesc, bg_free_blocks_count) == 12);
    assert!(core::mem::offset_of!(RawGroupDesc, bg_flags) == 18);
    assert!(core::mem::offset_of!(RawGroupDesc, bg_checksum) == 30);
};

/// A checked copy of a descriptor: its tables lie inside the group and share no block with one another, with the
/// superblock copy or with the descriptors. Counters are as found; what is free, the bitmaps say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupDesc {
    /// The block of the block bitmap.
    pub block_bitmap: FsBlock,
    /// The block of the inode bitmap.
    pub inode_bitmap: FsBlock,
    /// The first block of the inode table, [`Geometry::inode_table_blocks`] long.
    pub inode_table: FsBlock,
    /// `bg_free_blocks_count` as found.
    pub free_blocks: u16,
    /// `bg_free_inodes_count` as found.
    pub free_inodes: u16,
    /// `bg_used_dirs_count` as found.
    pub used_dirs: u16,
}

impl Geometry {
    /// Checks where a group's descriptor puts its tables.
    ///
    /// # Errors
    /// [`CorruptKind::BlockBitmapOutOfGroup`], [`CorruptKind::InodeBitmapOutOfGroup`],
    /// [`CorruptKind::InodeTableOutOfGroup`], [`CorruptKind::GroupTablesOverlap`].
    pub fn group_desc(&self, raw: &RawGroupDesc, group: GroupNr) -> Result<GroupDesc> {
        let all = self.group_run(group);
        let (nr, first, end) = (group.get(), all.start.get(), all.end());
        let inside = |found: u32, len: u32| {
            let block = self.fs_block(found).ok()?;
            (all.contains(block) && len <= end.saturating_sub(found)).then_some(block)
        };
        let found = raw.bg_block_bitmap.get();
        let block_bitmap = inside(found, 1).ok_or(CorruptKind::BlockBitmapOutOfGroup {
            group: nr,
            found,
            first,
            end,
        })?;
        let found = raw.bg_inode_bitmap.get();
        let inode_bitmap = inside(found, 1).ok_or(CorruptKind::InodeBitmapOutOfGroup {
            group: nr,
            found,
            first,
            end,
        })?;
        let (found, len) = (raw.bg_inode_table.get(), self.inode_table_blocks());
        let inode_table = inside(found, len).ok_or(CorruptKind::InodeTableOutOfGroup {
            group: nr,
            found,
            len,
            first,
            end,
        })?;
        let desc = GroupDesc {
            block_bitmap,
            inode_bitmap,
            inode_table,
            free_blocks: raw.bg_free_blocks_count.get(),
            free_inodes: raw.bg_free_inodes_count.get(),
            used_dirs: raw.bg_used_dirs_count.get(),
        };
        match self.overlap(&desc, group) {
            Some(block) => Err(CorruptKind::GroupTablesOverlap {
                group: nr,
                block: block.get(),
            }
            .into()),
            None => Ok(desc),
        }
    }

    /// The runs of the group's tables: superblock copy with descriptors (perhaps empty), bitmaps, inode table.
    #[must_use]
    pub fn group_tables(&self, desc: &GroupDesc, group: GroupNr) -> [Run; 4] {
        [
            Run {
                start: self.group_first_block(group),
                len: self.group_super_blocks(group),
            },
            Run::single(desc.block_bitmap),
            Run::single(desc.inode_bitmap),
            Run {
                start: desc.inode_table,
                len: self.inode_table_blocks(),
            },
        ]
    }

    fn overlap(&self, desc: &GroupDesc, group: GroupNr) -> Option<FsBlock> {
        let tables = self.group_tables(desc, group);
        for (index, run) in tables.iter().enumerate() {
            for other in tables.iter().skip(index.saturating_add(1)) {
                if run.overlaps(*other) {
                    return Some(run.start.max(other.start));
                }
            }
        }
        None
    }
}
