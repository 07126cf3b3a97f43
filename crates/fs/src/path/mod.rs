//! Paths: the shape of `std::fs`, on a mounted image.
//!
//! | module | holds |
//! |---|---|
//! | `walk` | from a path to an inode: symlinks, `..`, trailing slashes |
//! | `options` | [`OpenOptions`]: how a file is opened or made |
//! | `file` | [`File`]: an open file with a cursor |
//! | `metadata` | [`Metadata`], [`Permissions`], [`FileTimes`] |
//! | `readdir` | [`ReadDir`], [`DirEntry`] |
//! | `view` | [`File::map`]: a file as memory in a Linux process |
//! | `ways` | directories that paths led to lately |
//! | `whole` | calls of [`FileSystem`](crate::FileSystem) that take a path |
//!
//! Paths are bytes: anything that is [`PathBytes`] will do, and nothing is decoded. A path begins at the root of the
//! file system, with or without a leading slash. Who calls is not asked: modes and owners are data here, and whoever
//! serves several users checks them first. Flags of inodes (immutable, append-only) bind everybody.

mod file;
mod metadata;
mod options;
mod readdir;
#[cfg(all(feature = "std", target_os = "linux"))]
mod view;
mod walk;
pub(crate) mod ways;
mod whole;

use alloc::string::String;
use alloc::vec::Vec;

use crate::mount::Mount;
use crate::ops::New;

pub use file::{File, SeekFrom};
pub use metadata::{FileTimes, Metadata, Permissions};
pub use options::OpenOptions;
pub use readdir::{DirEntry, ReadDir};
#[cfg(all(feature = "std", target_os = "linux"))]
pub use view::MappedFile;
pub use whole::DirBuilder;

/// A new file of the owner that the mount was given.
fn new_owned(mount: &Mount, mode: u16) -> New {
    New {
        mode,
        umask: 0,
        uid: mount.core.options.uid,
        gid: mount.core.options.gid,
        device: (0, 0),
    }
}

/// Something that can be read as a path: components of any bytes but `/` and NUL, with slashes between them.
pub trait PathBytes {
    /// The path as bytes.
    fn path_bytes(&self) -> &[u8];
}

impl<T: PathBytes + ?Sized> PathBytes for &T {
    fn path_bytes(&self) -> &[u8] {
        (**self).path_bytes()
    }
}

impl PathBytes for [u8] {
    fn path_bytes(&self) -> &[u8] {
        self
    }
}

impl<const N: usize> PathBytes for [u8; N] {
    fn path_bytes(&self) -> &[u8] {
        self
    }
}

impl PathBytes for Vec<u8> {
    fn path_bytes(&self) -> &[u8] {
        self
    }
}

impl PathBytes for str {
    fn path_bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PathBytes for String {
    fn path_bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

#[cfg(feature = "std")]
mod hosted {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};

    use super::PathBytes;

    impl PathBytes for OsStr {
        fn path_bytes(&self) -> &[u8] {
            self.as_bytes()
        }
    }

    impl PathBytes for OsString {
        fn path_bytes(&self) -> &[u8] {
            self.as_bytes()
        }
    }

    impl PathBytes for Path {
        fn path_bytes(&self) -> &[u8] {
            self.as_os_str().as_bytes()
        }
    }

    impl PathBytes for PathBuf {
        fn path_bytes(&self) -> &[u8] {
            self.as_os_str().as_bytes()
        }
    }
}
