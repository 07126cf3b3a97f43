//! The shape of an image is the one that mke2fs chooses for the same options.

use std::path::Path;
use std::process::Command;

use ext2dax_mkfs::{Inodes, Options, Plan, edit_features, make_file};

use crate::judge;

/// What may differ: names, times, random numbers.
const FREE: [&str; 7] = [
    "Filesystem UUID",
    "Directory Hash Seed",
    "Filesystem created",
    "Last write time",
    "Last checked",
    "Last mount time",
    "Lifetime writes",
];

fn mke2fs(image: &Path, args: &[&str], len: u64) -> bool {
    let _ = std::fs::remove_file(image);
    let size = format!("{}s", len / 512);
    let output = Command::new("mke2fs")
        .args(["-q", "-F"])
        .args(args)
        .arg(image)
        .arg(size)
        .output()
        .expect("mke2fs runs");
    output.status.success()
}

fn compare(dir: &Path, options: &Options, args: &[&str], len: u64) {
    same_shape(dir, options, args, len, true);
}

fn same_shape(dir: &Path, options: &Options, args: &[&str], len: u64, check: bool) {
    let what = format!("{args:?} {len}");
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    let made = make_file(&ours, options, len);
    if !mke2fs(&theirs, args, len) {
        // An image of one group with less than 50 blocks to spare: theirs gives up, ours may not.
        if made.is_ok() && check {
            judge::e2fsck_clean(&ours, &what);
        }
        return;
    }
    made.unwrap_or_else(|error| panic!("{what}: {error}"));
    if check {
        judge::e2fsck_clean(&ours, &what);
    }
    let (mut ours, mut theirs) = (judge::dumpe2fs(&ours), judge::dumpe2fs(&theirs));
    for name in FREE {
        ours.remove(name);
        theirs.remove(name);
    }
    assert_eq!(ours, theirs, "{what}");
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

#[test]
fn shape_equals_mke2fs_over_sizes_and_block_sizes() {
    if !judge::present("mke2fs") || !judge::present("dumpe2fs") || !judge::present("e2fsck") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sizes = [
        64 * KIB,
        100 * KIB,
        360 * KIB,
        1440 * KIB,
        3 * MIB,
        8 * MIB,
        8 * MIB + 70 * KIB,
        9 * MIB,
        16 * MIB + 5 * KIB,
        64 * MIB,
        129 * MIB,
        257 * MIB + 3 * KIB,
        511 * MIB,
        513 * MIB,
    ];
    for block_size in [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
        for len in sizes {
            let options = Options::with_block_size(block_size);
            compare(dir.path(), &options, &["-b", &block_size.to_string()], len);
        }
    }
}

#[test]
fn shape_equals_mke2fs_over_options() {
    if !judge::present("mke2fs") || !judge::present("dumpe2fs") || !judge::present("e2fsck") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let base = Options::with_block_size(1024);
    let with = |edit: &str| {
        let mut options = base.clone();
        edit_features(&mut options.features, edit).unwrap();
        options
    };
    let table: [(Options, &[&str], u64); 18] = [
        (
            Options {
                revision: 0,
                ..base.clone()
            },
            &["-b", "1024", "-r", "0"],
            20 * MIB,
        ),
        (
            Options {
                inode_size: 128,
                ..base.clone()
            },
            &["-b", "1024", "-I", "128"],
            20 * MIB,
        ),
        (
            Options {
                inode_size: 1024,
                ..base.clone()
            },
            &["-b", "1024", "-I", "1024"],
            40 * MIB,
        ),
        (
            Options {
                inodes: Inodes::Count(12),
                ..base.clone()
            },
            &["-b", "1024", "-N", "12"],
            30 * MIB,
        ),
        (
            Options {
                inodes: Inodes::Count(70_000),
                ..base.clone()
            },
            &["-b", "1024", "-N", "70000"],
            60 * MIB,
        ),
        (
            Options {
                inodes: Inodes::Ratio(1024),
                ..base.clone()
            },
            &["-b", "1024", "-i", "1024"],
            30 * MIB,
        ),
        (
            Options {
                inodes: Inodes::Ratio(1 << 20),
                ..base.clone()
            },
            &["-b", "1024", "-i", "1048576"],
            30 * MIB,
        ),
        (
            Options {
                reserved_share: 0,
                ..base.clone()
            },
            &["-b", "1024", "-m", "0"],
            30 * MIB,
        ),
        (
            Options {
                reserved_share: 1250,
                ..base.clone()
            },
            &["-b", "1024", "-m", "12.5"],
            30 * MIB,
        ),
        (
            Options {
                blocks_per_group: Some(4096),
                ..base.clone()
            },
            &["-b", "1024", "-g", "4096"],
            30 * MIB,
        ),
        (
            with("^resize_inode"),
            &["-b", "1024", "-O", "^resize_inode"],
            100 * MIB,
        ),
        (
            with("^resize_inode,^sparse_super"),
            &["-b", "1024", "-O", "^resize_inode,^sparse_super"],
            100 * MIB,
        ),
        (
            with("sparse_super2"),
            &["-b", "1024", "-O", "sparse_super2"],
            100 * MIB,
        ),
        (
            Options {
                backup_superblocks: 1,
                ..with("sparse_super2")
            },
            &["-b", "1024", "-O", "sparse_super2", "-E", "num_backup_sb=1"],
            100 * MIB,
        ),
        (
            with("^resize_inode,meta_bg"),
            &["-b", "1024", "-O", "^resize_inode,meta_bg"],
            600 * MIB,
        ),
        (with("none"), &["-b", "1024", "-O", "none"], 30 * MIB),
        (
            Options {
                resize_to: Some(2_000_000),
                ..base.clone()
            },
            &["-b", "1024", "-E", "resize=2000000"],
            30 * MIB,
        ),
        (
            Options {
                resize_to: Some(4 << 20),
                ..base.clone()
            },
            &["-b", "1024", "-E", "resize=4g"],
            30 * MIB,
        ),
    ];
    for (options, args, len) in table {
        compare(dir.path(), &options, args, len);
    }
}

/// Block size, inode size, features, inodes and size in all combinations: 675 under `EXT2DAX_SOAK`, else every fifteenth.
#[test]
fn shape_equals_mke2fs_over_combinations() {
    if !judge::present("mke2fs") || !judge::present("dumpe2fs") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let features = [
        "",
        "^resize_inode",
        "^resize_inode,^sparse_super",
        "sparse_super2",
        "^resize_inode,meta_bg",
    ];
    let inodes: [(Inodes, &[&str]); 3] = [
        (Inodes::BySize, &[]),
        (Inodes::Ratio(10_000), &["-i", "10000"]),
        (Inodes::Count(1001), &["-N", "1001"]),
    ];
    let step = if crate::contents::soak() { 1 } else { 15 };
    let mut nr = 0;
    for block_size in [1024_u32, 2048, 4096, 16_384, 65_536] {
        for inode_size in [128_u32, 256, 1024] {
            for list in features {
                for (inodes, inode_args) in inodes {
                    for (share, len) in [
                        (500, 20 * MIB + 13 * KIB),
                        (0, 130 * MIB),
                        (1050, 701 * MIB + 5 * KIB),
                    ] {
                        nr += 1;
                        if nr % step != 0 {
                            continue;
                        }
                        let mut options = Options {
                            inode_size,
                            inodes,
                            reserved_share: share,
                            ..Options::with_block_size(block_size)
                        };
                        edit_features(&mut options.features, list).unwrap();
                        let numbers = [
                            block_size.to_string(),
                            inode_size.to_string(),
                            format!("{}.{}", share / 100, share % 100),
                        ];
                        let mut args =
                            vec!["-b", &numbers[0], "-I", &numbers[1], "-m", &numbers[2]];
                        args.extend(inode_args);
                        if !list.is_empty() {
                            args.extend(["-O", list]);
                        }
                        same_shape(dir.path(), &options, &args, len, false);
                    }
                }
            }
        }
    }
    assert_eq!(nr, 675);
}

#[test]
fn shape_equals_mke2fs_on_large_sparse_images() {
    if !judge::present("mke2fs") || !judge::present("dumpe2fs") || !judge::present("e2fsck") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (block_size, len) in [
        (4096, 40_000 * MIB + 7 * KIB),
        (65_536, 300_000 * MIB),
        (1024, 5000 * MIB),
    ] {
        let options = Options {
            inodes: Inodes::Ratio(1 << 22),
            ..Options::with_block_size(block_size)
        };
        compare(
            dir.path(),
            &options,
            &["-b", &block_size.to_string(), "-i", "4194304"],
            len,
        );
    }
}

/// The plan alone, at sizes that no test can write: it must be found, quickly, and pass its own door.
#[test]
fn plans_reach_the_limits_of_the_format() {
    for (block_size, len) in [
        (1024_u32, (1_u64 << 42) - 1024),
        (4096, (1 << 44) - 4096),
        (65_536, (1 << 48) - 65_536),
    ] {
        let plan = Plan::new(&Options::with_block_size(block_size), len).unwrap();
        assert!(
            plan.len_bytes() + 65_535 * 8 * u64::from(block_size) > len,
            "{block_size}"
        );
        assert!(
            Plan::new(
                &Options::with_block_size(block_size),
                len + u64::from(block_size)
            )
            .is_err()
        );
    }
}
