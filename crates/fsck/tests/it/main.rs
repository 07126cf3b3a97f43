//! The library and its judge: e2fsck on the same images.

#![expect(
    clippy::print_stdout,
    reason = "skipped judges and seeds are said aloud"
)]

mod campaign;
mod hostile;
mod judge;
mod killed;
mod repairs;
mod samples;
mod shared_images;
mod verdict;
