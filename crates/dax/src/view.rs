//! Views: the mappings of ranges of one file.

use core::ops::Range;

use alloc::sync::Arc;

use ext2dax_sync::atomic::{AtomicBool, Ordering};

use crate::pagetable::PageTable;

/// What a view shall be.
#[derive(Clone)]
pub struct ViewSpec {
    /// Its translations.
    pub table: Arc<dyn PageTable>,
    /// Pages of the file that it shows. May reach past the end of the file; pages there answer SIGBUS.
    pub pages: Range<u64>,
    /// Whether stores are allowed.
    pub writable: bool,
    /// Whether stores go to the file; otherwise a store gives the view a page of its own.
    pub shared: bool,
    /// MAP_SYNC: after a write fault only flushes of the program's own are needed for durability.
    pub sync: bool,
}

/// One mapping of a range of a file.
pub struct View {
    spec: ViewSpec,
    /// Cleared under INVALIDATE exclusive, so a fault that holds it shared installs nothing into a dead view.
    alive: AtomicBool,
}

/// Whether the last writable shared view of the file has just gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "bytes past the end of the file stay on the medium until zero_tail"]
pub enum LastView {
    /// Yes: the caller takes GATE_WRITE (if it is closed, the freezer does the work) and INODE, and calls
    /// [`DaxFile::zero_tail`](crate::DaxFile::zero_tail).
    ZeroTail,
    /// No.
    Others,
}

impl View {
    pub(crate) fn new(spec: ViewSpec) -> View {
        View {
            spec,
            alive: AtomicBool::new(true),
        }
    }

    /// Whether both are the same view.
    #[must_use]
    pub fn is(&self, other: &View) -> bool {
        core::ptr::eq(self, other)
    }

    /// Pages of the file that it shows.
    #[must_use]
    pub fn pages(&self) -> &Range<u64> {
        &self.spec.pages
    }

    /// Its translations.
    #[must_use]
    pub fn table(&self) -> &dyn PageTable {
        &*self.spec.table
    }

    /// Whether stores are allowed.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.spec.writable
    }

    /// Whether stores go to the file.
    #[must_use]
    pub fn shared(&self) -> bool {
        self.spec.shared
    }

    /// Whether stores through it can reach the medium.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.spec.writable && self.spec.shared
    }

    /// Whether it is still attached. Stable while INVALIDATE is held.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub(crate) fn die(&self) {
        self.alive.store(false, Ordering::Release);
    }
}

impl core::fmt::Debug for View {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("View")
            .field("pages", &self.spec.pages)
            .finish_non_exhaustive()
    }
}

impl core::fmt::Debug for ViewSpec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ViewSpec")
            .field("pages", &self.pages)
            .field("writable", &self.writable)
            .field("shared", &self.shared)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}
