//! A log of everything that changed a region, for the crash-state enumerator.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use crate::observer::{Observer, Route};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Bytes were stored at an offset of the region.
    Store {
        /// Byte offset in the region.
        at: u64,
        /// What stands there now.
        bytes: Vec<u8>,
        /// How it got there.
        route: Route,
    },
    /// The lines that meet the range were flushed.
    Flush(Range<u64>),
    /// The thread fenced.
    Fence,
    /// A remark of the test: an operation begins, returns.
    Mark(String),
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which thread did it; small numbers in order of first appearance.
    pub thread: u64,
    /// What it did.
    pub kind: EventKind,
}

/// An [`Observer`] that writes everything down.
///
/// Cheap to clone; all clones share one log.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    /// Keeps one change, and its entry in the log, apart from the next.
    turn: Mutex<()>,
    log: Mutex<Log>,
    thread: Box<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    paused: bool,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty log that tells threads apart by the operating system's threads.
    pub fn new() -> Self {
        Self::with_thread_ids(thread_number)
    }

    /// An empty log that asks `thread` for the number of the acting thread: for schedule explorers, whose threads are
    /// coroutines of one.
    pub fn with_thread_ids(thread: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Recorder(Arc::new(Shared {
            turn: Mutex::new(()),
            log: Mutex::default(),
            thread: Box::new(thread),
        }))
    }

    /// The recorder as the observer that [`Pmem::with_observer`](crate::Pmem::with_observer) takes.
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(self.clone())
    }

    /// Writes a remark into the log.
    pub fn mark(&self, remark: impl Into<String>) {
        self.push(EventKind::Mark(remark.into()));
    }

    /// Takes the log out and leaves an empty one.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.log().events)
    }

    /// A copy of the log.
    pub fn events(&self) -> Vec<Event> {
        self.log().events.clone()
    }

    /// Stops or resumes writing down: a test's set-up need not be kept.
    pub fn pause(&self, paused: bool) {
        self.log().paused = paused;
    }

    /// Fences in the log, of all threads: what an operation cost.
    pub fn fences(&self) -> usize {
        self.log()
            .events
            .iter()
            .filter(|event| event.kind == EventKind::Fence)
            .count()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, kind: EventKind) {
        let thread = (self.0.thread)();
        let mut log = self.log();
        if !log.paused {
            log.events.push(Event { thread, kind });
        }
    }
}

/// Small numbers for the threads of the machine, in order of first use.
fn thread_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    std::thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

impl Observer for Recorder {
    fn serialize(&self, change: &mut dyn FnMut()) {
        let _turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        change();
    }

    fn store(&self, at: u64, bytes: &[u8], route: Route) {
        self.push(EventKind::Store {
            at,
            bytes: bytes.to_vec(),
            route,
        });
    }

    fn flush(&self, range: Range<u64>) {
        self.push(EventKind::Flush(range));
    }

    fn fence(&self) {
        self.push(EventKind::Fence);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("events", &self.log().events.len())
            .finish_non_exhaustive()
    }
}
