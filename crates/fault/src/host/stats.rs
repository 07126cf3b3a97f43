//! What happened, in numbers: for logs and tests, never for decisions.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) faults: AtomicU64,
    pub(super) spurious: AtomicU64,
    pub(super) handed_over: AtomicU64,
    pub(super) unanswered: AtomicU64,
    pub(super) pieces: AtomicU64,
    pub(super) moves: AtomicU64,
    pub(super) bus: AtomicU64,
    pub(super) past_end: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) ballast: AtomicU64,
}

pub(super) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts since the MMU was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Page faults that reached the library, by userfaultfd or as signals.
    pub faults: u64,
    /// Those that had been answered already, by the answer to another one.
    pub spurious: u64,
    /// Those that the fault thread handed to the resolver.
    pub handed_over: u64,
    /// Those woken without an answer because too many waited; they came again.
    pub unanswered: u64,
    /// Pieces of the image mapped.
    pub pieces: u64,
    /// Staged mappings moved over a view.
    pub moves: u64,
    /// Faults that could not be served: no space, I/O, a corrupt tree.
    pub bus: u64,
    /// Faults past the end of the file, other than those the kernel answers by itself.
    pub past_end: u64,
    /// Windows of 2 MiB given up for the budget of mappings.
    pub evictions: u64,
    /// Times the ballast was given back.
    pub ballast: u64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            faults: get(&self.faults),
            spurious: get(&self.spurious),
            handed_over: get(&self.handed_over),
            unanswered: get(&self.unanswered),
            pieces: get(&self.pieces),
            moves: get(&self.moves),
            bus: get(&self.bus),
            past_end: get(&self.past_end),
            evictions: get(&self.evictions),
            ballast: get(&self.ballast),
        }
    }
}
