//! What `dax` asks of a regular file: its blocks, by get_blocks, and its size, by the orders of the crash rules.
//!
//! | step | order |
//! |---|---|
//! | grow | `LARGE_FILE` if it is the first size of 2 GiB | `i_size` |
//! | grow over a multiple of 4 GiB | intent | high half | low half: the size in between is the larger one |
//! | shrink over one | as below, but: intent | low half | high half |
//! | shrink, blocks to detach | orphan list push | `i_size` | pointers | list off |
//! | shrink, nothing to detach | `i_size` |
//! | shrink, attribute block | pointers | `i_size`: a checker that finds a listed live inode drops its attributes |
//!
//! # Locking
//! The caller of [`BlockMap::commit_size`] holds INODE exclusively, so one shrink of a file is under way at most. TREE
//! is taken and released inside each call; the turn at the orphan list is held from push to list off.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;

use ext2dax_dax::{Allocated, BlockMap, Extent, Filled};
use ext2dax_format::slot::{self, Operation};
use ext2dax_format::{CorruptKind, Error, FileBlock, Result, RoCompat, Run};
use ext2dax_getblock::{Detached, Hints, Intent, Mapping};
use ext2dax_sync::{Mutex, rank};
use zerocopy::little_endian::U32;

use super::attr::{high_half, low_half};
use super::{Record, lifetime};
use crate::orphan::Listing;
use crate::slots::Armed;

/// The largest size that needs no `LARGE_FILE`.
const SMALL_FILE_MAX: u64 = 0x7fff_ffff;

/// What a shrink holds between its commit and its end.
#[derive(Default)]
struct Shrink {
    listing: Option<Listing>,
    /// Blocks that had to be detached before the size (files with an attribute block).
    detached: Option<Detached>,
}

/// The blocks of one regular file.
pub(crate) struct TreeMap {
    record: Arc<Record>,
    shrink: Mutex<Shrink>,
}

impl fmt::Debug for TreeMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeMap")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl TreeMap {
    pub(crate) fn new(record: Arc<Record>) -> Self {
        Self {
            record,
            shrink: Mutex::new(rank::TABLE, Shrink::default()),
        }
    }

    /// # Errors
    /// `Corrupt(InodeFileSize)` if `size` is more than block pointers reach.
    pub(crate) fn check_size(record: &Record, size: u64) -> Result<()> {
        let max = record.core().geometry.addressable_size();
        if size > max {
            return Err(CorruptKind::InodeFileSize {
                inode: record.ino().get(),
                size,
                max,
            }
            .into());
        }
        Ok(())
    }

    fn first_block_past(&self, size: u64) -> u64 {
        size.div_ceil(u64::from(self.record.core().geometry.block_size()))
    }

    /// The largest file of this volume: what pointers, `i_blocks` and the revision allow.
    fn limit(&self) -> u64 {
        let core = self.record.core();
        let max = core.geometry.max_file_size();
        let large = core
            .geometry
            .features()
            .ro_compat
            .contains(RoCompat::LARGE_FILE);
        if core.geometry.revision() > 0 || large {
            max
        } else {
            max.min(SMALL_FILE_MAX)
        }
    }

    fn commit_growth(&self, from: u64, to: u64) -> Result<()> {
        let core = self.record.core();
        if to > SMALL_FILE_MAX {
            core.require_large_file()?;
        }
        let armed = self.arm_crossing(from, to);
        if armed.is_some() {
            // PUBLISH: the high half. Before: the old size. After: the old low half in the new multiple of 4 GiB, which
            // is larger than either size if the low half falls, and reads zero from the old end on.
            self.record.update(|| {
                core.pmem
                    .publish(self.record.size_high_at(), U32::new(high_half(to)))
            });
        }
        // PUBLISH: the size. Before: the old end, blocks past it are residue over our own bytes. After: the new end.
        self.record.update(|| {
            core.pmem
                .publish(self.record.size_low_at(), U32::new(low_half(to)))
        });
        if let Some(armed) = armed {
            armed.done(&[self.record.size_mark()]);
        }
        Ok(())
    }

    /// Before a size is published: writes down one whose halves lie in two lines. Durable on return.
    fn arm_crossing(&self, from: u64, to: u64) -> Option<Armed<'_>> {
        let slots = &self.record.core().slots;
        let pmem = self.record.pmem();
        let stale = slots.settle(self.record.size_mark());
        if high_half(from) == high_half(to) {
            if stale {
                // EPOCH: an earlier intent is void.
                pmem.fence();
            }
            return None;
        }
        let ino = self.record.ino().get();
        let intent = slot::Intent {
            subject: ino,
            value: from,
            second: to,
            ..slot::Intent::new(Operation::Resize)
        };
        let armed = slots.arm(&intent);
        // EPOCH: the intent.
        pmem.fence();
        Some(armed)
    }

    fn commit_shrink(&self, from: u64, to: u64) -> Result<()> {
        let core = self.record.core();
        let first = self.first_block_past(to);
        if self.record.file_acl() != 0 {
            let detached = self.detach_from(first)?;
            self.shrink.lock().detached = Some(detached);
        } else if self.record.links() > 0 && self.has_blocks_from(first)? {
            // Without a name it is on the list already, and stays there: a crash frees it whole.
            let listing = core.orphans.begin(self.record.ino())?;
            self.shrink.lock().listing = Some(listing);
        }
        let armed = self.arm_crossing(from, to);
        if armed.is_some() && low_half(to) > low_half(from) {
            self.zero_tail(from)?;
        }
        // PUBLISH: the size, or its low half. Before: the old file; a listed inode whose size did not change loses
        // nothing. After: the new end; the list sees to the blocks past it. Across 4 GiB: a size between the two, or a
        // larger one over zeroes.
        self.record.update(|| {
            core.pmem
                .publish(self.record.size_low_at(), U32::new(low_half(to)))
        });
        if let Some(armed) = armed {
            // PUBLISH: the high half. Before: the size is too large by a multiple of 4 GiB. After: the new end.
            self.record.update(|| {
                core.pmem
                    .publish(self.record.size_high_at(), U32::new(high_half(to)))
            });
            armed.done(&[self.record.size_mark()]);
        }
        Ok(())
    }

    /// Completes a truncation that a crash broke off: what lies past the size goes.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn cut_to_size(&self) -> Result<()> {
        let size = self.record.size();
        Self::check_size(&self.record, size)?;
        self.zero_tail(size)?;
        let detached = self.detach_from(self.first_block_past(size))?;
        self.free(detached);
        Ok(())
    }

    /// Whether blocks lie behind the size.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn has_blocks_past_end(&self) -> Result<bool> {
        self.has_blocks_from(self.first_block_past(self.record.size()))
    }

    fn has_blocks_from(&self, first: u64) -> Result<bool> {
        let Ok(first) = u32::try_from(first) else {
            return Ok(false);
        };
        Ok(self
            .record
            .tree()
            .next_data(FileBlock(first), FileBlock(u32::MAX))?
            .is_some())
    }

    fn detach_from(&self, first: u64) -> Result<Detached> {
        self.detach_range(first..u64::from(u32::MAX))
    }

    fn detach_range(&self, blocks: Range<u64>) -> Result<Detached> {
        let tree = self.record.tree();
        let mut guard = tree.lock();
        tree.detach(&mut guard, file_block(blocks.start), file_block(blocks.end))
    }

    /// Zeroes what lies behind `size` in its block, durably.
    fn zero_tail(&self, size: u64) -> Result<()> {
        let pmem = self.record.pmem();
        let block_size = u64::from(self.record.core().geometry.block_size());
        let within = size % block_size;
        if within == 0 {
            return Ok(());
        }
        if let Extent::Data { off, .. } = self.lookup(size / block_size, 1)? {
            pmem.zero(off + within, block_size - within);
            pmem.flush(off + within, block_size - within);
            pmem.fence();
        }
        Ok(())
    }

    fn hints(&self) -> Hints {
        Hints {
            goal: None,
            privileged: self.record.core().is_privileged(),
        }
    }

    /// A fault has filled part of a hole while bytes for it were written elsewhere: they are copied over what it left.
    /// `bytes` counts from the medium's `from`, which stands for file block `at`.
    fn overlay(&self, at: u64, from: u64, bytes: Range<u64>) -> Result<()> {
        let bits = self.block_bits();
        let pmem = self.record.pmem();
        let mut done = bytes.start;
        while done < bytes.end {
            let block = done >> bits;
            let left = ((bytes.end - 1) >> bits) + 1 - block;
            let run = self.allocate(at + block, left)?;
            let within = done - (block << bits);
            let len = ((run.len << bits) - within).min(bytes.end - done);
            pmem.copy_within(from + done, run.off + within, len);
            pmem.flush(run.off + within, len);
            done += len;
        }
        pmem.fence();
        Ok(())
    }

    fn extent_of(&self, run: Run) -> (u64, u64) {
        (
            self.record.core().geometry.offset(run.start),
            u64::from(run.len),
        )
    }
}

/// Block numbers of files stay below 2^32; a larger bound means "to the end".
fn file_block(block: u64) -> FileBlock {
    FileBlock(u32::try_from(block).unwrap_or(u32::MAX))
}

fn block_count(max: u64) -> u32 {
    u32::try_from(max).unwrap_or(u32::MAX)
}

impl BlockMap for TreeMap {
    type Detached = Detached;

    fn block_bits(&self) -> u32 {
        self.record.core().geometry.block_bits()
    }

    fn max_size(&self) -> u64 {
        self.limit()
    }

    fn lookup(&self, at: u64, max: u64) -> Result<Extent> {
        Ok(
            match self
                .record
                .tree()
                .lookup(file_block(at), block_count(max))?
            {
                Mapping::Hole(len) => Extent::Hole {
                    len: u64::from(len),
                },
                Mapping::Existing(run) | Mapping::New(run) => {
                    let (off, len) = self.extent_of(run);
                    Extent::Data { off, len }
                }
            },
        )
    }

    fn allocate(&self, at: u64, max: u64) -> Result<Allocated> {
        let tree = self.record.tree();
        let mut guard = tree.lock();
        let intent = Intent::Allocate(self.hints());
        let (run, new) =
            match tree.get_blocks(&mut guard, file_block(at), block_count(max), intent)? {
                Mapping::New(run) => (run, true),
                Mapping::Existing(run) => (run, false),
                Mapping::Hole(_) => return Err(Error::NoSpace),
            };
        let (off, len) = self.extent_of(run);
        Ok(Allocated { off, len, new })
    }

    fn fill_hole(
        &self,
        at: u64,
        max: u64,
        fill: &mut dyn FnMut(u64, u64) -> Range<u64>,
    ) -> Result<Option<Filled>> {
        let tree = self.record.tree();
        let prepared = tree.prepare(
            &mut tree.lock(),
            file_block(at),
            block_count(max),
            self.hints(),
        );
        let branch = match prepared {
            Err(Error::AlreadyExists) => return Ok(None),
            branch => branch?,
        };
        let (off, len) = self.extent_of(branch.data());
        let kept = fill(off, len << self.block_bits());
        // In the first line the size, which is stored there later, cannot overtake the pointers.
        let ordered = branch.in_first_line();
        if !kept.is_empty() {
            self.record.pmem().fence();
            let refused = tree.splice_if_vacant(&mut tree.lock(), branch);
            if let Some(_branch) = refused {
                self.overlay(at, off, kept)?;
            }
        }
        Ok(Some(Filled { len, ordered }))
    }

    fn detach(&self, blocks: Range<u64>) -> Result<Detached> {
        if let Some(detached) = self.shrink.lock().detached.take() {
            return Ok(detached);
        }
        self.detach_range(blocks)
    }

    fn runs(&self, detached: &Detached, each: &mut dyn FnMut(u64, u64)) {
        for run in detached.runs() {
            let (off, len) = self.extent_of(run);
            each(off, len);
        }
    }

    fn free(&self, detached: Detached) {
        self.record.core().volume.free(detached);
    }

    fn commit_size(&self, from: u64, to: u64) -> Result<()> {
        if to >= from {
            self.commit_growth(from, to)
        } else {
            self.commit_shrink(from, to)
        }
    }

    fn finish_shrink(&self) -> Result<()> {
        let listing = self.shrink.lock().listing.take();
        if let Some(listing) = listing {
            let core = self.record.core();
            lifetime::free_numbers(core, core.orphans.end(listing));
        }
        Ok(())
    }

    fn touch(&self) {
        self.record.touch_modified();
    }

    fn writable(&self) -> Result<()> {
        self.record.core().writable()
    }

    fn report_corrupt(&self, error: Error) {
        self.record.core().report(error);
    }
}
