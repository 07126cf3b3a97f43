//! ext2dax beside its peers, in one run.
//!
//! Machines are shared and noisy, so nothing here asserts a time. Each comparison interleaves its contenders round by
//! round and reports medians and ratios: what one run says of all of them is worth more than two runs apart.

pub mod bulk;
pub mod fsck;
pub mod fusemount;
pub mod loopmount;
pub mod micro;
pub mod mkfs;
pub mod ours;
pub mod pairs;
pub mod peers;
pub mod rows;
pub mod sample;
pub mod table;
pub mod tmpfs;
pub mod trees;
