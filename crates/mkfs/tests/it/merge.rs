//! Contents into an image that is there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ext2dax_fsck::CheckOptions;
use ext2dax_pmem::{Access, FileRegion, Pmem};

use crate::contents::{made, mounted, refused};
use crate::judge;
use crate::tree::{Seen, assert_same, look, nasty, noise};

/// Clean for both checkers.
fn clean(image: &Path, what: &str) {
    if judge::present("e2fsck") {
        judge::e2fsck_clean(image, what);
    }
    let pmem = Pmem::new(FileRegion::open(image, Access::ReadOnly).unwrap());
    let report = ext2dax_fsck::check(&pmem, &CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.findings);
}

fn superblock(image: &Path) -> Vec<u8> {
    let bytes = fs::read(image).unwrap();
    // UUID, name and hash seed.
    [&bytes[1128..1160], &bytes[1260..1276]].concat()
}

fn seen(image: &Path, at: &Path) -> Option<BTreeMap<Vec<u8>, Seen>> {
    let mut all = None;
    mounted(image, at, |at| all = Some(look(at)));
    all
}

#[test]
fn a_merged_directory_arrives_whole_beside_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for name in ["base", "source"] {
        fs::create_dir(at.join(name)).unwrap();
    }
    fs::create_dir_all(at.join("base/a/b")).unwrap();
    for nr in 0..50 {
        fs::write(at.join(format!("base/a/kept {nr}")), noise(nr * 100, 1)).unwrap();
    }
    fs::write(at.join("base/file-1"), "replaced").unwrap();
    nasty(&at.join("source"));
    let mut expected = look(&at.join("base"));
    expected.extend(look(&at.join("source")));
    for block_size in ["1024", "4096", "65536"] {
        let image = at.join("image");
        made(
            at,
            &[
                "-q", "-F", "-N", "3000", "-b", block_size, "-d", "base", "image", "64m",
            ],
        );
        let before = superblock(&image);
        let said = made(at, &["--merge", "-d", "source", "image"]);
        assert!(said.contains("1 names replaced, 0 removed"), "{said}");
        clean(&image, block_size);
        assert_eq!(superblock(&image), before, "{block_size}");
        // The kernel mounts blocks of up to a page.
        let seen = || seen(&image, &at.join("mnt"));
        if let Some(found) = (block_size.len() < 5).then(seen).flatten() {
            assert_same(&expected, &found, block_size);
        }
    }
    // An archive is as good, and once more changes nothing that can be seen.
    let tar = "tar -C source --format=pax --sparse --xattrs --xattrs-include=* -cf archive --exclude=socket .";
    let packed = Command::new("sh")
        .current_dir(at)
        .args(["-c", tar])
        .status();
    if packed.is_ok_and(|status| status.success()) {
        made(at, &["-q", "--merge", "-d", "archive", "image"]);
        clean(&at.join("image"), "archive");
        made(
            at,
            &["-q", "-F", "-N", "3000", "-d", "base", "image", "64m"],
        );
        made(at, &["-q", "--merge", "-d", "archive", "image"]);
        expected.remove(&b"socket"[..]);
        if let Some(found) = seen(&at.join("image"), &at.join("mnt")) {
            assert_same(&expected, &found, "archive");
        }
    }
}

/// The image is the lowest layer: names are replaced whatever they were, directories merged, marks remove.
#[test]
fn a_merge_is_a_layer_over_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let make = |root: &str, names: &[&str]| {
        for name in names {
            let path = at.join(root).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if name.ends_with('/') {
                fs::create_dir_all(&path).unwrap();
            } else {
                fs::write(&path, format!("{root} {name}")).unwrap();
            }
        }
    };
    make(
        "base",
        &[
            "d/kept", "d/gone", "o/old", "file", "dir/in", "alone/x", "w/x", "h1",
        ],
    );
    fs::hard_link(at.join("base/h1"), at.join("base/h2")).unwrap();
    std::os::unix::fs::symlink("/nowhere", at.join("base/link")).unwrap();
    make(
        "one",
        &[
            "d/.wh.gone",
            "o/.wh..wh..opq",
            "o/new",
            "alone",
            "h1",
            "link",
            ".wh.w",
        ],
    );
    // What was a file is a directory now, and the other way round; `alone` is one again, without what the image had.
    make("two", &["file/in", "dir", "alone/y", "w/y"]);
    made(at, &["-q", "-d", "base", "image", "4m"]);
    made(
        at,
        &[
            "-q",
            "--merge",
            "--whiteouts",
            "-d",
            "one",
            "-d",
            "two",
            "image",
        ],
    );
    let image = at.join("image");
    clean(&image, "layers");
    mounted(&image, &at.join("mnt"), |root| {
        let names: Vec<String> = look(root)
            .into_keys()
            .map(|name| String::from_utf8(name).unwrap())
            .collect();
        let expected = [
            "alone", "alone/y", "d", "d/kept", "dir", "file", "file/in", "h1", "h2", "link", "o",
            "o/new", "w", "w/y",
        ];
        assert_eq!(names, expected);
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert_eq!(
            (&*read("h1"), &*read("h2"), &*read("link")),
            ("one h1", "base h1", "one link")
        );
        assert_eq!(fs::metadata(root.join("h2")).unwrap().nlink(), 1);
    });
}

#[test]
fn rules_and_tables_reach_into_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir_all(at.join("base/home/user")).unwrap();
    fs::create_dir_all(at.join("base/opt")).unwrap();
    fs::create_dir_all(at.join("s/bin")).unwrap();
    fs::write(at.join("base/home/user/file"), "").unwrap();
    fs::write(at.join("base/tool"), "").unwrap();
    fs::write(at.join("s/bin/new"), "").unwrap();
    // Nothing is handed down to what has owners and attributes of its own.
    let inherits = "setfacl -m d:u:1000:rwx opt";
    let _ = Command::new("sh")
        .args(["-c", inherits])
        .current_dir(at.join("base"))
        .status();
    made(
        at,
        &[
            "-q", "--chmod", "opt=2770", "--chown", "opt=5:6", "-d", "base", "image", "4m",
        ],
    );
    let table = "/tool f 4755 1 2\n|xattr user.a=b\n/home r -1 7 8\n/new/dir d 700 3 4\n/opt/tty c 666 0 5 4 0 0 1 2\n";
    fs::write(at.join("table"), table).unwrap();
    made(
        at,
        &[
            "-q",
            "--merge",
            "--prefix=/opt",
            "--owner=9:9",
            "--chmod",
            "new=640",
            "--devtable",
            "table",
            "-d",
            "s",
            "image",
        ],
    );
    let image = at.join("image");
    clean(&image, "table");
    mounted(&image, &at.join("mnt"), |root| {
        let of = |path: &str| {
            let meta = fs::symlink_metadata(root.join(path)).unwrap();
            (meta.mode() & 0o7777, meta.uid(), meta.gid())
        };
        assert_eq!(of("tool"), (0o4755, 1, 2));
        assert_eq!((of("home/user/file").1, of("home").2), (7, 8));
        assert_eq!(of("new/dir"), (0o700, 3, 4));
        assert_eq!(of("opt"), (0o2770, 5, 6), "only on the way");
        assert_eq!(of("opt/bin").1, 9);
        assert_eq!(of("opt/bin/new"), (0o640, 9, 9));
        assert!(root.join("opt/tty1").exists() && !root.join("opt/tty2").exists());
        let mut value = [0; 9];
        let len = rustix::fs::getxattr(root.join("tool"), "user.a", &mut value[..]).unwrap();
        assert_eq!(&value[..len], b"b");
    });
    fs::write(at.join("table"), "\n/nothing f 600 0 0\n").unwrap();
    let before = fs::read(&image).unwrap();
    refused(
        at,
        &["--merge", "--devtable", "table", "image"],
        "table: line 2: no such file",
    );
    assert!(fs::read(&image).unwrap() == before);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_changes() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for name in ["base", "blocks", "inodes", "links"] {
        fs::create_dir(at.join(name)).unwrap();
    }
    fs::write(at.join("base/large"), noise(3 << 20, 1)).unwrap();
    fs::write(at.join("blocks/file"), noise(5 << 20, 2)).unwrap();
    for nr in 0..200 {
        fs::write(at.join(format!("inodes/{nr}")), "").unwrap();
    }
    made(at, &["-q", "-N", "64", "-d", "base", "image", "8m"]);
    let before = fs::read(at.join("image")).unwrap();
    let refuse = |args: &[&str], why: &str| {
        refused(at, &[&["--merge"], args, &["image"]].concat(), why);
        assert!(fs::read(at.join("image")).unwrap() == before, "{args:?}");
    };
    refuse(&["-d", "blocks"], "too small: needs 51");
    refuse(&["-d", "inodes"], "200 inodes");
    refuse(&["-d", "nowhere"], "No such file");
    refuse(&["-d", "base", "-L", "x"], "-L: shapes a new file system");
    refuse(
        &["-d", "base", "-z", "undo"],
        "-z: a merge cannot be taken back",
    );
    refuse(
        &["-d", "base", "-E", "root_owner=1:1"],
        "-E root_owner: shapes",
    );
    refuse(&["-d", "base", "-b", "4096"], "-b: shapes");
    refuse(&["-d", "base", "--free=1m"], "--free: shapes");
    refuse(&[], "--merge: needs contents");
    refused(at, &["--merge", "-d", "base", "other"], "does not exist");
    fs::write(at.join("text"), vec![b'x'; 100_000]).unwrap();
    refused(at, &["--merge", "-d", "base", "text"], "text: ");
    // A dry run says so, too, and changes nothing when it fits.
    refuse(&["-n", "-d", "blocks"], "too small");
    assert!(made(at, &["-n", "--merge", "-d", "base", "image"]).contains("everything fits"));
    assert!(fs::read(at.join("image")).unwrap() == before);
    // What takes the place of something has its room when that is larger.
    fs::rename(at.join("blocks/file"), at.join("blocks/large")).unwrap();
    refuse(&["-d", "blocks"], "too small");
    fs::write(at.join("blocks/.wh.large"), "").unwrap();
    made(
        at,
        &["-q", "--merge", "--whiteouts", "-d", "blocks", "image"],
    );
    clean(&at.join("image"), "after a removal");
}

/// Killed at any moment, every file is whole or not there, and the merge can be done again.
#[test]
fn a_killed_merge_leaves_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir_all(at.join("s/sub")).unwrap();
    for nr in 0..400 {
        fs::write(
            at.join(format!("s/sub/{nr}")),
            noise(20_000 + nr, nr as u64),
        )
        .unwrap();
    }
    let expected = look(&at.join("s"));
    for milliseconds in [5, 40] {
        made(at, &["-q", "-F", "image", "32m"]);
        // Over files of the same names, so that some are on their way in the place of others.
        made(at, &["-q", "--merge", "-d", "s", "image"]);
        let mut child = Command::new(env!("CARGO_BIN_EXE_mkfs-ext2dax"))
            .current_dir(at)
            .args(["-q", "--merge", "-d", "s", "image"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        let _ = child.kill();
        child.wait().unwrap();
        let image = at.join("image");
        let pmem = Pmem::new(FileRegion::open(&image, Access::ReadWrite).unwrap());
        let options = ext2dax::MountOptions::new();
        let fs = ext2dax::FileSystem::mount_pmem(pmem, &options).unwrap();
        for nr in 0..400 {
            let bytes = fs.read(format!("/sub/{nr}")).unwrap();
            assert!(
                bytes == noise(20_000 + nr, nr as u64),
                "{milliseconds} ms, {nr}"
            );
        }
        fs.unmount().unwrap();
        if judge::present("e2fsck") {
            let repaired = Command::new("e2fsck")
                .arg("-fp")
                .arg(&image)
                .output()
                .unwrap();
            assert!(
                matches!(repaired.status.code(), Some(0 | 1)),
                "{repaired:?}"
            );
        }
        made(at, &["-q", "--merge", "-d", "s", "image"]);
        clean(&image, "again");
        if let Some(mut found) = seen(&image, &at.join("mnt")) {
            found.retain(|name, _| !name.starts_with(b"sub/.ext2dax-merge"));
            assert_same(&expected, &found, "again");
        }
    }
}
