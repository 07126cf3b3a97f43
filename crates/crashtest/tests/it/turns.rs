//! The kernel's drivers and this library in turn, on one image, writing: each finds what the other left, and leaves what is
//! not its own as it was.
#![expect(clippy::unwrap_used, reason = "a test may fail by unwrapping")]

use std::os::unix::fs::FileExt;
use std::path::Path;

use ext2dax::{FileSystem, MountOptions};
use ext2dax_crashtest::judge;
use ext2dax_format::RawSuperblock;
use ext2dax_format::superblock::STATE_VALID;
use ext2dax_pmem::Access;
use zerocopy::FromBytes;

use crate::scratch;

fn mke2fs(path: &Path, options: &[&str]) -> bool {
    made(path, options, 24 << 20)
}

/// A new image of `len` bytes, made by mke2fs; `false` without it.
pub(crate) fn made(path: &Path, options: &[&str], len: u64) -> bool {
    std::fs::File::create(path).unwrap().set_len(len).unwrap();
    let arguments = ["-q", "-F"]
        .iter()
        .chain(options)
        .map(std::ffi::OsStr::new)
        .chain([path.as_os_str()]);
    let output = judge::run("mke2fs", arguments).unwrap();
    output.is_some_and(|output| output.status.success())
}

fn superblock(path: &Path) -> RawSuperblock {
    let bytes = std::fs::read(path).unwrap();
    RawSuperblock::read_from_bytes(&bytes[1024..2048]).unwrap()
}

pub(crate) fn ours(path: &Path) -> FileSystem {
    let region = judge::region(path, Access::ReadWrite).unwrap();
    FileSystem::mount(region, &MountOptions::new()).unwrap()
}

/// Mounts by loop with a driver of the kernel, runs `work` there, unmounts; `false` where that cannot be.
pub(crate) fn kernel(path: &Path, driver: &str, work: impl FnOnce(&Path)) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [
        "-t".as_ref(),
        driver.as_ref(),
        "-o".as_ref(),
        "loop,rw".as_ref(),
        path.as_os_str(),
        dir.path().as_os_str(),
    ];
    let mounted = judge::run("mount", arguments).unwrap();
    if !mounted.is_some_and(|output| output.status.success()) {
        judge::skipped(&format!("kernel mount as {driver}"));
        return false;
    }
    work(dir.path());
    for _ in 0..500 {
        let ended = judge::run("umount", [dir.path()]).unwrap();
        if ended.is_some_and(|output| output.status.success()) {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} stays in use", dir.path().display());
}

pub(crate) fn clean(path: &Path, when: &str) {
    let arguments = ["-fn".as_ref(), path.as_os_str()];
    if let Some(output) = judge::run("e2fsck", arguments).unwrap() {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{when}: {text}");
    }
}

/// Ours, ext4, ours, ext2, ours and so on. Every driver finds all that the others made, counts its mount, and keeps features,
/// seeds, behaviour on errors, the highest mount count and the label; and a boot loader, on the last image.
#[test]
fn drivers_take_turns_on_one_image() {
    for options in [
        ["-t", "ext2", "-b", "4096", "-I", "256"].as_slice(),
        &["-t", "ext2", "-b", "1024", "-I", "128", "-O", "^dir_index"],
        &[
            "-t",
            "ext2",
            "-b",
            "1024",
            "-e",
            "remount-ro",
            "-c",
            "17",
            "-L",
            "label",
        ],
    ] {
        let dir = scratch::dir().unwrap();
        let path = dir.path().join("image");
        if !mke2fs(&path, options) {
            return;
        }
        let boot_block = [if options.contains(&"label") { 0xeb } else { 0 }; 1024];
        let image = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        image.write_all_at(&boot_block, 0).unwrap();
        drop(image);
        let made = superblock(&path);
        let mut expected = vec![".".to_owned(), "..".to_owned(), "lost+found".to_owned()];
        for (round, driver) in ["ext4", "ext2", "ext4", "ext2"].into_iter().enumerate() {
            let fs = ours(&path);
            let name = format!("ours-{round}");
            fs.create_dir(format!("/{name}")).unwrap();
            for i in 0..150 {
                fs.write(format!("/{name}/{i:0>60}"), [1; 100]).unwrap();
            }
            fs.write(format!("/{name}/over"), [2; 5000]).unwrap();
            fs.rename(format!("/{name}/over"), format!("/{name}/{:0>60}", 3))
                .unwrap();
            fs.unmount().unwrap();
            expected.push(name.clone());
            clean(&path, "ours");
            let name = format!("theirs-{round}");
            let there = kernel(&path, driver, |root| {
                std::fs::create_dir(root.join(&name)).unwrap();
                for i in 0..150 {
                    std::fs::write(root.join(&name).join(format!("{i:0>60}")), [3; 100]).unwrap();
                    let ours = root.join(format!("ours-{round}/{i:0>60}"));
                    let len = if i == 3 { 5000 } else { 100 };
                    assert_eq!(std::fs::read(&ours).unwrap().len(), len, "{driver}");
                    if i % 2 == 0 {
                        std::fs::remove_file(&ours).unwrap();
                    }
                }
            });
            if !there {
                return;
            }
            expected.push(name.clone());
            clean(&path, driver);
            let fs = ours(&path);
            for i in 0..150 {
                let path = format!("/{name}/{i:0>60}");
                assert_eq!(fs.read(&path).unwrap(), [3; 100], "{driver}");
                if i % 2 == 0 {
                    fs.remove_file(&path).unwrap();
                }
            }
            let mut found: Vec<String> = fs
                .root()
                .unwrap()
                .read_dir(0, 100)
                .unwrap()
                .into_iter()
                .map(|entry| String::from_utf8(entry.name.into_vec()).unwrap())
                .collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{driver}");
            fs.unmount().unwrap();
            clean(&path, "ours again");
        }
        let now = superblock(&path);
        assert_eq!(
            now.s_mnt_count.get(),
            made.s_mnt_count.get() + 12,
            "{options:?}"
        );
        assert_eq!(now.s_state.get() & STATE_VALID, STATE_VALID);
        assert_eq!(now.s_hash_seed, made.s_hash_seed);
        assert_eq!(now.s_def_hash_version, made.s_def_hash_version);
        assert_eq!(now.s_feature_compat, made.s_feature_compat);
        assert_eq!(now.s_feature_incompat, made.s_feature_incompat);
        assert_eq!(now.s_errors, made.s_errors);
        assert_eq!(now.s_max_mnt_count, made.s_max_mnt_count);
        assert_eq!(now.s_lastcheck, made.s_lastcheck);
        assert_eq!(now.s_volume_name, made.s_volume_name);
        assert_eq!(now.s_error_count.get(), 0);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[..1024] == boot_block, "the boot block");
    }
}

/// Bytes of the superblock and of an inode that mean nothing to this library stay as they are, bit for bit, through writing,
/// renaming, truncating and changing attributes.
#[test]
fn what_we_do_not_know_stays_as_it_is() {
    let dir = scratch::dir().unwrap();
    let path = dir.path().join("image");
    if !mke2fs(&path, &["-t", "ext2", "-b", "4096", "-I", "256"]) {
        return;
    }
    let fs = ours(&path);
    fs.write("/f", [1; 9000]).unwrap();
    let ino = fs.metadata("/f").unwrap().ino();
    let geometry = fs.geometry();
    fs.unmount().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // Error records, mount options, the last mount point and what is reserved: bytes 136, 404 and 644 on.
    let superblock = [136..200, 404..472, 512..576, 644..1020];
    for (i, at) in superblock.clone().into_iter().flatten().enumerate() {
        bytes[1024 + at] = u8::try_from(i % 251).unwrap() | 1;
    }
    // i_faddr, i_checksum_lo and what lies behind it in osd2; of the extra part i_version_hi, i_projid.
    let group = (ino - 1) / superblock_inodes(&bytes);
    assert_eq!(group, 0, "the first file lies in the first group");
    let table = u32::from_le_bytes(bytes[4096 + 8..4096 + 12].try_into().unwrap()) as usize * 4096;
    let inode = table + (ino as usize - 1) * 256;
    let fields = [36..40, 112..116, 124..128, 152..156];
    for (i, at) in fields.clone().into_iter().flatten().enumerate() {
        bytes[inode + at] = 0x80 | u8::try_from(i).unwrap();
    }
    std::fs::write(&path, &bytes).unwrap();
    let fs = ours(&path);
    assert_eq!(fs.geometry().blocks_count(), geometry.blocks_count());
    fs.write("/g", [1; 100]).unwrap();
    fs.rename("/f", "/a-longer-name-for-f").unwrap();
    fs.hard_link("/a-longer-name-for-f", "/h").unwrap();
    let file = ext2dax::OpenOptions::new()
        .write(true)
        .open(&fs, "/h")
        .unwrap();
    file.write_all_at(&[4; 20_000], 5_000).unwrap();
    file.set_len(3_000).unwrap();
    drop(file);
    fs.set_permissions("/h", ext2dax::Permissions::from_mode(0o600))
        .unwrap();
    fs.set_owner("/h", Some(70_000), Some(80_000)).unwrap();
    fs.remove_file("/a-longer-name-for-f").unwrap();
    fs.unmount().unwrap();
    let now = std::fs::read(&path).unwrap();
    for at in superblock.into_iter().flatten() {
        assert_eq!(now[1024 + at], bytes[1024 + at], "superblock byte {at}");
    }
    for at in fields.into_iter().flatten() {
        assert_eq!(now[inode + at], bytes[inode + at], "inode byte {at}");
    }
}

fn superblock_inodes(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[1024 + 40..1024 + 44].try_into().unwrap())
}
