//! The page-fault handler: fault and mkwrite, the soft MMU and the MMU of a Linux process.
//!
//! [`handle`] decides on one access that no translation permits: it maps a block or the zero page, fills a hole, copies
//! for a private view, or says why not. It knows neither traps nor page tables: a platform catches the trap, finds the
//! view, calls `handle`, and makes the translations through the [`PageTable`](ext2dax_dax::PageTable) of the view.
//!
//! Two platforms live here: [`soft_mmu`], page tables and CPUs in memory, under which whole mmap programs run in the
//! schedule explorer; and `host`, a Linux process.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod handle;
#[cfg(all(feature = "std", target_os = "linux"))]
#[expect(
    unsafe_code,
    reason = "the MMU of a Linux process is made of system calls on addresses"
)]
pub mod host;
mod outcome;
pub mod soft_mmu;

pub use handle::handle;
pub use outcome::{Bus, Fault, Outcome};
