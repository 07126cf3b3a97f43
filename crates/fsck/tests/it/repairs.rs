//! After a repair both checkers are content, and nothing that was whole is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ext2dax_fsck::{CheckOptions, Preen, Repaired, check, preen, repair};
use ext2dax_pmem::{Access, Pmem};

use crate::campaign::{Random, Target};
use crate::judge::{self, e2fsck, have, scratch};
use crate::samples::{SHAPES, make};
use crate::shared_images;
use crate::tree::tree;

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
fn contents(bytes: Vec<u8>) -> BTreeSet<(usize, u64, u64, u64)> {
    tree(bytes)
        .into_values()
        .filter(|node| !node.is_dir())
        .map(|node| (node.ino, node.mode >> 12, node.size, node.contents))
        .collect()
}

#[test]
fn after_one_or_two_changed_fields_a_repair_leaves_a_clean_image_and_the_other_files() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let seed = number("EXT2DAX_SEED", 1);
    let count = number(
        "EXT2DAX_COUNT",
        if std::env::var_os("EXT2DAX_SOAK").is_some() {
            20_000
        } else {
            400
        },
    );
    println!("seed {seed}, {count} changes: repeat with EXT2DAX_SEED={seed} EXT2DAX_COUNT={count}");
    let dir = scratch();
    let mut wrong = Vec::new();
    for (nr, (name, size, options)) in (0_u64..).zip(SHAPES) {
        let image = dir.path().join(name);
        make(&image, *size, options);
        let target = Target::new(fs::read(&image).unwrap());
        let whole = contents(target.bytes.clone());
        let mut random = Random::new(seed * 7919 + nr);
        for i in 0..count / SHAPES.len() as u64 {
            let mut bytes = target.bytes.clone();
            let mutations: Vec<_> = (0..1 + i % 2).map(|_| target.mutate(&mut random)).collect();
            mutations
                .iter()
                .for_each(|mutation| mutation.apply(&mut bytes));
            let what = mutations
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ");
            let is_about = |start: &str| {
                mutations
                    .iter()
                    .any(|mutation| mutation.field.starts_with(start))
            };
            fs::write(&image, &bytes).unwrap();
            if std::env::var_os("EXT2DAX_TRACE").is_some() {
                println!("{name}: {what}");
            }
            let Ok(repaired) = repair_all(&image) else {
                continue;
            };
            let (status, text) = e2fsck(&image);
            if status >= 8 && is_about("superblock.s_feature_") {
                // A feature that e2fsck refuses and we do not.
                continue;
            }
            if !repaired.report.is_clean() || status != 0 {
                let left = texts(&repaired).join("\n");
                wrong.push(format!(
                    "== {name}: {what}: left\n{left}\ne2fsck exits {status}\n{text}"
                ));
                continue;
            }
            if is_about("superblock") || is_about("group") {
                // Where everything lies, or what it means: more than one object.
                continue;
            }
            // What is damaged may be gone, and nothing else: one object a field, whatever its name is now.
            let now = contents(fs::read(&image).unwrap());
            let lost: Vec<_> = whole.difference(&now).collect();
            if lost.len() > mutations.len() {
                wrong.push(format!("== {name}: {what}: lost {lost:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} repairs failed\n{}",
        wrong.len(),
        wrong.join("\n")
    );
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
