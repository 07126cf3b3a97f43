//! The one door from numbers of the medium to typed values.
//!
//! [`Geometry::new`] looks at every field of the superblock that shapes the image; from then on block, inode and group
//! numbers enter through its methods and come out typed or as an error.

use core::num::NonZeroU32;

use crate::features::{Compat, Features, Incompat, RoCompat};
use crate::indirect;
use crate::superblock::{self, RawSuperblock};
use crate::{CorruptKind, Error, FsBlock, GroupNr, Ino, Result, Run};

/// Size of a group descriptor on the medium, in bytes.
pub const DESC_SIZE: u32 = 32;
/// Smallest size of an inode on the medium, in bytes, and the only one at revision 0.
pub const GOOD_OLD_INODE_SIZE: u32 = 128;
/// The first inode that is not reserved, at revision 0.
pub const GOOD_OLD_FIRST_INO: u32 = 11;
/// More blocks a group would overflow `bg_free_blocks_count`.
pub const MAX_BLOCKS_PER_GROUP: u32 = 65_528;

/// The shape of a file system: every number that cannot change while it is mounted. `Copy`, no reference to the image.
///
/// # Invariants
/// Every field has been checked against every other, and the blocks lie inside the region: arithmetic on checked
/// numbers cannot overflow, and [`Geometry::offset`] of a checked block plus a block size stays inside the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    block_bits: u32,
    blocks_count: u32,
    reserved_blocks: u32,
    first_data_block: u32,
    groups: u32,
    blocks_per_group: u32,
    inodes_per_group: u32,
    inodes_count: u32,
    inode_bits: u32,
    first_ino: u32,
    revision: u32,
    features: Features,
    reserved_gdt_blocks: u32,
    first_meta_bg: u32,
    backup_groups: [u32; 2],
    max_file_size: u64,
    hash_seed: [u32; 4],
    hash_version: u8,
    unsigned_hash: bool,
    creator_os: u32,
}

impl Geometry {
    /// Checks a superblock against itself and against the `region_len` bytes from the start of the file system on.
    ///
    /// Free counters are not part of the shape (a crash may leave them wrong) and are not looked at:
    /// [`Geometry::check_free_counts`] does.
    ///
    /// # Errors
    /// [`Error::TooShort`], [`Error::NotExt2`], [`Error::UnsupportedRevision`], [`Error::Unsupported`] if the layout is
    /// one of later relatives, [`Error::Corrupt`] for a number that cannot be.
    pub fn new(superblock: &RawSuperblock, region_len: u64) -> Result<Self> {
        if region_len < superblock::SUPERBLOCK_OFFSET.saturating_add(1024) {
            return Err(Error::TooShort { len: region_len });
        }
        if superblock.s_magic.get() != superblock::MAGIC {
            return Err(Error::NotExt2 {
                magic: superblock.s_magic.get(),
            });
        }
        let revision = superblock.s_rev_level.get();
        if revision > superblock::REVISION_DYNAMIC {
            return Err(Error::UnsupportedRevision(revision));
        }
        let features = Features::of(superblock);
        features.check_layout()?;

        let block_bits = block_bits(superblock)?;
        let (inode_bits, first_ino) = inode_shape(superblock, block_bits)?;
        let mut geometry = Self {
            block_bits,
            blocks_count: superblock.s_blocks_count.get(),
            reserved_blocks: superblock.s_r_blocks_count.get(),
            first_data_block: superblock.s_first_data_block.get(),
            groups: 0,
            blocks_per_group: superblock.s_blocks_per_group.get(),
            inodes_per_group: superblock.s_inodes_per_group.get(),
            inodes_count: superblock.s_inodes_count.get(),
            inode_bits,
            first_ino,
            revision,
            features,
            reserved_gdt_blocks: u32::from(superblock.s_reserved_gdt_blocks.get()),
            first_meta_bg: superblock.s_first_meta_bg.get(),
            backup_groups: superblock
                .s_backup_bgs
                .map(zerocopy::little_endian::U32::get),
            max_file_size: indirect::max_file_size(block_bits),
            hash_seed: superblock
                .s_hash_seed
                .map(zerocopy::little_endian::U32::get),
            hash_version: superblock.s_def_hash_version,
            unsigned_hash: superblock.s_flags.get() & superblock::FLAG_UNSIGNED_HASH != 0,
            creator_os: superblock.s_creator_os.get(),
        };
        geometry.check_blocks(superblock, region_len)?;
        geometry.groups = geometry
            .blocks_count
            .saturating_sub(geometry.first_data_block)
            .div_ceil(geometry.blocks_per_group);
        geometry.check_inodes()?;
        geometry.check_descriptors()?;
        geometry.check_groups()?;
        Ok(geometry)
    }

    fn check_blocks(&self, superblock: &RawSuperblock, region_len: u64) -> Result<()> {
        let expected = u32::from(self.block_bits == 10);
        if self.first_data_block != expected {
            return Err(CorruptKind::FirstDataBlock {
                found: self.first_data_block,
                expected,
            }
            .into());
        }
        let max = self.bits_per_block().min(MAX_BLOCKS_PER_GROUP);
        let found = self.blocks_per_group;
        if found == 0 || found > max || !found.is_multiple_of(8) {
            return Err(CorruptKind::BlocksPerGroup { found, max }.into());
        }
        let frags = superblock.s_frags_per_group.get();
        if frags != found {
            return Err(CorruptKind::FragsPerGroup {
                found: frags,
                expected: found,
            }
            .into());
        }
        if self.blocks_count <= self.first_data_block {
            return Err(CorruptKind::BlocksCount {
                found: self.blocks_count,
                first_data_block: self.first_data_block,
            }
            .into());
        }
        if u64::from(self.blocks_count) > region_len >> self.block_bits {
            return Err(CorruptKind::RegionTooSmall {
                blocks: self.blocks_count,
                block_size: self.block_size(),
                region_len,
            }
            .into());
        }
        if self.reserved_blocks > self.blocks_count / 2 {
            return Err(CorruptKind::ReservedBlocks {
                found: self.reserved_blocks,
                blocks: self.blocks_count,
            }
            .into());
        }
        Ok(())
    }

    fn check_inodes(&self) -> Result<()> {
        let per_block = self.inodes_per_block();
        let max = self
            .bits_per_block()
            .min(65_536_u32.saturating_sub(per_block));
        let found = self.inodes_per_group;
        if found == 0 || found > max {
            return Err(CorruptKind::InodesPerGroup { found, max }.into());
        }
        if u64::from(self.groups).saturating_mul(u64::from(found)) != u64::from(self.inodes_count) {
            return Err(CorruptKind::InodesCount {
                found: self.inodes_count,
                groups: self.groups,
                inodes_per_group: found,
            }
            .into());
        }
        // All reserved inodes and the first free one: group 0 alone need not hold them.
        if self.first_ino < GOOD_OLD_FIRST_INO || self.first_ino > self.inodes_count {
            return Err(CorruptKind::FirstInode {
                found: self.first_ino,
                inodes: self.inodes_count,
            }
            .into());
        }
        Ok(())
    }

    fn check_descriptors(&self) -> Result<()> {
        let max = self.addr_per_block();
        if self.reserved_gdt_blocks > max {
            return Err(CorruptKind::ReservedGdtBlocks {
                found: self.reserved_gdt_blocks,
                max,
            }
            .into());
        }
        let max = self.desc_blocks();
        if self.has_meta_bg() && self.first_meta_bg > max {
            return Err(CorruptKind::FirstMetaBg {
                found: self.first_meta_bg,
                max,
            }
            .into());
        }
        if self.features.compat.contains(Compat::SPARSE_SUPER2)
            && let Some(&found) = self
                .backup_groups
                .iter()
                .find(|&&group| group >= self.groups)
        {
            return Err(CorruptKind::BackupGroup {
                found,
                groups: self.groups,
            }
            .into());
        }
        Ok(())
    }

    /// Groups differ in length (the last) and in overhead (backups, descriptor blocks of meta_bg): one of each kind.
    fn check_groups(&self) -> Result<()> {
        let last = self.groups.saturating_sub(1);
        for group in [
            0,
            1,
            2,
            3,
            self.backup_groups[0],
            self.backup_groups[1],
            last,
        ] {
            let Some(group) = self.group_if_exists(group) else {
                continue;
            };
            let (blocks, needed) = (self.group_len(group), self.group_overhead(group));
            if needed > blocks {
                return Err(CorruptKind::GroupTooSmall {
                    group: group.get(),
                    blocks,
                    needed,
                }
                .into());
            }
        }
        Ok(())
    }

    /// Checks the two free counters of a superblock against what they count. A wrong counter is no reason to refuse a
    /// mount: what is free is counted from the bitmaps.
    ///
    /// # Errors
    /// [`CorruptKind::FreeBlocksCount`], [`CorruptKind::FreeInodesCount`].
    pub fn check_free_counts(&self, superblock: &RawSuperblock) -> Result<()> {
        let found = superblock.s_free_blocks_count.get();
        if found > self.blocks_count {
            return Err(CorruptKind::FreeBlocksCount {
                found,
                blocks: self.blocks_count,
            }
            .into());
        }
        let found = superblock.s_free_inodes_count.get();
        if found > self.inodes_count {
            return Err(CorruptKind::FreeInodesCount {
                found,
                inodes: self.inodes_count,
            }
            .into());
        }
        Ok(())
    }
}

fn block_bits(superblock: &RawSuperblock) -> Result<u32> {
    let found = superblock.s_log_block_size.get();
    if found > 6 {
        return Err(CorruptKind::LogBlockSize { found }.into());
    }
    let fragment = superblock.s_log_frag_size.get();
    if fragment != found {
        return Err(CorruptKind::FragmentSize {
            found: fragment,
            expected: found,
        }
        .into());
    }
    Ok(found.saturating_add(10))
}

/// Logarithm of the inode size, and the first inode that is not reserved.
fn inode_shape(superblock: &RawSuperblock, block_bits: u32) -> Result<(u32, u32)> {
    if superblock.s_rev_level.get() == superblock::REVISION_GOOD_OLD {
        return Ok((GOOD_OLD_INODE_SIZE.trailing_zeros(), GOOD_OLD_FIRST_INO));
    }
    let found = u32::from(superblock.s_inode_size.get());
    let max = 1_u32 << block_bits;
    if !found.is_power_of_two() || found < GOOD_OLD_INODE_SIZE || found > max {
        return Err(CorruptKind::InodeSize { found, max }.into());
    }
    Ok((found.trailing_zeros(), superblock.s_first_ino.get()))
}

/// The shape itself.
impl Geometry {
    /// Bytes in a block: a power of two from 1,024 to 65,536.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        1 << self.block_bits
    }

    /// Logarithm of the block size: 10 to 16.
    #[must_use]
    pub const fn block_bits(&self) -> u32 {
        self.block_bits
    }

    /// `s_blocks_count`: the number after the last block.
    #[must_use]
    pub const fn blocks_count(&self) -> u32 {
        self.blocks_count
    }

    /// `s_r_blocks_count`: blocks that only the reserved owner may take; at most half of all.
    #[must_use]
    pub const fn reserved_blocks(&self) -> u32 {
        self.reserved_blocks
    }

    /// The first block of group 0: 1 where a block is 1,024 bytes, else 0.
    #[must_use]
    pub const fn first_data_block(&self) -> u32 {
        self.first_data_block
    }

    /// Number of block groups: the one formula.
    #[must_use]
    pub const fn groups(&self) -> u32 {
        self.groups
    }

    /// Blocks in every group but perhaps the last.
    #[must_use]
    pub const fn blocks_per_group(&self) -> u32 {
        self.blocks_per_group
    }

    /// Inodes in every group, the last one too.
    #[must_use]
    pub const fn inodes_per_group(&self) -> u32 {
        self.inodes_per_group
    }

    /// The highest inode number.
    #[must_use]
    pub const fn inodes_count(&self) -> u32 {
        self.inodes_count
    }

    /// Bytes of an inode in the table: a power of two from 128 to the block size.
    #[must_use]
    pub const fn inode_size(&self) -> u32 {
        1 << self.inode_bits
    }

    /// Inodes in a block of the table.
    #[must_use]
    pub const fn inodes_per_block(&self) -> u32 {
        1 << self.block_bits.saturating_sub(self.inode_bits)
    }

    /// The first inode that is not reserved: 11 or more.
    #[must_use]
    pub const fn first_ino(&self) -> u32 {
        self.first_ino
    }

    /// Blocks of a group's inode table.
    #[must_use]
    pub const fn inode_table_blocks(&self) -> u32 {
        self.inodes_per_group.div_ceil(self.inodes_per_block())
    }

    /// The feature words.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// `s_rev_level`: 0 or 1.
    #[must_use]
    pub const fn revision(&self) -> u32 {
        self.revision
    }

    /// `s_creator_os`.
    #[must_use]
    pub const fn creator_os(&self) -> u32 {
        self.creator_os
    }

    /// Whether directory entries carry the type of their inode.
    #[must_use]
    pub const fn has_filetype(&self) -> bool {
        self.features.incompat.contains(Incompat::FILETYPE)
    }

    const fn has_meta_bg(&self) -> bool {
        self.features.incompat.contains(Incompat::META_BG)
    }

    /// Bits, and so blocks or inodes, that one bitmap block covers.
    #[must_use]
    pub const fn bits_per_block(&self) -> u32 {
        8 << self.block_bits
    }

    /// Block pointers in an indirect block: a power of two from 256 to 16,384.
    #[must_use]
    pub const fn addr_per_block(&self) -> u32 {
        1 << self.addr_bits()
    }

    /// Logarithm of [`Geometry::addr_per_block`].
    #[must_use]
    pub const fn addr_bits(&self) -> u32 {
        self.block_bits.saturating_sub(2)
    }

    /// 512-byte sectors in a block: the step of `i_blocks`.
    #[must_use]
    pub const fn sectors_per_block(&self) -> u32 {
        1 << self.block_bits.saturating_sub(9)
    }

    /// The largest size of a file in bytes: what the tree reaches, and what a 32-bit `i_blocks` of 512-byte sectors
    /// counts, indirect blocks included.
    #[must_use]
    pub const fn max_file_size(&self) -> u64 {
        self.max_file_size
    }

    /// `s_hash_seed`; all zero means the hash's own initial values.
    #[must_use]
    pub const fn hash_seed(&self) -> [u32; 4] {
        self.hash_seed
    }

    /// `s_def_hash_version` as it stands: the hash for new directory indexes. See [`crate::htree::HashVersion`].
    #[must_use]
    pub const fn hash_version(&self) -> u8 {
        self.hash_version
    }

    /// Whether `s_flags` says that hashes read the bytes of names as unsigned. Without either flag: signed.
    #[must_use]
    pub const fn unsigned_hash(&self) -> bool {
        self.unsigned_hash
    }
}

/// Groups, and where their tables lie.
impl Geometry {
    /// A group number from outside.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such group.
    pub fn group(&self, raw: u32) -> Result<GroupNr> {
        self.group_if_exists(raw).ok_or(Error::InvalidArgument)
    }

    fn group_if_exists(&self, raw: u32) -> Option<GroupNr> {
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

/// Numbers from the medium.
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

const fn is_power_of(nr: u32, base: u32) -> bool {
    let mut power = base;
    while power < nr {
        power = power.saturating_mul(base);
    }
    power == nr
}

#[cfg(test)]
mod tests;
