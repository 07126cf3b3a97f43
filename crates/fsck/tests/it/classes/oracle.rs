//! What has to hold for every class: e2fsck and ours agree before, in every mode, and afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::explained::{CONSEQUENCES, EXPLAINED};
use super::{ALL, Class};
use crate::findings;
use crate::judge::{e2fsck, have, ours, run, scratch};
use crate::lab::Lab;
use crate::program;
use crate::samples;
use crate::saved;
use crate::tree::tree;

/// Exit status of `e2fsck` with some options; -1 if it comes to no end.
fn theirs(option: &str, image: &Path) -> (i32, String) {
    let output = run(
        "prlimit",
        &["--cpu=5", "e2fsck", option, image.to_str().unwrap()],
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

fn mine(option: &str, image: &Path) -> (i32, String) {
    let output = program::fsck(&[option, image.to_str().unwrap()]);
    let text = program::text(&output);
    (output.status.code().unwrap_or(-1), text)
}

/// One class on one shape: files of its own, and what went wrong.
struct Case<'a> {
    class: &'a Class,
    bytes: Vec<u8>,
    image: PathBuf,
    wrong: Vec<String>,
}

impl Case<'_> {
    fn fresh(&self) -> &Path {
        fs::write(&self.image, &self.bytes).unwrap();
        &self.image
    }

    fn judge(mut self) -> Vec<String> {
        self.found();
        self.statuses();
        self.repaired();
        self.wrong
    }

    fn say(&mut self, line: String) {
        self.wrong.push(line);
    }

    /// Every message of e2fsck has a finding, and every code of the row is there.
    fn found(&mut self) {
        let image = self.fresh();
        let (status, text) = e2fsck(image);
        let report = match ours(image) {
            Ok(report) => report,
            Err(why) if status == 8 => {
                let _ = why;
                return;
            }
            Err(why) => {
                self.say(format!("-n: e2fsck {status}, ours refuses: {why}"));
                return;
            }
        };
        let words: BTreeSet<&str> = report.findings.iter().map(|f| f.code.word()).collect();
        let follows = |line: &str| {
            CONSEQUENCES.iter().any(|(part, codes, _)| {
                let found = |code: &&str| words.iter().any(|word| word.starts_with(*code));
                line.contains(part) && codes.iter().any(found)
            })
        };
        let lines = findings::unmatched(&text, &report.findings).1;
        let lines: BTreeSet<String> = lines.into_iter().filter(|line| !follows(line)).collect();
        for line in lines {
            self.say(format!("not found: {line}"));
        }
        for code in self.class.finds {
            if !words.iter().any(|word| word.starts_with(code)) {
                self.say(format!("no {code}, but {words:?}"));
            }
        }
        if (status == 0) != report.is_clean() {
            self.say(format!("-n: e2fsck {status}, ours {words:?}"));
        }
    }

    fn statuses(&mut self) {
        let before = self.bytes.clone();
        let looked = mine("-fn", self.fresh()).0;
        assert!(
            fs::read(&self.image).unwrap() == before,
            "-n stored something"
        );
        let preen = (theirs("-fp", self.fresh()).0, mine("-fp", self.fresh()).0);
        if preen.0 != preen.1 {
            self.say(format!("-p: e2fsck {}, ours {}", preen.0, preen.1));
        }
        if preen.1 == 4 && fs::read(&self.image).unwrap() != before {
            self.say("-p wrote although it stopped".to_owned());
        }
        if preen.1 == 1 && mine("-fn", &self.image).0 != 0 {
            self.say("-p left something".to_owned());
        }
        if looked == 8 {
            let (status, text) = mine("-fy", self.fresh());
            let judged = theirs("-fy", self.fresh()).0;
            if (status, judged) != (8, 8) {
                self.say(format!("-y: e2fsck {judged}, ours {status}: {text}"));
            }
        }
    }

    /// After each of the two repairs both are content, ours changes nothing the second time, and keeps what e2fsck keeps.
    fn repaired(&mut self) {
        let judged = theirs("-fy", self.fresh());
        let by_theirs = fs::read(&self.image).unwrap();
        let seen = mine("-fn", &self.image);
        let sound = judged.0 <= 1 && e2fsck(&self.image).0 == 0;
        if sound && seen.0 != 0 {
            self.say(format!("after e2fsck -y ours {}: {}", seen.0, seen.1));
        }
        let (status, text) = mine("-fy", self.fresh());
        if status == 8 {
            if judged.0 <= 1 {
                self.say(format!("-y: e2fsck {}, ours {status}: {text}", judged.0));
            }
            return;
        }
        // Where e2fsck leaves something, too, we may, but what is done is done.
        let left = status & 4 != 0 && !sound;
        if !left && (status > 1 || (judged.0 <= 1 && status != judged.0)) {
            self.say(format!("-y: e2fsck {}, ours {status}: {text}", judged.0));
        }
        let by_ours = fs::read(&self.image).unwrap();
        let (status, text) = e2fsck(&self.image);
        if status != 0 && !left {
            self.say(format!("after ours e2fsck {status}: {text}"));
        }
        let (status, text) = mine("-fy", &self.image);
        if status != if left { 4 } else { 0 } {
            self.say(format!("again: ours {status}: {text}"));
        }
        let again = fs::read(&self.image).unwrap();
        // The time of the last check and the mount count may change, and nothing else.
        let differs = |i: &usize| !(1076..1078).contains(i) && !(1088..1092).contains(i);
        let changed = (0..again.len()).filter(|&i| again[i] != by_ours[i]);
        let changed: Vec<usize> = changed.filter(differs).take(8).collect();
        if !changed.is_empty() {
            self.say(format!("again: bytes changed at {changed:?}"));
        }
        if sound
            && self
                .wrong
                .iter()
                .all(|line| !line.starts_with("after ours"))
        {
            for line in saved::missing(&tree(by_theirs), &tree(by_ours)) {
                self.say(format!("saved: {line}"));
            }
        }
    }
}

/// The good images that classes change, and one for each option of mke2fs that only they need.
pub(super) fn labs() -> BTreeMap<&'static str, Lab> {
    let dir = scratch();
    let wanted: BTreeSet<&str> = ALL
        .iter()
        .flat_map(|classes| classes.iter())
        .flat_map(|class| class.shapes.iter().copied())
        .collect();
    let mut labs = BTreeMap::new();
    for shape in samples::all() {
        if wanted.contains(shape.name) {
            let image = dir.path().join(shape.name);
            shape.make(&image);
            labs.insert(shape.name, Lab::new(fs::read(&image).unwrap()));
        }
    }
    for name in wanted {
        assert!(labs.contains_key(name), "no shape {name}");
    }
    labs
}

/// The lines that no entry of the list explains, and the entries that explain nothing.
fn unexplained(results: Vec<(&str, &str, Vec<String>)>) -> (Vec<String>, BTreeSet<usize>) {
    let mut unused: BTreeSet<usize> = (0..EXPLAINED.len()).collect();
    let mut wrong = Vec::new();
    for (class, shape, lines) in results {
        for line in lines {
            let entries = EXPLAINED.iter().enumerate();
            let fits = entries
                .filter(|(_, (name, start, _))| class.starts_with(name) && line.starts_with(start));
            let fits: Vec<usize> = fits.map(|(nr, _)| nr).collect();
            if fits.is_empty() {
                wrong.push(format!("{class} on {shape}: {line}"));
            }
            fits.iter().for_each(|nr| _ = unused.remove(nr));
        }
    }
    wrong.sort();
    (wrong, unused)
}

#[test]
fn classes_of_damage_are_judged_and_repaired_as_by_e2fsck() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let only = std::env::var("EXT2DAX_CLASS").ok();
    let keep = std::env::var_os("EXT2DAX_KEEP");
    let labs = labs();
    let cases: Vec<(&Class, &str)> = ALL
        .iter()
        .flat_map(|classes| classes.iter())
        .filter(|class| only.as_ref().is_none_or(|only| class.name.contains(only)))
        .flat_map(|class| class.shapes.iter().map(move |shape| (class, *shape)))
        .collect();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let work = || {
        let dir = scratch();
        while let Some(&(class, shape)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut lab = labs[shape].clone();
            (class.damage)(&mut lab);
            if let Some(folder) = &keep {
                let name = format!("{}/{} on {shape}", folder.to_string_lossy(), class.name);
                fs::write(name.replace(' ', "_"), &lab.target.bytes).unwrap();
                continue;
            }
            let case = Case {
                class,
                bytes: lab.target.bytes,
                image: dir.path().join("image"),
                wrong: Vec::new(),
            };
            let wrong = case.judge();
            results.lock().unwrap().push((class.name, shape, wrong));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let (wrong, unused) = unexplained(results.into_inner().unwrap());
    println!(
        "{} classes on {} images",
        ALL.iter().map(|c| c.len()).sum::<usize>(),
        cases.len()
    );
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        only.is_some() || unused.is_empty(),
        "exceptions that are none any more: {unused:?}"
    );
}
