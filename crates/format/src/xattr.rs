//! Extended attributes: entries at the start of an area, values from its end, in a block or behind an inode.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{CorruptKind, FsBlock, Ino, Result};

/// First four bytes of an attribute block, and of the attributes behind an inode.
pub const MAGIC: u32 = 0xEA02_0000;
/// An attribute block is shared by at most this many inodes.
pub const REFCOUNT_MAX: u32 = 1024;

/// The head of an attribute block.
///
/// # On disk
/// *The Second Extended File System*, "Extended Attributes"; Linux `ext4/attributes.rst`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the specification's names")]
pub struct RawXattrHeader {
    pub h_magic: U32,
    pub h_refcount: U32,
    pub h_blocks: U32,
    pub h_hash: U32,
    pub h_checksum: U32,
    pub h_reserved: [U32; 3],
}

/// The head of an entry; the name without its prefix follows, padded to 4 bytes. Four zero bytes end the list.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the specification's names")]
pub struct RawXattrEntry {
    pub e_name_len: u8,
    pub e_name_index: u8,
    pub e_value_offs: U16,
    pub e_value_block: U32,
    pub e_value_size: U32,
    pub e_hash: U32,
}

const _: () = {
    assert!(size_of::<RawXattrHeader>() == 32);
    assert!(size_of::<RawXattrEntry>() == 16);
};

/// Bytes of [`RawXattrHeader`].
pub const HEADER: u32 = 32;
/// Bytes of [`RawXattrEntry`].
pub const ENTRY: u32 = 16;

/// The prefix of a name, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameIndex {
    /// `user.`
    User,
    /// `system.posix_acl_access`, whole.
    AclAccess,
    /// `system.posix_acl_default`, whole.
    AclDefault,
    /// `trusted.`
    Trusted,
    /// `security.`
    Security,
    /// `system.`
    System,
    /// A number without a known prefix: kept, not shown.
    Unknown(u8),
}

impl NameIndex {
    const KNOWN: [(u8, Self, &'static str); 6] = [
        (1, Self::User, "user."),
        (2, Self::AclAccess, "system.posix_acl_access"),
        (3, Self::AclDefault, "system.posix_acl_default"),
        (4, Self::Trusted, "trusted."),
        (6, Self::Security, "security."),
        (7, Self::System, "system."),
    ];

    /// The prefix behind `e_name_index`.
    #[must_use]
    pub fn from_raw(raw: u8) -> Self {
        Self::KNOWN
            .iter()
            .find(|known| known.0 == raw)
            .map_or(Self::Unknown(raw), |known| known.1)
    }

    /// The number for `e_name_index`.
    #[must_use]
    pub fn raw(self) -> u8 {
        match self {
            Self::Unknown(raw) => raw,
            known => Self::KNOWN
                .iter()
                .find(|(_, index, _)| *index == known)
                .map_or(0, |known| known.0),
        }
    }

    /// The text before the stored name; `None` for an unknown number.
    #[must_use]
    pub fn prefix(self) -> Option<&'static str> {
        Self::KNOWN
            .iter()
            .find(|(_, index, _)| *index == self)
            .map(|known| known.2)
    }

    /// Splits a full name into prefix number and stored rest. ACL names have no rest; a prefix alone is no name.
    #[must_use]
    pub fn split(name: &[u8]) -> Option<(Self, &[u8])> {
        for (_, index, prefix) in Self::KNOWN {
            let Some(rest) = name.strip_prefix(prefix.as_bytes()) else {
                continue;
            };
            match index {
                Self::AclAccess | Self::AclDefault if rest.is_empty() => {
                    return Some((index, rest));
                }
                Self::AclAccess | Self::AclDefault => {}
                _ if !rest.is_empty() => return Some((index, rest)),
                _ => {}
            }
        }
        None
    }
}

/// Bytes that an entry with a name of `name_len` bytes takes, padding included.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the other branch is at most 255"
)]
pub const fn entry_len(name_len: usize) -> u32 {
    let name = if name_len > 255 { 255 } else { name_len as u32 };
    name.saturating_add(ENTRY).next_multiple_of(4)
}

/// Bytes that a value takes: a multiple of 4.
#[must_use]
pub const fn value_len(size: u32) -> u32 {
    // The largest value is a block; a hostile size must not wrap.
    if size > u32::MAX - 3 {
        u32::MAX
    } else {
        size.next_multiple_of(4)
    }
}

/// One attribute, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Where the entry starts in the area that was given, in bytes.
    pub offset: u32,
    /// The prefix.
    pub index: NameIndex,
    /// The name without its prefix.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// `e_hash` as found; 0 means that the entry has none.
    pub hash: u32,
}

/// The attributes of an area, front to back. After an error there is nothing more.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    area: &'a [u8],
    /// Where value offsets count from.
    values_from: u32,
    offset: u32,
    inode: u32,
    /// Where the list of entries ends: values start behind it. Found on the first step.
    list_end: Option<u32>,
}

impl<'a> Attributes<'a> {
    /// Checks the head of `block`, a copy of a whole attribute block at `at` (for the errors).
    ///
    /// # Errors
    /// [`CorruptKind::XattrMagic`], [`CorruptKind::XattrBlocks`], [`CorruptKind::XattrRefcount`].
    pub fn in_block(block: &'a [u8], ino: Ino, at: FsBlock) -> Result<Self> {
        let (inode, at) = (ino.get(), at.get());
        let header = RawXattrHeader::read_from_prefix(block)
            .map(|(header, _)| header)
            .unwrap_or_default();
        let found = header.h_magic.get();
        if found != MAGIC {
            return Err(CorruptKind::XattrMagic {
                inode,
                block: at,
                found,
            }
            .into());
        }
        let found = header.h_blocks.get();
        if found != 1 {
            return Err(CorruptKind::XattrBlocks {
                inode,
                block: at,
                found,
            }
            .into());
        }
        let found = header.h_refcount.get();
        if found == 0 || found > REFCOUNT_MAX {
            return Err(CorruptKind::XattrRefcount {
                inode,
                block: at,
                found,
            }
            .into());
        }
        Ok(Self {
            area: block,
            values_from: 0,
            offset: HEADER,
            inode,
            list_end: None,
        })
    }

    /// The attributes behind an inode: `area` is what follows byte `128 + i_extra_isize` of it. Without the magic number
    /// there are none.
    #[must_use]
    pub fn in_inode(area: &'a [u8], ino: Ino) -> Self {
        let present = U32::read_from_prefix(area).is_ok_and(|(magic, _)| magic.get() == MAGIC);
        let area = if present { area } else { &[] };
        Self {
            area,
            values_from: 4,
            offset: 4,
            inode: ino.get(),
            list_end: None,
        }
    }

    fn len(&self) -> u32 {
        u32::try_from(self.area.len()).unwrap_or(u32::MAX)
    }

    /// The head of the entry at `offset` and where the next one starts; `None` at the end of the list.
    fn head_at(&self, offset: u32) -> Result<Option<(RawXattrEntry, u32)>, CorruptKind> {
        let wrong = CorruptKind::XattrEntry {
            inode: self.inode,
            offset,
        };
        let rest = self.area.get(offset as usize..).unwrap_or_default();
        match U32::read_from_prefix(rest) {
            Ok((first, _)) if first.get() == 0 => return Ok(None),
            Ok(_) => {}
            // A list that fills its area to the last byte has no end mark.
            Err(_) => {
                return if rest.is_empty() {
                    Ok(None)
                } else {
                    Err(wrong)
                };
            }
        }
        let Ok((head, _)) = RawXattrEntry::read_from_prefix(rest) else {
            return Err(wrong);
        };
        let next = offset.saturating_add(entry_len(usize::from(head.e_name_len)));
        if next > self.len() {
            return Err(wrong);
        }
        Ok(Some((head, next)))
    }

    fn find_list_end(&self) -> Result<u32, CorruptKind> {
        let mut offset = self.offset;
        while let Some((_, next)) = self.head_at(offset)? {
            offset = next;
        }
        Ok(offset)
    }

    fn parse(&mut self) -> Result<Option<(Attribute<'a>, u32)>, CorruptKind> {
        let list_end = match self.list_end {
            Some(end) => end,
            None => *self.list_end.insert(self.find_list_end()?),
        };
        let (inode, offset) = (self.inode, self.offset);
        let Some((head, next)) = self.head_at(offset)? else {
            return Ok(None);
        };
        let found = head.e_value_block.get();
        if found != 0 {
            return Err(CorruptKind::XattrValueBlock {
                inode,
                offset,
                found,
            });
        }
        let size = head.e_value_size.get();
        let from = self
            .values_from
            .saturating_add(u32::from(head.e_value_offs.get()));
        let end = from.saturating_add(size);
        let value = if size == 0 {
            &[]
        } else {
            let value = self
                .area
                .get(from as usize..end as usize)
                .filter(|_| from >= list_end);
            value.ok_or(CorruptKind::XattrValue {
                inode,
                offset,
                size,
            })?
        };
        let name_from = offset.saturating_add(ENTRY) as usize;
        let name = self
            .area
            .get(name_from..name_from.saturating_add(usize::from(head.e_name_len)));
        let attribute = Attribute {
            offset,
            index: NameIndex::from_raw(head.e_name_index),
            name: name.unwrap_or_default(),
            value,
            hash: head.e_hash.get(),
        };
        Ok(Some((attribute, next)))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.parse() {
            Ok(None) => None,
            Ok(Some((attribute, next))) => {
                self.offset = next;
                Some(Ok(attribute))
            }
            Err(kind) => {
                self.area = &[];
                self.list_end = Some(0);
                Some(Err(kind.into()))
            }
        }
    }
}

/// `e_hash` of an entry: its name, then the words of its value, the last one padded with zero bytes.
#[must_use]
pub fn entry_hash(name: &[u8], value: &[u8]) -> u32 {
    let of_name = name
        .iter()
        .fold(0_u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
    value.chunks(4).fold(of_name, |hash, bytes| {
        let mut word = [0; 4];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}

/// `h_hash` of a block, from the hashes of its entries in their order: 0 if one of them has none.
pub fn block_hash(entries: impl IntoIterator<Item = u32>) -> u32 {
    let mut hash = 0_u32;
    for entry in entries {
        if entry == 0 {
            return 0;
        }
        hash = hash.rotate_left(16) ^ entry;
    }
    hash
}

mod write;

pub use write::{Entry, fits, write_block};

#[cfg(test)]
mod tests;
