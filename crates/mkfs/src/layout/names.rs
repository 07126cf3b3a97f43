//! How the names of a directory are spread over blocks: in order, or by hash below an index.

use ext2dax_format::dirent::{self, RawDirEntry};
use ext2dax_format::htree::{
    self, HashVersion, NODE_ENTRIES_OFFSET, ROOT_ENTRIES_OFFSET, ROOT_INFO_OFFSET, RawDxCountLimit,
    RawDxEntry, RawDxRootInfo, Seed,
};
use ext2dax_format::{FileType, Geometry, Ino};
use zerocopy::IntoBytes as _;
use zerocopy::little_endian::{U16, U32};

/// The hash of new indexes; the superblock's default, too.
const VERSION: HashVersion = HashVersion::HalfMd4;
/// Bytes of the entries `.` and `..`.
const DOTS: u32 = 24;

/// How the names of one directory are packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// All in one block.
    One,
    /// In the order of names; the first name of each block but the first.
    Linear(Box<[u32]>),
    /// By hash.
    Indexed(Box<Index>),
}

/// The leaves of an index. File block 0 is the root, then come the leaves, then nodes between them if there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    /// Numbers of names, in the order of their hashes.
    order: Box<[u32]>,
    /// Where each leaf starts in `order`.
    leaves: Box<[u32]>,
    /// Nodes between root and leaves.
    nodes: u32,
}

impl Packing {
    /// Packs names in their order. With a seed, names that need more than a block get an index, unless they are too
    /// many for one of two levels.
    pub(crate) fn new<'a>(
        names: impl Iterator<Item = &'a [u8]> + Clone,
        block_size: u32,
        seed: Option<Seed>,
    ) -> Self {
        let all: u64 = names
            .clone()
            .map(|name| u64::from(dirent::needed_len(name.len())))
            .sum();
        if u64::from(DOTS) + all <= u64::from(block_size) {
            return Self::One;
        }
        if let Some(seed) = seed
            && let Some(index) = Index::new(names.clone(), block_size, seed)
        {
            return Self::Indexed(Box::new(index));
        }
        let starts = breaks(names.map(<[u8]>::len), DOTS, block_size);
        Self::Linear(starts.into())
    }

    /// Blocks that the names take.
    pub(crate) fn blocks(&self) -> u32 {
        match self {
            Self::One => 1,
            Self::Linear(starts) => count(starts) + 1,
            Self::Indexed(index) => 1 + count(&index.leaves) + index.nodes,
        }
    }
}

fn count(list: &[u32]) -> u32 {
    u32::try_from(list.len()).expect("fewer than 2^32 names")
}

/// The first name of each block but the first; `used` bytes of the first block are taken.
fn breaks(lengths: impl Iterator<Item = usize>, used: u32, block_size: u32) -> Vec<u32> {
    let mut used = used;
    let mut starts = Vec::new();
    for (nr, len) in (0_u32..).zip(lengths) {
        let needed = dirent::needed_len(len);
        if used + needed > block_size {
            starts.push(nr);
            used = 0;
        }
        used += needed;
    }
    starts
}

impl Index {
    fn new<'a>(names: impl Iterator<Item = &'a [u8]>, block_size: u32, seed: Seed) -> Option<Self> {
        let mut hashed: Vec<_> = (0_u32..)
            .zip(names)
            .map(|(nr, name)| (htree::hash(name, VERSION, seed), nr, name.len()))
            .collect();
        hashed.sort_unstable();
        let mut leaves = vec![0];
        leaves.extend(breaks(hashed.iter().map(|name| name.2), 0, block_size));
        let nodes = if count(&leaves) <= htree::root_limit(block_size) {
            0
        } else {
            count(&leaves).div_ceil(htree::node_limit(block_size))
        };
        (nodes <= htree::root_limit(block_size)).then(|| Self {
            order: hashed.iter().map(|name| name.1).collect(),
            leaves: leaves.into(),
            nodes,
        })
    }
}

/// A name on its way into a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) ino: Ino,
    pub(crate) kind: FileType,
}

/// Writes the blocks of one directory.
pub(crate) struct Writer<'a> {
    pub(crate) geometry: &'a Geometry,
    /// The directory's own entries.
    pub(crate) dots: [Name<'a>; 2],
    /// The names, in their order.
    pub(crate) names: &'a [Name<'a>],
    pub(crate) packing: &'a Packing,
}

impl Writer<'_> {
    /// Fills one block; `block` is zero. Blocks past the packing have no names.
    pub(crate) fn block(&self, nr: u32, block: &mut [u8]) {
        match self.packing {
            Packing::One if nr == 0 => self.entries(block, self.dots.iter().chain(self.names)),
            Packing::Linear(starts) if nr <= count(starts) => {
                let start = |nr: u32| match nr {
                    0 => 0,
                    _ => starts
                        .get(nr as usize - 1)
                        .map_or(self.names.len(), |&start| start as usize),
                };
                let names = &self.names[start(nr)..start(nr + 1)];
                let dots: &[Name<'_>] = if nr == 0 { &self.dots } else { &[] };
                self.entries(block, dots.iter().chain(names));
            }
            Packing::Indexed(index) => self.indexed(index, nr, block),
            _ => self.entries(block, [].iter()),
        }
    }

    /// Entries one after the other, the last one or a free one up to the end.
    fn entries<'b>(&self, block: &mut [u8], names: impl Iterator<Item = &'b Name<'b>>) {
        let block_size = self.geometry.block_size();
        let (mut at, mut last) = (0, None);
        for name in names {
            let len = dirent::needed_len(name.name.len());
            self.put(block, at, len, Some(name));
            last = Some((at, name));
            at += len;
        }
        match last {
            Some((at, name)) => self.put(block, at, block_size - at, Some(name)),
            None => self.put(block, 0, block_size, None),
        }
    }

    fn put(&self, block: &mut [u8], at: u32, len: u32, name: Option<&Name<'_>>) {
        let text = name.map_or(&b""[..], |name| name.name);
        let name_len = u8::try_from(text.len()).expect("checked when the name was added");
        let (ino, kind) = (name.map(|name| name.ino), name.map(|name| name.kind));
        let head = RawDirEntry::new(ino, len, name_len, kind, self.geometry);
        let at = at as usize;
        block[at..at + 8].copy_from_slice(head.as_bytes());
        block[at + 8..at + 8 + text.len()].copy_from_slice(text);
    }

    fn indexed(&self, index: &Index, nr: u32, block: &mut [u8]) {
        let leaves = count(&index.leaves);
        let geometry = self.geometry;
        let node_limit = htree::node_limit(geometry.block_size());
        if nr == 0 {
            self.put(block, 0, 12, Some(&self.dots[0]));
            let rest = geometry.block_size() - 12;
            self.put(block, 12, rest, Some(&self.dots[1]));
            let info = RawDxRootInfo {
                hash_version: VERSION.byte(),
                info_length: 8,
                indirect_levels: u8::from(index.nodes > 0),
                ..RawDxRootInfo::default()
            };
            let from = ROOT_INFO_OFFSET as usize;
            block[from..from + 8].copy_from_slice(info.as_bytes());
            let limit = htree::root_limit(geometry.block_size());
            let from = ROOT_ENTRIES_OFFSET as usize;
            if index.nodes == 0 {
                let entries = (0..leaves).map(|leaf| (self.first_hash(index, leaf), leaf + 1));
                node(&mut block[from..], limit, entries);
            } else {
                let entries = (0..index.nodes)
                    .map(|nr| (self.first_hash(index, nr * node_limit), leaves + 1 + nr));
                node(&mut block[from..], limit, entries);
            }
        } else if nr <= leaves {
            let leaf = nr as usize - 1;
            let end = index.leaves.get(leaf + 1);
            let end = end.map_or(index.order.len(), |&end| end as usize);
            let names = &index.order[index.leaves[leaf] as usize..end];
            self.entries(block, names.iter().map(|&nr| &self.names[nr as usize]));
        } else {
            self.put(block, 0, geometry.block_size(), None);
            let first = (nr - leaves - 1) * node_limit;
            let last = (first + node_limit).min(leaves);
            let entries = (first..last).map(|leaf| (self.first_hash(index, leaf), leaf + 1));
            node(
                &mut block[NODE_ENTRIES_OFFSET as usize..],
                node_limit,
                entries,
            );
        }
    }

    /// The lowest hash of a leaf, odd if the leaf before ends with the same one.
    fn first_hash(&self, index: &Index, leaf: u32) -> u32 {
        let seed = Seed(self.geometry.hash_seed());
        let hash = |place: u32| {
            let name = &self.names[index.order[place as usize] as usize];
            htree::hash(name.name, VERSION, seed).major
        };
        let start = index.leaves[leaf as usize];
        let first = hash(start);
        let goes_on = start > 0 && hash(start - 1) == first;
        first | u32::from(goes_on)
    }
}

/// The entries of a node; the first one has room and use in the place of its hash.
fn node(area: &mut [u8], limit: u32, entries: impl Iterator<Item = (u32, u32)>) {
    let mut used = 0;
    for (slot, (hash, block)) in area.chunks_exact_mut(8).zip(entries) {
        let entry = RawDxEntry {
            hash: U32::new(hash),
            block: U32::new(block),
        };
        slot.copy_from_slice(entry.as_bytes());
        used += 1;
    }
    let head = RawDxCountLimit {
        limit: U16::new(u16::try_from(limit).expect("8 bytes each in 64 KiB")),
        count: U16::new(used),
    };
    area[..4].copy_from_slice(head.as_bytes());
}
