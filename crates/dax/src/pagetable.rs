//! What the address space asks of the platform: translations made, taken away, and made read-only.

use core::ops::Range;

/// What a translation leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The medium, from this byte offset in the region on; a multiple of the page.
    Media(u64),
    /// The shared page of zeroes, which nobody can store to.
    Zero,
}

/// What a translation allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prot {
    /// Loads. The first store traps.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// Why a translation was not made. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Another frame is mapped there: the access runs again and decides anew.
    Present,
    /// No memory for the tables.
    NoMemory,
    /// This thread may not do it; another one, which may wait, has to.
    Busy,
}

/// The translations of one view. `idx` and ranges count pages of the *file*.
///
/// # Locking
/// Called with INVALIDATE, ENTRY and the list of views held: an implementation must not call back into the library, touch
/// a view, or wait for anybody who waits for the library.
pub trait PageTable: Send + Sync {
    /// Makes `pages` translations from `idx` on, to consecutive frames (or all to the zero page).
    ///
    /// Only from nothing, or from the same frame read-only to writable; a page that already has this frame is left as
    /// permissive as it is. To replace one frame by another would let two CPUs see both. A `pages` of 512 at an aligned
    /// place is an offer to make one entry of 2 MiB.
    ///
    /// # Errors
    /// See [`MapError`]; none of the pages has changed.
    fn map(&self, idx: u64, frame: Frame, pages: u32, prot: Prot) -> Result<(), MapError>;

    /// Gives a private view its own writable page, a copy of `source`, in place of what it showed.
    ///
    /// # Errors
    /// See [`MapError`].
    fn map_private(&self, idx: u64, source: Frame) -> Result<(), MapError>;

    /// Takes translations away. Returns when no CPU can reach the pages: every TLB has acknowledged.
    ///
    /// Pages that a private view has made its own go only if `private_too` is set (truncation, not hole punching).
    fn unmap(&self, pages: Range<u64>, private_too: bool);

    /// Makes translations read-only. Returns when no CPU can store there without a fault.
    fn write_protect(&self, pages: Range<u64>);

    /// The file's size is about to matter: called right before it grows, or right after it fell and before any page is
    /// unmapped for it. Faults wait meanwhile.
    fn resized(&self, _size: u64) {}

    /// Whether a read-only translation can be had, so that the first store is noticed. Where it cannot, a load of a
    /// writable view maps writable, and the page counts as dirty from then on.
    fn write_notice(&self) -> bool {
        true
    }

    /// An access to the page was answered with SIGBUS, for another reason than the end of the file. Any later `map` or
    /// `unmap` of the page ends that state.
    fn map_bus(&self, _idx: u64) {}

    /// Takes the zero page away from pages that get a block in the next call.
    fn break_zero(&self, pages: Range<u64>) {
        self.unmap(pages, false);
    }

    /// Whether the calling thread may unmap here. One that may not leaves the fault to another thread of the platform.
    fn may_unmap(&self) -> bool {
        true
    }
}
