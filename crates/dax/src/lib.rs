//! Files as memory: address space, read, write, zero, sync over a block map.
//!
//! A [`DaxFile`] joins three things that do not know each other: a [`BlockMap`] that says where the blocks of a file are,
//! the medium ([`Pmem`](ext2dax_pmem::Pmem)), and any number of [`View`]s, whose translations a platform makes through
//! its [`PageTable`]. There is no page cache: a view shows the blocks themselves, and read and write copy from and to
//! them. What remains to be kept is who may translate what, and when: that is the [`AddressSpace`].
//!
//! The crate does not know ext2. It knows no paths, no users and no time; it starts no thread and holds no global.
//!
//! # Invariants
//! * F-1: a live translation or pin of a block means that the block is the file's (or in quarantine).
//! * F-3: a unit that has a block shows the zero page to nobody, unless an operation on it is in progress.
//! * F-4: a writable translation means that its entry is dirty or locked.
//! * F-5: the size changes only under INODE and INVALIDATE exclusive.
//! * F-6: what a growing size uncovers reads as zeroes, apart from what the operation wrote.
//! * F-7: at rest no block is attached past the end of the file.
//!
//! # Locking
//! The caller holds what stands above this crate in the lock table (`ext2dax_sync::rank`): GATE_WRITE and INODE
//! exclusively for everything that changes the file, INODE shared for reading and seeking. The methods say so, and debug
//! builds check. While the caller's memory is touched nothing of rank INVALIDATE or above is held, because that memory may
//! be a view and fault.
//!
//! # Sizes
//! Blocks of 1 to 64 KiB can be read and written. Views and pins need blocks of at least a page: a file with smaller ones
//! answers `NotSupported` to [`DaxFile::attach`] and [`DaxFile::pin`].
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod blockmap;
mod copy;
mod entry;
mod file;
mod gates;
mod pagetable;
mod pins;
mod punch;
mod read;
mod resize;
mod seek;
mod space;
mod stable;
#[cfg(feature = "testing")]
pub mod vecmap;
mod view;
mod write;
mod writeback;

pub use blockmap::{Allocated, BlockMap, Extent, Filled};
pub use entry::{Kind, Word};
pub use file::DaxFile;
pub use gates::{Frozen, Gates};
pub use pagetable::{Frame, MapError, PageTable, Prot};
pub use pins::{PinGuard, PinMode, Segment};
pub use seek::FileExtent;
pub use space::{AddressSpace, EntryGuard, NotLocked};
pub use stable::StableGuard;
pub use view::{LastView, View, ViewSpec};

/// Binary logarithm of the page, the unit of translation.
pub const PAGE_BITS: u32 = 12;
/// The page in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_BITS;
