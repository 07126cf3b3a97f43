//! Inodes as they lie in the table, their types and flags.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::device::Device;
use crate::{CorruptKind, Error, Geometry, Ino, Result, Timestamp};

/// The first 128 bytes of every inode.
///
/// # On disk
/// *The Second Extended File System*, "Inode Table"; the last 12 bytes (`osd2`) as Linux has them.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the specification's names; each is explained where it is used"
)]
pub struct RawInode {
    pub i_mode: U16,
    pub i_uid: U16,
    pub i_size: U32,
    pub i_atime: U32,
    pub i_ctime: U32,
    pub i_mtime: U32,
    pub i_dtime: U32,
    pub i_gid: U16,
    pub i_links_count: U16,
    pub i_blocks: U32,
    pub i_flags: U32,
    pub i_osd1: U32,
    pub i_block: [U32; 15],
    pub i_generation: U32,
    pub i_file_acl: U32,
    pub i_size_high: U32,
    pub i_faddr: U32,
    pub l_i_blocks_high: U16,
    pub l_i_file_acl_high: U16,
    pub l_i_uid_high: U16,
    pub l_i_gid_high: U16,
    pub l_i_checksum_lo: U16,
    pub l_i_reserved: U16,
}

/// What an inode of more than 128 bytes goes on with. A field exists only if `128 + i_extra_isize` covers it.
///
/// # On disk
/// Linux `ext4/inodes.rst`, from byte 128 on.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the specification's names; each is explained where it is used"
)]
pub struct RawInodeExtra {
    pub i_extra_isize: U16,
    pub i_checksum_hi: U16,
    pub i_ctime_extra: U32,
    pub i_mtime_extra: U32,
    pub i_atime_extra: U32,
    pub i_crtime: U32,
    pub i_crtime_extra: U32,
    pub i_version_hi: U32,
    pub i_projid: U32,
}

const _: () = {
    assert!(size_of::<RawInode>() == 128);
    assert!(core::mem::offset_of!(RawInode, i_links_count) == 26);
    assert!(core::mem::offset_of!(RawInode, i_blocks) == 28);
    assert!(core::mem::offset_of!(RawInode, i_block) == 40);
    assert!(core::mem::offset_of!(RawInode, i_generation) == 100);
    assert!(core::mem::offset_of!(RawInode, i_size_high) == 108);
    assert!(core::mem::offset_of!(RawInode, l_i_uid_high) == 120);
    assert!(size_of::<RawInodeExtra>() == 32);
    assert!(core::mem::offset_of!(RawInodeExtra, i_crtime) == 16);
};

/// `i_extra_isize` of inodes that this project makes: all of [`RawInodeExtra`].
pub const EXTRA_ISIZE: u16 = 32;

/// Mask of the type in `i_mode`.
pub const S_IFMT: u16 = 0o170_000;

/// What kind of file an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A symbolic link.
    Symlink,
}

impl FileType {
    /// All of them, in the order of the type byte of directory entries.
    pub const ALL: [Self; 7] = [
        Self::Regular,
        Self::Directory,
        Self::CharDevice,
        Self::BlockDevice,
        Self::Fifo,
        Self::Socket,
        Self::Symlink,
    ];

    /// The type in `i_mode`.
    #[must_use]
    pub const fn from_mode(mode: u16) -> Option<Self> {
        match mode & S_IFMT {
            0o100_000 => Some(Self::Regular),
            0o040_000 => Some(Self::Directory),
            0o020_000 => Some(Self::CharDevice),
            0o060_000 => Some(Self::BlockDevice),
            0o010_000 => Some(Self::Fifo),
            0o140_000 => Some(Self::Socket),
            0o120_000 => Some(Self::Symlink),
            _ => None,
        }
    }

    /// The bits in `i_mode`.
    #[must_use]
    pub const fn mode(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
            Self::Symlink => 0o120_000,
        }
    }

    /// The type byte of a directory entry; 0 means that the inode knows.
    #[must_use]
    pub const fn from_dirent(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Regular),
            2 => Some(Self::Directory),
            3 => Some(Self::CharDevice),
            4 => Some(Self::BlockDevice),
            5 => Some(Self::Fifo),
            6 => Some(Self::Socket),
            7 => Some(Self::Symlink),
            _ => None,
        }
    }

    /// The type byte of a directory entry, where the `filetype` feature is set.
    #[must_use]
    pub const fn dirent(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }

    /// Whether `i_block` of such a file can hold block pointers.
    #[must_use]
    pub const fn has_blocks(self) -> bool {
        matches!(self, Self::Regular | Self::Directory | Self::Symlink)
    }
}

bitflags! {
    /// `i_flags`. Unknown bits are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct InodeFlags: u32 {
        /// Overwrite when deleted (never done).
        const SECRM = 0x0001;
        /// Keep when deleted (never done).
        const UNRM = 0x0002;
        /// Compress.
        const COMPR = 0x0004;
        /// Every write is synchronous.
        const SYNC = 0x0008;
        /// No change of contents, names or attributes.
        const IMMUTABLE = 0x0010;
        /// Writes only at the end.
        const APPEND = 0x0020;
        /// Left out by dump.
        const NODUMP = 0x0040;
        /// No access times.
        const NOATIME = 0x0080;
        /// Compressed and dirty.
        const DIRTY = 0x0100;
        /// Has compressed blocks.
        const COMPRBLK = 0x0200;
        /// Not compressed.
        const NOCOMP = 0x0400;
        /// Encrypted (was: compression error).
        const ENCRYPT = 0x0800;
        /// The directory has a hash index.
        const INDEX = 0x1000;
        /// AFS.
        const IMAGIC = 0x2000;
        /// Data goes through the journal.
        const JOURNAL_DATA = 0x4000;
        /// No merging of tails.
        const NOTAIL = 0x8000;
        /// Directory operations are synchronous.
        const DIRSYNC = 0x1_0000;
        /// Top of a hierarchy: subdirectories spread over groups.
        const TOPDIR = 0x2_0000;
        /// `i_blocks` counts blocks.
        const HUGE_FILE = 0x4_0000;
        /// Extents.
        const EXTENTS = 0x8_0000;
        /// Hash tree.
        const VERITY = 0x10_0000;
        /// Large attribute value.
        const EA_INODE = 0x20_0000;
        /// Mapped directly.
        const DAX = 0x200_0000;
        /// Contents in the inode.
        const INLINE_DATA = 0x1000_0000;
        /// Project id is inherited.
        const PROJINHERIT = 0x2000_0000;
        /// Names compare without case.
        const CASEFOLD = 0x4000_0000;
        /// Unknown bits are kept.
        const _ = !0;
    }
}

impl InodeFlags {
    /// Flags that change what `i_block`, or the bytes it leads to, mean.
    pub const CONTENTS: Self = Self::COMPRBLK
        .union(Self::ENCRYPT)
        .union(Self::HUGE_FILE)
        .union(Self::EXTENTS)
        .union(Self::VERITY)
        .union(Self::EA_INODE)
        .union(Self::INLINE_DATA)
        .union(Self::CASEFOLD);

    /// Flags that a new file or directory takes from its directory, as the Linux ext2 driver does.
    pub const INHERITED: Self = Self::SECRM
        .union(Self::UNRM)
        .union(Self::COMPR)
        .union(Self::SYNC)
        .union(Self::NODUMP)
        .union(Self::NOATIME)
        .union(Self::COMPRBLK)
        .union(Self::NOCOMP)
        .union(Self::JOURNAL_DATA)
        .union(Self::NOTAIL)
        .union(Self::DIRSYNC);

    /// Flags that a user may change with chattr.
    pub const USER_MODIFIABLE: Self = Self::SECRM
        .union(Self::UNRM)
        .union(Self::SYNC)
        .union(Self::IMMUTABLE)
        .union(Self::APPEND)
        .union(Self::NODUMP)
        .union(Self::NOATIME)
        .union(Self::JOURNAL_DATA)
        .union(Self::NOTAIL)
        .union(Self::DIRSYNC)
        .union(Self::TOPDIR);

    /// What of the inherited flags a file of this type keeps: directories all, regular files all but the directory
    /// flags, others nodump and noatime.
    #[must_use]
    pub fn inherited_by(self, kind: FileType) -> Self {
        let inherited = self.intersection(Self::INHERITED);
        match kind {
            FileType::Directory => inherited,
            FileType::Regular => inherited.difference(Self::DIRSYNC | Self::TOPDIR),
            _ => inherited.intersection(Self::NODUMP | Self::NOATIME),
        }
    }
}

impl RawInode {
    /// The type, from the mode.
    #[must_use]
    pub fn file_type(&self) -> Option<FileType> {
        FileType::from_mode(self.i_mode.get())
    }

    /// The type.
    ///
    /// # Errors
    /// [`CorruptKind::InodeType`].
    pub fn checked_type(&self, ino: Ino) -> Result<FileType> {
        let mode = self.i_mode.get();
        FileType::from_mode(mode).ok_or_else(|| {
            CorruptKind::InodeType {
                inode: ino.get(),
                mode,
            }
            .into()
        })
    }

    /// The flags, unknown ones included.
    #[must_use]
    pub fn flags(&self) -> InodeFlags {
        InodeFlags::from_bits_retain(self.i_flags.get())
    }

    /// The owner, from both halves.
    #[must_use]
    pub fn uid(&self) -> u32 {
        u32::from(self.i_uid.get()) | u32::from(self.l_i_uid_high.get()) << 16
    }

    /// The group, from both halves.
    #[must_use]
    pub fn gid(&self) -> u32 {
        u32::from(self.i_gid.get()) | u32::from(self.l_i_gid_high.get()) << 16
    }

    /// The size in bytes. Only regular files have a high word: in others `i_size_high` was `i_dir_acl`.
    #[must_use]
    pub fn size(&self) -> u64 {
        let low = u64::from(self.i_size.get());
        match self.file_type() {
            Some(FileType::Regular) => low | u64::from(self.i_size_high.get()) << 32,
            _ => low,
        }
    }

    /// The size in bytes, checked against the type: regular files up to [`Geometry::addressable_size`], directories whole
    /// blocks, symlinks 1 byte to a block less one.
    ///
    /// # Errors
    /// [`CorruptKind::InodeFileSize`], [`CorruptKind::DirectorySize`], [`CorruptKind::SymlinkLength`].
    pub fn checked_size(&self, ino: Ino, geometry: &Geometry) -> Result<u64> {
        let (inode, size) = (ino.get(), self.size());
        match self.file_type() {
            Some(FileType::Regular) => {
                let max = geometry.addressable_size();
                if size > max {
                    return Err(CorruptKind::InodeFileSize { inode, size, max }.into());
                }
            }
            Some(FileType::Directory) => {
                let max = geometry.max_file_size().min(u64::from(u32::MAX));
                if size > max {
                    return Err(CorruptKind::InodeFileSize { inode, size, max }.into());
                }
                if size & u64::from(geometry.block_size().saturating_sub(1)) != 0 || size == 0 {
                    return Err(CorruptKind::DirectorySize { inode, size }.into());
                }
            }
            Some(FileType::Symlink) => {
                let max = self.max_symlink_len(geometry);
                if size == 0 || size > max {
                    return Err(CorruptKind::SymlinkLength { inode, size, max }.into());
                }
            }
            _ => {}
        }
        Ok(size)
    }

    fn max_symlink_len(&self, geometry: &Geometry) -> u64 {
        if self.is_fast_symlink(geometry) {
            FAST_SYMLINK_MAX as u64
        } else {
            u64::from(geometry.block_size().saturating_sub(1))
        }
    }

    /// Whether a symlink's target lies in `i_block`: it has no block but perhaps one of attributes. The rule of the
    /// Linux drivers; the length alone does not tell.
    #[must_use]
    pub fn is_fast_symlink(&self, geometry: &Geometry) -> bool {
        let of_attributes = if self.i_file_acl.get() == 0 {
            0
        } else {
            geometry.sectors_per_block()
        };
        self.i_blocks.get() == of_attributes
    }

    /// The device of a special file.
    #[must_use]
    pub fn device(&self) -> Device {
        let [old, new, ..] = self.i_block;
        Device::decode(old.get(), new.get())
    }

    /// Whether the contents can be read as ext2.
    ///
    /// # Errors
    /// [`Error::ForeignContents`] if a flag says that `i_block` means something else.
    pub fn check_contents(&self, ino: Ino) -> Result<()> {
        let flags = self.flags().intersection(InodeFlags::CONTENTS);
        if flags.is_empty() {
            Ok(())
        } else {
            Err(Error::ForeignContents {
                inode: ino.get(),
                flags: flags.bits(),
            })
        }
    }
}

/// The longest target that fits into an inode; the byte behind it stays zero.
pub const FAST_SYMLINK_MAX: usize = 59;

/// Fields of [`RawInodeExtra`] that may or may not exist in an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraField {
    /// `i_ctime_extra`.
    ChangeTime,
    /// `i_mtime_extra`.
    ModifyTime,
    /// `i_atime_extra`.
    AccessTime,
    /// `i_crtime` with `i_crtime_extra`.
    CreateTime,
}

impl ExtraField {
    /// Where the field ends, in bytes from byte 128 of the inode.
    const fn end(self) -> u16 {
        match self {
            Self::ChangeTime => 8,
            Self::ModifyTime => 12,
            Self::AccessTime => 16,
            Self::CreateTime => 24,
        }
    }
}

impl RawInodeExtra {
    /// Checks `i_extra_isize` against the inode size.
    ///
    /// # Errors
    /// [`CorruptKind::InodeExtraSize`]. 128-byte inodes have no such field: do not ask.
    pub fn checked_size(&self, ino: Ino, geometry: &Geometry) -> Result<u16> {
        let found = self.i_extra_isize.get();
        let room = geometry.inode_size().saturating_sub(128);
        let max = u16::try_from(room).unwrap_or(u16::MAX);
        if found > max || !found.is_multiple_of(4) {
            return Err(CorruptKind::InodeExtraSize {
                inode: ino.get(),
                found,
                max,
            }
            .into());
        }
        Ok(found)
    }

    /// Whether `i_extra_isize` covers a field.
    #[must_use]
    pub fn has(&self, field: ExtraField) -> bool {
        self.i_extra_isize.get() >= field.end()
    }

    /// The extra bits of a time, `None` where the field does not exist.
    fn bits(&self, field: ExtraField) -> Option<u32> {
        let word = match field {
            ExtraField::ChangeTime => self.i_ctime_extra,
            ExtraField::ModifyTime => self.i_mtime_extra,
            ExtraField::AccessTime => self.i_atime_extra,
            ExtraField::CreateTime => self.i_crtime_extra,
        };
        self.has(field).then_some(word.get())
    }

    /// The time of creation, if the inode has one.
    #[must_use]
    pub fn create_time(&self) -> Option<Timestamp> {
        let extra = self.bits(ExtraField::CreateTime)?;
        Some(Timestamp::decode(self.i_crtime.get(), Some(extra)))
    }
}

/// Access, modification and change time of an inode; `extra` is `None` for 128-byte inodes.
#[must_use]
pub fn times(inode: &RawInode, extra: Option<&RawInodeExtra>) -> (Timestamp, Timestamp, Timestamp) {
    let bits = |field| extra.and_then(|extra| extra.bits(field));
    (
        Timestamp::decode(inode.i_atime.get(), bits(ExtraField::AccessTime)),
        Timestamp::decode(inode.i_mtime.get(), bits(ExtraField::ModifyTime)),
        Timestamp::decode(inode.i_ctime.get(), bits(ExtraField::ChangeTime)),
    )
}

#[cfg(test)]
mod tests;
