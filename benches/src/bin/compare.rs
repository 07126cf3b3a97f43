//! `compare`: ext2dax beside raw memory and the kernel's drivers, all in one run.
//!
//! ```text
//! compare [--json] [--rounds N] [--quick] [--no-kernel] [--only data|names|stat|threads|faults]
//! ```
//! Everything lies on tmpfs, so that no device is measured. Figures are medians of interleaved rounds; a peer that is
//! missing is named and asks for nothing.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

use std::path::Path;

use anyhow::{Context, Result, bail};
use ext2dax_benches::loopmount::LoopMount;
use ext2dax_benches::ours;
use ext2dax_benches::rows::{data, first_touch, flat_stat, names, threads};
use ext2dax_benches::table::Row;

/// How long and in what form.
struct Arguments {
    json: bool,
    rounds: usize,
    quick: bool,
    kernel: bool,
    only: Option<String>,
}

fn arguments() -> Result<Arguments> {
    let mut found = Arguments {
        json: false,
        rounds: 9,
        quick: false,
        kernel: true,
        only: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => found.json = true,
            "--quick" => (found.quick, found.rounds) = (true, 3),
            "--rounds" => {
                let count = words.next().context("--rounds needs a number")?;
                found.rounds = count.parse().with_context(|| format!("--rounds {count}"))?;
            }
            "--no-kernel" => found.kernel = false,
            "--only" => found.only = Some(words.next().context("--only needs a group of rows")?),
            other => bail!(
                "unknown argument {other}; there are --json, --rounds N, --quick, --no-kernel and --only GROUP"
            ),
        }
    }
    Ok(found)
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let base = tempfile::Builder::new()
        .prefix("ext2dax-bench")
        .tempdir_in(if Path::new("/dev/shm").is_dir() {
            "/dev/shm"
        } else {
            "/tmp"
        })?;
    let kernel = arguments
        .kernel
        .then(|| LoopMount::new(base.path(), 1024, 150_000));
    let kernel = match &kernel {
        Some(Ok(mount)) => Some(mount.dir()),
        Some(Err(error)) => {
            eprintln!("missing: the kernel's ext2 on a loop mount ({error:#})");
            None
        }
        None => None,
    };
    let print = |row: Row| {
        if arguments.json {
            println!("{}", row.json());
        } else {
            println!("{}", row.text());
        }
    };
    let rounds = arguments.rounds;
    let files = if arguments.quick { 2_000 } else { 20_000 };

    let image = ours::Image::new(base.path(), 1024, 150_000)?;
    let wanted = |group: &str| arguments.only.as_deref().is_none_or(|only| only == group);
    if !arguments.json {
        println!(
            "on-CPU time of one operation, medians of {rounds} interleaved rounds; threads by the clock on the wall"
        );
    }
    if wanted("data") {
        data(&image, kernel, rounds)?.into_iter().for_each(print);
    }
    if wanted("names") {
        names(&image, base.path(), kernel, rounds, files)?
            .into_iter()
            .for_each(print);
    }
    if wanted("stat") {
        let most = if arguments.quick { 10_000 } else { 100_000 };
        flat_stat(&image, base.path(), kernel, rounds, most)?
            .into_iter()
            .for_each(print);
    }
    if wanted("threads") {
        threads(&image, base.path(), rounds)?
            .into_iter()
            .for_each(print);
    }
    if wanted("faults") {
        first_touch(&image, base.path(), rounds)?
            .into_iter()
            .for_each(print);
    }
    image.finish()
}
