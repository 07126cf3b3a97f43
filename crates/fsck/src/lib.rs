//! Checks an ext2 image in five passes, in place on its mapping.
//!
//! The core returns findings as data: what is wrong, where, whether an interrupted ext2dax may have left it
//! ([`Severity::Residue`]) or not ([`Severity::Damage`]), and what a repair would do. The program `fsck.ext2dax` prints
//! them and turns them into the exit status of e2fsck.
//!
//! This crate shares with the writers nothing but the leaf crates, and of those only structures, hashes and the region:
//! where things lie is computed anew in `layout`, so that a writer's mistake in arithmetic is not repeated by its judge.
//!
//! | module | pass |
//! |---|---|
//! | `open`, `preamble` | superblock, descriptors, backups, orphan list, resize inode, journal |
//! | `scan`, `claims` | 1 and 1B: inodes, block trees, attributes; blocks claimed more than once |
//! | `dirs` | 2: directory blocks, entries, hash indexes |
//! | `connect` | 3: root, parents, loops |
//! | `links` | 4: link counts |
//! | `bitmaps` | 5: bitmaps and counters |
//!
//! Any bytes are a legal input: the answer is findings or an error, never a panic or an endless loop. Memory is two
//! bits a block, a byte and two bits for each thread an inode, four bytes more where several entries lead to it, and
//! sixteen bytes a directory.

mod armed;
mod bitmaps;
mod bits;
mod cancel;
mod census;
mod claims;
mod connect;
mod dirs;
mod error;
mod finding;
mod fix;
mod image;
mod inodes;
mod layout;
mod links;
mod open;
mod parallel;
mod paths;
mod preamble;
mod problem;
mod progress;
mod repair;
mod report;
mod scan;
mod survey;

use std::time::Instant;

use ext2dax_pmem::Pmem;

pub use cancel::Cancel;
pub use census::Counts;
pub use error::Error;
/// What stood where a repair changes something, for e2undo.
pub use ext2dax_undo::Undo;
pub use finding::Finding;
pub use problem::{Code, Pass, Preen, Severity};
pub use progress::{Progress, Step};
pub use repair::{
    BadBlocks, Listed, Optimized, Repaired, list_bad_blocks, optimize, preen, repair,
    repair_residue,
};
pub use report::{Report, Summary};
pub use survey::{Fragmented, fragments, free_runs};

use census::Census;
use image::Image;
use open::Volume;
use parallel::{Crew, Team};

/// How to check.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Block number of the superblock to use; `None` for the primary one with the backups behind it.
    pub superblock: Option<u64>,
    /// Block size in which `superblock` counts; `None` tries all.
    pub block_size: Option<u32>,
    /// Threads that share the work, the caller's one included.
    pub threads: usize,
    /// Told where the check is.
    pub progress: Progress,
    /// Stops it early.
    pub cancel: Cancel,
    /// Where a repair saves what it changes.
    pub undo: Option<Undo>,
    /// Codes that may be repaired; empty: all. What else is found stays, and stays in the report.
    pub only: Vec<Code>,
}

impl CheckOptions {
    /// Whether findings of this code may be repaired.
    #[must_use]
    pub fn chooses(&self, code: Code) -> bool {
        self.only.is_empty() || self.only.contains(&code)
    }

    fn go_on(&self) -> Result<(), Error> {
        if self.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}

impl Default for CheckOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        Self {
            superblock: None,
            block_size: None,
            threads,
            progress: Progress::default(),
            cancel: Cancel::default(),
            undo: None,
            only: Vec::new(),
        }
    }
}

/// Who does the work of a pass, who hears of it, and who may stop it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hands<'a> {
    pub(crate) crew: Crew<'a>,
    pub(crate) progress: &'a Progress,
    pub(crate) cancel: &'a Cancel,
}

/// What a check knows when it is done; repairs start from it.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) volume: Volume,
    pub(crate) census: Census,
    pub(crate) report: Report,
    pub(crate) cancel: Cancel,
}

/// Runs all passes. Nothing is written, whatever the region allows.
///
/// Shape: the findings come in the order of the passes, and in the order of inodes, directories and groups inside a
/// pass, for any number of threads.
///
/// # Errors
/// The image is not ext2, is cut short, has no usable superblock, or has features of which the check cannot know what
/// they own.
pub fn check(pmem: &Pmem, options: &CheckOptions) -> Result<Report, Error> {
    Ok(check_image(&Image::new(pmem.clone()), options)?.report)
}

/// Looks at what every mount and every check starts from, in time that depends on the number of groups alone: superblock,
/// descriptors, orphan list, journal, resize inode. An image that is marked clean may be believed if nothing is found.
///
/// # Errors
/// As [`check`].
pub fn check_preamble(pmem: &Pmem, options: &CheckOptions) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    preamble::run(&Image::new(pmem.clone()), options, &mut findings)?;
    Ok(findings)
}

pub(crate) fn check_image(image: &Image, options: &CheckOptions) -> Result<Checked, Error> {
    let mut findings = Vec::new();
    let mut times = Vec::new();
    let mut clock = Instant::now();
    let mut lap = |pass: Pass| {
        times.push((pass, clock.elapsed()));
        clock = Instant::now();
    };
    let team = Team::new(options.threads);
    let crew = team.crew();
    let progress = &options.progress;
    progress.found(0);
    let cancel = &options.cancel;
    let (volume, orphans) = preamble::run(image, options, &mut findings)?;
    lap(Pass::Preamble);
    progress.found(findings.len());
    let hands = Hands {
        crew,
        progress,
        cancel,
    };
    let mut census = scan::run(image, &volume, &orphans, hands, &mut findings)?;
    options.go_on()?;
    claims::run(image, &volume, &census, crew, &mut findings);
    options.go_on()?;
    lap(Pass::Inodes);
    progress.found(findings.len());
    dirs::run(image, &volume, &mut census, hands, &mut findings)?;
    options.go_on()?;
    lap(Pass::Directories);
    progress.found(findings.len());
    connect::run(image, &volume, &census, &mut findings);
    lap(Pass::Connectivity);
    links::run(image, &volume, &census, crew, &mut findings);
    lap(Pass::Links);
    progress.found(findings.len());
    bitmaps::run(image, &volume, &mut census, hands, &mut findings);
    options.go_on()?;
    lap(Pass::Bitmaps);
    armed::excuse(image, &volume, &mut findings);
    paths::fill(image, &volume, &census, &mut findings);
    let summary = Summary::new(&volume, &census, &findings);
    let report = Report::new(findings, summary, times);
    Ok(Checked {
        volume,
        census,
        report,
        cancel: options.cancel.clone(),
    })
}
