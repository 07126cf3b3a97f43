//! A reader of its own for the tests: which files an image holds, and what is in them. It believes the image, so it is for
//! images that a checker has called clean.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::campaign::{Target, le};

/// A file as a user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) ino: usize,
    pub(crate) mode: u64,
    pub(crate) links: u64,
    pub(crate) owner: (u64, u64),
    pub(crate) size: u64,
    /// Of the contents, the device number or the link's text. Zeroes and holes are the same.
    pub(crate) contents: u64,
}

impl Node {
    pub(crate) fn is_dir(&self) -> bool {
        self.mode >> 12 == 4
    }
}

/// All paths with what they lead to. Directories that lead back to themselves end the walk at 64 levels.
pub(crate) fn tree(bytes: Vec<u8>) -> BTreeMap<Vec<u8>, Node> {
    let target = Target::new(bytes);
    let mut found = BTreeMap::new();
    walk(&target, 2, b"/".to_vec(), 0, &mut found);
    found
}

fn walk(
    target: &Target,
    ino: usize,
    path: Vec<u8>,
    depth: u32,
    found: &mut BTreeMap<Vec<u8>, Node>,
) {
    let node = node(target, ino);
    let is_dir = node.is_dir();
    found.insert(path.clone(), node);
    if !is_dir || depth == 64 {
        return;
    }
    for (name, child) in entries(target, ino) {
        let mut below = path.clone();
        if below != b"/" {
            below.push(b'/');
        }
        below.extend(name);
        walk(target, child, below, depth + 1, found);
    }
}

pub(crate) fn entries(target: &Target, ino: usize) -> Vec<(Vec<u8>, usize)> {
    let mut all = Vec::new();
    let size = target.block_size;
    for (_, block) in blocks(target, ino) {
        let bytes = &target.bytes[block * size..(block + 1) * size];
        let mut at = 0;
        while at + 8 <= size {
            let len = match le(bytes, at + 4, 2) {
                0 | 65_535 if size == 65_536 => 65_536,
                len => usize::try_from(len).unwrap(),
            };
            let name = bytes[at + 8..at + 8 + usize::from(bytes[at + 6])].to_vec();
            let child = usize::try_from(le(bytes, at, 4)).unwrap();
            if child != 0 && name != b"." && name != b".." {
                all.push((name, child));
            }
            assert!(len >= 12, "the image was called clean");
            at += len;
        }
    }
    all
}

fn node(target: &Target, ino: usize) -> Node {
    let at = target.inode(ino);
    let field = |offset: usize, width: usize| le(&target.bytes, at + offset, width);
    let (mode, kind) = (field(0, 2), field(0, 2) >> 12);
    let high = if kind == 8 { field(108, 4) << 32 } else { 0 };
    let size = high | field(4, 4);
    let mut hasher = DefaultHasher::new();
    let mapped = kind == 8 || (kind == 10 && size >= 60);
    if mapped {
        for (lblk, block) in blocks(target, ino) {
            let start = lblk * target.block_size as u64;
            let len =
                usize::try_from(size.saturating_sub(start).min(target.block_size as u64)).unwrap();
            let bytes = &target.bytes[block * target.block_size..][..len];
            if bytes.iter().any(|&byte| byte != 0) {
                (lblk, bytes).hash(&mut hasher);
            }
        }
    } else if kind == 10 {
        target.bytes[at + 40..at + 40 + usize::try_from(size).unwrap()].hash(&mut hasher);
    } else if kind != 4 {
        target.bytes[at + 40..at + 48].hash(&mut hasher);
    }
    Node {
        ino,
        mode,
        links: field(26, 2),
        owner: (
            field(2, 2) | field(120, 2) << 16,
            field(24, 2) | field(122, 2) << 16,
        ),
        size,
        contents: hasher.finish(),
    }
}

/// The mapped data blocks of a file: block of the file, block of the image.
pub(crate) fn blocks(target: &Target, ino: usize) -> Vec<(u64, usize)> {
    let map = target.inode(ino) + 40;
    let n = target.block_size as u64 / 4;
    let mut all = Vec::new();
    let mut first = 0;
    for i in 0..15 {
        let level = u32::try_from(i).unwrap().saturating_sub(11);
        below(target, map + i * 4, level, first, &mut all);
        first += n.pow(level);
    }
    all
}

fn below(target: &Target, at: usize, level: u32, first: u64, all: &mut Vec<(u64, usize)>) {
    let block = usize::try_from(le(&target.bytes, at, 4)).unwrap();
    if block == 0 {
        return;
    }
    if level == 0 {
        all.push((first, block));
        return;
    }
    let n = target.block_size / 4;
    for i in 0..n {
        let start = first + i as u64 * (n as u64).pow(level - 1);
        below(
            target,
            block * target.block_size + i * 4,
            level - 1,
            start,
            all,
        );
    }
}
