//! Contents of regular files.

use ext2dax::{Error, Fallocate, FileType};

use super::{Answer, Caller, Server};

/// What lseek looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte of data.
    Data,
    /// The next hole; the end of the file is one.
    Hole,
}

impl Server {
    /// Reads into `buf` from byte `pos` on. Fewer bytes come at the end of the file only.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL` for other types, `EUCLEAN`.
    pub fn read(&self, node: u64, pos: u64, buf: &mut [u8]) -> Answer<usize> {
        Ok(self.node(node)?.read_at(pos, buf)?)
    }

    /// Writes at byte `pos`; where somebody is named who may not keep them, set-id bits and file capabilities go.
    ///
    /// # Errors
    /// `EROFS`, `EPERM` by a flag, `EFBIG`, `ENOSPC`, `EUCLEAN`: not a byte was written.
    pub fn write(
        &self,
        node: u64,
        pos: u64,
        bytes: &[u8],
        unprivileged: Option<Caller>,
    ) -> Answer<usize> {
        let inode = self.node(node)?;
        if let Some(caller) = unprivileged {
            Self::drop_privileges(caller, &inode)?;
        }
        self.with_room(|| Ok(inode.write_at(pos, bytes)?))
    }

    /// fallocate(2), by the mode bits of the system call.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for what ext2 has no clean state for: blocks past the end of a file that keeps its size, collapsing,
    /// inserting. Otherwise as for writes.
    pub fn allocate(&self, caller: Caller, node: u64, pos: u64, len: u64, mode: i32) -> Answer<()> {
        let inode = self.node(node)?;
        let how = Fallocate::from_linux_mode(mode.cast_unsigned())?;
        let end = pos.checked_add(len).ok_or(Error::FileTooLarge)?;
        if !caller.is_root() {
            Self::drop_privileges(caller, &inode)?;
        }
        self.with_room(|| Ok(inode.fallocate(how, pos..end)?))
    }

    /// The next data or hole at or behind `pos`, from the tree that reads use.
    ///
    /// # Errors
    /// `ENXIO` where there is none, and past the end.
    pub fn seek(&self, node: u64, pos: u64, what: Seek) -> Answer<u64> {
        let inode = self.node(node)?;
        Ok(match what {
            Seek::Data => inode.seek_data(pos)?,
            Seek::Hole => inode.seek_hole(pos)?,
        })
    }

    /// Copies inside the image and answers how much: less than `len` at the end of the source, and where the target is
    /// full.
    ///
    /// # Errors
    /// As for writes, if not a byte was copied.
    pub fn copy(
        &self,
        caller: Caller,
        (from, from_pos): (u64, u64),
        (to, to_pos): (u64, u64),
        len: u64,
    ) -> Answer<u64> {
        let (from, to) = (self.node(from)?, self.node(to)?);
        if !caller.is_root() {
            Self::drop_privileges(caller, &to)?;
        }
        self.with_room(|| Ok(from.copy_range(from_pos, &to, to_pos, len)?))
    }

    /// Makes a file durable, contents and attributes; a directory with everything that it takes to find its names.
    ///
    /// # Errors
    /// `EIO` if the medium fails.
    pub fn sync(&self, node: u64) -> Answer<()> {
        let inode = self.node(node)?;
        match inode.file_type() {
            FileType::Directory => inode.file_system().sync()?,
            _ => inode.sync()?,
        }
        Ok(())
    }
}
