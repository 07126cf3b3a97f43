//! The library and its judge: e2fsck on the same images.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "skips are said aloud; a test that cannot go on has failed"
)]

mod answers;
mod armed;
mod bad_blocks;
mod campaign;
mod classes;
mod codes;
mod findings;
mod hostile;
mod judge;
mod kernel;
mod killed;
mod lab;
mod optimize;
mod program;
mod repairs;
mod samples;
mod saved;
mod shared_images;
mod signals;
mod table;
mod target;
mod tree;
mod verdict;
