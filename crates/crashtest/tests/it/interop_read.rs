//! Images made by others are read whole and right: the tree that we read equals the tree that the maker, or the kernel,
//! shows, and after we have written to it both checkers call the image clean.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ext2dax::Timestamp;
use ext2dax_crashtest::drive::{self, Bytes, Random};
use ext2dax_crashtest::judge;
use ext2dax_crashtest::kernel::{Mode, Mounted};
use ext2dax_crashtest::tree::{self, Compare, Tree};
use rustix::fs::{CWD, FileType, Mode as Permissions, makedev, mknodat};

use crate::scratch;

const EVERYTHING: Compare = Compare {
    times: true,
    holes: true,
    extracted: false,
};

/// What a maker that reads a directory of the host keeps of it: mke2fs and genext2fs round times to seconds, write holes
/// as blocks or blocks as holes, and set access and change times as they like.
const COPIED: Compare = Compare {
    times: true,
    holes: false,
    extracted: false,
};

/// A tree with something of everything that fits into a few MiB, on the host.
fn sow(root: &Path) -> Result<()> {
    let file = |name: &str, len: usize| {
        fs::write(
            root.join(name),
            Bytes {
                len,
                seed: len as u64,
            }
            .make(),
        )
    };
    for len in [
        0,
        1,
        1023,
        1024,
        4096,
        12 * 1024,
        12 * 1024 + 1,
        65_537,
        300_000,
        1_500_000,
    ] {
        file(&format!("file-{len}"), len)?;
    }
    fs::create_dir_all(root.join("a/b/c/d/e"))?;
    fs::write(root.join("a/b/c/d/e/deep"), b"deep")?;
    fs::create_dir(root.join("empty"))?;
    fs::write(
        root.join(OsStr::from_bytes(b"\xff\xfe not UTF-8 \x01")),
        b"bytes",
    )?;
    fs::write(root.join("n".repeat(255)), b"long name")?;
    fs::hard_link(root.join("file-1023"), root.join("a/linked"))?;
    fs::hard_link(root.join("file-1023"), root.join("linked too"))?;
    symlink("a/b", root.join("short"))?;
    symlink("x".repeat(59), root.join("fast"))?;
    symlink("y".repeat(60), root.join("slow"))?;
    symlink("z".repeat(900), root.join("slower"))?;
    fs::create_dir(root.join("many"))?;
    for number in 0..400 {
        fs::write(
            root.join(format!("many/name number {number:04}")),
            number.to_string(),
        )?;
    }
    Ok(())
}

/// Whole seconds, and only the modification time.
fn coarse(mut tree: Tree) -> Tree {
    tree.remove(&b"lost+found"[..]);
    for (path, entry) in &mut tree {
        entry.accessed = None;
        entry.changed = None;
        // Makers differ on the root's times, and lost+found changes its count.
        entry.modified = entry
            .modified
            .filter(|_| !path.is_empty())
            .map(|time| Timestamp::from_secs(time.secs));
        if path.is_empty() {
            entry.links = 0;
            entry.mode = 0;
        }
    }
    tree
}

fn equal(what: &str, left: &Tree, right: &Tree, compare: Compare) -> Result<()> {
    let differences = tree::differences(left, right, compare);
    ensure!(differences.is_empty(), "{what}:\n{differences}");
    Ok(())
}

/// A few changes by us, and both checkers.
fn write_and_judge(image: &Path) -> Result<()> {
    let fs = scratch::mount(image)?;
    fs.create_dir("/by ours")?;
    for number in 0..40 {
        fs.write(
            format!("/by ours/file {number}"),
            Bytes {
                len: number * 700,
                seed: 7,
            }
            .make(),
        )?;
    }
    for number in (0..40).step_by(3) {
        fs.remove_file(format!("/by ours/file {number}"))?;
    }
    fs.rename("/by ours/file 1", "/moved")?;
    fs.unmount()?;
    judge::clean(image)
}

#[test]
fn trees_copied_by_mke2fs_read_as_their_source() {
    let attempt = || -> Result<()> {
        let scratch = scratch::dir()?;
        let source = scratch.path().join("source");
        fs::create_dir(&source)?;
        sow(&source)?;
        let wanted = coarse(tree::host(&source)?);
        let image = scratch.path().join("image");
        for bits in 10..=16 {
            let block_size = (1_u32 << bits).to_string();
            for shape in [
                &["-r", "0"][..],
                &["-I", "128"],
                &["-I", "256"],
                &["-O", "^filetype,^sparse_super,^resize_inode"],
                &["-O", "meta_bg,^resize_inode"],
            ] {
                let mut args = vec![
                    "-b",
                    &block_size,
                    "-N",
                    "1200",
                    "-d",
                    source.to_str().context("path")?,
                ];
                args.extend(shape);
                let what = format!("mke2fs {}", args.join(" "));
                if !judge::mke2fs(&image, 160, &args).with_context(|| what.clone())? {
                    return Ok(());
                }
                let fs = scratch::mount_read_only(&image).with_context(|| what.clone())?;
                equal(&what, &coarse(tree::ours(&fs)?), &wanted, COPIED)?;
                drop(fs);
                write_and_judge(&image).with_context(|| what)?;
            }
        }
        Ok(())
    };
    attempt().unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn trees_copied_by_genext2fs_read_as_their_source() {
    let attempt = || -> Result<()> {
        let scratch = scratch::dir()?;
        let source = scratch.path().join("source");
        fs::create_dir(&source)?;
        sow(&source)?;
        let wanted = coarse(tree::host(&source)?);
        let image = scratch.path().join("image");
        for block_size in ["1024", "2048", "4096"] {
            let args = ["-B", block_size, "-b", "12000", "-N", "1200", "-d"].map(OsStr::new);
            if !judge::run_ok(
                "genext2fs",
                args.into_iter()
                    .chain([source.as_os_str(), image.as_os_str()]),
            )? {
                return Ok(());
            }
            let fs = scratch::mount_read_only(&image)?;
            equal(
                &format!("genext2fs -B {block_size}"),
                &coarse(tree::ours(&fs)?),
                &wanted,
                COPIED,
            )?;
            drop(fs);
            write_and_judge(&image)?;
            fs::remove_file(&image)?;
        }
        Ok(())
    };
    attempt().unwrap_or_else(|error| panic!("{error:?}"));
}

/// Fills a kernel mount with what only a kernel makes: special files, holes, huge offsets, exact times.
fn populate(root: &Path) -> Result<()> {
    sow(root)?;
    for (name, kind, device) in [
        ("char", FileType::CharacterDevice, makedev(4, 64)),
        ("char wide", FileType::CharacterDevice, makedev(300, 70_000)),
        ("block", FileType::BlockDevice, makedev(8, 1)),
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
    ] {
        mknodat(
            CWD,
            root.join(name),
            kind,
            Permissions::from_raw_mode(0o640),
            device,
        )?;
    }
    // One piece behind each depth of the tree, for 1 KiB blocks and for 4 KiB ones, past 4 GiB, and a hole at the end.
    let sparse = fs::File::create(root.join("sparse"))?;
    let mut random = Random(1);
    for at in [
        0,
        11 << 10,
        13 << 10,
        47 << 10,
        300 << 10,
        5 << 20,
        70 << 20,
        (4 << 30) + 4096,
        (4 << 30) + (60 << 20),
        9 << 30,
    ] {
        let len = 1 + usize::try_from(random.below(20_000))?;
        sparse.write_all_at(&Bytes { len, seed: at }.make(), at)?;
    }
    sparse.set_len((9 << 30) + (1 << 20))?;
    let punched = fs::File::create(root.join("punched"))?;
    punched.write_all_at(
        &Bytes {
            len: 800_000,
            seed: 3,
        }
        .make(),
        0,
    )?;
    let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&punched, flags, 50_000, 500_000)?;
    for (name, mode) in [
        ("file-0", 0o7777),
        ("file-1", 0),
        ("empty", 0o1777),
        ("fifo", 0o4611),
    ] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode))?;
    }
    std::os::unix::fs::lchown(root.join("file-1024"), Some(70_000), Some(4_000_000_000))?;
    std::os::unix::fs::lchown(root.join("fast"), Some(12), Some(34))?;
    Ok(())
}

/// Times on both sides of every edge of the encoding, where the inode can hold them.
fn set_edge_times(root: &Path) -> Result<()> {
    for (name, secs, nanos) in [
        ("file-0", 0, 0),
        ("file-1", -1, 999_999_999),
        ("file-1023", i64::from(i32::MIN), 1),
        ("file-1024", i64::from(i32::MAX), 999_999_999),
        ("file-4096", i64::from(i32::MAX) + 1, 5),
        ("file-65537", i64::from(u32::MAX) + 1, 6),
        ("empty", 10_000_000_000, 7),
        ("fast", 15_032_385_535, 999_999_999),
    ] {
        let time = Timestamp { secs, nanos };
        drive::set_times(&root.join(name), time, time)?;
    }
    Ok(())
}

#[test]
fn images_that_the_kernel_filled_read_as_the_kernel_shows_them() {
    let attempt = || -> Result<()> {
        let scratch = scratch::dir()?;
        let image = scratch.path().join("image");
        for block_size in ["1024", "2048", "4096"] {
            for shape in [
                &["-I", "128"][..],
                &["-I", "256"],
                &["-I", "256", "-O", "^dir_index,^filetype"],
            ] {
                let mut args = vec!["-b", block_size, "-N", "1500"];
                args.extend(shape);
                let what = format!("mke2fs {}", args.join(" "));
                if !judge::mke2fs(&image, 64, &args)? {
                    return Ok(());
                }
                let Some(mounted) = Mounted::new(&image, Mode::Write)? else {
                    return Ok(());
                };
                populate(mounted.path()).with_context(|| what.clone())?;
                if shape[1] == "256" {
                    set_edge_times(mounted.path())?;
                }
                mounted.unmount()?;
                let Some(mounted) = Mounted::new(&image, Mode::Read)? else {
                    return Ok(());
                };
                let kernel = tree::host(mounted.path())?;
                mounted.unmount()?;
                let fs = scratch::mount_read_only(&image)?;
                equal(&what, &tree::ours(&fs)?, &kernel, EVERYTHING)?;
                drop(fs);
                write_and_judge(&image).with_context(|| what)?;
            }
        }
        Ok(())
    };
    attempt().unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn hash_indexed_directories_of_20000_names_read_and_change() {
    const NAMES: u32 = 20_000;
    let attempt = || -> Result<()> {
        let scratch = scratch::dir()?;
        let image = scratch.path().join("image");
        for (block_size, hash) in [("1024", "half_md4"), ("2048", "tea"), ("4096", "legacy")] {
            let args = [
                "-b",
                block_size,
                "-O",
                "dir_index",
                "-N",
                "21000",
                "-I",
                "128",
            ];
            if !judge::mke2fs(&image, 64, &args)? {
                return Ok(());
            }
            judge::run_ok(
                "tune2fs",
                [
                    OsStr::new("-E"),
                    OsStr::new(&format!("hash_alg={hash}")),
                    image.as_os_str(),
                ],
            )?;
            let Some(mounted) = Mounted::new(&image, Mode::Write)? else {
                return Ok(());
            };
            let dir = mounted.join("many");
            fs::create_dir(&dir)?;
            fs::write(dir.join("first"), b"")?;
            for number in 1..NAMES {
                fs::hard_link(
                    dir.join("first"),
                    dir.join(format!("a name of some length, number {number}")),
                )
                .or_else(|_| fs::write(dir.join(format!("file {number}")), b""))?;
            }
            mounted.unmount()?;
            let Some(mounted) = Mounted::new(&image, Mode::Read)? else {
                return Ok(());
            };
            let kernel = tree::host(mounted.path())?;
            mounted.unmount()?;
            ensure!(
                kernel.len() > NAMES as usize,
                "the kernel shows {} files",
                kernel.len()
            );
            let fs = scratch::mount(&image)?;
            equal(
                &format!("{hash}, {block_size}-byte blocks"),
                &tree::ours(&fs)?,
                &kernel,
                EVERYTHING,
            )?;
            let inode_flags = fs.metadata("/many")?.flags();
            ensure!(
                inode_flags.contains(ext2dax::InodeFlags::INDEX),
                "the kernel made no index: {inode_flags:?}"
            );
            fs.remove_file("/many/first")?;
            for number in 0..500 {
                fs.write(format!("/many/ours {number}"), b"")?;
            }
            for number in (1..NAMES).step_by(40) {
                fs.remove_file(format!("/many/a name of some length, number {number}"))?;
            }
            ensure!(
                !fs.metadata("/many")?
                    .flags()
                    .contains(ext2dax::InodeFlags::INDEX),
                "a stale index was left"
            );
            let changed = tree::ours(&fs)?;
            fs.unmount()?;
            judge::clean(&image)?;
            let Some(mounted) = Mounted::new(&image, Mode::Read)? else {
                return Ok(());
            };
            equal(
                "after our changes",
                &tree::host(mounted.path())?,
                &changed,
                EVERYTHING,
            )?;
            mounted.unmount()?;
        }
        Ok(())
    };
    attempt().unwrap_or_else(|error| panic!("{error:?}"));
}
