//! Extended attributes: from the form that Linux programs see to the bytes on the medium.

use ext2dax_format::xattr::{
    ENTRY, HEADER, MAGIC, NameIndex, RawXattrEntry, RawXattrHeader, block_hash, entry_hash,
    entry_len, value_len,
};
use zerocopy::IntoBytes as _;
use zerocopy::little_endian::{U16, U32};

use crate::source::{SourceError, Why};
use crate::tree::Attribute;

pub(crate) mod acl;

/// An attribute from its full name and the value as `getxattr(2)` gives it.
pub(crate) fn from_linux(name: &[u8], value: &[u8]) -> Result<Attribute, Why> {
    let split = NameIndex::split(name).filter(|(_, rest)| rest.len() <= 255);
    let (index, rest) = split.ok_or_else(|| Why::AttributeName(name.into()))?;
    let value = match index {
        NameIndex::AclAccess | NameIndex::AclDefault => acl::to_disk(value).ok_or(Why::BadAcl)?,
        _ => value.into(),
    };
    Ok(Attribute {
        index,
        name: rest.into(),
        value,
    })
}

/// Which attributes of an inode go where: `inside` behind the inode itself, the others to a block of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Split {
    /// Bit `n`: attribute `n` lies in the inode. Attributes after the 64th go to the block.
    inside: u64,
    /// Whether a block is needed.
    pub(crate) block: bool,
}

/// Bytes behind the fields of an inode.
pub(crate) fn inode_room(inode_size: u32) -> u32 {
    inode_size.saturating_sub(128 + u32::from(ext2dax_format::inode::EXTRA_ISIZE))
}

fn size_of(attribute: &Attribute) -> u32 {
    let value = u32::try_from(attribute.value.len()).unwrap_or(u32::MAX);
    entry_len(attribute.name.len()).saturating_add(value_len(value))
}

/// Fills the inode first, in order, then the block.
///
/// # Errors
/// [`Why::AttributesTooLarge`] with the first attribute that fits nowhere.
pub(crate) fn split(
    attributes: &[Attribute],
    inode_size: u32,
    block_size: u32,
) -> Result<Split, Why> {
    // The magic number and the end of the list.
    let mut inode = inode_room(inode_size).saturating_sub(8);
    let mut block = block_size - HEADER - 4;
    let mut split = Split::default();
    for (nr, attribute) in attributes.iter().enumerate() {
        let size = size_of(attribute);
        if size <= inode && nr < 64 {
            inode -= size;
            split.inside |= 1 << nr;
        } else if size <= block {
            block -= size;
            split.block = true;
        } else {
            let name = attribute.full_name();
            return Err(Why::AttributesTooLarge(name.into(), attribute.value.len()));
        }
    }
    Ok(split)
}

impl Split {
    fn is_inside(self, nr: usize) -> bool {
        nr < 64 && self.inside & (1 << nr) != 0
    }

    /// What follows the fields of the inode; `area` is [`inode_room`] zero bytes.
    pub(crate) fn write_inode(self, attributes: &[Attribute], area: &mut [u8]) {
        if self.inside == 0 {
            return;
        }
        area[..4].copy_from_slice(U32::new(MAGIC).as_bytes());
        let inside = attributes.iter().enumerate();
        let inside = inside.filter(|(nr, _)| self.is_inside(*nr));
        // Value offsets count from the first entry. Entries inside an inode carry no hash.
        entries(
            inside.map(|(_, attribute)| attribute),
            &mut area[4..],
            0,
            |_| 0,
        );
    }

    /// What the attribute block holds, for comparing it with others; `None` without one.
    pub(crate) fn block_key(self, attributes: &[Attribute]) -> Option<Vec<u8>> {
        let mut key = Vec::new();
        let outside = attributes.iter().enumerate();
        for (_, attribute) in outside.filter(|(nr, _)| !self.is_inside(*nr)) {
            key.push(attribute.index.raw());
            for bytes in [&attribute.name, &attribute.value] {
                key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                key.extend_from_slice(bytes);
            }
        }
        self.block.then_some(key)
    }

    /// The attribute block of so many files; `block` is zero.
    pub(crate) fn write_block(self, attributes: &[Attribute], users: u32, block: &mut [u8]) {
        let outside = attributes.iter().enumerate();
        let outside = outside.filter(|(nr, _)| !self.is_inside(*nr));
        let mut hashes = Vec::new();
        entries(
            outside.map(|(_, attribute)| attribute),
            block,
            HEADER as usize,
            |attribute| {
                let hash = entry_hash(&attribute.name, &attribute.value);
                hashes.push(hash);
                hash
            },
        );
        let header = RawXattrHeader {
            h_magic: U32::new(MAGIC),
            h_refcount: U32::new(users),
            h_blocks: U32::new(1),
            h_hash: U32::new(block_hash(hashes)),
            ..RawXattrHeader::default()
        };
        block[..HEADER as usize].copy_from_slice(header.as_bytes());
    }
}

/// Entries from `at` on, values from the end of the area.
fn entries<'a>(
    attributes: impl Iterator<Item = &'a Attribute>,
    area: &mut [u8],
    mut at: usize,
    mut hash: impl FnMut(&Attribute) -> u32,
) {
    let mut end = area.len();
    for attribute in attributes {
        let size = u32::try_from(attribute.value.len()).expect("fits into a block");
        end -= value_len(size) as usize;
        area[end..end + attribute.value.len()].copy_from_slice(&attribute.value);
        let offset = if size == 0 { 0 } else { end };
        let entry = RawXattrEntry {
            e_name_len: u8::try_from(attribute.name.len()).expect("checked when it was read"),
            e_name_index: attribute.index.raw(),
            e_value_offs: U16::new(u16::try_from(offset).expect("inside a block of 64 KiB")),
            e_value_block: U32::ZERO,
            e_value_size: U32::new(size),
            e_hash: U32::new(hash(attribute)),
        };
        area[at..at + ENTRY as usize].copy_from_slice(entry.as_bytes());
        let name = at + ENTRY as usize;
        area[name..name + attribute.name.len()].copy_from_slice(&attribute.name);
        at += entry_len(attribute.name.len()) as usize;
    }
}

/// Where a host keeps what is its own business: labels and measurements that mean nothing elsewhere.
pub(crate) fn belongs_to_host(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];
    NAMES.contains(&name)
        || name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"user.overlay.")
        || name.starts_with(b"system.nfs4_acl")
        || name.starts_with(b"btrfs.")
}

/// Turns an attribute that failed into an error with its path.
pub(crate) fn blame(path: &[u8]) -> impl Fn(Why) -> SourceError {
    move |why| SourceError::new(path, why)
}
