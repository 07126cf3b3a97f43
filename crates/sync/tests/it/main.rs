//! Locks, gates and the schedule explorer.

#[cfg(shuttle)]
mod explore;
#[cfg(not(shuttle))]
mod hosted;
