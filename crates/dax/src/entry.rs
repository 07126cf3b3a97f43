//! Entries: one atomic word for each unit of a file that is, or was, mapped.
//!
//! ```text
//! 63           24 23     8 7   5  4   3  2  1    0
//! block          dirty    0     huge kind  wait lock
//! ```
//! `block` is the byte offset in the region in units of one block. `dirty` has a bit for each page of the unit. `huge` is
//! for entries of 2 MiB, which are not made yet.

use ext2dax_sync::atomic::AtomicU64;
use spin::Once;

extern crate alloc;
use alloc::boxed::Box;

const LOCK: u64 = 1;
const WAIT: u64 = 1 << 1;
const KIND_SHIFT: u32 = 2;
const DIRTY_SHIFT: u32 = 8;
const BLOCK_SHIFT: u32 = 24;

/// What an entry says about its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: no translation exists.
    None,
    /// Somebody is deciding; seen by others only while locked.
    Empty,
    /// A hole; translations of the zero page may exist.
    Zero,
    /// Block number in the region; translations of it may exist.
    Block(u64),
}

/// The value of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Word(u64);

impl Word {
    pub(crate) const NONE: Word = Word(0);
    pub(crate) const EMPTY: Word = Word(1 << KIND_SHIFT);
    pub(crate) const ZERO: Word = Word(2 << KIND_SHIFT);

    /// `block` in units of one block of the region, `dirty` with a bit a page.
    pub(crate) fn block(block: u64, dirty: u16) -> Word {
        debug_assert!(
            block < 1 << (64 - BLOCK_SHIFT),
            "a region has at most 2^40 blocks"
        );
        Word((3 << KIND_SHIFT) | (u64::from(dirty) << DIRTY_SHIFT) | (block << BLOCK_SHIFT))
    }

    pub(crate) const fn from_raw(raw: u64) -> Word {
        Word(raw)
    }
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }
    pub(crate) const fn locked(self) -> Word {
        Word(self.0 | LOCK)
    }
    pub(crate) const fn awaited(self) -> Word {
        Word(self.0 | WAIT)
    }
    pub(crate) const fn unlocked(self) -> Word {
        Word(self.0 & !(LOCK | WAIT))
    }
    pub(crate) const fn is_awaited(self) -> bool {
        self.0 & WAIT != 0
    }

    /// Whether some thread owns the entry.
    #[must_use]
    pub const fn is_locked(self) -> bool {
        self.0 & LOCK != 0
    }

    /// What the entry says.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match (self.0 >> KIND_SHIFT) & 3 {
            0 => Kind::None,
            1 => Kind::Empty,
            2 => Kind::Zero,
            _ => Kind::Block(self.0 >> BLOCK_SHIFT),
        }
    }

    /// A bit for each page of the unit that may have been stored to since it was last made persistent.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the field has 16 bits")]
    pub const fn dirty(self) -> u16 {
        (self.0 >> DIRTY_SHIFT) as u16
    }

    pub(crate) fn with_dirty(self, dirty: u16) -> Word {
        match self.kind() {
            Kind::Block(block) => Word::block(block, dirty),
            _ => self,
        }
    }
}

impl core::fmt::Debug for Word {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{:?} dirty {:#x}{}",
            self.kind(),
            self.dirty(),
            if self.is_locked() { " locked" } else { "" }
        )
    }
}

/// Entries of one leaf. Few under the explorer, where a look at each of them is a step.
pub(crate) const LEAF: u64 = if cfg!(shuttle) { 4 } else { 512 };
const FANOUT: u64 = 512;
const ROOT: u64 = 64;

/// Units that a table can address: more than any file has blocks.
pub(crate) const MAX_UNITS: u64 = LEAF * FANOUT * FANOUT * ROOT;

/// The words of [`LEAF`] consecutive units.
pub(crate) struct Leaf(Box<[AtomicU64]>);

impl Leaf {
    fn new() -> Leaf {
        Leaf((0..LEAF).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn word(&self, unit: u64) -> &AtomicU64 {
        &self.0[slot(unit % LEAF)]
    }
}

/// One level of the radix tree. A slot is filled once and stays: looking up takes no lock, and a fault finds the leaf
/// that `attach` made without touching the heap.
struct Level<T>(Box<[Once<T>]>);

impl<T> Level<T> {
    fn new(slots: u64) -> Level<T> {
        Level((0..slots).map(|_| Once::new()).collect())
    }
    fn get(&self, index: u64) -> Option<&T> {
        self.0[slot(index)].get()
    }
    fn get_or_make(&self, index: u64, make: impl FnOnce() -> T) -> &T {
        self.0[slot(index)].call_once(make)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "indexes of one table are below 512"
)]
const fn slot(index: u64) -> usize {
    index as usize
}

/// The entries of one file: a radix tree that only grows. A file that was never mapped has none of it.
pub(crate) struct Entries {
    root: Once<Level<Level<Level<Leaf>>>>,
}

impl Entries {
    pub(crate) const fn new() -> Entries {
        Entries { root: Once::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.root.get().is_none()
    }

    pub(crate) fn leaf(&self, unit: u64) -> Option<&Leaf> {
        let (top, middle, low) = path(unit)?;
        self.root.get()?.get(top)?.get(middle)?.get(low)
    }

    /// Makes the leaf of `unit` if there is none. `unit` is below [`MAX_UNITS`].
    pub(crate) fn ensure(&self, unit: u64) {
        let Some((top, middle, low)) = path(unit) else {
            return;
        };
        self.root
            .call_once(|| Level::new(ROOT))
            .get_or_make(top, || Level::new(FANOUT))
            .get_or_make(middle, || Level::new(FANOUT))
            .get_or_make(low, Leaf::new);
    }

    /// The first leaf at or after `unit`: its first unit, and the leaf.
    pub(crate) fn next_leaf(&self, unit: u64) -> Option<(u64, &Leaf)> {
        let root = self.root.get()?;
        let (top, middle, low) = path(unit)?;
        for t in top..ROOT {
            let Some(upper) = root.get(t) else { continue };
            for m in if t == top { middle } else { 0 }..FANOUT {
                let Some(lower) = upper.get(m) else { continue };
                for l in if t == top && m == middle { low } else { 0 }..FANOUT {
                    if let Some(leaf) = lower.get(l) {
                        return Some((((t * FANOUT + m) * FANOUT + l) * LEAF, leaf));
                    }
                }
            }
        }
        None
    }
}

fn path(unit: u64) -> Option<(u64, u64, u64)> {
    let leaf = unit / LEAF;
    (unit < MAX_UNITS).then_some((
        leaf / (FANOUT * FANOUT),
        leaf / FANOUT % FANOUT,
        leaf % FANOUT,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_its_fields_apart() {
        let word = Word::block((1 << 40) - 1, 0xa5a5).locked().awaited();
        assert_eq!(word.kind(), Kind::Block((1 << 40) - 1));
        assert_eq!(word.dirty(), 0xa5a5);
        assert!(word.is_locked() && word.is_awaited());
        assert_eq!(word.unlocked(), Word::block((1 << 40) - 1, 0xa5a5));
        assert_eq!(Word::ZERO.locked().kind(), Kind::Zero);
        assert_eq!(Word::NONE.kind(), Kind::None);
        assert_eq!(word.with_dirty(1).dirty(), 1);
    }

    #[test]
    fn leaves_are_found_in_order_and_nowhere_else() {
        let entries = Entries::new();
        assert!(entries.is_empty());
        let far = LEAF * FANOUT * FANOUT * 3 + LEAF * 7 + 5;
        for unit in [0, LEAF + 1, far] {
            entries.ensure(unit);
        }
        assert!(
            entries.leaf(2).is_some()
                && entries.leaf(2 * LEAF).is_none()
                && entries.leaf(MAX_UNITS).is_none()
        );
        let firsts: alloc::vec::Vec<u64> =
            core::iter::successors(entries.next_leaf(0).map(|(at, _)| at), |at| {
                entries.next_leaf(at + LEAF).map(|(at, _)| at)
            })
            .collect();
        assert_eq!(firsts, [0, LEAF, far - 5]);
    }
}
