//! `mkfs`: making images beside mke2fs, genext2fs and cat, all in one run, on tmpfs.
//!
//! ```text
//! mkfs [--json] [--rounds N] [--quick]
//! ```
//! Every contender is a program that is started and ends; the time is the one on the wall. Rounds are interleaved, figures
//! are medians. A program that is missing is named and asks for nothing.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
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
        rounds: 5,
        quick: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => found.json = true,
            "--quick" => (found.quick, found.rounds) = (true, 1),
            "--rounds" => {
                let count = words.next().context("--rounds needs a number")?;
                found.rounds = count.parse().with_context(|| format!("--rounds {count}"))?;
            }
            other => bail!("unknown argument {other}; there are --json, --rounds N and --quick"),
        }
    }
    Ok(found)
}

/// A program and its arguments; `image` is removed before each round.
struct Contender {
    name: &'static str,
    words: Vec<String>,
    /// Rounds that are enough for one that takes minutes.
    once: bool,
}

fn contender(name: &'static str, words: &str) -> Contender {
    Contender {
        name,
        words: words.split_whitespace().map(str::to_owned).collect(),
        once: false,
    }
}

struct Bench {
    dir: PathBuf,
    ours: PathBuf,
    rounds: usize,
}

impl Bench {
    /// One round: nanoseconds on the wall, `None` if there is no such program.
    #[expect(
        clippy::cast_precision_loss,
        reason = "durations are far below 2^52 ns"
    )]
    fn round(&self, contender: &Contender) -> Result<Option<f64>> {
        let image = self.dir.join("image");
        let _ = std::fs::remove_file(&image);
        let program = match contender.name {
            "ext2dax" => self.ours.as_path(),
            _ => Path::new(&contender.words[0]),
        };
        let mut command = Command::new(program);
        command.current_dir(&self.dir).args(&contender.words[1..]);
        if contender.name == "cat" {
            command.stdout(File::create(&image)?);
        } else {
            command.stdout(Stdio::null());
        }
        let start = Instant::now();
        let output = match command.stderr(Stdio::piped()).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            output => output?,
        };
        let took = start.elapsed().as_nanos() as f64;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {complaint}", contender.name);
        Ok(Some(took))
    }

    fn row(&self, what: &str, contenders: Vec<Contender>) -> Result<Row> {
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
        for round in 0..self.rounds {
            for (contender, times) in contenders.iter().zip(&mut times) {
                if contender.once && round > 0 {
                    continue;
                }
                match self.round(contender)? {
                    Some(took) => times.push(took),
                    None if round == 0 => eprintln!("missing: {}", contender.name),
                    None => {}
                }
            }
        }
        let _ = std::fs::remove_file(self.dir.join("image"));
        let medians = contenders
            .iter()
            .zip(times)
            .filter_map(|(contender, mut times)| {
                times.sort_by(f64::total_cmp);
                Some((contender.name.to_owned(), *times.get(times.len() / 2)?))
            });
        Ok(Row::new(what, medians.collect()))
    }

    fn clear(&self) -> Result<()> {
        let source = self.dir.join("s");
        if source.exists() {
            std::fs::remove_dir_all(&source)?;
        }
        std::fs::create_dir(&source)?;
        Ok(())
    }
}

/// Bytes that no compression or search for zeroes makes short work of.
fn noise(path: &Path, mib: u64) -> Result<()> {
    let mut file = File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..mib {
        for word in piece.as_chunks_mut::<8>().0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state.to_le_bytes();
        }
        file.write_all(&piece)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let base = if Path::new("/dev/shm").is_dir() {
        "/dev/shm"
    } else {
        "/tmp"
    };
    let dir = tempfile::Builder::new()
        .prefix("ext2dax-mkfs-bench")
        .tempdir_in(base)?;
    let ours = std::env::current_exe()?.with_file_name("mkfs-ext2dax");
    ensure!(
        ours.exists(),
        "{} is not built: cargo build --release -p ext2dax-mkfs",
        ours.display()
    );
    let bench = Bench {
        dir: dir.path().to_owned(),
        ours,
        rounds: arguments.rounds,
    };
    let print = |row: Row| {
        if arguments.json {
            println!("{}", row.json());
        } else {
            println!("{}", row.text());
        }
    };
    let shrink: u32 = if arguments.quick { 8 } else { 1 };
    let source = dir.path().join("s");

    bench.clear()?;
    let names = 20_000 / shrink;
    for nr in 0..names {
        File::create(source.join(format!("file-{nr:05}")))?;
    }
    let row = bench.row(
        &format!("{names} empty files in one directory"),
        vec![
            contender("ext2dax", "mkfs -q -d s image"),
            contender("mke2fs", "mke2fs -q -F -t ext2 -N 30000 -d s image 64M"),
        ],
    )?;
    print(row.faster_than(100.0, "mke2fs"));

    bench.clear()?;
    let directories = 500 / shrink;
    for nr in 0..directories * 100 {
        let directory = source.join(format!("d{:03}", nr % directories));
        std::fs::create_dir_all(&directory)?;
        std::fs::write(
            directory.join(format!("file-{nr:05}")),
            format!("contents {nr}"),
        )?;
    }
    let row = bench.row(
        &format!("{} files in {directories} directories", directories * 100),
        vec![
            contender("ext2dax", "mkfs -q -d s image"),
            contender("mke2fs", "mke2fs -q -F -t ext2 -N 60000 -d s image 512M"),
        ],
    )?;
    print(row.faster_than(8.0, "mke2fs"));

    bench.clear()?;
    let mib = 1024 / u64::from(shrink);
    noise(&source.join("file"), mib)?;
    let row = bench.row(
        &format!("one file of {mib} MiB"),
        vec![
            contender("ext2dax", "mkfs -q -d s image"),
            contender("mke2fs", "mke2fs -q -F -t ext2 -b 4096 -d s image 1100M"),
            contender("cat", "cat s/file"),
        ],
    )?;
    print(row.faster_than(4.0, "mke2fs"));

    let tar = Command::new("tar")
        .current_dir(dir.path())
        .args(["-C", "s", "-cf", "archive", "file"])
        .status();
    if tar.is_ok_and(|status| status.success()) {
        std::fs::remove_file(source.join("file"))?;
        let mut genext2fs = contender(
            "genext2fs",
            "genext2fs -B 4096 -b 300000 -N 100 -a archive image",
        );
        genext2fs.once = true;
        let row = bench.row(
            &format!("an archive of {mib} MiB"),
            vec![
                contender("ext2dax", "mkfs -q -d archive image"),
                contender("cat", "cat archive"),
                genext2fs,
            ],
        )?;
        print(row.faster_than(0.8, "cat").faster_than(100.0, "genext2fs"));
        std::fs::remove_file(dir.path().join("archive"))?;
    } else {
        eprintln!("missing: tar");
    }

    for (what, size) in [("empty, 16 GiB", "16g"), ("empty, 1 TiB", "1t")] {
        let row = bench.row(
            what,
            vec![
                contender("ext2dax", &format!("mkfs -q image {size}")),
                contender(
                    "mke2fs",
                    &format!("mke2fs -q -F -t ext2 -b 4096 image {size}"),
                ),
            ],
        )?;
        print(row.at_most(1.0, "mke2fs"));
    }
    Ok(())
}
