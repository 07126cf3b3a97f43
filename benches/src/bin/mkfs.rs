//! `mkfs`: making images beside mke2fs, genext2fs and cat, all in one run, on tmpfs.
//!
//! ```text
//! mkfs [--json] [--rounds N] [--quick] [--only WORD] [--without NAME] [--keep DIR]
//! ```
//! Images go to two kinds of tmpfs, which are mounted for it: one as it is mounted by default, with pages of 4 KiB, and one with
//! `huge=within_size`, whose files can be mapped 2 MiB at a time. Sources lie on the tmpfs that is there. Who may not mount gets
//! the figures of that one alone.
//! Every contender is a program that is started and ends; the time is the one on the wall. Rounds are interleaved, figures
//! are medians; each that counts has one before it that does not. A program that is missing is named and asks for nothing. Rows are empty-files, small-files, one-file,
//! tar-1, tar-64, tar-1000, tar-20000 (an archive of 1 GiB in so many files) and sparse; `--only` takes the row of its
//! word, or those that go on behind it with a dash. Sources are kept in DIR for the next run. genext2fs makes blocks of 1 KiB unless
//! it is told otherwise (`genext2fs-4k`), so ours is there with such blocks, too (`ext2dax-1k`).
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use ext2dax_benches::mkfs::{Bench, Contender, Place, noise, source};
use ext2dax_benches::table::Row;

/// How long and in what form.
#[derive(Default)]
struct Arguments {
    json: bool,
    rounds: usize,
    quick: bool,
    only: String,
    without: Vec<String>,
    keep: Option<PathBuf>,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut found = Self {
            rounds: 5,
            ..Self::default()
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                "--json" => found.json = true,
                "--quick" => (found.quick, found.rounds) = (true, 1),
                "--rounds" => found.rounds = value()?.parse()?,
                "--only" => found.only = value()?,
                "--without" => found.without.push(value()?),
                "--keep" => found.keep = Some(value()?.into()),
                other => bail!(
                    "unknown argument {other}; there are --json, --rounds N, --quick, --only WORD, --without NAME and \
                     --keep DIR"
                ),
            }
        }
        Ok(found)
    }

    /// Everything is that much smaller.
    fn shrink(&self) -> u64 {
        if self.quick { 8 } else { 1 }
    }

    fn wants(&self, row: &str) -> bool {
        let rest = row.strip_prefix(&self.only[..]);
        self.only.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    fn print(&self, rows: Vec<Row>, targets: impl Fn(Row) -> Row) {
        for row in rows.into_iter().map(targets) {
            if self.json {
                println!("{}", row.json());
            } else {
                println!("{}", row.text());
            }
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() {
        memory
    } else {
        Path::new("/tmp")
    };
    let made = tempfile::Builder::new()
        .prefix("ext2dax-mkfs-bench")
        .tempdir_in(base)?;
    let dir = match &arguments.keep {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            dir.canonicalize()?
        }
        None => made.path().to_owned(),
    };
    let ours = std::env::current_exe()?.with_file_name("mkfs-ext2dax");
    ensure!(
        ours.exists(),
        "{} is not built: cargo build --release -p ext2dax-mkfs",
        ours.display()
    );
    let bench = Bench {
        places: places(made.path(), &dir)?,
        dir,
        ours,
        rounds: arguments.rounds,
        without: arguments.without.clone(),
    };
    if arguments.wants("empty-files") {
        empty_files(&arguments, &bench)?;
    }
    if arguments.wants("small-files") {
        small_files(&arguments, &bench)?;
    }
    if arguments.wants("one-file") {
        one_file(&arguments, &bench)?;
    }
    for (files, size) in [
        (1, 1 << 30),
        (64, 16 << 20),
        (1000, 1 << 20),
        (20_000, 50 << 10),
    ] {
        if arguments.wants(&format!("tar-{files}")) {
            archive(&arguments, &bench, files, size)?;
        }
    }
    if arguments.wants("sparse") {
        empty(&arguments, &bench)?;
    }
    Ok(())
}

/// Where images go: both kinds of tmpfs, or what there is.
fn places(made: &Path, dir: &Path) -> Result<Vec<Place>> {
    let kinds = [
        ("plain tmpfs", "plain", "size=6g,huge=never"),
        (
            "tmpfs with huge=within_size",
            "huge",
            "size=6g,huge=within_size",
        ),
    ];
    let mut all = Vec::new();
    for (what, name, options) in kinds {
        all.extend(Place::mount(what, made.join(name), options)?);
    }
    if all.is_empty() {
        all.push(Place::at("the file system of the sources", dir.to_owned()));
    }
    Ok(all)
}

/// Removes a source that nobody wants to keep.
fn done(arguments: &Arguments, source: &Path) -> Result<()> {
    if arguments.keep.is_none() {
        std::fs::remove_dir_all(source)?;
    }
    Ok(())
}

fn empty_files(arguments: &Arguments, bench: &Bench) -> Result<()> {
    let names = 20_000 / arguments.shrink();
    let folder = source(&bench.dir, "empty-files", |dir| {
        for nr in 0..names {
            File::create(dir.join(format!("file-{nr:05}")))?;
        }
        Ok(())
    })?;
    let rows = bench.rows(
        &format!("{names} empty files in one directory"),
        vec![
            Contender::new("ext2dax", "mkfs -q -d empty-files image"),
            Contender::new(
                "mke2fs",
                "mke2fs -q -F -t ext2 -N 30000 -d empty-files image 64M",
            )
            .once(),
        ],
    )?;
    arguments.print(rows, |row| row.faster_than(100.0, "mke2fs"));
    done(arguments, &folder)
}

fn small_files(arguments: &Arguments, bench: &Bench) -> Result<()> {
    let directories = 500 / arguments.shrink();
    let folder = source(&bench.dir, "small-files", |dir| {
        for nr in 0..directories * 100 {
            let inside = dir.join(format!("d{:03}", nr % directories));
            std::fs::create_dir_all(&inside)?;
            std::fs::write(
                inside.join(format!("file-{nr:05}")),
                format!("contents {nr}"),
            )?;
        }
        Ok(())
    })?;
    let rows = bench.rows(
        &format!("{} files in {directories} directories", directories * 100),
        vec![
            Contender::new("ext2dax", "mkfs -q -d small-files image"),
            Contender::new(
                "mke2fs",
                "mke2fs -q -F -t ext2 -N 60000 -d small-files image 512M",
            ),
        ],
    )?;
    arguments.print(rows, |row| row.faster_than(8.0, "mke2fs"));
    done(arguments, &folder)
}

fn one_file(arguments: &Arguments, bench: &Bench) -> Result<()> {
    let size = (1 << 30) / arguments.shrink();
    let folder = source(&bench.dir, "one-file", |dir| noise(dir, 1, size))?;
    let rows = bench.rows(
        &format!("one file of {} MiB", size >> 20),
        vec![
            Contender::new("ext2dax", "mkfs -q -d one-file image"),
            Contender::new(
                "mke2fs",
                "mke2fs -q -F -t ext2 -b 4096 -d one-file image 1100M",
            ),
            Contender::new("cat", "cat one-file/d000/file-00000"),
        ],
    )?;
    arguments.print(rows, |row| row.faster_than(4.0, "mke2fs"));
    done(arguments, &folder)
}

/// An archive of 1 GiB in so many files.
fn archive(arguments: &Arguments, bench: &Bench, count: u64, size: u64) -> Result<()> {
    let (count, size) = match count {
        1 => (1, size / arguments.shrink()),
        _ => (count / arguments.shrink(), size),
    };
    let name = format!("tar-{count}");
    let folder = source(&bench.dir, &name, |dir| {
        let files = dir.join("files");
        noise(&files, count, size)?;
        let tar = Command::new("tar")
            .current_dir(dir)
            .args(["-C", "files", "-cf", "archive", "."])
            .status();
        ensure!(tar.is_ok_and(|status| status.success()), "tar fails");
        Ok(std::fs::remove_dir_all(&files)?)
    })?;
    let rows = bench.rows(
        &format!("an archive of {count} files of {} KiB", size >> 10),
        vec![
            Contender::new("ext2dax", &format!("mkfs -q -d {name}/archive image")),
            Contender::new(
                "ext2dax-1k",
                &format!("mkfs -q -b 1024 -d {name}/archive image"),
            ),
            Contender::new("cat", &format!("cat {name}/archive")),
            Contender::new(
                "genext2fs",
                &format!("genext2fs -b 1200000 -N 21000 -a {name}/archive image"),
            )
            .once(),
            Contender::new(
                "genext2fs-4k",
                &format!("genext2fs -B 4096 -b 300000 -N 21000 -a {name}/archive image"),
            )
            .once(),
        ],
    )?;
    arguments.print(rows, |row| {
        row.faster_than(0.8, "cat")
            .is_faster_than("ext2dax-1k", 100.0, "genext2fs")
            .faster_than(100.0, "genext2fs-4k")
    });
    done(arguments, &folder)
}

fn empty(arguments: &Arguments, bench: &Bench) -> Result<()> {
    for (what, size) in [("empty, 16 GiB", "16g"), ("empty, 1 TiB", "1t")] {
        let rows = bench.rows(
            what,
            vec![
                Contender::new("ext2dax", &format!("mkfs -q image {size}")),
                Contender::new(
                    "mke2fs",
                    &format!("mke2fs -q -F -t ext2 -b 4096 image {size}"),
                ),
            ],
        )?;
        arguments.print(rows, |row| row.at_most(1.0, "mke2fs"));
    }
    Ok(())
}
