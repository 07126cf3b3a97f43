//! `compare`: ext2dax beside raw memory and the kernel's drivers, all in one run.
//!
//! ```text
//! compare [--json] [--rounds N] [--quick]
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
}

fn arguments() -> Result<Arguments> {
    let mut found = Arguments {
        json: false,
        rounds: 9,
        quick: false,
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
            other => bail!("unknown argument {other}; there are --json, --rounds N and --quick"),
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
    let kernel = LoopMount::new(base.path(), 1024, 150_000);
    let kernel = match &kernel {
        Ok(mount) => Some(mount.dir()),
        Err(error) => {
            eprintln!("missing: the kernel's ext2 on a loop mount ({error:#})");
            None
        }
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
    data(&image, base.path(), kernel, rounds)?
        .into_iter()
        .for_each(print);
    names(&image, base.path(), kernel, rounds, files)?
        .into_iter()
        .for_each(print);
    let most = if arguments.quick { 10_000 } else { 100_000 };
    flat_stat(&image, base.path(), kernel, rounds, most)?
        .into_iter()
        .for_each(print);
    threads(&image, base.path(), rounds)?
        .into_iter()
        .for_each(print);
    first_touch(&image, base.path(), rounds)?
        .into_iter()
        .for_each(print);
    image.finish()
}
