//! Directory entries: records of a name and an inode number, chained by length through one block.
//!
//! A block is read as a copy; what is wrong with it is found here, before anyone follows a length.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{CorruptKind, Error, FileBlock, FileType, Geometry, Ino, NAME_MAX, Result};

/// The head of an entry; the name follows, then padding to 4 bytes, then perhaps free room.
///
/// # On disk
/// *The Second Extended File System*, "Linked List Directories". Without the `filetype` feature the last byte is the
/// upper half of a 16-bit name length, which is zero because names end at 255 bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the specification's names, less their prefix")]
pub struct RawDirEntry {
    pub inode: U32,
    pub rec_len: U16,
    pub name_len: u8,
    pub file_type: u8,
}

const _: () = {
    assert!(size_of::<RawDirEntry>() == 8);
    assert!(core::mem::offset_of!(RawDirEntry, rec_len) == 4);
    assert!(core::mem::offset_of!(RawDirEntry, name_len) == 6);
};

/// Bytes of the head.
pub const HEAD: u32 = 8;
/// The smallest record: the head and a name of up to 4 bytes.
pub const MIN_LEN: u32 = 12;

/// Bytes that an entry with a name of `name_len` bytes needs: a multiple of 4.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "both branches are at most 255"
)]
pub const fn needed_len(name_len: usize) -> u32 {
    let name = if name_len > NAME_MAX {
        NAME_MAX as u32
    } else {
        name_len as u32
    };
    name.saturating_add(HEAD).next_multiple_of(4)
}

/// The length that `rec_len` stands for: with 64 KiB blocks, whose length does not fit, 0 and 65,535 mean 65,536.
#[must_use]
pub const fn decode_len(raw: u16, block_size: u32) -> u32 {
    if block_size >= 65_536 && (raw == 0 || raw == u16::MAX) {
        65_536
    } else {
        raw as u32
    }
}

/// What `rec_len` holds for a record of `len` bytes, `len` at most a block.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the other branch is below 65,536"
)]
pub const fn encode_len(len: u32) -> u16 {
    if len >= 65_536 { u16::MAX } else { len as u16 }
}

impl RawDirEntry {
    /// The head of an entry. `kind` is stored only where the `filetype` feature is set.
    #[must_use]
    pub fn new(
        ino: Option<Ino>,
        len: u32,
        name_len: u8,
        kind: Option<FileType>,
        geometry: &Geometry,
    ) -> Self {
        let kind = kind.filter(|_| geometry.has_filetype());
        Self {
            inode: U32::new(ino.map_or(0, Ino::get)),
            rec_len: U16::new(encode_len(len)),
            name_len,
            file_type: kind.map_or(0, FileType::dirent),
        }
    }
}

/// One record of a directory block, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where the record starts in its block, in bytes: a multiple of 4.
    pub offset: u32,
    /// The inode; `None` for a record that is free.
    pub ino: Option<Ino>,
    /// Length of the record: ends inside the block.
    pub rec_len: u32,
    /// The name, 1 to 255 bytes; of a free record whatever is left there, perhaps nothing.
    pub name: &'a [u8],
    /// The type, if the entry knows it; else the inode does.
    pub kind: Option<FileType>,
}

impl Entry<'_> {
    /// Bytes of the record that its name needs; 0 for a free record.
    #[must_use]
    pub const fn used_len(&self) -> u32 {
        if self.ino.is_some() {
            needed_len(self.name.len())
        } else {
            0
        }
    }

    /// Bytes at the end of the record that another entry could take.
    #[must_use]
    pub const fn room(&self) -> u32 {
        self.rec_len.saturating_sub(self.used_len())
    }

    /// Whether the name is `.` or `..`.
    #[must_use]
    pub fn is_dot(&self) -> bool {
        self.name == b"." || self.name == b".."
    }
}

/// The records of a directory block, front to back. After an error there is nothing more.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    block: &'a [u8],
    geometry: Geometry,
    directory: Ino,
    file_block: FileBlock,
    offset: u32,
}

impl<'a> Entries<'a> {
    /// Goes through `block`, a copy of one whole block; `directory` and `file_block` are for the errors.
    #[must_use]
    pub fn new(
        block: &'a [u8],
        geometry: &Geometry,
        directory: Ino,
        file_block: FileBlock,
    ) -> Self {
        Self {
            block,
            geometry: *geometry,
            directory,
            file_block,
            offset: 0,
        }
    }

    fn parse(&self) -> Result<Entry<'a>> {
        let (inode, file_block, offset) = (self.directory.get(), self.file_block.0, self.offset);
        let rest = self.block.get(offset as usize..).unwrap_or_default();
        let block_len = u32::try_from(self.block.len()).unwrap_or(u32::MAX);
        let Ok((head, tail)) = RawDirEntry::read_from_prefix(rest) else {
            let found = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            return Err(CorruptKind::DirentPastBlock {
                inode,
                file_block,
                offset,
                found,
            }
            .into());
        };
        let rec_len = decode_len(head.rec_len.get(), self.geometry.block_size());
        if rec_len < MIN_LEN || !rec_len.is_multiple_of(4) {
            return Err(CorruptKind::DirentLength {
                inode,
                file_block,
                offset,
                found: rec_len,
            }
            .into());
        }
        if rec_len > block_len.saturating_sub(offset) {
            return Err(CorruptKind::DirentPastBlock {
                inode,
                file_block,
                offset,
                found: rec_len,
            }
            .into());
        }
        let name_len = u32::from(head.name_len);
        if name_len > rec_len.saturating_sub(HEAD) {
            return Err(CorruptKind::DirentNameLength {
                inode,
                file_block,
                offset,
                found: name_len,
            }
            .into());
        }
        let name = tail.get(..name_len as usize).unwrap_or_default();
        let kind = FileType::from_dirent(head.file_type).filter(|_| self.geometry.has_filetype());
        let ino = match head.inode.get() {
            0 => None,
            found => {
                if name.is_empty() {
                    return Err(CorruptKind::DirentNameEmpty {
                        inode,
                        file_block,
                        offset,
                    }
                    .into());
                }
                if name.iter().any(|&byte| byte == b'/' || byte == 0) {
                    return Err(CorruptKind::DirentNameByte {
                        inode,
                        file_block,
                        offset,
                    }
                    .into());
                }
                let named = self.geometry.named_ino(found);
                Some(named.ok_or(CorruptKind::DirentInode {
                    inode,
                    file_block,
                    offset,
                    found,
                })?)
            }
        };
        Ok(Entry {
            offset,
            ino,
            rec_len,
            name,
            kind,
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset as usize >= self.block.len() {
            return None;
        }
        let parsed = self.parse();
        self.offset = match &parsed {
            // At least 12, so the walk ends.
            Ok(entry) => self.offset.saturating_add(entry.rec_len),
            Err(_) => u32::MAX,
        };
        Some(parsed)
    }
}

/// Checks a name for a new entry: 1 to 255 bytes, any but `/` and zero, neither `.` nor `..`.
///
/// # Errors
/// [`Error::NameTooLong`], [`Error::InvalidName`].
pub fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong);
    }
    let dots = name == b"." || name == b"..";
    if name.is_empty() || dots || name.iter().any(|&byte| byte == b'/' || byte == 0) {
        return Err(Error::InvalidName);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
