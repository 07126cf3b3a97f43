//! Directories laid out anew: the same names, less room, an index where there is to be one, and nothing lost on the way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ext2dax_fsck::{CheckOptions, optimize, repair};
use ext2dax_pmem::{Access, AnonRegion, EventKind, Pmem, Recorder};

use crate::judge::{e2fsck, have, open, ours, run, scratch};

fn options() -> CheckOptions {
    CheckOptions {
        threads: 1,
        ..CheckOptions::default()
    }
}

/// Shapes: block size, features of mke2fs, names in the large directory, of which every third is removed again.
const SHAPES: &[(&str, &str, u32)] = &[
    ("1024", "dir_index", 900),
    ("1024", "^dir_index", 300),
    ("1024", "dir_index,^filetype", 40),
    ("2048", "dir_index", 700),
    ("4096", "dir_index", 700),
    ("4096", "none", 700),
    ("65536", "dir_index", 3000),
];

/// An image with holes in its directories: small ones, a large one, and one that has become small again.
fn make(image: &Path, (block, features, names): (&str, &str, u32)) {
    let tree = tempfile::tempdir().unwrap();
    let name = |i: u32| format!("name-{i:04}-{}", "x".repeat(i as usize % 60));
    for dir in ["large", "shrunk", "one", "empty", "one/sub", "large/inner"] {
        fs::create_dir_all(tree.path().join(dir)).unwrap();
    }
    let first = tree.path().join("large").join(name(0));
    fs::write(&first, b"contents").unwrap();
    for i in 1..names {
        fs::hard_link(&first, tree.path().join("large").join(name(i))).unwrap();
        fs::hard_link(&first, tree.path().join("shrunk").join(name(i))).unwrap();
    }
    for i in 0..8 {
        fs::write(tree.path().join("one").join(name(i)), name(i)).unwrap();
    }
    fs::File::create(image).unwrap().set_len(12 << 20).unwrap();
    let path = image.to_str().unwrap();
    let made = run(
        "mke2fs",
        &[
            "-q",
            "-F",
            "-t",
            "ext2",
            "-b",
            block,
            "-O",
            features,
            "-N",
            "64",
            "-d",
            tree.path().to_str().unwrap(),
            path,
        ],
    );
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let script = scratch();
    let script = script.path().join("script");
    let mut lines = String::new();
    for i in 1..names {
        if i % 3 == 0 {
            lines += &format!("unlink large/{}\n", name(i));
        }
        if i > 5 {
            lines += &format!("unlink shrunk/{}\n", name(i));
        }
    }
    lines += "unlink one/name-0003-xxx\n";
    fs::write(&script, lines).unwrap();
    run("debugfs", &["-w", "-f", script.to_str().unwrap(), path]);
    // debugfs leaves link counts to the checker.
    assert_eq!(run("e2fsck", &["-fy", path]).status.code(), Some(1));
}

/// Names and inodes of every directory, as debugfs reads them.
fn tree(image: &Path) -> BTreeMap<String, Vec<String>> {
    let mut tree = BTreeMap::new();
    for dir in [
        "/",
        "/large",
        "/shrunk",
        "/one",
        "/empty",
        "/one/sub",
        "/large/inner",
        "/lost+found",
    ] {
        let output = run(
            "debugfs",
            &["-R", &format!("ls -p {dir}"), image.to_str().unwrap()],
        );
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("/0/"))
            .map(str::to_owned)
            .collect();
        lines.sort();
        tree.insert(dir.to_owned(), lines);
    }
    tree
}

/// What differs between two trees, or nothing.
fn difference(a: &BTreeMap<String, Vec<String>>, b: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let only =
        |a: &BTreeMap<String, Vec<String>>, b: &BTreeMap<String, Vec<String>>, mark: &str| {
            let mut found = Vec::new();
            for (dir, names) in a {
                let others = &b[dir];
                found.extend(
                    names
                        .iter()
                        .filter(|name| !others.contains(name))
                        .map(|name| format!("{mark} {dir} {name}")),
                );
            }
            found
        };
    let mut all = only(a, b, "gone");
    all.extend(only(b, a, "new"));
    all
}

fn size(image: &Path, dir: &str) -> u64 {
    let output = run(
        "debugfs",
        &["-R", &format!("stat {dir}"), image.to_str().unwrap()],
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let size = text.split("Size: ").nth(1).unwrap();
    size.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn rebuilt_directories_hold_the_same_names_in_less_room() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let dir = scratch();
    for &shape in SHAPES {
        let image = dir.path().join("image");
        make(&image, shape);
        let before = tree(&image);
        let (large, shrunk) = (size(&image, "/large"), size(&image, "/shrunk"));
        let done = optimize(&open(&image, Access::ReadWrite), &options()).unwrap();
        assert!(
            done.report.is_clean(),
            "{shape:?}: {:?}",
            done.report.findings
        );
        assert!(
            done.rebuilt >= 2 && done.no_room == 0,
            "{shape:?}: {done:?}"
        );
        let (status, text) = e2fsck(&image);
        assert_eq!(status, 0, "{shape:?}: {text}");
        assert_eq!(tree(&image), before, "{shape:?}");
        let block: u64 = shape.0.parse().unwrap();
        assert_eq!(size(&image, "/shrunk"), block, "{shape:?}: was {shrunk}");
        // Leaves below an index are left a fifth empty.
        assert!(
            size(&image, "/large") <= large * 5 / 4 + 2 * block,
            "{shape:?}"
        );
        let several = size(&image, "/large") > block;
        let flags = run("debugfs", &["-R", "htree /large", image.to_str().unwrap()]);
        let indexed = !String::from_utf8_lossy(&flags.stderr).contains("Not a hash-indexed");
        assert_eq!(
            indexed,
            several && shape.1.starts_with("dir_index"),
            "{shape:?}"
        );
        // The second time everything is in its place, and no byte changes.
        let bytes = fs::read(&image).unwrap();
        let again = optimize(&open(&image, Access::ReadWrite), &options()).unwrap();
        assert_eq!((again.rebuilt, again.no_room), (0, 0), "{shape:?}");
        assert!(
            fs::read(&image).unwrap() == bytes,
            "{shape:?}: bytes changed"
        );
        assert!(ours(&image).unwrap().is_clean());
    }
}

/// e2fsck takes an index for sound only if it leads to every name, so it judges ours on a directory of two levels.
#[test]
fn an_index_of_two_levels_is_sound_for_e2fsck_and_the_kernel() {
    if !have("mke2fs") || !have("e2fsck") {
        return;
    }
    let dir = scratch();
    let tree = tempfile::tempdir().unwrap();
    let many = tree.path().join("many");
    fs::create_dir(&many).unwrap();
    fs::write(many.join("first"), b"").unwrap();
    for i in 0..4000 {
        fs::hard_link(
            many.join("first"),
            many.join(format!("{i:05}-{}", "long-".repeat(20))),
        )
        .unwrap();
    }
    for hash in ["half_md4", "tea", "legacy"] {
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(12 << 20).unwrap();
        let path = image.to_str().unwrap();
        run(
            "mke2fs",
            &[
                "-q",
                "-F",
                "-t",
                "ext2",
                "-b",
                "1024",
                "-N",
                "64",
                "-d",
                tree.path().to_str().unwrap(),
                path,
            ],
        );
        run("tune2fs", &["-E", &format!("hash_alg={hash}"), path]);
        let done = optimize(&open(&image, Access::ReadWrite), &options()).unwrap();
        assert!(
            done.rebuilt >= 1 && done.report.is_clean(),
            "{hash}: {done:?}"
        );
        let (status, text) = e2fsck(&image);
        assert_eq!(status, 0, "{hash}: {text}");
        let shown = run("debugfs", &["-R", "htree /many", path]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("Indirect levels: 1"), "{hash}: {shown:.400}");
    }
}

fn region(bytes: &[u8]) -> Pmem {
    let pmem = Pmem::new(AnonRegion::new(bytes.len() as u64).unwrap());
    pmem.write(0, bytes);
    pmem
}

/// The names are there at every store, so whoever repairs afterwards finds each of them; once, because a second entry for
/// the same inode is dropped.
#[test]
fn an_optimisation_that_is_killed_loses_no_name() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let kills = if std::env::var_os("EXT2DAX_SOAK").is_some() {
        400
    } else {
        10
    };
    let dir = scratch();
    for &shape in SHAPES.iter().filter(|shape| shape.0 != "65536") {
        let image = dir.path().join("image");
        make(&image, (shape.0, shape.1, shape.2 / 4 + 20));
        let before = tree(&image);
        let bytes = fs::read(&image).unwrap();
        let recorder = Recorder::new();
        let pmem = region(&bytes).observed_by(recorder.observer());
        assert!(optimize(&pmem, &options()).unwrap().rebuilt > 0);
        let stores: Vec<(usize, Vec<u8>)> = recorder
            .take()
            .into_iter()
            .filter_map(|event| match event.kind {
                EventKind::Store { at, bytes, .. } => Some((usize::try_from(at).unwrap(), bytes)),
                _ => None,
            })
            .collect();
        let step = stores.len().div_ceil(kills).max(1);
        let mut killed = bytes;
        for (nr, (at, new)) in stores.iter().enumerate() {
            killed[*at..*at + new.len()].copy_from_slice(new);
            if nr % step != 0 {
                continue;
            }
            let what = format!("{shape:?}: killed after store {nr} of {}", stores.len());
            let pmem = region(&killed);
            let repaired = repair(&pmem, &options(), &mut |_| true).unwrap();
            assert!(
                repaired.report.is_clean(),
                "{what}: {:?}",
                repaired.report.findings
            );
            let mut end = vec![0; killed.len()];
            pmem.read(0, &mut end);
            fs::write(&image, &end).unwrap();
            let (status, text) = e2fsck(&image);
            assert_eq!(status, 0, "{what}: {text}");
            let changed = difference(&before, &tree(&image));
            assert!(changed.is_empty(), "{what}: {changed:?}");
            assert_eq!(tree(&image), before, "{what}: a name is there twice");
            // e2fsck alone loses nothing either.
            fs::write(&image, &killed).unwrap();
            run("e2fsck", &["-fy", image.to_str().unwrap()]);
            let changed = difference(&before, &tree(&image));
            assert!(
                changed.is_empty(),
                "{what}, repaired by e2fsck: {changed:?}"
            );
        }
    }
}
