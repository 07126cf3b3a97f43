//! Threads for tests that run both on the machine and under the schedule explorer.
//!
//! The library itself starts no thread.

#[cfg(shuttle)]
pub use shuttle::thread::{JoinHandle, spawn, yield_now};
#[cfg(not(shuttle))]
pub use std::thread::{JoinHandle, spawn, yield_now};
