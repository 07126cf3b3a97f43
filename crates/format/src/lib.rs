//! What the bytes of an ext2 image mean: structures, checked numbers, geometry, errors.
