//! Model, crash-state enumerator, outside judges and cross-crate tests.

pub mod crash;
