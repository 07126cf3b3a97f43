//! Waiting for a change of what a mutex guards.

use core::fmt;

use crate::backend;
use crate::mutex::MutexGuard;

/// A condition variable. Wake-ups may be spurious: wait in a loop that looks at the guarded value.
pub struct Condvar(backend::Condvar);

impl Condvar {
    /// Nobody waits yet.
    pub const fn new() -> Self {
        Condvar(backend::Condvar::new())
    }

    /// Unlocks, waits for a notification, locks again.
    ///
    /// Nothing of a rank above the mutex may be held: it is taken again at the end.
    ///
    /// # Panics
    /// In debug builds, if something above is held.
    #[track_caller]
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { guard, held } = guard;
        held.assert_highest();
        MutexGuard {
            guard: self.0.wait(guard),
            held,
        }
    }

    /// Waits until `done` holds.
    #[track_caller]
    pub fn wait_until<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut done: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while !done(&mut guard) {
            guard = self.wait(guard);
        }
        guard
    }

    /// Wakes one waiter, if there is one; the spinning build wakes all.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes every waiter.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condvar")
    }
}
