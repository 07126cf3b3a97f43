//! What the peers do: a raw copy of mapped pages, pread and pwrite, and the metadata calls of a mounted directory.

use anyhow::Result;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};

/// Bytes of one random access.
pub const PAGE: usize = 4096;

/// A file on tmpfs, mapped whole; its copies are plain memcpy through somebody else's crate.
#[derive(Debug)]
pub struct RawPages {
    region: MmapRegion,
}

impl RawPages {
    /// Maps `len` bytes of `path`, which must have them, for reading and writing.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped.
    pub fn map(path: &Path, len: usize) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(RawPages {
            region: MmapRegion::from_file(FileOffset::new(file, 0), len)?,
        })
    }

    /// Bytes that are mapped.
    pub fn len(&self) -> usize {
        self.region.size()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the bytes at `at` into `to`.
    ///
    /// # Panics
    /// When the range leaves the mapping.
    #[inline]
    pub fn read(&self, at: usize, to: &mut [u8]) {
        self.region
            .as_volatile_slice()
            .read_slice(to, at)
            .expect("offsets of the bench lie inside");
    }

    /// Copies `from` over the bytes at `at`.
    ///
    /// # Panics
    /// When the range leaves the mapping.
    #[inline]
    pub fn write(&self, at: usize, from: &[u8]) {
        self.region
            .as_volatile_slice()
            .write_slice(from, at)
            .expect("offsets of the bench lie inside");
    }

    /// Stores one byte at `at`: the first touch of a page.
    ///
    /// # Panics
    /// When the range leaves the mapping.
    #[inline]
    pub fn touch(&self, at: usize) {
        self.region
            .as_volatile_slice()
            .write_obj(1u8, at)
            .expect("offsets of the bench lie inside");
    }
}

/// A file of `len` bytes without holes at `path`, opened for positional reads and writes.
///
/// # Errors
/// When the file system is full or refuses.
pub fn filled_file(path: &Path, len: u64) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let chunk = vec![0xa5u8; 1 << 20];
    for at in (0..len).step_by(chunk.len()) {
        file.write_all_at(&chunk, at)?;
    }
    Ok(file)
}

/// A directory of a mounted file system, holding files called `name(0)` to `name(count - 1)`.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

/// The name of the bench's `i`-th file.
pub fn name(i: usize) -> String {
    format!("file-{i:07}")
}

impl Directory {
    /// Makes `base/bench` with `count` empty files.
    ///
    /// # Errors
    /// When the file system is full or refuses.
    pub fn filled(base: &Path, count: usize) -> Result<Self> {
        let path = base.join("bench");
        fs::create_dir_all(&path)?;
        let dir = Directory { path };
        for i in 0..count {
            dir.create(&name(i));
        }
        Ok(dir)
    }

    /// Creates an empty file.
    ///
    /// # Panics
    /// When the file system refuses.
    pub fn create(&self, name: &str) {
        File::create_new(self.path.join(name)).expect("the name is new");
    }

    /// Removes a file.
    ///
    /// # Panics
    /// When the file system refuses.
    pub fn unlink(&self, name: &str) {
        fs::remove_file(self.path.join(name)).expect("the file is there");
    }

    /// Renames a file to a new name.
    ///
    /// # Panics
    /// When the file system refuses.
    pub fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path.join(from), self.path.join(to)).expect("the file is there");
    }

    /// The whole path of a name.
    pub fn path(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}
