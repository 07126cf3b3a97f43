//! Mappings of a file for embedders: their page table, our fault handler.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;

use ext2dax_dax::{DaxFile, PageTable, View};
use ext2dax_dax::{LastView, ViewSpec};
use ext2dax_fault::{Fault, Outcome, handle};
use ext2dax_format::{Error, InodeFlags, Result};

use super::{Inode, TreeMap};

/// What part of a file a mapping shows, and what may be done there.
#[derive(Clone, Debug)]
pub struct Window {
    /// Pages of the file. May reach past its end; an access there answers SIGBUS.
    pub pages: Range<u64>,
    /// Whether stores are allowed.
    pub writable: bool,
    /// Whether stores go to the file; otherwise the first store to a page gives the mapping a copy of its own.
    pub shared: bool,
    /// MAP_SYNC: once a write fault has returned, flushing the stored lines makes the store durable.
    pub sync: bool,
}

/// A mapping of a file by a page table of the embedder's. Keeps the file alive, with or without a name; dropping it
/// takes every translation away.
pub struct Map {
    inode: Inode,
    file: Arc<DaxFile<TreeMap>>,
    view: Arc<View>,
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("inode", &self.inode)
            .field("view", &self.view)
            .finish()
    }
}

impl Inode {
    /// Whether the file may be mapped with these rights.
    ///
    /// # Errors
    /// Stores to the file: `ReadOnlyFs`, `NotPermitted` by the immutable or the append-only flag. Otherwise as
    /// [`Inode::read_at`].
    pub(crate) fn check_mappable(&self, writes_file: bool) -> Result<Arc<DaxFile<TreeMap>>> {
        if writes_file {
            self.mount().core.writable()?;
            if self
                .node()
                .flags()
                .intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND)
            {
                return Err(Error::NotPermitted);
            }
        }
        self.contents()
    }

    /// Shows pages of the file through `table`. Nothing is mapped yet: faults do that.
    ///
    /// # Errors
    /// As the writing and reading calls; `NotSupported` for blocks smaller than a page, and for `sync` on a medium that
    /// keeps stores in a page cache; `InvalidArgument` for an empty range.
    pub fn map(&self, table: Arc<dyn PageTable>, window: Window) -> Result<Map> {
        let Window {
            pages,
            writable,
            shared,
            sync,
        } = window;
        let file = self.check_mappable(writable && shared)?;
        let view = file.attach(ViewSpec {
            table,
            pages,
            writable,
            shared,
            sync,
        })?;
        Ok(Map {
            inode: self.clone(),
            file,
            view,
        })
    }

    /// The part of unmapping that needs the file to itself: bytes that were stored past its end become zero again.
    pub(crate) fn unmapped(&self, file: &DaxFile<TreeMap>, last: LastView) {
        if last == LastView::Others {
            return;
        }
        // Behind a closed gate the freezer does this work. A failure leaves bytes that every extension zeroes anyway.
        if let Some(_writing) = self.mount().core.gates.write.try_enter() {
            let _inode = self.node().lock.write();
            let _ = file.zero_tail();
        }
    }
}

impl Map {
    /// Handles a page fault of this mapping: call it with no lock held that the table's own functions take, and run the
    /// instruction again on `Installed` and `Retry`.
    pub fn fault(&self, fault: &Fault) -> Outcome {
        handle(&self.file, &self.view, fault)
    }

    /// The file.
    pub fn inode(&self) -> &Inode {
        &self.inode
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let last = self.file.detach(&self.view);
        self.inode.unmapped(&self.file, last);
    }
}
