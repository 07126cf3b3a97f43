//! After a repair both checkers are content, and nothing that was whole is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ext2dax_fsck::{CheckOptions, Preen, Repaired, check, preen, repair};
use ext2dax_pmem::{Access, Pmem};

use crate::campaign::{Campaign, Mutation, Shape};
use crate::judge::{self, e2fsck, have};
use crate::shared_images;
use crate::tree::{Node, tree};

fn open(image: &Path) -> Pmem {
    judge::open(image, Access::ReadWrite)
}

fn options() -> CheckOptions {
    CheckOptions {
        threads: 2,
        ..CheckOptions::default()
    }
}

fn repair_all(image: &Path) -> Result<Repaired, ext2dax_fsck::Error> {
    repair(&open(image), &options(), &mut |_| true)
}

fn texts(repaired: &Repaired) -> Vec<String> {
    repaired
        .report
        .findings
        .iter()
        .map(|finding| finding.text())
        .collect()
}

#[test]
fn damaged_images_are_clean_for_both_after_one_repair() {
    if !have("e2fsck") {
        return;
    }
    let mut wrong = Vec::new();
    shared_images::for_each(|name, image| {
        let repaired = repair_all(&image).unwrap();
        if !repaired.report.is_clean() {
            wrong.push(format!("{name}: left {:?}", texts(&repaired)));
        }
        let (status, text) = e2fsck(&image);
        if status != 0 {
            wrong.push(format!("{name}: e2fsck exits {status}\n{text}"));
        }
        let before = fs::read(&image).unwrap();
        assert!(
            repair_all(&image).unwrap().fixed.is_empty(),
            "{name}: the second run repairs again"
        );
        let after = fs::read(&image).unwrap();
        // The time of the last check and the mount count may change, and nothing else.
        let changed = before
            .iter()
            .zip(&after)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(i, _)| i);
        let changed: Vec<usize> = changed
            .filter(|i| !(1076..1078).contains(i) && !(1088..1092).contains(i))
            .collect();
        assert!(
            changed.is_empty(),
            "{name}: the second run changes bytes at {changed:?}"
        );
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Preen stops in the middle in other hands: what it repaired first stays repaired, and the rest stays broken.
#[test]
fn preen_repairs_all_or_writes_nothing() {
    if !have("e2fsck") {
        return;
    }
    shared_images::for_each(|name, image| {
        let before = fs::read(&image).unwrap();
        let safe = check(&open(&image), &options()).unwrap().is_preen_safe();
        let repaired = preen(&open(&image), &options()).unwrap();
        if safe {
            assert!(repaired.report.is_clean(), "{name}: {:?}", texts(&repaired));
            assert_eq!(e2fsck(&image).0, 0, "{name}");
        } else {
            assert!(
                fs::read(&image).unwrap() == before,
                "{name}: preen wrote although it had to stop"
            );
        }
    });
}

/// What every file and link of an image holds, whatever its name: number, type, size and contents.
fn contents(paths: &BTreeMap<Vec<u8>, Node>) -> BTreeSet<(usize, u64, u64, u64)> {
    paths
        .values()
        .filter(|node| !node.is_dir())
        .map(|node| (node.ino, node.mode >> 12, node.size, node.contents))
        .collect()
}

/// What is gone or different although the damage was elsewhere: files by number, whatever their names are now, and whole
/// paths where no directory above was damaged either.
fn lost(
    before: &BTreeMap<Vec<u8>, Node>,
    after: &BTreeMap<Vec<u8>, Node>,
    about: &[usize],
) -> Vec<String> {
    let now = contents(after);
    let mut lost: Vec<String> = contents(before)
        .difference(&now)
        .filter(|(ino, ..)| !about.contains(ino))
        // A file without contents that has lost its name is gone, with e2fsck as well.
        .filter(|(_, kind, size, _)| (*kind, *size) != (8, 0))
        .map(|file| format!("file {file:?}"))
        .collect();
    let damaged: Vec<&[u8]> = before
        .iter()
        .filter(|(_, node)| about.contains(&node.ino))
        .map(|(path, _)| path.as_slice())
        .collect();
    let below = |path: &[u8], above: &[u8]| {
        let rest = path.strip_prefix(above);
        above == b"/" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    for (path, node) in before {
        if damaged.iter().any(|above| below(path, above)) {
            continue;
        }
        let same = |other: &Node| {
            (other.ino, other.mode, other.owner, other.contents)
                == (node.ino, node.mode, node.owner, node.contents)
        };
        if !after.get(path).is_some_and(same) {
            lost.push(format!("path {}", String::from_utf8_lossy(path)));
        }
    }
    lost
}

#[test]
fn after_one_or_two_changed_fields_a_repair_leaves_a_clean_image_and_the_other_files() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    Campaign::of(400, 20_000).run(
        |target| tree(target.bytes.clone()),
        |shape, random, nr| {
            let target = shape.target;
            let mut bytes = target.bytes.clone();
            let mutations: Vec<Mutation> = (0..1 + nr % 2).map(|_| target.mutate(random)).collect();
            mutations
                .iter()
                .for_each(|mutation| mutation.apply(&mut bytes));
            fs::write(shape.file, &bytes).unwrap();
            let answer = repair_and_judge(shape, &mutations);
            fs::write(shape.file, &target.bytes).unwrap();
            let what: Vec<String> = mutations.iter().map(ToString::to_string).collect();
            answer
                .err()
                .map(|wrong| format!("{}: {wrong}", what.join("; ")))
        },
    );
}

fn repair_and_judge(
    shape: &Shape<'_, BTreeMap<Vec<u8>, Node>>,
    mutations: &[Mutation],
) -> Result<(), String> {
    let is_about = |word: &str| {
        mutations
            .iter()
            .any(|mutation| mutation.field.contains(word))
    };
    let Ok(repaired) = repair_all(shape.file) else {
        // What cannot be opened is no smaller for it: only the superblock can do that.
        return match is_about("superblock") {
            true => Ok(()),
            false => Err("not repaired at all".to_owned()),
        };
    };
    let (status, text) = e2fsck(shape.file);
    if status >= 8 && is_about("superblock.s_feature_") {
        // A feature that e2fsck refuses and we do not.
        return Ok(());
    }
    if !repaired.report.is_clean() || status != 0 {
        let left = texts(&repaired).join("\n");
        return Err(format!("left\n{left}\ne2fsck exits {status}\n{text}"));
    }
    if mutations
        .iter()
        .any(|mutation| mutation.about.is_none() && !mutation.field.contains("backup"))
    {
        // Where everything lies, or what it means: more than one object.
        return Ok(());
    }
    let about: Vec<usize> = mutations
        .iter()
        .flat_map(|mutation| mutation.about.clone().unwrap_or_default())
        .collect();
    let after = tree(fs::read(shape.file).unwrap());
    match lost(&shape.state, &after, &about) {
        lost if lost.is_empty() => Ok(()),
        lost => Err(format!("lost {lost:?}")),
    }
}

/// A finding that was turned down stays, and so does every byte that its repair would have changed.
#[test]
fn a_repair_that_is_turned_down_changes_nothing() {
    if !have("e2fsck") {
        return;
    }
    shared_images::for_each(|name, image| {
        let before = fs::read(&image).unwrap();
        let repaired = repair(&open(&image), &options(), &mut |_| false).unwrap();
        assert!(repaired.fixed.is_empty(), "{name}");
        if !repaired.report.is_clean() {
            assert!(
                fs::read(&image).unwrap() == before,
                "{name}: bytes changed without a yes"
            );
        }
        let manual = repaired
            .report
            .findings
            .iter()
            .any(|finding| finding.preen == Preen::Manual);
        assert_eq!(manual, !repaired.report.is_preen_safe(), "{name}");
    });
}
