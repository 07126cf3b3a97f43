use zerocopy::little_endian::{U16, U32};

use super::*;
use crate::sample::{self, BLOCK_SIZES};
use crate::{GroupNr, Ino};

type Patch = fn(&mut RawSuperblock);

fn refusal(block_size: u32, groups: u32, patch: Patch) -> Error {
    let mut raw = sample::superblock(block_size, groups);
    let len = sample::region_len(&raw);
    patch(&mut raw);
    Geometry::new(&raw, len).expect_err("the patch makes it bad")
}

#[test]
fn good_superblocks_pass_at_every_block_size() {
    for block_size in BLOCK_SIZES {
        let geometry = sample::geometry(block_size, 3);
        assert_eq!((geometry.block_size(), geometry.groups()), (block_size, 3));
        assert_eq!(geometry.addr_per_block(), block_size / 4);
        let last = geometry.group(2).unwrap();
        assert_eq!(geometry.group_run(last).end(), geometry.blocks_count());
        assert_eq!(geometry.group(3), Err(Error::InvalidArgument));
    }
}

#[test]
fn each_bad_field_has_its_kind() {
    use CorruptKind as K;
    let table: [(Patch, CorruptKind); 21] = [
        (
            |s| s.s_log_block_size = U32::new(7),
            K::LogBlockSize { found: 7 },
        ),
        (
            |s| s.s_log_block_size = U32::new(u32::MAX),
            K::LogBlockSize { found: u32::MAX },
        ),
        (
            |s| s.s_log_frag_size = U32::new(1),
            K::FragmentSize {
                found: 1,
                expected: 0,
            },
        ),
        (
            |s| s.s_first_data_block = U32::new(2),
            K::FirstDataBlock {
                found: 2,
                expected: 1,
            },
        ),
        (
            |s| s.s_blocks_per_group = U32::new(0),
            K::BlocksPerGroup {
                found: 0,
                max: 8192,
            },
        ),
        (
            |s| s.s_blocks_per_group = U32::new(8193),
            K::BlocksPerGroup {
                found: 8193,
                max: 8192,
            },
        ),
        (
            |s| s.s_blocks_per_group = U32::new(8191),
            K::BlocksPerGroup {
                found: 8191,
                max: 8192,
            },
        ),
        (
            |s| s.s_frags_per_group = U32::new(8),
            K::FragsPerGroup {
                found: 8,
                expected: 8192,
            },
        ),
        (
            |s| s.s_inodes_per_group = U32::new(0),
            K::InodesPerGroup {
                found: 0,
                max: 8192,
            },
        ),
        (
            |s| s.s_inodes_per_group = U32::new(8193),
            K::InodesPerGroup {
                found: 8193,
                max: 8192,
            },
        ),
        (
            |s| s.s_inode_size = U16::new(96),
            K::InodeSize {
                found: 96,
                max: 1024,
            },
        ),
        (
            |s| s.s_inode_size = U16::new(64),
            K::InodeSize {
                found: 64,
                max: 1024,
            },
        ),
        (
            |s| s.s_inode_size = U16::new(2048),
            K::InodeSize {
                found: 2048,
                max: 1024,
            },
        ),
        (
            |s| s.s_first_ino = U32::new(3),
            K::FirstInode {
                found: 3,
                inodes: 1536,
            },
        ),
        (
            |s| s.s_first_ino = U32::new(1537),
            K::FirstInode {
                found: 1537,
                inodes: 1536,
            },
        ),
        (
            |s| s.s_blocks_count = U32::new(1),
            K::BlocksCount {
                found: 1,
                first_data_block: 1,
            },
        ),
        (
            |s| s.s_inodes_count = U32::new(9),
            K::InodesCount {
                found: 9,
                groups: 3,
                inodes_per_group: 512,
            },
        ),
        (
            |s| s.s_r_blocks_count = U32::new(12_289),
            K::ReservedBlocks {
                found: 12_289,
                blocks: 24_577,
            },
        ),
        (
            |s| s.s_reserved_gdt_blocks = U16::new(257),
            K::ReservedGdtBlocks {
                found: 257,
                max: 256,
            },
        ),
        (
            |s| {
                s.s_feature_incompat = U32::new(0x12);
                s.s_first_meta_bg = U32::new(2);
            },
            K::FirstMetaBg { found: 2, max: 1 },
        ),
        (
            |s| {
                s.s_feature_compat = U32::new(0x200);
                s.s_backup_bgs = [U32::new(1), U32::new(3)];
            },
            K::BackupGroup {
                found: 3,
                groups: 3,
            },
        ),
    ];
    for (patch, kind) in table {
        assert_eq!(refusal(1024, 3, patch), Error::Corrupt(kind), "{kind}");
    }
}

#[test]
fn a_truncated_region_is_told_with_both_numbers() {
    let raw = sample::superblock(4096, 2);
    let error = Geometry::new(&raw, 33_554_432).unwrap_err();
    let kind = CorruptKind::RegionTooSmall {
        blocks: 65_536,
        block_size: 4096,
        region_len: 33_554_432,
    };
    assert_eq!(error, Error::Corrupt(kind));
    assert!(
        error.to_string().contains("65536") && error.to_string().contains("33554432"),
        "{error}"
    );
    assert_eq!(
        Geometry::new(&raw, 2047),
        Err(Error::TooShort { len: 2047 })
    );
    assert_eq!(Geometry::new(&raw, 0), Err(Error::TooShort { len: 0 }));
}

#[test]
fn what_is_not_ext2_is_told_before_anything_else() {
    assert_eq!(
        refusal(1024, 1, |s| s.s_magic = U16::new(0)),
        Error::NotExt2 { magic: 0 }
    );
    assert_eq!(
        refusal(1024, 1, |s| s.s_rev_level = U32::new(2)),
        Error::UnsupportedRevision(2)
    );
}

#[test]
fn a_last_group_without_room_for_its_tables_is_refused() {
    let error = refusal(1024, 3, |s| s.s_blocks_count = U32::new(8192 * 2 + 1 + 50));
    assert_eq!(
        error,
        Error::Corrupt(CorruptKind::GroupTooSmall {
            group: 2,
            blocks: 50,
            needed: 130
        })
    );
}

#[test]
fn free_counters_larger_than_what_they_count_are_found() {
    let mut raw = sample::superblock(1024, 1);
    let geometry = sample::geometry(1024, 1);
    assert_eq!(geometry.check_free_counts(&raw), Ok(()));
    raw.s_free_blocks_count = U32::new(8194);
    let kind = CorruptKind::FreeBlocksCount {
        found: 8194,
        blocks: 8193,
    };
    assert_eq!(geometry.check_free_counts(&raw), Err(kind.into()));
    raw.s_free_blocks_count = U32::new(0);
    raw.s_free_inodes_count = U32::new(513);
    let kind = CorruptKind::FreeInodesCount {
        found: 513,
        inodes: 512,
    };
    assert_eq!(geometry.check_free_counts(&raw), Err(kind.into()));
}

#[test]
fn revision_0_has_fixed_inodes_whatever_the_fields_say() {
    let mut raw = sample::superblock(1024, 1);
    let len = sample::region_len(&raw);
    raw.s_rev_level = U32::new(0);
    raw.s_inode_size = U16::new(77);
    raw.s_first_ino = U32::new(0);
    let geometry = Geometry::new(&raw, len).unwrap();
    assert_eq!((geometry.inode_size(), geometry.first_ino()), (128, 11));
}

/// The rule of `sparse_super`: 0, 1 and powers of 3, 5 and 7; see mke2fs.
#[test]
fn backups_follow_the_three_rules() {
    let mut raw = sample::superblock(1024, 130);
    let len = sample::region_len(&raw);
    let backups = |raw: &RawSuperblock| -> Vec<u32> {
        let geometry = Geometry::new(raw, len).unwrap();
        geometry
            .all_groups()
            .filter(|&group| geometry.group_has_super(group))
            .map(GroupNr::get)
            .collect()
    };
    assert_eq!(backups(&raw), [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    raw.s_feature_compat = U32::new(0x200);
    raw.s_backup_bgs = [U32::new(1), U32::new(129)];
    assert_eq!(backups(&raw), [0, 1, 129]);
    raw.s_backup_bgs = [U32::new(0), U32::new(0)];
    assert_eq!(backups(&raw), [0]);
    raw.s_feature_compat = U32::new(0);
    raw.s_feature_ro_compat = U32::new(0);
    assert_eq!(backups(&raw), (0..130).collect::<Vec<_>>());
}

/// 1 KiB blocks hold 32 descriptors: meta groups of 32 groups. Places as dumpe2fs prints them for such an image.
#[test]
fn meta_bg_puts_descriptors_into_their_own_groups() {
    let mut raw = sample::superblock(1024, 70);
    let len = sample::region_len(&raw);
    raw.s_feature_incompat = U32::new(0x12);
    raw.s_feature_compat = U32::new(0x28);
    let geometry = Geometry::new(&raw, len).unwrap();
    let first = |group: u32| {
        geometry
            .group_first_block(geometry.group(group).unwrap())
            .get()
    };
    let blocks: Vec<u32> = (0..3)
        .map(|index| geometry.desc_block(index).get())
        .collect();
    assert_eq!(blocks, [2, first(32), first(64)]);
    let supers = |group: u32| geometry.group_super_blocks(geometry.group(group).unwrap());
    assert_eq!(
        [0, 1, 2, 3, 31, 32, 33, 34, 63, 64, 65].map(supers),
        [2, 2, 0, 1, 1, 1, 1, 0, 1, 1, 1]
    );
    raw.s_first_meta_bg = U32::new(1);
    let geometry = Geometry::new(&raw, len).unwrap();
    assert_eq!(geometry.group_super_blocks(geometry.group(3).unwrap()), 2);
    assert_eq!(
        geometry.desc_offset(geometry.group(31).unwrap()),
        2 * 1024 + 31 * 32
    );
    assert_eq!(
        geometry.desc_offset(geometry.group(33).unwrap()),
        u64::from(first(32)) * 1024 + 32
    );
}

#[test]
fn numbers_go_through_the_door() {
    let geometry = sample::geometry(1024, 2);
    let out = |block| {
        Err(Error::Corrupt(CorruptKind::BlockOutOfRange {
            block,
            first: 1,
            end: 16_385,
        }))
    };
    assert_eq!(geometry.fs_block(0), out(0));
    assert_eq!(geometry.fs_block(16_385), out(16_385));
    assert_eq!(geometry.fs_block(16_384).unwrap().get(), 16_384);
    let past = CorruptKind::RunOutOfRange {
        block: 16_384,
        len: 2,
        end: 16_385,
    };
    assert_eq!(geometry.fs_run(16_384, 2), Err(past.into()));
    assert_eq!(geometry.fs_run(16_384, 1).unwrap().end(), 16_385);
    let out = |inode| {
        Err(Error::Corrupt(CorruptKind::InodeOutOfRange {
            inode,
            inodes: 1024,
        }))
    };
    assert_eq!(geometry.ino(0), out(0));
    assert_eq!(geometry.ino(1025), out(1025));
    assert_eq!(geometry.named_ino(7), None);
    assert_eq!(geometry.named_ino(2), Some(Ino::ROOT));
}

#[test]
fn block_and_inode_numbers_go_to_their_group_and_back() {
    for block_size in BLOCK_SIZES {
        let geometry = sample::geometry(block_size, 3);
        for raw in [
            geometry.first_data_block(),
            77,
            geometry.blocks_per_group(),
            geometry.blocks_count() - 1,
        ] {
            let block = geometry.fs_block(raw).unwrap();
            let (group, bit) = geometry.locate_block(block);
            assert_eq!(geometry.block_in_group(group, bit), Some(block));
            assert!(geometry.group_run(group).contains(block));
            assert_eq!(geometry.block_at(geometry.offset(block) + 5), Ok(block));
        }
        for raw in [1, 512, 513, 1536] {
            let ino = geometry.ino(raw).unwrap();
            let (group, bit) = geometry.locate_ino(ino);
            assert_eq!(geometry.ino_in_group(group, bit), Some(ino));
        }
    }
}

#[test]
fn descriptors_are_checked_against_their_group() {
    use crate::RawGroupDesc;
    let geometry = sample::geometry(1024, 2);
    let group = geometry.group(1).unwrap();
    // Group 1: 8193..16385, superblock and one descriptor block, bitmaps, 128 blocks of inodes.
    let good = RawGroupDesc {
        bg_block_bitmap: U32::new(8195),
        bg_inode_bitmap: U32::new(8196),
        bg_inode_table: U32::new(8197),
        ..RawGroupDesc::default()
    };
    assert_eq!(
        geometry.group_desc(&good, group).unwrap().inode_table.get(),
        8197
    );
    let kind = |patch: fn(&mut RawGroupDesc)| {
        let mut raw = good;
        patch(&mut raw);
        geometry.group_desc(&raw, group).unwrap_err()
    };
    let (group, first, end) = (1, 8193, 16_385);
    assert_eq!(
        kind(|raw| raw.bg_block_bitmap = U32::new(0)),
        CorruptKind::BlockBitmapOutOfGroup {
            group,
            found: 0,
            first,
            end
        }
        .into()
    );
    assert_eq!(
        kind(|raw| raw.bg_inode_bitmap = U32::new(16_385)),
        CorruptKind::InodeBitmapOutOfGroup {
            group,
            found: 16_385,
            first,
            end
        }
        .into()
    );
    assert_eq!(
        kind(|raw| raw.bg_inode_table = U32::new(16_385 - 127)),
        CorruptKind::InodeTableOutOfGroup {
            group,
            found: 16_258,
            len: 128,
            first,
            end
        }
        .into()
    );
    for patch in [
        (|raw| raw.bg_inode_bitmap = U32::new(8195)) as fn(&mut RawGroupDesc),
        |raw| raw.bg_block_bitmap = U32::new(8194),
        |raw| raw.bg_block_bitmap = U32::new(8300),
    ] {
        assert!(matches!(
            kind(patch),
            Error::Corrupt(CorruptKind::GroupTablesOverlap { group: 1, .. })
        ));
    }
}

mod hostile {
    use proptest::prelude::*;
    use zerocopy::FromBytes;

    use super::*;

    proptest! {
        /// Whatever stands in the superblock, the answer is a geometry whose every group lies inside the region, or an error.
        #[test]
        fn random_fields_never_panic(
            words in proptest::collection::vec((0_usize..128, any::<u32>()), 0..6),
            size in 0_usize..7,
            len in any::<u64>(),
        ) {
            let raw = sample::superblock(BLOCK_SIZES[size], 3);
            let mut bytes = [0; 1024];
            bytes.copy_from_slice(zerocopy::IntoBytes::as_bytes(&raw));
            for (at, word) in words {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
            }
            let good_len = sample::region_len(&raw);
            let raw = RawSuperblock::read_from_bytes(&bytes).unwrap();
            for len in [len, good_len] {
                if let Ok(geometry) = Geometry::new(&raw, len) {
                    prop_assert!(geometry.len_bytes() <= len);
                    for group in geometry.all_groups().rev().take(3).chain(geometry.all_groups().take(3)) {
                        prop_assert!(geometry.group_run(group).end() <= geometry.blocks_count());
                        prop_assert!(geometry.desc_offset(group) < len);
                        prop_assert!(geometry.group_overhead(group) > 2);
                    }
                }
            }
        }
    }
}
