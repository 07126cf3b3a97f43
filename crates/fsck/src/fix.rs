//! What would repair a finding. A check only says so; the repair module does it.

use crate::open::Metadata;

/// One aligned store of 1, 2 or 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) at: u64,
    pub(crate) width: Width,
    pub(crate) value: u32,
}

/// The width of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Byte,
    Half,
    Word,
}

impl Patch {
    pub(crate) fn byte(at: u64, value: u8) -> Self {
        Self {
            at,
            width: Width::Byte,
            value: u32::from(value),
        }
    }
    pub(crate) fn half(at: u64, value: u16) -> Self {
        Self {
            at,
            width: Width::Half,
            value: u32::from(value),
        }
    }
    pub(crate) fn word(at: u64, value: u32) -> Self {
        Self {
            at,
            width: Width::Word,
            value,
        }
    }
}

/// How to repair a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fix {
    /// No repair exists (yet): the finding stays, and the exit status says so.
    Refused,
    /// Stores, in this order. Any prefix leaves the image no worse.
    Patches(Vec<Patch>),
    /// Repaired together with another finding; nothing to do for this one.
    WithAnother,
    /// Take the inode's life: links 0, a deletion time; reserved inodes lose their block map as well.
    ClearInode,
    /// Zero the whole inode (journal and quota inodes that are not in use, the bad blocks inode).
    ZeroInode,
    /// Give the inode's shared blocks private copies.
    CloneBlocks,
    /// Write the superblock and the descriptors of the backup that was used over the primary ones.
    RestoreBackup,
    /// Find a new place for a bitmap or an inode table.
    PlaceGroup,
    /// Move a bitmap or an inode table, with what it holds.
    MoveGroup(Metadata),
    /// Make the resize inode again.
    MakeResizeInode,
    /// Complete the orphan list.
    CompleteOrphans,
    /// Make a directory block sound again, entry by entry.
    SalvageBlock { lblk: u32 },
    /// Write `.` and `..` at the head of a directory.
    MakeDots,
    /// Allocate an empty directory block at `lblk`.
    AllocateDirBlock { lblk: u32 },
    /// Give the entry at `offset` of `block` a unique name.
    RenameEntry { offset: u32 },
    /// Make a new root directory.
    MakeRoot,
    /// Enter the inode into lost+found.
    Reconnect,
    /// Write the group's bitmaps and counts from what the check counted.
    WriteGroup,
}

impl Fix {
    pub(crate) fn word(at: u64, value: u32) -> Self {
        Self::Patches(vec![Patch::word(at, value)])
    }
    pub(crate) fn half(at: u64, value: u16) -> Self {
        Self::Patches(vec![Patch::half(at, value)])
    }
    pub(crate) fn byte(at: u64, value: u8) -> Self {
        Self::Patches(vec![Patch::byte(at, value)])
    }
}
