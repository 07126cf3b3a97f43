//! The lock table: who may wait for what while holding what.
//!
//! A thread takes a lock only above every rank that it holds; of one rank, only with a greater order key. So no cycle of
//! waiting threads can close. Debug builds with threads check each acquisition; [`Mutex::try_lock`](crate::Mutex::try_lock)
//! and its kin never wait and are therefore recorded but not checked.
//!
//! | Rank | Lock | Order key |
//! |---|---|---|
//! | 5 | [`CURSOR`]: position of one open file | |
//! | 10 | [`GATE_PIN`]: held for a pin's life | |
//! | 20 | [`GATE_WRITE`]: closable gate around writers | |
//! | 30 | [`RENAME`]: directory renames of one file system | |
//! | 40 | [`INODE`]: one inode; parent before child by the `_nested` calls | inode number |
//! | 50 | [`VIEWS`]: one address space's views | |
//! | 60 | [`GATE_FAULT`]: closable gate around faults that change something | |
//! | 70 | [`INVALIDATE`]: translations of one inode may be made or not | inode number |
//! | 80 | [`ENTRY`]: lock bit of one entry | file page |
//! | 85 | [`ORPHAN`]: from list push to list off | |
//! | 90 | [`TREE`]: one inode's block tree | |
//! | 100 | [`GROUP`]: bitmaps and descriptor of one group | group number |
//! | 110 | [`SUPER`]: counters, slots, pin counts, quarantine | |
//! | 115 | [`TABLE`]: look-up tables in memory; leaf locks | |
//! | 120 | [`RMAP`]: one inode's list of views | |
//! | 130 | [`PTABLE`]: page table of one view | |

#[cfg(any(all(debug_assertions, feature = "std"), shuttle))]
mod checked;
#[cfg(any(all(debug_assertions, feature = "std"), shuttle))]
use checked as check;
#[cfg(not(any(all(debug_assertions, feature = "std"), shuttle)))]
mod unchecked;
#[cfg(not(any(all(debug_assertions, feature = "std"), shuttle)))]
use unchecked as check;

pub(crate) use check::{Held, Tag};
#[cfg(shuttle)]
pub(crate) use checked::forget_all;

/// A place in the lock table. Lower ranks are taken first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u8);

/// The position of one open file, held over the read or write that moves it.
pub const CURSOR: Rank = Rank(5);
/// Held for a pin's whole life.
pub const GATE_PIN: Rank = Rank(10);
/// Entered by every operation that changes the file system, outside faults.
pub const GATE_WRITE: Rank = Rank(20);
/// Directory renames across parents.
pub const RENAME: Rank = Rank(30);
/// One inode: names in it, size, link count. Ascending inode number, or parent before child.
pub const INODE: Rank = Rank(40);
/// The views of one address space.
pub const VIEWS: Rank = Rank(50);
/// Entered by faults that allocate, settle or make writable.
pub const GATE_FAULT: Rank = Rank(60);
/// Shared by whoever makes a translation or a pin, exclusive for whoever takes blocks away.
pub const INVALIDATE: Rank = Rank(70);
/// The lock bit of one entry. Ascending file page.
pub const ENTRY: Rank = Rank(80);
/// The orphan list.
pub const ORPHAN: Rank = Rank(85);
/// One inode's block tree.
pub const TREE: Rank = Rank(90);
/// Bitmaps and descriptor of one group. Ascending group number.
pub const GROUP: Rank = Rank(100);
/// Counters, slots, pin counts, quarantine.
pub const SUPER: Rank = Rank(110);
/// Look-up tables in memory (the inode cache and the like).
pub const TABLE: Rank = Rank(115);
/// One inode's list of views.
pub const RMAP: Rank = Rank(120);
/// The page table of one view.
pub const PTABLE: Rank = Rank(130);

impl Rank {
    #[cfg(feature = "std")]
    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    fn name(self) -> &'static str {
        match self {
            CURSOR => "CURSOR",
            GATE_PIN => "GATE_PIN",
            GATE_WRITE => "GATE_WRITE",
            RENAME => "RENAME",
            INODE => "INODE",
            VIEWS => "VIEWS",
            GATE_FAULT => "GATE_FAULT",
            INVALIDATE => "INVALIDATE",
            ENTRY => "ENTRY",
            ORPHAN => "ORPHAN",
            TREE => "TREE",
            GROUP => "GROUP",
            SUPER => "SUPER",
            TABLE => "TABLE",
            RMAP => "RMAP",
            PTABLE => "PTABLE",
            _ => "unnamed",
        }
    }
}

impl core::fmt::Debug for Rank {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// What an acquisition may meet among the locks already held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// Lower ranks, and the same rank with a lower order key.
    Strict,
    /// The same rank with any order key, too: the caller has a rule of its own (parent before child).
    SameRank,
    /// Anything: the acquisition does not wait.
    NoWait,
}

/// Proof that a lock which is only a bit in a word is recorded as held; dropping it records the release.
#[must_use = "the rank counts as held only while the token lives"]
pub struct RankToken {
    _held: Held,
}

impl core::fmt::Debug for RankToken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RankToken")
    }
}

/// Records that a lock bit of `rank` with this order key is about to be waited for.
///
/// # Panics
/// In debug builds, if the thread holds this rank with an order key that is not lower, or a higher rank.
#[track_caller]
#[inline]
pub fn enter(rank: Rank, order: u64) -> RankToken {
    RankToken {
        _held: Tag::new(rank, order).acquire(Nesting::Strict),
    }
}

/// As [`enter`], for a lock bit that was taken without waiting: recorded, not checked.
#[track_caller]
#[inline]
pub fn enter_nowait(rank: Rank, order: u64) -> RankToken {
    RankToken {
        _held: Tag::new(rank, order).acquire(Nesting::NoWait),
    }
}

/// Asserts that the thread holds nothing of `rank` or above (user memory is about to be touched, or a wait to begin).
///
/// # Panics
/// In debug builds, if it does.
#[track_caller]
#[inline]
pub fn assert_below(rank: Rank) {
    check::assert_below(rank);
}

/// Asserts that the thread holds some lock of `rank`.
///
/// # Panics
/// In debug builds, if it does not.
#[track_caller]
#[inline]
pub fn assert_held(rank: Rank) {
    check::assert_held(rank);
}

/// Whether the thread holds some lock of `rank`. Always `true` in release builds, which keep no record: for assertions.
#[inline]
pub fn is_held(rank: Rank) -> bool {
    check::is_held(rank)
}
