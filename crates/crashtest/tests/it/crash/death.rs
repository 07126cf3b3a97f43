//! Process death: a child works on a mapped file and is killed; what it left is judged.
//!
//! The page cache outlives the process, so what is found is a prefix of its stores, in the order of the program. The
//! child reports every call that returned. All calls here commit by one store, so the tree must be that of exactly the
//! reported calls, or of one more.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ext2dax::{FileSystem, MountOptions, OpenOptions, Result};
use ext2dax_crashtest::crash::oracle;
use ext2dax_crashtest::crash::preen::E2fsck;
use ext2dax_crashtest::crash::scenario::{Shape, contents, medium};
use ext2dax_crashtest::crash::shown::{self, Tree};
use ext2dax_crashtest::judge::soak;
use ext2dax_pmem::{Access, FileRegion};

use crate::scratch;

const IMAGE: &str = "EXT2DAX_DEATH_IMAGE";
const SEED: &str = "EXT2DAX_DEATH_SEED";
/// Enough for any child to be killed in the middle.
const CALLS: usize = 200_000;

#[derive(Debug)]
enum Call {
    Create(String),
    Append(String, usize, u8),
    Shrink(String, u64),
    Link(String, String),
    Rename(String, String),
    Remove(String),
    Mkdir(String),
    Rmdir(String),
    Symlink(String, String),
}

impl Call {
    fn run(&self, fs: &FileSystem) -> Result<()> {
        match self {
            Call::Create(path) => fs.create(path).map(drop),
            Call::Append(path, len, byte) => {
                let file = OpenOptions::new().append(true).open(fs, path)?;
                file.write(vec![*byte; *len].as_slice()).map(drop)
            }
            Call::Shrink(path, len) => OpenOptions::new().write(true).open(fs, path)?.set_len(*len),
            Call::Link(path, new) => fs.hard_link(path, new),
            Call::Rename(path, new) => fs.rename(path, new),
            Call::Remove(path) => fs.remove_file(path),
            Call::Mkdir(path) => fs.create_dir(path),
            Call::Rmdir(path) => fs.remove_dir(path),
            Call::Symlink(target, path) => fs.symlink(target, path),
        }
    }
}

/// The calls of one seed, the same in the child and in the parent.
struct Calls {
    random: u64,
    files: Vec<(String, u64)>,
    others: Vec<String>,
    folders: Vec<String>,
    named: u64,
}

impl Calls {
    fn new(seed: u64) -> Self {
        Calls {
            random: seed | 1,
            files: Vec::new(),
            others: Vec::new(),
            folders: Vec::new(),
            named: 0,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % u64::try_from(end).unwrap()).unwrap()
    }

    fn name(&mut self) -> String {
        self.named += 1;
        let length = self.below(40);
        format!("/{:0>length$}", self.named)
    }

    fn next(&mut self) -> Call {
        let choice = self.below(100);
        if self.files.len() < 4 || (choice < 20 && self.files.len() < 24) {
            let path = self.name();
            self.files.push((path.clone(), 0));
            return Call::Create(path);
        }
        let at = self.below(self.files.len());
        match choice {
            0..50 if self.files[at].1 < 40_000 => {
                let len = 1 + self.below(5000);
                self.files[at].1 += len as u64;
                Call::Append(
                    self.files[at].0.clone(),
                    len,
                    u8::try_from(1 + choice).unwrap(),
                )
            }
            50..60 => {
                let keep = self.below(usize::try_from(self.files[at].1).unwrap() + 1) as u64;
                self.files[at].1 = keep;
                Call::Shrink(self.files[at].0.clone(), keep)
            }
            60..70 => {
                let new = self.name();
                let old = std::mem::replace(&mut self.files[at].0, new.clone());
                Call::Rename(old, new)
            }
            70..75 if self.others.len() < 10 => {
                let new = self.name();
                self.others.push(new.clone());
                Call::Link(self.files[at].0.clone(), new)
            }
            75..80 if self.others.len() < 10 => {
                let new = self.name();
                self.others.push(new.clone());
                Call::Symlink("t".repeat(1 + self.below(100)), new)
            }
            80..85 if !self.others.is_empty() => {
                let at = self.below(self.others.len());
                Call::Remove(self.others.swap_remove(at))
            }
            85..90 if self.folders.len() < 8 => {
                let new = self.name();
                self.folders.push(new.clone());
                Call::Mkdir(new)
            }
            90..95 if !self.folders.is_empty() => {
                let at = self.below(self.folders.len());
                Call::Rmdir(self.folders.swap_remove(at))
            }
            _ => Call::Remove(self.files.swap_remove(at).0),
        }
    }
}

const SHAPE: Shape = Shape {
    block_size: 1024,
    inode_size: 128,
    len: 2 << 20,
    boot_loader: false,
};

/// The child's part; nothing when the test runs by itself.
#[test]
fn worker() {
    let Ok(image) = std::env::var(IMAGE) else {
        return;
    };
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let region = FileRegion::open(image, Access::ReadWrite).unwrap();
    let fs = FileSystem::mount(region, &MountOptions::new()).unwrap();
    let mut calls = Calls::new(seed);
    let mut out = std::io::stdout();
    for _ in 0..CALLS {
        calls.next().run(&fs).unwrap();
        out.write_all(b"returned\n").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_a_killed_process_leaves_is_the_tree_of_its_calls() {
    let rounds = if soak() { 300 } else { 12 };
    let first = scratch::seed(1);
    let judge = E2fsck::find();
    for seed in first..first + rounds {
        if let Err(error) = one_round(seed, judge.as_ref()) {
            panic!("{error:#}\nrepeat with EXT2DAX_SEED={seed}");
        }
    }
}

fn one_round(seed: u64, judge: Option<&E2fsck>) -> anyhow::Result<()> {
    let dir = scratch::dir()?;
    let path = dir.path().join("image");
    std::fs::write(&path, contents(&SHAPE.make()?))?;
    let returned = work_and_die(&path, seed)?;
    let image = std::fs::read(&path)?;
    oracle::residue_only(&image)?;
    let fs = FileSystem::mount_pmem(medium(&image)?, &MountOptions::new())?;
    let shown = shown::read(&fs)?;
    let (done, one_more) = expected(seed, returned)?;
    if let (Some(not_done), Some(not_more)) = (
        shown::difference(&shown, &done),
        shown::difference(&shown, &one_more),
    ) {
        anyhow::bail!("after {returned} calls: {not_done}; nor one more: {not_more}");
    }
    if let Some(judge) = judge {
        let verdict = judge.preen(&image)?;
        anyhow::ensure!(verdict.is_good(), "after {returned} calls: {verdict}");
    }
    println!("seed {seed}: killed after {returned} calls, tree and judges agree");
    Ok(())
}

/// Runs the child for a random while; how many calls had returned when it died.
fn work_and_die(image: &Path, seed: u64) -> anyhow::Result<usize> {
    let mut child: Child = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "crash::death::worker",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(IMAGE, image)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
    let wait = Duration::from_micros(500 + seed.wrapping_mul(7919) % 40_000);
    let mut returned = 0;
    let mut killer = None;
    for line in lines {
        // The test harness prints a line or two of its own; the first of ours may share one of them.
        if !line?.ends_with("returned") {
            continue;
        }
        returned += 1;
        if returned == 1 {
            let pid = rustix::process::Pid::from_child(&child);
            killer = Some(std::thread::spawn(move || {
                std::thread::sleep(wait);
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)
            }));
        }
    }
    let status = child.wait()?;
    if let Some(killer) = killer {
        killer.join().expect("the killer does not panic")?;
    }
    anyhow::ensure!(
        status.code().is_none(),
        "the child ended by itself: {status}"
    );
    Ok(returned)
}

/// The tree after so many calls, and after one more, on an image in memory.
fn expected(seed: u64, calls: usize) -> anyhow::Result<(Tree, Tree)> {
    let fs = FileSystem::mount_pmem(SHAPE.make()?, &MountOptions::new())?;
    let mut next = Calls::new(seed);
    for _ in 0..calls {
        next.next().run(&fs)?;
    }
    let done = shown::read(&fs)?;
    let call = next.next();
    call.run(&fs)?;
    Ok((done, shown::read(&fs)?))
}
