//! An open file with a cursor.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use ext2dax_dax::{DaxFile, FileExtent};
use ext2dax_format::{Error, Result};
use ext2dax_pmem::{UserSlice, UserSliceMut};
use ext2dax_sync::{Mutex, OnceLock, rank};

use super::{FileTimes, Metadata, OpenOptions, PathBytes, Permissions};
use crate::inode::{Fallocate, Inode, Node, Position, SetAttributes, TreeMap};
use crate::mount::FileSystem;

/// What a file was opened for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
}

/// Where to move the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekFrom {
    /// To this byte of the file.
    Start(u64),
    /// This many bytes behind the end, or before it.
    End(i64),
    /// This many bytes forward, or back.
    Current(i64),
}

struct Open {
    inode: Inode,
    /// The contents of a regular file; of one that was made by this very call not before somebody asks: many new files
    /// are closed, or removed, as empty as they were made.
    file: OnceLock<Arc<DaxFile<TreeMap>>>,
    access: Access,
    cursor: Mutex<u64>,
}

/// An open file, in the shape of `std::fs::File`. Every call takes `&self`; threads that share a file share its cursor,
/// and a read or write moves it in one piece. The file lives until the last `File` is dropped, named or not.
pub struct File {
    open: Arc<Open>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("inode", &self.open.inode)
            .field("access", &self.open.access)
            .finish_non_exhaustive()
    }
}

impl File {
    pub(crate) fn new(inode: Inode, file: Option<Arc<DaxFile<TreeMap>>>, access: Access) -> Self {
        Self {
            open: Arc::new(Open {
                inode,
                file: file.map_or_else(OnceLock::new, OnceLock::from),
                access,
                cursor: Mutex::new(rank::CURSOR, 0),
            }),
        }
    }

    /// Opens for reading.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(fs: &FileSystem, path: impl PathBytes) -> Result<Self> {
        OpenOptions::new().read(true).open(fs, path)
    }

    /// Opens for writing: made if it is not there, emptied if it is.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn create(fs: &FileSystem, path: impl PathBytes) -> Result<Self> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(fs, path)
    }

    /// The inode layer's view of this file, without the limits that this one was opened with.
    #[must_use]
    pub fn inode(&self) -> &Inode {
        &self.open.inode
    }

    /// Another handle of the same open file: they share the cursor.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            open: Arc::clone(&self.open),
        }
    }

    /// The contents; a directory has none.
    fn contents(&self) -> Result<&DaxFile<TreeMap>> {
        if let Some(file) = self.open.file.get() {
            return Ok(file);
        }
        // Asked for before it is put down, since whoever puts down must not wait.
        let file = self.node().file()?;
        Ok(self.open.file.get_or_init(|| file))
    }

    fn node(&self) -> &Node {
        self.open.inode.node()
    }

    pub(crate) fn for_reading(&self) -> Result<&DaxFile<TreeMap>> {
        if self.open.access.read {
            self.contents()
        } else {
            Err(Error::NotOpenForRead)
        }
    }

    pub(crate) fn for_writing(&self) -> Result<&DaxFile<TreeMap>> {
        if self.open.access.write {
            self.contents()
        } else {
            Err(Error::NotOpenForWrite)
        }
    }

    fn write_position(&self, offset: u64) -> Position {
        if self.open.access.append {
            Position::End
        } else {
            Position::At(offset)
        }
    }

    // ---- at the cursor ----

    /// Reads at the cursor and moves it. 0 bytes mean the end of the file, or an empty buffer.
    ///
    /// # Errors
    /// `NotOpenForRead`, and as [`Inode::read_at`].
    pub fn read<'a>(&self, buf: impl Into<UserSliceMut<'a>>) -> Result<usize> {
        let file = self.for_reading()?;
        let mut cursor = self.open.cursor.lock();
        let done = self.node().read_at(file, *cursor, buf.into())?;
        *cursor += done as u64;
        Ok(done)
    }

    /// Writes at the cursor, or at the end if opened to append, and moves the cursor behind what was written.
    ///
    /// # Errors
    /// `NotOpenForWrite`, and as [`Inode::write_at`].
    pub fn write<'a>(&self, src: impl Into<UserSlice<'a>>) -> Result<usize> {
        let file = self.for_writing()?;
        let mut cursor = self.open.cursor.lock();
        let position = self.write_position(*cursor);
        let (pos, done) = self.node().write_at(file, position, src.into())?;
        *cursor = pos + done as u64;
        Ok(done)
    }

    /// [`File::read`] into several pieces of memory.
    ///
    /// # Errors
    /// As [`File::read`].
    pub fn read_vectored(&self, bufs: &mut [UserSliceMut<'_>]) -> Result<usize> {
        let file = self.for_reading()?;
        let mut cursor = self.open.cursor.lock();
        let done = self.node().read_vectored_at(file, *cursor, bufs)?;
        *cursor += done as u64;
        Ok(done)
    }

    /// [`File::write`] from several pieces of memory, as one write.
    ///
    /// # Errors
    /// As [`File::write`].
    pub fn write_vectored(&self, srcs: &[UserSlice<'_>]) -> Result<usize> {
        let file = self.for_writing()?;
        let mut cursor = self.open.cursor.lock();
        let position = self.write_position(*cursor);
        let (pos, done) = self.node().write_vectored_at(file, position, srcs)?;
        *cursor = pos + done as u64;
        Ok(done)
    }

    /// Moves the cursor, past the end if need be, and answers where it is.
    ///
    /// # Errors
    /// `InvalidArgument` if it would stand before the file or beyond 2^63 - 1.
    pub fn seek(&self, to: impl Into<SeekFrom>) -> Result<u64> {
        let mut cursor = self.open.cursor.lock();
        let target = match to.into() {
            SeekFrom::Start(pos) => Some(pos),
            SeekFrom::Current(by) => cursor.checked_add_signed(by),
            SeekFrom::End(by) => self.len()?.checked_add_signed(by),
        };
        let target = target
            .filter(|&pos| i64::try_from(pos).is_ok())
            .ok_or(Error::InvalidArgument)?;
        *cursor = target;
        Ok(target)
    }

    // ---- at an offset ----

    /// Reads at `offset`; the cursor stays.
    ///
    /// # Errors
    /// As [`File::read`].
    pub fn read_at<'a>(&self, buf: impl Into<UserSliceMut<'a>>, offset: u64) -> Result<usize> {
        self.node().read_at(self.for_reading()?, offset, buf.into())
    }

    /// Writes at `offset`, or at the end if opened to append (as Linux does); the cursor stays.
    ///
    /// # Errors
    /// As [`File::write`].
    pub fn write_at<'a>(&self, src: impl Into<UserSlice<'a>>, offset: u64) -> Result<usize> {
        let file = self.for_writing()?;
        let position = self.write_position(offset);
        let (_, done) = self.node().write_at(file, position, src.into())?;
        Ok(done)
    }

    /// [`File::read_at`] into several pieces of memory, with no write in between.
    ///
    /// # Errors
    /// As [`File::read`].
    pub fn read_vectored_at(&self, bufs: &mut [UserSliceMut<'_>], offset: u64) -> Result<usize> {
        self.node()
            .read_vectored_at(self.for_reading()?, offset, bufs)
    }

    /// [`File::write_at`] from several pieces of memory, as one write.
    ///
    /// # Errors
    /// As [`File::write`].
    pub fn write_vectored_at(&self, srcs: &[UserSlice<'_>], offset: u64) -> Result<usize> {
        let file = self.for_writing()?;
        let position = self.write_position(offset);
        let (_, done) = self.node().write_vectored_at(file, position, srcs)?;
        Ok(done)
    }

    /// Copies `len` bytes from `pos` to `to_pos` of `to`, inside the image; no cursor moves. See [`Inode::copy_range`].
    ///
    /// # Errors
    /// `NotOpenForRead`, `NotOpenForWrite` (also for a target opened to append), and as [`Inode::copy_range`].
    pub fn copy_range(&self, pos: u64, to: &File, to_pos: u64, len: u64) -> Result<u64> {
        let (file, to_file) = (self.for_reading()?, to.for_writing()?);
        if to.open.access.append {
            return Err(Error::NotOpenForWrite);
        }
        if !self.inode().mount().is_same(to.inode().mount()) {
            return Err(Error::CrossDevice);
        }
        self.node()
            .copy_range(file, pos, (to.node(), to_file), to_pos, len)
    }

    /// Where the bytes of `range` lie on the medium: at most `max` extents. See [`Inode::extents`].
    ///
    /// # Errors
    /// As [`Inode::extents`].
    pub fn extents(&self, range: Range<u64>, max: usize) -> Result<Vec<FileExtent>> {
        self.node().extents(self.contents()?, range, max)
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// `OutOfRange` if the file ends before `buf` does; and as [`File::read`].
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read_at(&mut buf[filled..], offset + filled as u64)? {
                0 => return Err(Error::OutOfRange),
                done => filled += done,
            }
        }
        Ok(())
    }

    /// Writes all of `src` at `offset`.
    ///
    /// # Errors
    /// As [`File::write`]; part of it may be written then.
    pub fn write_all_at(&self, src: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < src.len() {
            done += self.write_at(&src[done..], offset + done as u64)?;
        }
        Ok(())
    }

    // ---- the file as a whole ----

    /// Length in bytes.
    ///
    /// # Errors
    /// `Corrupt`.
    #[expect(clippy::len_without_is_empty, reason = "a file, not a collection")]
    pub fn len(&self) -> Result<u64> {
        Ok(self.open.inode.attributes()?.size)
    }

    /// Cuts the file off at `size`, or extends it with a hole. The cursor stays.
    ///
    /// # Errors
    /// `NotOpenForWrite`, and as [`Inode::set_len`].
    pub fn set_len(&self, size: u64) -> Result<()> {
        self.node().set_len(self.for_writing()?, size)
    }

    /// Makes a hole of the bytes of `range`; the size stays.
    ///
    /// # Errors
    /// `NotOpenForWrite`, and as [`Inode::punch_hole`].
    pub fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.node().punch_hole(self.for_writing()?, range)
    }

    /// Makes the bytes of `range` read zero.
    ///
    /// # Errors
    /// `NotOpenForWrite`, and as [`Inode::zero_range`].
    pub fn zero_range(&self, range: Range<u64>) -> Result<()> {
        self.node().zero_range(self.for_writing()?, range)
    }

    /// Gives the bytes of `range` their place on the medium.
    ///
    /// # Errors
    /// `NotOpenForWrite`, and as [`Inode::allocate`].
    pub fn allocate(&self, range: Range<u64>) -> Result<()> {
        self.node().allocate_range(self.for_writing()?, range)
    }

    /// fallocate(2). See [`Inode::fallocate`].
    ///
    /// # Errors
    /// `NotOpenForWrite`, and as [`Inode::fallocate`].
    pub fn fallocate(&self, how: Fallocate, range: Range<u64>) -> Result<()> {
        self.node().fallocate(self.for_writing()?, how, range)
    }

    /// The first byte of data at or behind `pos`; the cursor stays.
    ///
    /// # Errors
    /// `NoSuchOffset` if only holes follow.
    pub fn seek_data(&self, pos: u64) -> Result<u64> {
        self.node().seek_data(self.contents()?, pos)
    }

    /// The first byte of a hole at or behind `pos`; the cursor stays.
    ///
    /// # Errors
    /// `NoSuchOffset` at and past the end.
    pub fn seek_hole(&self, pos: u64) -> Result<u64> {
        self.node().seek_hole(self.contents()?, pos)
    }

    /// What is known about the file.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn metadata(&self) -> Result<Metadata> {
        Ok(Metadata::new(self.open.inode.attributes()?))
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    /// As [`Inode::set_attributes`].
    pub fn set_permissions(&self, permissions: Permissions) -> Result<()> {
        let change = SetAttributes {
            permissions: Some(permissions.mode()),
            ..SetAttributes::default()
        };
        self.open.inode.set_attributes(&change)
    }

    /// Sets access and modification time.
    ///
    /// # Errors
    /// As [`Inode::set_attributes`].
    pub fn set_times(&self, times: FileTimes) -> Result<()> {
        self.open.inode.set_attributes(&SetAttributes {
            accessed: times.accessed,
            modified: times.modified,
            ..SetAttributes::default()
        })
    }

    /// Makes contents and attributes durable: stores through mappings, and in a region whose stores are not durable by
    /// themselves everything else, too.
    ///
    /// # Errors
    /// `Io` if the medium fails.
    pub fn sync_all(&self) -> Result<()> {
        self.open.inode.sync()
    }

    /// The same here: attributes that contents depend on are always durable first, the rest costs nothing.
    ///
    /// # Errors
    /// As [`File::sync_all`].
    pub fn sync_data(&self) -> Result<()> {
        self.open.inode.sync()
    }
}

#[cfg(feature = "std")]
mod hosted {
    use alloc::vec::Vec;
    use std::io;

    use ext2dax_pmem::{UserSlice, UserSliceMut};

    use super::{File, SeekFrom};

    impl From<io::SeekFrom> for SeekFrom {
        fn from(to: io::SeekFrom) -> Self {
            match to {
                io::SeekFrom::Start(pos) => Self::Start(pos),
                io::SeekFrom::End(by) => Self::End(by),
                io::SeekFrom::Current(by) => Self::Current(by),
            }
        }
    }

    impl io::Read for &File {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            Ok(File::read(self, buf)?)
        }

        fn read_vectored(&mut self, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
            let mut bufs: Vec<UserSliceMut<'_>> =
                bufs.iter_mut().map(|buf| (&mut **buf).into()).collect();
            Ok(File::read_vectored(self, &mut bufs)?)
        }
    }

    impl io::Write for &File {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            Ok(File::write(self, buf)?)
        }

        fn write_vectored(&mut self, srcs: &[io::IoSlice<'_>]) -> io::Result<usize> {
            let srcs: Vec<UserSlice<'_>> = srcs.iter().map(|src| (&**src).into()).collect();
            Ok(File::write_vectored(self, &srcs)?)
        }

        /// Nothing is kept back. [`File::sync_all`] is what makes a file durable.
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl io::Seek for &File {
        fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
            Ok(File::seek(self, to)?)
        }
    }

    impl io::Read for File {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            io::Read::read(&mut &*self, buf)
        }

        fn read_vectored(&mut self, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
            io::Read::read_vectored(&mut &*self, bufs)
        }
    }

    impl io::Write for File {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            io::Write::write(&mut &*self, buf)
        }

        fn write_vectored(&mut self, srcs: &[io::IoSlice<'_>]) -> io::Result<usize> {
            io::Write::write_vectored(&mut &*self, srcs)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl io::Seek for File {
        fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
            io::Seek::seek(&mut &*self, to)
        }
    }
}
