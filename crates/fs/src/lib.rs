//! An ext2-compatible DAX file system: mount an image and work on it in place.
