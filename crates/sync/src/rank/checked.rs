//! Debug builds: the ranks that each thread holds, in a fixed array without heap or destructor.

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

use super::{Nesting, Rank};
use crate::shield::{self, Raised};

/// More locks than one thread ever holds; directories lock a few, an allocation in every group would be a bug.
const CAPACITY: usize = 64;

/// The place of one lock in the table.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    rank: Rank,
    order: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    tag: Tag,
    place: Option<&'static Location<'static>>,
}

#[derive(Clone, Copy)]
struct Stack {
    len: usize,
    held: [Entry; CAPACITY],
}

impl Stack {
    const EMPTY: Stack = Stack {
        len: 0,
        held: [Entry {
            tag: Tag {
                rank: Rank(0),
                order: 0,
            },
            place: None,
        }; CAPACITY],
    };

    fn held(&self) -> &[Entry] {
        &self.held[..self.len]
    }

    fn push(&mut self, entry: Entry) {
        assert!(
            self.len < CAPACITY,
            "a thread holds more than {CAPACITY} locks"
        );
        self.held[self.len] = entry;
        self.len += 1;
    }

    /// Guards may be dropped in any order, so the newest record of this lock goes, wherever it stands.
    fn remove(&mut self, tag: Tag) {
        let at = self
            .held()
            .iter()
            .rposition(|e| e.tag.rank == tag.rank && e.tag.order == tag.order);
        if let Some(at) = at {
            self.held.copy_within(at + 1..self.len, at);
            self.len -= 1;
        }
    }
}

#[cfg(not(shuttle))]
fn with_stack<R>(f: impl FnOnce(&mut Stack) -> R) -> R {
    use std::cell::RefCell;
    // A handler that faults keeps records of its own.
    let _raised = Raised::new(true);
    std::thread_local! {
        static STACK: RefCell<Stack> = const { RefCell::new(Stack::EMPTY) };
    }
    STACK.with(|stack| f(&mut stack.borrow_mut()))
}

/// The explorer's threads are coroutines of one thread of the machine: their stacks are told apart by task.
#[cfg(shuttle)]
fn with_stack<R>(f: impl FnOnce(&mut Stack) -> R) -> R {
    let task = crate::explore::current_task();
    STACKS.with(|stacks| f(stacks.borrow_mut().entry(task).or_insert(Stack::EMPTY)))
}

#[cfg(shuttle)]
std::thread_local! {
    static STACKS: std::cell::RefCell<std::collections::BTreeMap<usize, Stack>> =
        const { std::cell::RefCell::new(std::collections::BTreeMap::new()) };
}

/// A new execution starts with no lock held, whatever the last one left behind.
#[cfg(shuttle)]
pub(crate) fn forget_all() {
    STACKS.with(|stacks| stacks.borrow_mut().clear());
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with order key {}", self.rank, self.order)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "{} (taken at {place})", self.tag),
            None => write!(f, "{}", self.tag),
        }
    }
}

impl Tag {
    pub(crate) const fn new(rank: Rank, order: u64) -> Self {
        Tag { rank, order }
    }

    /// Checks the order, unless nothing will wait, and records the acquisition.
    ///
    /// Called before the wait, so that a wrong order is reported instead of the deadlock that it may cause.
    #[track_caller]
    pub(crate) fn acquire(&self, nesting: Nesting) -> Held {
        let raised = Raised::new(shield::covers(self.rank));
        let place = Location::caller();
        let conflict = with_stack(|stack| {
            let conflict = stack
                .held()
                .iter()
                .find(|held| self.conflicts(held.tag, nesting))
                .copied();
            if conflict.is_none() {
                stack.push(Entry {
                    tag: *self,
                    place: Some(place),
                });
            }
            conflict
        });
        if let Some(held) = conflict {
            if std::thread::panicking() {
                // A second panic would abort and hide the first, which is the one to read.
                with_stack(|stack| {
                    stack.push(Entry {
                        tag: *self,
                        place: Some(place),
                    })
                });
            } else {
                panic!("lock order: {self} wanted at {place} while {held} is held");
            }
        }
        Held {
            tag: *self,
            _raised: raised,
            not_send: PhantomData,
        }
    }

    fn conflicts(&self, held: Tag, nesting: Nesting) -> bool {
        match nesting {
            Nesting::NoWait => false,
            Nesting::SameRank => held.rank > self.rank,
            Nesting::Strict => {
                held.rank > self.rank || (held.rank == self.rank && held.order >= self.order)
            }
        }
    }
}

/// One recorded acquisition. Belongs to the thread that made it.
pub(crate) struct Held {
    tag: Tag,
    /// Lowered after the record is gone: fields are dropped after `drop`.
    _raised: Raised,
    not_send: PhantomData<*const ()>,
}

impl Held {
    /// A condition variable takes its mutex again after the wait: whatever is held above it would be a wrong order then.
    #[track_caller]
    pub(crate) fn assert_highest(&self) {
        let above = with_stack(|stack| {
            stack
                .held()
                .iter()
                .find(|held| held.tag.rank > self.tag.rank)
                .copied()
        });
        if let Some(held) = above {
            panic!(
                "waiting with {} would take it again below {held}, which is held",
                self.tag
            );
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        with_stack(|stack| stack.remove(self.tag));
    }
}

#[track_caller]
pub(super) fn assert_below(rank: Rank) {
    let found = with_stack(|stack| {
        stack
            .held()
            .iter()
            .find(|held| held.tag.rank >= rank)
            .copied()
    });
    if let Some(held) = found
        && !std::thread::panicking()
    {
        panic!("nothing of rank {rank:?} or above may be held here, but {held} is");
    }
}

#[track_caller]
pub(super) fn assert_held(rank: Rank) {
    assert!(
        is_held(rank) || std::thread::panicking(),
        "{rank:?} must be held here"
    );
}

pub(super) fn is_held(rank: Rank) -> bool {
    with_stack(|stack| stack.held().iter().any(|held| held.tag.rank == rank))
}
