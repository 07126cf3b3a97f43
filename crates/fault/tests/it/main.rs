//! Faults over a small block map: on the MMU in memory, and real ones on the MMU of this process.

#![expect(
    clippy::print_stdout,
    reason = "a test says which modes it ran in, and its seed"
)]

#[cfg(target_os = "linux")]
mod host;
mod soft;
