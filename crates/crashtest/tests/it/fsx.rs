//! fsx, the file system exerciser, through FUSE: reads, writes, mappings, truncations, punches and copies of one file at
//! random, each read compared with what must be there. Several of them work on one mount at once.
//!
//! `EXT2DAX_SEED=n` repeats a run; `EXT2DAX_SOAK=1` makes it 1,000,000 operations a block size,
//! `EXT2DAX_OPERATIONS=n` as many as wanted. `EXT2DAX_BLOCK_SIZE=n` is one block size alone.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ext2dax_crashtest::judge;
use ext2dax_crashtest::progress::Progress;
use ext2dax_crashtest::served::{SHARED, Served};

use crate::scratch;

const BLOCK_SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

/// Processes on one mount.
const AT_ONCE: u64 = 2;

/// Most operations of one process: fsx 0.3.2 never unmaps what it has read through a mapping, and each mapping that it
/// keeps makes its next calls dearer (and 65,530 are the most that Linux lets it have).
const OF_ONE: u64 = 10_000;

/// How far the file reaches: to the second indirect block with blocks of up to 4 KiB, to the first with larger ones.
fn longest(block_size: u32) -> u32 {
    match block_size {
        ..=4096 => (12 + block_size / 4 + 100) * block_size,
        _ => 24 * block_size,
    }
}

/// No operation of 0 bytes: fsx 0.3.2 takes the EINVAL that POSIX wants of such a posix_fallocate for a missing call.
fn configuration(block_size: u32) -> String {
    format!(
        "flen = {}
[opsize]
min = 1
max = {}
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 3
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 5
sendfile = 3
posix_fadvise = 1
copy_file_range = 5
",
        longest(block_size),
        65_536.max(2 * block_size),
    )
}

/// One fsx on its own file; `false` without the program.
fn exercise(file: &Path, config: &Path, seed: u64, count: u64) -> Result<bool> {
    let scratch = tempfile::tempdir()?;
    let args = [
        "-f".as_ref(),
        config.as_os_str(),
        "-N".as_ref(),
        count.to_string().as_ref(),
        "-S".as_ref(),
        seed.to_string().as_ref(),
        "-P".as_ref(),
        scratch.path().as_os_str(),
        file.as_os_str(),
    ]
    .map(std::ffi::OsStr::to_owned);
    // Slow means a hundred operations a second.
    let Some(output) = judge::run_within(60 + count / 100, "fsx", args)? else {
        return Ok(false);
    };
    let said = judge::said(&output);
    let lines: Vec<&str> = said.lines().collect();
    let (first, last) = lines.split_at(lines.len().min(5));
    ensure!(
        output.status.success(),
        "fsx, seed {seed}: {}\n{}\n..\n{}",
        output.status,
        first.join("\n"),
        last[last.len().saturating_sub(12)..].join("\n")
    );
    Ok(true)
}

/// At least `total` operations.
fn run(block_size: u32, seed: u64, total: u64) -> Result<()> {
    let count = (total / AT_ONCE).clamp(1, OF_ONE);
    let rounds = total.div_ceil(AT_ONCE * count);
    let progress = Progress::new(
        format!("fsx, blocks of {block_size}"),
        rounds * AT_ONCE * count,
    );
    let scratch = scratch::dir()?;
    let (image, config) = (
        scratch.path().join("image"),
        scratch.path().join("fsx.toml"),
    );
    std::fs::write(&config, configuration(block_size))?;
    let size = block_size.to_string();
    if !judge::mke2fs(
        &image,
        64.max(u64::from(block_size) / 512),
        &["-b", &size, "-N", "64"],
    )? {
        return Ok(());
    }
    for round in 0..rounds {
        let Some(served) = Served::new(scratch::tool(), &image, SHARED)? else {
            return Ok(());
        };
        let there = std::thread::scope(|scope| -> Result<bool> {
            let started: Vec<_> = (0..AT_ONCE)
                .map(|number| {
                    let file = served.join(format!("file{number}"));
                    let (config, seed) = (&config, seed + round * AT_ONCE + number);
                    scope.spawn(move || exercise(&file, config, seed, count))
                })
                .collect();
            started
                .into_iter()
                .map(|one| one.join().expect("no panic"))
                .try_fold(true, |all, one| Ok(all & one?))
        })?;
        served.unmount()?;
        judge::clean(&image)?;
        if !there {
            judge::skipped("fsx is not installed");
            return Ok(());
        }
        progress.add(AT_ONCE * count);
    }
    println!(
        "fsx: blocks of {block_size}: {} operations from seed {seed} on in {} s, clean",
        progress.done(),
        progress.elapsed().as_secs()
    );
    Ok(())
}

/// How many operations a block size.
fn operations() -> u64 {
    std::env::var("EXT2DAX_OPERATIONS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(if judge::soak() { 1_000_000 } else { 10_000 })
}

#[test]
fn fsx_finds_nothing_at_any_block_size() -> Result<()> {
    let seed = scratch::seed(20_261_121);
    let only = std::env::var("EXT2DAX_BLOCK_SIZE").ok();
    for block_size in BLOCK_SIZES {
        if only
            .as_ref()
            .is_some_and(|only| *only != block_size.to_string())
        {
            continue;
        }
        run(block_size, seed, operations())
            .with_context(|| format!("EXT2DAX_SEED={seed}, blocks of {block_size}"))?;
    }
    Ok(())
}
