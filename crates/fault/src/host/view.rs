//! A view: the address range that a program sees as a file.

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ext2dax_dax::{BlockMap, DaxFile, LastView, View as Attached, ViewSpec};
use ext2dax_format::Error;

use super::stats::bump;
use super::table::Table;
use super::{Access, Core};
use crate::{Bus, Fault, Outcome, handle};

/// Whether whoever asks may wait for a lock of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Allowed,
    Never,
}

/// The pages that the answer to a fault may serve as well.
#[derive(Clone, Debug)]
pub(super) struct Around {
    /// Where there are blocks, or zeroes to be read.
    pub(super) map: Range<u64>,
    /// Where a store fills a hole.
    pub(super) fill: Range<u64>,
}

/// A mapped file as the threads and the handlers need it, whatever its block map is.
pub(super) trait Server: Send + Sync {
    fn fault(&self, idx: u64, write: bool, around: Around, wait: Wait) -> Outcome;
    /// Makes the entry of a page that lies further on than those made with the view. Uses the heap.
    fn make_entry(&self, idx: u64);
    fn try_evict(&self, pages: Range<u64>) -> bool;
    fn detach(&self) -> LastView;
}

struct Served<F> {
    file: F,
    attached: Arc<Attached>,
}

impl<M, F> Server for Served<F>
where
    M: BlockMap,
    F: Deref<Target = DaxFile<M>> + Send + Sync,
{
    fn fault(&self, idx: u64, write: bool, around: Around, wait: Wait) -> Outcome {
        let nowait = wait == Wait::Never;
        let fault = Fault {
            idx,
            write,
            huge: false,
            in_copy: false,
            nowait,
            around: around.map,
            fill: around.fill,
        };
        handle(&*self.file, &self.attached, &fault)
    }

    fn make_entry(&self, idx: u64) {
        let space = self.file.space();
        let unit = space.unit_of(idx);
        if !space.has_leaf(unit) {
            space.ensure(unit..unit + 1);
        }
    }

    fn try_evict(&self, pages: Range<u64>) -> bool {
        self.file.try_evict(pages)
    }

    fn detach(&self) -> LastView {
        self.file.detach(&self.attached)
    }
}

/// A view as it is listed by its addresses.
pub(super) struct Mapped {
    pub(super) core: Arc<Core>,
    pub(super) table: Arc<Table>,
    pub(super) server: Box<dyn Server>,
    /// Threads that found the view by its address and are at work on it.
    pub(super) users: AtomicUsize,
    /// The last fault that failed: page and reason in one word, or none.
    error: AtomicU64,
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped")
            .field("span", &self.table.span())
            .finish_non_exhaustive()
    }
}

const NO_ERROR: u64 = u64::MAX;
const REASONS: [Bus; 8] = [
    Bus::PastEof,
    Bus::NoSpace,
    Bus::Quota,
    Bus::Io,
    Bus::Corrupt,
    Bus::Poison,
    Bus::ReadOnly,
    Bus::Shutdown,
];

impl Mapped {
    pub(super) fn note_error(&self, core: &Core, idx: u64, bus: Bus) {
        bump(if bus == Bus::PastEof {
            &core.stats.past_end
        } else {
            &core.stats.bus
        });
        let reason = REASONS
            .iter()
            .position(|&reason| reason == bus)
            .unwrap_or(0) as u64;
        self.error.store(idx << 3 | reason, Ordering::Relaxed);
    }
}

/// A file as memory: loads and stores of these addresses are loads and stores of the file's blocks.
///
/// The pages come and go with the file: a hole is zeroes until its first store, which takes a block; a page past the end
/// is SIGBUS (`BUS_ADRERR`, the exact address), or EFAULT to a system call; so is a store for which there is no space.
///
/// The program must not `munmap`, `mprotect`, `mremap` or advise any part of the range. A child does not inherit it.
#[derive(Debug)]
pub struct View {
    mapped: Arc<Mapped>,
    len: usize,
    detached: bool,
}

impl View {
    pub(super) fn new<M, F>(
        core: &Arc<Core>,
        file: F,
        range: Range<u64>,
        access: Access,
    ) -> Result<View, Error>
    where
        M: BlockMap + 'static,
        F: Deref<Target = DaxFile<M>> + Send + Sync + 'static,
    {
        let page = core.page as u64;
        if !range.start.is_multiple_of(page) || range.is_empty() {
            return Err(Error::InvalidArgument);
        }
        let (first, pages) = (range.start / page, (range.end - range.start).div_ceil(page));
        let count = usize::try_from(pages).map_err(|_| Error::NoMemory)?;
        let len = usize::try_from(range.end - range.start).map_err(|_| Error::NoMemory)?;
        let table =
            Arc::new(Table::new(core, first, count, access).map_err(|error| refusal(&error))?);
        let attached = file.attach(ViewSpec {
            table: Arc::<Table>::clone(&table),
            pages: first..first + pages,
            writable: access == Access::ReadWrite,
            shared: true,
            sync: false,
        })?;
        let mapped = Arc::new(Mapped {
            core: Arc::clone(core),
            table,
            server: Box::new(Served { file, attached }),
            users: AtomicUsize::new(0),
            error: AtomicU64::new(NO_ERROR),
        });
        core.registry().list(&mapped);
        Ok(View {
            mapped,
            len,
            detached: false,
        })
    }

    /// The first address.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.mapped.table.span().va())
    }

    /// Bytes of the view, whether or not the file is that long.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// A view is never empty; kept beside [`View::len`] for its readers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Maps what `range` (bytes of the view) has blocks for, so that loads, stores and system calls meet no fault there
    /// until something takes the pages away again. Holes stay holes: they read as zeroes, and `write` fills them.
    ///
    /// At most the pages inside the file's size are mapped.
    ///
    /// # Errors
    /// The reason why the first page that failed would have been SIGBUS; those before it are mapped.
    pub fn prefault(&self, range: Range<usize>, write: bool) -> Result<(), Bus> {
        let core = &self.mapped.core;
        let inside = self.mapped.table.inside();
        let first = inside.start + (range.start / core.page) as u64;
        let end = (inside.start + range.end.div_ceil(core.page) as u64).min(inside.end);
        let mut idx = first;
        while idx < end {
            if self.mapped.is_served(idx, write) {
                idx += 1;
                continue;
            }
            let map = core.window(idx).start.max(first)..core.window(idx).end.min(end);
            // Whoever asks for pages beforehand asks for all of them.
            let around = Around {
                fill: map.clone(),
                map,
            };
            match self.mapped.server.fault(idx, write, around, Wait::Allowed) {
                Outcome::Installed => idx += 1,
                Outcome::Bus(Bus::PastEof) => break,
                Outcome::Bus(bus) => return Err(bus),
                Outcome::NoMemory => {
                    core.keep_budget();
                    return Ok(());
                }
                _ => std::thread::yield_now(),
            }
        }
        Ok(())
    }

    /// The page of the file and the reason of the last fault that ended in SIGBUS, other than past the end.
    #[must_use]
    pub fn last_fault_error(&self) -> Option<(u64, Bus)> {
        match self.mapped.error.load(Ordering::Relaxed) {
            NO_ERROR => None,
            word => Some((word >> 3, REASONS[usize::try_from(word & 7).unwrap_or(0)])),
        }
    }

    /// How many mappings of the kernel the view takes, counted from above.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.mapped.table.record().mappings()
    }

    /// Ends the view: every later access of its addresses is SIGSEGV. Says what the file system still has to do.
    pub fn close(mut self) -> LastView {
        self.detach()
    }

    fn detach(&mut self) -> LastView {
        self.detached = true;
        // Off the list first: a fault that comes later finds no view, wakes its thread, and meets unmapped memory.
        self.mapped.core.registry().unlist(&self.mapped);
        self.mapped.table.close();
        self.mapped.server.detach()
    }
}

/// What making a view can fail of: address space, mappings, descriptors.
fn refusal(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::OutOfMemory => Error::NoMemory,
        _ => Error::Io,
    }
}

impl Mapped {
    fn is_served(&self, idx: u64, write: bool) -> bool {
        use super::record::Page;
        match self.table.page(idx) {
            Page::Block { writable, .. } => writable || !write,
            Page::Zero => !write,
            Page::Missing | Page::Bus => false,
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if !self.detached {
            let _ = self.detach();
        }
    }
}
