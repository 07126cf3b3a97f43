//! Serves a mounted [`FileSystem`](ext2dax::FileSystem) through FUSE.
//!
//! | module | holds |
//! |---|---|
//! | `options` | what `-o` may say, and what it means |
//! | `mount` | attaching to a directory and taking off, with and without the right to mount |
//! | `session` | a mount from its beginning to its end |
//! | `follow` | event loops that follow the program that they serve to its processor |
//! | `adapter` | between the protocol crate and the server |
//! | `server` | what a request means: independent of the protocol crate |
//! | `nodes` | the files that the kernel knows |
//!
//! The server is the image's only writer, so the kernel may keep names, attributes and pages until it changes them itself.
//! Requests run on several event loops and share no lock but those of the files that they are about.
//!
//! This crate starts threads: the event loops, and one that watches where they run, for as long as a mount lasts.
//!
//! ```no_run
//! use ext2dax::{FileSystem, pmem};
//! use ext2dax_fuse::{Options, mount};
//!
//! let options = Options::parse("ro,allow_other")?;
//! let region = pmem::FileRegion::open("disk.img", options.access())?;
//! let fs = FileSystem::mount(region, &options.mount_options())?;
//! mount(fs, "/mnt".as_ref(), &options.serve_options("disk.img"))?.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg(target_os = "linux")]

mod adapter;
mod follow;

mod mount;
mod nodes;
mod options;
pub mod server;
mod session;

pub use mount::{KernelOptions, directory};
pub use options::{LISTED as LISTED_OPTIONS, Options, Refusal};
pub use session::{Ender, MountError, Mounted, ServeOptions, mount};
