//! How the names of a directory lie in its blocks.
//!
//! # On disk
//! Linux `ext4/directory.rst`, "Linear Directories" and "Hash Tree Directories".

use std::ops::Range;

use ext2dax_format::htree::{self, HashVersion, Seed};

use crate::layout::{Layout, feature};
use crate::open::Volume;
use crate::repair::dir::{encode_rec_len, entry_len, new_block, put};

/// An entry on its way from an old block to a new one.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) ino: u32,
    pub(super) file_type: u8,
}

/// A block of the new layout.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    /// The bytes that are an index and no entries.
    pub(super) index: Range<usize>,
}

/// A directory as it is to be.
#[derive(Debug)]
pub(super) struct Arranged {
    pub(super) blocks: Vec<Block>,
    pub(super) indexed: bool,
}

/// Bytes of `.` and `..` together.
const DOTS: usize = 24;

/// Lays out the names; `None` if they are more than a directory can hold.
pub(super) fn arrange(volume: &Volume, names: &[Name], dots: (u32, u32)) -> Option<Arranged> {
    let layout = &volume.layout;
    let size = layout.block_size as usize;
    let all: usize = names.iter().map(|name| entry_len(name.name.len())).sum();
    let fits_one = DOTS + all <= size;
    if !fits_one
        && layout.compat(feature::COMPAT_DIR_INDEX)
        && let Some(indexed) = with_index(volume, names, dots)
    {
        return Some(indexed);
    }
    let mut sorted: Vec<&Name> = names.iter().collect();
    sorted.sort_by(|a, b| (a.ino, &a.name).cmp(&(b.ino, &b.name)));
    let mut blocks = vec![new_block(layout, Some(dots))];
    let mut at = DOTS;
    if let Some(first) = blocks.first_mut()
        && !sorted.is_empty()
    {
        put(first, 16, &encode_rec_len(12));
    }
    fill(layout, &mut blocks, &mut at, sorted.into_iter(), size);
    Some(Arranged {
        blocks: blocks.into_iter().map(plain).collect(),
        indexed: false,
    })
}

fn plain(bytes: Vec<u8>) -> Block {
    Block { bytes, index: 0..0 }
}

/// All names in blocks without `.` and `..`, in the order in which they come.
pub(super) fn pack(layout: &Layout, names: &[Name]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let size = layout.block_size as usize;
    let mut at = size;
    fill(layout, &mut blocks, &mut at, names.iter(), size);
    blocks
}

/// Appends entries from byte `at` of the last block on, and starts a new block whenever `most` bytes are taken. The last
/// entry of each block reaches to its end.
fn fill<'n>(
    layout: &Layout,
    blocks: &mut Vec<Vec<u8>>,
    at: &mut usize,
    names: impl Iterator<Item = &'n Name>,
    most: usize,
) {
    let size = layout.block_size as usize;
    let mut last = None;
    for name in names {
        let len = entry_len(name.name.len());
        if *at + len > most {
            blocks.push(new_block(layout, None));
            (*at, last) = (0, None);
        }
        let Some(block) = blocks.last_mut() else {
            return;
        };
        if let Some((start, len)) = last {
            put(block, start + 4, &encode_rec_len(len));
        }
        put(block, *at, &name.ino.to_le_bytes());
        put(block, *at + 4, &encode_rec_len(size - *at));
        let name_len = u8::try_from(name.name.len()).unwrap_or(u8::MAX);
        put(block, *at + 6, &[name_len, name.file_type]);
        put(block, *at + 8, &name.name);
        last = Some((*at, len));
        *at += len;
    }
}

/// A root, perhaps one level of nodes, and leaves with names in the order of their hashes. `None`: too many leaves.
fn with_index(volume: &Volume, names: &[Name], dots: (u32, u32)) -> Option<Arranged> {
    let layout = &volume.layout;
    let size = layout.block_size as usize;
    let (version_byte, version) = hash_version(volume);
    let seed = Seed(volume.sb.s_hash_seed.map(|word| word.get()));
    let mut hashed: Vec<((u32, u32), &Name)> = names
        .iter()
        .map(|name| {
            let hash = htree::hash(&name.name, version, seed);
            ((hash.major, hash.minor), name)
        })
        .collect();
    hashed.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    // Leaves are left a fifth empty, so that the next names find room.
    let most = size - size / 5;
    let mut leaves: Vec<Vec<u8>> = Vec::new();
    let mut first_hashes = Vec::new();
    let (mut at, mut previous) = (size, 0);
    for ((hash, _), name) in hashed {
        let before = leaves.len();
        fill_one(layout, &mut leaves, &mut at, name, most);
        if leaves.len() != before {
            // The lowest bit says that names with this hash stand in the leaf before, too.
            first_hashes.push(hash | u32::from(before != 0 && hash == previous));
        }
        previous = hash;
    }
    let root_limit = (size - 32) / 8;
    let node_limit = (size - 8) / 8;
    let count = leaves.len();
    let nodes = if count <= root_limit {
        0
    } else {
        count.div_ceil(node_limit)
    };
    if nodes > root_limit {
        return None;
    }
    // Block 0 is the root, then come the nodes, then the leaves.
    let leaf_at = |i: usize| u32::try_from(1 + nodes + i).unwrap_or(u32::MAX);
    let entries: Vec<(u32, u32)> = (0..)
        .zip(&first_hashes)
        .map(|(i, &hash)| (hash, leaf_at(i)))
        .collect();
    let mut root = new_block(layout, Some(dots));
    put(&mut root, 28, &[version_byte, 8, u8::from(nodes != 0), 0]);
    let mut blocks = Vec::with_capacity(1 + nodes + count);
    let mut node_blocks = Vec::new();
    if nodes == 0 {
        let end = write_index(&mut root, 32, root_limit, &entries);
        blocks.push(Block {
            bytes: root,
            index: 24..end,
        });
    } else {
        let mut tops = Vec::new();
        for (i, part) in entries.chunks(node_limit).enumerate() {
            let mut bytes = new_block(layout, None);
            let end = write_index(&mut bytes, 8, node_limit, part);
            let hash = part.first().map_or(0, |(hash, _)| *hash);
            tops.push((hash, u32::try_from(1 + i).unwrap_or(u32::MAX)));
            node_blocks.push(Block {
                bytes,
                index: 8..end,
            });
        }
        let end = write_index(&mut root, 32, root_limit, &tops);
        blocks.push(Block {
            bytes: root,
            index: 24..end,
        });
    }
    blocks.extend(node_blocks);
    blocks.extend(leaves.into_iter().map(plain));
    Some(Arranged {
        blocks,
        indexed: true,
    })
}

/// One entry more; see [`fill`].
fn fill_one(layout: &Layout, blocks: &mut Vec<Vec<u8>>, at: &mut usize, name: &Name, most: usize) {
    let size = layout.block_size as usize;
    let len = entry_len(name.name.len());
    // The entry before reaches to the end of the block: it gives up what it does not need.
    if *at + len <= most
        && let Some(block) = blocks.last_mut()
        && let Some(start) = last_entry(block)
    {
        put(block, start + 4, &encode_rec_len(*at - start));
    } else {
        *at = size;
    }
    fill(layout, blocks, at, std::iter::once(name), size);
}

/// Where the last entry of a block starts, if there is one that leads somewhere.
fn last_entry(block: &[u8]) -> Option<usize> {
    let mut offset = 0;
    loop {
        let entry = crate::dirs::Entry::parse(block, offset)?;
        if offset + entry.rec_len == block.len() {
            return (entry.ino != 0).then_some(offset);
        }
        offset += entry.rec_len;
    }
}

/// Writes limit, count and entries from byte `at` on; the first entry has no hash. Answers where they end.
fn write_index(bytes: &mut [u8], at: usize, limit: usize, entries: &[(u32, u32)]) -> usize {
    let half = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
    for (i, (hash, block)) in entries.iter().enumerate() {
        put(bytes, at + i * 8, &hash.to_le_bytes());
        put(bytes, at + i * 8 + 4, &block.to_le_bytes());
    }
    put(bytes, at, &half(limit));
    put(bytes, at + 2, &half(entries.len()));
    at + entries.len() * 8
}

/// The superblock's hash with the signedness of its flags; half MD4 if it names none that exists.
fn hash_version(volume: &Volume) -> (u8, HashVersion) {
    let unsigned = volume.sb.s_flags.get() & 2 != 0;
    match (volume.sb.s_def_hash_version, unsigned) {
        (0, false) => (0, HashVersion::Legacy),
        (0, true) => (0, HashVersion::LegacyUnsigned),
        (2, false) => (2, HashVersion::Tea),
        (2, true) => (2, HashVersion::TeaUnsigned),
        (_, false) => (1, HashVersion::HalfMd4),
        (_, true) => (1, HashVersion::HalfMd4Unsigned),
    }
}
