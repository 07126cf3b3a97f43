//! Byte-addressable media: the region contract, its safe handle, providers and the recorder.
//!
//! A [`PmemRegion`] states facts about memory that holds an image: where, how long, how it becomes durable. [`Pmem`] is
//! the handle that everything above uses: typed offsets ([`Off`]) in, values out. No reference into a region is ever
//! formed, because a mapped program may store there at any moment; every access is an atomic of exact width or a copy
//! that tolerates change, and all of them stand in the module `raw`.
//!
//! # What a crash leaves
//! - A naturally aligned [`Pmem::store`] of 1, 2, 4 or 8 bytes survives whole or not at all.
//! - Ordered stores to one 64-byte line persist in program order (on x86-64; [`Pmem::line_order`] elsewhere).
//! - Lines are independent of each other until a [`Pmem::flush`] of the line and a [`Pmem::fence`] by the same thread.
//! - Bulk writes ([`Pmem::write`], [`Pmem::zero`], the copies) have no order at all until the fence: they only touch
//!   bytes that nothing published leads to, or file data.
//! - [`Pmem::publish`] is the one way to make something reachable: durable on return, with everything flushed before.
//!
//! What these sentences are worth depends on the medium: see [`Persist`].
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod buffer;
mod handle;
#[cfg(feature = "std")]
#[expect(
    unsafe_code,
    reason = "memory maps: the provider's promise to the region contract"
)]
mod map;
mod observer;
mod off;
#[cfg(feature = "std")]
mod open;
#[expect(
    unsafe_code,
    reason = "every load, store, copy and flush of the workspace"
)]
mod raw;
#[cfg(feature = "std")]
mod recorder;
mod word;

pub use buffer::Buffer;
pub use handle::Pmem;
#[cfg(feature = "std")]
pub use map::AnonRegion;
pub use observer::{Observer, Route};
pub use off::Off;
#[cfg(feature = "std")]
pub use open::{Access, FileRegion, Medium, OpenError};
pub use raw::region::{Persist, PmemRegion, SyncFailed};
pub use raw::resume_after_fault;
pub use raw::user::{UserSlice, UserSliceMut};
#[cfg(feature = "std")]
pub use recorder::{Event, EventKind, Recorder};
pub use word::Word;

/// Bytes of a cache line: what a flush writes back, and the unit in which stores keep their order.
pub const LINE: u64 = 64;
