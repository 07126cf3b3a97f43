//! Every load, store, copy and flush of the workspace.
//!
//! A [`Window`] is a checked piece of a region that it keeps alive. Its functions are safe: each checks its range
//! against the window and then performs one access. Memory of a region may be changed by mapped programs, by other
//! processes and by other threads at any moment, so accesses are either atomics or copies that the compiler cannot see
//! into (assembly on x86-64, atomics elsewhere); no reference to the bytes is formed.

mod copy;
mod flush;
pub(crate) mod region;
pub(crate) mod user;
mod window;

/// [`crate::LINE`] as the processor counts.
const LINE: usize = 64;

pub use copy::resume_after_fault;
pub(crate) use window::{Bits, Window};
