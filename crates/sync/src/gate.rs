//! Gates: many may be inside at once, and one can close the gate and wait until all have left.
//!
//! Those inside are counted in [lanes](crate::lane), so that threads which go through an open gate side by side store to
//! no line in common.
//!
//! # Invariants
//! While the gate is closed nobody enters; [`Gate::drain`] returns only when nobody is inside. Entering an open gate and
//! leaving it is one atomic change each, of the lane, before a look at `closed`; whoever closes sets `closed` before he
//! looks at the lanes. So either the one who enters sees the closed gate and steps back, or the one who drains sees him.

use core::fmt;

use crate::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::backend;
use crate::lane::{LANES, lane};
use crate::rank::{Held, Nesting, Rank, Tag};

/// Those inside who came by one lane.
#[repr(align(128))]
struct Lane(AtomicU64);

/// A closable, counted gate with a place in the lock table.
pub struct Gate {
    tag: Tag,
    closed: AtomicBool,
    lanes: [Lane; LANES],
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
pub struct GatePass<'a> {
    gate: &'a Gate,
    lane: usize,
}

impl Gate {
    /// An open gate of `rank`.
    pub const fn new(rank: Rank) -> Self {
        Gate {
            tag: Tag::new(rank, 0),
            closed: AtomicBool::new(false),
            lanes: [const { Lane(AtomicU64::new(0)) }; LANES],
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
        let pass = loop {
            match self.count_in() {
                Some(pass) => break pass,
                None => self.wait_for_open(),
            }
        };
        GateGuard { pass, held }
    }

    /// Goes in if the gate is open. Never waits, so any order is allowed.
    #[track_caller]
    #[inline]
    pub fn try_enter(&self) -> Option<GateGuard<'_>> {
        self.count_in().map(|pass| GateGuard {
            pass,
            held: self.tag.acquire(Nesting::NoWait),
        })
    }

    /// Closes the gate: from now on nobody enters. Those inside stay; see [`Gate::drain`]. Returns whether it was open.
    pub fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::SeqCst)
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
        // Looking at a lane pairs with leaving by it: what was done inside is visible after the drain.
        while self.count() != 0 {
            sleep = self.wake.wait(sleep);
        }
    }

    /// Opens the gate again and lets the waiting in.
    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.wake_all();
    }

    /// Whether the gate is closed at this moment.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// How many are inside at this moment, those included who are about to see that the gate is closed. While it is, 0
    /// means that nobody is.
    pub fn count(&self) -> u64 {
        self.lanes
            .iter()
            .map(|lane| lane.0.load(Ordering::SeqCst))
            .sum()
    }

    #[inline]
    fn count_in(&self) -> Option<GatePass<'_>> {
        let lane = lane();
        self.lanes[lane].0.fetch_add(1, Ordering::SeqCst);
        if self.is_closed() {
            self.count_out(lane);
            return None;
        }
        Some(GatePass { gate: self, lane })
    }

    #[cold]
    fn wait_for_open(&self) {
        let mut sleep = self.sleep.lock();
        while self.is_closed() {
            sleep = self.wake.wait(sleep);
        }
    }

    #[inline]
    fn count_out(&self, lane: usize) {
        // Only out of a closed gate somebody waits to see the others leave.
        if self.lanes[lane].0.fetch_sub(1, Ordering::SeqCst) == 1 && self.is_closed() {
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
        self.gate.count_out(self.lane);
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
