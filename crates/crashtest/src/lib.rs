//! Model, crash-state enumerator, outside judges and cross-crate tests.
//!
//! | module | holds |
//! |---|---|
//! | [`crash`] | every state that a crash can leave, from a recorder's log |
//! | [`exerciser`] | one file by every route at once, beside a vector of bytes |
//! | [`hostile`] | images with bad numbers, and everything that is done with them |
//! | [`judge`] | e2fsck, debugfs, our fsck: verdicts on an image |
//! | [`kernel`] | an image mounted by the kernel |
//! | [`pjdfstest`] | a POSIX test suite, run on a mounted directory |
//! | [`progress`] | how far a long run is |
//! | [`served`] | an image mounted by ours through FUSE |
//! | [`tree`] | a whole file system in memory, read through any of the three, and the differences of two |
//! | [`model`] | a file system in memory that says what each operation must do |
//! | [`differential`] | the same operations on several systems at once, and where they may differ |
//! | [`drive`] | the same operations on ours, on the kernel's, and their random supply |

#![expect(
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    reason = "a library for tests on 64-bit hosts: a panic is a failed test"
)]

pub mod crash;
pub mod differential;
pub mod drive;
pub mod exerciser;
pub mod hostile;
pub mod judge;
pub mod kernel;
pub mod model;
pub mod pjdfstest;
pub mod progress;
pub mod served;
pub mod tree;
