//! Check an ext2 image in five passes: the library and fsck.ext2dax.
