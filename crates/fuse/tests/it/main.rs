//! The server behind real mounts: every call below goes through the kernel.

#![cfg(target_os = "linux")]

mod attributes;
mod contents;
mod mounted;
mod names;
mod reserve;
mod server;

use mounted::Mount;
