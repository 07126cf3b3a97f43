//! Pins: addresses in the medium handed out beside any view, and the quarantine for blocks that lose their file meanwhile.
//!
//! A pin holds up nothing but freezing and unmounting. Truncation and punching go on: a detached block that is pinned keeps
//! its bit in the bitmap until the last pin drops, as a page that a kernel has pinned for a device outlives its mapping.
//! Waiting for the pin instead would deadlock with a thread that punches what it has pinned itself.

use core::ops::Range;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ext2dax_format::Error;
use ext2dax_pmem::{UserSlice, UserSliceMut};
use ext2dax_sync::atomic::{AtomicUsize, Ordering};
use ext2dax_sync::{GatePass, Mutex, mutant, rank};

use crate::PAGE_BITS;
use crate::blockmap::{BlockMap, Extent};
use crate::entry::Kind;
use crate::file::DaxFile;
use crate::read::usize_of;

/// What a pin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinMode {
    /// Loads only.
    Read,
    /// Loads and stores: the pages count as dirty until the pin has gone and `sync` has run.
    Write,
}

/// A piece of the medium that a pin holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Byte offset in the region.
    pub off: u64,
    /// In bytes.
    pub len: u64,
}

#[derive(Clone, Copy, Default)]
struct Count {
    all: u32,
    write: u32,
}

struct Table<D> {
    /// By block number in the region.
    counts: BTreeMap<u64, Count>,
    quarantine: Vec<D>,
}

/// The pins of one file. All pins of a block belong to the file that owned it when they were taken, so no other file
/// has to be asked.
pub(crate) struct Pins<D> {
    /// Blocks pinned now, to keep the table's lock off the paths of files without pins.
    pinned: AtomicUsize,
    table: Mutex<Table<D>>,
}

impl<D> Pins<D> {
    pub(crate) fn new() -> Pins<D> {
        let table = Table {
            counts: BTreeMap::new(),
            quarantine: Vec::new(),
        };
        Pins {
            pinned: AtomicUsize::new(0),
            table: Mutex::new(rank::SUPER, table),
        }
    }

    /// Whether somebody may be storing to the block beside the views.
    pub(crate) fn is_written(&self, block: u64) -> bool {
        self.pinned.load(Ordering::Acquire) > 0
            && self
                .table
                .lock()
                .counts
                .get(&block)
                .is_some_and(|count| count.write > 0)
    }

    fn add(&self, block: u64, mode: PinMode) {
        let mut table = self.table.lock();
        let count = table.counts.entry(block).or_insert_with(|| {
            self.pinned.fetch_add(1, Ordering::AcqRel);
            Count::default()
        });
        count.all += 1;
        count.write += u32::from(mode == PinMode::Write);
    }

    pub(crate) fn wait_for_none(&self) {
        while self.pinned.load(Ordering::Acquire) > 0 {
            ext2dax_sync::relax();
        }
    }
}

impl<M: BlockMap> DaxFile<M> {
    /// T8: frees detached blocks, or keeps them as long as some pin reaches one of them.
    ///
    /// The caller holds INVALIDATE exclusively or the entries of the blocks, so that no pin is added meanwhile.
    pub(crate) fn release(&self, detached: M::Detached) {
        if self.pins.pinned.load(Ordering::Acquire) > 0 && !mutant("free ignores pins") {
            let mut table = self.pins.table.lock();
            if self.is_pinned(&table, &detached) {
                table.quarantine.push(detached);
                return;
            }
        }
        self.map.free(detached);
    }

    fn is_pinned(&self, table: &Table<M::Detached>, detached: &M::Detached) -> bool {
        let mut pinned = false;
        self.map.runs(detached, &mut |off, len| {
            let first = off >> self.block_bits;
            pinned |= table.counts.range(first..first + len).next().is_some();
        });
        pinned
    }

    /// Pins the blocks of a range of bytes inside the file; holes get blocks first. After waiting for a thaw if need be.
    ///
    /// # Locking
    /// The caller holds nothing, and no other pin (see [`DaxFile::try_pin`]). Takes GATE_PIN, INVALIDATE, ENTRY.
    ///
    /// # Errors
    /// `NotSupported`: blocks smaller than the page. `InvalidArgument`: empty, or not inside the file. `NoSpace`,
    /// `Corrupt`, `Io`, `ReadOnlyFs`: nothing is pinned.
    pub fn pin(&self, bytes: Range<u64>, mode: PinMode) -> Result<PinGuard<'_, M>, Error> {
        let gate = if mutant("pins share the FAULT gate") {
            &self.gates.fault
        } else {
            &self.gates.pin
        };
        let pass = (!mutant("pins ignore freeze")).then(|| gate.enter().into_pass());
        self.pin_inside(pass, bytes, mode)
    }

    /// The same for a thread that holds a pin already: a freeze in progress waits for that one, so this one must not wait
    /// for the freeze.
    ///
    /// # Errors
    /// `Busy`: the file system is frozen or about to be. Others as [`DaxFile::pin`].
    pub fn try_pin(&self, bytes: Range<u64>, mode: PinMode) -> Result<PinGuard<'_, M>, Error> {
        let pass = self.gates.pin.try_enter().ok_or(Error::Busy)?.into_pass();
        self.pin_inside(Some(pass), bytes, mode)
    }

    fn pin_inside<'a>(
        &'a self,
        pass: Option<GatePass<'a>>,
        bytes: Range<u64>,
        mode: PinMode,
    ) -> Result<PinGuard<'a, M>, Error> {
        if self.block_bits < PAGE_BITS {
            return Err(Error::NotSupported);
        }
        if mode == PinMode::Write {
            self.map.writable()?;
        }
        let units = bytes.start >> self.block_bits..self.block_end(bytes.end) >> self.block_bits;
        if bytes.is_empty() || bytes.end > self.size() {
            return Err(Error::InvalidArgument);
        }
        self.space.ensure(units.clone());
        let mut guard = PinGuard {
            file: self,
            mode,
            blocks: Vec::new(),
            segments: Vec::new(),
            _pass: pass,
        };
        // A3. The size is looked at again: until here a shrink could have come between.
        let _invalidate = self.space.invalidate_shared();
        if bytes.end > self.size() {
            return Err(Error::InvalidArgument);
        }
        if mode == PinMode::Write {
            self.tail_exposed.store(true, Ordering::Release);
            self.map.touch();
        }
        for unit in units {
            let off = self.pin_unit(unit, mode)?;
            guard.blocks.push(off >> self.block_bits);
            let start = bytes.start.max(unit << self.block_bits);
            let end = bytes.end.min((unit + 1) << self.block_bits);
            guard.add_segment(off + (start & self.block_mask()), end - start);
        }
        Ok(guard)
    }

    /// A4. The offset of the unit's block in the region.
    fn pin_unit(&self, unit: u64, mode: PinMode) -> Result<u64, Error> {
        let mut entry = self.space.lock(unit).map_err(|_| Error::NoMemory)?;
        let was_zero = entry.kind() == Kind::Zero;
        let off = match self.map.lookup(unit, 1)? {
            Extent::Data { off, .. } => off,
            Extent::Hole { .. } => self.map.allocate(unit, 1)?.off,
        };
        if was_zero {
            self.space
                .break_zero(&self.space.pages_of(unit..unit + 1), None);
        }
        let dirty = if mode == PinMode::Write { u16::MAX } else { 0 };
        entry.set_block(off >> self.block_bits, dirty);
        // Counted before the entry is unlocked: sync, which samples under the entry, sees either the pin or no mark of it.
        self.pins.add(off >> self.block_bits, mode);
        Ok(off)
    }

    fn unpin(&self, blocks: &[u64], mode: PinMode) {
        let mut ready = Vec::new();
        {
            let mut table = self.pins.table.lock();
            for block in blocks {
                let Some(count) = table.counts.get_mut(block) else {
                    continue;
                };
                count.all -= 1;
                count.write -= u32::from(mode == PinMode::Write);
                if count.all == 0 {
                    table.counts.remove(block);
                    self.pins.pinned.fetch_sub(1, Ordering::AcqRel);
                }
            }
            let waiting = core::mem::take(&mut table.quarantine);
            for detached in waiting {
                if self.is_pinned(&table, &detached) {
                    table.quarantine.push(detached);
                } else {
                    ready.push(detached);
                }
            }
        }
        // Freeing takes locks that rank below the table's.
        for detached in ready {
            self.map.free(detached);
        }
    }

    /// How many detached runs of blocks wait for pins to drop.
    #[must_use]
    pub fn quarantined(&self) -> usize {
        self.pins.table.lock().quarantine.len()
    }

    /// Whether the block at this offset of the region is pinned.
    #[must_use]
    pub fn is_pinned_at(&self, off: u64) -> bool {
        self.pins
            .table
            .lock()
            .counts
            .contains_key(&(off >> self.block_bits))
    }
}

/// Addresses of a file's bytes in the medium, good until it is dropped, whatever happens to the file.
///
/// After a truncation or a punch it goes on addressing the detached blocks. Neither reading nor writing through it sees
/// the page tables, so it works while nothing is mapped.
#[must_use = "the pin is gone when this is dropped"]
pub struct PinGuard<'a, M: BlockMap> {
    file: &'a DaxFile<M>,
    mode: PinMode,
    blocks: Vec<u64>,
    segments: Vec<Segment>,
    _pass: Option<GatePass<'a>>,
}

impl<M: BlockMap> PinGuard<'_, M> {
    /// Where the bytes are, in order; neighbours are merged.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Copies pinned bytes, from `at` bytes after the beginning of the pin on. Returns how many.
    pub fn read(&self, at: u64, to: &mut [u8]) -> usize {
        let mut to = UserSliceMut::from(to);
        let mut done = 0;
        for part in self.parts(at, to.len() as u64) {
            let (now, later) = to.split_at(usize_of(part.len));
            done += self.file.pmem.copy_out(part.off, now);
            to = later;
        }
        done
    }

    /// Stores to pinned bytes, from `at` bytes after the beginning of the pin on. Returns how many; none for a read pin.
    pub fn write(&self, at: u64, from: &[u8]) -> usize {
        if self.mode == PinMode::Read {
            return 0;
        }
        let mut from = UserSlice::from(from);
        let mut done = 0;
        for part in self.parts(at, from.len() as u64) {
            let (now, later) = from.split_at(usize_of(part.len));
            done += self.file.pmem.copy_in(part.off, now);
            from = later;
        }
        done
    }

    fn parts(&self, at: u64, len: u64) -> impl Iterator<Item = Segment> {
        let mut skip = at;
        let mut left = len;
        self.segments.iter().filter_map(move |segment| {
            let start = skip.min(segment.len);
            let len = left.min(segment.len - start);
            skip -= start;
            left -= len;
            (len > 0).then_some(Segment {
                off: segment.off + start,
                len,
            })
        })
    }

    fn add_segment(&mut self, off: u64, len: u64) {
        match self.segments.last_mut() {
            Some(last) if last.off + last.len == off => last.len += len,
            _ => self.segments.push(Segment { off, len }),
        }
    }
}

impl<M: BlockMap> Drop for PinGuard<'_, M> {
    fn drop(&mut self) {
        self.file.unpin(&self.blocks, self.mode);
    }
}

impl<M: BlockMap> core::fmt::Debug for PinGuard<'_, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PinGuard")
            .field("mode", &self.mode)
            .field("segments", &self.segments)
            .finish()
    }
}
