//! The one door from numbers of the medium to typed values.
//!
//! [`Geometry::new`] looks at every field of the superblock that shapes the image; from then on block, inode and group
//! numbers enter through its methods and come out typed or as an error.

use crate::features::{Compat, Features, Incompat};
use crate::indirect;
use crate::superblock::{self, RawSuperblock};
use crate::{CorruptKind, Error, Result};

mod groups;
mod numbers;

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

    /// Bytes of the largest file that block pointers reach; larger than [`Geometry::max_file_size`] where `i_blocks` could
    /// not count it.
    #[must_use]
    pub const fn addressable_size(&self) -> u64 {
        indirect::addressable_size(self.block_bits)
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

#[cfg(test)]
mod tests;
