//! What a request means, in this project's terms: files are [`Inode`]s, errors are [`Errno`]s, and nothing here knows how
//! a request arrived or how its answer leaves.
//!
//! | module | holds |
//! |---|---|
//! | `names` | look-up, making, removing and moving names, listing directories |
//! | `attributes` | getattr, setattr, what open allows |
//! | `contents` | read, write, allocate, seek, copy, sync |
//! | `flags` | ioctl: flags, version, extended flags |
//! | `xattr` | extended attributes and access control lists |
//!
//! Permissions are the kernel's to check (`default_permissions`), before a request comes here. What it cannot check,
//! because only the file system knows, is checked here: immutable and append-only flags, and who may set them, and who may
//! use reserved blocks.
//!
//! # Locking
//! No lock of its own besides the table's shards: requests meet in the file system or not at all.

mod attributes;
mod contents;
mod flags;
mod names;
mod xattr;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ext2dax::{Attributes, Error, FileSystem, Inode, Reserve, ReserveGuard, StatFs};

use crate::nodes::{Nodes, ROOT};

pub use attributes::{Change, Time};
pub use contents::Seek;
pub use names::{Listed, NewNode, Taken};

/// An error as the kernel takes it: a positive number of `errno.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub(crate) const EPERM: Self = Self(1);
    pub(crate) const EINVAL: Self = Self(22);
    pub(crate) const ENOTTY: Self = Self(25);
    pub(crate) const ENOSPC: Self = Self(28);
    pub(crate) const ENOSYS: Self = Self(38);
    pub(crate) const EOPNOTSUPP: Self = Self(95);
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        Self(error.errno())
    }
}

/// An answer, or the error that the caller sees.
pub type Answer<T> = Result<T, Errno>;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group; supplementary groups are not told.
    pub gid: u32,
    /// Process, 0 if it cannot be named here.
    pub pid: u32,
}

impl Caller {
    fn is_root(self) -> bool {
        self.uid == 0
    }

    /// Whether the group is his, or one of his supplementary groups, which only the process itself can tell.
    fn is_in_group(self, gid: u32) -> bool {
        self.gid == gid || supplementary_groups(self.pid).contains(&gid)
    }
}

/// Empty if the process is gone or cannot be looked at.
fn supplementary_groups(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    groups
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|group| group.parse().ok())
        .collect()
}

/// What the server does differently on request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Each change of names is durable on return, whatever the medium.
    pub dirsync: bool,
    /// Everybody acts as root.
    pub fakeroot: bool,
}

/// Serves one mounted file system.
#[derive(Debug)]
pub struct Server {
    /// For the end: requests reach the file system through the files that they name.
    fs: Mutex<Option<FileSystem>>,
    nodes: Nodes,
    behaviour: Behaviour,
    reserve: Reserve,
    /// Forgets that are under way.
    forgetting: AtomicUsize,
}

/// How long a request without room waits for files that are being given back.
const PATIENCE: Duration = Duration::from_secs(2);

impl Server {
    /// A server for `fs` that knows its root directory.
    ///
    /// # Errors
    /// `Corrupt` if the root directory cannot be read.
    pub fn new(fs: FileSystem, behaviour: Behaviour) -> Result<Self, Error> {
        let nodes = Nodes::new(fs.root()?);
        Ok(Self {
            reserve: fs.reserve(),
            fs: Mutex::new(Some(fs)),
            nodes,
            behaviour,
            forgetting: AtomicUsize::new(0),
        })
    }

    /// The file behind a number of the kernel's.
    fn node(&self, node: u64) -> Answer<Arc<Inode>> {
        Ok(self.nodes.get(node)?)
    }

    /// Whether these are the root directory's.
    #[must_use]
    pub fn is_root(&self, attributes: &Attributes) -> bool {
        self.nodes.is_root(attributes.ino)
    }

    /// The kernel has forgotten `times` look-ups of a file.
    pub fn forget(&self, node: u64, times: u64) {
        self.forgetting.fetch_add(1, Ordering::SeqCst);
        self.nodes.forget(node, times);
        self.forgetting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits for forgets that have begun: the kernel forgets a file behind the answer to its unlink, and nobody else
    /// waits for that.
    fn settle(&self) {
        let since = Instant::now();
        while self.forgetting.load(Ordering::SeqCst) > 0 && since.elapsed() < PATIENCE {
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Does what may find no room, and does it once more if it did: what was removed just now may not be free yet.
    fn with_room<T>(&self, mut attempt: impl FnMut() -> Answer<T>) -> Answer<T> {
        match attempt() {
            Err(Errno::ENOSPC) => {
                // For a forget that another event loop has read and not begun.
                thread::sleep(Duration::from_millis(1));
                self.settle();
                attempt()
            }
            answer => answer,
        }
    }

    /// Sizes and counts.
    ///
    /// # Errors
    /// `ESTALE` when the mount is over.
    pub fn statfs(&self) -> Answer<StatFs> {
        self.settle();
        Ok(self.node(ROOT)?.file_system().statfs())
    }

    /// Ends: lets go of every file that the kernel knew, and unmounts the file system. Requests that are under way come
    /// to their end first; later ones get `ESTALE`.
    ///
    /// # Errors
    /// `Io` if the image could not be made durable; `Busy` if a request did not end, or somebody else has handles.
    pub fn close(&self) -> Result<(), Error> {
        self.nodes.close();
        let fs = self
            .fs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        fs.map_or(Ok(()), FileSystem::unmount)
    }

    /// While the guard lives, blocks are taken for `caller`, who may use the reserved ones or may not. What the kernel writes
    /// by itself, from mapped pages or its cache, comes as root's: it was accepted when it was stored.
    pub fn acting_for(&self, caller: Caller) -> ReserveGuard {
        let open = |group| caller.is_in_group(group);
        ReserveGuard::new(self.behaviour.fakeroot || self.reserve.is_open_to(caller.uid, open))
    }

    /// Ends a change of names in `dir`.
    fn changed(&self, dir: &Inode) -> Answer<()> {
        if self.behaviour.dirsync {
            dir.file_system().sync()?;
        }
        Ok(())
    }

    /// Keeps `inode` for the kernel and answers its attributes.
    fn found(&self, inode: Inode) -> Answer<Attributes> {
        self.known(Arc::new(inode))
    }

    fn known(&self, inode: Arc<Inode>) -> Answer<Attributes> {
        let attributes = inode.attributes()?;
        self.nodes.remember(inode);
        Ok(attributes)
    }
}
