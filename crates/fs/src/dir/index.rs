//! What a directory looks like in memory: its blocks, its names, its gaps.

use alloc::vec::Vec;

use ext2dax_format::dirent::{decode_len, needed_len};
use ext2dax_pmem::{Off, Pmem};
use zerocopy::little_endian::{U16, U32};

use super::gaps::Gaps;
use super::names::{Found, Names, Place};
use super::starts::Starts;
use crate::mount::Core;

/// The index of one directory. Built from the medium on first use and kept in step by every change; nothing of it is ever
/// written. It may be dropped at any time and built again.
///
/// # Invariants
/// Under the directory's INODE lock, `names`, `starts` and `gaps` say exactly what the blocks say.
#[derive(Debug)]
pub(crate) struct DirIndex {
    /// Byte offset in the region of each block; [`HOLE`] where the directory has none.
    pub(super) blocks: Vec<u64>,
    pub(super) names: Names,
    pub(super) starts: Starts,
    pub(super) gaps: Gaps,
    /// Entries other than `.` and `..`. More than the table has in a damaged directory that holds a name twice.
    pub(super) entries: u64,
    pub(super) block_size: u32,
    /// A block whose entries are not names but temporary links of operations under way; see `temporary`.
    pub(super) hidden: Option<u32>,
}

/// A block of the directory that is not there. Byte 0 of the region is the boot block, never a directory block.
pub(super) const HOLE: u64 = 0;

/// The fixed part of an entry as it stands on the medium.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) ino: u32,
    pub(super) rec_len: u32,
    pub(super) name_len: u8,
    pub(super) kind: u8,
}

impl Header {
    /// The header at `offset` of `bytes`, which are a block that has been checked, or a part of one.
    pub(super) fn parse(bytes: &[u8], offset: u32, block_size: u32) -> Self {
        let raw: [u8; 8] = bytes[offset as usize..][..8]
            .try_into()
            .expect("eight bytes");
        let [a, b, c, d, low, high, name_len, kind] = raw;
        Self {
            ino: u32::from_le_bytes([a, b, c, d]),
            rec_len: decode_len(u16::from_le_bytes([low, high]), block_size),
            name_len,
            kind,
        }
    }

    /// Bytes that the entry itself needs; what lies behind them up to `rec_len` is its slack. An empty entry needs none.
    pub(super) fn used(self) -> u32 {
        if self.ino == 0 {
            0
        } else {
            needed_len(usize::from(self.name_len))
        }
    }

    /// Bytes that a new entry may take. In a damaged image a block may be somebody else's, too, and change under us.
    pub(super) fn free(self) -> u32 {
        self.rec_len.saturating_sub(self.used())
    }
}

impl DirIndex {
    pub(super) fn new(block_size: u32) -> Self {
        Self {
            blocks: Vec::new(),
            names: Names::default(),
            starts: Starts::new(block_size),
            gaps: Gaps::default(),
            entries: 0,
            block_size,
            hidden: None,
        }
    }

    /// Finds `name`, `.` and `..` included. What it leads to is looked at next, so its inode is asked for as soon as the
    /// number is known, while the name is compared.
    pub(crate) fn find(&self, core: &Core, name: &[u8]) -> Option<Found> {
        let at = |place| self.at(place) + 8;
        self.names
            .find(&core.pmem, name, at, |ino| core.prefetch_inode(ino))
    }

    /// Whether there is no name but `.` and `..`.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The number of blocks, holes included.
    pub(crate) fn block_count(&self) -> u32 {
        u32::try_from(self.blocks.len()).expect("file blocks are counted in 32 bits")
    }

    /// Whether the directory has no block there.
    pub(super) fn is_hole(&self, block: u32) -> bool {
        self.blocks[block as usize] == HOLE
    }

    /// Whether the block holds temporary links, which no listing shows.
    pub(super) fn is_hidden(&self, block: u32) -> bool {
        self.hidden == Some(block)
    }

    /// Byte offset in the region of an entry.
    pub(super) fn at(&self, place: Place) -> u64 {
        self.blocks[place.block as usize] + u64::from(place.offset)
    }

    pub(super) fn ino_off(&self, place: Place) -> Off<U32> {
        Off::new(self.at(place))
    }

    pub(super) fn rec_len_off(&self, place: Place) -> Off<U16> {
        Off::new(self.at(place) + 4)
    }

    pub(super) fn kind_off(&self, place: Place) -> Off<u8> {
        Off::new(self.at(place) + 7)
    }

    pub(super) fn header(&self, pmem: &Pmem, place: Place) -> Header {
        let mut raw = [0; 8];
        pmem.read(self.at(place), &mut raw);
        Header::parse(&raw, 0, self.block_size)
    }

    /// The entry before the one at `place` in the same block; `None` if that is the first.
    pub(super) fn previous(&self, place: Place) -> Option<Place> {
        let offset = self.starts.before(place.block, place.offset)?;
        Some(Place {
            block: place.block,
            offset,
        })
    }

    /// Adds a block behind the last one; its entries come through [`DirIndex::note`].
    pub(super) fn push_block(&mut self, at: u64) {
        self.blocks.push(at);
        self.starts.push_block();
        self.gaps.push_block();
    }

    /// Takes the entry at `place`, which stands on the medium, into start map and gaps.
    pub(super) fn note(&mut self, place: Place, header: Header) {
        self.starts.set(place.block, place.offset);
        self.gaps.set(place.block, place.offset, header.free());
    }

    /// Takes the entry at `place` out of start map and gaps.
    pub(super) fn forget(&mut self, place: Place) {
        self.starts.clear(place.block, place.offset);
        self.gaps.set(place.block, place.offset, 0);
    }

    /// Takes a live entry into the table.
    pub(super) fn note_name(&mut self, place: Place, header: Header, name: &[u8]) {
        let hash = self.names.hash(name);
        self.names
            .insert(hash, place, header.ino, header.kind, header.name_len);
        if name != b"." && name != b".." {
            self.entries += 1;
        }
    }
}
