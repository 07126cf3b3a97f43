//! POSIX access control lists: the form of the system calls, and the shorter one on the medium.
//!
//! | form | version | entry |
//! |---|---|---|
//! | value of `system.posix_acl_access` and `_default` | 2 | tag, permissions, id: 8 bytes, id all ones where there is none |
//! | value on the medium | 1 | the same for a named user or group; 4 bytes without an id for the others |
//!
//! # On disk
//! Linux `include/uapi/linux/posix_acl_xattr.h` for the first form, `fs/ext2/acl.h` for the second; IEEE 1003.1e draft 17
//! for the meaning.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, Result};

/// `a_version` in the value of a system call.
pub const ATTRIBUTE_VERSION: u32 = 2;
/// `a_version` on the medium.
pub const DISK_VERSION: u32 = 1;
/// What stands for an id where the tag names nobody.
pub const UNDEFINED_ID: u32 = u32::MAX;

/// The longest value in the form of a system call that this crate reads: what setxattr(2) lets through.
pub const ATTRIBUTE_MAX: usize = 65_536;

const HEAD: usize = 4;
const LONG: usize = 8;
const SHORT: usize = 4;

/// An entry that names a user or a group.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    e_tag: U16,
    e_perm: U16,
    e_id: U32,
}

/// An entry on the medium that names nobody.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawShortEntry {
    e_tag: U16,
    e_perm: U16,
}

const _: () = {
    assert!(size_of::<RawEntry>() == LONG);
    assert!(size_of::<RawShortEntry>() == SHORT);
};

/// For whom an entry speaks. In a valid list the tags come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Tag {
    /// The owner.
    UserObj = 0x01,
    /// A named user.
    User = 0x02,
    /// The owning group.
    GroupObj = 0x04,
    /// A named group.
    Group = 0x08,
    /// The most that named users and any group get.
    Mask = 0x10,
    /// Everybody else.
    Other = 0x20,
}

impl Tag {
    /// The tag behind `e_tag`.
    #[must_use]
    pub const fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            0x01 => Self::UserObj,
            0x02 => Self::User,
            0x04 => Self::GroupObj,
            0x08 => Self::Group,
            0x10 => Self::Mask,
            0x20 => Self::Other,
            _ => return None,
        })
    }

    /// Whether entries of this tag carry an id.
    #[must_use]
    pub const fn is_named(self) -> bool {
        matches!(self, Self::User | Self::Group)
    }
}

/// One entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// For whom it speaks.
    pub tag: Tag,
    /// Read 4, write 2, execute 1. Other bits are kept as found; a valid list has none.
    pub permissions: u16,
    /// The user or group, if the tag names one; else [`UNDEFINED_ID`].
    pub id: u32,
}

impl Entry {
    fn checked(tag: u16, permissions: u16, id: u32) -> Option<Self> {
        let tag = Tag::from_raw(tag)?;
        let id = if tag.is_named() { id } else { UNDEFINED_ID };
        // The id that stands for nobody cannot be somebody's.
        (!tag.is_named() || id != UNDEFINED_ID).then_some(Self {
            tag,
            permissions,
            id,
        })
    }

    /// The entry as the value of a system call has it.
    #[must_use]
    pub fn to_attribute(self) -> [u8; LONG] {
        let raw = RawEntry {
            e_tag: U16::new(self.tag as u16),
            e_perm: U16::new(self.permissions),
            e_id: U32::new(self.id),
        };
        zerocopy::transmute!(raw)
    }

    /// The entry as the medium has it: the first [`Entry::disk_len`] bytes of the answer.
    #[must_use]
    pub fn to_disk(self) -> [u8; LONG] {
        self.to_attribute()
    }

    /// Bytes that the entry takes on the medium.
    #[must_use]
    pub const fn disk_len(self) -> usize {
        if self.tag.is_named() { LONG } else { SHORT }
    }
}

/// Which of the two forms bytes are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Attribute,
    Disk,
}

/// The entries of a list, in its order. `None` inside: this entry, and so the list, is damaged; nothing follows then.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
    form: Form,
}

impl<'a> Entries<'a> {
    /// The entries of a value that came with a system call.
    ///
    /// # Errors
    /// `InvalidArgument` if it is shorter than its head or no whole number of entries long; `NotSupported` for another
    /// version.
    pub fn of_attribute(value: &'a [u8]) -> Result<Self> {
        let (version, rest) = U32::read_from_prefix(value).map_err(|_| Error::InvalidArgument)?;
        if version.get() != ATTRIBUTE_VERSION {
            return Err(Error::NotSupported);
        }
        if rest.len() % LONG != 0 {
            return Err(Error::InvalidArgument);
        }
        Ok(Self {
            rest,
            form: Form::Attribute,
        })
    }

    /// The entries of a value from the medium; `None` if its head is damaged.
    #[must_use]
    pub fn of_disk(value: &'a [u8]) -> Option<Self> {
        let (version, rest) = U32::read_from_prefix(value).ok()?;
        (version.get() == DISK_VERSION).then_some(Self {
            rest,
            form: Form::Disk,
        })
    }

    fn parse(&mut self) -> Option<Entry> {
        let (short, _) = RawShortEntry::read_from_prefix(self.rest).ok()?;
        let tag = short.e_tag.get();
        let is_long = match self.form {
            Form::Attribute => true,
            Form::Disk => Tag::from_raw(tag)?.is_named(),
        };
        if !is_long {
            self.rest = self.rest.get(SHORT..)?;
            return Entry::checked(tag, short.e_perm.get(), UNDEFINED_ID);
        }
        let (long, rest) = RawEntry::read_from_prefix(self.rest).ok()?;
        self.rest = rest;
        Entry::checked(tag, long.e_perm.get(), long.e_id.get())
    }
}

impl Iterator for Entries<'_> {
    type Item = Option<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.parse();
        if entry.is_none() {
            self.rest = &[];
        }
        Some(entry)
    }
}

/// The head of either form.
#[must_use]
pub const fn head(version: u32) -> [u8; HEAD] {
    version.to_le_bytes()
}

/// Whether `entries` make a valid list: owner, named users, owning group, named groups, mask, others, in this order; a
/// mask if anybody is named; no bits but the three.
#[must_use]
pub fn is_valid(entries: impl IntoIterator<Item = Entry>) -> bool {
    let mut last: Option<Tag> = None;
    let mut needs_mask = false;
    for entry in entries {
        if entry.permissions & !7 != 0 {
            return false;
        }
        let in_order = match (entry.tag, last) {
            (Tag::UserObj, None)
            | (Tag::User | Tag::GroupObj, Some(Tag::UserObj | Tag::User))
            | (Tag::Group | Tag::Mask, Some(Tag::GroupObj | Tag::Group))
            | (Tag::Other, Some(Tag::Mask)) => true,
            (Tag::Other, Some(Tag::GroupObj | Tag::Group)) => !needs_mask,
            _ => false,
        };
        if !in_order {
            return false;
        }
        needs_mask |= entry.tag.is_named();
        last = Some(entry.tag);
    }
    last == Some(Tag::Other)
}

#[cfg(test)]
mod tests;
