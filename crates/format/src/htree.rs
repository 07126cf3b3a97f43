//! Directory indexes: the hash of a name, and the nodes of the tree.
//!
//! Lookups here never depend on a stored index (it may be stale); fsck checks one, and mkfs and fsck build them.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::dirent::HEAD;
use crate::{CorruptKind, FileBlock, Geometry, Ino, Result};

mod hash;

pub use hash::{HashVersion, NameHash, Seed, hash};

/// What follows `.` and `..` in block 0 of an indexed directory, at byte 24.
///
/// # On disk
/// Linux `ext4/directory.rst`, "Hash Tree Directories".
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
#[expect(missing_docs, reason = "the specification's names")]
pub struct RawDxRootInfo {
    pub reserved_zero: U32,
    pub hash_version: u8,
    pub info_length: u8,
    pub indirect_levels: u8,
    pub unused_flags: u8,
}

/// An entry of a node: names with a hash from `hash` on are found below `block`. The first entry of a node has no hash;
/// its four bytes are [`RawDxCountLimit`].
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
#[expect(missing_docs, reason = "the specification's names")]
pub struct RawDxEntry {
    pub hash: U32,
    pub block: U32,
}

/// Room and use of a node, in entries, the first one counted.
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
#[expect(missing_docs, reason = "the specification's names")]
pub struct RawDxCountLimit {
    pub limit: U16,
    pub count: U16,
}

const _: () = {
    assert!(size_of::<RawDxRootInfo>() == 8);
    assert!(size_of::<RawDxEntry>() == 8);
    assert!(size_of::<RawDxCountLimit>() == 4);
};

/// Where [`RawDxRootInfo`] starts in block 0: behind two entries of 12 bytes.
pub const ROOT_INFO_OFFSET: u32 = 24;
/// Where the root's entries start.
pub const ROOT_ENTRIES_OFFSET: u32 = ROOT_INFO_OFFSET + 8;
/// Where another node's entries start: behind one empty directory entry that spans the block.
pub const NODE_ENTRIES_OFFSET: u32 = HEAD;

/// Entries that the root can hold.
#[must_use]
pub const fn root_limit(block_size: u32) -> u32 {
    block_size.saturating_sub(ROOT_ENTRIES_OFFSET) / 8
}

/// Entries that another node can hold.
#[must_use]
pub const fn node_limit(block_size: u32) -> u32 {
    block_size.saturating_sub(NODE_ENTRIES_OFFSET) / 8
}

/// The root of an index, checked.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// The hash of this directory.
    pub version: HashVersion,
    /// Levels of nodes between root and leaves: 0 or 1.
    pub levels: u8,
    /// The entries.
    pub node: Node<'a>,
}

impl<'a> Root<'a> {
    /// Reads block 0 of an indexed directory. Its two entries are for
    /// [`Entries`](crate::dirent::Entries), which sees a node as free room.
    ///
    /// # Errors
    /// [`CorruptKind::IndexRoot`], [`CorruptKind::IndexCount`].
    pub fn parse(block: &'a [u8], geometry: &Geometry, directory: Ino) -> Result<Self> {
        let inode = directory.get();
        let info = block.get(ROOT_INFO_OFFSET as usize..).unwrap_or_default();
        let Ok((info, _)) = RawDxRootInfo::read_from_prefix(info) else {
            return Err(CorruptKind::IndexRoot { inode, found: 0 }.into());
        };
        let wrong = |found| CorruptKind::IndexRoot { inode, found };
        let version =
            HashVersion::new(info.hash_version, geometry).ok_or(wrong(info.hash_version))?;
        if info.info_length != 8 {
            return Err(wrong(info.info_length).into());
        }
        if info.indirect_levels > 1 {
            return Err(wrong(info.indirect_levels).into());
        }
        if info.unused_flags & 1 != 0 || info.reserved_zero.get() != 0 {
            return Err(wrong(info.unused_flags).into());
        }
        let limit = root_limit(geometry.block_size());
        let node = Node::read(block, ROOT_ENTRIES_OFFSET, limit, directory, FileBlock(0))?;
        Ok(Self {
            version,
            levels: info.indirect_levels,
            node,
        })
    }
}

/// The entries of a node, checked against the room in its block.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    entries: &'a [u8],
}

impl<'a> Node<'a> {
    /// Reads a node below the root.
    ///
    /// # Errors
    /// [`CorruptKind::IndexCount`].
    pub fn parse(
        block: &'a [u8],
        geometry: &Geometry,
        directory: Ino,
        file_block: FileBlock,
    ) -> Result<Self> {
        let limit = node_limit(geometry.block_size());
        Self::read(block, NODE_ENTRIES_OFFSET, limit, directory, file_block)
    }

    fn read(
        block: &'a [u8],
        from: u32,
        expected: u32,
        directory: Ino,
        file_block: FileBlock,
    ) -> Result<Self> {
        let entries = block.get(from as usize..).unwrap_or_default();
        let (limit, count) = match RawDxCountLimit::read_from_prefix(entries) {
            Ok((head, _)) => (head.limit.get(), head.count.get()),
            Err(_) => (0, 0),
        };
        let len = usize::from(count).saturating_mul(8);
        match entries.get(..len) {
            Some(entries) if u32::from(limit) == expected && count > 0 && count <= limit => {
                Ok(Self { entries })
            }
            _ => Err(CorruptKind::IndexCount {
                inode: directory.get(),
                file_block: file_block.0,
                count,
                limit,
            }
            .into()),
        }
    }

    /// The entries: lowest hash below each block, and the block. The first hash is 0.
    pub fn iter(self) -> impl Iterator<Item = (u32, FileBlock)> + use<'a> {
        self.entries
            .chunks_exact(8)
            .enumerate()
            .filter_map(|(index, bytes)| {
                let (entry, _) = RawDxEntry::read_from_prefix(bytes).ok()?;
                let hash = if index == 0 { 0 } else { entry.hash.get() };
                // The upper 4 bits were meant for a fill factor and are ignored, as by Linux.
                Some((hash, FileBlock(entry.block.get() & 0x0fff_ffff)))
            })
    }
}

#[cfg(test)]
mod tests;
