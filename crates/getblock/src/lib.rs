//! Block trees and allocators: which block holds what, and who may have the free ones.
//!
//! | Module | Holds |
//! |---|---|
//! | [`volume`] | [`Volume`]: one mounted file system's groups, counters and zones |
//! | `groups` | the group table, filled in when a group is first touched |
//! | `bitmap` | bits on the medium |
//! | `place` | where new blocks go: goals, 2 MiB windows, page clusters, packing |
//! | [`inodes`] | inode numbers: where new inodes go, generations |
//! | [`tree`] | [`BlockTree`]: look-up, growth and detaching of one inode's blocks |
//! | [`token`] | proofs that blocks are new, written, or unreachable |
//!
//! # Invariants
//! * A bitmap is a superset of what the trees reach: bits are set and flushed before the fence that precedes a pointer,
//!   and cleared after the fence that follows the pointer's end.
//! * A pointer is stored only when everything under it is complete and durable ([`Zeroed`]).
//! * Every number read from the medium is checked: in range, and not in the file system's own tables. Depth comes from
//!   the index alone, so a loop on the medium cannot loop here.
//! * Opening reads nothing but the superblock; a group costs its descriptor and one count of bits when first touched.
//!
//! # Locking
//! `TREE` (one [`BlockTree`]'s guard) before `GROUP` (inside the allocator, one at a time). Look-up takes no lock.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod bitmap;
mod claim;
mod desks;
mod groups;
pub mod inodes;
mod place;
pub mod survey;
pub mod token;
pub mod tree;
pub mod volume;

pub use inodes::{Placement, Tentative};
pub use survey::{Owner, Reclaimed, Survey};
pub use token::{Detached, Epoch, Fresh, Pending, Zeroed};
pub use tree::{BlockTree, Branch, Hints, Intent, Mapping, TreeGuard};
pub use volume::{Counts, Options, Volume};
