//! Signals: INT and TERM stop the work between two repairs, USR1 starts progress lines, USR2 stops them.
//!
//! The program's threads block them all; one thread waits for them, so nothing runs inside a handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ext2dax_fsck::Cancel;
use nix::sys::signal::{SigSet, Signal};

/// What the signals have asked for so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    pub(super) cancel: Cancel,
    /// Whether progress lines are wanted.
    pub(super) progress: Arc<AtomicBool>,
    /// Somebody is being asked on the terminal: nothing is in work, and a signal ends the program at once.
    pub(super) asking: Arc<AtomicBool>,
}

impl Signals {
    /// Starts to wait for signals; `progress` says whether lines are wanted before any comes. Threads that exist already
    /// would still get them in their own way: call it first.
    pub(super) fn watch(progress: bool) -> Self {
        let found = Self::default();
        found.progress.store(progress, Ordering::Relaxed);
        let set = SigSet::from_iter([
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ]);
        if set.thread_block().is_err() {
            return found;
        }
        let told = found.clone();
        let _ = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                while let Ok(signal) = set.wait() {
                    told.take(signal);
                }
            });
        found
    }

    fn take(&self, signal: Signal) {
        match signal {
            Signal::SIGUSR1 => self.progress.store(true, Ordering::Relaxed),
            Signal::SIGUSR2 => self.progress.store(false, Ordering::Relaxed),
            _ => {
                // The second time somebody is in a hurry. A kill at any store leaves an image that can be repaired.
                if self.cancel.is_set() || self.asking.load(Ordering::Relaxed) {
                    std::process::exit(i32::from(super::status::CANCELLED));
                }
                self.cancel.set();
            }
        }
    }
}
