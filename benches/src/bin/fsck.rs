//! `fsck`: our checker beside e2fsck, on one set of images in one run.
//!
//! ```text
//! fsck [--json] [--rounds N] [--quick] [--threads N] [--only files|small|sparse|fragmented|damaged] [--keep DIR]
//! ```
//! Images lie on tmpfs, and once more on a tmpfs with large pages, which the bench mounts if it may. Rounds are
//! interleaved, figures are medians: processor time of all threads, and time on the wall, of that the least, too.
//! Memory is the peak of anonymous memory in a run of its own; the pages of the mapped image are not counted.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use ext2dax_benches::fsck::large::{LargePages, copy_in_pieces};
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

/// An image, and what it lies on.
struct Lies {
    on: &'static str,
    image: PathBuf,
}

/// A copy for one repair, or the image itself: a check takes it as it is.
fn fresh(task: Task, image: &Path) -> Result<PathBuf> {
    if task == Task::Check {
        return Ok(image.to_owned());
    }
    let work = image.with_extension("work");
    copy_in_pieces(image, &work)?;
    Ok(work)
}

/// Runs both contenders on the image in every place, in turn, and prints what they cost.
fn compare(arguments: &Arguments, what: &str, task: Task, places: &[Lies]) -> Result<()> {
    let threads = arguments.threads;
    let mut costs: Vec<_> = places.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for _ in 0..arguments.rounds {
        for (place, (mine, others)) in places.iter().zip(&mut costs) {
            mine.push(cost::run(&mut ours(
                task,
                &fresh(task, &place.image)?,
                threads,
            )?)?);
            others.push(cost::run(&mut theirs(task, &fresh(task, &place.image)?))?);
        }
    }
    for (place, (mine, others)) in places.iter().zip(costs) {
        let peak = cost::peak_kib(&mut ours(task, &fresh(task, &place.image)?, threads)?)?;
        let mine = figures(mine, peak)?;
        let peak = cost::peak_kib(&mut theirs(task, &fresh(task, &place.image)?))?;
        let others = figures(others, peak)?;
        if task == Task::Repair {
            std::fs::remove_file(place.image.with_extension("work"))?;
        }
        print(arguments, what, place.on, [mine, others]);
    }
    Ok(())
}

fn print(arguments: &Arguments, what: &str, on: &str, [mine, others]: [Figures; 2]) {
    let ratios = [
        others.cpu_ms / mine.cpu_ms,
        others.wall_ms / mine.wall_ms,
        others.wall_least_ms / mine.wall_least_ms,
        others.peak_mib / mine.peak_mib,
    ];
    if arguments.json {
        let object = |f: Figures| serde_json::json!({"cpu_ms": f.cpu_ms, "wall_ms": f.wall_ms, "wall_least_ms": f.wall_least_ms, "wall_most_ms": f.wall_most_ms, "peak_mib": f.peak_mib, "status": f.status});
        println!(
            "{}",
            serde_json::json!({"what": what, "on": on, "threads": arguments.threads, "ours": object(mine), "e2fsck": object(others),
                "cpu_ratio": ratios[0], "wall_ratio": ratios[1], "wall_least_ratio": ratios[2], "memory_ratio": ratios[3]})
        );
        return;
    }
    println!("{what}; on {on}");
    for (name, f) in [("ours", mine), ("e2fsck", others)] {
        println!(
            "  {name:8} {:9.1} ms cpu {:9.1} ms wall ({:.1} to {:.1}) {:8.1} MiB, exit {}",
            f.cpu_ms, f.wall_ms, f.wall_least_ms, f.wall_most_ms, f.peak_mib, f.status
        );
    }
    println!(
        "  e2fsck takes {:.1} x the processor time, {:.1} x the time (least: {:.1} x), {:.1} x the memory",
        ratios[0], ratios[1], ratios[2], ratios[3]
    );
}

/// Makes images and has both contenders work on them.
struct Bench<'a> {
    arguments: &'a Arguments,
    home: &'a Path,
    /// A second place for every image, if there is one.
    large: Option<LargePages>,
}

impl Bench<'_> {
    fn row(
        &self,
        what: &str,
        name: &str,
        tasks: &[(Task, &str)],
        make: impl Fn(&Path) -> Result<()>,
    ) -> Result<()> {
        let image = self.home.join(name);
        // Images that were kept are taken as they are.
        if !image.exists() {
            make(&image)?;
        }
        let on = "tmpfs";
        let mut places = vec![Lies { on, image }];
        if let Some(large) = &self.large {
            match large.copy(&places[0].image) {
                Ok(image) => places.push(Lies {
                    on: "tmpfs with large pages",
                    image,
                }),
                Err(why) => eprintln!("{what}: not on tmpfs with large pages: {why}"),
            }
        }
        for (task, suffix) in tasks {
            compare(self.arguments, &format!("{what}{suffix}"), *task, &places)?;
        }
        for (nr, place) in places.iter().enumerate() {
            if nr > 0 || self.arguments.keep.is_none() {
                std::fs::remove_file(&place.image)?;
            }
        }
        Ok(())
    }
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
    let large = LargePages::mount();
    if let Err(why) = &large {
        eprintln!("no rows on tmpfs with large pages: {why:#}");
    }
    let bench = Bench {
        arguments: &arguments,
        home: arguments.keep.as_deref().unwrap_or(base.path()),
        large: large.ok(),
    };
    let wanted = |group: &str| arguments.only.as_deref().is_none_or(|only| only == group);
    let scale = if arguments.quick { 10 } else { 1 };
    let check = &[(Task::Check, "")];
    if wanted("files") {
        let what = "clean, 400,000 files as in a tree of sources";
        let make = |path: &Path| images::files(path, 400_000 / scale);
        bench.row(what, "files.img", check, make)?;
    }
    if wanted("small") {
        let what = "clean, 400,000 files of no, one or two blocks";
        let make = |path: &Path| images::small(path, 400_000 / scale);
        bench.row(what, "small.img", check, make)?;
    }
    if wanted("sparse") {
        let what = "clean, 1 TiB, 1,000,000 inodes in use";
        let make = |path: &Path| images::sparse(path, 1_000_000 / scale);
        bench.row(what, "sparse.img", check, make)?;
    }
    if wanted("fragmented") {
        let what = "clean, one file of 1 GiB in 262,144 pieces";
        bench.row(what, "fragmented.img", check, images::fragmented)?;
    }
    if wanted("damaged") {
        for files in [25_000 / scale, 100_000 / scale] {
            let make = |path: &Path| {
                images::files(path, files)?;
                images::damage(path, files)
            };
            bench.row(
                &format!("{files} inodes, each damaged"),
                &format!("damaged-{files}.img"),
                &[(Task::Check, ""), (Task::Repair, ": repair")],
                make,
            )?;
        }
    }
    Ok(())
}
