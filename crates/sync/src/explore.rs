//! The schedule explorer.
