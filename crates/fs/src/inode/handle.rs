//! The inode layer: for kernels, FUSE servers and whoever keeps inodes instead of paths.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use ext2dax_dax::{DaxFile, FileExtent};
use ext2dax_format::{Error, FileType, InodeFlags, Result};
use ext2dax_pmem::{UserSlice, UserSliceMut};

use super::contents::Position;
use super::lifetime::Handle;
use super::{Attributes, Fallocate, Node, SetAttributes, TreeMap};
use crate::dir::{Entry, EntryRef};
use crate::mount::{FileSystem, Mount};
use crate::ops;

/// One file of a mounted file system, of any type. While an `Inode` lives, the file does, with or without a name.
///
/// Cheap to clone; `Send` and `Sync`. Names given to its methods are single components: 1 to 255 bytes without `/` and
/// NUL. Nothing is checked against users: whoever serves several of them checks [`Attributes`] first.
///
/// # Locking
/// Nothing is held between calls. A call that changes something waits while the file system is frozen.
#[derive(Clone)]
pub struct Inode {
    handle: Handle,
}

impl fmt::Debug for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inode")
            .field("number", &self.number())
            .field("generation", &self.generation())
            .field("file_type", &self.file_type())
            .finish_non_exhaustive()
    }
}

impl Inode {
    pub(crate) fn open(mount: &Arc<Mount>, node: &Arc<Node>) -> Result<Self> {
        Ok(Self {
            handle: Handle::open(mount, node)?,
        })
    }

    pub(crate) fn from_handle(handle: Handle) -> Self {
        Self { handle }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        self.handle.node()
    }

    pub(crate) fn mount(&self) -> &Arc<Mount> {
        self.handle.mount()
    }

    pub(crate) fn parts(&self) -> (&Arc<Mount>, &Arc<Node>) {
        (self.mount(), self.node())
    }

    /// The contents as memory, made when they are first asked for: a look-up alone does not pay for them, and foreign
    /// contents keep nobody from the attributes.
    ///
    /// # Errors
    /// `IsADirectory`, `InvalidArgument` for other types; `Corrupt` where a flag or the size forbids them.
    pub(crate) fn contents(&self) -> Result<Arc<DaxFile<TreeMap>>> {
        self.node().file()
    }

    /// The file system this inode belongs to.
    #[must_use]
    pub fn file_system(&self) -> FileSystem {
        FileSystem {
            mount: Arc::clone(self.mount()),
        }
    }

    /// Inode number, 1 or more.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.node().ino().get()
    }

    /// Together with the number this names the file for ever: the number alone is used again.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.node().generation()
    }

    /// What kind of file it is; never changes.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        self.node().file_type()
    }

    /// What `stat` answers.
    ///
    /// # Errors
    /// `Corrupt` if the mode names no file type.
    pub fn attributes(&self) -> Result<Attributes> {
        self.node().attributes()
    }

    /// Changes mode, owner and times; durable on return.
    ///
    /// # Errors
    /// `ReadOnlyFs`; `NotPermitted` for immutable and append-only files. Nothing has changed then.
    pub fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        self.node().set_attributes(change)
    }

    /// Takes the set-id bits and `security.capability` from a regular file, as a write or truncation by an ordinary user
    /// must: whoever serves users calls it before theirs. A set-group-id bit stays where the group may not execute.
    ///
    /// # Errors
    /// `ReadOnlyFs`, `NotPermitted`, `NoSpace`, `Corrupt`. Nothing has changed then.
    pub fn clear_privileges(&self) -> Result<()> {
        self.node().clear_privileges(false)
    }

    /// The same for a user outside the file's group, who takes the set-group-id bit in any case.
    ///
    /// # Errors
    /// As [`Inode::clear_privileges`].
    pub fn clear_privileges_as_stranger(&self) -> Result<()> {
        self.node().clear_privileges(true)
    }

    /// Sets the generation number (FS_IOC_SETVERSION).
    ///
    /// # Errors
    /// `ReadOnlyFs`.
    pub fn set_generation(&self, generation: u32) -> Result<()> {
        self.node().set_generation(generation)
    }

    /// Sets the flags that users may set (`chattr`); others stay as they are.
    ///
    /// # Errors
    /// `ReadOnlyFs`; `NotSupported` if another flag is to be set, or one of directories on another file; `NotPermitted` if
    /// the file is immutable, stays so, and another flag would change.
    pub fn set_flags(&self, flags: InodeFlags) -> Result<()> {
        self.node().set_flags(flags)
    }

    // ---- names ----

    /// The file that `name` leads to in this directory; `.` and `..` are names like others.
    ///
    /// # Errors
    /// `NotADirectory`, `NotFound`, `NameTooLong`, `Corrupt`.
    pub fn lookup(&self, name: &[u8]) -> Result<Self> {
        ops::open(self.mount(), self.node(), name).map(Self::from_handle)
    }

    /// Makes an empty regular file.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotADirectory`, `InvalidName`, `NameTooLong`, `NoInodes`, `NoSpace`, `ReadOnlyFs`,
    /// `NotPermitted` by a flag of the directory. Nothing has changed then; so for all calls of this section.
    pub fn create(&self, name: &[u8], new: &ops::New) -> Result<Self> {
        ops::create(self.mount(), self.node(), name, new).map(Self::from_handle)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`Inode::create`], and `TooManyLinks` at 32,000 names of this directory.
    pub fn mkdir(&self, name: &[u8], new: &ops::New) -> Result<Self> {
        ops::mkdir(self.mount(), self.node(), name, new).map(Self::from_handle)
    }

    /// Makes an empty regular file without a name, on the file system of this directory, whose group and default ACL it
    /// inherits as a file in it would (`O_TMPFILE`). [`Inode::link`] gives it its first name; without one it goes with the
    /// last handle, or with a crash.
    ///
    /// # Errors
    /// As [`Inode::create`], without those about names.
    pub fn tmpfile(&self, new: &ops::New) -> Result<Self> {
        ops::tmpfile(self.mount(), self.node(), new).map(Self::from_handle)
    }

    /// Makes a device, FIFO or socket; the type is in `new.mode`.
    ///
    /// # Errors
    /// As [`Inode::create`]; `Overflow` if no encoding holds the device number.
    pub fn mknod(&self, name: &[u8], new: &ops::New) -> Result<Self> {
        ops::mknod(self.mount(), self.node(), name, new).map(Self::from_handle)
    }

    /// Makes a symlink to `target`, 1 byte to a block less one long, never decoded.
    ///
    /// # Errors
    /// As [`Inode::create`]; `NameTooLong` if the target is.
    pub fn symlink(&self, name: &[u8], target: &[u8], new: &ops::New) -> Result<Self> {
        ops::symlink(self.mount(), self.node(), name, target, new).map(Self::from_handle)
    }

    /// Gives `target` another name in this directory.
    ///
    /// # Errors
    /// As [`Inode::create`]; `NotPermitted` for a directory, `TooManyLinks` at 32,000 names, `CrossDevice`.
    pub fn link(&self, name: &[u8], target: &Self) -> Result<()> {
        if !self.mount().is_same(target.mount()) {
            return Err(ext2dax_format::Error::CrossDevice);
        }
        ops::link(self.mount(), self.node(), name, target.node())
    }

    /// Removes a name that is no directory's. The file goes with its last name and handle.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`, `NotPermitted` by a flag, `ReadOnlyFs`, `Corrupt`.
    pub fn unlink(&self, name: &[u8]) -> Result<()> {
        ops::unlink(self.mount(), self.node(), name)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `DirectoryNotEmpty`, `InvalidArgument` for `.`, and as [`Inode::unlink`].
    pub fn rmdir(&self, name: &[u8]) -> Result<()> {
        ops::rmdir(self.mount(), self.node(), name)
    }

    /// Moves a name, over what `new_name` leads to if that can be replaced.
    ///
    /// # Errors
    /// As POSIX has them; `InvalidArgument` if a directory would go into itself.
    pub fn rename(&self, name: &[u8], new_parent: &Self, new_name: &[u8]) -> Result<()> {
        if !self.mount().is_same(new_parent.mount()) {
            return Err(ext2dax_format::Error::CrossDevice);
        }
        ops::rename(self.mount(), self.node(), name, new_parent.node(), new_name)
    }

    /// Moves a name as `flags` say: never over another, or in exchange for it.
    ///
    /// # Errors
    /// As [`Inode::rename`]; `AlreadyExists`; `NotSupported` for an exchange with a directory that lies elsewhere.
    pub fn rename_with(
        &self,
        name: &[u8],
        new_parent: &Self,
        new_name: &[u8],
        flags: ops::RenameFlags,
    ) -> Result<()> {
        if !self.mount().is_same(new_parent.mount()) {
            return Err(ext2dax_format::Error::CrossDevice);
        }
        ops::rename_with(
            self.mount(),
            self.node(),
            name,
            new_parent.node(),
            new_name,
            flags,
        )
    }

    /// At most `max` entries from `cookie` on (0: the first), `.` and `..` among them. Each entry carries the cookie
    /// behind it, which stays good while names come and go.
    ///
    /// # Errors
    /// `NotADirectory`, `NotFound` if it was removed, `Corrupt`.
    pub fn read_dir(&self, cookie: u64, max: usize) -> Result<Vec<Entry>> {
        ops::read_dir(self.mount(), self.node(), cookie, max)
    }

    /// [`Inode::read_dir`] without copies of its own: shows each name to `each` until that says that it wants no more.
    ///
    /// # Locking
    /// `each` runs under the directory's lock: it must not call this file system.
    ///
    /// # Errors
    /// As [`Inode::read_dir`].
    pub fn visit_dir(&self, cookie: u64, mut each: impl FnMut(EntryRef<'_>) -> bool) -> Result<()> {
        crate::dir::visit_dir(self.node(), cookie, &mut each)
    }

    /// Where a symlink leads.
    ///
    /// # Errors
    /// `InvalidArgument` if this is none; `Corrupt`.
    pub fn read_link(&self) -> Result<Box<[u8]>> {
        ops::read_link(self.mount(), self.node())
    }

    // ---- contents ----

    /// Reads from byte `pos` on. Fewer bytes than asked for come at the end of the file, or where `buf` stops being
    /// writable memory.
    ///
    /// # Errors
    /// `IsADirectory`, `InvalidArgument` for other types; `Corrupt`; `BadAddress` if not a byte could be stored.
    pub fn read_at<'a>(&self, pos: u64, buf: impl Into<UserSliceMut<'a>>) -> Result<usize> {
        self.node().read_at(&*self.contents()?, pos, buf.into())
    }

    /// Writes at byte `pos`; durable on return, to what the region promises. Answers how much was written: less than
    /// all at the limit of the file, when space runs out, or where `src` stops being readable memory.
    ///
    /// # Errors
    /// `ReadOnlyFs`, `NotPermitted`, `FileTooLarge`, `NoSpace`, `BadAddress`, `Corrupt`; then not a byte was written.
    pub fn write_at<'a>(&self, pos: u64, src: impl Into<UserSlice<'a>>) -> Result<usize> {
        let (_, done) = self
            .node()
            .write_at(&*self.contents()?, Position::At(pos), src.into())?;
        Ok(done)
    }

    /// Writes at the end, in one piece with respect to other appends, and answers where and how much.
    ///
    /// # Errors
    /// As [`Inode::write_at`].
    pub fn append<'a>(&self, src: impl Into<UserSlice<'a>>) -> Result<(u64, usize)> {
        self.node()
            .write_at(&*self.contents()?, Position::End, src.into())
    }

    /// [`Inode::read_at`] into several pieces of memory, one after the other, with no write in between.
    ///
    /// # Errors
    /// As [`Inode::read_at`].
    pub fn read_vectored_at(&self, pos: u64, bufs: &mut [UserSliceMut<'_>]) -> Result<usize> {
        self.node().read_vectored_at(&*self.contents()?, pos, bufs)
    }

    /// [`Inode::write_at`] from several pieces of memory, one after the other: one write for everybody else.
    ///
    /// # Errors
    /// As [`Inode::write_at`].
    pub fn write_vectored_at(&self, pos: u64, srcs: &[UserSlice<'_>]) -> Result<usize> {
        let position = Position::At(pos);
        let (_, done) = self
            .node()
            .write_vectored_at(&*self.contents()?, position, srcs)?;
        Ok(done)
    }

    /// [`Inode::append`] from several pieces of memory, in one piece with respect to other appends.
    ///
    /// # Errors
    /// As [`Inode::write_at`].
    pub fn append_vectored(&self, srcs: &[UserSlice<'_>]) -> Result<(u64, usize)> {
        self.node()
            .write_vectored_at(&*self.contents()?, Position::End, srcs)
    }

    /// Copies `len` bytes from byte `pos` to byte `to_pos` of `to`, a file of the same file system or this very one, as
    /// copy_file_range(2) does. No memory of the caller's is used; holes of the source stay holes where they cover whole
    /// blocks of the target. Answers how much: less at the end of this file, at the limit of the other, or when space
    /// runs out; 0 at the end of this file.
    ///
    /// Other writers of both files see all of it or nothing.
    ///
    /// # Errors
    /// `InvalidArgument` if the two ranges of one file meet; `CrossDevice` for a file of another file system; `Overflow`
    /// if a range ends past 2^64; `FileTooLarge`, `NoSpace`, `NotPermitted`, `ReadOnlyFs`, `Corrupt`; `IsADirectory`,
    /// `InvalidArgument` for other types.
    pub fn copy_range(&self, pos: u64, to: &Self, to_pos: u64, len: u64) -> Result<u64> {
        if !self.mount().is_same(to.mount()) {
            return Err(Error::CrossDevice);
        }
        let (file, to_file) = (self.contents()?, to.contents()?);
        self.node()
            .copy_range(&file, pos, (to.node(), &to_file), to_pos, len)
    }

    /// Where the bytes of `range` lie, as FIEMAP tells it: at most `max` extents, in ascending order. What lies between
    /// them are holes; a list of `max` goes on behind the end of its last one. Offsets into the region are those of the
    /// file system, from its first byte on.
    ///
    /// # Errors
    /// `Corrupt`; `IsADirectory`, `InvalidArgument` for other types.
    pub fn extents(&self, range: Range<u64>, max: usize) -> Result<Vec<FileExtent>> {
        self.node().extents(&*self.contents()?, range, max)
    }

    /// Cuts the file off at `size` bytes, or extends it with a hole.
    ///
    /// # Errors
    /// As [`Inode::write_at`].
    pub fn set_len(&self, size: u64) -> Result<()> {
        self.node().set_len(&*self.contents()?, size)
    }

    /// Makes a hole of the bytes of `range` that lie inside the file; its size stays.
    ///
    /// # Errors
    /// As [`Inode::write_at`].
    pub fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.node().punch_hole(&*self.contents()?, range)
    }

    /// Makes the bytes of `range` read zero; the file grows if it must.
    ///
    /// # Errors
    /// As [`Inode::write_at`].
    pub fn zero_range(&self, range: Range<u64>) -> Result<()> {
        self.node().zero_range(&*self.contents()?, range)
    }

    /// Gives the bytes of `range` their place on the medium; holes among them become zeroes, and the file grows if it
    /// must.
    ///
    /// # Errors
    /// As [`Inode::write_at`].
    pub fn allocate(&self, range: Range<u64>) -> Result<()> {
        self.node().allocate_range(&*self.contents()?, range)
    }

    /// fallocate(2): everything that the calls above do, and refusals of what ext2 cannot express.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty range; `NotSupported` for blocks past the end of the file, and for collapsing and
    /// inserting; else as [`Inode::write_at`]. Nothing has changed then, but for `NoSpace`.
    pub fn fallocate(&self, how: Fallocate, range: Range<u64>) -> Result<()> {
        self.node().fallocate(&*self.contents()?, how, range)
    }

    /// The first byte of data at or behind `pos`.
    ///
    /// # Errors
    /// `NoSuchOffset` if only holes follow.
    pub fn seek_data(&self, pos: u64) -> Result<u64> {
        self.node().seek_data(&*self.contents()?, pos)
    }

    /// The first byte of a hole at or behind `pos`; the end of the file is one.
    ///
    /// # Errors
    /// `NoSuchOffset` at and past the end.
    pub fn seek_hole(&self, pos: u64) -> Result<u64> {
        self.node().seek_hole(&*self.contents()?, pos)
    }

    /// Makes stores through mappings and everything else of this file durable.
    ///
    /// # Errors
    /// `Io` if the medium fails.
    pub fn sync(&self) -> Result<()> {
        self.node().sync()
    }
}
