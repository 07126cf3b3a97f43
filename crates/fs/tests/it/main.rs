//! Integration tests: whole file systems on images of every shape, judged by e2fsprogs and by the kernel.

mod image;
mod names;
mod random;
