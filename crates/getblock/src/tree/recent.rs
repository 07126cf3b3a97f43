//! Runs found lately, so that a read at random in a large file costs no look at its indirect blocks.
//!
//! A file of 256 MiB has 256 KiB of pointers: each look at them is a cache miss, as slow as a third of copying the page
//! itself. A few runs cover such a file. They are remembered where they were found, checked, and forgotten before any
//! pointer is changed or cleared; a hole that is filled changes no run.
//!
//! # Invariants
//! A remembered run is what the pointers say. The number `turn` is odd while an entry is written or pointers change.
//! A look-up notes the turn before it reads pointers and writes an entry only if the turn is still the same; so what was
//! read before a change is never remembered after it. The places for runs are made with the first one, in an odd turn: most
//! inodes in core are small, and have none.

// Plain atomics also under the schedule explorer: no operation here waits for another.
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

use alloc::boxed::Box;

use ext2dax_format::FileBlock;
use ext2dax_sync::OnceLock;

/// Runs that are kept: a group of 32,768 blocks holds one, so these cover a file of about a gigabyte.
const RUNS: usize = 8;
/// Pointers compared at first, asked for or not: they share a cache line.
const FIRST_REACH: u32 = 16;
/// Pointers compared at most. Each miss doubles the reach, so that a few looks after a change cost little, and many soon
/// know every run to its end.
const LAST_REACH: u32 = 1 << 16;
/// The reach of a file with more runs than are kept: nothing is compared in vain, and nothing remembered.
const CROWDED: u32 = u32::MAX;

/// A run of a file: file block, block of the image, length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: u32,
    pub(super) start: u32,
    pub(super) len: u32,
    /// Whether the block after it was seen not to follow.
    pub(super) ended: bool,
}

impl Piece {
    const NONE: Self = Self {
        at: 0,
        start: 0,
        len: 0,
        ended: false,
    };

    /// Whether `other` follows, in the file and in the image.
    fn is_followed_by(self, other: Self) -> bool {
        self.at.checked_add(self.len) == Some(other.at)
            && self.start.checked_add(self.len) == Some(other.start)
    }
}

#[derive(Debug, Default)]
struct Entry {
    at: AtomicU32,
    start: AtomicU32,
    len: AtomicU32,
    ended: AtomicBool,
}

impl Entry {
    fn get(&self) -> Piece {
        Piece {
            at: self.at.load(Ordering::Relaxed),
            start: self.start.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
        }
    }

    fn set(&self, piece: Piece) {
        self.at.store(piece.at, Ordering::Relaxed);
        self.start.store(piece.start, Ordering::Relaxed);
        self.len.store(piece.len, Ordering::Relaxed);
        self.ended.store(piece.ended, Ordering::Relaxed);
    }
}

/// The remembered runs of one tree.
#[derive(Debug, Default)]
pub(super) struct Recent {
    turn: AtomicU32,
    reach: AtomicU32,
    runs: OnceLock<Box<[Entry; RUNS]>>,
}

/// The turn in which a look-up began.
#[derive(Clone, Copy)]
pub(super) struct Turn(u32);

impl Recent {
    fn runs(&self) -> &[Entry] {
        self.runs.get().map_or(&[], |runs| &runs[..])
    }

    /// Before pointers are read.
    #[inline]
    pub(super) fn turn(&self) -> Turn {
        Turn(self.turn.load(Ordering::Acquire))
    }

    /// The block behind `at`, if `max` blocks from there on are remembered as one run.
    #[inline]
    pub(super) fn find(&self, at: FileBlock, max: u32) -> Option<u32> {
        let turn = self.turn.load(Ordering::Acquire);
        if turn & 1 != 0 {
            return None;
        }
        let hit = self.runs().iter().find_map(|entry| {
            let into = at.0.wrapping_sub(entry.at.load(Ordering::Relaxed));
            let len = entry.len.load(Ordering::Relaxed);
            (into < len && max <= len - into)
                .then(|| entry.start.load(Ordering::Relaxed).wrapping_add(into))
        });
        fence(Ordering::Acquire);
        hit.filter(|_| self.turn.load(Ordering::Relaxed) == turn)
    }

    /// How many pointers from `at` on, which leads to `start`, are worth comparing, if any: no further than to a run that
    /// is known.
    pub(super) fn reach(&self, at: u32, start: u32) -> Option<u32> {
        let reach = self.reach.load(Ordering::Relaxed);
        if reach == CROWDED {
            return None;
        }
        let known = self.runs().iter().map(Entry::get).filter(|run| {
            run.len > 0 && run.at > at && start.checked_add(run.at - at) == Some(run.start)
        });
        let next = known.map(|run| run.at - at).min().unwrap_or(u32::MAX);
        Some(next.min(reach.max(FIRST_REACH)))
    }

    /// Remembers a run, together with remembered ones that it touches.
    pub(super) fn remember(&self, turn: Turn, found: Piece) {
        let odd = turn.0.wrapping_add(1);
        let ours = turn.0 & 1 == 0
            && self
                .turn
                .compare_exchange(turn.0, odd, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if !ours {
            return;
        }
        fence(Ordering::Release);
        let runs = self.runs.get_or_init(Box::default);
        let mut whole = found;
        for entry in runs.iter() {
            let run = entry.get();
            if run.len == 0 {
                continue;
            }
            if run.is_followed_by(whole) {
                whole = Piece {
                    len: run.len + whole.len,
                    ended: whole.ended,
                    ..run
                };
            } else if whole.is_followed_by(run) {
                whole = Piece {
                    len: run.len + whole.len,
                    ended: run.ended,
                    ..whole
                };
            } else if run.at.wrapping_sub(whole.at) >= whole.len {
                continue;
            }
            entry.set(Piece::NONE);
        }
        // The place of the shortest, and rather of one that may be part of a longer run.
        let worth = |entry: &&Entry| {
            (
                entry.ended.load(Ordering::Relaxed),
                entry.len.load(Ordering::Relaxed),
            )
        };
        let mut reach = self
            .reach
            .load(Ordering::Relaxed)
            .max(FIRST_REACH)
            .saturating_mul(2)
            .min(LAST_REACH);
        if let Some(entry) = runs.iter().min_by_key(worth) {
            if entry.ended.load(Ordering::Relaxed) {
                reach = CROWDED;
            }
            entry.set(whole);
        }
        self.reach.store(reach, Ordering::Relaxed);
        self.turn.store(odd.wrapping_add(1), Ordering::Release);
    }

    /// Holes were filled: no run is wrong, but ends may lie further on. Only hints change.
    pub(super) fn grown(&self) {
        self.runs()
            .iter()
            .for_each(|entry| entry.ended.store(false, Ordering::Relaxed));
        if self.reach.load(Ordering::Relaxed) == CROWDED {
            self.reach.store(FIRST_REACH, Ordering::Relaxed);
        }
    }

    /// Forgets everything, then lets `change` store pointers. The caller holds the tree's lock.
    pub(super) fn while_changing<R>(&self, change: impl FnOnce() -> R) -> R {
        let mut turn = self.turn.load(Ordering::Relaxed);
        // A look-up holds an odd turn for a few stores only.
        loop {
            if turn & 1 == 0 {
                match self.turn.compare_exchange_weak(
                    turn,
                    turn.wrapping_add(1),
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => break,
                    Err(now) => turn = now,
                }
            } else {
                core::hint::spin_loop();
                turn = self.turn.load(Ordering::Relaxed);
            }
        }
        fence(Ordering::Release);
        self.runs().iter().for_each(|entry| entry.set(Piece::NONE));
        self.reach.store(FIRST_REACH, Ordering::Relaxed);
        let result = change();
        self.turn.store(turn.wrapping_add(2), Ordering::Release);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(at: u32, start: u32, len: u32) -> Piece {
        Piece {
            at,
            start,
            len,
            ended: false,
        }
    }

    #[test]
    fn touching_runs_are_remembered_as_one() {
        let recent = Recent::default();
        for found in [
            piece(100, 1100, 16),
            piece(132, 1132, 16),
            piece(116, 1116, 16),
        ] {
            recent.remember(recent.turn(), found);
        }
        assert_eq!(recent.find(FileBlock(100), 48), Some(1100));
        assert_eq!(recent.find(FileBlock(147), 1), Some(1147));
        assert_eq!(
            recent.find(FileBlock(147), 2),
            None,
            "not remembered as far as that"
        );
        assert_eq!(recent.find(FileBlock(99), 1), None);
    }

    /// A look-up read pointers, then they were swung, then it wanted to remember what it had read.
    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let recent = Recent::default();
        let turn = recent.turn();
        recent.while_changing(|| ());
        recent.remember(turn, piece(20, 500, 4));
        assert_eq!(recent.find(FileBlock(20), 1), None);
        let during = recent.while_changing(|| recent.turn());
        recent.remember(during, piece(20, 500, 4));
        assert_eq!(recent.find(FileBlock(20), 1), None);
    }

    #[test]
    fn a_change_forgets_every_run() {
        let recent = Recent::default();
        recent.remember(recent.turn(), piece(20, 500, 4));
        assert_eq!(recent.find(FileBlock(21), 3), Some(501));
        recent.while_changing(|| assert_eq!(recent.find(FileBlock(21), 1), None));
        assert_eq!(recent.find(FileBlock(21), 1), None);
    }

    #[test]
    fn the_reach_doubles_until_a_change_and_stops_at_what_is_known() {
        let recent = Recent::default();
        for round in 0..4 {
            assert_eq!(recent.reach(1 << 20, 7), Some(FIRST_REACH << round));
            recent.remember(recent.turn(), piece(round * 100_000, round * 3, 16));
        }
        assert_eq!(
            recent.reach(99_900, u32::MAX),
            Some(256),
            "a run that would not fit on"
        );
        recent.remember(recent.turn(), piece(5000, 6000, 16));
        assert_eq!(recent.reach(4990, 5990), Some(10));
        recent.while_changing(|| ());
        assert_eq!(recent.reach(1 << 20, 7), Some(FIRST_REACH));
    }

    #[test]
    fn parts_make_room_for_runs_and_more_runs_than_places_end_it_until_the_file_grows() {
        let recent = Recent::default();
        let whole = |nr: u32| Piece {
            ended: true,
            ..piece(nr * 1000, nr * 5000, 10)
        };
        recent.remember(recent.turn(), piece(500_000, 1, 400));
        for nr in 0..8 {
            recent.remember(recent.turn(), whole(nr));
            assert!(recent.reach(1 << 20, 7).is_some());
        }
        assert_eq!(recent.find(FileBlock(500_000), 1), None, "the part went");
        assert_eq!(recent.find(FileBlock(7003), 1), Some(35_003));
        recent.remember(recent.turn(), whole(8));
        assert_eq!(recent.reach(1 << 20, 7), None);
        recent.grown();
        assert!(recent.reach(1 << 20, 7).is_some());
    }
}
