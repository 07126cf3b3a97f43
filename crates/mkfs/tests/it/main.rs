//! Images that other tools judge, and the program.

#![expect(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod contents;
mod devices;
mod differences;
mod geometry;
mod hosts;
mod images;
mod judge;
mod matrix;
mod merge;
mod once;
mod program;
mod refusals;
mod sharing;
mod tree;
mod trees;
