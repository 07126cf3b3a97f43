//! What is known about a file, and what can be set.

use ext2dax_format::device::Device;
use ext2dax_format::{FileType, InodeFlags, Timestamp};

use crate::inode::Attributes;

/// Attributes of a file, as they were when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata(Attributes);

impl Metadata {
    pub(crate) fn new(attributes: Attributes) -> Self {
        Self(attributes)
    }

    /// All of it at once.
    #[must_use]
    pub fn attributes(&self) -> &Attributes {
        &self.0
    }

    /// What kind of file it is.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        self.0.file_type
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.0.file_type == FileType::Directory
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.0.file_type == FileType::Regular
    }

    /// Whether it is a symlink; only [`FileSystem::symlink_metadata`](crate::FileSystem::symlink_metadata) shows one.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.0.file_type == FileType::Symlink
    }

    /// Length in bytes; of a symlink, that of its target.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "the shape of std::fs::Metadata"
    )]
    pub fn len(&self) -> u64 {
        self.0.size
    }

    /// The permission bits.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        Permissions {
            mode: self.0.permissions,
        }
    }

    /// Type and permission bits, as `st_mode` has them.
    #[must_use]
    pub fn mode(&self) -> u32 {
        u32::from(self.0.file_type.mode() | self.0.permissions)
    }

    /// Owner.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// Group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.0.gid
    }

    /// Inode number.
    #[must_use]
    pub fn ino(&self) -> u32 {
        self.0.ino
    }

    /// Number of names.
    #[must_use]
    pub fn nlink(&self) -> u16 {
        self.0.links
    }

    /// Space taken, in units of 512 bytes.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.0.sectors
    }

    /// Bytes of one block.
    #[must_use]
    pub fn blksize(&self) -> u32 {
        self.0.block_size
    }

    /// Device number of a device.
    #[must_use]
    pub fn rdev(&self) -> Option<Device> {
        self.0.device
    }

    /// Inode flags (`lsattr`).
    #[must_use]
    pub fn flags(&self) -> InodeFlags {
        self.0.flags
    }

    /// Last access.
    #[must_use]
    pub fn accessed(&self) -> Timestamp {
        self.0.accessed
    }

    /// Last change of the contents.
    #[must_use]
    pub fn modified(&self) -> Timestamp {
        self.0.modified
    }

    /// Last change of the inode.
    #[must_use]
    pub fn changed(&self) -> Timestamp {
        self.0.changed
    }

    /// Creation, where the inode is large enough to say.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        self.0.created
    }
}

/// Permission bits of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    mode: u16,
}

impl Permissions {
    /// From the low twelve bits of `mode`: set-id bits, sticky bit, and three times read, write, execute.
    #[must_use]
    pub fn from_mode(mode: u16) -> Self {
        Self {
            mode: mode & 0o7777,
        }
    }

    /// The twelve bits.
    #[must_use]
    pub fn mode(self) -> u16 {
        self.mode
    }

    /// Whether nobody may write.
    #[must_use]
    pub fn readonly(self) -> bool {
        self.mode & 0o222 == 0
    }

    /// Takes write permission from everybody, or gives it to everybody.
    pub fn set_readonly(&mut self, readonly: bool) {
        if readonly {
            self.mode &= !0o222;
        } else {
            self.mode |= 0o222;
        }
    }
}

/// Times to be set; what is not named stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTimes {
    pub(crate) accessed: Option<Timestamp>,
    pub(crate) modified: Option<Timestamp>,
}

impl FileTimes {
    /// Nothing to be set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time of the last access.
    #[must_use]
    pub fn set_accessed(mut self, time: impl Into<Timestamp>) -> Self {
        self.accessed = Some(time.into());
        self
    }

    /// Sets the time of the last change of the contents.
    #[must_use]
    pub fn set_modified(mut self, time: impl Into<Timestamp>) -> Self {
        self.modified = Some(time.into());
        self
    }
}
