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

use std::fs::File;
use std::path::Path;

use ext2dax_pmem::{Access, AnonRegion, FileRegion, Pmem};

mod attributes;
mod digest;
mod filled;
mod layout;
mod options;
mod parallel;
mod plan;
pub mod program;
mod rules;
mod source;
mod tree;
mod write;

pub use filled::{Align, FillError, FilledPlan, Filling, Free, Medium, Size};
pub use layout::Coverage;

pub use options::{
    DEFAULT_BLOCK_SIZE, DEFAULT_INODE_SIZE, FIXED_TIME, Inodes, Options, Refusal, allowed_features,
    default_features, edit_features,
};
pub use plan::Plan;
pub use rules::{Attributes, Glob, IdMap, Owners, PathRule, Rules};
pub use source::scan::Holes;
pub use source::{SourceError, Why};
pub use tree::{Meta, Tree};
pub use write::{Before, Progress};

/// Makes an image as a new sparse file, `len` bytes long less what is no whole block or group. A file of that name is
/// emptied first.
///
/// # Errors
/// What the operating system says, or a [`Refusal`].
pub fn make_file(path: impl AsRef<Path>, options: &Options, len: u64) -> anyhow::Result<Plan> {
    let path = path.as_ref();
    let plan = Plan::new(options, len)?;
    File::create(path)?.set_len(len)?;
    let region = FileRegion::open(path, Access::ReadWrite)?;
    plan.write_with(&Pmem::new(region), Before::Zeroes, |_| {})?;
    Ok(plan)
}

/// Makes an image in memory.
///
/// # Errors
/// No memory, or a [`Refusal`].
pub fn make_memory(options: &Options, len: u64) -> anyhow::Result<Pmem> {
    let plan = Plan::new(options, len)?;
    let pmem = Pmem::new(AnonRegion::new(plan.len_bytes())?);
    plan.write_with(&pmem, Before::Zeroes, |_| {})?;
    Ok(pmem)
}
