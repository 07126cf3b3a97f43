//! Calls of a mounted file system that take a path.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use ext2dax_format::device::Device;
use ext2dax_format::{Error, FileType, Result};

use super::walk::{Last, LastLink, Place, Walk, check_not_again};
use super::{File, FileTimes, Metadata, OpenOptions, PathBytes, Permissions, ReadDir, new_owned};
use crate::inode::{Inode, Node, SetAttributes};
use crate::mount::FileSystem;
use crate::ops;

/// Mode of directories that are made without one.
const DEFAULT_DIR_MODE: u16 = 0o755;

/// Bytes moved at a time by [`FileSystem::copy`].
const COPY_CHUNK: usize = 1 << 20;

/// How directories are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirBuilder {
    mode: u16,
    recursive: bool,
}

impl Default for DirBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl DirBuilder {
    /// One directory, mode 0755.
    #[must_use]
    pub fn new() -> Self {
        Self {
            mode: DEFAULT_DIR_MODE,
            recursive: false,
        }
    }

    /// Permission bits of what is made.
    #[must_use]
    pub fn mode(mut self, mode: u16) -> Self {
        self.mode = mode & 0o7777;
        self
    }

    /// Makes the directories on the way, too, and is content if all are there.
    #[must_use]
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }

    /// Makes the directory.
    ///
    /// # Errors
    /// `AlreadyExists`, unless recursive and it is a directory; `NotFound` and `NotADirectory` on the way;
    /// `TooManyLinks`, `NoInodes`, `NoSpace`, `ReadOnlyFs`, `NotPermitted`.
    pub fn create(&self, fs: &FileSystem, path: impl PathBytes) -> Result<()> {
        let path = path.path_bytes();
        if !self.recursive {
            return self.make(fs, path);
        }
        match self.make(fs, path) {
            Err(Error::NotFound) if !path.is_empty() => {}
            Err(Error::AlreadyExists) if fs.is_dir(path) => return Ok(()),
            done => return done,
        }
        // Something on the way is missing: from the top, each prefix that ends before a slash.
        for (at, _) in path
            .iter()
            .enumerate()
            .filter(|&(at, &byte)| byte == b'/' && at > 0)
        {
            match self.make(fs, &path[..at]) {
                Err(Error::AlreadyExists) => {}
                done => done?,
            }
        }
        match self.make(fs, path) {
            Err(Error::AlreadyExists) if fs.is_dir(path) => Ok(()),
            done => done,
        }
    }

    fn make(&self, fs: &FileSystem, path: &[u8]) -> Result<()> {
        let mount = &fs.mount;
        let place = Walk::new(mount).place(path)?;
        let new = new_owned(mount, self.mode);
        ops::mkdir(mount, &place.dir, place.new_name()?, &new).map(drop)
    }
}

impl FileSystem {
    fn find(&self, path: &[u8], last: LastLink) -> Result<Arc<Node>> {
        Walk::new(&self.mount).find(path, last)
    }

    fn place<'m, 'p>(&'m self, path: &'p [u8]) -> Result<Place<'m, 'p>> {
        Walk::new(&self.mount).place(path)
    }

    /// The inode at `path`; a symlink in last place is followed.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `TooManySymlinks`, `NameTooLong`, `Corrupt`: so for every call that takes a path.
    pub fn inode(&self, path: impl PathBytes) -> Result<Inode> {
        let path = path.path_bytes();
        let mut gone = None;
        loop {
            let node = self.find(path, LastLink::Follow)?;
            check_not_again(gone.as_ref(), &node)?;
            match Inode::open(&self.mount, &node) {
                // It was replaced or removed meanwhile: what has the name now is what counts.
                Err(Error::NotFound) => gone = Some(node),
                opened => return opened,
            }
        }
    }

    /// The root directory.
    ///
    /// # Errors
    /// `Corrupt` if it is no live directory.
    pub fn root(&self) -> Result<Inode> {
        let root = Walk::new(&self.mount).root()?;
        Inode::open(&self.mount, &root)
    }

    // ---- looking ----

    /// What is known about the file at `path`; a symlink in last place is followed.
    ///
    /// # Errors
    /// Those of every call that takes a path.
    pub fn metadata(&self, path: impl PathBytes) -> Result<Metadata> {
        let found = Walk::new(&self.mount).attributes(path.path_bytes(), LastLink::Follow)?;
        Ok(Metadata::new(found))
    }

    /// The same, of a symlink itself.
    ///
    /// # Errors
    /// Those of every call that takes a path.
    pub fn symlink_metadata(&self, path: impl PathBytes) -> Result<Metadata> {
        let found = Walk::new(&self.mount).attributes(path.path_bytes(), LastLink::Keep)?;
        Ok(Metadata::new(found))
    }

    /// Whether `path` leads to anything.
    #[must_use]
    pub fn exists(&self, path: impl PathBytes) -> bool {
        self.find(path.path_bytes(), LastLink::Follow).is_ok()
    }

    fn is_dir(&self, path: &[u8]) -> bool {
        self.find(path, LastLink::Follow)
            .is_ok_and(|node| node.is_dir())
    }

    /// The entries of a directory.
    ///
    /// # Errors
    /// `NotADirectory`, and those of every call that takes a path.
    pub fn read_dir(&self, path: impl PathBytes) -> Result<ReadDir> {
        let path = path.path_bytes();
        let inode = self.inode(path)?;
        if !inode.node().is_dir() {
            return Err(Error::NotADirectory);
        }
        Ok(ReadDir::new(inode, path))
    }

    /// Where a symlink leads.
    ///
    /// # Errors
    /// `InvalidArgument` if it is none, and those of every call that takes a path.
    pub fn read_link(&self, path: impl PathBytes) -> Result<Vec<u8>> {
        let node = self.find(path.path_bytes(), LastLink::Keep)?;
        Ok(ops::read_link(&self.mount, &node)?.into_vec())
    }

    // ---- files ----

    /// Opens for reading.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(&self, path: impl PathBytes) -> Result<File> {
        File::open(self, path)
    }

    /// Opens for writing: made if it is not there, emptied if it is.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn create(&self, path: impl PathBytes) -> Result<File> {
        File::create(self, path)
    }

    /// The whole contents of a file.
    ///
    /// # Errors
    /// As [`FileSystem::open`]; `NoMemory` if they do not fit.
    pub fn read(&self, path: impl PathBytes) -> Result<Vec<u8>> {
        let file = self.open(path)?;
        let len = usize::try_from(file.len()?).map_err(|_| Error::NoMemory)?;
        let mut contents = Vec::new();
        contents
            .try_reserve_exact(len)
            .map_err(|_| Error::NoMemory)?;
        contents.resize(len, 0);
        let mut filled = 0;
        while filled < contents.len() {
            match file.read_at(&mut contents[filled..], filled as u64)? {
                0 => break,
                done => filled += done,
            }
        }
        contents.truncate(filled);
        Ok(contents)
    }

    /// The whole contents of a file of text.
    ///
    /// # Errors
    /// As [`FileSystem::read`]; `InvalidArgument` if it is not UTF-8.
    pub fn read_to_string(&self, path: impl PathBytes) -> Result<String> {
        String::from_utf8(self.read(path)?).map_err(|_| Error::InvalidArgument)
    }

    /// Makes a file with these contents, or replaces the contents of one.
    ///
    /// # Errors
    /// As [`FileSystem::create`] and [`File::write`]; part of it may be written then.
    pub fn write(&self, path: impl PathBytes, contents: impl AsRef<[u8]>) -> Result<()> {
        self.create(path)?.write_all_at(contents.as_ref(), 0)
    }

    /// Copies contents and permission bits of a file, holes as holes, and answers its length.
    ///
    /// # Errors
    /// As [`FileSystem::open`] and [`FileSystem::create`]; `InvalidArgument` if both paths lead to one file.
    pub fn copy(&self, from: impl PathBytes, to: impl PathBytes) -> Result<u64> {
        let source = self.open(from)?;
        let metadata = source.metadata()?;
        if !metadata.is_file() {
            return Err(Error::IsADirectory);
        }
        let mode = metadata.permissions().mode();
        let target = OpenOptions::new()
            .write(true)
            .create(true)
            .mode(mode)
            .open(self, to)?;
        if target.inode().number() == source.inode().number() {
            return Err(Error::InvalidArgument);
        }
        target.set_len(0)?;
        target.set_len(metadata.len())?;
        let mut buf = vec![0; COPY_CHUNK];
        let mut at = 0;
        while let Ok(data) = source.seek_data(at) {
            let end = source.seek_hole(data)?;
            at = data;
            while at < end {
                let wanted = usize::try_from(end - at)
                    .unwrap_or(COPY_CHUNK)
                    .min(COPY_CHUNK);
                let got = source.read_at(&mut buf[..wanted], at)?;
                if got == 0 {
                    break;
                }
                target.write_all_at(&buf[..got], at)?;
                at += got as u64;
            }
            at = at.max(end);
        }
        target.set_permissions(metadata.permissions())?;
        Ok(metadata.len())
    }

    // ---- names ----

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`DirBuilder::create`].
    pub fn create_dir(&self, path: impl PathBytes) -> Result<()> {
        DirBuilder::new().create(self, path)
    }

    /// Makes a directory and those on the way to it.
    ///
    /// # Errors
    /// As [`DirBuilder::create`].
    pub fn create_dir_all(&self, path: impl PathBytes) -> Result<()> {
        DirBuilder::new().recursive(true).create(self, path)
    }

    /// Removes a name that is no directory's; a symlink itself.
    ///
    /// # Errors
    /// `IsADirectory`, `NotADirectory` if a slash follows, `NotPermitted`, `ReadOnlyFs`, and those of every call that
    /// takes a path.
    pub fn remove_file(&self, path: impl PathBytes) -> Result<()> {
        let place = self.place(path.path_bytes())?;
        let name = place.name(Error::IsADirectory)?;
        if place.wants_dir {
            let node = Walk::new(&self.mount).find_last(&place)?;
            return Err(if node.is_dir() {
                Error::IsADirectory
            } else {
                Error::NotADirectory
            });
        }
        ops::unlink(&self.mount, &place.dir, name)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, `NotADirectory`, `Busy` for the root, `InvalidArgument` for `.`, and as
    /// [`FileSystem::remove_file`].
    pub fn remove_dir(&self, path: impl PathBytes) -> Result<()> {
        let place = self.place(path.path_bytes())?;
        let name = place.name(match place.last {
            Last::Root => Error::Busy,
            Last::DotDot => Error::DirectoryNotEmpty,
            _ => Error::InvalidArgument,
        })?;
        ops::rmdir(&self.mount, &place.dir, name)
    }

    /// Removes a directory with everything below it. Symlinks are removed, not followed. Of the root everything below
    /// goes, and then `Busy` comes back.
    ///
    /// # Errors
    /// As [`FileSystem::remove_dir`] and [`FileSystem::remove_file`]; what was removed before stays removed.
    pub fn remove_dir_all(&self, path: impl PathBytes) -> Result<()> {
        let path = path.path_bytes();
        let place = self.place(path)?;
        let node = Walk::new(&self.mount).find_last(&place)?;
        if node.file_type() == FileType::Symlink && !place.wants_dir {
            return self.remove_file(path);
        }
        // One name at a time from the front: the list shrinks under us, and its depth costs no stack.
        let mut open = vec![node];
        let mut names: Vec<Vec<u8>> = Vec::new();
        while let Some(dir) = open.last().cloned() {
            match self.remove_names(&dir)? {
                Some((name, child)) => {
                    names.push(name);
                    open.push(child);
                }
                None => {
                    open.pop();
                    if let (Some(parent), Some(name)) = (open.last(), names.pop()) {
                        ignore_missing(ops::rmdir(&self.mount, parent, &name))?;
                    }
                }
            }
        }
        self.remove_dir(path)
    }

    /// Removes what is no directory from `dir`, and answers the first directory in it.
    fn remove_names(&self, dir: &Arc<Node>) -> Result<Option<(Vec<u8>, Arc<Node>)>> {
        let mut cookie = 0;
        loop {
            let batch = ops::read_dir(&self.mount, dir, cookie, 128)?;
            let Some(last) = batch.last() else {
                return Ok(None);
            };
            cookie = last.next;
            for entry in batch
                .iter()
                .filter(|entry| !matches!(&*entry.name, b"." | b".."))
            {
                match ops::unlink(&self.mount, dir, &entry.name) {
                    Err(Error::IsADirectory) => {
                        let child = ops::lookup(&self.mount, dir, &entry.name)?;
                        return Ok(Some((entry.name.to_vec(), child)));
                    }
                    done => ignore_missing(done)?,
                }
            }
        }
    }

    /// Moves `from` to `to`, over what is there if it can be replaced. The target name always exists if it did before.
    ///
    /// # Errors
    /// As POSIX has them: `NotFound`; `IsADirectory` and `NotADirectory` if only one is a directory;
    /// `DirectoryNotEmpty`; `InvalidArgument` if a directory would go into itself; `Busy` for `.`, `..` and the root.
    pub fn rename(&self, from: impl PathBytes, to: impl PathBytes) -> Result<()> {
        let (from, to) = (from.path_bytes(), to.path_bytes());
        let mut walk = Walk::new(&self.mount);
        let (from, to) = match walk.two_places(from, to) {
            Err(Error::NameTooLong) => {
                // A source that is not there is the first complaint, as in Linux.
                let from = Walk::new(&self.mount).place(from)?;
                Walk::new(&self.mount).find_last(&from)?;
                return Err(Error::NameTooLong);
            }
            places => places?,
        };
        let (old, new) = (from.name(Error::Busy)?, to.name(Error::Busy)?);
        if from.wants_dir || to.wants_dir {
            let node = Walk::new(&self.mount).find_last(&from)?;
            if !node.is_dir() {
                return Err(Error::NotADirectory);
            }
        }
        ops::rename(&self.mount, &from.dir, old, &to.dir, new)
    }

    /// Gives the file at `original` another name. A symlink is linked itself, as in Linux.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotPermitted` for a directory; `TooManyLinks`; and those of every call that takes a path.
    pub fn hard_link(&self, original: impl PathBytes, link: impl PathBytes) -> Result<()> {
        let node = self.find(original.path_bytes(), LastLink::Keep)?;
        let place = self.place(link.path_bytes())?;
        ops::link(&self.mount, &place.dir, new_file_name(&place)?, &node)
    }

    /// Makes a symlink at `link` that leads to `target`, which need not exist.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` if `target` is empty; `NameTooLong` if it does not fit into a block; and what making
    /// a file can fail with.
    pub fn symlink(&self, target: impl PathBytes, link: impl PathBytes) -> Result<()> {
        let place = self.place(link.path_bytes())?;
        let target = target.path_bytes();
        if target.is_empty() {
            return Err(Error::NotFound);
        }
        let mount = &self.mount;
        let new = new_owned(mount, 0o777);
        ops::symlink(mount, &place.dir, new_file_name(&place)?, target, &new).map(drop)
    }

    /// Makes a device, FIFO or socket.
    ///
    /// # Errors
    /// `InvalidArgument` for other types; `Overflow` if no encoding holds `device`; and what making a file can fail
    /// with.
    pub fn mknod(
        &self,
        path: impl PathBytes,
        file_type: FileType,
        mode: u16,
        device: Option<Device>,
    ) -> Result<()> {
        let place = self.place(path.path_bytes())?;
        let mount = &self.mount;
        if matches!(
            file_type,
            FileType::Regular | FileType::Directory | FileType::Symlink
        ) {
            return Err(Error::InvalidArgument);
        }
        let Device { major, minor } = device.unwrap_or_default();
        let mut new = new_owned(mount, file_type.mode() | mode & 0o7777);
        new.device = (major, minor);
        ops::mknod(mount, &place.dir, new_file_name(&place)?, &new).map(drop)
    }

    // ---- attributes ----

    fn set(&self, path: &[u8], last: LastLink, change: &SetAttributes) -> Result<()> {
        self.find(path, last)?.set_attributes(change)
    }

    /// Sets the permission bits; a symlink in last place is followed.
    ///
    /// # Errors
    /// `NotPermitted` by a flag, `ReadOnlyFs`, and those of every call that takes a path.
    pub fn set_permissions(&self, path: impl PathBytes, permissions: Permissions) -> Result<()> {
        let change = SetAttributes {
            permissions: Some(permissions.mode()),
            ..SetAttributes::default()
        };
        self.set(path.path_bytes(), LastLink::Follow, &change)
    }

    /// Sets owner and group, each if given; of a symlink itself. Set-id bits stay as they are.
    ///
    /// # Errors
    /// As [`FileSystem::set_permissions`].
    pub fn set_owner(
        &self,
        path: impl PathBytes,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        let change = SetAttributes {
            uid,
            gid,
            ..SetAttributes::default()
        };
        self.set(path.path_bytes(), LastLink::Keep, &change)
    }

    /// Sets access and modification time, each if given; of a symlink itself.
    ///
    /// # Errors
    /// As [`FileSystem::set_permissions`].
    pub fn set_times(&self, path: impl PathBytes, times: FileTimes) -> Result<()> {
        let change = SetAttributes {
            accessed: times.accessed,
            modified: times.modified,
            ..SetAttributes::default()
        };
        self.set(path.path_bytes(), LastLink::Keep, &change)
    }
}

/// A name for something that is no directory: no slash may follow it.
fn new_file_name<'a>(place: &'a Place<'_, '_>) -> Result<&'a [u8]> {
    let name = place.new_name()?;
    if place.wants_dir {
        Err(Error::NotFound)
    } else {
        Ok(name)
    }
}

/// Somebody else removed it first: it is gone, and that was wanted.
fn ignore_missing(done: Result<()>) -> Result<()> {
    match done {
        Err(Error::NotFound) => Ok(()),
        done => done,
    }
}
