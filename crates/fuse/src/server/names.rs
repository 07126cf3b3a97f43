//! Names: look-up, making, removing, moving, listing.

use ext2dax::{Attributes, Error, FileType, Inode, New, RenameFlags};

use super::{Answer, Caller, Errno, Server};
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
    fn new(self, caller: Caller) -> New {
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
        let new_inode = new.new(caller);
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
        let new = new.new(caller);
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
        let new = new.new(caller);
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
        self.found(Inode::clone(&inode))
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
    /// With `plus`, each name but `.` and `..` comes with attributes and counts as looked up, unless `each` turned it
    /// down.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`, `EUCLEAN`.
    pub fn list(
        &self,
        node: u64,
        mut cookie: u64,
        plus: bool,
        mut each: impl FnMut(Listed<'_>) -> Taken,
    ) -> Answer<()> {
        let dir = self.node(node)?;
        loop {
            let entries = dir.read_dir(cookie, LIST_BATCH)?;
            for entry in &entries {
                let dots = matches!(&*entry.name, b"." | b"..");
                let inode = if plus && !dots || entry.file_type.is_none() {
                    match dir.lookup(&entry.name) {
                        Ok(inode) => Some(inode),
                        // Removed since, or the name of a dead inode, which is no file.
                        Err(Error::NotFound) => continue,
                        Err(error) => return Err(error.into()),
                    }
                } else {
                    None
                };
                let file_type = match (&inode, entry.file_type) {
                    (Some(inode), _) => inode.file_type(),
                    (None, Some(file_type)) => file_type,
                    (None, None) => return Err(Errno::EINVAL),
                };
                let wanted = inode.filter(|_| plus && !dots);
                let attributes = wanted.as_ref().map(Inode::attributes).transpose()?;
                let taken = each(Listed {
                    ino: entry.ino,
                    file_type,
                    name: &entry.name,
                    next: entry.next,
                    attributes,
                });
                if taken == Taken::No {
                    return Ok(());
                }
                if let Some(inode) = wanted {
                    self.nodes.remember(inode);
                }
            }
            match entries.last() {
                Some(last) if entries.len() == LIST_BATCH => cookie = last.next,
                _ => return Ok(()),
            }
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
