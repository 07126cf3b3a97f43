//! Gates: many may be inside at once, and one can close the gate and wait until all have left.
//!
//! # Invariants
//! While the gate is closed nobody enters; [`Gate::drain`] returns only when nobody is inside. Entering an open gate and
//! leaving it is one atomic operation each.

use core::fmt;

use crate::atomic::{AtomicU64, Ordering};
use crate::backend;
use crate::rank::{Held, Nesting, Rank, Tag};

/// The top bit: closed. The bits below count those inside.
const CLOSED: u64 = 1 << 63;

/// A closable, counted gate with a place in the lock table.
pub struct Gate {
    tag: Tag,
    state: AtomicU64,
    /// Guards nothing but sleep: whoever changes what others wait for takes it before waking them.
    sleep: backend::Mutex<()>,
    wake: backend::Condvar,
}

/// Being inside a gate. Dropping it leaves. Belongs to the thread that entered; see [`GateGuard::into_pass`].
#[must_use = "the gate is left when the guard is dropped"]
pub struct GateGuard<'a> {
    pass: GatePass<'a>,
    held: Held,
}

/// Being inside a gate, for as long as some object lives, on whatever thread; the order check does not see it.
#[must_use = "the gate is left when the pass is dropped"]
pub struct GatePass<'a>(&'a Gate);

impl Gate {
    /// An open gate of `rank`.
    pub const fn new(rank: Rank) -> Self {
        Gate {
            tag: Tag::new(rank, 0),
            state: AtomicU64::new(0),
            sleep: backend::Mutex::new(()),
            wake: backend::Condvar::new(),
        }
    }

    /// Goes in, after waiting for the gate to open.
    ///
    /// # Panics
    /// In debug builds, if the thread is inside already or holds a lock of a higher rank: with the gate closing in
    /// between, that is a deadlock.
    #[track_caller]
    #[inline]
    pub fn enter(&self) -> GateGuard<'_> {
        let held = self.tag.acquire(Nesting::Strict);
        while !self.count_in() {
            self.wait_for_open();
        }
        GateGuard {
            pass: GatePass(self),
            held,
        }
    }

    /// Goes in if the gate is open. Never waits, so any order is allowed.
    #[track_caller]
    #[inline]
    pub fn try_enter(&self) -> Option<GateGuard<'_>> {
        self.count_in().then(|| GateGuard {
            pass: GatePass(self),
            held: self.tag.acquire(Nesting::NoWait),
        })
    }

    /// Closes the gate: from now on nobody enters. Those inside stay; see [`Gate::drain`]. Returns whether it was open.
    pub fn close(&self) -> bool {
        self.state.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED == 0
    }

    /// Waits until nobody is inside. The gate has been closed by the caller, and stays so.
    ///
    /// Gates close in rank order, each drained before the next one closes.
    ///
    /// # Panics
    /// In debug builds, if the thread holds this rank or a higher one: it could be waiting for itself.
    #[track_caller]
    pub fn drain(&self) {
        let _held = self.tag.acquire(Nesting::Strict);
        let mut sleep = self.sleep.lock();
        // Acquire pairs with the release of the last one out: what was done inside is visible after the drain.
        while self.state.load(Ordering::Acquire) & !CLOSED != 0 {
            sleep = self.wake.wait(sleep);
        }
    }

    /// Opens the gate again and lets the waiting in.
    pub fn open(&self) {
        self.state.fetch_and(!CLOSED, Ordering::AcqRel);
        self.wake_all();
    }

    /// Whether the gate is closed at this moment.
    pub fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// How many are inside at this moment.
    pub fn count(&self) -> u64 {
        self.state.load(Ordering::Acquire) & !CLOSED
    }

    #[inline]
    fn count_in(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & CLOSED == 0 {
            match self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    #[cold]
    fn wait_for_open(&self) {
        let mut sleep = self.sleep.lock();
        while self.is_closed() {
            sleep = self.wake.wait(sleep);
        }
    }

    #[inline]
    fn count_out(&self) {
        // Only the last one out of a closed gate has somebody to wake.
        if self.state.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            self.wake_all();
        }
    }

    /// Taking the mutex makes sure that a waiter has either seen the new state or is already asleep.
    #[cold]
    fn wake_all(&self) {
        let sleep = self.sleep.lock();
        self.wake.notify_all();
        drop(sleep);
    }
}

impl<'a> GateGuard<'a> {
    /// Stays inside independently of this thread: the pass may be kept in an object and dropped anywhere.
    pub fn into_pass(self) -> GatePass<'a> {
        let GateGuard { pass, held } = self;
        drop(held);
        pass
    }
}

impl Drop for GatePass<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.count_out();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl fmt::Debug for GateGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateGuard")
    }
}

impl fmt::Debug for GatePass<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatePass")
    }
}
