//! The address space of one file: who may translate what.
//!
//! # Locking
//! INVALIDATE is held shared by whoever makes a translation or a pin, from before he looks at the size until after the
//! install, and exclusively by whoever takes blocks or bytes away. The lock bit of an entry orders what happens on one
//! unit. A thread takes entries in ascending order and, holding one, waits for neither gate, INODE nor INVALIDATE. The
//! list of views is read while page tables are called.

use core::ops::Range;

use alloc::sync::Arc;
use alloc::vec::Vec;

use ext2dax_sync::atomic::{AtomicU64, Ordering};
use ext2dax_sync::rank::{self, RankToken};
use ext2dax_sync::{Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard, mutant};

use crate::PAGE_BITS;
use crate::entry::{Entries, Kind, LEAF, Leaf, MAX_UNITS, Word};
use crate::view::View;

/// Entries, views and the lock between making and taking away.
pub struct AddressSpace {
    unit_bits: u32,
    invalidate: RwLock<()>,
    entries: Entries,
    views: RwLock<Vec<Arc<View>>>,
    /// Sleep of those who wait for some entry. Whoever unlocks an awaited entry takes it before he wakes them.
    asleep: Mutex<()>,
    wake: Condvar,
}

/// Why an entry was not locked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotLocked {
    /// Somebody owns it.
    Busy,
    /// There is no leaf: [`AddressSpace::ensure`] makes one, with no lock held.
    NoLeaf,
}

impl AddressSpace {
    pub(crate) fn new(block_bits: u32) -> AddressSpace {
        AddressSpace {
            unit_bits: block_bits.max(PAGE_BITS),
            invalidate: RwLock::new(rank::INVALIDATE, ()),
            entries: Entries::new(),
            views: RwLock::new(rank::RMAP, Vec::new()),
            asleep: Mutex::new(rank::TABLE, ()),
            wake: Condvar::new(),
        }
    }

    /// Binary logarithm of the unit: the larger of page and block.
    #[must_use]
    pub fn unit_bits(&self) -> u32 {
        self.unit_bits
    }

    /// Pages of one unit, 1 to 16.
    #[must_use]
    pub fn pages_per_unit(&self) -> u64 {
        1 << (self.unit_bits - PAGE_BITS)
    }

    /// The unit that holds a page.
    #[must_use]
    pub fn unit_of(&self, page: u64) -> u64 {
        page >> (self.unit_bits - PAGE_BITS)
    }

    /// The pages of a range of units.
    #[must_use]
    pub fn pages_of(&self, units: Range<u64>) -> Range<u64> {
        let shift = self.unit_bits - PAGE_BITS;
        units.start << shift..units.end.saturating_mul(1 << shift)
    }

    /// Keeps blocks and bytes where they are while a translation or a pin is made.
    pub fn invalidate_shared(&self) -> RwLockReadGuard<'_, ()> {
        self.invalidate.read()
    }

    /// The same without waiting.
    pub fn try_invalidate_shared(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.invalidate.try_read()
    }

    pub(crate) fn try_invalidate_exclusive(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        self.invalidate.try_write()
    }

    pub(crate) fn invalidate_exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.invalidate.write()
    }

    /// Makes the entries of `units`, so that later calls on them need no memory. Holds nothing, may use the heap.
    pub fn ensure(&self, units: Range<u64>) {
        let mut unit = units.start / LEAF * LEAF;
        while unit < units.end.min(MAX_UNITS) {
            if self.entries.leaf(unit).is_none() {
                self.entries.ensure(unit);
            }
            unit += LEAF;
        }
    }

    /// Whether [`AddressSpace::ensure`] has been called for the unit.
    #[must_use]
    pub fn has_leaf(&self, unit: u64) -> bool {
        self.entries.leaf(unit).is_some()
    }

    /// Whether the file was never mapped or pinned: then it has no entries at all.
    pub(crate) fn is_untouched(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of an entry without a schedule point, for oracles of the explorer.
    #[cfg(shuttle)]
    #[must_use]
    pub fn observe(&self, unit: u64) -> Word {
        let word = self
            .entries
            .leaf(unit)
            .map(|leaf| ext2dax_sync::explore::peek(leaf.word(unit)));
        word.map_or(Word::NONE, Word::from_raw)
    }

    /// Locks the entry of `unit`, made `Empty` if there was none, after waiting for its owner.
    ///
    /// # Errors
    /// Only `NoLeaf`.
    pub fn lock(&self, unit: u64) -> Result<EntryGuard<'_>, NotLocked> {
        let leaf = self.entries.leaf(unit).ok_or(NotLocked::NoLeaf)?;
        let token = rank::enter(rank::ENTRY, unit);
        Ok(self.take(leaf, unit, Some(token)))
    }

    /// The same for the second and later entries of a long range: one record of the rank stands for all.
    pub(crate) fn lock_next(&self, unit: u64) -> Result<EntryGuard<'_>, NotLocked> {
        Ok(self.take(
            self.entries.leaf(unit).ok_or(NotLocked::NoLeaf)?,
            unit,
            None,
        ))
    }

    fn take<'a>(&'a self, leaf: &'a Leaf, unit: u64, token: Option<RankToken>) -> EntryGuard<'a> {
        let word = leaf.word(unit);
        loop {
            if let Some(was) = try_take(word, true) {
                let was = fill(was);
                return EntryGuard {
                    space: self,
                    leaf,
                    unit,
                    back: 0,
                    count: 1,
                    was,
                    becomes: was,
                    stored: false,
                    _token: token,
                };
            }
            self.sleep(word);
        }
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// `Busy`, `NoLeaf`.
    pub fn try_lock(&self, unit: u64) -> Result<EntryGuard<'_>, NotLocked> {
        let leaf = self.entries.leaf(unit).ok_or(NotLocked::NoLeaf)?;
        let was = try_take(leaf.word(unit), true).ok_or(NotLocked::Busy)?;
        let (was, token) = (fill(was), rank::enter_nowait(rank::ENTRY, unit));
        Ok(EntryGuard {
            space: self,
            leaf,
            unit,
            back: 0,
            count: 1,
            was,
            becomes: was,
            stored: false,
            _token: Some(token),
        })
    }

    /// Locks the entry if there is one (any kind but `None`), after waiting for its owner.
    pub(crate) fn lock_present(&self, unit: u64) -> Option<EntryGuard<'_>> {
        let leaf = self.entries.leaf(unit)?;
        let word = leaf.word(unit);
        if Word::from_raw(word.load(Ordering::Acquire)) == Word::NONE {
            return None;
        }
        let token = rank::enter(rank::ENTRY, unit);
        loop {
            let now = Word::from_raw(word.load(Ordering::Acquire));
            if now == Word::NONE {
                return None;
            }
            if let Some(was) = try_take(word, false) {
                return Some(EntryGuard {
                    space: self,
                    leaf,
                    unit,
                    back: 0,
                    count: 1,
                    was,
                    becomes: was,
                    stored: false,
                    _token: Some(token),
                });
            }
            self.sleep(word);
        }
    }

    /// Calls `each` with every unit of the range that has an entry of some kind, in ascending order.
    pub(crate) fn each_present(&self, units: Range<u64>, mut each: impl FnMut(u64, Word)) {
        let mut at = units.start;
        while let Some((first, leaf)) = self.entries.next_leaf(at) {
            if first >= units.end {
                return;
            }
            for unit in first.max(units.start)..units.end.min(first + LEAF) {
                let word = Word::from_raw(leaf.word(unit).load(Ordering::Acquire));
                if word != Word::NONE {
                    each(unit, word);
                }
            }
            at = first + LEAF;
        }
    }

    /// The first unit of the range whose entry is `wanted`.
    pub(crate) fn first_present(
        &self,
        units: Range<u64>,
        wanted: impl Fn(Word) -> bool,
    ) -> Option<u64> {
        let mut at = units.start;
        while let Some((first, leaf)) = self
            .entries
            .next_leaf(at)
            .filter(|(first, _)| *first < units.end)
        {
            let found = (first.max(units.start)..units.end.min(first + LEAF))
                .find(|unit| wanted(Word::from_raw(leaf.word(*unit).load(Ordering::Acquire))));
            if found.is_some() {
                return found;
            }
            at = first + LEAF;
        }
        None
    }

    /// Deletes entries, waiting for the locked ones. The caller holds INVALIDATE exclusively and has unmapped the range.
    pub(crate) fn delete(&self, units: Range<u64>) {
        self.each_present(units, |unit, _| {
            if let Some(mut entry) = self.lock_present(unit) {
                entry.delete();
            }
        });
    }

    /// Waits until the entry is unlocked, or wakes for no reason.
    fn sleep(&self, word: &AtomicU64) {
        let guard = self.asleep.lock();
        let now = Word::from_raw(word.load(Ordering::Acquire));
        // The owner sees the mark when he unlocks, and then has to take `asleep`, which is free once this thread sleeps.
        let marked = now.is_locked()
            && (now.is_awaited()
                || word
                    .compare_exchange(
                        now.raw(),
                        now.awaited().raw(),
                        Ordering::AcqRel,
                        Ordering::Relaxed,
                    )
                    .is_ok());
        if marked {
            drop(self.wake.wait(guard));
        }
    }

    fn wake(&self) {
        if mutant("waiters woken without their mutex") {
            return self.wake.notify_all();
        }
        let guard = self.asleep.lock();
        self.wake.notify_all();
        drop(guard);
    }

    /// Takes the pages out of every view that shows some of them.
    pub(crate) fn unmap(&self, pages: Range<u64>, private_too: bool) {
        self.each_view(&pages, |view, part| view.table().unmap(part, private_too));
    }

    /// Makes the pages read-only in every view.
    pub(crate) fn write_protect(&self, pages: Range<u64>) {
        self.each_view(&pages, |view, part| {
            if view.may_write() {
                view.table().write_protect(part);
            }
        });
    }

    /// Takes the zero page away from pages that have got a block; in the view `own` the block will be mapped next.
    pub fn break_zero(&self, pages: &Range<u64>, own: Option<&View>) {
        self.each_view(pages, |view, part| {
            if own.is_some_and(|own| own.is(view)) {
                view.table().break_zero(part);
            } else if !mutant("zero page left in other views") {
                view.table().unmap(part, false);
            }
        });
    }

    pub(crate) fn resized(&self, size: u64) {
        for view in self.views.read().iter() {
            view.table().resized(size);
        }
    }

    pub(crate) fn any_writer(&self) -> bool {
        self.views.read().iter().any(|view| view.may_write())
    }

    /// How many views the file has at this moment.
    #[must_use]
    pub fn view_count(&self) -> usize {
        self.views.read().len()
    }

    pub(crate) fn add_view(&self, view: Arc<View>) {
        self.views.write().push(view);
    }

    /// Forgets a view and reports whether another one is left that may write.
    pub(crate) fn remove_view(&self, view: &View) -> bool {
        let mut views = self.views.write();
        views.retain(|other| !other.is(view));
        views.iter().any(|other| other.may_write())
    }

    fn each_view(&self, pages: &Range<u64>, mut each: impl FnMut(&View, Range<u64>)) {
        for view in self.views.read().iter() {
            let part = pages.start.max(view.pages().start)..pages.end.min(view.pages().end);
            if !part.is_empty() {
                each(view, part);
            }
        }
    }
}

impl core::fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AddressSpace")
            .field("unit_bits", &self.unit_bits)
            .finish_non_exhaustive()
    }
}

/// Sets the lock bit if it is clear; the value from before. A vacant word becomes `Empty` only if `create` says so.
fn try_take(word: &AtomicU64, create: bool) -> Option<Word> {
    let now = Word::from_raw(word.load(Ordering::Acquire));
    if now.is_locked() || (now == Word::NONE && !create) {
        return None;
    }
    word.compare_exchange(
        now.raw(),
        fill(now).locked().raw(),
        Ordering::AcqRel,
        Ordering::Relaxed,
    )
    .ok()
    .map(|_| now)
}

/// A vacant entry is `Empty` while it is owned.
fn fill(word: Word) -> Word {
    if word == Word::NONE {
        Word::EMPTY
    } else {
        word
    }
}

/// One entry, the pivot, or a run of consecutive ones around it, owned. Dropping it stores what they have become, unlocks
/// and wakes.
///
/// An `Empty` entry that was not turned into anything is removed. Between lock and drop the words of the others keep what
/// they said before, so that nothing has to be remembered elsewhere.
pub struct EntryGuard<'a> {
    space: &'a AddressSpace,
    leaf: &'a Leaf,
    unit: u64,
    /// Owned units before the pivot.
    back: u64,
    /// Owned units from the pivot on, at least one.
    count: u64,
    was: Word,
    becomes: Word,
    /// Whether all pages of the other units may be stored to from now on.
    stored: bool,
    _token: Option<RankToken>,
}

impl EntryGuard<'_> {
    /// The pivot: the unit that was asked for.
    #[must_use]
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// All units, the pivot among them.
    #[must_use]
    pub fn units(&self) -> Range<u64> {
        self.unit - self.back..self.unit + self.count
    }

    /// How many units from the pivot on, at least one.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What the pivot said when it was locked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.was.kind()
    }

    /// The dirty bits that the pivot will have.
    #[must_use]
    pub fn dirty(&self) -> u16 {
        self.becomes.dirty()
    }

    /// Owns up to `max` units, by adding vacant ones that follow without a gap and without waiting.
    pub fn grow(&mut self, max: u64) {
        let end = (self.unit / LEAF + 1) * LEAF;
        while self.count < max && self.unit + self.count < end {
            if !self.try_add(self.unit + self.count, None) {
                return;
            }
            self.count += 1;
        }
    }

    /// Owns up to `back` units before the pivot and up to `max` from it on, whose blocks are consecutive, the pivot's being
    /// `block`: vacant ones, and those that say so already. Without a gap and without waiting.
    pub fn grow_over(&mut self, block: u64, back: u64, max: u64) {
        let end = (self.unit / LEAF + 1) * LEAF;
        while self.count < max && self.unit + self.count < end {
            if !self.try_add(self.unit + self.count, Some(block + self.count)) {
                break;
            }
            self.count += 1;
        }
        let back = back.min(self.unit % LEAF).min(block);
        while self.back < back {
            let further = self.back + 1;
            if !self.try_add(self.unit - further, Some(block - further)) {
                break;
            }
            self.back = further;
        }
    }

    fn try_add(&self, unit: u64, block: Option<u64>) -> bool {
        let word = self.leaf.word(unit);
        let now = Word::from_raw(word.load(Ordering::Acquire));
        let fits = now == Word::NONE || block.is_some_and(|block| now.kind() == Kind::Block(block));
        fits && !now.is_locked()
            && word
                .compare_exchange(
                    now.raw(),
                    fill(now).locked().raw(),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Gives back all but the first `count` units from the pivot on, unchanged.
    pub fn shrink(&mut self, count: u64) {
        let kept = self.unit..self.unit + count.min(self.count);
        for unit in self.units().filter(|unit| !kept.contains(unit)) {
            self.store(unit, self.now(unit));
        }
        (self.back, self.count) = (0, kept.end - kept.start);
    }

    /// The units have blocks, consecutive and `block` at the pivot, and the pages in `dirty` of the pivot (all pages of the
    /// others, if any of the pivot) may be stored to from now on. Bits that are set stay set.
    pub fn set_block(&mut self, block: u64, dirty: u16) {
        let kept = if self.was.kind() == Kind::Block(block) {
            self.was.dirty()
        } else {
            0
        };
        self.stored = dirty != 0;
        self.becomes = Word::block(block, kept | dirty);
    }

    /// The units are holes that may show the zero page.
    pub fn set_zero(&mut self) {
        self.becomes = Word::ZERO;
    }

    /// The entry goes.
    pub fn delete(&mut self) {
        self.becomes = Word::NONE;
    }

    /// The pivot stays what it was before the lock, and the others are given back.
    pub fn restore(&mut self) {
        self.shrink(1);
        self.becomes = self.was;
    }

    pub(crate) fn set_dirty(&mut self, dirty: u16) {
        self.becomes = self.becomes.with_dirty(dirty);
    }

    fn store(&self, unit: u64, word: Word) {
        let word = if word.kind() == Kind::Empty {
            Word::NONE
        } else {
            word
        };
        let old = Word::from_raw(
            self.leaf
                .word(unit)
                .swap(word.unlocked().raw(), Ordering::AcqRel),
        );
        if old.is_awaited() {
            self.space.wake();
        }
    }

    /// What an owned unit's word says, and said before it was owned.
    fn now(&self, unit: u64) -> Word {
        Word::from_raw(self.leaf.word(unit).load(Ordering::Relaxed)).unlocked()
    }

    /// What an owned unit becomes.
    fn word(&self, unit: u64) -> Word {
        if unit == self.unit {
            return self.becomes;
        }
        let now = self.now(unit);
        match self.becomes.kind() {
            Kind::Block(pivot) => {
                let block = pivot + unit - self.unit;
                let kept = match now.kind() {
                    Kind::Block(_) if !mutant("neighbours forget that they are dirty") => {
                        now.dirty()
                    }
                    _ => 0,
                };
                let stored = self.stored && !mutant("neighbours mapped writable and not dirty");
                Word::block(block, if stored { u16::MAX } else { kept })
            }
            Kind::Zero if now.kind() == Kind::Empty => Word::ZERO,
            _ => now,
        }
    }
}

impl Drop for EntryGuard<'_> {
    fn drop(&mut self) {
        for unit in self.units() {
            let word = self.word(unit);
            if mutant("dirty set after the entry is unlocked") {
                self.store(unit, word.with_dirty(0));
            }
            self.store(unit, word);
        }
    }
}

impl core::fmt::Debug for EntryGuard<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EntryGuard")
            .field("unit", &self.unit)
            .field("units", &self.units())
            .field("was", &self.was)
            .finish()
    }
}
