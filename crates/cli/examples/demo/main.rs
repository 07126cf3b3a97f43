//! The main job, shown: an image is made, files are written through calls and through memory, threads store into a
//! mapped file that others cut and punch, and everybody who can read ext2 looks at what is left.
//!
//! `demo [IMAGE]`: with a path the image is kept there. `EXT2DAX_DEMO_SECONDS` is how long the storm lasts (3). The exit
//! status is 0 only if every byte was where it had to be and every judge found the image clean.
#![expect(clippy::print_stdout, reason = "a demonstration talks to its reader")]

mod judges;
mod storm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ext2dax::fault::host::{Access, HostMmu, Options, survive_bus};
use ext2dax::{File, FileSystem, MountOptions, OpenOptions};
use ext2dax_pmem::FileRegion;

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;

fn main() -> ExitCode {
    match run() {
        Ok(true) => {
            println!("\nEverything was where it had to be.");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("\nNOT CLEAN: see above.");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A directory in memory if there is one: the demonstration is about page faults, not about a disk.
fn scratch() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    }
}

fn run() -> Result<bool> {
    let dir = tempfile::Builder::new()
        .prefix("ext2dax-demo-")
        .tempdir_in(scratch())?;
    let image = std::env::args_os()
        .nth(1)
        .map_or_else(|| dir.path().join("demo.img"), PathBuf::from);
    make(&image)?;

    // An access that cannot be served becomes an error of `View::store` instead of ending the process.
    survive_bus()?;
    let region = FileRegion::open(&image, ext2dax_pmem::Access::ReadWrite)?;
    let mmu = HostMmu::new(region.file(), region.offset(), &Options::default())?;
    let fs = FileSystem::mount(region, &MountOptions::default())?;
    say("page faults", &format!("{} ({})", mmu.mode(), mmu.reason()));

    let (faults, resolver) = (mmu.fault_loop(), mmu.resolver());
    let threads = [
        std::thread::spawn(move || faults.run()),
        std::thread::spawn(move || resolver.run()),
    ];
    let tree = write_tree(&fs)?;
    let mapped = write_mapped(&fs, &mmu)?;
    let storm = storm::run(&fs, &mmu, seconds())?;
    mmu.stop();
    for thread in threads {
        thread.join().ok().context("a thread of the MMU panicked")?;
    }
    let left = fs.statfs();
    fs.unmount()?;
    drop(mmu);
    say(
        "unmounted",
        &format!("{} of {} blocks free", left.blocks_free, left.blocks),
    );

    println!("\nJudges");
    let mut clean = judges::our_fsck(&image)?;
    clean &= judges::e2fsck(&image)?;
    clean &= judges::kernel(&image, &[tree, mapped, storm])?;
    Ok(clean)
}

fn seconds() -> Duration {
    let wanted = std::env::var("EXT2DAX_DEMO_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(wanted.unwrap_or(3))
}

/// One line of the report.
fn say(what: &str, how: &str) {
    println!("  {what:<14} {how}");
}

/// A file as the judges must find it.
struct Expected {
    path: &'static str,
    bytes: Vec<u8>,
}

fn make(image: &Path) -> Result<()> {
    let options = ext2dax_mkfs::Options {
        label: b"demo".to_vec(),
        ..Default::default()
    };
    let plan = ext2dax_mkfs::make_file(image, &options, 256 * MIB)?;
    let geometry = plan.geometry();
    println!("Image {}", image.display());
    say(
        "made",
        &format!(
            "{} blocks of {} bytes in {} groups, {} inodes",
            geometry.blocks_count(),
            geometry.block_size(),
            geometry.groups(),
            geometry.inodes_count()
        ),
    );
    Ok(())
}

/// Directories, files, a link: by calls.
fn write_tree(fs: &FileSystem) -> Result<Expected> {
    println!("\nThrough calls");
    let before = fs.statfs();
    for number in 0..20 {
        let dir = format!("/tree/{number:02}");
        fs.create_dir_all(&*dir)?;
        for file in 0..50 {
            fs.write(
                &*format!("{dir}/file-{file}"),
                format!("{number}.{file}\n").repeat(file + 1),
            )?;
        }
    }
    fs.hard_link("/tree/00/file-0", "/tree/again")?;
    fs.symlink("00/file-1", "/tree/symbolic")?;
    fs.rename("/tree/19", "/moved")?;
    fs.remove_dir_all("/tree/18")?;
    let after = fs.statfs();
    let inodes = before.inodes_free - after.inodes_free;
    let blocks = before.blocks_free - after.blocks_free;
    say(
        "tree",
        &format!(
            "1000 files in 20 directories, one moved, one removed: {inodes} inodes, {blocks} blocks"
        ),
    );

    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    fs.write("/large", &bytes)?;
    ensure!(fs.read("/large")? == bytes, "/large reads back differently");
    say(
        "large file",
        &format!("{} bytes written and read back", bytes.len()),
    );
    Ok(Expected {
        path: "large",
        bytes,
    })
}

/// A sparse file, by stores alone: each block is taken by the page fault of its first store.
fn write_mapped(fs: &FileSystem, mmu: &HostMmu) -> Result<Expected> {
    println!("\nThrough memory");
    let pages = 16_384;
    let file = open(fs, "/mapped", (pages * PAGE) as u64)?;
    let view = file.map(mmu, 0..(pages * PAGE) as u64, Access::ReadWrite)?;
    let (before, counts) = (fs.statfs().blocks_free, mmu.stats());
    let mut bytes = vec![0; pages * PAGE];
    for step in 0..2000_usize {
        let at = step * 4099 % pages * PAGE + step % 512 * 8;
        let word = 0x0064_656d_6f00_0000 + step as u64;
        view.store(at, word)
            .with_context(|| format!("store at {at}"))?;
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    let mut seen = vec![0; pages * PAGE];
    view.read(0, &mut seen)?;
    ensure!(seen == bytes, "the view does not show what was stored");
    file.read_exact_at(&mut seen, 0)?;
    ensure!(seen == bytes, "read(2) does not see what was stored");
    let (blocks, faults) = (
        before - fs.statfs().blocks_free,
        mmu.stats().faults - counts.faults,
    );
    say(
        "sparse file",
        &format!(
            "{} MiB, 2000 stores: {blocks} blocks taken in {faults} page faults",
            bytes.len() >> 20
        ),
    );
    say(
        "coherence",
        "the view, read(2) and the stores agree byte for byte",
    );

    file.set_len((pages / 2 * PAGE) as u64)?;
    ensure!(
        view.load(pages / 2 * PAGE).is_err(),
        "a load behind the new end succeeded"
    );
    bytes.truncate(pages / 2 * PAGE);
    say(
        "truncated",
        "a load behind the new end is SIGBUS, one before it is not",
    );
    drop(view);
    Ok(Expected {
        path: "mapped",
        bytes,
    })
}

fn open(fs: &FileSystem, path: &str, len: u64) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .open(fs, path)?;
    file.set_len(len)?;
    Ok(file)
}
