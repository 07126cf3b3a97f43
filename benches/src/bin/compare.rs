//! `compare`: ext2dax beside raw memory and the kernel's drivers, all in one run.
//!
//! ```text
//! compare [--json] [--rounds N] [--quick] [--no-kernel] [--no-fuse] [--only data|names|stat|threads|faults|micro|pairs]
//! ```
//! Everything lies on tmpfs, so that no device is measured. Figures are medians of interleaved rounds; a peer that is
//! missing is named and asks for nothing.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ext2dax_benches::bulk;
use ext2dax_benches::fusemount::FuseMount;
use ext2dax_benches::loopmount::LoopMount;
use ext2dax_benches::micro::{Runner, micro};
use ext2dax_benches::ours;
use ext2dax_benches::pairs::{Way, pairs};
use ext2dax_benches::rows::{data, first_touch, flat_stat, names, threads};
use ext2dax_benches::table::Row;
use ext2dax_benches::trees::{Library, Mounted};

/// How long and in what form.
struct Arguments {
    json: bool,
    rounds: usize,
    quick: bool,
    kernel: bool,
    fuse: bool,
    only: Option<String>,
}

fn arguments() -> Result<Arguments> {
    let mut found = Arguments {
        json: false,
        rounds: 9,
        quick: false,
        kernel: true,
        fuse: true,
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
            "--no-fuse" => found.fuse = false,
            "--only" => found.only = Some(words.next().context("--only needs a group of rows")?),
            other => bail!(
                "unknown argument {other}; there are --json, --rounds N, --quick, --no-kernel, --no-fuse and --only GROUP"
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
        bulk::reads(&image, base.path(), kernel, rounds)?
            .into_iter()
            .for_each(print);
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
    if wanted("micro") {
        micro_rows(&image, base.path(), kernel, &arguments)?;
    }
    if wanted("pairs") {
        pair_rows(&image, base.path(), &arguments)?;
    }
    image.finish()
}

/// The images of the two servers.
const SERVED_MIB: u64 = 160;
/// How long a server may take to remove what was closed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Writes over what is free and gives it back. Memory for an image that grows comes from tmpfs, page by page, and would be
/// most of an append otherwise.
fn use_all(dir: &Path) -> Result<()> {
    let path = dir.join("all");
    let free = || rustix::fs::statvfs(dir).map(|counts| counts.f_bfree);
    let before = free()?;
    let mut file = std::fs::File::create(&path)?;
    let chunk = vec![0x5a; 1 << 20];
    // To the last block: what is left out is where one server or the other puts its next file.
    loop {
        match std::io::Write::write_all(&mut file, &chunk) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error.into()),
        }
    }
    // fuse2fs does not always give back what was removed while it was open.
    file.set_len(0)?;
    drop(file);
    std::fs::remove_file(path)?;
    let start = Instant::now();
    while free()? + 16 < before {
        anyhow::ensure!(
            start.elapsed() < PATIENCE,
            "{}: what was removed still takes its space",
            dir.display()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The micro loops over whoever is there; whoever is not is named.
fn micro_rows(
    image: &ours::Image,
    base: &Path,
    kernel: Option<&Path>,
    arguments: &Arguments,
) -> Result<()> {
    let (ours_image, theirs_image) = (base.join("fuse.img"), base.join("fuse2fs.img"));
    ours::make(&ours_image, SERVED_MIB, 50_000)?;
    ours::make(&theirs_image, SERVED_MIB, 50_000)?;
    let present = |name: &str, mount: Result<FuseMount>| match mount {
        Ok(mount) => Some(mount),
        Err(error) => {
            eprintln!("missing: {name} ({error:#})");
            None
        }
    };
    let served = |name, mount: fn(&Path, &Path) -> Result<FuseMount>, image: &Path, dir: &str| {
        let mount = arguments.fuse.then(|| mount(image, &base.join(dir)));
        mount.and_then(|mount| present(name, mount))
    };
    let fuse = served("our FUSE mount", FuseMount::ours, &ours_image, "fuse");
    let fuse2fs = served("fuse2fs", FuseMount::fuse2fs, &theirs_image, "fuse2fs");
    for mount in [&fuse, &fuse2fs].into_iter().flatten() {
        use_all(mount.dir())?;
    }
    let tmpfs = base.join("tmpfs");
    std::fs::create_dir(&tmpfs)?;
    let mounted = |name, dir: &Path, server| Runner {
        name,
        tree: Box::new(Mounted::at(dir)),
        server,
    };
    let mut runners = vec![Runner {
        name: "library",
        tree: Box::new(Library(image.fs().clone())),
        server: None,
    }];
    runners.extend(kernel.map(|dir| mounted("kernel", dir, None)));
    runners.push(mounted("tmpfs", &tmpfs, None));
    for (name, mount) in [("FUSE", &fuse), ("fuse2fs", &fuse2fs)] {
        runners.extend(
            mount
                .as_ref()
                .map(|mount| mounted(name, mount.dir(), Some(mount.server()))),
        );
    }
    let rows = micro(&runners, arguments.rounds)?;
    drop(runners);
    if !arguments.json {
        println!(
            "micro loops: on-CPU time of one operation, FUSE and fuse2fs by the clock on the wall\n{}",
            rows.first().map_or_else(String::new, |row| row.heading())
        );
    }
    for row in rows {
        if arguments.json {
            println!("{}", row.json());
        } else {
            println!("{}", row.text());
        }
    }
    if fuse.is_some() {
        drop(fuse);
        ours::check(&ours_image)?;
    }
    Ok(())
}

fn pair_rows(image: &ours::Image, base: &Path, arguments: &Arguments) -> Result<()> {
    let other = ours::Image::named(base, "other.img", 256, 50_000)?;
    for way in [Way::Inode, Way::Group, Way::Path] {
        for row in pairs(image.fs(), other.fs(), way, arguments.rounds)? {
            if arguments.json {
                println!("{}", row.json());
            } else {
                println!("{}", row.text());
            }
        }
    }
    other.finish()
}
