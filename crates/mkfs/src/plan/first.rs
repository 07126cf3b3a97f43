//! The superblock of a new image.

use alloc::vec::Vec;

use ext2dax_format::features::{Compat, Features};
use ext2dax_format::geometry::GOOD_OLD_FIRST_INO;
use ext2dax_format::superblock::{self, RawSuperblock};
use zerocopy::little_endian::{U16, U32};

use super::count16;
use super::shape::{Shape, first_data_block};
use crate::options::{Inodes, Options};

/// Everything but the free counts and the overhead, which follow from the layout.
pub(super) fn superblock(options: &Options, shape: &Shape) -> RawSuperblock {
    let mut raw = RawSuperblock::zeroed();
    let log = options.block_size.trailing_zeros() - 10;
    let time = U32::new(options.time);
    let inodes = shape.inodes_per_group * shape.groups;
    raw.s_inodes_count = U32::new(inodes);
    raw.s_blocks_count = U32::new(shape.blocks);
    raw.s_r_blocks_count = U32::new(shape.reserved_blocks.min(shape.blocks / 2));
    raw.s_first_data_block = U32::new(first_data_block(options.block_size));
    raw.s_log_block_size = U32::new(log);
    raw.s_log_frag_size = U32::new(log);
    raw.s_blocks_per_group = U32::new(shape.blocks_per_group);
    raw.s_frags_per_group = U32::new(shape.blocks_per_group);
    raw.s_inodes_per_group = U32::new(shape.inodes_per_group);
    raw.s_wtime = time;
    raw.s_lastcheck = time;
    raw.s_mkfs_time = time;
    raw.s_max_mnt_count = U16::new(u16::MAX);
    raw.s_magic = U16::new(superblock::MAGIC);
    raw.s_state = U16::new(superblock::STATE_VALID);
    raw.s_errors = U16::new(options.on_error);
    raw.s_creator_os = U32::new(options.creator_os);
    raw.s_rev_level = U32::new(options.revision);
    raw.s_raid_stride = U16::new(options.raid.0);
    raw.s_raid_stripe_width = U32::new(options.raid.1);
    raw.s_uuid = options.uuid.unwrap_or_else(|| derived_uuid(options, shape));
    let seed = options
        .hash_seed
        .unwrap_or_else(|| derived_seed(raw.s_uuid));
    for (word, bytes) in raw.s_hash_seed.iter_mut().zip(seed.chunks_exact(4)) {
        *word = U32::from_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    raw.s_def_hash_version = 1;
    raw.s_flags = U32::new(
        superblock::FLAG_SIGNED_HASH
            | if options.test_fs {
                superblock::FLAG_TEST_FILESYS
            } else {
                0
            },
    );
    raw.s_volume_name[..options.label.len()].copy_from_slice(&options.label);
    raw.s_last_mounted[..options.last_mounted.len()].copy_from_slice(&options.last_mounted);
    if options.revision > 0 {
        dynamic_fields(&mut raw, options, shape);
    }
    raw
}

/// What revision 0 does not have.
fn dynamic_fields(raw: &mut RawSuperblock, options: &Options, shape: &Shape) {
    raw.s_first_ino = U32::new(GOOD_OLD_FIRST_INO);
    raw.s_inode_size = U16::new(u16::try_from(options.inode_size).unwrap_or(u16::MAX));
    raw.s_feature_compat = U32::new(shape.features.compat.bits());
    raw.s_feature_incompat = U32::new(shape.features.incompat.bits());
    raw.s_feature_ro_compat = U32::new(shape.features.ro_compat.bits());
    raw.s_reserved_gdt_blocks = count16(shape.reserved_gdt);
    // user_xattr and acl.
    raw.s_default_mount_opts = U32::new(0x000c);
    if options.inode_size > 128 {
        raw.s_min_extra_isize = U16::new(ext2dax_format::inode::EXTRA_ISIZE);
        raw.s_want_extra_isize = U16::new(ext2dax_format::inode::EXTRA_ISIZE);
    }
    if shape.features.compat.contains(Compat::SPARSE_SUPER2) {
        let last = shape.groups - 1;
        let backups = match (options.backup_superblocks, last) {
            (0, _) | (_, 0) => [0, 0],
            (1, _) | (_, 1) => [1, 0],
            _ => [1, last],
        };
        raw.s_backup_bgs = backups.map(U32::new);
    }
}

/// Name space of UUIDs that are derived from options: UUID version 5 of the DNS name `ext2dax.mkfs`.
fn name_space() -> uuid::Uuid {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, b"ext2dax.mkfs")
}

fn derived_uuid(options: &Options, shape: &Shape) -> [u8; 16] {
    named_uuid(&shaping(options, shape.blocks))
}

/// A UUID for what shaped an image: version 5 in the name space of this program.
pub(crate) fn named_uuid(what: &[u8]) -> [u8; 16] {
    *uuid::Uuid::new_v5(&name_space(), what).as_bytes()
}

/// Everything that shapes an image, in bytes that stay the same from version to version: numbers in a fixed order and
/// of a fixed width, texts with their length before them.
pub(crate) fn shaping(options: &Options, blocks: u32) -> Vec<u8> {
    let (inodes_by, inodes) = match options.inodes {
        Inodes::BySize => (0, 0),
        Inodes::Ratio(ratio) => (1, ratio),
        Inodes::Count(count) => (2, count),
    };
    let Features {
        compat,
        incompat,
        ro_compat,
    } = options.features;
    let numbers = [
        blocks,
        options.block_size,
        options.inode_size,
        inodes_by,
        inodes,
        options.blocks_per_group.unwrap_or(0),
        options.reserved_share,
        options.revision,
        compat.bits(),
        incompat.bits(),
        ro_compat.bits(),
        options.backup_superblocks,
        options.resize_to.unwrap_or(0),
        options.root_owner.0,
        options.root_owner.1,
        u32::from(options.root_mode),
        u32::from(options.on_error),
        options.creator_os,
        u32::from(options.raid.0),
        options.raid.1,
        u32::from(options.test_fs),
        options.time,
    ];
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|nr| nr.to_le_bytes()).collect();
    let seed = options.hash_seed.as_ref().map_or(&[][..], |seed| &seed[..]);
    // Nothing where there are none, as before there was a list.
    bytes.extend(options.bad_blocks.iter().flat_map(|nr| nr.to_le_bytes()));
    for text in [&options.label[..], &options.last_mounted, seed] {
        bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(text);
    }
    bytes
}

/// The hash seed that goes with a UUID.
pub(crate) fn derived_seed(uuid: [u8; 16]) -> [u8; 16] {
    named_uuid(&uuid)
}
