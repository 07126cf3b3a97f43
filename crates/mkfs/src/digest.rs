//! A digest of everything that goes into an image, for its UUID.

use ext2dax_format::htree::Seed;
use xxhash_rust::xxh3::Xxh3Default;

use crate::tree::{Body, Numbered, Tree};

/// Bytes on their way into a digest: many small pieces go in together.
struct Gather {
    bytes: Vec<u8>,
    digest: Xxh3Default,
}

impl Gather {
    const ROOM: usize = 16 << 10;

    fn update(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > Self::ROOM {
            self.digest.update(&self.bytes);
            self.bytes.clear();
        }
        if bytes.len() > Self::ROOM {
            self.digest.update(bytes);
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn finish(mut self) -> u128 {
        self.digest.update(&self.bytes);
        self.digest.digest128()
    }
}

/// Of the bytes of one piece of a file.
pub(crate) fn of_bytes(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}

/// Of names, attributes and shapes of files: all but their bytes.
pub(crate) fn of_tree(tree: &Tree, numbered: &Numbered) -> u128 {
    let mut digest = Gather {
        bytes: Vec::with_capacity(Gather::ROOM),
        digest: Xxh3Default::new(),
    };
    let text = |digest: &mut Gather, bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    for &id in &numbered.order {
        let node = tree.node(id);
        let meta = node.meta;
        let time = meta
            .time
            .map_or([0; 2], |time| [time.secs, i64::from(time.nanos) + 1]);
        let head = [
            u32::from(node.body.kind().mode() | meta.mode),
            meta.uid,
            meta.gid,
            numbered.links(id),
        ];
        head.iter()
            .for_each(|word| digest.update(&word.to_le_bytes()));
        time.iter()
            .for_each(|word| digest.update(&word.to_le_bytes()));
        for attribute in &node.attributes {
            digest.update(&[attribute.index.raw()]);
            text(&mut digest, &attribute.name);
            text(&mut digest, &attribute.value);
        }
        match &node.body {
            Body::Directory(names) => {
                for (name, id) in names {
                    text(&mut digest, name);
                    digest.update(&numbered.place(*id).to_le_bytes());
                }
            }
            Body::Regular(contents) => {
                digest.update(&contents.size.to_le_bytes());
                for blocks in &contents.blocks {
                    digest.update(&blocks.start.to_le_bytes());
                    digest.update(&blocks.len.to_le_bytes());
                }
            }
            Body::Symlink(target) => text(&mut digest, target),
            Body::Device(_, device) => {
                digest.update(&device.major.to_le_bytes());
                digest.update(&device.minor.to_le_bytes());
            }
            Body::Fifo | Body::Socket => {}
        }
        // So that what follows cannot be taken for more of this.
        digest.update(&[0xff]);
    }
    digest.finish()
}

/// Of everything: the digest of the tree, and those of the pieces of files in their order.
pub(crate) fn of_all(tree: u128, pieces: &[u128]) -> u128 {
    let all = [tree].into_iter().chain(pieces.iter().copied());
    let bytes: Vec<u8> = all.flat_map(u128::to_le_bytes).collect();
    of_bytes(&bytes)
}

/// The hash seed of an image whose UUID comes from its contents: the names decide, because the layout needs it before
/// the bytes are read.
pub(crate) fn seed(tree: u128) -> [u8; 16] {
    let mut what = b"hash seed ".to_vec();
    what.extend_from_slice(&tree.to_le_bytes());
    crate::plan::first::named_uuid(&what)
}

pub(crate) fn seed_words(seed: [u8; 16]) -> Seed {
    let (words, _) = seed.as_chunks::<4>();
    let mut all = [0; 4];
    for (to, from) in all.iter_mut().zip(words) {
        *to = u32::from_le_bytes(*from);
    }
    Seed(all)
}
