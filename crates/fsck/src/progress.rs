//! Where a check is: told to whoever wants to draw it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// The pass, 1, 2 or 5; the others are over at once.
    pub pass: u8,
    /// Parts of the pass that are done, or taken up; threads finish them out of order.
    pub done: u32,
    /// Parts of the pass.
    pub all: u32,
    /// Findings so far. A repair checks again after each round, and counts anew.
    pub findings: usize,
}

struct Watch {
    listener: Box<dyn Fn(Step) + Send + Sync>,
    findings: AtomicUsize,
}

/// Calls a listener with every step. Threads call it at the same time.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Watch>>);

impl Progress {
    /// Reports to `listener`.
    pub fn new(listener: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Watch {
            listener: Box::new(listener),
            findings: AtomicUsize::new(0),
        })))
    }

    pub(crate) fn step(&self, pass: u8, done: u32, all: u32) {
        if let Some(watch) = &self.0 {
            (watch.listener)(Step {
                pass,
                done,
                all,
                findings: watch.findings.load(Ordering::Relaxed),
            });
        }
    }

    /// All findings of the passes before.
    pub(crate) fn found(&self, all: usize) {
        if let Some(watch) = &self.0 {
            watch.findings.store(all, Ordering::Relaxed);
        }
    }

    /// Findings of the pass at work.
    pub(crate) fn found_more(&self, count: usize) {
        if let (Some(watch), 1..) = (&self.0, count) {
            watch.findings.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Progress").field(&self.0.is_some()).finish()
    }
}
