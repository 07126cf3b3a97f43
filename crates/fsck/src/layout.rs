//! Where things lie, computed from one superblock.
//!
//! This is on purpose not `ext2dax_format::Geometry`: a checker has to go on where a mount refuses, to say of each field
//! what is wrong with it, and to judge the writer by numbers that it computed itself.

use ext2dax_format::RawSuperblock;

use crate::finding::Finding;
use crate::problem::Code;

pub(crate) const MAGIC: u16 = 0xEF53;
pub(crate) const SUPER_AT: u64 = 1024;
pub(crate) const ROOT_INO: u32 = 2;

/// The field with the first group of descriptors that stand by themselves.
pub(crate) const FIRST_META_BG: &str = "s_first_meta_bg";

/// Feature bits that the checks ask for.
pub(crate) mod feature {
    pub(crate) const COMPAT_IMAGIC: u32 = 0x2;
    pub(crate) const COMPAT_JOURNAL: u32 = 0x4;
    pub(crate) const COMPAT_EXT_ATTR: u32 = 0x8;
    pub(crate) const COMPAT_RESIZE_INODE: u32 = 0x10;
    pub(crate) const COMPAT_DIR_INDEX: u32 = 0x20;
    pub(crate) const COMPAT_SPARSE_SUPER2: u32 = 0x200;
    pub(crate) const COMPAT_KNOWN: u32 =
        0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x200 | 0x400 | 0x800 | 0x1000;
    pub(crate) const INCOMPAT_FILETYPE: u32 = 0x2;
    pub(crate) const INCOMPAT_RECOVER: u32 = 0x4;
    pub(crate) const INCOMPAT_META_BG: u32 = 0x10;
    pub(crate) const INCOMPAT_KNOWN: u32 = INCOMPAT_FILETYPE | INCOMPAT_RECOVER | INCOMPAT_META_BG;
    pub(crate) const RO_SPARSE_SUPER: u32 = 0x1;
    pub(crate) const RO_LARGE_FILE: u32 = 0x2;
    pub(crate) const RO_DIR_NLINK: u32 = 0x20;
    pub(crate) const RO_KNOWN: u32 = 0x1 | 0x2 | 0x4 | RO_DIR_NLINK | 0x40;
}

/// Why a superblock cannot be used.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// No magic number.
    Magic,
    /// Fields that contradict each other or the format.
    Fields(Vec<Finding>),
    /// The file system is larger than the region.
    TooLarge { blocks: u32, block_size: u32 },
    /// Features of other file systems: (word letter, bits).
    Features { incompat: u32, ro_compat: u32 },
    /// A revision that nobody has defined.
    Revision(u32),
}

/// Numbers of one file system; all of them fit each other and the region.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) block_size: u32,
    pub(crate) block_log: u32,
    pub(crate) blocks: u32,
    pub(crate) first_data_block: u32,
    pub(crate) blocks_per_group: u32,
    pub(crate) inodes_per_group: u32,
    pub(crate) groups: u32,
    pub(crate) inodes: u32,
    pub(crate) inode_size: u32,
    pub(crate) first_ino: u32,
    pub(crate) table_blocks: u32,
    pub(crate) descs_per_block: u32,
    pub(crate) desc_blocks: u32,
    pub(crate) reserved_gdt: u32,
    pub(crate) first_meta_bg: u32,
    pub(crate) backup_groups: [u32; 2],
    pub(crate) compat: u32,
    pub(crate) incompat: u32,
    pub(crate) ro_compat: u32,
    pub(crate) revision: u32,
    pub(crate) hurd: bool,
    pub(crate) prealloc_dir_blocks: u32,
    pub(crate) journal_ino: u32,
}

impl Layout {
    /// Takes the numbers out of `sb`.
    pub(crate) fn new(sb: &RawSuperblock, region: u64) -> Result<Self, Unfit> {
        if sb.s_magic.get() != MAGIC {
            return Err(Unfit::Magic);
        }
        let revision = sb.s_rev_level.get();
        if revision > 1 {
            return Err(Unfit::Revision(revision));
        }
        let (incompat, ro_compat) = (sb.s_feature_incompat.get(), sb.s_feature_ro_compat.get());
        let strange = (
            incompat & !feature::INCOMPAT_KNOWN,
            ro_compat & !feature::RO_KNOWN,
        );
        if strange != (0, 0) {
            return Err(Unfit::Features {
                incompat: strange.0,
                ro_compat: strange.1,
            });
        }
        let mut check = FieldCheck(Vec::new());
        let block_log = sb.s_log_block_size.get();
        check.at_most("s_log_block_size", block_log, 6);
        check.equal("s_log_frag_size", sb.s_log_frag_size.get(), block_log);
        check.done()?;
        let block_size = 1024_u32 << block_log;
        let (inode_size, first_ino) = match revision {
            0 => (128, 11),
            _ => (u32::from(sb.s_inode_size.get()), sb.s_first_ino.get()),
        };
        if !inode_size.is_power_of_two() || inode_size < 128 || inode_size > block_size {
            check.wrong("s_inode_size", inode_size, 128);
        }
        // Without the 64bit feature descriptors are 32 bytes long whatever the field says; it has to be a size, though.
        let desc_size = u32::from(sb.s_desc_size.get());
        if desc_size > 1024 || (desc_size != 0 && !desc_size.is_power_of_two()) {
            check.wrong("s_desc_size", desc_size, 0);
        }
        // Without flex_bg it means nothing, but e2fsck takes no superblock with more.
        check.at_most("s_log_groups_per_flex", sb.s_log_groups_per_flex.into(), 31);
        let blocks = sb.s_blocks_count.get();
        let first_data_block = sb.s_first_data_block.get();
        let blocks_per_group = sb.s_blocks_per_group.get();
        let inodes_per_group = sb.s_inodes_per_group.get();
        check.equal(
            "s_first_data_block",
            first_data_block,
            u32::from(block_log == 0),
        );
        check.at_least("s_blocks_count", blocks, first_data_block.saturating_add(1));
        check.at_least("s_blocks_per_group", blocks_per_group, 8);
        check.at_most(
            "s_blocks_per_group",
            blocks_per_group,
            (8 * block_size).min(65_528),
        );
        check.equal(
            "s_frags_per_group",
            sb.s_frags_per_group.get(),
            blocks_per_group,
        );
        check.done()?;
        if !blocks_per_group.is_multiple_of(8) {
            check.wrong(
                "s_blocks_per_group",
                blocks_per_group,
                blocks_per_group & !7,
            );
        }
        let per_block = block_size / inode_size;
        let groups = (blocks - first_data_block).div_ceil(blocks_per_group);
        if !inodes_per_group.is_multiple_of(8) {
            // Bitmaps count whole bytes; every maker of ext2 rounds to them.
            check.wrong(
                "s_inodes_per_group",
                inodes_per_group,
                sb.s_inodes_count.get() / groups,
            );
        }
        check.at_least("s_inodes_per_group", inodes_per_group, per_block);
        let most = u64::from(per_block) * u64::from(blocks_per_group.saturating_sub(4));
        check.at_most(
            "s_inodes_per_group",
            inodes_per_group,
            saturate(
                most.min(u64::from(8 * block_size))
                    .min(65_536 - u64::from(per_block)),
            ),
        );
        check.at_most("s_r_blocks_count", sb.s_r_blocks_count.get(), blocks / 2);
        check.at_most(
            "s_reserved_gdt_blocks",
            sb.s_reserved_gdt_blocks.get().into(),
            block_size / 4,
        );
        check.done()?;
        let inodes = u64::from(groups) * u64::from(inodes_per_group);
        if u64::from(sb.s_inodes_count.get()) != inodes {
            check.0.push(
                Finding::new(Code::SuperInodesCount)
                    .found(sb.s_inodes_count.get())
                    .expected(inodes),
            );
        }
        check.done()?;
        check.at_least("s_first_ino", first_ino, 11);
        check.at_most("s_first_ino", first_ino, sb.s_inodes_count.get());
        let descs_per_block = block_size / 32;
        let desc_blocks = groups.div_ceil(descs_per_block);
        let table_blocks = inodes_per_group.div_ceil(per_block);
        if incompat & feature::INCOMPAT_META_BG != 0 {
            check.at_most(FIRST_META_BG, sb.s_first_meta_bg.get(), desc_blocks);
        }
        check.done()?;
        if u64::from(blocks) << (10 + block_log) > region {
            return Err(Unfit::TooLarge { blocks, block_size });
        }
        Ok(Self {
            block_size,
            block_log,
            blocks,
            first_data_block,
            blocks_per_group,
            inodes_per_group,
            groups,
            inodes: sb.s_inodes_count.get(),
            inode_size,
            first_ino,
            table_blocks,
            descs_per_block,
            desc_blocks,
            // Without the feature nothing is reserved, whatever the field says.
            reserved_gdt: match sb.s_feature_compat.get() & feature::COMPAT_RESIZE_INODE {
                0 => 0,
                _ => sb.s_reserved_gdt_blocks.get().into(),
            },
            first_meta_bg: sb.s_first_meta_bg.get(),
            backup_groups: [sb.s_backup_bgs[0].get(), sb.s_backup_bgs[1].get()],
            compat: sb.s_feature_compat.get(),
            incompat,
            ro_compat,
            revision,
            hurd: sb.s_creator_os.get() == 1,
            prealloc_dir_blocks: sb.s_prealloc_dir_blocks.into(),
            journal_ino: sb.s_journal_inum.get(),
        })
    }

    /// Whether the descriptors of another copy describe the same groups.
    pub(crate) fn same_geometry(&self, other: &Self) -> bool {
        let numbers = |l: &Self| {
            (
                l.block_size,
                l.blocks,
                l.blocks_per_group,
                l.inodes_per_group,
                l.inode_size,
            )
        };
        numbers(self) == numbers(other)
    }

    pub(crate) fn compat(&self, bit: u32) -> bool {
        self.compat & bit != 0
    }

    /// Whether entries carry a type.
    pub(crate) fn filetype(&self) -> bool {
        self.incompat & feature::INCOMPAT_FILETYPE != 0
    }

    /// Byte offset of a block.
    pub(crate) fn at(&self, block: u32) -> u64 {
        u64::from(block) << (10 + self.block_log)
    }

    /// Whether a block number of the medium may be that of a data block. Block 0 never is: as a pointer it means a hole,
    /// and it holds the boot block and, in blocks of more than 1 KiB, the superblock.
    pub(crate) fn holds(&self, block: u32) -> bool {
        (1..self.blocks).contains(&block)
    }

    pub(crate) fn group_first(&self, group: u32) -> u32 {
        self.first_data_block
            .saturating_add(group.saturating_mul(self.blocks_per_group))
    }

    /// Blocks of the group; the last one may be short.
    pub(crate) fn group_len(&self, group: u32) -> u32 {
        self.blocks
            .saturating_sub(self.group_first(group))
            .min(self.blocks_per_group)
    }

    pub(crate) fn group_of_block(&self, block: u32) -> u32 {
        block.saturating_sub(self.first_data_block) / self.blocks_per_group
    }

    pub(crate) fn group_of_ino(&self, ino: u32) -> u32 {
        ino.saturating_sub(1) / self.inodes_per_group
    }

    pub(crate) fn first_ino_of(&self, group: u32) -> u32 {
        group
            .saturating_mul(self.inodes_per_group)
            .saturating_add(1)
    }

    /// Whether the group holds a superblock. *The Second Extended File System*, "Superblock"; `ext4/super.rst` for
    /// `sparse_super2`.
    pub(crate) fn has_super(&self, group: u32) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat(feature::COMPAT_SPARSE_SUPER2) {
            return self.backup_groups.contains(&group);
        }
        if group == 1 || self.ro_compat & feature::RO_SPARSE_SUPER == 0 {
            return true;
        }
        [3, 5, 7].into_iter().any(|base| is_power_of(group, base))
    }

    fn meta_bg(&self, desc_block: u32) -> bool {
        self.incompat & feature::INCOMPAT_META_BG != 0 && desc_block >= self.first_meta_bg
    }

    /// Block `index` of the descriptor table, in the primary copy or that of the superblock in `copy`'s group.
    pub(crate) fn desc_block(&self, index: u32, copy: u32) -> u32 {
        if !self.meta_bg(index) {
            return self
                .group_first(copy)
                .saturating_add(1)
                .saturating_add(index);
        }
        let mut group = index.saturating_mul(self.descs_per_block);
        // The copies of a meta block group's descriptors lie in its second and its last group.
        if copy != 0 && group.saturating_add(1) < self.groups {
            group += 1;
        }
        self.group_first(group)
            .saturating_add(u32::from(self.has_super(group)))
    }

    /// Byte offset of a group's descriptor.
    pub(crate) fn desc_at(&self, group: u32, copy: u32) -> u64 {
        let block = self.desc_block(group / self.descs_per_block, copy);
        self.at(block) + u64::from(group % self.descs_per_block) * 32
    }

    /// The runs of blocks that superblock and descriptors take in a group: (first, count).
    pub(crate) fn fixed_metadata(&self, group: u32) -> [(u32, u32); 2] {
        let first = self.group_first(group);
        let has_super = u32::from(self.has_super(group));
        let index = group / self.descs_per_block;
        if self.meta_bg(index) {
            let place = group % self.descs_per_block;
            let here = place == 0 || place == 1 || place == self.descs_per_block - 1;
            return [
                (first, has_super),
                (first.saturating_add(has_super), u32::from(here)),
            ];
        }
        let old = match self.incompat & feature::INCOMPAT_META_BG {
            0 => self.desc_blocks + self.reserved_gdt,
            _ => self.first_meta_bg.min(self.desc_blocks),
        };
        [
            (first, has_super),
            (first.saturating_add(1), has_super * old),
        ]
    }

    /// Whether superblock or descriptors take one of the blocks from `first` to before `end`, all of which lie in `group`.
    pub(crate) fn fixed_meets(&self, group: u32, first: u32, end: u32) -> bool {
        // Only absurdly small groups are shorter than their descriptors.
        let reach = (self.desc_blocks + self.reserved_gdt + 1) / self.blocks_per_group;
        (group.saturating_sub(reach)..=group).any(|group| {
            self.fixed_metadata(group)
                .into_iter()
                .any(|(start, count)| start < end && first < start.saturating_add(count))
        })
    }

    /// Block pointers in an indirect block.
    pub(crate) fn addrs(&self) -> u32 {
        self.block_size / 4
    }

    /// The largest size that direct and indirect blocks can map.
    pub(crate) fn max_tree_size(&self) -> u64 {
        let n = u64::from(self.addrs());
        // 64 KiB blocks: 2^42 blocks of 2^16 bytes, which still fits 63 bits.
        (12 + n + n * n + n * n * n) << (10 + self.block_log)
    }
}

/// `value` as a `u32`, or the largest one.
pub(crate) fn saturate(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn is_power_of(mut group: u32, base: u32) -> bool {
    while group > base && group.is_multiple_of(base) {
        group /= base;
    }
    group == base
}

struct FieldCheck(Vec<Finding>);

impl FieldCheck {
    fn wrong(&mut self, name: &str, found: u32, expected: u32) {
        self.0.push(
            Finding::new(Code::SuperField)
                .name(name.as_bytes())
                .found(found)
                .expected(expected),
        );
    }
    fn at_most(&mut self, name: &str, value: u32, most: u32) {
        if value > most {
            self.wrong(name, value, most);
        }
    }
    fn at_least(&mut self, name: &str, value: u32, least: u32) {
        if value < least {
            self.wrong(name, value, least);
        }
    }
    fn equal(&mut self, name: &str, value: u32, should: u32) {
        if value != should {
            self.wrong(name, value, should);
        }
    }
    fn done(&mut self) -> Result<(), Unfit> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Unfit::Fields(std::mem::take(&mut self.0)))
        }
    }
}
