//! What a lock is made of: one interface, three implementations.

#[cfg(shuttle)]
mod explored;
#[cfg(all(feature = "std", not(shuttle)))]
mod hosted;
pub(crate) mod spinning;

#[cfg(shuttle)]
pub(crate) use explored::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, point, relax,
};
#[cfg(all(feature = "std", not(shuttle)))]
pub(crate) use hosted::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, relax,
};
#[cfg(not(any(feature = "std", shuttle)))]
pub(crate) use spinning::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, relax,
};
