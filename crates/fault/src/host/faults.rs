//! The two threads behind userfaultfd.
//!
//! **The fault thread** reads messages and answers what one `mmap` can answer. **The resolver** does what moves mappings
//! and what found a lock busy.
//!
//! # Locking
//! * Neither waits for a lock of the file system. The owner of INVALIDATE or of an entry may be moving a mapping, which
//!   ends only when the fault thread has read the event; and a freezer may load from a view before it opens its gate.
//!   Faults that meet a busy lock wait in the resolver's list, and no fault waits behind another.
//! * Neither touches a view or uses the heap while faults can be pending: the program may have put its allocator into a
//!   view. All signals are blocked in both.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ext2dax_dax::PageTable;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::record::Page;
use super::stats::bump;
use super::sys::uffd::{Message, PageFault, Uffd};
use super::{Core, signal, sys, table};
use crate::Outcome;

/// How long a page may stay an error after a fault that could not be served: then it is tried again (F-8).
const BUS_LASTS: Duration = Duration::from_millis(100);
/// Rounds that the resolver spins through before it sleeps between attempts.
const EAGER_ROUNDS: u32 = 512;
const NAP: Duration = Duration::from_micros(200);

/// Faults from the fault thread to the resolver: one producer, one consumer, fixed size.
#[derive(Debug)]
pub(super) struct Queue {
    slots: [AtomicUsize; Queue::SIZE],
    head: AtomicUsize,
    tail: AtomicUsize,
}

impl Queue {
    const SIZE: usize = 1024;

    pub(super) const fn new() -> Queue {
        Queue {
            slots: [const { AtomicUsize::new(0) }; Queue::SIZE],
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
        }
    }

    fn push(&self, fault: PageFault) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail.wrapping_sub(self.head.load(Ordering::Acquire)) == Queue::SIZE {
            return false;
        }
        // The lowest bit of an address inside a page is free to say what the access was.
        self.slots[tail % Queue::SIZE]
            .store(fault.va & !1 | usize::from(fault.write), Ordering::Relaxed);
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
        true
    }

    fn pop(&self) -> Option<PageFault> {
        let head = self.head.load(Ordering::Relaxed);
        if head == self.tail.load(Ordering::Acquire) {
            return None;
        }
        let word = self.slots[head % Queue::SIZE].load(Ordering::Relaxed);
        self.head.store(head.wrapping_add(1), Ordering::Release);
        Some(PageFault {
            va: word & !1,
            write: word & 1 != 0,
        })
    }
}

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The thread that waits may try again.
    Wake,
    /// A lock was busy, or it takes a move: the resolver's, later.
    Later,
}

/// The work of the fault thread.
#[derive(Debug)]
pub struct FaultLoop {
    pub(super) core: Arc<Core>,
}

impl FaultLoop {
    /// Answers page faults until the MMU is stopped. Returns at once in [`super::Mode::Signals`].
    ///
    /// Run it on a thread of its own that does nothing else. If it panics the process aborts: without it every access
    /// to a page that is not mapped would hang.
    pub fn run(self) {
        let Some(uffd) = &self.core.uffd else { return };
        let _watch = AbortOnPanic;
        signal::block_all();
        table::become_fault_thread();
        let mut messages = [Message::default(); 64];
        while !self.core.is_stopped() {
            wait(
                &mut [
                    PollFd::new(uffd, PollFlags::IN),
                    PollFd::new(&self.core.faults_poke, PollFlags::IN),
                ],
                None,
            );
            match uffd.read(&mut messages) {
                Ok(read) => messages[..read]
                    .iter()
                    .filter_map(Message::page_fault)
                    .for_each(|f| self.answer(uffd, f)),
                Err(error) => super::die(&format!("read of userfaultfd: {error}")),
            }
        }
    }

    fn answer(&self, uffd: &Uffd, fault: PageFault) {
        bump(&self.core.stats.faults);
        let page = self.core.page;
        let va = fault.va & !(page - 1);
        if self.core.serve(fault) == Answer::Later {
            if self.core.queue.push(fault) {
                bump(&self.core.stats.handed_over);
                return sys::poke(&self.core.resolver_poke);
            }
            bump(&self.core.stats.unanswered);
        }
        uffd.wake(va, page);
        if self.core.over_budget() {
            sys::poke(&self.core.resolver_poke);
        }
    }
}

/// The work of the resolver.
#[derive(Debug)]
pub struct Resolver {
    pub(super) core: Arc<Core>,
}

impl Resolver {
    /// Serves what the fault thread hands over until the MMU is stopped. Returns at once in
    /// [`super::Mode::Signals`].
    ///
    /// Run it on a thread of its own that does nothing else. If it panics the process aborts.
    pub fn run(self) {
        let Some(uffd) = &self.core.uffd else { return };
        let _watch = AbortOnPanic;
        signal::block_all();
        let mut waiting = Vec::with_capacity(Queue::SIZE);
        let mut idle_rounds = 0;
        let mut bus_due: Option<Instant> = None;
        while !self.core.is_stopped() {
            while waiting.len() < waiting.capacity() {
                let Some(fault) = self.core.queue.pop() else {
                    break;
                };
                waiting.push(fault);
                idle_rounds = 0;
            }
            let before = waiting.len();
            waiting.retain(|&fault| match self.core.serve(fault) {
                Answer::Later => true,
                Answer::Wake => {
                    uffd.wake(fault.va & !(self.core.page - 1), self.core.page);
                    false
                }
            });
            idle_rounds = if waiting.len() < before {
                0
            } else {
                idle_rounds + 1
            };
            let over = self.core.over_budget();
            if over {
                self.core.keep_budget();
            }
            self.core.retire_bus(&mut bus_due);
            self.pause(!waiting.is_empty() || over, idle_rounds, bus_due);
        }
    }

    fn pause(&self, busy: bool, idle_rounds: u32, bus_due: Option<Instant>) {
        let timeout = match (busy, bus_due) {
            (true, _) if idle_rounds < EAGER_ROUNDS => return std::thread::yield_now(),
            (true, _) => Some(NAP),
            (false, Some(due)) => Some(
                due.saturating_duration_since(Instant::now())
                    .max(Duration::from_millis(1)),
            ),
            (false, None) => None,
        };
        wait(
            &mut [PollFd::new(&self.core.resolver_poke, PollFlags::IN)],
            timeout,
        );
        sys::take_pokes(&self.core.resolver_poke);
    }
}

impl Core {
    /// Decides one fault by the state of now: the event says what a thread did a while ago.
    fn serve(&self, fault: PageFault) -> Answer {
        let Some(view) = self.registry().find(fault.va) else {
            return Answer::Wake;
        };
        let idx = view.table.idx(fault.va);
        let answered = match view.table.page(idx) {
            Page::Missing => false,
            Page::Zero => !fault.write,
            Page::Block { writable, .. } => writable || !fault.write,
            Page::Bus => true,
        };
        if answered {
            bump(&self.stats.spurious);
            return Answer::Wake;
        }
        let around = self.around(&view, idx);
        match view
            .server
            .fault(idx, fault.write, around, super::Wait::Never)
        {
            Outcome::WouldBlock => {
                // The file has grown since the view was made. The fault thread leaves the heap alone; the resolver uses
                // it for this alone, where the fault could never be served otherwise.
                if view.table.may_unmap() {
                    view.server.make_entry(idx);
                }
                Answer::Later
            }
            Outcome::NoMemory => Answer::Later,
            Outcome::Bus(bus) => {
                view.note_error(self, idx, bus);
                Answer::Wake
            }
            Outcome::Installed
            | Outcome::Retry
            | Outcome::FallbackToPage
            | Outcome::Segv
            | Outcome::CutShort => Answer::Wake,
        }
    }

    /// Turns error pages back into missing ones when they have been errors for long enough.
    fn retire_bus(&self, due: &mut Option<Instant>) {
        if self.bus_pages.swap(0, Ordering::AcqRel) > 0 && due.is_none() {
            *due = Some(Instant::now() + BUS_LASTS);
        }
        if due.is_none_or(|at| Instant::now() < at) {
            return;
        }
        *due = None;
        self.registry().visit(|view| {
            let mut pages = view.table.inside();
            while let Some(run) = view.table.find_bus(pages.clone()) {
                pages.start = run.end;
                if !view.server.try_evict(run) {
                    *due = Some(Instant::now() + NAP);
                }
            }
        });
    }
}

fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) {
    let timeout = timeout.map(|t| Timespec {
        tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => super::die(&format!("poll: {}", io::Error::from(error))),
    }
}

/// Without these threads every access hangs, so a process that lost one ends.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_keeps_order_and_kind_and_refuses_when_full() {
        let queue = Queue::new();
        assert!(queue.pop().is_none());
        for at in 0..Queue::SIZE {
            assert!(queue.push(PageFault {
                va: 0x1000 * (at + 1) + 0xfff,
                write: at % 3 == 0
            }));
        }
        assert!(!queue.push(PageFault {
            va: 0x1000,
            write: false
        }));
        for at in 0..Queue::SIZE {
            assert_eq!(
                queue.pop(),
                Some(PageFault {
                    va: 0x1000 * (at + 1) + 0xffe,
                    write: at % 3 == 0
                })
            );
        }
        assert!(queue.pop().is_none());
    }
}
