//! Operations on names, by the order table of the crash rules.
//!
//! | module | holds |
//! |---|---|
//! | `create` | create, mknod, mkdir, symlink: a dead inode gets a name, then life |
//! | `link` | another name for a live inode |
//! | `unlink` | unlink, rmdir: life goes first, then the name |
//! | `rename` | what a rename is asked to do, which locks it takes, which row of the table it follows |
//! | `rename_file`, `rename_dir` | the rows |
//! | `temporary` | links that keep a file's count honest while a rename replaces its last name |
//!
//! Each operation is a list of epochs: stores and flushes closed by a fence. An `// EPOCH:` comment says at each fence what
//! is durable from there on and what a crash in the epoch before it leaves. What no single store can do is noted in an
//! intent, durable with the first epoch, from which the next mount completes or undoes it: see `recovery`.
//!
//! # Locking
//! Locks are held to the operation's last fence (rule R13), so nobody builds on a store that a crash could take back. The
//! order is RENAME, then INODE: parent before child, unrelated inodes by number.

mod create;
mod link;
mod rename;
mod rename_dir;
mod rename_file;
mod temporary;
pub(crate) mod unlink;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use ext2dax_format::{CorruptKind, Error, FileBlock, FileType, Result};
use ext2dax_getblock::Mapping;

use crate::dir::{self, Entry};
use crate::inode::lifetime::Handle;
use crate::inode::{Attributes, Node, Record, attr};
use crate::mount::Mount;

pub(crate) use create::{create, mkdir, mknod, symlink, tmpfile};
pub(crate) use link::link;
pub use rename::RenameFlags;
pub(crate) use rename::{rename, rename_with};
pub(crate) use temporary::{ENTRY as TEMPORARY_ENTRY, Temporaries};
pub(crate) use unlink::{rmdir, unlink};

/// What a new file starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct New {
    /// Permission bits with set-id and sticky bits; for `mknod` the type bits as well.
    pub mode: u16,
    /// Permission bits to be left out, unless the directory has a default access control list, which stands in for them.
    pub umask: u16,
    /// Owner.
    pub uid: u32,
    /// Group. A directory with the set-group-id bit hands its own down instead.
    pub gid: u32,
    /// Major and minor number of a device; (0, 0) for everything else.
    pub device: (u32, u32),
}

/// The inode that `name` leads to; `.` and `..` are names like others.
///
/// # Errors
/// `NotADirectory`, `NotFound`, `NameTooLong`, `Corrupt`.
pub(crate) fn lookup(mount: &Mount, parent: &Node, name: &[u8]) -> Result<Arc<Node>> {
    if name.len() > ext2dax_format::NAME_MAX {
        return Err(Error::NameTooLong);
    }
    dir::lookup(parent, name, |found| named(mount, found.ino))
}

/// The same for a directory on the way to another, which is marked as passed if it is one.
///
/// # Errors
/// As [`lookup`].
pub(crate) fn pass(mount: &Mount, parent: &Node, name: &[u8]) -> Result<Arc<Node>> {
    dir::lookup(parent, name, |found| {
        let node = named(mount, found.ino)?;
        if node.is_dir() {
            node.mark_passed();
        }
        Ok(node)
    })
}

/// The same with a handle, which is counted before anybody can remove the name.
///
/// # Errors
/// As [`lookup`].
pub(crate) fn open(mount: &Arc<Mount>, parent: &Node, name: &[u8]) -> Result<Handle> {
    if name.len() > ext2dax_format::NAME_MAX {
        return Err(Error::NameTooLong);
    }
    dir::lookup(parent, name, |found| {
        named(mount, found.ino).map(|node| Handle::adopt(mount, node))
    })
}

/// The inode of a name that was found. The directory's lock is held. A name that leads to a dead inode is what a crash in
/// a creation or a removal leaves: there is no such file.
fn named(mount: &Mount, ino: u32) -> Result<Arc<Node>> {
    let core = &mount.core;
    match mount.inodes.get(core, core.geometry.ino(ino)?) {
        Err(Error::Stale) => Err(Error::NotFound),
        other => other,
    }
}

/// The attributes of what `name` leads to, read from the medium under the directory's lock.
///
/// # Errors
/// As [`lookup`].
pub(crate) fn attributes(mount: &Mount, parent: &Node, name: &[u8]) -> Result<Attributes> {
    let core = &mount.core;
    dir::lookup(parent, name, |found| {
        let attributes = attr::read(core, core.geometry.ino(found.ino)?)?;
        // A name of a dead inode is what a crash leaves: there is no such file.
        if attributes.links == 0 {
            Err(Error::NotFound)
        } else {
            Ok(attributes)
        }
    })
}

/// See [`dir::read_dir`].
pub(crate) fn read_dir(_mount: &Mount, node: &Node, cookie: u64, max: usize) -> Result<Vec<Entry>> {
    dir::read_dir(node, cookie, max)
}

/// The text of a symlink.
///
/// # Errors
/// `InvalidArgument` if this is none; `Corrupt` if its length or its block is impossible.
pub(crate) fn read_link(mount: &Mount, node: &Node) -> Result<Box<[u8]>> {
    if node.file_type() != FileType::Symlink {
        return Err(Error::InvalidArgument);
    }
    let core = &mount.core;
    let _inode = node.lock.read();
    node.check_alive()?;
    let record = node.record();
    let size = record.size();
    let fast = record.is_fast_symlink();
    let max = if fast {
        60
    } else {
        u64::from(core.geometry.block_size())
    };
    let wrong = Error::Corrupt(CorruptKind::SymlinkLength {
        inode: node.ino().get(),
        size,
        max,
    });
    if size == 0 || size > max {
        return Err(wrong);
    }
    let len = usize::try_from(size).map_err(|_| wrong)?;
    if fast {
        return Ok(record.block_bytes()[..len].into());
    }
    record.check_contents()?;
    match node.tree().lookup(FileBlock(0), 1)? {
        Mapping::Hole(_) => Err(wrong),
        Mapping::Existing(run) | Mapping::New(run) => {
            let mut text = vec![0; len];
            core.pmem.read(core.geometry.offset(run.start), &mut text);
            Ok(text.into())
        }
    }
}

/// A subdirectory's `..` counts from now on; flushed. A count of 1 stands for more than can be counted (`dir_nlink`), and
/// stays.
fn add_subdirectory(parent: &Record) {
    let links = parent.links();
    if links != 1 {
        parent.put_links(links + 1);
    }
}

/// Names that an operation can make or remove: `.` and `..` are none.
fn check_name(name: &[u8], dots: Error) -> Result<()> {
    if name == b"." || name == b".." {
        return Err(dots);
    }
    ext2dax_format::dirent::check_name(name)
}
