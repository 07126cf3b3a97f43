//! The names of a directory, hashed in memory.

use core::hash::BuildHasher;

use ext2dax_format::slot::EntryPlace;
use ext2dax_pmem::Pmem;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Where an entry lies: the block of the directory and the offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Logical block of the directory.
    pub(crate) block: u32,
    /// Byte offset in the block, a multiple of four.
    pub(crate) offset: u32,
}

impl From<Place> for EntryPlace {
    fn from(place: Place) -> Self {
        Self {
            block: place.block,
            offset: place.offset,
        }
    }
}

/// What the table knows about a name. The name itself stays on the medium.
#[derive(Clone, Copy, Debug)]
struct Hashed {
    hash: u32,
    ino: u32,
    block: u32,
    /// Offset in the block, in units of four bytes: a block of 64 KiB has 16,384 of them.
    quarter: u16,
    name_len: u8,
    kind: u8,
}

/// A name that is in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where its entry lies.
    pub(crate) place: Place,
    /// The inode, as it stands in the entry: not zero, checked when the directory was read.
    pub(crate) ino: u32,
    /// The entry's type byte; 0 without the `filetype` feature.
    pub(crate) kind: u8,
    /// Length of the name in bytes.
    pub(crate) name_len: u8,
    hash: u32,
}

/// A hash table from names to entries. Sixteen bytes a name; names are compared on the medium, and only where hash and
/// length agree, so that a miss touches the medium once in 2^32 times.
#[derive(Debug, Default)]
pub(crate) struct Names {
    table: HashTable<Hashed>,
    hasher: DefaultHashBuilder,
}

/// The table wants 64 bits, of which it uses both ends; 32 are kept, so they are spread.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Hashed {
    fn place(&self) -> Place {
        Place {
            block: self.block,
            offset: u32::from(self.quarter) * 4,
        }
    }

    fn found(&self) -> Found {
        Found {
            place: self.place(),
            ino: self.ino,
            kind: self.kind,
            name_len: self.name_len,
            hash: self.hash,
        }
    }
}

impl Names {
    /// The hash under which `name` is kept. Keyed, so that nobody can choose names that collide.
    pub(crate) fn hash(&self, name: &[u8]) -> u32 {
        let wide = self.hasher.hash_one(name);
        // Folding keeps all 64 bits' worth of mixing.
        u32::try_from((wide ^ (wide >> 32)) & 0xFFFF_FFFF).expect("masked to 32 bits")
    }

    /// Looks `name` up. `at` tells where on the medium an entry's name begins; `ahead` is told the inode that it will be, if
    /// the name is the one, before the medium is looked at.
    pub(crate) fn find(
        &self,
        pmem: &Pmem,
        name: &[u8],
        at: impl Fn(Place) -> u64,
        ahead: impl Fn(u32),
    ) -> Option<Found> {
        let hash = self.hash(name);
        self.table
            .find(spread(hash), |known| {
                if known.hash != hash || usize::from(known.name_len) != name.len() {
                    return false;
                }
                ahead(known.ino);
                pmem.equals(at(known.place()), name)
            })
            .map(Hashed::found)
    }

    /// Adds a name that is not in the table.
    pub(crate) fn insert(&mut self, hash: u32, place: Place, ino: u32, kind: u8, name_len: u8) {
        let quarter =
            u16::try_from(place.offset / 4).expect("an offset in a block of at most 64 KiB");
        let entry = Hashed {
            hash,
            ino,
            block: place.block,
            quarter,
            name_len,
            kind,
        };
        self.table
            .insert_unique(spread(hash), entry, |known| spread(known.hash));
    }

    /// Takes a name out. Returns whether it was in the table: a name that stands twice in a damaged directory is only once.
    pub(crate) fn remove(&mut self, found: &Found) -> bool {
        match self
            .table
            .find_entry(spread(found.hash), |known| known.place() == found.place)
        {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }

    /// Lets a name lead to another inode.
    pub(crate) fn redirect(&mut self, found: &Found, ino: u32, kind: u8) {
        if let Some(known) = self
            .table
            .find_mut(spread(found.hash), |known| known.place() == found.place)
        {
            known.ino = ino;
            known.kind = kind;
        }
    }
}
