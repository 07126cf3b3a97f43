//! The server behind real mounts: every call below goes through the kernel.

#![cfg(target_os = "linux")]

mod mounted;
mod names;

use mounted::Mount;
