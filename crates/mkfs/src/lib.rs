//! Make an ext2 image: the library and `mkfs.ext2dax`.
//!
//! Plan first, then write: [`Plan::new`] decides and checks every number; [`Plan::write`] carries it out and can only fail
//! if the medium does. The shape is the one that mke2fs chooses for the same options, except that blocks are 4 KiB at
//! every size. Nothing here reads a clock or a random source: equal [`Options`] and contents make equal bytes.
//!
//! ```
//! use ext2dax_mkfs::{Options, Plan};
//! use ext2dax_pmem::{AnonRegion, Pmem};
//!
//! let plan = Plan::new(&Options::default(), 8 << 20)?;
//! let pmem = Pmem::new(AnonRegion::new(plan.len_bytes())?);
//! plan.write(&pmem)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Without the feature `std`, which is on by default, that is all: `alloc` is enough for it.
//!
//! With contents: a [`Tree`], built by hand or read from directories and archives, becomes a [`FilledPlan`], which knows the
//! place of every block. Without a UUID of its own the image gets one that follows from what is in it.
//!
//! ```
//! use ext2dax_mkfs::{Before, Filling, Medium, Meta, Tree};
//! use ext2dax_pmem::{AnonRegion, Pmem};
//!
//! let mut tree = Tree::new();
//! tree.file("etc/motd", Meta::new(0o644), *b"hello")?;
//! let mut filled = Filling::default().plan(tree)?;
//! let pmem = Pmem::new(AnonRegion::new(filled.len_bytes())?);
//! filled.write(&Medium::memory(&pmem), Before::Zeroes, |_| {})?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(feature = "std")]
mod attributes;
#[cfg(feature = "std")]
mod digest;
#[cfg(feature = "std")]
mod few;
#[cfg(feature = "std")]
mod filled;
#[cfg(feature = "std")]
mod layout;
#[cfg(feature = "std")]
mod make;
#[cfg(feature = "std")]
mod merge;
mod options;
#[cfg(feature = "std")]
mod parallel;
mod plan;
#[cfg(feature = "std")]
pub mod program;
#[cfg(feature = "std")]
mod rules;
#[cfg(feature = "std")]
mod source;
#[cfg(feature = "std")]
mod tree;
mod write;

#[cfg(feature = "std")]
pub use filled::{Align, FillError, FilledPlan, Filling, Free, Medium, Size};
#[cfg(feature = "std")]
pub use layout::Coverage;
#[cfg(feature = "std")]
pub use make::{make_file, make_memory};
#[cfg(feature = "std")]
pub use merge::{MergeError, MergePlan, Merged, Merging};
pub use options::{
    DEFAULT_BLOCK_SIZE, DEFAULT_INODE_SIZE, FIXED_TIME, Inodes, Options, Refusal, allowed_features,
    default_features, edit_features,
};
pub use plan::Plan;
#[cfg(feature = "std")]
pub use rules::{Attributes, Glob, IdMap, Owners, PathRule, Rules};
#[cfg(feature = "std")]
pub use source::scan::Holes;
#[cfg(feature = "std")]
pub use source::{SourceError, Why};
#[cfg(feature = "std")]
pub use tree::{Meta, Tree};
pub use write::{Before, Progress};
