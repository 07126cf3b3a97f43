//! Undo files: what stood in every block before a program first changed it, in the form that e2undo(8) reads.
//!
//! # On disk
//! Seen in files written by e2fsprogs 1.47.0 (`e2fsck -z`), and read by its e2undo in our tests. All numbers are
//! little-endian, all checksums CRC-32C. A header of 512 bytes, a copy of the superblock as it is at the end, then key
//! blocks, each followed by the contents that its keys are about: number of the block, checksum, length.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ext2dax_pmem::Pmem;
use hashbrown::HashSet;

/// Unit of the undo file, and of the block numbers in it, whatever the block size of the file system.
const BLOCK: usize = 1024;
const BLOCK_U32: u32 = 1024;
const MAGIC: &[u8; 8] = b"E2UNDO02";
const KEY_MAGIC: u32 = 0xCADE_CADE;
/// Keys in a key block, behind its own 16 bytes.
const KEYS: usize = (BLOCK - 16) / 16;
const FINISHED: u32 = 1;
/// `fs_offset` counts.
const COMPAT_OFFSET: u32 = 1;
const SUPER_AT: u64 = 1024;
/// Where `s_magic` stands in a superblock.
const MAGIC_AT: usize = 56;

/// An open undo file. Clones mean the same file.
#[derive(Clone, Debug)]
pub struct Undo(Arc<Mutex<Log>>);

#[derive(Debug)]
struct Log {
    file: File,
    path: PathBuf,
    offset: u64,
    saved: HashSet<u64>,
    /// The key block in work, without its checksum, and where it stands, in blocks of the undo file.
    keys: Vec<u8>,
    keys_at: u64,
    keys_used: usize,
    next: u64,
    failed: Option<io::Error>,
}

impl Undo {
    /// Makes the undo file of an image that starts `offset` bytes into its file or device.
    ///
    /// # Errors
    /// What the operating system says; that the file is already there, above all: an undo file is not overwritten.
    pub fn create(path: impl AsRef<Path>, offset: u64) -> io::Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let mut log = Log {
            file,
            path: path.to_owned(),
            offset,
            saved: HashSet::new(),
            keys: vec![0; BLOCK],
            keys_at: 2,
            keys_used: 0,
            next: 3,
            failed: None,
        };
        log.write_header(&[0; BLOCK], 0)?;
        log.start_keys();
        Ok(Self(Arc::new(Mutex::new(log))))
    }

    /// Saves what stands in `len` bytes from `at` on, unless it has been saved before. False: it could not, and nothing
    /// may be changed any more.
    #[must_use]
    pub fn save(&self, pmem: &Pmem, at: u64, len: u64) -> bool {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.failed.is_some() {
            return false;
        }
        match log.save(pmem, at, len) {
            Ok(()) => true,
            Err(why) => {
                log.failed = Some(why);
                false
            }
        }
    }

    /// Says that the file is whole: what e2undo wants to see of an image that nobody has changed since.
    pub fn finish(&self, pmem: &Pmem) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.failed.is_none()
            && let Err(why) = log.finish(pmem)
        {
            log.failed = Some(why);
        }
    }

    /// Why the file could not be written, if it could not.
    #[must_use]
    pub fn failure(&self) -> Option<(PathBuf, io::Error)> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = log.path.clone();
        log.failed.take().map(|why| {
            log.failed = Some(io::Error::from(why.kind()));
            (path, why)
        })
    }
}

impl Log {
    fn save(&mut self, pmem: &Pmem, at: u64, len: u64) -> io::Result<()> {
        let unit = u64::from(BLOCK_U32);
        let blocks = at / unit..at.saturating_add(len).div_ceil(unit);
        let mut changed = false;
        for block in blocks {
            let start = block * unit;
            let left = pmem.len().saturating_sub(start).min(unit);
            if left == 0 || !self.saved.insert(block) {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(left).unwrap_or(BLOCK)];
            pmem.read(start, &mut bytes);
            self.append(block, &bytes)?;
            changed = true;
        }
        if changed {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn append(&mut self, block: u64, bytes: &[u8]) -> io::Result<()> {
        if self.keys_used == KEYS {
            (self.keys_at, self.next) = (self.next, self.next + 1);
            self.start_keys();
        }
        self.file.write_all_at(bytes, self.next * BLOCK as u64)?;
        let at = 16 + self.keys_used * 16;
        put(&mut self.keys, at, &block.to_le_bytes());
        put(&mut self.keys, at + 8, &crc32c(bytes).to_le_bytes());
        let len = u32::try_from(bytes.len()).unwrap_or(BLOCK_U32);
        put(&mut self.keys, at + 12, &len.to_le_bytes());
        self.keys_used += 1;
        self.next += 1;
        put(&mut self.keys, 4, &[0; 4]);
        let sum = crc32c(&self.keys);
        put(&mut self.keys, 4, &sum.to_le_bytes());
        self.file
            .write_all_at(&self.keys, self.keys_at * BLOCK as u64)?;
        // The count makes the new key part of the file.
        self.write_header(&[0; BLOCK], 0)
    }

    fn start_keys(&mut self) {
        self.keys.fill(0);
        self.keys_used = 0;
        put(&mut self.keys, 0, &KEY_MAGIC.to_le_bytes());
    }

    fn write_header(&self, superblock: &[u8; BLOCK], state: u32) -> io::Result<()> {
        let mut header = [0_u8; 512];
        put(&mut header, 0, MAGIC);
        put(&mut header, 8, &(self.saved.len() as u64).to_le_bytes());
        put(&mut header, 16, &1_u64.to_le_bytes());
        put(&mut header, 24, &2_u64.to_le_bytes());
        put(&mut header, 32, &BLOCK_U32.to_le_bytes());
        put(&mut header, 36, &BLOCK_U32.to_le_bytes());
        put(&mut header, 40, &crc32c(superblock).to_le_bytes());
        put(&mut header, 44, &state.to_le_bytes());
        if self.offset != 0 {
            put(&mut header, 48, &COMPAT_OFFSET.to_le_bytes());
            put(&mut header, 64, &self.offset.to_le_bytes());
        }
        let sum = crc32c(header.get(..508).unwrap_or_default());
        put(&mut header, 508, &sum.to_le_bytes());
        // With its magic number turned over, so that nobody takes the undo file for a file system.
        let mut copy = *superblock;
        for byte in copy.iter_mut().skip(MAGIC_AT).take(2) {
            *byte = !*byte;
        }
        self.file.write_all_at(&copy, BLOCK as u64)?;
        self.file.write_all_at(&header, 0)
    }

    fn finish(&mut self, pmem: &Pmem) -> io::Result<()> {
        let mut superblock = [0; BLOCK];
        pmem.read(SUPER_AT, &mut superblock);
        self.write_header(&superblock, FINISHED)?;
        self.file.sync_all()
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..at + value.len()) {
        slot.copy_from_slice(value);
    }
}

/// The Castagnoli checksum as e2fsprogs has it: no inversion at the end.
pub fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 != 0 { 0x82F6_3B78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_castagnolis_without_the_last_inversion() {
        assert_eq!(!super::crc32c(b"123456789"), 0xE306_9283);
    }
}
