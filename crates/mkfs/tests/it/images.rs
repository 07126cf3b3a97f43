//! What is in an image: two directories and the resize inode, at every block size, for e2fsck and the kernel.

use std::path::Path;
use std::process::Command;

use ext2dax_format::{FileBlock, Geometry, Ino, RawSuperblock, dirent};
use ext2dax_mkfs::{
    Before, FIXED_TIME, Inodes, Options, Plan, Refusal, edit_features, make_file, make_memory,
};
use ext2dax_pmem::{Access, AnonRegion, FileRegion, Off, Pmem};
use zerocopy::IntoBytes;

use crate::judge;

const BLOCK_SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

fn geometry_of(pmem: &Pmem) -> Geometry {
    let raw = pmem.read_value(Off::<RawSuperblock>::new(1024));
    Geometry::new(&raw, pmem.len()).expect("a good superblock")
}

#[test]
fn e2fsck_finds_nothing_over_block_sizes_inode_sizes_and_features() {
    if !judge::present("e2fsck") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    for block_size in BLOCK_SIZES {
        for inode_size in [128, 256, 1024, block_size.min(32_768)] {
            for features in [
                "",
                "^resize_inode,^sparse_super",
                "^filetype",
                "sparse_super2",
                "^resize_inode,meta_bg",
            ] {
                let mut options = Options {
                    inode_size,
                    ..Options::with_block_size(block_size)
                };
                options.inodes = Inodes::Count(200);
                edit_features(&mut options.features, features).unwrap();
                // A few groups and an odd last one, of 1 KiB blocks; one group of larger ones.
                let len = 50_000_000 + u64::from(block_size) * 13;
                make_file(&path, &options, len).unwrap();
                judge::e2fsck_clean(&path, &format!("{block_size} {inode_size} {features:?}"));
            }
        }
        let options = Options {
            revision: 0,
            ..Options::with_block_size(block_size)
        };
        make_file(&path, &options, 50_000_000).unwrap();
        judge::e2fsck_clean(&path, &format!("revision 0, {block_size}"));
    }
}

#[test]
fn the_smallest_image_that_fits_is_made_and_one_block_less_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    for block_size in BLOCK_SIZES {
        let options = Options::with_block_size(block_size);
        let fits = |blocks: u64| Plan::new(&options, blocks * u64::from(block_size));
        let smallest = (1..200)
            .find(|&blocks| fits(blocks).is_ok())
            .expect("200 blocks are enough");
        assert!(
            matches!(fits(smallest - 1), Err(Refusal::TooSmall { .. })),
            "{block_size}"
        );
        let plan = make_file(&path, &options, smallest * u64::from(block_size)).unwrap();
        assert_eq!(
            plan.superblock().s_free_blocks_count.get(),
            0,
            "{block_size}"
        );
        if judge::present("e2fsck") {
            judge::e2fsck_clean(&path, &format!("{smallest} blocks of {block_size}"));
        }
    }
}

#[test]
fn equal_options_make_equal_bytes_and_another_label_another_uuid() {
    let image = |label: &str| {
        let options = Options {
            label: label.into(),
            ..Options::with_block_size(2048)
        };
        let pmem = make_memory(&options, 3 << 20).unwrap();
        let mut bytes = vec![0; usize::try_from(pmem.len()).unwrap()];
        pmem.read(0, &mut bytes);
        bytes
    };
    assert_eq!(image("one"), image("one"));
    let uuid = |bytes: &[u8]| bytes[1024 + 104..1024 + 120].to_vec();
    assert_ne!(uuid(&image("one")), uuid(&image("two")));
}

/// A device full of old bytes: nothing of them shows in tables, directories or the boot block.
#[test]
fn old_bytes_of_the_target_do_not_show() {
    if !judge::present("e2fsck") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    for block_size in BLOCK_SIZES {
        let plan = Plan::new(&Options::with_block_size(block_size), 12 << 20).unwrap();
        std::fs::write(&path, vec![0xa5; 12 << 20]).unwrap();
        let pmem = Pmem::new(FileRegion::open(&path, Access::ReadWrite).unwrap());
        plan.write_with(&pmem, Before::Anything, |_| {}).unwrap();
        let mut boot = [1; 1024];
        pmem.read(0, &mut boot);
        assert_eq!(boot, [0; 1024]);
        drop(pmem);
        judge::e2fsck_clean(&path, &block_size.to_string());
    }
}

#[test]
fn root_directory_has_lost_and_found_at_every_block_size() {
    for block_size in BLOCK_SIZES {
        let plan = Plan::new(&Options::with_block_size(block_size), 12 << 20).unwrap();
        let pmem = Pmem::new(AnonRegion::new(plan.len_bytes()).unwrap());
        plan.write(&pmem).unwrap();
        let geometry = geometry_of(&pmem);
        assert_eq!(&geometry, plan.geometry());
        let mut block = vec![0; block_size as usize];
        pmem.read(geometry.offset(plan.root_block()), &mut block);
        let entries = dirent::Entries::new(&block, &geometry, Ino::ROOT, FileBlock(0));
        let names: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.name.to_vec(), entry.ino))
            .collect();
        let lost_found = geometry.ino(11).unwrap();
        let expected = [
            (b".".to_vec(), Ino::ROOT),
            (b"..".to_vec(), Ino::ROOT),
            (b"lost+found".to_vec(), lost_found),
        ];
        assert_eq!(names, expected.map(|(name, ino)| (name, Some(ino))));
    }
}

#[test]
fn a_region_that_is_too_short_is_refused_before_the_first_byte() {
    let plan = Plan::new(&Options::default(), 4 << 20).unwrap();
    let pmem = Pmem::new(AnonRegion::new((4 << 20) - 4096).unwrap());
    pmem.write(1024, &[7; 8]);
    let refusal = plan.write(&pmem).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::RegionTooShort {
            planned: 4 << 20,
            len: (4 << 20) - 4096
        }
    );
    let mut bytes = [0; 8];
    pmem.read(1024, &mut bytes);
    assert_eq!(bytes, [7; 8]);
}

/// Backups are byte for byte the primary but for their group number, and e2fsck accepts each.
#[test]
fn backups_equal_the_primary() {
    for features in [
        "",
        "sparse_super2",
        "^resize_inode,meta_bg",
        "^resize_inode,^sparse_super",
    ] {
        let mut options = Options::with_block_size(1024);
        edit_features(&mut options.features, features).unwrap();
        let plan = Plan::new(&options, 100 << 20).unwrap();
        let pmem = Pmem::new(AnonRegion::new(plan.len_bytes()).unwrap());
        plan.write(&pmem).unwrap();
        let primary = pmem.read_value(Off::<RawSuperblock>::new(1024));
        assert!(!plan.backups().is_empty());
        for block in plan.backups() {
            let mut backup = pmem.read_value(Off::<RawSuperblock>::new(u64::from(block) * 1024));
            assert_eq!(u32::from(backup.s_block_group_nr.get()), block / 8192);
            backup.s_block_group_nr = primary.s_block_group_nr;
            assert_eq!(backup.as_bytes(), primary.as_bytes(), "{features} {block}");
        }
    }
}

/// The resize inode's pointers are right if resize2fs can use them.
#[test]
fn resize2fs_grows_an_image_into_its_reserved_blocks() {
    if !judge::present("e2fsck") || !judge::present("resize2fs") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    for block_size in [1024, 4096] {
        make_file(&path, &Options::with_block_size(block_size), 40 << 20).unwrap();
        let output = Command::new("resize2fs")
            .arg(&path)
            .arg("700M")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        judge::e2fsck_clean(&path, &format!("grown, {block_size}"));
    }
}

/// Mounts an image with the kernel's driver, writes a file, unmounts; `None` where that is not possible.
fn kernel_round(image: &Path, dir: &Path) -> Option<()> {
    let mount = Command::new("mount")
        .args(["-t", "ext2", "-o", "loop"])
        .arg(image)
        .arg(dir)
        .output()
        .ok()?;
    if !mount.status.success() {
        assert!(
            std::env::var_os("CI").is_none_or(|value| value != "true"),
            "{mount:?}"
        );
        eprintln!(
            "skipped: no kernel mount: {}",
            String::from_utf8_lossy(&mount.stderr).trim()
        );
        return None;
    }
    let written = std::fs::write(dir.join("file"), vec![7; 100_000]);
    let names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    judge::unmount(dir);
    written.unwrap();
    assert!(
        names.iter().any(|name| name == "lost+found") && names.len() == 2,
        "{names:?}"
    );
    Some(())
}

#[test]
fn the_kernel_mounts_and_writes_what_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let (image, at) = (dir.path().join("image"), dir.path().join("mnt"));
    std::fs::create_dir(&at).unwrap();
    for block_size in [1024, 2048, 4096] {
        for revision in [0, 1] {
            let options = Options {
                revision,
                time: FIXED_TIME,
                ..Options::with_block_size(block_size)
            };
            make_file(&image, &options, 20 << 20).unwrap();
            if kernel_round(&image, &at).is_none() {
                return;
            }
            if judge::present("e2fsck") {
                judge::e2fsck_clean(
                    &image,
                    &format!("after the kernel, {block_size}, revision {revision}"),
                );
            }
        }
    }
}
