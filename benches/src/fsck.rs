//! The checker beside e2fsck: images of the kinds that take time, and what one run of a program costs.

pub mod cost;
pub mod images;
pub mod large;
