//! The search for blocks, groups and inodes per group.

use ext2dax_format::features::{Compat, Features, Incompat, RoCompat};
use ext2dax_format::geometry::{GOOD_OLD_FIRST_INO, MAX_BLOCKS_PER_GROUP};

use crate::options::{Inodes, Options, Refusal};

/// A last group is left off if it would hold fewer blocks than this besides its own tables.
const WORTHWHILE_BLOCKS: u32 = 50;
/// Size that `lost+found` gets, so that fsck need not allocate, in bytes; at least two blocks, at most the direct ones.
const LOST_FOUND_BYTES: u32 = 16 * 1024;

/// What the retries of the search for a shape change.
pub(super) struct Shape {
    pub(super) blocks: u32,
    pub(super) blocks_per_group: u32,
    pub(super) groups: u32,
    pub(super) inodes_per_group: u32,
    pub(super) reserved_gdt: u32,
    pub(super) reserved_blocks: u32,
    pub(super) features: Features,
}
/// Blocks, groups, inodes per group: the search of mke2fs, which starts again when a last group is not worth its tables
/// or when a group cannot hold the inodes.
pub(super) fn find_shape(options: &Options, blocks: u32, needed: u32) -> Result<Shape, Refusal> {
    let wanted = wanted_inodes(options, blocks, needed)?;
    let block_size = options.block_size;
    let first = first_data_block(block_size);
    let mut shape = Shape {
        blocks,
        blocks_per_group: options
            .blocks_per_group
            .unwrap_or((block_size * 8).min(MAX_BLOCKS_PER_GROUP)),
        groups: 0,
        inodes_per_group: 0,
        reserved_gdt: 0,
        reserved_blocks: reserved_blocks(options, blocks),
        features: options.features,
    };
    loop {
        if shape.blocks <= first {
            let has_kib = u64::from(blocks) * u64::from(block_size) / 1024;
            return Err(Refusal::TooSmall {
                needed_kib: needed_kib(options, &shape).max(has_kib + 1),
                has_kib,
            });
        }
        shape.groups = (shape.blocks - first).div_ceil(shape.blocks_per_group);
        let per_group = wanted.div_ceil(shape.groups);
        let least = needed.div_ceil(shape.groups);
        if per_group > block_size * 8 || least > max_per_group(options) {
            if shape.blocks_per_group < 256 {
                return Err(Refusal::Inodes {
                    wanted: u64::from(wanted),
                    max: max_inodes(options, blocks),
                });
            }
            shape.blocks_per_group -= 8;
            shape.blocks = blocks;
            continue;
        }
        shape.inodes_per_group = fill_table(options, per_group, shape.groups);
        if shape.inodes_per_group < least {
            // Rounding down, as mke2fs does, would leave a file without an inode.
            shape.inodes_per_group = fill_table(options, least.next_multiple_of(8), shape.groups);
        }
        shape.reserved_gdt = reserved_gdt_blocks(options, &shape)?;
        let desc_blocks = shape.groups.div_ceil(block_size / 32);
        if shape.reserved_gdt + desc_blocks > shape.blocks_per_group * 3 / 4 && options.revision > 0
        {
            // More than three quarters of a group would be descriptors.
            shape.features.incompat.insert(Incompat::META_BG);
            if shape.features.compat.contains(Compat::RESIZE_INODE) {
                shape.features.compat.remove(Compat::RESIZE_INODE);
                shape.reserved_gdt = 0;
            }
        }
        let rest = (shape.blocks - first) % shape.blocks_per_group;
        let worthwhile = last_group_overhead(options, &shape, desc_blocks) + WORTHWHILE_BLOCKS;
        if rest == 0 || rest >= worthwhile || shape.groups == 1 {
            return Ok(shape);
        }
        // The reserved share shrinks with the size, and does not grow back if the search starts again.
        let left = shape.blocks - rest;
        let reserved =
            u64::from(reserved_blocks(options, blocks)) * u64::from(left) / u64::from(blocks);
        shape.reserved_blocks = u32::try_from(reserved).unwrap_or(u32::MAX);
        shape.blocks = left;
    }
}

pub(super) fn first_data_block(block_size: u32) -> u32 {
    u32::from(block_size == 1024)
}

fn wanted_inodes(options: &Options, blocks: u32, needed: u32) -> Result<u32, Refusal> {
    let bytes = u64::from(blocks) * u64::from(options.block_size);
    let wanted = match options.inodes {
        Inodes::Count(count) => u64::from(count),
        Inodes::Ratio(ratio) => bytes / u64::from(ratio.max(1)),
        Inodes::BySize => bytes / u64::from(ratio_by_size(bytes).max(options.block_size)),
    };
    let max = max_inodes(options, blocks);
    let asked = options.inodes != Inodes::BySize;
    if asked && (wanted == 0 || wanted > max) {
        return Err(Refusal::Inodes { wanted, max });
    }
    if let Inodes::Count(wanted) = options.inodes
        && wanted < needed
    {
        return Err(Refusal::TooFewInodes { wanted, needed });
    }
    let least = needed.max(GOOD_OLD_FIRST_INO + 1);
    Ok(u32::try_from(wanted.min(max))
        .unwrap_or(u32::MAX)
        .max(least))
}

/// Inodes that fill all blocks: a bound, not a promise.
fn max_inodes(options: &Options, blocks: u32) -> u64 {
    let per_block = u64::from(options.block_size / options.inode_size);
    (u64::from(blocks) * per_block)
        .saturating_sub(1)
        .min(u64::from(u32::MAX))
}

fn ratio_by_size(bytes: u64) -> u32 {
    const MIB: u64 = 1 << 20;
    match bytes / MIB {
        0..3 => 8192,
        3..512 => 4096,
        512..4_194_304 => 16_384,
        4_194_304..16_777_216 => 32_768,
        _ => 65_536,
    }
}

/// The most inodes of a group, whose count has 16 bits.
fn max_per_group(options: &Options) -> u32 {
    let per_block = options.block_size / options.inode_size;
    (65_536 - per_block.max(8)).min(options.block_size * 8)
}

/// Inodes per group that fill the blocks of the table, a multiple of 8, and not more in all than 32 bits count.
fn fill_table(options: &Options, per_group: u32, groups: u32) -> u32 {
    let per_block = options.block_size / options.inode_size;
    let max = 65_536 - per_block;
    let mut wanted = per_group.min(max);
    loop {
        let filled = (wanted.div_ceil(per_block) * per_block).max(8) & !7;
        // Rounding down must not lose the reserved inodes and lost+found.
        let filled = if filled * groups.min(2) > GOOD_OLD_FIRST_INO {
            filled
        } else {
            16
        };
        if filled.checked_mul(groups).is_some() {
            return filled;
        }
        wanted -= 1;
    }
}

/// Descriptor blocks to reserve behind those in use.
fn reserved_gdt_blocks(options: &Options, shape: &Shape) -> Result<u32, Refusal> {
    if !shape.features.compat.contains(Compat::RESIZE_INODE) {
        return Ok(0);
    }
    let per_block = options.block_size / 32;
    let max = options.block_size / 4;
    let desc_blocks = shape.groups.div_ceil(per_block);
    let grown = match options.resize_to {
        Some(to) => to,
        None => shape.blocks.saturating_mul(1024),
    };
    let groups =
        (grown - first_data_block(options.block_size).min(grown)).div_ceil(shape.blocks_per_group);
    let reserved = groups.div_ceil(per_block).saturating_sub(desc_blocks);
    if let Some(wanted) = options.resize_to
        && (wanted <= shape.blocks || reserved > max)
    {
        let max =
            u64::from(max + desc_blocks) * u64::from(per_block) * u64::from(shape.blocks_per_group);
        return Err(Refusal::ResizeTooLarge {
            wanted,
            max: max.min(u64::from(u32::MAX)),
        });
    }
    Ok(reserved.min(max))
}

/// Blocks that the tables of the last group take. Counts as mke2fs does: with meta_bg, too, as if all descriptors were
/// behind the backup.
fn last_group_overhead(options: &Options, shape: &Shape, desc_blocks: u32) -> u32 {
    let table = shape
        .inodes_per_group
        .div_ceil(options.block_size / options.inode_size);
    let last = shape.groups - 1;
    let has_super = if shape.features.compat.contains(Compat::SPARSE_SUPER2) {
        // One of the backups goes to the last group; with two groups the first backup is there.
        if shape.groups == 2 {
            options.backup_superblocks >= 1
        } else {
            options.backup_superblocks >= 2
        }
    } else {
        let sparse = shape.features.ro_compat.contains(RoCompat::SPARSE_SUPER);
        !sparse || last <= 1 || [3, 5, 7].iter().any(|&base| is_power(last, base))
    };
    let backup = if has_super {
        1 + desc_blocks + shape.reserved_gdt
    } else {
        0
    };
    2 + table + backup
}

fn is_power(mut nr: u32, base: u32) -> bool {
    while nr > 1 && nr.is_multiple_of(base) {
        nr /= base;
    }
    nr == 1
}

/// About how much room the smallest image with these options needs, in KiB: one group with its tables and files.
pub(super) fn needed_kib(options: &Options, shape: &Shape) -> u64 {
    let table = shape
        .inodes_per_group
        .max(16)
        .div_ceil(options.block_size / options.inode_size);
    let files = 1 + lost_found_blocks(options.block_size) + 1;
    let blocks = first_data_block(options.block_size) + 2 + shape.reserved_gdt + 2 + table + files;
    u64::from(blocks) * u64::from(options.block_size) / 1024
}

pub(crate) fn lost_found_blocks(block_size: u32) -> u32 {
    (LOST_FOUND_BYTES / block_size).clamp(2, 12)
}

fn reserved_blocks(options: &Options, blocks: u32) -> u32 {
    let share = u64::from(blocks) * u64::from(options.reserved_share) / 10_000;
    u32::try_from(share).unwrap_or(u32::MAX)
}
