//! A tmpfs with large pages, and the images on it: where an image lies that is to be mapped by entries of 2 MiB.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::SeekFrom;

use crate::tmpfs::Tmpfs;

/// Bytes of a large page.
const PIECE: u64 = 2 << 20;
/// Memory that is left to everybody else.
const RESERVE: u64 = 2 << 30;

/// A tmpfs with large pages, mounted for as long as the value lives.
#[derive(Debug)]
pub struct LargePages {
    tmpfs: Tmpfs,
    /// Removed after it is unmounted.
    _dir: tempfile::TempDir,
}

impl LargePages {
    /// Mounts one.
    ///
    /// # Errors
    /// This takes root, and a kernel with large pages in tmpfs.
    pub fn mount() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("ext2dax-large").tempdir()?;
        let tmpfs = Tmpfs::mount(dir.path(), "huge=within_size,size=90%")?;
        Ok(Self { tmpfs, _dir: dir })
    }

    /// Copies an image to it, holes and all: every large page that holds a byte of data is there whole.
    ///
    /// # Errors
    /// There is not the memory for it, or a call of the system fails.
    pub fn copy(&self, image: &Path) -> Result<PathBuf> {
        let name = image.file_name().context("an image has a name")?;
        let copy = self.tmpfs.dir().join(name);
        copy_in_pieces(image, &copy)?;
        Ok(copy)
    }
}

/// Copies the data of a file to a new one that has its size from the start, since only then its pages are large.
///
/// # Errors
/// There is not the memory for it, or a call of the system fails.
pub fn copy_in_pieces(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from)?;
    let len = source.metadata()?.len();
    let runs = data(&source, len)?;
    let mut pieces: Vec<u64> = runs
        .iter()
        .flat_map(|(start, end)| start / PIECE..end.div_ceil(PIECE))
        .collect();
    pieces.dedup();
    let (needed, there) = (pieces.len() as u64 * PIECE + RESERVE, available()?);
    ensure!(
        needed <= there,
        "{} MiB of memory are needed, {} MiB are there",
        needed >> 20,
        there >> 20
    );
    let mut target = File::create(to)?;
    target.set_len(len)?;
    let mut buffer = vec![0; usize::try_from(PIECE)?];
    for (start, end) in runs {
        source.seek(std::io::SeekFrom::Start(start))?;
        target.seek(std::io::SeekFrom::Start(start))?;
        let mut left = end - start;
        while left != 0 {
            let count = usize::try_from(left.min(PIECE))?;
            let part = buffer.split_at_mut(count).0;
            source.read_exact(part)?;
            target.write_all(part)?;
            left -= count as u64;
        }
    }
    Ok(())
}

/// The runs of data in a file.
fn data(file: &File, len: u64) -> Result<Vec<(u64, u64)>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < len {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => break,
            start => start?,
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        runs.push((start, at));
    }
    Ok(runs)
}

/// Bytes of memory that can be had.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok())
        .context("/proc/meminfo tells what is available")?;
    Ok(kib << 10)
}
