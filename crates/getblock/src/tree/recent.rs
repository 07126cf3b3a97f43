//! Runs found lately, so that a read at random in a large file costs no look at its indirect blocks.
//!
//! A file of 256 MiB has 256 KiB of pointers: each look at them is a cache miss, as slow as a third of copying the page
//! itself. A few runs cover such a file. They are remembered where they were found, checked, and forgotten before any
//! pointer is changed or cleared; a hole that is filled changes no run.
//!
//! # Invariants
//! A remembered run is what the pointers say. The number `turn` is odd while an entry is written or pointers change.
//! A look-up notes the turn before it reads pointers and writes an entry only if the turn is still the same; so what was
//! read before a change is never remembered after it.

// Plain atomics also under the schedule explorer: no operation here waits for another.
use core::sync::atomic::{AtomicU32, Ordering, fence};

use ext2dax_format::FileBlock;

/// Runs that are kept: a group of 32,768 blocks holds one, so these cover a file of about a gigabyte.
const RUNS: usize = 8;
/// Pointers compared beyond those asked for, at first: they share a cache line.
const FIRST_REACH: u32 = 16;
/// Pointers compared at most, after long runs were found again and again.
const LAST_REACH: u32 = 1 << 16;

/// A run of a file: file block, block of the image, length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: u32,
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Piece {
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
}

impl Entry {
    fn get(&self) -> Piece {
        Piece {
            at: self.at.load(Ordering::Relaxed),
            start: self.start.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
        }
    }

    fn set(&self, piece: Piece) {
        self.at.store(piece.at, Ordering::Relaxed);
        self.start.store(piece.start, Ordering::Relaxed);
        self.len.store(piece.len, Ordering::Relaxed);
    }
}

/// The remembered runs of one tree.
#[derive(Debug, Default)]
pub(super) struct Recent {
    turn: AtomicU32,
    reach: AtomicU32,
    oldest: AtomicU32,
    runs: [Entry; RUNS],
}

/// The turn in which a look-up began.
#[derive(Clone, Copy)]
pub(super) struct Turn(u32);

impl Recent {
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
        let hit = self.runs.iter().find_map(|entry| {
            let into = at.0.wrapping_sub(entry.at.load(Ordering::Relaxed));
            let len = entry.len.load(Ordering::Relaxed);
            (into < len && max <= len - into)
                .then(|| entry.start.load(Ordering::Relaxed).wrapping_add(into))
        });
        fence(Ordering::Acquire);
        hit.filter(|_| self.turn.load(Ordering::Relaxed) == turn)
    }

    /// How many pointers from `at` on, which leads to `start`, are worth comparing: further when long runs were found
    /// before, and no further than to a run that is known.
    pub(super) fn reach(&self, at: u32, start: u32) -> u32 {
        let reach = self.reach.load(Ordering::Relaxed).max(FIRST_REACH);
        let known = self.runs.iter().map(Entry::get).filter(|run| {
            run.len > 0 && run.at > at && start.checked_add(run.at - at) == Some(run.start)
        });
        known
            .map(|run| run.at - at)
            .min()
            .map_or(reach, |next| next.min(reach))
    }

    /// Remembers a run, together with remembered ones that it touches. `compared` pointers would have been taken.
    pub(super) fn remember(&self, turn: Turn, found: Piece, compared: u32) {
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
        let mut whole = found;
        for entry in &self.runs {
            let run = entry.get();
            if run.len == 0 {
                continue;
            }
            if run.is_followed_by(whole) {
                whole = Piece {
                    len: run.len + whole.len,
                    ..run
                };
            } else if whole.is_followed_by(run) {
                whole.len += run.len;
            } else if !(run.at >= whole.at && run.at - whole.at < whole.len) {
                continue;
            }
            entry.set(Piece {
                at: 0,
                start: 0,
                len: 0,
            });
        }
        let place = self
            .runs
            .iter()
            .find(|entry| entry.len.load(Ordering::Relaxed) == 0);
        match place {
            Some(entry) => entry.set(whole),
            None => {
                let oldest = self.oldest.load(Ordering::Relaxed);
                self.oldest.store(oldest.wrapping_add(1), Ordering::Relaxed);
                self.runs[oldest as usize % RUNS].set(whole);
            }
        }
        let reach = self.reach.load(Ordering::Relaxed).max(FIRST_REACH);
        let next = if found.len >= compared {
            reach.saturating_mul(2).min(LAST_REACH)
        } else {
            FIRST_REACH
        };
        self.reach.store(next, Ordering::Relaxed);
        self.turn.store(odd.wrapping_add(1), Ordering::Release);
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
        self.runs.iter().for_each(|entry| {
            entry.set(Piece {
                at: 0,
                start: 0,
                len: 0,
            })
        });
        let result = change();
        self.turn.store(turn.wrapping_add(2), Ordering::Release);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(at: u32, start: u32, len: u32) -> Piece {
        Piece { at, start, len }
    }

    #[test]
    fn touching_runs_are_remembered_as_one() {
        let recent = Recent::default();
        for found in [
            piece(100, 1100, 16),
            piece(132, 1132, 16),
            piece(116, 1116, 16),
        ] {
            recent.remember(recent.turn(), found, 16);
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
        recent.remember(turn, piece(20, 500, 4), 4);
        assert_eq!(recent.find(FileBlock(20), 1), None);
        let during = recent.while_changing(|| recent.turn());
        recent.remember(during, piece(20, 500, 4), 4);
        assert_eq!(recent.find(FileBlock(20), 1), None);
    }

    #[test]
    fn a_change_forgets_every_run() {
        let recent = Recent::default();
        recent.remember(recent.turn(), piece(20, 500, 4), 4);
        assert_eq!(recent.find(FileBlock(21), 3), Some(501));
        recent.while_changing(|| assert_eq!(recent.find(FileBlock(21), 1), None));
        assert_eq!(recent.find(FileBlock(21), 1), None);
    }

    #[test]
    fn the_reach_doubles_over_long_runs_and_falls_back_at_short_ones() {
        let recent = Recent::default();
        for round in 0..4 {
            let reach = recent.reach(1 << 20, 7);
            assert_eq!(reach, FIRST_REACH << round);
            recent.remember(
                recent.turn(),
                piece(round * 100_000, round * 3, reach),
                reach,
            );
        }
        recent.remember(recent.turn(), piece(900_000, 9, 3), 128);
        assert_eq!(recent.reach(1 << 20, 7), FIRST_REACH);
        assert_eq!(
            recent.reach(899_990, u32::MAX),
            FIRST_REACH,
            "a run that would not fit on"
        );
    }

    #[test]
    fn the_oldest_run_makes_room() {
        let recent = Recent::default();
        for nr in 0..9 {
            recent.remember(recent.turn(), piece(nr * 1000, nr * 5000, 10), 10);
        }
        assert_eq!(recent.find(FileBlock(0), 1), None);
        assert_eq!(recent.find(FileBlock(8003), 1), Some(40_003));
    }
}
