//! One field of a good image changed: both say the same, or the difference is in the list with its reason.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::judge::{e2fsck, have, ours, scratch};
use crate::samples;
pub(crate) use crate::target::{Mutation, Random, Target, le};

const RESERVED_ACL: &str =
    "e2fsck notes the bad attribute block of a reserved inode and never comes back to it";

/// Differences that have a reason: part of the field's name or the word of all our findings, who finds something, why.
pub(crate) const EXPLAINED: &[(&str, Finder, &str)] = &[
    (
        "p0.resize.not-clear",
        Finder::Ours,
        "e2fsck -n asks whether to clear the resize inode, and exits 0",
    ),
    (
        "p0.resize.meta-bg",
        Finder::Ours,
        "e2fsck -n asks whether to clear resize_inode, and exits 0",
    ),
    (
        "p0.resize.reserved-blocks",
        Finder::Ours,
        "e2fsck -n asks whether to store 0, and exits 0",
    ),
    (
        "p0.quota.unexpected",
        Finder::Ours,
        "e2fsck takes what the field names for a quota inode, and says so only where it has a name",
    ),
    (
        "p2.entry.duplicate",
        Finder::Ours,
        "e2fsck compares the names of one block with each other, not those of different blocks",
    ),
    (
        "superblock.s_creator_os",
        Finder::Ours,
        "e2fsck looks at what stands where only Linux keeps something as Linux's alone",
    ),
    (
        "superblock.s_rev_level",
        Finder::Ours,
        "e2fsck -n asks about features in revision 0, and exits 0",
    ),
    (
        "p1.inode.time-epoch",
        Finder::Ours,
        "e2fsck -n says that the time is likely before 1970, and exits 0",
    ),
    (
        "p2.entry.no-type",
        Finder::Ours,
        "e2fsck -n prints `Setting filetype`, and exits 0",
    ),
    (
        "p1.flag.special",
        Finder::Ours,
        "e2fsck -n asks about the flags, and exits 0",
    ),
    (
        "p0.group.flags",
        Finder::Ours,
        "e2fsck -n says that the group is marked, and exits 0 if nothing of it is used",
    ),
    (
        "p0.journal.unexpected",
        Finder::Ours,
        "e2fsck -n says that a journal is there without its feature, and exits 0",
    ),
    (
        "p5.count.free-blocks",
        Finder::Ours,
        "e2fsck takes the total from the groups when it opens the image",
    ),
    (
        "p5.count.free-inodes",
        Finder::Ours,
        "e2fsck takes the total from the groups when it opens the image",
    ),
    (
        "p0.orphan.",
        Finder::Ours,
        "e2fsck -n does not look at the orphan list",
    ),
    (
        "p0.super.",
        Finder::Ours,
        "where a backup is good, e2fsck -n uses it without a word",
    ),
    (
        "p0.group.from-backup",
        Finder::Ours,
        "where a backup is good, e2fsck -n uses it without a word",
    ),
    (
        "superblock.s_first_meta_bg",
        Finder::Ours,
        "where a backup is good, e2fsck -n uses it without a word",
    ),
    (
        "superblock.s_feature_",
        Finder::Ours,
        "features of ext4 and unknown ones are refused by name, large_dir too",
    ),
    (
        "superblock.s_feature_",
        Finder::E2fsck,
        "unknown compat bits do not keep us from looking, nor does btree_dir, which e2fsck refuses",
    ),
    (
        "p0.resize.invalid",
        Finder::Ours,
        "e2fsck -n asks whether to make the resize inode again, and exits 0",
    ),
    ("inode 5.i_file_acl", Finder::Ours, RESERVED_ACL),
    ("inode 6.i_file_acl", Finder::Ours, RESERVED_ACL),
    ("inode 7.i_file_acl", Finder::Ours, RESERVED_ACL),
    ("inode 8.i_file_acl", Finder::Ours, RESERVED_ACL),
    ("inode 9.i_file_acl", Finder::Ours, RESERVED_ACL),
    ("inode 10.i_file_acl", Finder::Ours, RESERVED_ACL),
    (
        "p4.links.too-low",
        Finder::Ours,
        "e2fsck takes a directory's count of 1 for `not counted` without the feature for it",
    ),
];

/// Who finds something where the other does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finder {
    Ours,
    E2fsck,
}

fn explained(shape: &str, mutations: &[Mutation], finder: Finder, codes: &[&str]) -> bool {
    let listed = |is: &dyn Fn(&str) -> bool| {
        EXPLAINED
            .iter()
            .any(|(what, who, _)| *who == finder && is(what))
    };
    let by_code = !codes.is_empty()
        && codes
            .iter()
            .all(|code| listed(&|what| code.starts_with(what)));
    by_code
        || mutations.iter().any(|mutation| {
            let field = format!("{shape}: {}", mutation.field);
            listed(&|what| field.contains(what))
        })
}

fn compare(shape: &str, mutations: &[Mutation], file: &Path) -> Result<(), String> {
    let (status, text) = e2fsck(file);
    let report = ours(file);
    let clean = report.as_ref().is_ok_and(|report| report.is_clean());
    let finder = match ((status == 0), clean) {
        (true, false) => Finder::Ours,
        (false, true) => Finder::E2fsck,
        _ => return Ok(()),
    };
    let codes: Vec<&str> = report
        .iter()
        .flat_map(|report| &report.findings)
        .map(|finding| finding.code.word())
        .collect();
    if explained(shape, mutations, finder, &codes) {
        return Ok(());
    }
    let found = match report {
        Ok(report) => report
            .findings
            .iter()
            .map(|f| f.text())
            .collect::<Vec<_>>()
            .join("\n"),
        Err(why) => why.to_string(),
    };
    let what: Vec<String> = mutations.iter().map(ToString::to_string).collect();
    let what = what.join("; ");
    Err(format!(
        "{what}: only {finder:?} finds something (e2fsck exits {status})\n--- ours\n{found}\n--- e2fsck\n{text}"
    ))
}

/// What a campaign is asked to do: `EXT2DAX_SEED`, `EXT2DAX_COUNT`, `EXT2DAX_THREADS`.
pub(crate) struct Campaign {
    pub(crate) seed: u64,
    pub(crate) count: u64,
    threads: usize,
}

impl Campaign {
    pub(crate) fn of(short: u64, long: u64) -> Self {
        let number = |name: &str, default: u64| {
            let value = std::env::var(name).ok();
            value.and_then(|n| n.parse().ok()).unwrap_or(default)
        };
        let soak = std::env::var_os("EXT2DAX_SOAK").is_some();
        let seed = number("EXT2DAX_SEED", 1);
        let count = number("EXT2DAX_COUNT", if soak { long } else { short });
        println!(
            "seed {seed}, {count} times: repeat with EXT2DAX_SEED={seed} EXT2DAX_COUNT={count}"
        );
        let threads = usize::try_from(number("EXT2DAX_THREADS", 2)).unwrap();
        Self {
            seed,
            count,
            threads,
        }
    }

    /// Damages every shape of image in turn. `round` gets the name of the shape, the good image and its file, a source of
    /// numbers and the number of the round, and answers what went wrong.
    pub(crate) fn run<S>(
        &self,
        start: impl Fn(&Target) -> S + Sync,
        round: impl Fn(&Shape<'_, S>, &mut Random, u64) -> Option<String> + Sync,
    ) {
        let dir = scratch();
        let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
        let wrong = Mutex::new(Vec::new());
        let shapes: Vec<samples::Shape> = samples::all().collect();
        let each = self.count.div_ceil(shapes.len() as u64);
        let step = (self.count / 20).max(1);
        let work = || {
            while let Some(shape) = shapes.get(next.fetch_add(1, Ordering::Relaxed)) {
                let file = dir.path().join(shape.name);
                shape.make(&file);
                let target = Target::new(fs::read(&file).unwrap());
                let state = start(&target);
                let mut random = Random::new(self.seed * 7919 + crc(shape.name));
                let shape = Shape {
                    name: shape.name,
                    file: &file,
                    target: &target,
                    state,
                };
                for nr in 0..each {
                    if let Some(difference) = round(&shape, &mut random, nr) {
                        println!("== {}: {difference}", shape.name);
                        wrong
                            .lock()
                            .unwrap()
                            .push(format!("== {}: {difference}", shape.name));
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(step) && step > 1000 {
                        println!("{done} of {}", each * shapes.len() as u64);
                    }
                }
                fs::remove_file(&file).unwrap();
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads {
                scope.spawn(work);
            }
            work();
        });
        let wrong = wrong.into_inner().unwrap();
        assert!(
            wrong.is_empty(),
            "{} differences\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}

/// A number for a name that does not change when shapes are added.
fn crc(name: &str) -> u64 {
    name.bytes()
        .fold(7, |sum, byte| (sum * 31 + u64::from(byte)) % 1_000_003)
}

/// A shape of image in the hands of one thread.
pub(crate) struct Shape<'a, S> {
    pub(crate) name: &'a str,
    pub(crate) file: &'a Path,
    pub(crate) target: &'a Target,
    pub(crate) state: S,
}

#[test]
fn one_changed_field_gets_the_same_verdict_from_both() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    Campaign::of(2_000, 100_000).run(
        |_| (),
        |shape, random, nr| {
            let count = 1 + usize::from(nr % 4 == 3);
            let mutations: Vec<Mutation> =
                (0..count).map(|_| shape.target.mutate(random)).collect();
            // A look changes nothing, so only the field has to be put back.
            let file = fs::File::options().write(true).open(shape.file).unwrap();
            mutations
                .iter()
                .for_each(|mutation| mutation.store(&file, false));
            let answer = compare(shape.name, &mutations, shape.file);
            mutations
                .iter()
                .rev()
                .for_each(|mutation| mutation.store(&file, true));
            answer.err()
        },
    );
}
