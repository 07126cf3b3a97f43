//! An ext2-compatible DAX file system: mount an image and work on it in place.
//!
//! A file's pages *are* the image's blocks: there is no page cache, no block layer and no journal. Every change is
//! prepared where nobody looks, made durable, and published by one aligned store, in an order in which every state that a
//! crash can leave is one that the stock checker repairs without asking.
//!
//! Two layers: inodes ([`Inode`]) for FUSE servers and kernels, and paths in the manner of `std::fs` ([`File`],
//! [`OpenOptions`], [`Metadata`], [`ReadDir`]) for programs. [`FileSystem`] is `Clone + Send + Sync`; every operation takes
//! `&self`, and there is no big lock.
//!
//! No threads, no globals, no page cache. Paths, users and times are known in this crate and in none below it.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod clock;
mod dir;
mod inode;
mod mount;
mod ops;
mod options;
mod orphan;
mod path;
mod reclaim;
mod recovery;
mod reserve;
mod scrub;
mod slots;
mod state;
mod xattr;

pub use clock::Clock;
#[cfg(feature = "std")]
pub use clock::SystemClock;
pub use dir::{Entry, EntryRef};
/// What a page table of an embedder implements, and what it is asked to map.
pub use ext2dax_dax as dax;
pub use ext2dax_dax::FileExtent;
/// The fault handler, the soft MMU, and on Linux the MMU of a process.
pub use ext2dax_fault as fault;
pub use ext2dax_format::device::Device;
/// What happens when damage is found.
pub use ext2dax_format::signature::looks_like;
pub use ext2dax_format::superblock::OnError;
pub use ext2dax_format::{Error, FileType, InodeFlags, Result, Timestamp};
/// The regions that images lie in, and how they become durable.
pub use ext2dax_pmem as pmem;
pub use inode::{Attributes, Fallocate, Inode, Map, SetAttributes, Window};
pub use mount::{FileSystem, StatFs};
pub use ops::{New, RenameFlags};
pub use options::{Atime, MountOptions, StatfsStyle};
#[cfg(all(feature = "std", target_os = "linux"))]
pub use path::MappedFile;
pub use path::{
    DirBuilder, DirEntry, File, FileTimes, Metadata, OpenOptions, PathBytes, Permissions, ReadDir,
    SeekFrom,
};
pub use reserve::Reserve;
#[cfg(feature = "std")]
pub use reserve::ReserveGuard;
pub use xattr::{SetXattr, XATTR_NAME_MAX, XATTR_VALUE_MAX};
