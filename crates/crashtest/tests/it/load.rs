//! Load: many threads at once do whatever comes on a FUSE mount and in the library, and stress-ng's file system stressors run
//! on the mount. Nobody says what an operation must answer, but every answer must be one that can be, no time limit is
//! reached, and afterwards both checkers find nothing.
//!
//! `EXT2DAX_SOAK=1` makes it ten minutes, `EXT2DAX_SECONDS=n` as long as wanted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ext2dax_crashtest::differential::can_be;
use ext2dax_crashtest::drive::{self, Kernel, Limits, Ours, Random, System};
use ext2dax_crashtest::judge;
use ext2dax_crashtest::model::Model;
use ext2dax_crashtest::progress::Progress;
use ext2dax_crashtest::served::{SHARED, Served};

use crate::scratch;

/// Threads on one directory, each with its own idea of what is there.
const THREADS: u64 = 4;

/// Stressors that work on any POSIX file system: most of stress-ng's class `filesystem`, without those that need another
/// kind of file system or look at the kernel elsewhere, as `getdent` does: it walks over /proc, /sys and the mounts of whoever
/// runs beside it.
const STRESSORS: [&str; 23] = [
    "access",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "fallocate",
    "fcntl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "hdd",
    "iomix",
    "link",
    "mknod",
    "rename",
    "symlink",
    "utime",
    "xattr",
];

/// How long a test of this module puts load on a file system, in all.
fn length() -> Duration {
    let asked = std::env::var("EXT2DAX_SECONDS").ok();
    let seconds = asked.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(if judge::soak() { 600 } else { 30 }))
}

/// Block sizes of the images, each worked on by the library and through a mount.
const BLOCK_SIZES: [&str; 3] = ["1024", "4096", "16384"];

/// What the time is divided by: each block size, twice.
const PARTS: u32 = 6;

const LIMITS: Limits = Limits {
    max_size: 9 << 30,
    max_write: 150_000,
    fine_times: true,
    ranges: true,
    everything: true,
    max_bytes: 12 << 20,
    max_files: 150,
};

/// Works on `system` until `end`; the model is what the thread alone would have made, and mostly wrong.
fn work(mut system: impl System, seed: u64, end: Instant, progress: &Progress) -> Result<()> {
    let mut random = Random(seed);
    let mut model = Model::new();
    let mut answers: BTreeMap<i32, u64> = BTreeMap::new();
    while Instant::now() < end {
        let op = drive::random_op(&mut random, &model, &LIMITS);
        let answer = system.apply(&op);
        if let Err(errno) = answer {
            *answers.entry(errno).or_default() += 1;
            ensure!(can_be(errno), "{}: answers errno {errno}", op.told());
        }
        // What others did makes the model's answer another; what it then holds is as good as anything.
        let _ = drive::expected(&mut model, &op, answer);
        progress.add(1);
    }
    // Slots left open go with the system.
    Ok(())
}

fn all<S: System + Send>(systems: Vec<S>, seed: u64, progress: &Progress) -> Result<u64> {
    let end = Instant::now() + length() / PARTS;
    let before = progress.done();
    std::thread::scope(|scope| {
        let started: Vec<_> = (0_u64..)
            .zip(systems)
            .map(|(thread, system)| {
                scope.spawn(move || {
                    work(system, seed + thread, end, progress)
                        .with_context(|| format!("seed {seed}, thread {thread}"))
                })
            })
            .collect();
        started
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    Ok(progress.done() - before)
}

#[test]
fn random_load_of_many_threads_leaves_a_clean_image() -> Result<()> {
    let seed = scratch::seed(20_261_121);
    let progress = Progress::timed("random load", length());
    for block_size in BLOCK_SIZES {
        let scratch = scratch::dir()?;
        let image = scratch.path().join("image");
        if !judge::mke2fs(&image, 512, &["-b", block_size, "-N", "8000"])? {
            return Ok(());
        }
        let fs = scratch::mount(&image)?;
        let systems = (0..THREADS).map(|_| Ours::new(fs.clone())).collect();
        let library = all(systems, seed, &progress).context("the library")?;
        fs.unmount()?;
        judge::clean(&image).context("after the library")?;
        let options = "allow_other,default_permissions";
        let Some(served) = Served::new(scratch::tool(), &image, options)? else {
            return Ok(());
        };
        let systems = (0..THREADS).map(|_| Kernel::new(served.path())).collect();
        let mount = all(systems, seed, &progress).context("the mount")?;
        served.unmount()?;
        judge::clean(&image).context("after the mount")?;
        println!(
            "blocks of {block_size}: {library} operations in the library, {mount} on the mount"
        );
    }
    Ok(())
}

#[test]
fn stress_ng_leaves_a_clean_image() -> Result<()> {
    let scratch = scratch::dir()?;
    let image = scratch.path().join("image");
    if !judge::mke2fs(&image, 1024, &["-b", "4096", "-N", "60000"])? {
        return Ok(());
    }
    let Some(served) = Served::new(scratch::tool(), &image, SHARED)? else {
        return Ok(());
    };
    // One after the other, two processes each; the time is shared out.
    let each = (length().as_secs() / STRESSORS.len() as u64).max(1);
    let progress = Progress::timed("stress-ng", length());
    for stressor in STRESSORS {
        let (name, timeout) = (format!("--{stressor}"), each.to_string());
        let mut args = vec![
            "--temp-path".to_owned(),
            served.path().display().to_string(),
        ];
        args.extend([name, "2".to_owned(), "--timeout".to_owned(), timeout]);
        args.extend(["--metrics-brief", "--verify", "--oomable"].map(str::to_owned));
        args.extend(["--hdd-bytes", "16m", "--fallocate-bytes", "16m"].map(str::to_owned));
        args.extend(["--iomix-bytes", "16m"].map(str::to_owned));
        // What a stressor has made it removes afterwards, which takes as long again, and longer beside other work.
        let Some(output) = judge::run_within(8 * each + 60, "stress-ng", args)? else {
            judge::skipped("stress-ng is not installed");
            break;
        };
        let said = judge::said(&output);
        ensure!(
            output.status.success(),
            "{stressor}: {}: {said}",
            output.status
        );
        progress.add(bogo_operations(&said, stressor));
    }
    served.unmount()?;
    judge::clean(&image)?;
    println!(
        "stress-ng: {} stressors of {each} s, {} of its operations",
        STRESSORS.len(),
        progress.done()
    );
    Ok(())
}

/// The first number behind a stressor's name in the metrics.
fn bogo_operations(said: &str, stressor: &str) -> u64 {
    said.lines()
        .filter(|line| line.contains("metrc") || line.contains("info"))
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip_while(|word| *word != stressor);
            words.next()?;
            words.next()?.parse().ok()
        })
        .next()
        .unwrap_or(0)
}
