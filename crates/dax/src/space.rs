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
                    count: 1,
                    was,
                    becomes: was,
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
            count: 1,
            was,
            becomes: was,
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
                    count: 1,
                    was,
                    becomes: was,
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

/// One entry, or a run of consecutive ones, owned. Dropping it stores what they have become, unlocks and wakes.
///
/// An `Empty` entry that was not turned into anything is removed.
pub struct EntryGuard<'a> {
    space: &'a AddressSpace,
    leaf: &'a Leaf,
    unit: u64,
    count: u64,
    was: Word,
    becomes: Word,
    _token: Option<RankToken>,
}

impl EntryGuard<'_> {
    /// The first unit.
    #[must_use]
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// How many units, at least one.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What the first entry said when it was locked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.was.kind()
    }

    /// The dirty bits that the first entry will have.
    #[must_use]
    pub fn dirty(&self) -> u16 {
        self.becomes.dirty()
    }

    /// Owns up to `max` units, by adding vacant ones that follow without a gap and without waiting.
    pub fn grow(&mut self, max: u64) {
        let end = (self.unit / LEAF + 1) * LEAF;
        while self.count < max && self.unit + self.count < end {
            let word = self.leaf.word(self.unit + self.count);
            let vacant = word
                .compare_exchange(
                    Word::NONE.raw(),
                    Word::EMPTY.locked().raw(),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok();
            if !vacant {
                return;
            }
            self.count += 1;
        }
    }

    /// Gives back all but the first `count` units, unchanged.
    pub fn shrink(&mut self, count: u64) {
        for unit in self.unit + count..self.unit + self.count {
            self.store(unit, Word::NONE);
        }
        self.count = self.count.min(count);
    }

    /// The units have blocks, consecutive from `block` on, and the pages in `dirty` of the first unit (all pages of the
    /// others, if any of the first) may be stored to from now on. Bits that are set stay set.
    pub fn set_block(&mut self, block: u64, dirty: u16) {
        let kept = if self.was.kind() == Kind::Block(block) {
            self.was.dirty()
        } else {
            0
        };
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

    /// The entry stays what it was before the lock.
    pub fn restore(&mut self) {
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

    /// What unit `n` of the run becomes.
    fn word(&self, n: u64) -> Word {
        match self.becomes.kind() {
            Kind::Block(block) if n > 0 => Word::block(
                block + n,
                if self.becomes.dirty() == 0 {
                    0
                } else {
                    u16::MAX
                },
            ),
            _ => self.becomes,
        }
    }
}

impl Drop for EntryGuard<'_> {
    fn drop(&mut self) {
        for n in 0..self.count {
            if mutant("dirty set after the entry is unlocked") {
                self.store(self.unit + n, self.word(n).with_dirty(0));
            }
            self.store(self.unit + n, self.word(n));
        }
    }
}

impl core::fmt::Debug for EntryGuard<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EntryGuard")
            .field("unit", &self.unit)
            .field("count", &self.count)
            .field("was", &self.was)
            .finish()
    }
}
