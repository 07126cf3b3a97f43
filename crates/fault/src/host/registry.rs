//! Views by address, for whoever is handed an address and may neither wait nor use the heap: the fault thread and the
//! signal handlers.
//!
//! # Invariants
//! * A reader announces itself (`readers`), takes the current listing, and counts itself into the view it found
//!   (`users`) before it takes the announcement back.
//! * A listing is freed, and a view is given up, only after `readers` has been seen at zero since the listing was
//!   replaced; a view, only after its `users` have gone as well.
//!
//! # Locking
//! `writing` orders those who list and unlist views. It is taken with no other lock held and never by a reader.

use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Mapped;

struct Listed {
    start: usize,
    end: usize,
    view: Arc<Mapped>,
}

/// The views of one MMU, or of all those that get their faults as signals.
#[derive(Debug)]
pub(super) struct Registry {
    listing: AtomicPtr<Vec<Listed>>,
    readers: AtomicUsize,
    writing: Mutex<()>,
}

impl Registry {
    pub(super) const fn new() -> Registry {
        Registry {
            listing: AtomicPtr::new(ptr::null_mut()),
            readers: AtomicUsize::new(0),
            writing: Mutex::new(()),
        }
    }

    /// The view that covers address `va`, kept alive until the answer is dropped. Safe in a signal handler.
    pub(super) fn find(&self, va: usize) -> Option<InUse> {
        self.readers.fetch_add(1, Ordering::SeqCst);
        let found = self.search(va);
        self.readers.fetch_sub(1, Ordering::SeqCst);
        found
    }

    fn search(&self, va: usize) -> Option<InUse> {
        let listing = self.listing.load(Ordering::SeqCst);
        // SAFETY: null, or a listing that is not freed while `readers` counts us.
        let listing = unsafe { listing.as_ref() }?;
        let at = listing.partition_point(|listed| listed.end <= va);
        let listed = listing.get(at).filter(|listed| listed.start <= va)?;
        listed.view.users.fetch_add(1, Ordering::SeqCst);
        Some(InUse {
            view: ptr::from_ref(&*listed.view),
        })
    }

    /// Lists a view under its addresses.
    pub(super) fn list(&self, view: &Arc<Mapped>) {
        let span = view.table.span();
        let (start, end) = (span.va(), span.va() + span.len());
        self.replace(|listing| {
            let at = listing.partition_point(|listed| listed.start < start);
            listing.insert(
                at,
                Listed {
                    start,
                    end,
                    view: Arc::clone(view),
                },
            );
        });
    }

    /// Takes a view off the list; when it returns nobody who found it there is still at work on it.
    pub(super) fn unlist(&self, view: &Arc<Mapped>) {
        self.replace(|listing| listing.retain(|listed| !Arc::ptr_eq(&listed.view, view)));
        while view.users.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }

    /// Calls `each` for every listed view. It must not list or unlist one. Safe in a signal handler.
    pub(super) fn visit(&self, mut each: impl FnMut(&Mapped)) {
        self.readers.fetch_add(1, Ordering::SeqCst);
        let listing = self.listing.load(Ordering::SeqCst);
        // SAFETY: null, or a listing that is not freed while `readers` counts us.
        for listed in unsafe { listing.as_ref() }.into_iter().flatten() {
            each(&listed.view);
        }
        self.readers.fetch_sub(1, Ordering::SeqCst);
    }

    fn replace(&self, change: impl FnOnce(&mut Vec<Listed>)) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.listing.load(Ordering::SeqCst);
        // SAFETY: null, or the current listing, which only the holder of `writing` replaces.
        let mut listing = unsafe { old.as_ref() }.map_or_else(Vec::new, |old| {
            old.iter()
                .map(|l| Listed {
                    start: l.start,
                    end: l.end,
                    view: Arc::clone(&l.view),
                })
                .collect()
        });
        change(&mut listing);
        self.listing
            .store(Box::into_raw(Box::new(listing)), Ordering::SeqCst);
        while self.readers.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        if !old.is_null() {
            // SAFETY: made by `Box::into_raw` above, no longer reachable, and no reader of it is left.
            drop(unsafe { Box::from_raw(old) });
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let listing = *self.listing.get_mut();
        if !listing.is_null() {
            // SAFETY: made by `Box::into_raw`; `&mut self` means that there is no reader.
            drop(unsafe { Box::from_raw(listing) });
        }
    }
}

/// A view that somebody found by address and that stays until this is dropped.
#[derive(Debug)]
pub(super) struct InUse {
    view: *const Mapped,
}

impl Deref for InUse {
    type Target = Mapped;

    fn deref(&self) -> &Mapped {
        // SAFETY: `users` counts us, so `unlist` has not returned and its caller still holds the view.
        unsafe { &*self.view }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.users.fetch_sub(1, Ordering::SeqCst);
    }
}
