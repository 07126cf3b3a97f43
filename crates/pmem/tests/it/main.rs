//! The handle over every provider.

mod handle;
