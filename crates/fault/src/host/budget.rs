//! The kernel's limit on mappings, and how to stay below it.
//!
//! At the limit every `mmap` and `mremap` fails: the program's `malloc`, and the one that a revocation needs. So views
//! take half of it at most (cold windows are evicted), and a ballast is kept for when the program took the rest.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};

use super::sys::{self, Reservation, Rights};
use super::{Core, Mapped};

/// Mappings that the ballast is made of.
const BALLAST: usize = 64;

/// The budget of one MMU.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    ballast: Reservation,
    there: AtomicBool,
    /// Mappings of all views, counted from above; drifts, and is put right by [`Core::keep_budget`].
    used: AtomicIsize,
    /// Where the search for cold windows goes on: views and windows are visited in turn, since the kernel's accessed
    /// bits cannot be seen from here.
    hand: AtomicUsize,
}

impl Budget {
    /// At most `limit` mappings; by default half of what the kernel allows the process.
    pub(super) fn new(limit: Option<usize>) -> io::Result<Budget> {
        let limit = limit.unwrap_or(sys::max_map_count() / 2).max(2);
        let ballast = Reservation::new(BALLAST * sys::page_size(), 0)?;
        let budget = Budget {
            limit,
            ballast,
            there: AtomicBool::new(false),
            used: AtomicIsize::new(0),
            hand: AtomicUsize::new(0),
        };
        budget.load_ballast();
        Ok(budget)
    }

    /// Counts mappings made, or given up if negative.
    pub(super) fn count(&self, mappings: isize) {
        self.used.fetch_add(mappings, Ordering::Relaxed);
    }

    fn is_exceeded(&self) -> bool {
        usize::try_from(self.used.load(Ordering::Relaxed)).is_ok_and(|used| used > self.limit)
    }

    /// Pages of alternating rights, which the kernel cannot merge: each is a mapping.
    fn load_ballast(&self) {
        let page = sys::page_size();
        let loaded = (0..BALLAST).step_by(2).all(|at| {
            sys::protect(self.ballast.span().part(at * page, page), Rights::Read).is_ok()
        });
        self.there.store(loaded, Ordering::Release);
    }

    /// Gives the mappings of the ballast back, if they are there. Uses neither heap nor locks.
    fn drop_ballast(&self) -> bool {
        self.there.swap(false, Ordering::AcqRel)
            && sys::protect(self.ballast.span(), Rights::None).is_ok()
    }
}

fn is_out_of_mappings(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOMEM.raw_os_error())
}

impl Core {
    /// Runs `call` again without the ballast if there was no mapping left for it.
    pub(super) fn retry_with_ballast<T>(&self, call: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match call() {
            Err(error) if is_out_of_mappings(&error) && self.budget.drop_ballast() => {
                super::stats::bump(&self.stats.ballast);
                sys::poke(&self.resolver_poke);
                call()
            }
            result => result,
        }
    }

    /// The same for a translation, which may be refused.
    pub(super) fn with_ballast<T>(
        &self,
        call: impl Fn() -> io::Result<T>,
    ) -> Result<T, ext2dax_dax::MapError> {
        self.retry_with_ballast(call)
            .map_err(|_| ext2dax_dax::MapError::NoMemory)
    }

    /// Whether the views take more mappings than they may, by the running figure, or the ballast is gone.
    pub(super) fn over_budget(&self) -> bool {
        self.budget.is_exceeded() || !self.budget.there.load(Ordering::Acquire)
    }

    /// Brings the views below the budget and makes the ballast again. Waits for nobody and uses no heap: what is busy
    /// is left for the next time.
    pub(super) fn keep_budget(&self) {
        // The running figure can drift; act on an exact one.
        let (mut total, mut count) = (0, 0);
        self.each_view(|view| {
            total += view.table.record().recount();
            count += windows(view, self.page).count();
        });
        if total > self.budget.limit {
            let goal = self.budget.limit - self.budget.limit / 8;
            // Twice around, beginning where the last search ended.
            let start = self.budget.hand.load(Ordering::Relaxed) % count.max(1);
            for turn in 0..2 {
                let mut at = 0;
                self.each_view(|view| {
                    for window in windows(view, self.page) {
                        if total > goal && (turn == 1 || at >= start) {
                            total -= self.evict(view, window).min(total);
                            self.budget.hand.store(at + 1, Ordering::Relaxed);
                        }
                        at += 1;
                    }
                });
            }
        }
        self.budget.used.store(
            isize::try_from(total).unwrap_or(isize::MAX),
            Ordering::Relaxed,
        );
        if !self.budget.there.load(Ordering::Acquire) {
            self.budget.load_ballast();
        }
    }

    /// The views of this MMU; those that get signals are listed together with those of others.
    fn each_view(&self, mut each: impl FnMut(&Mapped)) {
        self.registry().visit(|view| {
            if std::ptr::eq(&*view.core, self) {
                each(view);
            }
        });
    }

    /// Evicts a window that is worth it; the number of mappings that went.
    fn evict(&self, view: &Mapped, window: Range<u64>) -> usize {
        let record = view.table.record();
        let pages = view.table.clip(window.clone());
        let before = record.count(pages.clone());
        if before < 4 || !view.server.try_evict(window) {
            return 0;
        }
        super::stats::bump(&self.stats.evictions);
        before.saturating_sub(record.count(pages))
    }
}

/// The windows of 2 MiB that a view is made of, in pages of its file.
fn windows(view: &Mapped, page: usize) -> impl Iterator<Item = Range<u64>> {
    let step = (sys::HUGE / page) as u64;
    let inside = view.table.inside();
    (inside.start / step..inside.end.div_ceil(step)).map(move |at| at * step..(at + 1) * step)
}
