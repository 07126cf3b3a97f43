//! The ext2dax tool: look into an image, and the demonstration.
