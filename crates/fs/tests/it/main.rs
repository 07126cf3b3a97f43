//! Integration tests: whole file systems on images of every shape, judged by e2fsprogs and by the kernel.

mod contents;
mod damage;
mod fences;
mod hidden;
mod image;
mod kernel;
mod limits;
mod nameless;
mod names;
mod paths;
mod random;
mod ranges;
mod state;
mod threads;
mod xattr;
mod xattr_damage;
