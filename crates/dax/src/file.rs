//! The file: block map, medium and address space together.

use core::ops::Range;

use alloc::sync::Arc;

use ext2dax_format::Error;
use ext2dax_pmem::{Persist, Pmem};
use ext2dax_sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ext2dax_sync::{Mutex, rank};

use crate::blockmap::{BlockMap, Extent};
use crate::entry::{LEAF, MAX_UNITS};
use crate::gates::Gates;
use crate::pins::Pins;
use crate::space::AddressSpace;
use crate::view::{LastView, View, ViewSpec};
use crate::{PAGE_BITS, PAGE_SIZE};

/// Leaves that `attach` makes at once: entries for 2 GiB of pages in 4 MiB of memory. Later ones are made on demand.
const LEAVES_AT_ATTACH: u64 = 1024;

/// One file as memory.
pub struct DaxFile<M: BlockMap> {
    pub(crate) map: M,
    pub(crate) pmem: Pmem,
    pub(crate) gates: Arc<Gates>,
    pub(crate) space: AddressSpace,
    pub(crate) pins: Pins<M::Detached>,
    pub(crate) block_bits: u32,
    size: AtomicU64,
    /// Whether bytes past the end may have been stored to through a view or a pin since they were last zeroed.
    pub(crate) tail_exposed: AtomicBool,
    /// Bytes that read and write copied but a page cache below may still lose: one interval, for `sync`.
    pub(crate) unsynced: Mutex<Range<u64>>,
    fault_blocks: AtomicU64,
}

impl<M: BlockMap> DaxFile<M> {
    /// The file behind `map`, `size` bytes long. Nothing is read from the medium.
    #[must_use]
    pub fn new(map: M, pmem: Pmem, gates: Arc<Gates>, size: u64) -> DaxFile<M> {
        let block_bits = map.block_bits();
        DaxFile {
            space: AddressSpace::new(block_bits),
            pins: Pins::new(),
            block_bits,
            map,
            pmem,
            gates,
            size: AtomicU64::new(size),
            tail_exposed: AtomicBool::new(false),
            unsynced: Mutex::new(rank::SUPER, 0..0),
            fault_blocks: AtomicU64::new(0),
        }
    }

    /// The block map.
    #[must_use]
    pub fn map(&self) -> &M {
        &self.map
    }

    /// The medium.
    #[must_use]
    pub fn pmem(&self) -> &Pmem {
        &self.pmem
    }

    /// The gates of the file system.
    #[must_use]
    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    /// Entries and views.
    #[must_use]
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// Bytes, as of now. Stable while INODE is held, and cannot shrink while INVALIDATE is held shared.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Bytes that the file may have at most.
    #[must_use]
    pub fn max_size(&self) -> u64 {
        self.map.max_size()
    }

    /// The size without a schedule point, for oracles of the explorer.
    #[cfg(shuttle)]
    #[must_use]
    pub fn observe_size(&self) -> u64 {
        ext2dax_sync::explore::peek(&self.size)
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// Whether `sync` has something to do, so that the file must not be forgotten yet. Waits for no lock, since caches ask
    /// that hold leaves: a file that somebody is at counts as dirty.
    #[must_use]
    pub fn has_dirty(&self) -> bool {
        let unsynced = self.unsynced.try_lock();
        let mut dirty = unsynced.is_none_or(|unsynced| !unsynced.is_empty());
        self.space
            .each_present(0..MAX_UNITS, |_, word| dirty |= word.dirty() != 0);
        dirty
    }

    /// Whether some view is attached.
    #[must_use]
    pub fn has_views(&self) -> bool {
        self.space.view_count() > 0
    }

    /// Blocks that page faults have attached to holes since the file was opened: a count for logs and demonstrations.
    #[must_use]
    pub fn blocks_filled_by_faults(&self) -> u64 {
        self.fault_blocks.load(Ordering::Relaxed)
    }

    /// Counts blocks that a fault has just attached.
    pub fn note_filled_by_fault(&self, blocks: u64) {
        self.fault_blocks.fetch_add(blocks, Ordering::Relaxed);
    }

    /// Attaches a mapping. From the return on faults may be handled for it.
    ///
    /// # Locking
    /// Takes INVALIDATE; the caller holds nothing of that rank.
    ///
    /// # Errors
    /// `NotSupported`: blocks smaller than the page, or MAP_SYNC on a medium that loses stores in a page cache.
    /// `InvalidArgument`: an empty range. `FileTooLarge`: a range past what any file can have.
    pub fn attach(&self, spec: ViewSpec) -> Result<Arc<View>, Error> {
        if self.block_bits < PAGE_BITS || (spec.sync && self.pmem.persist() == Persist::PageCache) {
            return Err(Error::NotSupported);
        }
        if spec.pages.is_empty() {
            return Err(Error::InvalidArgument);
        }
        if self.space.unit_of(spec.pages.end) >= MAX_UNITS {
            return Err(Error::FileTooLarge);
        }
        let inside = spec.pages.end.min(self.size().div_ceil(PAGE_SIZE));
        let first = self.space.unit_of(spec.pages.start);
        self.space
            .ensure(first..(self.space.unit_of(inside) + 1).min(first + LEAVES_AT_ATTACH * LEAF));
        let view = Arc::new(View::new(spec));
        let _invalidate = self.space.invalidate_exclusive();
        if view.may_write() {
            self.tail_exposed.store(true, Ordering::Release);
        }
        self.space.add_view(view.clone());
        view.table().resized(self.size());
        Ok(view)
    }

    /// Detaches a mapping: after the return none of its translations is left, none is ever made again, and its page table
    /// is not called any more. Dirty marks stay for `sync`.
    ///
    /// # Locking
    /// Takes INVALIDATE; the caller holds nothing of that rank.
    pub fn detach(&self, view: &View) -> LastView {
        let _invalidate = self.space.invalidate_exclusive();
        view.die();
        let others = self.space.remove_view(view);
        view.table().unmap(view.pages().clone(), true);
        if view.may_write() && !others && self.size() & self.block_mask() != 0 {
            LastView::ZeroTail
        } else {
            LastView::Others
        }
    }

    /// Takes translations away to save table space; always allowed. Private pages of private views stay.
    ///
    /// # Locking
    /// Takes INVALIDATE; the caller holds nothing of that rank.
    pub fn evict(&self, pages: Range<u64>) {
        let _invalidate = self.space.invalidate_exclusive();
        self.evict_locked(pages);
    }

    /// The same if no lock is in the way.
    pub fn try_evict(&self, pages: Range<u64>) -> bool {
        let Some(_invalidate) = self.space.try_invalidate_exclusive() else {
            return false;
        };
        self.evict_locked(pages);
        true
    }

    fn evict_locked(&self, pages: Range<u64>) {
        // Entries stay as they are: a dirty one without translation is a superset, a zero one just has no view.
        self.space.unmap(pages, false);
    }

    /// Zeroes and persists the bytes from the end of the file to the end of its block, where other implementations expect
    /// zeroes and a mapping may have stored something else.
    ///
    /// # Locking
    /// The caller holds GATE_WRITE and INODE exclusively, or has drained the WRITE gate. Takes INVALIDATE.
    ///
    /// # Errors
    /// `Corrupt` or `Io` from the block map.
    pub fn zero_tail(&self) -> Result<(), Error> {
        let _invalidate = self.space.invalidate_exclusive();
        if !self.tail_exposed.load(Ordering::Acquire) {
            return Ok(());
        }
        let size = self.size();
        if size & self.block_mask() != 0 {
            let unit = size >> self.space.unit_bits();
            self.space.unmap(self.space.pages_of(unit..unit + 1), false);
            self.zero_media(size..self.block_end(size))?;
            self.pmem.fence();
        }
        if !self.space.any_writer() {
            self.tail_exposed.store(false, Ordering::Release);
        }
        Ok(())
    }

    pub(crate) fn block_mask(&self) -> u64 {
        (1 << self.block_bits) - 1
    }

    /// The first byte at or after `at` that begins a block.
    pub(crate) fn block_end(&self, at: u64) -> u64 {
        at.saturating_add(self.block_mask()) & !self.block_mask()
    }

    /// Zeroes what the medium has of these bytes of the file and flushes it; the caller fences.
    pub(crate) fn zero_media(&self, bytes: Range<u64>) -> Result<(), Error> {
        let mut at = bytes.start;
        while at < bytes.end {
            let within = at & self.block_mask();
            let blocks = (within + (bytes.end - at)).div_ceil(1 << self.block_bits);
            let extent = self.map.lookup(at >> self.block_bits, blocks)?;
            let len = ((extent.len() << self.block_bits) - within).min(bytes.end - at);
            if let Extent::Data { off, .. } = extent {
                self.pmem.zero_flushed(off + within, len);
            }
            at += len;
        }
        Ok(())
    }

    /// Notes bytes of the file that the medium's page cache may lose.
    pub(crate) fn note_unsynced(&self, bytes: Range<u64>) {
        if self.pmem.persist() == Persist::PageCache && !bytes.is_empty() {
            let mut unsynced = self.unsynced.lock();
            *unsynced = if unsynced.is_empty() {
                bytes
            } else {
                unsynced.start.min(bytes.start)..unsynced.end.max(bytes.end)
            };
        }
    }
}

impl<M: BlockMap> core::fmt::Debug for DaxFile<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DaxFile")
            .field("size", &self.size())
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}
