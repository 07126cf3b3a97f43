//! Where an image is not the one of mke2fs: the rows of the table in docs/SPEC.md, both sides of each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::contents::{made, refused};
use crate::judge;

/// Whether mke2fs made it. Nobody answers its questions.
fn mke2fs(dir: &Path, args: &[&str]) -> bool {
    let output = Command::new("mke2fs")
        .current_dir(dir)
        .arg("-q")
        .args(args)
        .stdin(Stdio::null())
        .output();
    output.expect("mke2fs runs").status.success()
}

fn have() -> bool {
    ["mke2fs", "dumpe2fs", "debugfs", "e2fsck"]
        .into_iter()
        .all(judge::present)
}

fn debugfs(dir: &Path, image: &str, command: &str) -> String {
    let output = Command::new("debugfs")
        .current_dir(dir)
        .args(["-R", command, image])
        .output();
    String::from_utf8_lossy(&output.expect("debugfs runs").stdout).into_owned()
}

/// Both images with the same options, as `dumpe2fs -h` shows them.
fn both(dir: &Path, args: &[&str]) -> [BTreeMap<String, String>; 2] {
    made(dir, &[&["-q", "-F"], args].concat());
    let ours = judge::dumpe2fs(&dir.join("image"));
    fs::remove_file(dir.join("image")).unwrap();
    assert!(mke2fs(dir, &[&["-F"], args].concat()), "{args:?}");
    let theirs = judge::dumpe2fs(&dir.join("image"));
    fs::remove_file(dir.join("image")).unwrap();
    [ours, theirs]
}

#[test]
fn blocks_are_4_kib_at_every_size() {
    let dir = tempfile::tempdir().unwrap();
    if !have() {
        return;
    }
    for (size, theirs) in [("8m", "1024"), ("600m", "4096")] {
        let [our, their] = both(dir.path(), &["image", size]);
        assert_eq!(
            (&*our["Block size"], &*their["Block size"]),
            ("4096", theirs)
        );
        // The classes of size are the same.
        assert_eq!(our["Inode count"], their["Inode count"], "{size}");
    }
}

#[test]
fn an_image_without_room_to_spare_is_made() {
    let dir = tempfile::tempdir().unwrap();
    if !have() {
        return;
    }
    let args = [
        "-b",
        "4096",
        "-N",
        "16",
        "-O",
        "^resize_inode",
        "image",
        "40k",
    ];
    assert!(!mke2fs(dir.path(), &[&["-F"], &args[..]].concat()));
    let _ = fs::remove_file(dir.path().join("image"));
    made(dir.path(), &[&["-q"], &args[..]].concat());
    judge::e2fsck_clean(&dir.path().join("image"), "40 KiB");
}

#[test]
fn lost_and_found_always_gets_an_inode() {
    let dir = tempfile::tempdir().unwrap();
    if !have() {
        return;
    }
    let args = ["-b", "1024", "-I", "1024", "-N", "8", "image", "4m"];
    assert!(!mke2fs(dir.path(), &[&["-F"], &args[..]].concat()));
    let _ = fs::remove_file(dir.path().join("image"));
    made(dir.path(), &[&["-q"], &args[..]].concat());
    let ours = judge::dumpe2fs(&dir.path().join("image"));
    assert_eq!(ours["Inode count"], "16");
}

#[test]
fn room_to_grow_is_what_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    if !have() {
        return;
    }
    let args = ["-b", "1024", "-E", "resize=40000", "image", "30m"];
    let [our, their] = both(dir.path(), &args);
    assert_eq!(our.get("Reserved GDT blocks"), None);
    assert!(their.contains_key("Reserved GDT blocks"));
}

#[test]
fn the_host_does_not_show_in_the_superblock() {
    let dir = tempfile::tempdir().unwrap();
    if !have() {
        return;
    }
    let [our, _] = both(dir.path(), &["image", "4m"]);
    assert_eq!(our["Filesystem flags"], "signed_directory_hash");
    assert_eq!(our["Filesystem OS type"], "Linux");
}

#[test]
fn what_mke2fs_changes_by_itself_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let size: &[&str] = &["-b", "3000", "image", "8m"];
    let label: &[&str] = &["-L", "more than sixteen", "image", "8m"];
    refused(at, size, "block size 3000 is not a power of two");
    refused(at, label, "longer than 16 bytes");
    if !have() {
        return;
    }
    assert!(mke2fs(at, size));
    assert_eq!(judge::dumpe2fs(&at.join("image"))["Block size"], "2048");
    assert!(mke2fs(at, &[&["-F"], label].concat()));
    let name = &judge::dumpe2fs(&at.join("image"))["Filesystem volume name"];
    assert_eq!(name, "more than sixtee");
}

#[test]
fn extended_options_add_up() {
    let dir = tempfile::tempdir().unwrap();
    if !have() {
        return;
    }
    let args = ["-E", "root_owner=1:2", "-E", "stride=4", "image", "8m"];
    let owner = |image: &str| {
        let text = debugfs(dir.path(), image, "stat <2>");
        text.contains("User:     1   Group:     2")
    };
    made(dir.path(), &[&["-q"], &args[..]].concat());
    assert!(owner("image"));
    assert!(mke2fs(dir.path(), &[&["-F"], &args[..]].concat()));
    assert!(!owner("image"), "the last one counts");
}

#[test]
fn without_a_terminal_a_file_system_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), &["-q", "image", "8m"]);
    refused(dir.path(), &["image"], "contains ext2; -F overwrites it");
    if have() {
        assert!(mke2fs(dir.path(), &["image"]));
    }
}

#[test]
fn times_of_files_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    if !have() {
        return;
    }
    let at = dir.path();
    fs::create_dir(at.join("s")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(2_540_000_000, 123_456_789);
    fs::File::create(at.join("s/f"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let seen = || {
        let text = debugfs(at, "image", "stat f");
        let line = text.lines().find(|line| line.contains("mtime"));
        line.unwrap_or_default().to_owned()
    };
    made(at, &["-q", "-d", "s", "image", "8m"]);
    let ours = seen();
    assert!(ours.contains("2050") && ours.contains(":1d6f345"), "{ours}");
    assert!(mke2fs(at, &["-F", "-I", "256", "-d", "s", "image"]));
    let theirs = seen();
    assert!(
        !theirs.contains("2050") && !theirs.contains(":1d6f345"),
        "{theirs}"
    );
}
