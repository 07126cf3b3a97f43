//! Stability: for as long as a guard lives no byte of a range changes, by whatever route.

use core::ops::Range;

use alloc::vec::Vec;

use ext2dax_format::Error;
use ext2dax_pmem::UserSliceMut;
use ext2dax_sync::mutant;

use crate::PAGE_BITS;
use crate::blockmap::BlockMap;
use crate::entry::Kind;
use crate::file::DaxFile;
use crate::space::EntryGuard;

/// Proof that a range stands still; for checksums and copies.
#[must_use = "the range may change when this is dropped"]
pub struct StableGuard<'a, M: BlockMap> {
    file: &'a DaxFile<M>,
    bytes: Range<u64>,
    _entries: Vec<EntryGuard<'a>>,
}

impl<M: BlockMap> DaxFile<M> {
    /// Stops every store to the range: views fault and wait, pins are refused, writers are kept out by INODE.
    ///
    /// # Locking
    /// The caller holds INODE exclusively until the guard is dropped, and calls nothing but the guard meanwhile. Holds the
    /// entries of the range.
    ///
    /// # Errors
    /// `Busy`: a write pin reaches into the range. Nothing has changed.
    pub fn stable(&self, bytes: Range<u64>) -> Result<StableGuard<'_, M>, Error> {
        let bytes = bytes.start..bytes.end.min(self.size());
        let mut entries: Vec<EntryGuard<'_>> = Vec::new();
        // Smaller blocks have neither views nor pins: INODE alone makes them stable.
        if self.block_bits >= PAGE_BITS && !bytes.is_empty() {
            let bits = self.space.unit_bits();
            let units = bytes.start >> bits..((bytes.end - 1) >> bits) + 1;
            self.space.ensure(units.clone());
            for unit in units.clone() {
                let entry = if entries.is_empty() {
                    self.space.lock(unit)
                } else {
                    self.space.lock_next(unit)
                };
                let entry = entry.map_err(|_| Error::NoMemory)?;
                if matches!(entry.kind(), Kind::Block(block) if self.pins.is_written(block) && !mutant("stable ignores write pins"))
                {
                    return Err(Error::Busy);
                }
                entries.push(entry);
            }
            if !mutant("stable without write-protect") {
                self.space.write_protect(self.space.pages_of(units));
            }
        }
        Ok(StableGuard {
            file: self,
            bytes,
            _entries: entries,
        })
    }
}

impl<M: BlockMap> StableGuard<'_, M> {
    /// The range, cut at the end of the file.
    #[must_use]
    pub fn bytes(&self) -> Range<u64> {
        self.bytes.clone()
    }

    /// Copies stable bytes from `pos` of the file on into memory that is no view. Returns how many, up to the end of the
    /// range.
    ///
    /// # Errors
    /// As [`DaxFile::read_at`].
    pub fn read(&self, pos: u64, to: &mut [u8]) -> Result<usize, Error> {
        let len = self.bytes.end.saturating_sub(pos).min(to.len() as u64);
        if pos < self.bytes.start || len == 0 {
            return Ok(0);
        }
        let to = &mut to[..crate::read::usize_of(len)];
        self.file.read_stable(pos, UserSliceMut::from(to))
    }
}

impl<M: BlockMap> core::fmt::Debug for StableGuard<'_, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StableGuard")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
