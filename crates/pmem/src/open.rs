//! Opening an image: what kind of medium it is, how long it is, who else uses it.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::map::Shared;
use crate::raw::region::Persist;

mod holder;
mod pieces;

use pieces::Pieces;

/// What the opener wants to do with the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look only. Shares the image with other readers; refused while somebody writes.
    ReadOnly,
    /// Look only, without asking who else uses the image: what is seen may be torn.
    ReadOnlyForced,
    /// Look and change. Refused while anybody else uses the image.
    ReadWrite,
}

impl Access {
    fn writes(self) -> bool {
        self == Access::ReadWrite
    }
}

/// What the image lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A regular file behind a page cache.
    File,
    /// A regular file of a DAX file system: mapped with MAP_SYNC, lines are flushed from user space.
    DaxFile,
    /// A regular file of a file system in memory.
    MemoryFile,
    /// A block device.
    BlockDevice,
    /// A character device of the dax subsystem: memory only, no read or write calls.
    DaxDevice,
}

/// Why an image cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The operating system refused a call.
    Io {
        /// The image.
        path: PathBuf,
        /// What was tried: "open", "map" and the like.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// Somebody else uses the image.
    InUse {
        /// The image.
        path: PathBuf,
        /// Process numbers of the holders, if the system tells.
        holders: Vec<u32>,
    },
    /// The path leads to something that cannot hold an image.
    NotAnImage {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The wanted piece is not inside the file or device.
    OutOfRange {
        /// The image.
        path: PathBuf,
        /// Where it should start, in bytes.
        offset: u64,
        /// Bytes that the file or device has.
        len: u64,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io { path, what, source } => {
                write!(f, "{}: {what}: {source}", path.display())
            }
            OpenError::InUse { path, holders } if holders.is_empty() => {
                write!(f, "{}: in use by another process", path.display())
            }
            OpenError::InUse { path, holders } => {
                write!(f, "{}: in use by process", path.display())?;
                for (i, pid) in holders.iter().enumerate() {
                    write!(f, "{}{pid}", if i == 0 { " " } else { ", " })?;
                }
                Ok(())
            }
            OpenError::NotAnImage { path, what } => {
                write!(f, "{}: {what} cannot hold an image", path.display())
            }
            OpenError::OutOfRange { path, offset, len } => {
                write!(
                    f,
                    "{}: no image at byte {offset}: it has {len} bytes",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // What lies behind the error that is shown as this one's own words.
            OpenError::Io { source, .. } => source.source(),
            _ => None,
        }
    }
}

/// A file, block device or dax device, mapped whole or from an offset, and locked for as long as it is mapped.
///
/// The lock is advisory and belongs to the open file, so it ends with the last mapping, or with the process.
#[derive(Debug)]
pub struct FileRegion {
    map: Shared,
    file: File,
    path: PathBuf,
    medium: Medium,
    persist: Persist,
    offset: u64,
    /// Pieces that are read through the mapping, if any are.
    pieces: Option<Pieces>,
}

impl FileRegion {
    /// Opens and maps all of `path`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self, OpenError> {
        Self::open_at(path, access, 0, None)
    }

    /// Opens and maps `len` bytes of `path` from `offset` on (an image inside a disk), or everything from there.
    ///
    /// Bytes outside are not mapped, so nothing can touch them.
    ///
    /// # Errors
    /// See [`OpenError`]; `OutOfRange` also when `offset` is not a multiple of 512.
    pub fn open_at(
        path: impl AsRef<Path>,
        access: Access,
        offset: u64,
        len: Option<u64>,
    ) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let io_error = |what| {
            move |source| OpenError::Io {
                path: path.to_owned(),
                what,
                source,
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(access.writes())
            .open(path)
            .map_err(|error| match error.kind() {
                // For reading it can be opened, and is refused with the same words.
                io::ErrorKind::IsADirectory => OpenError::NotAnImage {
                    path: path.to_owned(),
                    what: "a directory",
                },
                _ => io_error("open")(error),
            })?;
        lock(&file, path, access)?;
        let medium = Medium::of(&file, path)?;
        let whole = medium.length(&mut file).map_err(io_error("size"))?;
        let out_of_range = || OpenError::OutOfRange {
            path: path.to_owned(),
            offset,
            len: whole,
        };
        let rest = whole.checked_sub(offset).ok_or_else(out_of_range)?;
        let len = len.unwrap_or(rest);
        if len > rest || len == 0 || !offset.is_multiple_of(512) {
            return Err(out_of_range());
        }
        let size = usize::try_from(len).map_err(|_| out_of_range())?;
        let (map, medium) = map(&file, medium, offset, size, access).map_err(io_error("map"))?;
        let persist = match medium {
            Medium::DaxFile | Medium::DaxDevice => Persist::FlushLines,
            Medium::MemoryFile => Persist::Volatile,
            Medium::File | Medium::BlockDevice => Persist::PageCache,
        };
        let pieces = match medium {
            Medium::MemoryFile => Pieces::of(&file, whole),
            _ => None,
        };
        Ok(FileRegion {
            map,
            file,
            path: path.to_owned(),
            medium,
            persist,
            offset,
            pieces,
        })
    }

    /// What the image lies on.
    pub fn medium(&self) -> Medium {
        self.medium
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file that carries the lock; views map it again.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the region starts in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn mapping(&self) -> &Shared {
        &self.map
    }

    pub(crate) fn persistence(&self) -> Persist {
        self.persist
    }

    /// Files are mapped anew for views, at addresses congruent to the offset in the file; so that offset counts.
    pub(crate) fn phase(&self) -> Option<u32> {
        if !self.offset.is_multiple_of(4096) {
            return None;
        }
        u32::try_from(self.offset / 4096 % 512).ok()
    }

    /// Reads by a call where that and the mapping see one page cache, and the call is cheaper.
    pub(crate) fn read_past_mapping(&self, at: u64, to: &mut [u8]) -> bool {
        use std::os::unix::fs::FileExt as _;
        let start = self.offset + at;
        let bytes = start..start + to.len() as u64;
        let whole = |pieces: &Pieces| pieces.are_whole(&self.file, bytes);
        match self.medium {
            Medium::DaxDevice | Medium::DaxFile => false,
            _ if self.pieces.as_ref().is_some_and(whole) => false,
            Medium::File | Medium::MemoryFile | Medium::BlockDevice => {
                self.file.read_exact_at(to, start).is_ok()
            }
        }
    }

    /// Large pages for a range: of memory, not of a page cache that belongs to a disk.
    pub(crate) fn populate_range(&self, range: Range<u64>) -> bool {
        self.medium == Medium::MemoryFile && self.map.populate_huge(range)
    }

    pub(crate) fn sync_range(&self, range: Range<u64>) -> io::Result<()> {
        match self.medium {
            // Both answer an error to msync, and need none.
            Medium::DaxDevice | Medium::DaxFile => Ok(()),
            Medium::MemoryFile => Ok(()),
            Medium::File | Medium::BlockDevice => self.map.sync(range),
        }
    }
}

/// A child that is between fork and exec holds its parent's open files, and with them a lock that the parent has given
/// up: a lock that is busy is tried again for so long.
const FORK_LASTS: Duration = Duration::from_millis(250);

fn lock(file: &File, path: &Path, access: Access) -> Result<(), OpenError> {
    let since = Instant::now();
    let locked = loop {
        let locked = match access {
            Access::ReadWrite => file.try_lock(),
            Access::ReadOnly => file.try_lock_shared(),
            Access::ReadOnlyForced => return Ok(()),
        };
        match locked {
            Err(TryLockError::WouldBlock) if since.elapsed() < FORK_LASTS => {
                std::thread::sleep(Duration::from_millis(5));
            }
            locked => break locked,
        }
    };
    locked.map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::InUse {
            path: path.to_owned(),
            holders: holder::of(file),
        },
        TryLockError::Error(source) => OpenError::Io {
            path: path.to_owned(),
            what: "lock",
            source,
        },
    })
}

impl Medium {
    fn of(file: &File, path: &Path) -> Result<Self, OpenError> {
        use std::os::unix::fs::FileTypeExt;
        let io_error = |source| OpenError::Io {
            path: path.to_owned(),
            what: "stat",
            source,
        };
        let kind = file.metadata().map_err(io_error)?.file_type();
        let not_an_image = |what| OpenError::NotAnImage {
            path: path.to_owned(),
            what,
        };
        if kind.is_file() {
            // Linux magic numbers, statfs(2).
            const TMPFS: u64 = 0x0102_1994;
            const HUGETLBFS: u64 = 0x9584_58f6;
            let magic = rustix::fs::fstatfs(file)
                .map_err(|e| io_error(e.into()))?
                .f_type;
            match u64::try_from(magic) {
                Ok(TMPFS) => Ok(Medium::MemoryFile),
                Ok(HUGETLBFS) => Err(not_an_image("a file on hugetlbfs")),
                _ => Ok(Medium::File),
            }
        } else if kind.is_block_device() {
            Ok(Medium::BlockDevice)
        } else if kind.is_char_device() {
            let (major, minor) = device_number(file).map_err(io_error)?;
            let subsystem = std::fs::read_link(format!("/sys/dev/char/{major}:{minor}/subsystem"));
            match subsystem {
                Ok(link) if link.file_name().is_some_and(|name| name == "dax") => {
                    Ok(Medium::DaxDevice)
                }
                _ => Err(not_an_image("a character device other than dax")),
            }
        } else if kind.is_dir() {
            Err(not_an_image("a directory"))
        } else {
            Err(not_an_image("a special file"))
        }
    }

    fn length(self, file: &mut File) -> io::Result<u64> {
        match self {
            // A dax device has no end to seek to; sysfs knows.
            Medium::DaxDevice => {
                let (major, minor) = device_number(file)?;
                let text = std::fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/size"))?;
                text.trim()
                    .parse()
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
            }
            _ => file.seek(SeekFrom::End(0)),
        }
    }
}

fn device_number(file: &File) -> io::Result<(u32, u32)> {
    let device = rustix::fs::fstat(file)?.st_rdev;
    Ok((rustix::fs::major(device), rustix::fs::minor(device)))
}

/// MAP_SYNC is tried wherever it could work: a regular file of a file system that does not know it refuses.
fn map(
    file: &File,
    medium: Medium,
    offset: u64,
    len: usize,
    access: Access,
) -> io::Result<(Shared, Medium)> {
    let page = rustix::param::page_size() as u64;
    let aligned = offset.is_multiple_of(page);
    if medium == Medium::File
        && aligned
        && let Some(map) = Shared::synchronous(file, offset, len, access.writes())
    {
        return Ok((map, Medium::DaxFile));
    }
    if medium == Medium::MemoryFile
        && aligned
        && let Some(map) = Shared::congruent(file, offset, len, access.writes())
    {
        return Ok((map, medium));
    }
    Ok((Shared::new(file, offset, len, access.writes())?, medium))
}
