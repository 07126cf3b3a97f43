//! Locks that spin: kernels, and anything else without an operating system below it.
//!
//! Between two looks at a busy lock a hook runs, which may yield to another thread of the kernel. Without a hook the
//! processor is told to pause.
#![cfg_attr(
    any(feature = "std", shuttle),
    expect(
        dead_code,
        reason = "the hosted build uses std's locks; only the tests of this module use these"
    )
)]

use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use spin::{Once, RelaxStrategy};

static HOOK: Once<fn()> = Once::new();

/// Sets what a thread does between two looks at a busy lock in a build without std, once for the program.
///
/// Returns whether this call set it; the first one stays. Builds with std wait in the kernel and ignore it.
pub fn set_relax(hook: fn()) -> bool {
    let mut set = false;
    HOOK.call_once(|| {
        set = true;
        hook
    });
    set
}

pub(crate) fn relax() {
    match HOOK.get() {
        Some(hook) => hook(),
        None => core::hint::spin_loop(),
    }
}

struct Relax;

impl RelaxStrategy for Relax {
    #[inline]
    fn relax() {
        relax();
    }
}

pub(crate) struct Mutex<T>(spin::mutex::SpinMutex<T, Relax>);

/// Knows its mutex, which a condition variable takes again.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: spin::mutex::SpinMutexGuard<'a, T, Relax>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Mutex(spin::mutex::SpinMutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard {
            mutex: self,
            guard: self.0.lock(),
        }
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0
            .try_lock()
            .map(|guard| MutexGuard { mutex: self, guard })
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A reader-writer lock whose readers stand back while a writer waits.
pub(crate) struct RwLock<T> {
    lock: spin::rwlock::RwLock<T, Relax>,
    /// Writers that wait. The lock below lets readers in as long as one is inside, so a stream of them would keep a
    /// writer out for ever; they look here first.
    waiting: AtomicU32,
}

pub(crate) type RwLockReadGuard<'a, T> = SpinReadGuard<'a, T>;
pub(crate) type RwLockWriteGuard<'a, T> = SpinWriteGuard<'a, T>;

pub(crate) struct SpinReadGuard<'a, T>(spin::rwlock::RwLockReadGuard<'a, T, Relax>);
pub(crate) struct SpinWriteGuard<'a, T>(spin::rwlock::RwLockWriteGuard<'a, T, Relax>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        RwLock {
            lock: spin::rwlock::RwLock::new(value),
            waiting: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        loop {
            if let Some(guard) = self.try_read() {
                return guard;
            }
            relax();
        }
    }

    #[inline]
    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        // Relaxed: the word only decides who goes first; the lock below orders the data.
        if self.waiting.load(Ordering::Relaxed) != 0 {
            return None;
        }
        self.lock.try_read().map(SpinReadGuard)
    }

    #[inline]
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        if let Some(guard) = self.try_write() {
            return guard;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.lock.write();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        SpinWriteGuard(guard)
    }

    #[inline]
    pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.lock.try_write().map(SpinWriteGuard)
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.lock.into_inner()
    }
}

impl<T> Deref for SpinReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Deref for SpinWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for SpinWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Counts notifications; a waiter spins until the count has moved. Any notification wakes every waiter.
pub(crate) struct Condvar(AtomicU32);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Condvar(AtomicU32::new(0))
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex = guard.mutex;
        // Read under the mutex: a notification that follows a change made under it cannot be missed.
        let seen = self.0.load(Ordering::Acquire);
        drop(guard);
        while self.0.load(Ordering::Acquire) == seen {
            relax();
        }
        mutex.lock()
    }

    pub(crate) fn notify_one(&self) {
        self.notify_all();
    }

    pub(crate) fn notify_all(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
