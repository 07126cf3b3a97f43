//! The hash index of a directory: does it lead to every name.
//!
//! Linux `ext4/directory.rst`, "Hash Tree Directories". Leaves are ordinary blocks; every hash in a leaf has to lie in
//! the range that the nodes above give it, and every block has to be reached exactly once.

use ext2dax_format::htree::{self, HashVersion, Seed};

use super::DirBlock;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::layout::feature;
use crate::problem::Code;
use crate::scan::{Subject, field, flag};

const LAST: u32 = 0xFFFF_FFFE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Root,
    Node,
    Leaf,
}

/// What is known of one block: hashes found in it, and the range that its parent gives it.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    role: Role,
    parent: u32,
    min: u32,
    max: u32,
    node_min: u32,
    node_max: u32,
    first: bool,
    last: bool,
    references: u8,
}

/// The index of one directory while its blocks are read.
#[derive(Debug)]
pub(super) struct Index {
    version: HashVersion,
    seed: Seed,
    levels: u8,
    blocks: Vec<Bounds>,
    current: u32,
    /// What is wrong so far, with the block.
    wrong: Vec<(&'static str, u32)>,
}

impl Index {
    /// Starts if the directory has an index whose root can be read; pass 1 has reported the roots that cannot.
    pub(super) fn start(subject: &Subject<'_>, blocks: &[DirBlock]) -> Option<Self> {
        let volume = subject.scan.volume;
        if !subject.has(flag::INDEX) || !volume.layout.compat(feature::COMPAT_DIR_INDEX) {
            return None;
        }
        let count = blocks.last()?.lblk.checked_add(1)?;
        if count as usize > blocks.len() || blocks.first()?.block == 0 {
            return None;
        }
        let mut info = [0_u8; 8];
        subject
            .scan
            .image
            .read(volume.layout.at(blocks.first()?.block) + 24, &mut info);
        let levels = info[6];
        let unsigned = volume.sb.s_flags.get() & 2 != 0;
        let version = hash_version(info[4], unsigned)?;
        if levels > 1 || info[5] < 8 {
            return None;
        }
        let blank = Bounds {
            role: Role::Leaf,
            parent: 0,
            min: u32::MAX,
            max: 0,
            node_min: 0,
            node_max: 0,
            first: false,
            last: false,
            references: 0,
        };
        let seed = Seed(volume.sb.s_hash_seed.map(|word| word.get()));
        Some(Self {
            version,
            seed,
            levels,
            blocks: vec![blank; count as usize],
            current: 0,
            wrong: Vec::new(),
        })
    }

    pub(super) fn start_block(&mut self, lblk: u32, bytes: &[u8]) {
        self.current = lblk;
        let role = match lblk {
            0 => Role::Root,
            _ if looks_like_node(bytes) => Role::Node,
            _ => Role::Leaf,
        };
        if let Some(block) = self.blocks.get_mut(lblk as usize) {
            block.role = role;
            if role == Role::Root {
                (block.first, block.last, block.references) = (true, true, 1);
            }
        }
    }

    pub(super) fn add_name(&mut self, name: &[u8]) {
        let Some(block) = self.blocks.get_mut(self.current as usize) else {
            return;
        };
        if block.role == Role::Leaf {
            let hash = htree::hash(name, self.version, self.seed).major;
            block.min = block.min.min(hash);
            block.max = block.max.max(hash);
        }
    }

    pub(super) fn end_block(&mut self, lblk: u32, bytes: &[u8]) {
        match self.blocks.get(lblk as usize).map(|block| block.role) {
            Some(Role::Root) => {
                let info_len = bytes.get(29).map_or(0, |&len| usize::from(len));
                self.read_node(lblk, bytes, 24 + info_len);
            }
            Some(Role::Node) => self.read_node(lblk, bytes, 8),
            _ => {}
        }
    }

    /// Reads the entries of a root or a node, which start at `start`; limit and count stand in the first one's hash.
    fn read_node(&mut self, lblk: u32, bytes: &[u8], start: usize) {
        let le16 = |at: usize| {
            bytes
                .get(at..at + 2)
                .map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])))
        };
        let le32 = |at: usize| {
            bytes
                .get(at..at + 4)
                .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        let limit = bytes.len().saturating_sub(start) / 8;
        if le16(start) != limit {
            self.wrong.push(("limit", lblk));
        }
        let mut count = le16(start + 2);
        if count > limit {
            self.wrong.push(("count", lblk));
            count = limit;
        }
        let (mut min, mut max, mut hash) = (u32::MAX, 0, 0);
        for i in 0..count {
            let previous = hash;
            hash = if i == 0 { 0 } else { le32(start + i * 8) & !1 };
            let child = le32(start + i * 8 + 4) & 0x0FFF_FFFF;
            let Some(block) = self.blocks.get_mut(child as usize) else {
                self.wrong.push(("reference out of range", lblk));
                continue;
            };
            if hash < previous {
                self.wrong.push(("hash order", lblk));
            }
            if block.references == 0 {
                block.parent = lblk;
            }
            block.references = block.references.saturating_add(1);
            min = min.min(hash);
            max = max.max(hash);
            block.node_min = hash;
            block.first |= i == 0;
            block.last |= i + 1 == count;
            block.node_max = if i + 1 < count {
                le32(start + (i + 1) * 8) & !1
            } else {
                LAST
            };
        }
        if let Some(block) = self.blocks.get_mut(lblk as usize) {
            (block.min, block.max) = (min, max);
        }
    }

    /// All blocks are read: compares what the leaves hold with what the nodes say.
    pub(super) fn finish(mut self, subject: &Subject<'_>, findings: &mut Vec<Finding>) {
        // The outermost leaves decide the true bounds of their node.
        for i in 0..self.blocks.len() {
            let Some(&leaf) = self.blocks.get(i) else {
                break;
            };
            if leaf.role == Role::Leaf
                && (leaf.first || leaf.last)
                && let Some(parent) = self.blocks.get_mut(leaf.parent as usize)
            {
                parent.min = if leaf.first { leaf.min } else { parent.min };
                parent.max = if leaf.last { leaf.max } else { parent.max };
            }
        }
        let mut wrong = std::mem::take(&mut self.wrong);
        for (lblk, block) in (0_u32..).zip(&self.blocks) {
            let mut report = |what| wrong.push((what, lblk));
            if !block.first && block.min < block.node_min {
                report("hash below the range of its node");
            }
            if block.role == Role::Leaf && self.depth(block) != u32::from(self.levels) + 1 {
                report("depth");
            }
            if lblk != 0 && block.max > block.node_max {
                report("hash above the range of its node");
            }
            match block.references {
                0 => report("not reached"),
                1 => {}
                _ => report("reached twice"),
            }
        }
        if let Some(&(what, lblk)) = wrong.first() {
            let finding = Finding::new(Code::HtreeIndex)
                .ino(subject.ino)
                .name(what.as_bytes())
                .at(lblk.into());
            let fix = Fix::word(subject.at + field::FLAGS, subject.flags() & !flag::INDEX);
            findings.push(finding.found(wrong.len() as u64).fix(fix));
        }
    }

    fn depth(&self, leaf: &Bounds) -> u32 {
        let mut depth = 0;
        let mut block = leaf;
        while block.role != Role::Root && depth < 4 {
            let Some(parent) = self.blocks.get(block.parent as usize) else {
                break;
            };
            block = parent;
            depth += 1;
        }
        depth
    }
}

/// An empty entry over the whole block, behind it count and limit.
fn looks_like_node(bytes: &[u8]) -> bool {
    let le16 = |at: usize| {
        bytes
            .get(at..at + 2)
            .map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
    };
    let rec_len = super::block::decode_rec_len(le16(4), bytes.len());
    bytes.first_chunk() == Some(&[0; 4])
        && rec_len == bytes.len()
        && le16(6) == 0
        && usize::from(le16(8)) == (bytes.len() - 8) / 8
}

/// The hash behind a root's version byte; `s_flags` decides the signedness.
fn hash_version(byte: u8, unsigned: bool) -> Option<HashVersion> {
    match (byte, unsigned) {
        (0, false) => Some(HashVersion::Legacy),
        (1, false) => Some(HashVersion::HalfMd4),
        (2, false) => Some(HashVersion::Tea),
        (0, true) => Some(HashVersion::LegacyUnsigned),
        (1, true) => Some(HashVersion::HalfMd4Unsigned),
        (2, true) => Some(HashVersion::TeaUnsigned),
        _ => None,
    }
}
