//! Names: look-up, making, removing, moving, listing.

use std::sync::Arc;

use ext2dax::{Attributes, Entry, Error, FileType, Inode, New, RenameFlags};

use super::{Answer, Caller, Server};
use crate::nodes::ROOT;

/// What a new file starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Type and permission bits; a missing type means a regular file.
    pub mode: u32,
    /// The caller's umask, not applied yet: a default ACL of the directory takes its place.
    pub umask: u32,
    /// Device number of a device, as the kernel packs it into 32 bits.
    pub device: u32,
}

/// One name of a directory, on its way to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The inode number that the name leads to.
    pub ino: u32,
    /// Its type.
    pub file_type: FileType,
    /// The name.
    pub name: &'a [u8],
    /// From where the listing goes on behind this name.
    pub next: u64,
    /// What stat answers; only where asked for, and never for `.` and `..`.
    pub attributes: Option<Attributes>,
}

/// A listing with attributes that begins with this many names of files that the kernel knows ends there: it has been
/// told the rest, too, and goes on with names alone, which cost it a fraction.
const KNOWN_ENOUGH: u32 = 8;

/// Entries fetched at a time.
const LIST_BATCH: usize = 128;

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

/// The kernel's packing of a device number into 32 bits: 12 bits of major amid 20 bits of minor.
fn unpack_device(packed: u32) -> (u32, u32) {
    (
        (packed & 0xf_ff00) >> 8,
        (packed & 0xff) | (packed >> 12) & 0xf_ff00,
    )
}

impl NewNode {
    fn of(self, caller: Caller) -> New {
        New {
            // Sixteen bits of mode are all there are.
            mode: u16::try_from(self.mode & 0xffff).unwrap_or(0),
            umask: u16::try_from(self.umask & 0o777).unwrap_or(0),
            uid: caller.uid,
            gid: caller.gid,
            device: unpack_device(self.device),
        }
    }
}

impl Server {
    /// The file that `name` leads to in a directory. The kernel knows it from now on, until it forgets.
    ///
    /// The name `.` stands for the file of that number itself, known to the kernel or not: that is how it asks for a file
    /// by a handle (NFS, open_by_handle_at(2)). It compares generations itself.
    ///
    /// # Errors
    /// `ENOENT`, `ENAMETOOLONG`, `ENOTDIR`, `ESTALE`, `EUCLEAN`.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Answer<Attributes> {
        if name == b"." {
            let number = u32::try_from(parent).map_err(|_| Error::Stale)?;
            let fs = self.node(ROOT)?.file_system();
            return self.found(fs.inode_by_number(number)?);
        }
        self.found(self.node(parent)?.lookup(name)?)
    }

    /// Makes a file of any type but a directory or a symlink.
    ///
    /// # Errors
    /// As `Inode::create` has them.
    pub fn mknod(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        new: NewNode,
    ) -> Answer<Attributes> {
        let parent = self.node(parent)?;
        let new_inode = new.of(caller);
        let inode = self.with_room(|| {
            Ok(match new.mode & S_IFMT {
                0 | S_IFREG => parent.create(name, &new_inode)?,
                _ => parent.mknod(name, &new_inode)?,
            })
        })?;
        self.changed(&parent)?;
        self.found(inode)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As `Inode::mkdir` has them.
    pub fn mkdir(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        new: NewNode,
    ) -> Answer<Attributes> {
        let parent = self.node(parent)?;
        let new = new.of(caller);
        let inode = self.with_room(|| Ok(parent.mkdir(name, &new)?))?;
        self.changed(&parent)?;
        self.found(inode)
    }

    /// Makes a symlink.
    ///
    /// # Errors
    /// As `Inode::symlink` has them.
    pub fn symlink(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        target: &[u8],
    ) -> Answer<Attributes> {
        let new = NewNode {
            mode: 0o777,
            umask: 0,
            device: 0,
        };
        let parent = self.node(parent)?;
        let new = new.of(caller);
        let inode = self.with_room(|| Ok(parent.symlink(name, target, &new)?))?;
        self.changed(&parent)?;
        self.found(inode)
    }

    /// Where a symlink leads.
    ///
    /// # Errors
    /// `EINVAL` if it is none, `EUCLEAN`.
    pub fn readlink(&self, node: u64) -> Answer<Box<[u8]>> {
        Ok(self.node(node)?.read_link()?)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// As `Inode::link` has them; `EPERM` for files that a flag protects.
    pub fn link(&self, node: u64, parent: u64, name: &[u8]) -> Answer<Attributes> {
        let inode = self.node(node)?;
        let parent = self.node(parent)?;
        self.with_room(|| Ok(parent.link(name, &inode)?))?;
        self.changed(&parent)?;
        self.known(inode)
    }

    /// Removes a name that is no directory's.
    ///
    /// # Errors
    /// As `Inode::unlink` has them.
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Answer<()> {
        let parent = self.node(parent)?;
        parent.unlink(name)?;
        self.changed(&parent)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As `Inode::rmdir` has them.
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Answer<()> {
        let parent = self.node(parent)?;
        parent.rmdir(name)?;
        self.changed(&parent)
    }

    /// Moves a name.
    ///
    /// # Errors
    /// As `Inode::rename_with` has them.
    pub fn rename(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Answer<()> {
        let from = self.node(parent)?;
        let to = self.node(new_parent)?;
        self.with_room(|| Ok(from.rename_with(name, &to, new_name, flags)?))?;
        self.changed(&from)
    }

    /// Hands the names of a directory from `cookie` on to `each`, until it says that it has had enough.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`, `EUCLEAN`.
    pub fn list(
        &self,
        node: u64,
        cookie: u64,
        mut each: impl FnMut(Listed<'_>) -> Taken,
    ) -> Answer<()> {
        let dir = self.node(node)?;
        let (mut shown, mut untyped) = (cookie, false);
        dir.visit_dir(cookie, |entry| {
            let Some(file_type) = entry.file_type else {
                untyped = true;
                return false;
            };
            shown = entry.next;
            let listed = Listed {
                ino: entry.ino,
                file_type,
                name: entry.name,
                next: entry.next,
                attributes: None,
            };
            each(listed) == Taken::Yes
        })?;
        // Without the feature `filetype` the inodes know, and they are not to be asked under the directory's lock.
        if untyped {
            self.list_inodes(&dir, shown, |mut listed, _| {
                listed.attributes = None;
                each(listed)
            })?;
        }
        Ok(())
    }

    /// The same with attributes. Each name but `.` and `..` counts as looked up, unless `each` turned it down.
    ///
    /// # Errors
    /// As [`Server::list`].
    pub fn list_plus(
        &self,
        node: u64,
        cookie: u64,
        mut each: impl FnMut(Listed<'_>) -> Taken,
    ) -> Answer<()> {
        let dir = self.node(node)?;
        let mut known_so_far = if cookie == 0 { Some(0) } else { None };
        self.list_inodes(&dir, cookie, |listed, inode| {
            if known_so_far == Some(KNOWN_ENOUGH) {
                return Taken::No;
            }
            let taken = each(listed);
            if taken == Taken::Yes && listed.attributes.is_some() {
                let was_known = self.nodes.remember(inode);
                known_so_far = known_so_far.filter(|_| was_known).map(|known| known + 1);
            }
            taken
        })
    }

    fn list_inodes(
        &self,
        dir: &Inode,
        mut cookie: u64,
        mut each: impl FnMut(Listed<'_>, Arc<Inode>) -> Taken,
    ) -> Answer<()> {
        loop {
            let entries = dir.read_dir(cookie, LIST_BATCH)?;
            for entry in &entries {
                let Some(inode) = self.listed(dir, entry)? else {
                    continue;
                };
                let dots = matches!(&*entry.name, b"." | b"..");
                let listed = Listed {
                    ino: entry.ino,
                    file_type: inode.file_type(),
                    name: &entry.name,
                    next: entry.next,
                    attributes: if dots {
                        None
                    } else {
                        Some(inode.attributes()?)
                    },
                };
                let taken = each(listed, inode);
                if taken == Taken::No {
                    return Ok(());
                }
            }
            match entries.last() {
                Some(last) if entries.len() == LIST_BATCH => cookie = last.next,
                _ => return Ok(()),
            }
        }
    }

    /// The inode of a listed name, `None` if it has none any more.
    fn listed(&self, dir: &Inode, entry: &Entry) -> Answer<Option<Arc<Inode>>> {
        // While the kernel lists a directory it lets nobody change its names, so a number that it knows is the name's.
        if let Ok(known) = self.nodes.get_number(entry.ino) {
            return Ok(Some(known));
        }
        match dir.lookup(&entry.name) {
            Ok(inode) => Ok(Some(Arc::new(inode))),
            // Removed since, or the name of a dead inode, which is no file.
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a listing's reader had room for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Yes, and may have for another.
    Yes,
    /// No: the listing ends before this name.
    No,
}
