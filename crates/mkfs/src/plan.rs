//! The plan: every number of the image, decided and checked before the first byte is written.
//!
//! The numbers are those that mke2fs 1.47 chooses for the same options; `tests/it/geometry.rs` compares. Where it gives
//! up on an image of one group with fewer than 50 blocks to spare, this goes on as long as everything fits.

use ext2dax_format::features::{Compat, Features, Incompat, RoCompat};
use ext2dax_format::geometry::{GOOD_OLD_FIRST_INO, MAX_BLOCKS_PER_GROUP};
use ext2dax_format::superblock::{self, RawSuperblock};
use ext2dax_format::{Geometry, GroupNr, RawGroupDesc, Run};
use zerocopy::little_endian::{U16, U32};

use crate::options::{Inodes, Options, Refusal, allowed_features};

/// A last group is left off if it would hold fewer blocks than this besides its own tables.
const WORTHWHILE_BLOCKS: u32 = 50;
/// Size that `lost+found` gets, so that fsck need not allocate, in bytes; at least two blocks, at most the direct ones.
const LOST_FOUND_BYTES: u32 = 16 * 1024;

/// An image, decided. `Plan::write` (in `write.rs`) carries it out.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) options: Options,
    pub(crate) geometry: Geometry,
    pub(crate) superblock: RawSuperblock,
    /// Blocks of group 0 and perhaps later ones that files take: see [`Files`].
    pub(crate) files: Files,
    /// Blocks at the end that form no group of their own.
    left_off: u32,
}

/// Blocks of the files that every new image has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// The root directory's one block.
    pub(crate) root: u32,
    /// `lost+found`, in order.
    pub(crate) lost_found: Vec<u32>,
    /// The double indirect block of the resize inode.
    pub(crate) resize: Option<u32>,
}

impl Files {
    pub(crate) fn blocks(&self) -> impl Iterator<Item = u32> + '_ {
        [self.root]
            .into_iter()
            .chain(self.lost_found.iter().copied())
            .chain(self.resize)
    }
}

/// What the retries of the search for a shape change.
struct Shape {
    blocks: u32,
    blocks_per_group: u32,
    groups: u32,
    inodes_per_group: u32,
    reserved_gdt: u32,
    reserved_blocks: u32,
    features: Features,
}

impl Plan {
    /// Plans an image of at most `len` bytes.
    ///
    /// # Errors
    /// [`Refusal`]: what is wrong with the options, or how much room they need.
    pub fn new(options: &Options, len: u64) -> Result<Self, Refusal> {
        check(options)?;
        let mut options = options.clone();
        if options.revision == 0 {
            options.inode_size = 128;
            options.features = Features::default();
        }
        let blocks = len / u64::from(options.block_size);
        let blocks = u32::try_from(blocks).map_err(|_| Refusal::TooManyBlocks(blocks))?;
        let shape = find_shape(&options, blocks)?;
        let left_off = blocks - shape.blocks;
        let superblock = superblock(&options, &shape);
        let too_small = || Refusal::TooSmall {
            needed_kib: needed_kib(&options, &shape),
            has_kib: len / 1024,
        };
        // The door that every reader goes through is the last check of the plan.
        let geometry = Geometry::new(&superblock, len).map_err(|_| too_small())?;
        let files = place_files(&options, &geometry).ok_or_else(too_small)?;
        let mut plan = Self {
            options,
            geometry,
            superblock,
            files,
            left_off,
        };
        plan.count();
        Ok(plan)
    }

    /// Free counts and overhead, from the layout.
    fn count(&mut self) {
        let geometry = &self.geometry;
        let overhead: u32 = geometry
            .all_groups()
            .map(|group| geometry.group_overhead(group))
            .sum();
        let free: u32 = geometry
            .all_groups()
            .map(|group| self.group_free(group))
            .sum();
        self.superblock.s_overhead_clusters = U32::new(overhead + geometry.first_data_block());
        self.superblock.s_free_blocks_count = U32::new(free);
        self.superblock.s_free_inodes_count =
            U32::new(geometry.inodes_count() - geometry.first_ino());
    }

    /// The shape of the image.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The options, with what was left open decided.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The primary superblock as it will stand.
    #[must_use]
    pub fn superblock(&self) -> &RawSuperblock {
        &self.superblock
    }

    /// Length of the image in bytes: whole blocks, at most what was given.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.geometry.len_bytes()
    }

    /// Blocks at the end that are too few for a group of their own and stay unused.
    #[must_use]
    pub fn left_off(&self) -> u32 {
        self.left_off
    }

    /// Blocks that hold backups of the superblock.
    #[must_use]
    pub fn backups(&self) -> Vec<u32> {
        let geometry = &self.geometry;
        let groups = geometry
            .all_groups()
            .skip(1)
            .filter(|&group| geometry.group_has_super(group));
        groups
            .map(|group| geometry.group_first_block(group).get())
            .collect()
    }

    /// Where the tables of a group lie, in the order in which mke2fs puts them.
    pub(crate) fn desc(&self, group: GroupNr) -> RawGroupDesc {
        let geometry = &self.geometry;
        let block_bitmap =
            geometry.group_first_block(group).get() + geometry.group_super_blocks(group);
        let first_free = (group.get() * geometry.inodes_per_group()).max(geometry.first_ino());
        let end = (group.get() + 1) * geometry.inodes_per_group();
        // lost+found is inode `first_ino`, and the root directory the only other one.
        let dirs = u16::from(group == GroupNr::FIRST) + u16::from(self.lost_found_group() == group);
        RawGroupDesc {
            bg_block_bitmap: U32::new(block_bitmap),
            bg_inode_bitmap: U32::new(block_bitmap + 1),
            bg_inode_table: U32::new(block_bitmap + 2),
            bg_free_blocks_count: count16(self.group_free(group)),
            bg_free_inodes_count: count16(end.saturating_sub(first_free)),
            bg_used_dirs_count: U16::new(dirs),
            ..RawGroupDesc::default()
        }
    }

    fn lost_found_group(&self) -> GroupNr {
        let ino = self
            .geometry
            .ino(self.geometry.first_ino())
            .expect("checked by Geometry");
        self.geometry.locate_ino(ino).0
    }

    fn group_free(&self, group: GroupNr) -> u32 {
        let all = self.geometry.group_run(group);
        let of_files = self
            .files
            .blocks()
            .filter(|&block| block >= all.start.get() && block < all.end())
            .count();
        let of_files = u32::try_from(of_files).expect("a dozen blocks");
        all.len - self.geometry.group_overhead(group) - of_files
    }
}

fn count16(count: u32) -> U16 {
    U16::new(u16::try_from(count).expect("groups have at most 65,528 blocks and inodes"))
}

fn check(options: &Options) -> Result<(), Refusal> {
    let block_size = options.block_size;
    if !block_size.is_power_of_two() || !(1024..=65_536).contains(&block_size) {
        return Err(Refusal::BlockSize(u64::from(block_size)));
    }
    if options.revision > 1 {
        return Err(Refusal::Revision(options.revision));
    }
    let found = options.inode_size;
    // s_inode_size has 16 bits.
    let max = block_size.min(32_768);
    if !found.is_power_of_two() || found < 128 || found > max {
        return Err(Refusal::InodeSize { found, max });
    }
    let max = (block_size * 8).min(MAX_BLOCKS_PER_GROUP);
    if let Some(found) = options.blocks_per_group
        && (!found.is_multiple_of(8) || !(256..=max).contains(&found))
    {
        return Err(Refusal::BlocksPerGroup { found, max });
    }
    if options.reserved_share > 5000 {
        return Err(Refusal::ReservedShare(options.reserved_share));
    }
    if options.label.len() > 16 {
        return Err(Refusal::TooLong {
            what: "the label",
            max: 16,
        });
    }
    if options.last_mounted.len() > 63 {
        return Err(Refusal::TooLong {
            what: "the last mounted directory",
            max: 63,
        });
    }
    check_features(options)
}

fn check_features(options: &Options) -> Result<(), Refusal> {
    let Features {
        compat,
        incompat,
        ro_compat,
    } = options.features;
    let allowed = allowed_features();
    let foreign = Features {
        compat: compat.difference(allowed.compat),
        incompat: incompat.difference(allowed.incompat),
        ro_compat: ro_compat.difference(allowed.ro_compat),
    };
    if foreign != Features::default() {
        return Err(Refusal::Feature {
            name: foreign.names(",").to_string(),
            known: true,
        });
    }
    if options.revision == 0 {
        return Ok(());
    }
    if compat.contains(Compat::RESIZE_INODE) {
        if incompat.contains(Incompat::META_BG) {
            return Err(Refusal::Together(
                "-O meta_bg excludes resize_inode: add ^resize_inode",
            ));
        }
        if !ro_compat.contains(RoCompat::SPARSE_SUPER) && !compat.contains(Compat::SPARSE_SUPER2) {
            return Err(Refusal::Together(
                "-O resize_inode needs sparse_super or sparse_super2: add ^resize_inode",
            ));
        }
    } else if options.resize_to.is_some() {
        return Err(Refusal::Together(
            "-E resize needs the resize_inode feature",
        ));
    }
    if ro_compat.contains(RoCompat::EXTRA_ISIZE) && options.inode_size == 128 {
        return Err(Refusal::Together(
            "-O extra_isize needs inodes of more than 128 bytes: see -I",
        ));
    }
    Ok(())
}

/// Blocks, groups, inodes per group: the search of mke2fs, which starts again when a last group is not worth its tables
/// or when a group cannot hold the inodes.
fn find_shape(options: &Options, blocks: u32) -> Result<Shape, Refusal> {
    let wanted = wanted_inodes(options, blocks)?;
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
        if per_group > block_size * 8 {
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

fn first_data_block(block_size: u32) -> u32 {
    u32::from(block_size == 1024)
}

fn wanted_inodes(options: &Options, blocks: u32) -> Result<u32, Refusal> {
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
    let least = GOOD_OLD_FIRST_INO + 1;
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
fn needed_kib(options: &Options, shape: &Shape) -> u64 {
    let table = shape
        .inodes_per_group
        .max(16)
        .div_ceil(options.block_size / options.inode_size);
    let files = 1 + lost_found_blocks(options.block_size) + 1;
    let blocks = first_data_block(options.block_size) + 2 + shape.reserved_gdt + 2 + table + files;
    u64::from(blocks) * u64::from(options.block_size) / 1024
}

fn lost_found_blocks(block_size: u32) -> u32 {
    (LOST_FOUND_BYTES / block_size).clamp(2, 12)
}

/// Finds blocks for root, `lost+found` and the resize inode: the first free ones. `None` if there are not enough.
fn place_files(options: &Options, geometry: &Geometry) -> Option<Files> {
    let mut free = geometry.all_groups().flat_map(|group| {
        let overhead = geometry.group_overhead(group);
        let run: Run = geometry.group_run(group).split(overhead).1;
        run.iter().map(|block| block.get())
    });
    let root = free.next()?;
    let count = lost_found_blocks(geometry.block_size()) as usize;
    let lost_found: Vec<u32> = free.by_ref().take(count).collect();
    if lost_found.len() < count {
        return None;
    }
    let wants_resize =
        options.revision > 0 && geometry.features().compat.contains(Compat::RESIZE_INODE);
    let resize = if wants_resize {
        Some(free.next()?)
    } else {
        None
    };
    Some(Files {
        root,
        lost_found,
        resize,
    })
}

fn superblock(options: &Options, shape: &Shape) -> RawSuperblock {
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

fn reserved_blocks(options: &Options, blocks: u32) -> u32 {
    let share = u64::from(blocks) * u64::from(options.reserved_share) / 10_000;
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// Name space of UUIDs that are derived from options: UUID version 5 of the DNS name `ext2dax.mkfs`.
fn name_space() -> uuid::Uuid {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, b"ext2dax.mkfs")
}

fn derived_uuid(options: &Options, shape: &Shape) -> [u8; 16] {
    let named = Options {
        uuid: None,
        ..options.clone()
    };
    let text = format!("{named:?} {}", shape.blocks);
    *uuid::Uuid::new_v5(&name_space(), text.as_bytes()).as_bytes()
}

fn derived_seed(uuid: [u8; 16]) -> [u8; 16] {
    *uuid::Uuid::new_v5(&name_space(), &uuid).as_bytes()
}
