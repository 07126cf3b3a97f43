//! Micro benches, and ext2dax beside its peers in one run.
