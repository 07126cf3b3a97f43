//! Tests that cross crates: images by others read by us, ours read by others, crash states.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "seeds and skipped judges are part of a test's answer; a panic is a failed test"
)]

mod attributes;
#[cfg(target_os = "linux")]
mod coherence;
mod crash;
mod crowd;
mod differential;
#[cfg(target_os = "linux")]
mod exerciser;
mod fixtures;
mod fsx;
mod hostile;
mod interop_model;
mod interop_read;
mod limits;
mod listing;
mod load;
mod measured_limits;
mod pjdfstest;
#[cfg(target_os = "linux")]
mod programs;
#[cfg(target_os = "linux")]
mod real_faults;
#[cfg(target_os = "linux")]
mod scale;
mod scratch;
mod turns;
mod uncounted;
