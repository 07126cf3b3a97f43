//! Contents of regular files.

use ext2dax::{FileType, Inode};

use super::attributes::drop_set_id;
use super::{Answer, Caller, Errno, Server};

/// What fallocate is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Blocks for the range; the file grows over it.
    Grow,
    /// Blocks for the range, which must lie inside the file.
    Inside,
    /// A hole.
    Punch,
    /// Zeroes; the file grows over the range.
    Zero,
    /// Zeroes in a range that must lie inside the file.
    ZeroInside,
}

impl Allocate {
    const KEEP_SIZE: i32 = 1;
    const PUNCH_HOLE: i32 = 2;
    const ZERO_RANGE: i32 = 16;

    /// What the mode bits of `fallocate(2)` mean.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for what the format cannot do: collapse, insert, unshare.
    pub fn from_mode(mode: i32) -> Answer<Self> {
        const PUNCH: i32 = Allocate::PUNCH_HOLE | Allocate::KEEP_SIZE;
        const ZERO_INSIDE: i32 = Allocate::ZERO_RANGE | Allocate::KEEP_SIZE;
        match mode {
            0 => Ok(Self::Grow),
            Self::KEEP_SIZE => Ok(Self::Inside),
            PUNCH => Ok(Self::Punch),
            Self::ZERO_RANGE => Ok(Self::Zero),
            ZERO_INSIDE => Ok(Self::ZeroInside),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// What lseek looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte of data.
    Data,
    /// The next hole; the end of the file is one.
    Hole,
}

/// Bytes that a copy moves at a time.
const COPY_PIECE: usize = 1 << 20;

impl Server {
    /// Reads into `buf` from byte `pos` on. Fewer bytes come at the end of the file only.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL` for other types, `EUCLEAN`.
    pub fn read(&self, node: u64, pos: u64, buf: &mut [u8]) -> Answer<usize> {
        Ok(self.node(node)?.read_at(pos, buf)?)
    }

    /// Writes at byte `pos`; with `drop_privileges` the set-id bits go.
    ///
    /// # Errors
    /// `EROFS`, `EPERM` by a flag, `EFBIG`, `ENOSPC`, `EUCLEAN`: not a byte was written.
    pub fn write(&self, node: u64, pos: u64, bytes: &[u8], drop_privileges: bool) -> Answer<usize> {
        let inode = self.node(node)?;
        if drop_privileges {
            drop_set_id(&inode)?;
        }
        Ok(inode.write_at(pos, bytes)?)
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP` for blocks past the end of a file that keeps its size: ext2 has no clean state for them. Otherwise as
    /// for writes.
    pub fn allocate(
        &self,
        caller: Caller,
        node: u64,
        pos: u64,
        len: u64,
        how: Allocate,
    ) -> Answer<()> {
        let inode = self.node(node)?;
        let end = pos.checked_add(len).ok_or(ext2dax::Error::FileTooLarge)?;
        let range = pos..end;
        if matches!(how, Allocate::Inside | Allocate::ZeroInside) && end > inode.attributes()?.size
        {
            return Err(Errno::EOPNOTSUPP);
        }
        match how {
            Allocate::Grow | Allocate::Inside => inode.allocate(range)?,
            Allocate::Punch => inode.punch_hole(range)?,
            Allocate::Zero | Allocate::ZeroInside => inode.zero_range(range)?,
        }
        if !caller.is_root() {
            drop_set_id(&inode)?;
        }
        Ok(())
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
            drop_set_id(&to)?;
        }
        let piece = usize::try_from(len).unwrap_or(COPY_PIECE).min(COPY_PIECE);
        let mut buf = vec![0; piece];
        let mut done = 0;
        while done < len {
            match copy_piece(
                &from,
                from_pos + done,
                &to,
                to_pos + done,
                len - done,
                &mut buf,
            ) {
                Ok(0) => break,
                Ok(copied) => done += copied,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
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

/// Reads once and writes once, through `buf`.
fn copy_piece(
    from: &Inode,
    from_pos: u64,
    to: &Inode,
    to_pos: u64,
    len: u64,
    buf: &mut [u8],
) -> Answer<u64> {
    let want = usize::try_from(len).unwrap_or(buf.len()).min(buf.len());
    let read = from.read_at(from_pos, &mut buf[..want])?;
    if read == 0 {
        return Ok(0);
    }
    Ok(to.write_at(to_pos, &buf[..read])? as u64)
}
