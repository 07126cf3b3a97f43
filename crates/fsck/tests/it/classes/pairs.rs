//! Two classes of damage on one image: what each repair does alone it still does beside another.

use std::fs;
use std::path::Path;

use ext2dax_fsck::{CheckOptions, Repaired, repair};
use ext2dax_pmem::Access;

use super::oracle::labs;
use super::{Class, blocks, dirs, groups, inodes, names, space};
use crate::campaign::{Campaign, Random};
use crate::judge::{e2fsck, have, open, scratch};

const PARTS: &[&[Class]] = &[
    groups::CLASSES,
    inodes::CLASSES,
    blocks::CLASSES,
    dirs::CLASSES,
    names::CLASSES,
    space::CLASSES,
];

fn repaired(image: &Path) -> Result<Repaired, ext2dax_fsck::Error> {
    let pmem = open(image, Access::ReadWrite);
    repair(&pmem, &CheckOptions::default(), &mut |_| true)
}

/// What is wrong after a repair, if anything is.
fn judge(image: &Path, may_be_full: bool) -> Option<String> {
    let report = match repaired(image) {
        Ok(repaired) => repaired.report,
        Err(why) => return Some(format!("not repaired: {why}")),
    };
    let texts = |report: &ext2dax_fsck::Report| -> Vec<String> {
        report
            .findings
            .iter()
            .map(ext2dax_fsck::Finding::text)
            .collect()
    };
    if !report.is_clean() {
        return (!may_be_full).then(|| format!("left {:?}", texts(&report)));
    }
    let (status, text) = e2fsck(image);
    if status != 0 {
        return Some(format!("e2fsck exits {status}\n{text}"));
    }
    let again = repaired(image).unwrap();
    let clean = again.fixed.is_empty() && again.report.is_clean();
    (!clean).then(|| format!("again: {:?}, {:?}", again.fixed, texts(&again.report)))
}

#[test]
fn two_classes_at_once_are_repaired_to_the_end() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let campaign = Campaign::of(150, 10_000);
    let mut random = Random::new(campaign.seed);
    let labs = labs();
    let dir = scratch();
    let image = dir.path().join("image");
    let mut wrong = Vec::new();
    let all: Vec<&Class> = PARTS.iter().flat_map(|part| part.iter()).collect();
    for _ in 0..campaign.count {
        let (first, second) = (*random.pick(&all), *random.pick(&all));
        let shape = *random.pick(first.shapes);
        let second_fits = second.shapes.contains(&shape);
        if !second_fits {
            continue;
        }
        let mut lab = labs[shape].clone();
        // The second may look for what the first has taken away: then there is nothing to judge.
        let both = std::panic::AssertUnwindSafe(|| {
            (first.damage)(&mut lab);
            (second.damage)(&mut lab);
        });
        if std::panic::catch_unwind(both).is_err() {
            continue;
        }
        fs::write(&image, &lab.target.bytes).unwrap();
        let full = [first, second]
            .iter()
            .any(|class| class.name.contains("full") || class.name.contains("left"));
        if let Some(why) = judge(&image, full) {
            println!("== {} and {} on {shape}: {why}", first.name, second.name);
            wrong.push(format!(
                "{} and {} on {shape}: {why}",
                first.name, second.name
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
