//! Several hundred combinations of options, each with contents, judged by e2fsck, our own checker and the kernel.

use std::fs;
use std::process::Command;

use ext2dax_fsck::CheckOptions;
use ext2dax_mkfs::{
    Before, Filling, Inodes, Medium, Meta, Options, Size, Tree, edit_features, make_file,
};
use ext2dax_pmem::{Access, AnonRegion, FileRegion, Pmem};

use crate::contents::{mounted, soak};
use crate::judge;
use crate::tree::noise;

const FEATURES: [&str; 6] = [
    "",
    "^resize_inode,^sparse_super",
    "^filetype,^dir_index",
    "sparse_super2",
    "^resize_inode,meta_bg",
    "extra_isize",
];

fn contents(attributes: bool) -> Tree {
    let mut tree = Tree::new();
    let meta = Meta::new(0o644);
    for nr in 0..150 {
        let path = format!("directory {}/a name that is long enough, {nr}", nr % 2);
        tree.file(path, meta, noise(nr * 13, 1)).unwrap();
    }
    tree.file("indirect", meta, noise(90_000, 2)).unwrap();
    let mut sparse = vec![0; 400_000];
    sparse[399_999] = 1;
    tree.file("sparse", meta, sparse).unwrap();
    tree.symlink("long", meta, vec![b'x'; 200]).unwrap();
    if attributes {
        tree.attribute("indirect", b"user.name", b"value").unwrap();
        tree.attribute("long", b"trusted.large", &[7; 400]).unwrap();
    }
    tree
}

/// All of it, and every image is clean for everybody. Sizes are the smallest and an odd one with a partial last group.
#[test]
fn combinations_of_options_are_clean_for_every_judge() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let has_e2fsck = judge::present("e2fsck");
    let mut count = 0;
    for block_size in [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
        for inode_size in [128, 256, block_size.min(32_768)] {
            for (nr, features) in FEATURES.into_iter().enumerate() {
                for revision in [0, 1] {
                    if (revision == 0 && (nr > 0 || inode_size > 128))
                        || (features == "extra_isize" && inode_size == 128)
                    {
                        continue;
                    }
                    let few = inode_size > 256;
                    let mut options = Options {
                        inodes: if few {
                            Inodes::Count(600)
                        } else {
                            Inodes::BySize
                        },
                        inode_size,
                        revision,
                        ..Options::with_block_size(block_size)
                    };
                    edit_features(&mut options.features, features).unwrap();
                    let len = u64::from(block_size) * (9000 + 13 * nr as u64);
                    for size in [Size::Smallest, Size::Bytes(len)] {
                        let what =
                            format!("{block_size} {inode_size} {features:?} {revision} {size:?}");
                        let filling = Filling {
                            options: options.clone(),
                            size,
                            ..Filling::default()
                        };
                        let mut filled = filling
                            .plan(contents(revision > 0))
                            .unwrap_or_else(|error| panic!("{what}: {error}"));
                        let _ = fs::remove_file(&image);
                        let file = fs::File::create(&image).unwrap();
                        file.set_len(filled.len_bytes()).unwrap();
                        let region = FileRegion::open(&image, Access::ReadWrite).unwrap();
                        let file = region.file().try_clone().unwrap();
                        let pmem = Pmem::new(region);
                        let medium = Medium::file(&pmem, &file, 0);
                        filled.write(&medium, Before::Zeroes, |_| {}).unwrap();
                        let report = ext2dax_fsck::check(&pmem, &CheckOptions::default()).unwrap();
                        assert!(report.is_clean(), "{what}: {:?}", report.findings);
                        drop((pmem, file));
                        if has_e2fsck {
                            judge::e2fsck_clean(&image, &what);
                        }
                        if block_size <= 4096 && count % 8 == 0 {
                            mounted(&image, &dir.path().join("mnt"), |at| {
                                assert_eq!(
                                    fs::read_dir(at.join("directory 1")).unwrap().count(),
                                    75
                                );
                            });
                        }
                        count += 1;
                    }
                }
            }
        }
    }
    assert!(count > 200, "{count} combinations");
}

/// An index of one level, and of two where the names are many: every name is found through it by the kernel.
#[test]
fn the_kernel_finds_every_name_of_a_large_directory() {
    let dir = tempfile::tempdir().unwrap();
    let count: u32 = if soak() { 200_000 } else { 20_000 };
    for block_size in [1024, 4096] {
        let mut tree = Tree::new();
        for nr in 0..count {
            tree.file(format!("many/name of file {nr}"), Meta::new(0o600), [])
                .unwrap();
        }
        let filling = Filling {
            options: Options::with_block_size(block_size),
            threads: 2,
            ..Filling::default()
        };
        let mut filled = filling.plan(tree).unwrap();
        let pmem = Pmem::new(AnonRegion::new(filled.len_bytes()).unwrap());
        filled
            .write(&Medium::memory(&pmem), Before::Zeroes, |_| {})
            .unwrap();
        let mut bytes = vec![0; usize::try_from(pmem.len()).unwrap()];
        pmem.read(0, &mut bytes);
        let image = dir.path().join("image");
        fs::write(&image, bytes).unwrap();
        if judge::present("e2fsck") {
            judge::e2fsck_clean(&image, &block_size.to_string());
        }
        if judge::present("debugfs") {
            let output = Command::new("debugfs")
                .args(["-R", "htree_dump many"])
                .arg(&image)
                .output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            let levels = text
                .lines()
                .find(|line| line.contains("Indirect levels"))
                .unwrap();
            let expected = if block_size == 1024 || soak() {
                "1"
            } else {
                "0"
            };
            assert!(levels.ends_with(expected), "{block_size}: {levels}");
        }
        mounted(&image, &dir.path().join("mnt"), |at| {
            for nr in 0..count {
                assert!(at.join(format!("many/name of file {nr}")).exists(), "{nr}");
            }
        });
    }
}

/// Superblocks alone: what is in the image is there again after fsck.
#[test]
fn lost_superblocks_are_written_again() {
    if !judge::present("e2fsck") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::create_dir(dir.path().join("s")).unwrap();
    fs::write(dir.path().join("s/file"), "still here").unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mkfs-ext2dax"))
            .current_dir(dir.path())
            .args(args)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(&["-q", "-d", "s", "image", "8m"]);
    let mut bytes = fs::read(&image).unwrap();
    bytes[1024..8192].fill(0);
    fs::write(&image, bytes).unwrap();
    run(&["-q", "-S", "image"]);
    let repaired = Command::new("e2fsck")
        .arg("-fy")
        .arg(&image)
        .output()
        .unwrap();
    assert_eq!(repaired.status.code(), Some(1), "{repaired:?}");
    mounted(&image, &dir.path().join("mnt"), |at| {
        assert_eq!(fs::read(at.join("file")).unwrap(), b"still here");
    });
    // The old way of an empty image is as good.
    make_file(&image, &Options::default(), 4 << 20).unwrap();
    run(&["-q", "-S", "image"]);
}
