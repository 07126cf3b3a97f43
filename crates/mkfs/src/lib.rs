//! Make an ext2 image: the library and mkfs.ext2dax.
