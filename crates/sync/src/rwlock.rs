//! Shared and exclusive access with a rank.

use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::backend;
use crate::rank::{Held, Nesting, Rank, Tag};

/// A reader-writer lock with a place in the lock table. A waiting writer keeps later readers out.
///
/// One thread never takes it twice, not even shared: with a writer waiting in between that is a deadlock, and debug
/// builds panic.
pub struct RwLock<T> {
    tag: Tag,
    lock: backend::RwLock<T>,
}

/// Shared access to what an [`RwLock`] guards. Belongs to the thread that locked.
#[must_use = "the lock is released when the guard is dropped"]
pub struct RwLockReadGuard<'a, T> {
    guard: backend::RwLockReadGuard<'a, T>,
    _held: Held,
}

/// Exclusive access to what an [`RwLock`] guards. Belongs to the thread that locked.
#[must_use = "the lock is released when the guard is dropped"]
pub struct RwLockWriteGuard<'a, T> {
    guard: backend::RwLockWriteGuard<'a, T>,
    _held: Held,
}

impl<T> RwLock<T> {
    /// A lock of `rank` with order key 0: two of them are never held together, except by the `_nested` calls.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self::with_order(rank, 0, value)
    }

    /// A lock of `rank` that may be taken after others of the same rank with a lower `order`.
    pub const fn with_order(rank: Rank, order: u64, value: T) -> Self {
        RwLock {
            tag: Tag::new(rank, order),
            lock: backend::RwLock::new(value),
        }
    }

    /// Waits for shared access.
    ///
    /// # Panics
    /// In debug builds, if the thread holds a lock of a higher rank, or of this rank with an order key that is not lower.
    #[track_caller]
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let held = self.tag.acquire(Nesting::Strict);
        RwLockReadGuard {
            guard: self.lock.read(),
            _held: held,
        }
    }

    /// Waits for shared access; another lock of the same rank may be held (parent before child).
    ///
    /// # Panics
    /// In debug builds, if the thread holds a lock of a higher rank.
    #[track_caller]
    #[inline]
    pub fn read_nested(&self) -> RwLockReadGuard<'_, T> {
        let held = self.tag.acquire(Nesting::SameRank);
        RwLockReadGuard {
            guard: self.lock.read(),
            _held: held,
        }
    }

    /// Takes shared access unless that would wait, be it for a writer that waits itself. Any order is allowed.
    #[track_caller]
    #[inline]
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let guard = self.lock.try_read()?;
        Some(RwLockReadGuard {
            guard,
            _held: self.tag.acquire(Nesting::NoWait),
        })
    }

    /// Waits for exclusive access.
    ///
    /// # Panics
    /// In debug builds, if the thread holds a lock of a higher rank, or of this rank with an order key that is not lower.
    #[track_caller]
    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let held = self.tag.acquire(Nesting::Strict);
        RwLockWriteGuard {
            guard: self.lock.write(),
            _held: held,
        }
    }

    /// Waits for exclusive access; another lock of the same rank may be held (parent before child).
    ///
    /// # Panics
    /// In debug builds, if the thread holds a lock of a higher rank.
    #[track_caller]
    #[inline]
    pub fn write_nested(&self) -> RwLockWriteGuard<'_, T> {
        let held = self.tag.acquire(Nesting::SameRank);
        RwLockWriteGuard {
            guard: self.lock.write(),
            _held: held,
        }
    }

    /// Takes exclusive access unless that would wait. Any order is allowed.
    #[track_caller]
    #[inline]
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        let guard = self.lock.try_write()?;
        Some(RwLockWriteGuard {
            guard,
            _held: self.tag.acquire(Nesting::NoWait),
        })
    }

    /// The guarded value; no locking, since nobody else can have a reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }

    /// The guarded value, without its lock.
    pub fn into_inner(self) -> T {
        self.lock.into_inner()
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Says nothing about the value: taking the lock here could wait, or break the order of whoever prints.
impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").finish_non_exhaustive()
    }
}
