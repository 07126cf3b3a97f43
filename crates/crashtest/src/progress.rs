//! Lines of progress for runs that take long: how much is done, of how much, how fast.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A line for so many parts of a run at most.
const PARTS: u64 = 20;

/// Lines come no closer together than this: a short run prints none.
const PAUSE: Duration = Duration::from_secs(20);

/// When a run is over.
#[derive(Clone, Copy, Debug)]
enum Goal {
    Operations(u64),
    Time(Duration),
}

/// What was shown last.
#[derive(Debug)]
struct Shown {
    part: u64,
    at: Instant,
}

/// Counts the operations of a run, by any number of threads, and now and then says how far it is, on stderr.
#[derive(Debug)]
pub struct Progress {
    what: String,
    goal: Goal,
    started: Instant,
    done: AtomicU64,
    shown: Mutex<Shown>,
}

impl Progress {
    /// A run of `total` operations.
    #[must_use]
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        Self::toward(what.into(), Goal::Operations(total))
    }

    /// A run of that length.
    #[must_use]
    pub fn timed(what: impl Into<String>, length: Duration) -> Self {
        Self::toward(what.into(), Goal::Time(length))
    }

    fn toward(what: String, goal: Goal) -> Self {
        let started = Instant::now();
        Self {
            what,
            goal,
            started,
            done: AtomicU64::new(0),
            shown: Mutex::new(Shown {
                part: 0,
                at: started,
            }),
        }
    }

    /// So many operations more are done.
    pub fn add(&self, operations: u64) {
        let done = self.done.fetch_add(operations, Ordering::Relaxed) + operations;
        let part = self.part(done);
        // Whoever finds it taken leaves the line to the one who has it.
        let Ok(mut shown) = self.shown.try_lock() else {
            return;
        };
        if part > shown.part && shown.at.elapsed() >= PAUSE {
            *shown = Shown {
                part,
                at: Instant::now(),
            };
            self.say(done);
        }
    }

    /// How many operations are done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How long it has taken so far.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn part(&self, done: u64) -> u64 {
        let (done, total) = match self.goal {
            Goal::Operations(total) => (u128::from(done), u128::from(total)),
            Goal::Time(length) => (self.elapsed().as_millis(), length.as_millis()),
        };
        u64::try_from(done * u128::from(PARTS) / total.max(1)).unwrap_or(u64::MAX)
    }

    fn say(&self, done: u64) {
        let secs = self.elapsed().as_secs().max(1);
        let of = match self.goal {
            Goal::Operations(total) => format!("of {total} operations in {secs} s"),
            Goal::Time(length) => format!("operations in {secs} of {} s", length.as_secs()),
        };
        let rate = done / secs;
        // Not by the macros: those would keep the line until a test has ended.
        let line = format!("{}: {done} {of}, {rate}/s\n", self.what);
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let said = self
            .shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .part;
        if said > 0 {
            self.say(self.done());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_operations_or_time() {
        let counted = Progress::new("counted", 200);
        assert_eq!(
            [9, 10, 199, 200].map(|done| counted.part(done)),
            [0, 1, 19, 20]
        );
        counted.add(3);
        counted.add(4);
        assert_eq!(counted.done(), 7);
        let timed = Progress::timed("timed", Duration::from_secs(3600));
        assert_eq!(timed.part(1 << 40), 0);
        assert!(Progress::timed("over", Duration::ZERO).part(0) == 0);
    }
}
