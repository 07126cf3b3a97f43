//! The translations of one view: pieces of the image, zero windows, and the shadow under them.
//!
//! | From | To | How |
//! |---|---|---|
//! | Missing, Zero, Bus | Block | the piece replaces it in one `mmap` |
//! | Missing | Zero | a staged zero window is moved over it |
//! | Block, Zero, Bus | Missing, inside the size | a staged shadow is moved over it |
//! | any | Missing, past the size | the shadow in place: in the gap SIGBUS is the right answer |
//! | Missing, Zero | Bus | the EOF file replaces it in one `mmap` |
//!
//! In Signals mode every row is one `mmap` in place, since no registration can be lost in between.
//!
//! # Invariants
//! A page's mapping and its record change together, by an owner of the page's ENTRY or of INVALIDATE exclusive. When a
//! revocation returns, the kernel has replaced the range and no CPU reaches the old pages.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ext2dax_dax::{Frame, MapError, PageTable, Prot};

use super::Core;
use super::record::{Page, Record};
use super::stats::bump;
use super::sys::uffd::Watch;
use super::sys::{self, Reservation, Rights, Span, Stage};
use super::{Access, probe};

thread_local! {
    /// Whether this thread reads the messages that a move waits for.
    static ON_FAULT_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as the one that may not move anything.
pub(super) fn become_fault_thread() {
    ON_FAULT_THREAD.set(true);
}

/// One view's address range and what each of its pages maps.
#[derive(Debug)]
pub(super) struct Table {
    core: Arc<Core>,
    place: Reservation,
    record: Record,
    /// Its length is the size of the file inside the view, in whole pages; it never has content. None in Signals mode.
    shadow: Option<OwnedFd>,
    /// The page of the file that the view begins with.
    first: u64,
    /// Pages of the view that lie inside the file's size.
    inside: AtomicUsize,
    rights: Rights,
    /// Set when the view ends: what is revoked then stays without rights.
    closing: AtomicBool,
}

impl Table {
    /// Reserves the addresses of `pages` pages and makes every one of them Missing and past the end.
    pub(super) fn new(
        core: &Arc<Core>,
        first: u64,
        pages: usize,
        access: Access,
    ) -> io::Result<Table> {
        let page = core.page;
        let phase = usize::try_from((first * page as u64) % sys::HUGE as u64).expect("below 2 MiB");
        let place = Reservation::new(pages * page, phase)?;
        let rights = match access {
            Access::Read => Rights::Read,
            Access::ReadWrite => Rights::ReadWrite,
        };
        let shadow = match &core.uffd {
            Some(_) => Some(sys::memory_file("ext2dax-shadow", 0)?),
            None => None,
        };
        let record = Record::new(pages)?;
        let table = Table {
            core: Arc::clone(core),
            place,
            record,
            shadow,
            first,
            inside: AtomicUsize::new(0),
            rights,
            closing: AtomicBool::new(false),
        };
        core.budget.count(1);
        // Nothing can be populated while the shadow is empty, and nobody knows the address yet.
        table.put_past_the_end(0..pages)?;
        Ok(table)
    }

    pub(super) fn span(&self) -> Span {
        self.place.span()
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// The page of the file at address `va`, which lies in this view.
    pub(super) fn idx(&self, va: usize) -> u64 {
        self.first + ((va - self.span().va()) / self.core.page) as u64
    }

    /// What the page `idx` of the file maps in this view; Missing outside it.
    pub(super) fn page(&self, idx: u64) -> Page {
        match self.clip(idx..idx + 1) {
            range if range.is_empty() => Page::Missing,
            range => self.record.get(range.start),
        }
    }

    pub(super) fn is_inside(&self, idx: u64) -> bool {
        idx.checked_sub(self.first)
            .is_some_and(|at| at < self.inside.load(Ordering::Acquire) as u64)
    }

    /// The pages of the file that this view shows and that lie inside the size.
    pub(super) fn inside(&self) -> Range<u64> {
        self.first..self.first + self.inside.load(Ordering::Acquire) as u64
    }

    /// Whether the program may store here.
    pub(super) fn may_store(&self) -> bool {
        self.rights == Rights::ReadWrite
    }

    /// The first run of error pages in `pages` of the file.
    pub(super) fn find_bus(&self, pages: Range<u64>) -> Option<Range<u64>> {
        let run = self
            .record
            .find(self.clip(pages), |page| page == Page::Bus)?;
        Some(self.first + run.start as u64..self.first + run.end as u64)
    }

    /// Pages of the file as pages of the view.
    pub(super) fn clip(&self, pages: Range<u64>) -> Range<usize> {
        let clip = |at: u64| {
            let at = at
                .saturating_sub(self.first)
                .min(self.record.pages() as u64);
            usize::try_from(at).expect("at most the pages of the view")
        };
        clip(pages.start)..clip(pages.end)
    }

    fn span_of(&self, pages: &Range<usize>) -> Span {
        self.span()
            .part(pages.start * self.core.page, pages.len() * self.core.page)
    }

    fn set(&self, pages: Range<usize>, page: impl Fn(usize) -> Page) {
        self.core.budget.count(self.record.set(pages, page));
    }

    fn map_media(
        &self,
        pages: Range<usize>,
        image_page: u64,
        writable: bool,
    ) -> Result<(), MapError> {
        let start = pages.start;
        let page_of = move |at: usize| Page::Block {
            image_page: image_page + (at - start) as u64,
            writable,
        };
        // What is mapped already at either end keeps its page-table entries.
        let mut fresh: Option<Range<usize>> = None;
        for at in pages.clone() {
            let is_there = match (self.record.get(at), page_of(at)) {
                (
                    Page::Block { image_page: is, .. },
                    Page::Block {
                        image_page: wanted, ..
                    },
                ) if is != wanted => {
                    return Err(MapError::Present);
                }
                (Page::Block { writable: is, .. }, _) => is || !writable,
                _ => false,
            };
            if !is_there {
                fresh = Some(fresh.map_or(at, |fresh| fresh.start)..at + 1);
            }
        }
        if let Some(fresh) = fresh {
            let rights = if writable { self.rights } else { Rights::Read };
            let offset = (image_page + (fresh.start - start) as u64) * self.core.page as u64;
            let image = self.core.image.as_fd();
            let place = self.span_of(&fresh);
            self.core
                .with_ballast(|| sys::map_file(place, image, offset, rights, self.core.sharing))?;
            self.set(fresh, page_of);
            bump(&self.core.stats.pieces);
        }
        let span = self.span_of(&pages);
        self.wake(span);
        Ok(())
    }

    /// Zeroes over `pages`, which are inside the size.
    fn map_zero(&self, pages: Range<usize>) -> Result<(), MapError> {
        if pages
            .clone()
            .any(|at| matches!(self.record.get(at), Page::Block { .. }))
        {
            return Err(MapError::Present);
        }
        let span = self.span_of(&pages);
        if pages.clone().any(|at| self.record.get(at) != Page::Zero) {
            match &self.core.uffd {
                None => self
                    .core
                    .with_ballast(|| sys::map_anonymous(span, Rights::Read))?,
                Some(_) if ON_FAULT_THREAD.get() => return Err(MapError::Busy),
                // Nobody can store to a view without the right to; the zeroes need no protection then.
                Some(_) if self.rights == Rights::Read => {
                    self.core
                        .with_ballast(|| sys::map_anonymous(span, Rights::Read))?;
                }
                Some(uffd) => {
                    let style = self.core.zero_window;
                    self.core.with_ballast(|| {
                        probe::zero_stage(uffd, style, span.len())?.move_over(span)
                    })?;
                    bump(&self.core.stats.moves);
                }
            }
            self.set(pages, |_| Page::Zero);
        }
        self.wake(span);
        Ok(())
    }

    /// Takes everything away from `pages`, which are inside the size.
    fn revoke(&self, pages: Range<usize>) -> io::Result<()> {
        let mut from = pages.start;
        while let Some(run) = self
            .record
            .find(from..pages.end, |page| page != Page::Missing)
        {
            let span = self.span_of(&run);
            match (&self.core.uffd, &self.shadow) {
                (Some(uffd), Some(shadow)) => {
                    assert!(!ON_FAULT_THREAD.get(), "the fault thread moves nothing");
                    let offset = (run.start * self.core.page) as u64;
                    self.core.retry_with_ballast(|| {
                        let stage = Stage::file(shadow.as_fd(), offset, span.len())?;
                        uffd.register(stage.span(), Watch::Missing)?;
                        // Rights come last: under mlockall(MCL_FUTURE) a mapping with rights is populated at once.
                        sys::protect(stage.span(), self.rights)?;
                        stage.move_over(span)
                    })?;
                    bump(&self.core.stats.moves);
                }
                _ => self
                    .core
                    .retry_with_ballast(|| sys::map_anonymous(span, Rights::None))?,
            }
            self.set(run.clone(), |_| Page::Missing);
            from = run.end;
        }
        Ok(())
    }

    /// Makes `pages` end of file. What waits there for an answer runs into it.
    fn put_past_the_end(&self, pages: Range<usize>) -> io::Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let span = self.span_of(&pages);
        match (&self.core.uffd, &self.shadow) {
            (Some(uffd), Some(shadow)) => {
                let offset = (pages.start * self.core.page) as u64;
                self.core.retry_with_ballast(|| {
                    sys::map_file(
                        span,
                        shadow.as_fd(),
                        offset,
                        self.rights,
                        sys::Sharing::Plain,
                    )?;
                    uffd.register(span, Watch::Missing)
                })?;
            }
            _ => self.core.retry_with_ballast(|| {
                sys::map_file(
                    span,
                    self.core.eof.as_fd(),
                    0,
                    self.rights,
                    sys::Sharing::Plain,
                )
            })?,
        }
        self.set(pages, |_| Page::Missing);
        self.wake(span);
        Ok(())
    }

    /// The view ends; from now on what is unmapped is never mapped again.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Leaves nothing but the reservation, so that whoever waits in `pages` runs into SIGSEGV.
    fn end(&self, pages: Range<usize>) -> io::Result<()> {
        let span = self.span_of(&pages);
        self.core
            .retry_with_ballast(|| sys::map_anonymous(span, Rights::None))?;
        self.set(pages, |_| Page::Missing);
        // Unmapping wakes nobody.
        self.wake(span);
        Ok(())
    }

    /// A revocation that fails leaves somebody a way to blocks that are about to be freed. There is no safe way on.
    fn must(&self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            super::die(&format!(
                "{what}: {error}: blocks that are still reachable would be freed"
            ));
        }
    }

    fn wake(&self, span: Span) {
        if let Some(uffd) = &self.core.uffd {
            uffd.wake(span.va(), span.len());
        }
    }
}

impl PageTable for Table {
    fn map(&self, idx: u64, frame: Frame, pages: u32, prot: Prot) -> Result<(), MapError> {
        let end = (idx + u64::from(pages)).min(self.inside().end);
        let range = self.clip(idx..end);
        if range.is_empty() {
            return Ok(());
        }
        match frame {
            Frame::Zero => self.map_zero(range),
            Frame::Media(off) => {
                // A run may begin before the view does.
                let skipped = (self.first + range.start as u64 - idx) * self.core.page as u64;
                let at = self.core.image_offset + off + skipped;
                let page = self.core.page as u64;
                debug_assert_eq!(at % page, 0, "pieces lie on pages of the image");
                let writable = prot == Prot::ReadWrite && self.rights == Rights::ReadWrite;
                self.map_media(range, at / page, writable)
            }
        }
    }

    fn map_private(&self, _idx: u64, _source: Frame) -> Result<(), MapError> {
        // `HostMmu::map` makes shared views only, so no copy-on-write fault reaches this table.
        Err(MapError::Busy)
    }

    fn unmap(&self, pages: Range<u64>, _private_too: bool) {
        let range = self.clip(pages);
        if self.closing.load(Ordering::Acquire) {
            return self.must("mmap without rights", self.end(range));
        }
        let inside = self.inside.load(Ordering::Acquire);
        let kept = range.start..range.end.min(inside).max(range.start);
        let gone = range.start.max(inside)..range.end.max(inside);
        if !gone.is_empty() && gone.start < range.end {
            self.must("mmap past the end", self.put_past_the_end(gone));
        }
        self.must("mremap of a shadow", self.revoke(kept));
    }

    fn write_protect(&self, pages: Range<u64>) {
        let range = self.clip(pages);
        let mut from = range.start;
        let writable = |page| matches!(page, Page::Block { writable: true, .. });
        while let Some(run) = self.record.find(from..range.end, writable) {
            from = run.end;
            if self.core.uffd.is_some() {
                // No notice of stores to pieces here: loads and stores wait alike until the pages are mapped again.
                self.must("mremap of a shadow", self.revoke(run));
            } else {
                self.must("mmap for reading", self.make_read_only(run));
            }
        }
    }

    fn resized(&self, size: u64) {
        let page = self.core.page as u64;
        let pages = self
            .clip(self.first..size.div_ceil(page).max(self.first))
            .len();
        let before = self.inside.load(Ordering::Acquire);
        match &self.shadow {
            Some(shadow) => {
                let len = pages as u64 * page;
                self.must(
                    "ftruncate of a shadow",
                    rustix::fs::ftruncate(shadow, len).map_err(io::Error::from),
                );
            }
            // Grown: the pages between may be asked for now. Shrunk: `unmap` follows and puts the end there.
            None if pages > before => {
                let span = self.span_of(&(before..pages));
                self.must(
                    "mmap",
                    self.core
                        .retry_with_ballast(|| sys::map_anonymous(span, Rights::None)),
                );
            }
            None => {}
        }
        self.inside.store(pages, Ordering::Release);
    }

    fn write_notice(&self) -> bool {
        self.core.uffd.is_none()
    }

    fn may_unmap(&self) -> bool {
        !ON_FAULT_THREAD.get()
    }

    fn break_zero(&self, _pages: Range<u64>) {
        // The piece that `map` puts there replaces the zeroes in one step; nobody sees both.
    }

    fn map_bus(&self, idx: u64) {
        let range = self.clip(idx..idx + 1);
        if range.is_empty() || !self.is_inside(idx) {
            return;
        }
        let span = self.span_of(&range);
        let eof = self.core.eof.as_fd();
        let mapped = self
            .core
            .retry_with_ballast(|| sys::map_file(span, eof, 0, self.rights, sys::Sharing::Plain));
        // At the mapping limit the access is tried again until there is room for its error.
        if mapped.is_ok() {
            self.set(range, |_| Page::Bus);
            self.core.note_bus();
        }
        // Not woken yet: whoever asked for the page notes the reason first.
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.core
            .budget
            .count(-isize::try_from(self.record.mappings()).unwrap_or(0));
    }
}

impl Table {
    /// Signals mode: whole pieces are mapped again, for reading.
    fn make_read_only(&self, run: Range<usize>) -> io::Result<()> {
        let mut from = run.start;
        while from < run.end {
            let Page::Block { image_page, .. } = self.record.get(from) else {
                break;
            };
            let continues = |at: &usize| match self.record.get(*at) {
                Page::Block {
                    image_page: other, ..
                } => other == image_page + (*at - from) as u64,
                _ => false,
            };
            let end = (from..run.end)
                .take_while(continues)
                .last()
                .map_or(from + 1, |last| last + 1);
            let (span, image) = (self.span_of(&(from..end)), self.core.image.as_fd());
            let offset = image_page * self.core.page as u64;
            self.core.retry_with_ballast(|| {
                sys::map_file(span, image, offset, Rights::Read, self.core.sharing)
            })?;
            self.set(from..end, |at| Page::Block {
                image_page: image_page + (at - from) as u64,
                writable: false,
            });
            from = end;
        }
        Ok(())
    }
}
