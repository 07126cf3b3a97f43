//! The one error type of the workspace.

use core::fmt;

use crate::{Compat, CorruptKind, Features, Incompat, RoCompat};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

macro_rules! plain_errors {
    ($($(#[$doc:meta])* $name:ident = $errno:literal, $text:literal;)*) => {
        /// What can go wrong, with the numbers that find the place. `Copy`, no allocation; [`Error::errno`] gives the
        /// number a POSIX caller expects.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Error {
            /// The image contradicts itself: nothing has changed, and fsck should look. `EUCLEAN`.
            Corrupt(CorruptKind),
            /// No ext2 superblock: the magic number is another. `EINVAL`.
            NotExt2 {
                /// What stands in `s_magic`.
                magic: u16,
            },
            /// The region ends before a superblock could. `EINVAL`.
            TooShort {
                /// Length of the region in bytes.
                len: u64,
            },
            /// Features that this project does not know, all of them at once. `EOPNOTSUPP`.
            Unsupported {
                /// Bits of `s_feature_incompat` that forbid opening.
                incompat: u32,
                /// Bits of `s_feature_ro_compat` that forbid writing; zero if only reading was asked for.
                ro_compat: u32,
            },
            /// A revision other than 0 and 1. `EOPNOTSUPP`.
            UnsupportedRevision(u32),
            /// An inode whose flags say that its contents are not found by block pointers, or are not what they seem:
            /// nothing is wrong with the image. `EOPNOTSUPP`.
            ForeignContents {
                /// Inode number.
                inode: u32,
                /// The flags of `i_flags` that say so.
                flags: u32,
            },
            $($(#[$doc])* $name,)*
        }

        impl Error {
            /// The errno of Linux for this error (asm-generic numbers).
            #[must_use]
            pub const fn errno(self) -> i32 {
                match self {
                    Self::Corrupt(_) => 117,
                    Self::NotExt2 { .. } | Self::TooShort { .. } => 22,
                    Self::Unsupported { .. } | Self::UnsupportedRevision(_) | Self::ForeignContents { .. } => 95,
                    $(Self::$name => $errno,)*
                }
            }

            const fn text(self) -> &'static str {
                match self {
                    Self::Corrupt(_) | Self::NotExt2 { .. } | Self::TooShort { .. } | Self::Unsupported { .. }
                    | Self::UnsupportedRevision(_) | Self::ForeignContents { .. } => "",
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

plain_errors! {
    /// The file system is open for reading only, or became so after an error. `EROFS`.
    ReadOnlyFs = 30, "read-only file system";
    /// No free block that the caller may have. `ENOSPC`.
    NoSpace = 28, "no space left in the file system";
    /// No free inode. `ENOSPC`.
    NoInodes = 28, "no inode left in the file system";
    /// No such name, or no such inode. `ENOENT`.
    NotFound = 2, "no such file or directory";
    /// The name is taken. `EEXIST`.
    AlreadyExists = 17, "file exists";
    /// A directory was needed. `ENOTDIR`.
    NotADirectory = 20, "not a directory";
    /// Anything but a directory was needed. `EISDIR`.
    IsADirectory = 21, "is a directory";
    /// The directory still has names. `ENOTEMPTY`.
    DirectoryNotEmpty = 39, "directory not empty";
    /// A name of more than 255 bytes. `ENAMETOOLONG`.
    NameTooLong = 36, "file name too long";
    /// An empty name, or one with `/` or a zero byte, or `.` or `..` where a new name is needed. `EINVAL`.
    InvalidName = 22, "invalid file name";
    /// The link count is at its limit. `EMLINK`.
    TooManyLinks = 31, "too many links";
    /// Past the largest offset that a file of this block size can have. `EFBIG`.
    FileTooLarge = 27, "file too large";
    /// An argument that makes no sense. `EINVAL`.
    InvalidArgument = 22, "invalid argument";
    /// Forbidden by an immutable or append-only flag. `EPERM`.
    NotPermitted = 1, "operation not permitted";
    /// Forbidden by mode and owner. `EACCES`.
    AccessDenied = 13, "permission denied";
    /// Not possible on this file system or this kind of file. `EOPNOTSUPP`.
    NotSupported = 95, "operation not supported";
    /// In use. `EBUSY`.
    Busy = 16, "resource busy";
    /// The medium failed. `EIO`.
    Io = 5, "input/output error";
    /// Symlinks that go in circles, or too many of them. `ELOOP`.
    TooManySymlinks = 40, "too many levels of symbolic links";
    /// Two file systems in one operation. `EXDEV`.
    CrossDevice = 18, "not on the same file system";
    /// The handle's inode is gone or is another one by now. `ESTALE`.
    Stale = 116, "stale file handle";
    /// Memory that the caller cannot access. `EFAULT`.
    BadAddress = 14, "bad address";
    /// Waiting would never end. `EDEADLK`.
    Deadlock = 35, "resource deadlock avoided";
    /// No memory. `ENOMEM`.
    NoMemory = 12, "out of memory";
    /// Would have to wait and must not. `EAGAIN`.
    WouldBlock = 11, "operation would block";
    /// No such attribute. `ENODATA`.
    NoData = 61, "no such attribute";
    /// An attribute value of more than 65,536 bytes. `E2BIG`.
    ValueTooLong = 7, "attribute value too long";
    /// No data or no hole behind this offset (seek). `ENXIO`.
    NoSuchOffset = 6, "no such offset";
    /// The answer does not fit into the buffer or the type. `ERANGE`.
    OutOfRange = 34, "result out of range";
    /// The handle was not opened for reading. `EBADF`.
    NotOpenForRead = 9, "file not open for reading";
    /// The handle was not opened for writing. `EBADF`.
    NotOpenForWrite = 9, "file not open for writing";
    /// The value is larger than its field. `EOVERFLOW`.
    Overflow = 75, "value too large for its field";
    /// Interrupted. `EINTR`.
    Interrupted = 4, "interrupted";
    /// Another driver left it as it was in use, or marked it as damaged: not for writing before a check. `EUCLEAN`.
    NeedsFsck = 117, "not cleanly unmounted by another driver: run fsck first, or open read-only";
}

impl From<CorruptKind> for Error {
    fn from(kind: CorruptKind) -> Self {
        Self::Corrupt(kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Corrupt(kind) => kind.fmt(f),
            Self::NotExt2 { magic } => write!(
                f,
                "no ext2 superblock at byte 1024: magic number {magic:#06x}, not 0xef53"
            ),
            Self::TooShort { len } => {
                write!(f, "{len} bytes, too short for a superblock (needs 2048)")
            }
            Self::UnsupportedRevision(revision) => {
                write!(f, "revision {revision} is unknown (0 and 1 are known)")
            }
            Self::Unsupported {
                incompat,
                ro_compat,
            } => {
                let words = Features {
                    compat: Compat::empty(),
                    incompat: Incompat::from_bits_retain(incompat),
                    ro_compat: RoCompat::from_bits_retain(ro_compat),
                };
                if incompat == 0 {
                    write!(
                        f,
                        "cannot be opened for writing: unsupported features {} (read-only works)",
                        words.names(", ")
                    )
                } else {
                    write!(
                        f,
                        "cannot be opened: unsupported features {}",
                        words.names(", ")
                    )
                }
            }
            Self::ForeignContents { inode, flags } => write!(
                f,
                "inode {inode}: flags {flags:#010x} make its contents unreadable here"
            ),
            other => f.write_str(other.text()),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    /// Errors of the image keep their text, so that a message can name the place; the rest become the errno that a
    /// kernel would have given.
    fn from(error: Error) -> Self {
        let errno = Self::from_raw_os_error(error.errno());
        match error {
            Error::Corrupt(_)
            | Error::NotExt2 { .. }
            | Error::TooShort { .. }
            | Error::Unsupported { .. }
            | Error::UnsupportedRevision(_)
            | Error::ForeignContents { .. }
            | Error::NeedsFsck => Self::new(errno.kind(), error),
            _ => errno,
        }
    }
}
