//! The handle over every provider.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may fail by unwrapping; its numbers are small"
)]

mod handle;
mod observed;
mod providers;

/// Takes a result that a test does not look at.
fn ignore<T>(_: T) {}
