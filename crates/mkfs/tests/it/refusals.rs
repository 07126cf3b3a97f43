//! Sources and targets that cannot do: an error with the path, and no half image under the final name.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use ext2dax_mkfs::{Filling, Medium, Rules, Tree};
use ext2dax_pmem::{AnonRegion, Pmem};

use crate::contents::{read, refused, run};
use crate::judge;
use crate::tree::noise;

#[test]
fn what_is_wrong_with_a_source_is_said_with_its_path_and_leaves_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let mut expected = Vec::new();
    let mut case = |name: &str, make: &dyn Fn(&Path), why: &str| {
        let root = at.join(name);
        fs::create_dir(&root).unwrap();
        make(&root);
        refused(at, &["-d", name, "image"], why);
        expected.push(name.to_owned());
    };
    case(
        "links",
        &|root| {
            fs::write(root.join("a"), "").unwrap();
            for nr in 0..32_000 {
                fs::hard_link(root.join("a"), root.join(nr.to_string())).unwrap();
            }
        },
        "/0: 32001 hard links; ext2 allows 32000",
    );
    case(
        "huge",
        &|root| {
            let file = fs::File::create(root.join("f")).unwrap();
            file.set_len(5 << 40).unwrap();
        },
        "/f: 5497558138880 bytes; a file has at most",
    );
    case(
        "lost",
        &|root| fs::write(root.join("lost+found"), "").unwrap(),
        "lost+found: is no directory",
    );
    refused(at, &["-d", "nowhere", "image"], "nowhere: No such file");
    refused(at, &["-d", "links", "image", "100k"], "32001 hard links");
    fs::write(
        at.join("text"),
        "this is no archive, and long enough: ".repeat(40),
    )
    .unwrap();
    refused(
        at,
        &["-d", "text", "image"],
        "text: member 1 at byte 0: not a tar archive",
    );
    refused(at, &["-d", "huge", "-b", "1024", "image"], "at most 17");
    assert!(!at.join("image").exists());
    let left = fs::read_dir(at).unwrap().count();
    assert_eq!(left, expected.len() + 1, "nothing but what the test made");
}

#[test]
fn archives_that_are_cut_or_climb_are_refused() {
    if !judge::present_as("tar", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir(at.join("s")).unwrap();
    fs::write(at.join("s/file"), noise(100_000, 1)).unwrap();
    let tar = |args: &str| {
        let status = Command::new("sh")
            .current_dir(at)
            .args(["-c", &format!("tar {args}")])
            .status();
        assert!(status.unwrap().success(), "{args}");
    };
    tar("-cf good -C s file");
    let good = fs::read(at.join("good")).unwrap();
    for (len, why) in [
        (100, "cut short"),
        (700, "cut short"),
        (60_000, "cut short"),
        (100_864, "without its end mark"),
    ] {
        fs::write(at.join("cut"), &good[..len]).unwrap();
        refused(at, &["-d", "cut", "image"], why);
        let shell = "cat cut | \"$0\" -d - image";
        let piped = Command::new("sh")
            .current_dir(at)
            .args(["-c", shell, env!("CARGO_BIN_EXE_mkfs-ext2dax")])
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&piped.stderr).into_owned();
        assert!(
            piped.status.code() == Some(1) && complaint.contains(why),
            "{len}: {complaint}"
        );
    }
    let mut bad = good.clone();
    bad[0] ^= 1;
    bad[512] ^= 1;
    fs::write(at.join("bad"), &bad).unwrap();
    refused(at, &["-d", "bad", "image"], "not a tar archive");
    tar("-cPf climbs -C s --transform=s,^,../, file");
    refused(at, &["-d", "climbs", "image"], "leads out of the root");
    fs::create_dir(at.join("l")).unwrap();
    std::os::unix::fs::symlink("/etc", at.join("l/link")).unwrap();
    tar("-cf through -C l link");
    tar("-rf through -C s --transform=s,^,link/, file");
    refused(
        at,
        &["-d", "through", "image"],
        "leads through something that is no directory",
    );
    assert!(!at.join("image").exists());
}

#[test]
fn a_source_that_changes_while_it_is_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for len in [90_000, 100_000, 110_000] {
        fs::write(&path, noise(100_000, 1)).unwrap();
        let mut filled = Filling::default().plan(read(dir.path())).unwrap();
        fs::write(&path, noise(len, 2)).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(77);
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
        let pmem = Pmem::new(AnonRegion::new(filled.len_bytes()).unwrap());
        let written = filled.write(&Medium::memory(&pmem), ext2dax_mkfs::Before::Zeroes, |_| {});
        let error = written.unwrap_err().to_string();
        assert!(
            error.ends_with("file: changed while it was read"),
            "{len}: {error}"
        );
        let mut magic = [0; 2];
        pmem.read(1024 + 56, &mut magic);
        assert_eq!(magic, [0; 2], "half an image has no magic number");
    }
}

/// Bytes that somebody writes over again and again: whoever reads them gets them whole, as they were at some time, or an error.
/// Files that have rested for a while need fewer looks; this one never rests.
#[test]
fn a_small_file_that_changes_while_it_is_read_is_an_error() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    // The first one tells the reader to expect another small one.
    fs::write(dir.path().join("a"), noise(4096, 1)).unwrap();
    let path = dir.path().join("file");
    fs::write(&path, noise(16_000, 2)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(&path).unwrap();
            for nr in (2..).take_while(|_| !done.load(Ordering::Relaxed)) {
                file.write_all_at(&noise(16_000, nr), 0).unwrap();
            }
        });
        let rules = Rules::default();
        let errors =
            (0..200_000).filter_map(|_| Tree::new().add_directory(dir.path(), &rules, 1).err());
        let error = { errors }.next().map(|error| error.to_string());
        done.store(true, Ordering::Relaxed);
        let error = error.expect("seen in one of many reads");
        assert!(
            error.ends_with("file: changed while it was read"),
            "{error}"
        );
    });
}

/// Files of sysfs say that they have 4,096 bytes, and end earlier.
#[test]
fn a_small_file_that_ends_before_its_size_is_an_error() {
    let path = Path::new("/sys/kernel/mm/transparent_hugepage");
    if !path.join("enabled").exists() {
        judge::skip(&format!("{} is not there", path.display()));
        return;
    }
    let mut tree = Tree::new();
    let read = tree.add_directory(path, &Rules::default(), 2);
    let error = read.unwrap_err().to_string();
    assert!(error.ends_with("changed while it was read"), "{error}");
    assert!(error.starts_with("/sys/kernel/mm/"), "{error}");
}

/// A file system that fills up must end in an error, not in a signal for a store that found no block.
#[test]
fn a_target_that_fills_up_is_an_error_and_keeps_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir_all(at.join("s")).unwrap();
    fs::create_dir(at.join("full")).unwrap();
    fs::write(at.join("s/file"), noise(3 << 20, 1)).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "none"])
        .arg(at.join("full"))
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        judge::skip("no mount of a file system in memory");
        return;
    }
    fs::write(at.join("full/image"), "old").unwrap();
    let filled = run(at, &["-d", "s", "full/image", "8m"]);
    let empty = run(
        at,
        &[
            "-N",
            "30000",
            "-E",
            "assume_storage_prezeroed=0",
            "full/other",
            "64m",
        ],
    );
    let old = fs::read(at.join("full/image")).unwrap();
    let names = fs::read_dir(at.join("full")).unwrap().count();
    judge::unmount(&at.join("full"));
    let complaint = String::from_utf8_lossy(&filled.stderr);
    assert_eq!(filled.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.contains("full/image: No space left"),
        "{complaint}"
    );
    assert!(empty.status.code().is_some(), "{empty:?}");
    assert_eq!(
        (old.as_slice(), names),
        (&b"old"[..], 1 + usize::from(empty.status.success()))
    );
}

/// A file that is there says how large the image is to be, as for mke2fs. Whoever makes an image of the smallest size again, with
/// one file more, has given no size at all: the word that asks for a new one is part of the answer.
#[test]
fn an_image_that_has_grown_is_refused_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir(at.join("s")).unwrap();
    fs::write(at.join("s/a"), noise(50_000, 1)).unwrap();
    let made = |args: &[&str]| assert!(run(at, args).status.success(), "{args:?}");
    made(&["-q", "-d", "s", "image"]);
    let before = fs::read(at.join("image")).unwrap();
    fs::write(at.join("s/b"), noise(500_000, 2)).unwrap();
    refused(
        at,
        &["-F", "-d", "s", "image"],
        "give a size, or auto for the smallest one",
    );
    refused(at, &["-F", "-d", "s", "image", "100k"], "has 100");
    assert!(
        before == fs::read(at.join("image")).unwrap(),
        "nothing happened"
    );
    made(&["-q", "-F", "-d", "s", "image", "auto"]);
    assert!(fs::read(at.join("image")).unwrap().len() > 550_000);
}

/// Superblocks alone are not an image that was made.
#[test]
fn superblocks_alone_are_reported_as_that() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let text = |args: &[&str]| {
        let output = run(at, args);
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(text(&["image", "8m"]).starts_with("image: made 8388608 bytes"));
    let report = text(&["-S", "-F", "image"]);
    assert!(
        report.starts_with("image: wrote the superblocks and descriptors of 8388608 bytes"),
        "{report}"
    );
}
