//! Tests that cross crates: images by others read by us, ours read by others, crash states.

mod crash;
mod fixtures;
mod hostile;
mod interop_model;
mod interop_read;
#[cfg(target_os = "linux")]
mod real_faults;
mod scratch;
