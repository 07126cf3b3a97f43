//! The allocators on images that mke2fs made, judged by e2fsck.
#![expect(clippy::print_stdout, reason = "seeds, and which judge was missing")]

mod hostile;
mod image;
mod inodes;
mod model;
mod order;
mod placement;
mod space;
mod trees;
