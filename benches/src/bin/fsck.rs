//! `fsck`: our checker beside e2fsck, on one set of images in one run.
//!
//! ```text
//! fsck [--json] [--rounds N] [--quick] [--threads N] [--only files|small|sparse|fragmented|damaged] [--keep DIR]
//! ```
//! Images lie on tmpfs. Rounds are interleaved, figures are medians: processor time of all threads, and time on the wall.
//! Memory is the peak of anonymous memory in a run of its own; the pages of the mapped image are not counted.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use ext2dax_benches::fsck::{cost, images};
use ext2dax_fsck::{CheckOptions, check, repair};
use ext2dax_pmem::{Access, FileRegion, Pmem};

struct Arguments {
    json: bool,
    rounds: usize,
    quick: bool,
    threads: usize,
    only: Option<String>,
    keep: Option<PathBuf>,
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut found = Arguments {
        json: false,
        rounds: 5,
        quick: false,
        threads: 2,
        only: None,
        keep: None,
    };
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--json" => found.json = true,
            "--quick" => (found.quick, found.rounds) = (true, 3),
            "--rounds" => found.rounds = value()?.parse()?,
            "--threads" => found.threads = value()?.parse()?,
            "--only" => found.only = Some(value()?),
            "--keep" => found.keep = Some(value()?.into()),
            other => bail!("unknown argument {other}"),
        }
    }
    Ok(found)
}

/// What one run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Check,
    Repair,
}

/// One run in a process of its own: `fsck --one check|repair IMAGE THREADS`. Processor time goes to standard error.
fn one(words: &[String]) -> Result<()> {
    let [task, image, threads] = words else {
        bail!("--one wants a task, an image and a number of threads");
    };
    let options = CheckOptions {
        threads: threads.parse()?,
        ..CheckOptions::default()
    };
    let clean = if task == "repair" {
        let pmem = Pmem::new(FileRegion::open(image, Access::ReadWrite)?);
        repair(&pmem, &options, &mut |_| true)?.report.is_clean()
    } else {
        let pmem = Pmem::new(FileRegion::open(image, Access::ReadOnly)?);
        check(&pmem, &options)?.is_clean()
    };
    eprintln!("{}", cost::own_cpu_ns());
    std::process::exit(if clean { 0 } else { 4 });
}

fn ours(task: Task, image: &Path, threads: usize) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let word = if task == Task::Repair {
        "repair"
    } else {
        "check"
    };
    command
        .args(["--one", word])
        .arg(image)
        .arg(threads.to_string());
    Ok(command)
}

fn theirs(task: Task, image: &Path) -> Command {
    let mut command = Command::new("e2fsck");
    let mode = if task == Task::Repair { "-fy" } else { "-fn" };
    command
        .arg(mode)
        .arg(image)
        .env("E2FSCK_CONFIG", "/dev/null");
    command
}

/// Medians of one contender, and between what its times on the wall lay.
#[derive(Clone, Copy, Debug)]
struct Figures {
    cpu_ms: f64,
    wall_ms: f64,
    wall_least_ms: f64,
    wall_most_ms: f64,
    peak_mib: f64,
    status: i32,
}

#[expect(clippy::cast_precision_loss, reason = "times and sizes of a bench")]
fn figures(mut costs: Vec<cost::Cost>, peak_kib: u64) -> Result<Figures> {
    let status = costs.first().context("one round at least")?.status;
    let mut median = |of: fn(&cost::Cost) -> u64| {
        costs.sort_by_key(of);
        of(&costs[costs.len() / 2]) as f64 / 1e6
    };
    let (cpu_ms, wall_ms) = (median(|cost| cost.cpu_ns), median(|cost| cost.wall_ns));
    let wall = |cost: Option<&cost::Cost>| cost.map_or(0.0, |cost| cost.wall_ns as f64 / 1e6);
    Ok(Figures {
        cpu_ms,
        wall_ms,
        // Sorted by the time on the wall since.
        wall_least_ms: wall(costs.first()),
        wall_most_ms: wall(costs.last()),
        peak_mib: peak_kib as f64 / 1024.0,
        status,
    })
}

fn compare(arguments: &Arguments, what: &str, task: Task, image: &Path) -> Result<()> {
    let work = image.with_extension("work");
    // A repair wants a fresh copy each time; a check takes the image as it is.
    let fresh = || -> Result<PathBuf> {
        if task == Task::Check {
            return Ok(image.to_owned());
        }
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .args([image, &work])
            .status()?;
        ensure!(copied.success(), "cp failed");
        Ok(work.clone())
    };
    let (mut mine, mut others) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        mine.push(cost::run(&mut ours(task, &fresh()?, arguments.threads)?)?);
        others.push(cost::run(&mut theirs(task, &fresh()?))?);
    }
    let mine = figures(
        mine,
        cost::peak_kib(&mut ours(task, &fresh()?, arguments.threads)?)?,
    )?;
    let others = figures(others, cost::peak_kib(&mut theirs(task, &fresh()?))?)?;
    if task == Task::Repair {
        std::fs::remove_file(&work)?;
    }
    let ratios = (
        others.cpu_ms / mine.cpu_ms,
        others.wall_ms / mine.wall_ms,
        others.peak_mib / mine.peak_mib,
    );
    if arguments.json {
        let object = |f: Figures| serde_json::json!({"cpu_ms": f.cpu_ms, "wall_ms": f.wall_ms, "wall_least_ms": f.wall_least_ms, "wall_most_ms": f.wall_most_ms, "peak_mib": f.peak_mib, "status": f.status});
        println!(
            "{}",
            serde_json::json!({"what": what, "threads": arguments.threads, "ours": object(mine), "e2fsck": object(others),
                "cpu_ratio": ratios.0, "wall_ratio": ratios.1, "memory_ratio": ratios.2})
        );
    } else {
        println!("{what}");
        for (name, f) in [("ours", mine), ("e2fsck", others)] {
            println!(
                "  {name:8} {:9.1} ms cpu {:9.1} ms wall ({:.1} to {:.1}) {:8.1} MiB, exit {}",
                f.cpu_ms, f.wall_ms, f.wall_least_ms, f.wall_most_ms, f.peak_mib, f.status
            );
        }
        println!(
            "  e2fsck takes {:.1} x the processor time, {:.1} x the time, {:.1} x the memory",
            ratios.0, ratios.1, ratios.2
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("--one", rest)) = words
        .split_first()
        .map(|(word, rest)| (word.as_str(), rest))
    {
        return one(rest);
    }
    let arguments = arguments(words.into_iter())?;
    let base = tempfile::Builder::new()
        .prefix("ext2dax-bench")
        .tempdir_in(if Path::new("/dev/shm").is_dir() {
            "/dev/shm"
        } else {
            "/tmp"
        })?;
    let home = arguments.keep.as_deref().unwrap_or(base.path());
    let wanted = |group: &str| arguments.only.as_deref().is_none_or(|only| only == group);
    let scale = if arguments.quick { 10 } else { 1 };
    // Images that were kept are taken as they are.
    let image = |name: &str, make: &dyn Fn(&Path) -> Result<()>| -> Result<PathBuf> {
        let path = home.join(name);
        if !path.exists() {
            make(&path)?;
        }
        Ok(path)
    };
    let done = |path: &Path| {
        if arguments.keep.is_none() {
            let _ = std::fs::remove_file(path);
        }
    };
    if wanted("files") {
        let path = image("files.img", &|path| images::files(path, 400_000 / scale))?;
        compare(
            &arguments,
            "clean, 400,000 files as in a tree of sources",
            Task::Check,
            &path,
        )?;
        done(&path);
    }
    if wanted("small") {
        let path = image("small.img", &|path| images::small(path, 400_000 / scale))?;
        compare(
            &arguments,
            "clean, 400,000 files of no, one or two blocks",
            Task::Check,
            &path,
        )?;
        done(&path);
    }
    if wanted("sparse") {
        let path = image("sparse.img", &|path| {
            images::sparse(path, 1_000_000 / scale)
        })?;
        compare(
            &arguments,
            "clean, 1 TiB, 1,000,000 inodes in use",
            Task::Check,
            &path,
        )?;
        done(&path);
    }
    if wanted("fragmented") {
        let path = image("fragmented.img", &images::fragmented)?;
        compare(
            &arguments,
            "clean, one file of 1 GiB in 262,144 pieces",
            Task::Check,
            &path,
        )?;
        done(&path);
    }
    if wanted("damaged") {
        for files in [25_000 / scale, 100_000 / scale] {
            let path = image(&format!("damaged-{files}.img"), &|path| {
                images::files(path, files)?;
                images::damage(path, files)
            })?;
            compare(
                &arguments,
                &format!("{files} inodes, each damaged"),
                Task::Check,
                &path,
            )?;
            compare(
                &arguments,
                &format!("{files} inodes, each damaged: repair"),
                Task::Repair,
                &path,
            )?;
            done(&path);
        }
    }
    Ok(())
}
