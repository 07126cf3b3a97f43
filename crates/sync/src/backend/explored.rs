//! The schedule explorer's locks. Every operation is a schedule point, and a wait tells the explorer who can run.

use std::ops::{Deref, DerefMut};
use std::sync::{self, PoisonError, TryLockError};

use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};

pub(crate) use shuttle::sync::MutexGuard;

pub(crate) fn point() {
    // Any one operation of the explorer's is exactly one point.
    shuttle::sync::atomic::AtomicBool::new(false).load(shuttle::sync::atomic::Ordering::SeqCst);
}

pub(crate) fn relax() {
    shuttle::thread::yield_now();
}

pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poison)) => Some(poison.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More readers than a scenario has threads.
const READERS: usize = 1 << 16;

/// First come, first served, which is the strictest of the orders that the real locks may show: a reader queues behind
/// a waiting writer, so that a second shared acquisition by one thread deadlocks here, as it may in production.
pub(crate) struct RwLock<T> {
    queue: BatchSemaphore,
    value: sync::RwLock<T>,
}

pub(crate) struct RwLockReadGuard<'a, T> {
    guard: Option<sync::RwLockReadGuard<'a, T>>,
    queue: &'a BatchSemaphore,
}

pub(crate) struct RwLockWriteGuard<'a, T> {
    guard: Option<sync::RwLockWriteGuard<'a, T>>,
    queue: &'a BatchSemaphore,
}

const HELD: &str = "the permits held exclude every other holder";
const ALIVE: &str = "the guard is taken out only by drop";

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        RwLock {
            queue: BatchSemaphore::const_new(READERS, Fairness::StrictlyFair),
            value: sync::RwLock::new(value),
        }
    }

    fn shared(&self) -> RwLockReadGuard<'_, T> {
        let guard = match self.value.try_read() {
            Err(TryLockError::Poisoned(poison)) => Ok(poison.into_inner()),
            other => other,
        };
        RwLockReadGuard {
            guard: Some(guard.expect(HELD)),
            queue: &self.queue,
        }
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, T> {
        let guard = match self.value.try_write() {
            Err(TryLockError::Poisoned(poison)) => Ok(poison.into_inner()),
            other => other,
        };
        RwLockWriteGuard {
            guard: Some(guard.expect(HELD)),
            queue: &self.queue,
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.queue
            .acquire_blocking(1)
            .expect("the queue is never closed");
        self.shared()
    }

    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.queue.try_acquire(1).ok().map(|()| self.shared())
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.queue
            .acquire_blocking(READERS)
            .expect("the queue is never closed");
        self.exclusive()
    }

    pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.queue
            .try_acquire(READERS)
            .ok()
            .map(|()| self.exclusive())
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.value
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_deref().expect(ALIVE)
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        self.queue.release(1);
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_deref().expect(ALIVE)
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_deref_mut().expect(ALIVE)
    }
}

impl<T> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        self.queue.release(READERS);
    }
}

pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Condvar(shuttle::sync::Condvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}
