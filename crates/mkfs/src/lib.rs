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
//!
//! What the program can, these can: it is a parser of options around them. Rules say what becomes of a source, sources are
//! layers, a [`Filling`] says what shapes the image, and [`Merging`] puts a tree into an image that is there.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # std::fs::create_dir_all(dir.path().join("rootfs/etc"))?;
//! # std::fs::write(dir.path().join("rootfs/etc/hosts"), "127.0.0.1 localhost")?;
//! # std::fs::write(dir.path().join("rootfs/etc/hosts.o"), "")?;
//! # std::env::set_current_dir(dir.path())?;
//! use ext2dax_mkfs::{Before, Filling, Free, Glob, Medium, Options, Owners, Rules, Size, Tree};
//! use ext2dax_pmem::{Access, FileRegion, Pmem};
//!
//! let rules = Rules {
//!     exclude: vec![Glob::new("*.o")],
//!     owners: Owners::All(0, 0),
//!     ..Rules::default()
//! };
//! let mut tree = Tree::new();
//! tree.add_directory("rootfs", &rules, 2)?;
//! // Another layer: tree.add_tar("layer.tar.zst", &rules, ".")?; nodes: tree.add_device_table("devices")?;
//! let filling = Filling {
//!     options: Options {
//!         label: b"root".to_vec(),
//!         ..Options::with_block_size(1024)
//!     },
//!     size: Size::Smallest,
//!     free: Free::Bytes(1 << 20),
//!     threads: 2,
//!     ..Filling::default()
//! };
//! // Everything that can be refused is refused here, with the size that is needed.
//! let mut filled = filling.plan(tree)?;
//! std::fs::File::create_new("disk.img")?.set_len(filled.len_bytes())?;
//! let region = FileRegion::open("disk.img", Access::ReadWrite)?;
//! let file = region.file().try_clone()?;
//! let pmem = Pmem::new(region);
//! filled.write(&Medium::file(&pmem, &file, 0), Before::Zeroes, |_| {})?;
//! assert_eq!(filled.files(), 4); // the root, lost+found, etc, hosts
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
