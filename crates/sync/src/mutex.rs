//! Mutual exclusion with a rank.

use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::backend;
use crate::rank::{Held, Nesting, Rank, Tag};

/// A mutual exclusion lock with a place in the lock table.
pub struct Mutex<T> {
    tag: Tag,
    lock: backend::Mutex<T>,
}

/// Access to what a [`Mutex`] guards. Dropping it unlocks. Belongs to the thread that locked.
#[must_use = "the mutex is unlocked when the guard is dropped"]
pub struct MutexGuard<'a, T> {
    // Unlocked first, then forgotten by the order check.
    pub(crate) guard: backend::MutexGuard<'a, T>,
    pub(crate) held: Held,
}

impl<T> Mutex<T> {
    /// A lock of `rank` with order key 0: two of them are never held together, except by [`Mutex::lock_nested`].
    pub const fn new(rank: Rank, value: T) -> Self {
        Self::with_order(rank, 0, value)
    }

    /// A lock of `rank` that may be taken after others of the same rank with a lower `order`.
    pub const fn with_order(rank: Rank, order: u64, value: T) -> Self {
        Mutex {
            tag: Tag::new(rank, order),
            lock: backend::Mutex::new(value),
        }
    }

    /// Waits for the lock.
    ///
    /// # Panics
    /// In debug builds, if the thread holds a lock of a higher rank, or of this rank with an order key that is not lower.
    #[track_caller]
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.lock_as(Nesting::Strict)
    }

    /// Waits for the lock; another one of the same rank may be held. The caller has a rule of its own for their order.
    ///
    /// # Panics
    /// In debug builds, if the thread holds a lock of a higher rank.
    #[track_caller]
    #[inline]
    pub fn lock_nested(&self) -> MutexGuard<'_, T> {
        self.lock_as(Nesting::SameRank)
    }

    #[track_caller]
    #[inline]
    fn lock_as(&self, nesting: Nesting) -> MutexGuard<'_, T> {
        let held = self.tag.acquire(nesting);
        MutexGuard {
            guard: self.lock.lock(),
            held,
        }
    }

    /// Takes the lock if nobody holds it. Never waits, so any order is allowed.
    #[track_caller]
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let guard = self.lock.try_lock()?;
        Some(MutexGuard {
            guard,
            held: self.tag.acquire(Nesting::NoWait),
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

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Says nothing about the value: taking the lock here could wait, or break the order of whoever prints.
impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}
