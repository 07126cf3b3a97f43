//! Locks, gates and the schedule explorer.
#![cfg_attr(
    shuttle,
    expect(clippy::unwrap_used, reason = "a test may fail by unwrapping")
)]

#[cfg(shuttle)]
mod explore;
#[cfg(not(shuttle))]
mod hosted;
