//! Operations in flight, one intent each.
//!
//! An intent is written in the first epoch of its operation and made void after the last. Nobody waits for that last store:
//! it is durable with the next fence of whoever flushes the line. Until then a crash finds the intent of an operation that
//! has ended, which is harmless as long as everything that it names is as the operation left it. So each inode remembers
//! the slot of the last operation whose intent says something about it ([`Mark`]), and whoever changes that next calls
//! [`Slots::settle`] in its first epoch, which flushes that slot.
//!
//! An inode has four marks. One is for what an intent says of it as a file: its names and its count; a file's own lock
//! guards it, for a directory the lock of the one that names it. Another is for what an intent says of a directory as a
//! parent, which is how many subdirectories count in it; its own lock guards that. The others are for its mode, owner and
//! attributes, and for its size; its own lock guards those, too, and whoever takes its life settles all.

use core::fmt;

use ext2dax_format::slot::{INTENTS, Intent, MOUNT_RECORDS};
use ext2dax_sync::atomic::{AtomicBool, AtomicU32, Ordering};
use ext2dax_sync::lane::lane;
use ext2dax_sync::{Condvar, Mutex, rank};

use super::{Slots, line_at};
use crate::inode::Record;

/// What is known of the intents in memory.
pub(super) struct Intents {
    slots: [Slot; INTENTS],
    /// Operations that found no slot.
    waiting: AtomicU32,
    turn: Mutex<()>,
    given_back: Condvar,
}

/// One slot, on a line of its own.
#[repr(align(64))]
struct Slot {
    taken: AtomicBool,
    /// Operations that have used it; the last of them may still stand on the medium.
    used: AtomicU32,
}

/// The slot of the last operation whose intent says something about an inode; 0 if there is none.
#[derive(Debug, Default)]
pub(crate) struct Mark(AtomicU32);

/// Bits of a mark for the slot; the others count its operations.
const SLOT_BITS: u32 = 4;

const _: () = assert!(INTENTS < 1 << SLOT_BITS);

impl Intents {
    pub(super) fn new() -> Self {
        Self {
            slots: core::array::from_fn(|_| Slot {
                taken: AtomicBool::new(false),
                used: AtomicU32::new(0),
            }),
            waiting: AtomicU32::new(0),
            turn: Mutex::new(rank::TABLE, ()),
            given_back: Condvar::new(),
        }
    }

    /// A slot that nobody uses, each thread's own first. Waits while there is none: whoever has one has all the locks that
    /// it needs.
    fn take(&self) -> usize {
        if let Some(index) = self.try_take() {
            return index;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut turn = self.turn.lock();
        let index = loop {
            if let Some(index) = self.try_take() {
                break index;
            }
            turn = self.given_back.wait(turn);
        };
        drop(turn);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        index
    }

    fn try_take(&self) -> Option<usize> {
        let first = lane() % INTENTS;
        (first..INTENTS).chain(0..first).find(|&index| {
            !self.slots[index].taken.load(Ordering::Relaxed)
                && !self.slots[index].taken.swap(true, Ordering::SeqCst)
        })
    }

    fn give_back(&self, index: usize) {
        self.slots[index].taken.store(false, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let _turn = self.turn.lock();
            self.given_back.notify_one();
        }
    }

    /// The mark of the slot's last operation.
    fn mark(&self, index: usize) -> u32 {
        let used = self.slots[index].used.load(Ordering::Relaxed);
        let slot = u32::try_from(index + 1).unwrap_or(0);
        used << SLOT_BITS | slot
    }

    /// The slot of a mark, unless a later operation has taken the slot and ended: then nothing is left of the one that
    /// the mark means.
    fn pending(&self, mark: u32) -> Option<usize> {
        let index = (mark & ((1 << SLOT_BITS) - 1)).checked_sub(1)? as usize;
        (self.mark(index) == mark).then_some(index)
    }
}

/// An operation's intent. It has stood on the medium since the operation's first fence.
#[must_use = "an operation that ends says so"]
pub(crate) struct Armed<'a> {
    slots: &'a Slots,
    index: Option<usize>,
}

impl fmt::Debug for Armed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Armed").field("index", &self.index).finish()
    }
}

impl Slots {
    /// Writes down what is about to happen. Flushed: durable with the operation's next fence, behind which its first
    /// visible store comes.
    pub(crate) fn arm(&self, intent: &Intent) -> Armed<'_> {
        let index = self.area.map(|area| {
            let index = self.intents.take();
            let line = area + line_at(MOUNT_RECORDS + index);
            self.store(line, &intent.words(self.mount.load(Ordering::Relaxed)));
            index
        });
        Armed { slots: self, index }
    }

    /// Must come in the first epoch of whoever changes what the mark is for, under the lock that guards it: what an earlier
    /// operation noted must not stand any more. Flushed, not fenced; answers whether there was something to flush.
    pub(crate) fn settle(&self, mark: &Mark) -> bool {
        let last = mark.0.load(Ordering::Relaxed);
        if last == 0 {
            return false;
        }
        mark.0.store(0, Ordering::Relaxed);
        let (Some(index), Some(area)) = (self.intents.pending(last), self.area) else {
            return false;
        };
        self.pmem.flush(area + line_at(MOUNT_RECORDS + index), 64);
        true
    }

    /// Whether something on the medium may still speak of the inode, so that its mark must be kept in memory.
    pub(crate) fn is_pending(&self, record: &Record) -> bool {
        record.marks().into_iter().any(|mark| {
            self.intents
                .pending(mark.0.load(Ordering::Relaxed))
                .is_some()
        })
    }
}

impl Armed<'_> {
    /// The operation has come to its end: its last fence is behind it. `touched` are the marks for what its intent speaks
    /// of and may change again; the caller still has the locks that guard them.
    pub(crate) fn done(self, touched: &[&Mark]) {
        let Some(index) = self.index else { return };
        let slots = self.slots;
        if let Some(area) = slots.area {
            slots.void(area + line_at(MOUNT_RECORDS + index));
        }
        // Only who has the slot changes it.
        let used = &slots.intents.slots[index].used;
        used.store(
            used.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
        let mark = slots.intents.mark(index);
        for one in touched {
            one.0.store(mark, Ordering::Relaxed);
        }
    }
}

impl Drop for Armed<'_> {
    /// Without [`Armed::done`] the intent stands: a panic or damage came in between, and the next mount has to look.
    fn drop(&mut self) {
        if let Some(index) = self.index {
            self.slots.intents.give_back(index);
        }
    }
}
