//! What the bytes of an ext2 image mean: structures, checked numbers, geometry, errors.
//!
//! Everything here is pure: no region, no lock, no allocation. The `Raw...` structures are the bytes as they lie on the
//! medium, little-endian, with the specification's field names. They are not trusted. [`Geometry`] is the one door
//! through which a number from the medium becomes a typed value ([`FsBlock`], [`Ino`], [`GroupNr`], [`Run`]) or an
//! error that says what is wrong and where: holding an [`FsBlock`] means that it was checked.
//!
//! # On disk
//! *The Second Extended File System: Internal Layout* (Dave Poirier, nongnu.org/ext2-doc); Linux
//! `Documentation/filesystems/ext4/*.rst` for the fields that came later.

#![cfg_attr(not(feature = "std"), no_std)]
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    expect(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        reason = "a test may panic: that is how it fails"
    )
)]

pub mod acl;
pub mod bitmap;
pub mod block;
pub mod corrupt;
pub mod device;
pub mod dirent;
pub mod error;
pub mod features;
pub mod geometry;
pub mod group;
pub mod htree;
pub mod indirect;
pub mod inode;
pub mod signature;
pub mod slot;
pub mod superblock;
pub mod time;
pub mod xattr;

pub use block::{FileBlock, FsBlock, GroupNr, Ino, Run};
pub use corrupt::CorruptKind;
pub use error::{Error, Result};
pub use features::{Compat, Features, Incompat, RoCompat};
pub use geometry::Geometry;
pub use group::{GroupDesc, RawGroupDesc};
pub use inode::{FileType, InodeFlags, RawInode, RawInodeExtra};
pub use superblock::RawSuperblock;
pub use time::Timestamp;

/// Names and pathname components are at most this many bytes long.
pub const NAME_MAX: usize = 255;

/// A file has at most this many names, a directory at most this many less two subdirectories.
pub const LINK_MAX: u16 = 32_000;

#[cfg(test)]
mod sample;
