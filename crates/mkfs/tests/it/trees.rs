//! Large and strange trees, each as a directory and as an archive, through the program and compared through the kernel.
//! Under `EXT2DAX_SOAK` larger ones.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contents::{made, mounted, refused, soak};
use crate::judge;
use crate::tree::{Seen, assert_same, look, noise};

/// A folder in memory, where many names cost little and links have no limit.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn shell(dir: &Path, line: &str) -> bool {
    let status = Command::new("sh")
        .current_dir(dir)
        .args(["-c", line])
        .status();
    status.is_ok_and(|status| status.success())
}

/// Everything but sockets, which archives do not have.
fn pack(source: &Path, archive: &Path) -> bool {
    let line = format!(
        "tar --format=pax --sparse --xattrs '--xattrs-include=*' --warning=no-file-ignored -C '{}' -cf '{}' .",
        source.display(),
        archive.display()
    );
    let packed = judge::present_as("tar", "--version") && shell(Path::new("/"), &line);
    if !packed {
        eprintln!("skipped: an archive of {}", source.display());
    }
    packed
}

/// The image is clean and holds what is expected.
fn check(dir: &Path, image: &str, expected: &BTreeMap<Vec<u8>, Seen>, what: &str) {
    check_but_for(dir, image, expected, what, |_| {});
}

fn check_but_for(
    dir: &Path,
    image: &str,
    expected: &BTreeMap<Vec<u8>, Seen>,
    what: &str,
    forget: impl Fn(&mut Seen),
) {
    let image = dir.join(image);
    if judge::present("e2fsck") {
        judge::e2fsck_clean(&image, what);
    }
    mounted(&image, &dir.join("mnt"), |at| {
        let (mut found, mut expected) = (look(at), expected.clone());
        // Links that lead out of the tree are names of the host's own.
        for seen in expected.values_mut().chain(found.values_mut()) {
            seen.forget_links();
            forget(seen);
        }
        assert_same(&expected, &found, what);
    });
}

/// Directory and archive, an image each.
fn arrives(dir: &Path, source: &Path, what: &str) {
    let expected = look(source);
    let path = source.to_str().unwrap();
    made(dir, &["-q", "-F", "-d", path, "image", "auto"]);
    check(dir, "image", &expected, &format!("{what}, directory"));
    let archive = dir.join("archive");
    if pack(source, &archive) {
        let expected = expected.into_iter().filter(|(_, seen)| !seen.is_socket());
        let expected = expected.collect();
        made(dir, &["-q", "-F", "-d", "archive", "image", "auto"]);
        fs::remove_file(archive).unwrap();
        check(dir, "image", &expected, &format!("{what}, archive"));
    }
    fs::remove_file(dir.join("image")).unwrap();
}

#[test]
fn real_trees_arrive_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut trees = vec!["/etc", "/usr/share/zoneinfo", "/usr/share/doc/bash"];
    let toolchain = Command::new("rustc").args(["--print", "sysroot"]).output();
    let toolchain = toolchain.map_or_else(
        |_| String::new(),
        |output| String::from_utf8(output.stdout).unwrap(),
    );
    if soak() {
        trees = vec!["/etc", "/usr/share", "/usr/lib", toolchain.trim()];
    }
    for tree in trees.iter().map(Path::new).filter(|path| path.is_dir()) {
        arrives(dir.path(), tree, &tree.display().to_string());
    }
}

/// A package as root unpacks it, and the archive inside it. Under soak real ones.
#[test]
fn packages_arrive_whole() {
    if !judge::present_as("dpkg-deb", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let mut packages = Vec::new();
    if soak() {
        let line = "apt-get -qq download coreutils login passwd tzdata 2>/dev/null";
        if shell(at, line) {
            let found = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
            packages.extend(found);
        } else {
            eprintln!("skipped: packages of the distribution");
        }
    }
    let root = at.join("made");
    for path in ["DEBIAN", "usr/bin", "var/empty", "etc/made.d"] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    let control = "Package: made\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: for a test\n";
    fs::write(root.join("DEBIAN/control"), control).unwrap();
    fs::write(root.join("usr/bin/tool"), noise(100_000, 1)).unwrap();
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/other")).unwrap();
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    for (path, mode) in [
        ("usr/bin/tool", 0o4755),
        ("var/empty", 0o2711),
        ("etc/made.d", 0o1777),
    ] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    assert!(shell(at, "dpkg-deb -b made made.deb >/dev/null"));
    packages.push(at.join("made.deb"));
    for package in packages {
        let what = package.display().to_string();
        let _ = fs::remove_dir_all(at.join("x"));
        assert!(shell(at, &format!("dpkg-deb -x '{what}' x")));
        arrives(at, &at.join("x"), &what);
        let line = format!(
            "dpkg-deb --fsys-tarfile '{what}' | '{}' -q -F -d - image auto",
            env!("CARGO_BIN_EXE_mkfs-ext2dax")
        );
        assert!(shell(at, &line), "{what}");
        let unpacked = look(&at.join("x"));
        check_but_for(
            at,
            "image",
            &unpacked,
            &what,
            Seen::forget_time_of_directory,
        );
    }
}

#[test]
fn a_directory_of_many_names_arrives_whole() {
    let dir = in_memory();
    let count = if soak() { 200_000 } else { 20_000 };
    let many = dir.path().join("s/many");
    fs::create_dir_all(&many).unwrap();
    for nr in 0..count {
        let name = format!("{nr:x} {}", "n".repeat(nr % 60));
        File::create(many.join(name)).unwrap();
    }
    arrives(dir.path(), &dir.path().join("s"), "many names");
}

#[test]
fn too_many_links_are_reported_from_directory_and_archive() {
    let dir = in_memory();
    let at = dir.path();
    let count = if soak() { 100_000 } else { 32_001 };
    fs::create_dir(at.join("s")).unwrap();
    fs::write(at.join("s/first"), "").unwrap();
    for nr in 1..count {
        fs::hard_link(at.join("s/first"), at.join(format!("s/link {nr}"))).unwrap();
    }
    let why = format!(": {count} hard links; ext2 allows 32000");
    refused(at, &["-d", "s", "image"], &why);
    if pack(&at.join("s"), &at.join("archive")) {
        refused(at, &["-d", "archive", "image"], &why);
    }
    assert!(!at.join("image").exists());
    // One less than that is allowed.
    for nr in 32_000..count {
        fs::remove_file(at.join(format!("s/link {nr}"))).unwrap();
    }
    made(at, &["-q", "-d", "s", "image"]);
    mounted(&at.join("image"), &at.join("mnt"), |root| {
        assert_eq!(fs::metadata(root.join("first")).unwrap().nlink(), 32_000);
    });
}

#[test]
fn a_file_of_a_tebibyte_of_nothing_takes_a_few_blocks() {
    const LEN: u64 = 1 << 40;
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir(at.join("s")).unwrap();
    let file = File::create(at.join("s/sparse")).unwrap();
    let places = [0, 12 * 4096 + 5, LEN / 3, LEN - 6];
    file.set_len(LEN).unwrap();
    for &place in &places {
        file.write_all_at(b"bytes", place).unwrap();
    }
    let is_right = |source: &str| {
        made(at, &["-q", "-F", "-d", source, "image", "auto"]);
        let image = at.join("image");
        assert!(fs::metadata(&image).unwrap().len() < 1 << 20, "{source}");
        if judge::present("e2fsck") {
            judge::e2fsck_clean(&image, source);
        }
        mounted(&image, &at.join("mnt"), |root| {
            let file = File::open(root.join("sparse")).unwrap();
            let meta = file.metadata().unwrap();
            assert_eq!((meta.len(), meta.blocks() < 200), (LEN, true));
            let mut bytes = [0; 6];
            for place in places {
                file.read_exact_at(&mut bytes, place).unwrap();
                assert_eq!(&bytes, b"bytes\0", "{source}, {place}");
            }
        });
    };
    is_right("s");
    if pack(&at.join("s"), &at.join("archive")) {
        is_right("archive");
    }
}

/// The path is there for a message, although nobody can read it in one piece.
#[test]
fn a_deep_tree_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let depth = if soak() { 900 } else { 300 };
    let mut path = PathBuf::from("s");
    for nr in 0..depth {
        path.push(format!("d{}", nr % 10));
    }
    fs::create_dir_all(dir.path().join(&path)).unwrap();
    fs::write(dir.path().join(&path).join("file"), "deep").unwrap();
    arrives(dir.path(), &dir.path().join("s"), "deep");
}
