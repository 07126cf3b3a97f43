//! Good structures for tests to patch.

use zerocopy::little_endian::{U16, U32};

use crate::superblock::MAGIC;
use crate::{Geometry, RawSuperblock};

/// A superblock of `groups` full groups at a block size, as mke2fs would make it: 64 inodes a group, all default features.
pub(crate) fn superblock(block_size: u32, groups: u32) -> RawSuperblock {
    let mut raw = RawSuperblock::zeroed();
    let log = block_size.trailing_zeros() - 10;
    let per_group = (block_size * 8).min(65_528);
    let first = u32::from(log == 0);
    raw.s_inodes_count = U32::new(groups * 512);
    raw.s_blocks_count = U32::new(groups * per_group + first);
    raw.s_first_data_block = U32::new(first);
    raw.s_log_block_size = U32::new(log);
    raw.s_log_frag_size = U32::new(log);
    raw.s_blocks_per_group = U32::new(per_group);
    raw.s_frags_per_group = U32::new(per_group);
    raw.s_inodes_per_group = U32::new(512);
    raw.s_magic = U16::new(MAGIC);
    raw.s_rev_level = U32::new(1);
    raw.s_first_ino = U32::new(11);
    raw.s_inode_size = U16::new(256);
    raw.s_feature_compat = U32::new(0x38);
    raw.s_feature_incompat = U32::new(2);
    raw.s_feature_ro_compat = U32::new(3);
    raw
}

/// Bytes of the region that [`superblock`] fills.
pub(crate) fn region_len(raw: &RawSuperblock) -> u64 {
    u64::from(raw.s_blocks_count.get()) << (10 + raw.s_log_block_size.get())
}

pub(crate) fn geometry(block_size: u32, groups: u32) -> Geometry {
    let raw = superblock(block_size, groups);
    Geometry::new(&raw, region_len(&raw)).expect("the sample is good")
}

pub(crate) const BLOCK_SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];
