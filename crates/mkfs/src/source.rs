//! Where the bytes of files come from, and what can be wrong with them.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ext2dax_format::Timestamp;
use ext2dax_format::device::Device;
use rustix::fs::Stat;

use crate::few::Few;
use crate::tree::Tree;

mod devices;
pub(crate) mod directory;
pub(crate) mod scan;
pub(crate) mod tar;

/// How names begin that mark what a layer removes.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The name that says that a directory has nothing from earlier layers.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Why contents cannot go into an image, and which file it is about.
#[derive(Debug)]
pub struct SourceError {
    /// The path in the source, as bytes.
    pub path: Box<[u8]>,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a file of a source.
#[derive(Debug)]
#[non_exhaustive]
pub enum Why {
    /// The system refused to read it.
    Io(io::Error),
    /// An archive that is damaged, or has something that an image cannot.
    Archive {
        /// Which member, from 1.
        member: u64,
        /// Where its header starts, in bytes, unpacked.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A line of a device table that makes no sense.
    Line(u32, &'static str),
    /// It was another file, longer, shorter or newer when its bytes were read.
    Changed,
    /// There is nothing of that name.
    Missing,
    /// A component is `..`.
    ClimbsOut,
    /// A component on the way is no directory.
    ThroughFile,
    /// A source that should be a directory is none.
    NotADirectory,
    /// Only a directory can be the root.
    RootIsDirectory,
    /// A name of so many bytes; 255 fit.
    NameTooLong(usize),
    /// A name with a zero byte.
    NulInName,
    /// A symbolic link to nothing.
    EmptySymlink,
    /// A symbolic link of so many bytes, and the most that fit.
    SymlinkTooLong(usize, u32),
    /// Not one of the special files.
    NotSpecial,
    /// A device number beyond 12 and 20 bits.
    DeviceNumber(Device),
    /// A hard link to nothing, or to a directory.
    LinkTarget(Box<[u8]>),
    /// More names than ext2 allows.
    TooManyLinks(u32),
    /// More subdirectories than ext2 allows.
    TooManySubdirectories(u32),
    /// More bytes than a file of this block size can have: found, and the most.
    FileTooLarge(u64, u64),
    /// A feature that the file needs and that was switched off.
    NeedsFeature(&'static str, &'static str),
    /// An attribute name that ext2 cannot store.
    AttributeName(Box<[u8]>),
    /// An attribute that Linux keeps for other kinds of files.
    AttributeOfKind(Box<[u8]>),
    /// An access control list that makes no sense.
    BadAcl,
    /// Attributes that fit neither into the inode nor into one block: the first that does not, and its size.
    AttributesTooLarge(Box<[u8]>, usize),
    /// Revision 0 of ext2 has 16-bit owners.
    OwnerTooLarge(u32),
    /// An owner that no map mentions.
    Unmapped(&'static str, u32),
}

impl SourceError {
    pub(crate) fn new(path: &[u8], why: Why) -> Self {
        Self {
            path: path.into(),
            why,
        }
    }

    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::new(path.as_os_str().as_bytes(), Why::Io(error))
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Lossy(&self.path), self.why)
    }
}

impl std::error::Error for SourceError {}

/// Bytes of a name, for a message on one line.
pub(crate) struct Lossy<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        for piece in self.0.utf8_chunks() {
            for letter in piece.valid().chars() {
                if letter.is_control() {
                    write!(f, "{}", letter.escape_default())?;
                } else {
                    write!(f, "{letter}")?;
                }
            }
            for byte in piece.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Archive { member, at, what } => {
                write!(f, "member {member} at byte {at}: {what}")
            }
            Self::Line(line, what) => write!(f, "line {line}: {what}"),
            Self::Changed => f.write_str("changed while it was read"),
            Self::Missing => f.write_str("is not there"),
            Self::ClimbsOut => f.write_str("leads out of the root with .."),
            Self::ThroughFile => f.write_str("leads through something that is no directory"),
            Self::NotADirectory => f.write_str("is no directory"),
            Self::RootIsDirectory => f.write_str("the root can only be a directory"),
            Self::NameTooLong(len) => write!(f, "a name of {len} bytes; at most 255 fit"),
            Self::NulInName => f.write_str("a name with a zero byte"),
            Self::EmptySymlink => f.write_str("a symbolic link to nothing"),
            Self::SymlinkTooLong(len, max) => {
                write!(
                    f,
                    "a symbolic link of {len} bytes; at most {max} fit with these blocks (-b)"
                )
            }
            Self::NotSpecial => f.write_str("not a special file"),
            Self::DeviceNumber(Device { major, minor }) => write!(
                f,
                "device {major}:{minor}: at most 4095:1048575 can be stored"
            ),
            Self::LinkTarget(target) => {
                write!(f, "a hard link to {}, which is no file here", Lossy(target))
            }
            Self::TooManyLinks(count) => {
                write!(f, "{count} hard links; ext2 allows 32000")
            }
            Self::TooManySubdirectories(count) => {
                write!(f, "{count} subdirectories; ext2 allows 31998")
            }
            Self::FileTooLarge(size, max) => {
                write!(
                    f,
                    "{size} bytes; a file has at most {max} with these blocks (-b)"
                )
            }
            Self::NeedsFeature(what, feature) => {
                write!(f, "{what} needs the feature {feature} (-O)")
            }
            Self::AttributeName(name) => write!(
                f,
                "attribute {}: ext2 stores user, trusted, security and system attributes only; see --xattrs",
                Lossy(name)
            ),
            Self::AttributeOfKind(name) => {
                write!(
                    f,
                    "attribute {}: not on this kind of file; see --xattrs",
                    Lossy(name)
                )
            }
            Self::BadAcl => f.write_str("an access control list that cannot be read"),
            Self::AttributesTooLarge(name, size) => write!(
                f,
                "attribute {} of {size} bytes: the attributes do not fit into the inode and one block; \
                 see -I, -b and --xattrs",
                Lossy(name)
            ),
            Self::OwnerTooLarge(id) => {
                write!(f, "owner {id}: revision 0 stores 16 bits; see --owner")
            }
            Self::Unmapped(what, id) => {
                write!(f, "{what} {id} is in no --{what}-map; see --map-rest")
            }
        }
    }
}

impl Tree {
    /// Carries out one mark of a layer: everything in the directory goes, or one name.
    pub(crate) fn white_out_name(&mut self, directory: &[u8], mark: &[u8]) {
        if mark == OPAQUE {
            self.clear(directory);
        } else if let Some(name) = mark.strip_prefix(WHITEOUT) {
            self.remove(directory::join(directory, name));
        }
    }
}

/// A run of blocks of a file that hold something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Blocks {
    pub(crate) fn end(self) -> u64 {
        u64::from(self.start) + u64::from(self.len)
    }
}

/// The bytes of a regular file.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) size: u64,
    pub(crate) data: Data,
    /// Blocks that are not holes, ascending, never adjacent: known after [`scan::run`].
    pub(crate) blocks: Few<Blocks>,
    /// Only samples were looked at: that no other block is zero shows when they are copied.
    pub(crate) sampled: bool,
}

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Data {
    Bytes(Box<[u8]>),
    /// In the tree, which keeps those of small files together: the number of the store, and the place in it.
    Kept(u32, u32),
    /// A file of its own.
    Path(Box<(PathBuf, Stamp)>),
    /// Pieces of a reader; what is between them is zero.
    Pieces(u32, Box<[Piece]>),
}

/// A piece of contents inside a larger file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it belongs in the contents.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Where it is in the reader.
    pub(crate) at: u64,
}

/// What tells that a file is still the one that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: Timestamp,
}

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            changed: time(stat),
        }
    }

    /// Device and inode.
    pub(crate) fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// When a file was modified.
pub(crate) fn time(stat: &Stat) -> Timestamp {
    Timestamp {
        secs: stat.st_mtime,
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

/// A file that many contents are pieces of: an archive, or its unpacked form.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

impl Contents {
    pub(crate) fn new(size: u64, data: Data) -> Self {
        Self {
            size,
            data,
            blocks: Few::None,
            sampled: false,
        }
    }

    pub(crate) fn bytes(bytes: Box<[u8]>) -> Self {
        Self::new(bytes.len() as u64, Data::Bytes(bytes))
    }

    pub(crate) fn of_path(path: &Path) -> Result<Self, SourceError> {
        let stat = rustix::fs::stat(path).map_err(|errno| SourceError::io(path, errno.into()))?;
        Ok(Self::of_stamp(path.to_owned(), Stamp::of(&stat)))
    }

    pub(crate) fn of_stamp(path: PathBuf, stamp: Stamp) -> Self {
        Self::new(stamp.size, Data::Path(Box::new((path, stamp))))
    }

    /// Opens the bytes for reading. Whoever has read them asks [`Open::check_unchanged`].
    pub(crate) fn open<'a>(&'a self, tree: &'a Tree) -> Result<Open<'a>, SourceError> {
        Ok(match &self.data {
            Data::Bytes(bytes) => Open::Bytes(bytes),
            Data::Kept(store, at) => {
                let bytes = &tree.kept[*store as usize][*at as usize..];
                let len = usize::try_from(self.size).unwrap_or(usize::MAX);
                Open::Bytes(&bytes[..len])
            }
            Data::Pieces(reader, pieces) => Open::Pieces(&tree.readers[*reader as usize], pieces),
            Data::Path(path) => {
                let (path, stamp) = &**path;
                let file = File::open(path).map_err(|error| SourceError::io(path, error))?;
                Open::File(file, path, *stamp)
            }
        })
    }
}

/// Contents, open for reading.
#[derive(Debug)]
pub(crate) enum Open<'a> {
    Bytes(&'a [u8]),
    File(File, &'a Path, Stamp),
    Pieces(&'a Reader, &'a [Piece]),
}

impl Open<'_> {
    /// Reads exactly the bytes from `offset` on; past the end there are zeroes.
    pub(crate) fn read_at(&self, offset: u64, to: &mut [u8]) -> Result<(), SourceError> {
        match self {
            Self::Bytes(bytes) => {
                let from = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
                let len = to.len().min(bytes.len() - from);
                to[..len].copy_from_slice(&bytes[from..from + len]);
                to[len..].fill(0);
                Ok(())
            }
            Self::File(file, path, stamp) => {
                let len = stamp.size.saturating_sub(offset).min(to.len() as u64);
                let len = usize::try_from(len).unwrap_or(to.len());
                read_exact(file, path, offset, &mut to[..len])?;
                to[len..].fill(0);
                Ok(())
            }
            Self::Pieces(reader, pieces) => read_pieces(reader, pieces, offset, to),
        }
    }

    /// Bytes of a file of its own, or of a piece of an archive, from `offset` on.
    pub(crate) fn len_from(&self, offset: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => (bytes.len() as u64).saturating_sub(offset),
            Self::File(_, _, stamp) => stamp.size.saturating_sub(offset),
            Self::Pieces(_, pieces) => {
                let next = pieces.partition_point(|piece| piece.offset + piece.len <= offset);
                let piece = pieces.get(next).filter(|piece| piece.offset <= offset);
                piece.map_or(0, |piece| piece.offset + piece.len - offset)
            }
        }
    }

    /// Where the bytes of a range are if they are one piece of one file: for copies inside the kernel.
    pub(crate) fn place(&self, offset: u64, len: u64) -> Option<(&File, u64)> {
        match self {
            Self::File(file, _, stamp) if offset + len <= stamp.size => Some((file, offset)),
            Self::Pieces(reader, pieces) => pieces
                .iter()
                .find(|piece| piece.offset <= offset && offset + len <= piece.offset + piece.len)
                .map(|piece| (&reader.file, piece.at + offset - piece.offset)),
            _ => None,
        }
    }

    /// Whether each byte has a place on its medium, as far as one can tell.
    pub(crate) fn is_allocated(&self) -> bool {
        let (file, stamp) = match self {
            Self::Bytes(_) => return true,
            Self::Pieces(_, pieces) => return pieces.len() == 1,
            Self::File(file, _, stamp) => (file, stamp),
        };
        let sectors = rustix::fs::fstat(file).map_or(0, |stat| stat.st_blocks);
        u64::try_from(sectors).is_ok_and(|sectors| sectors >= stamp.size.div_ceil(512))
    }

    /// Fails if a file is not the one that was looked at first.
    pub(crate) fn check_unchanged(&self) -> Result<(), SourceError> {
        let Self::File(file, path, stamp) = self else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(file).map_err(|errno| SourceError::io(path, errno.into()))?;
        if Stamp::of(&stat) == *stamp {
            Ok(())
        } else {
            Err(SourceError::new(path.as_os_str().as_bytes(), Why::Changed))
        }
    }
}

fn read_pieces(
    reader: &Reader,
    pieces: &[Piece],
    offset: u64,
    to: &mut [u8],
) -> Result<(), SourceError> {
    let end = offset + to.len() as u64;
    let first = pieces.partition_point(|piece| piece.offset + piece.len <= offset);
    let inside = pieces[first..]
        .iter()
        .take_while(|piece| piece.offset < end);
    let mut done = offset;
    let index = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
    for piece in inside {
        let from = piece.offset.max(offset);
        let until = (piece.offset + piece.len).min(end);
        to[index(done)..index(from)].fill(0);
        let at = piece.at + from - piece.offset;
        read_exact(
            &reader.file,
            &reader.path,
            at,
            &mut to[index(from)..index(until)],
        )?;
        done = until;
    }
    to[index(done)..].fill(0);
    Ok(())
}

/// A file that ends early was cut while it was read.
fn read_exact(file: &File, path: &Path, at: u64, to: &mut [u8]) -> Result<(), SourceError> {
    file.read_exact_at(to, at).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            SourceError::new(path.as_os_str().as_bytes(), Why::Changed)
        } else {
            SourceError::io(path, error)
        }
    })
}
