//! Files over a vector of runs: content against a model, and what each step promises.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may fail by unwrapping; its numbers are small"
)]

mod behaviour;
mod freeze;
mod model;
mod pin;
mod support;
