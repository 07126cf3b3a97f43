//! The allocators on images that mke2fs made, judged by e2fsck.

mod image;
mod trees;
