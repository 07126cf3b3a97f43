//! Extended attributes: blocks with their reference counts, and those inside inodes.
//!
//! On disk: Linux `ext4/attributes.rst`.

use super::GroupScan;
use super::blocks::xattr_ref;
use super::inode::{Subject, damage};
use crate::census::{Census, XattrRef};
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::open::Volume;
use crate::problem::{Code, Preen, Severity};

const MAGIC: u32 = 0xEA02_0000;
const HEADER: usize = 32;
const ENTRY: usize = 16;

/// Notes the inode's attribute block; says how many blocks `i_blocks` counts for it.
pub(super) fn claim(subject: &Subject<'_>, out: &mut GroupScan) -> u8 {
    u8::from(xattr_ref(subject, out))
}

/// One attribute entry of the medium.
struct Entry<'a> {
    name: &'a [u8],
    index: u8,
    value_offset: usize,
    value_inode: u32,
    value_len: usize,
    hash: u32,
}

impl<'a> Entry<'a> {
    fn parse(bytes: &'a [u8], at: usize) -> Option<Self> {
        let head = bytes.get(at..at.checked_add(ENTRY)?)?;
        let le32 = |i: usize| {
            head.get(i..i + 4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        let name_len = usize::from(head[0]);
        Some(Self {
            name: bytes.get(at + ENTRY..(at + ENTRY + name_len).min(bytes.len()))?,
            index: head[1],
            value_offset: usize::from(u16::from_le_bytes([head[2], head[3]])),
            value_inode: le32(4)?,
            value_len: le32(8)? as usize,
            hash: le32(12)?,
        })
    }

    fn len(name_len: usize) -> usize {
        (name_len + ENTRY + 3) & !3
    }

    /// Whether the stored hash fits name and value; name bytes count as unsigned or, in images of old, as signed.
    fn hash_fits(&self, value: &[u8]) -> bool {
        [false, true]
            .into_iter()
            .any(|signed| self.hash_of(value, signed) == self.hash)
    }

    fn hash_of(&self, value: &[u8], signed: bool) -> u32 {
        let mut hash = 0_u32;
        for &byte in self.name {
            let byte = if signed {
                i32::from(byte.cast_signed()).cast_unsigned()
            } else {
                u32::from(byte)
            };
            hash = hash.rotate_left(5) ^ byte;
        }
        for word in value.chunks(4) {
            let mut bytes = [0; 4];
            for (to, from) in bytes.iter_mut().zip(word) {
                *to = *from;
            }
            hash = hash.rotate_left(16) ^ u32::from_le_bytes(bytes);
        }
        hash
    }
}

/// Which bytes are taken, so that entries and values that overlap are seen.
struct Regions(Vec<bool>);

impl Regions {
    fn take(&mut self, at: usize, len: usize) -> bool {
        let Some(slots) = at.checked_add(len).and_then(|end| self.0.get_mut(at..end)) else {
            return false;
        };
        let free = slots.iter().all(|taken| !taken);
        slots.fill(true);
        free
    }
}

/// What is wrong in a list of entries, with the byte offset of the entry.
type Wrong = (&'static str, u64);

fn padded(len: usize) -> usize {
    len.checked_add(3).map_or(usize::MAX, |len| len & !3)
}

/// Checks entries that start at `start`; value offsets count from `base`.
fn check_entries(bytes: &[u8], start: usize, base: usize, in_inode: bool) -> Result<(), Wrong> {
    let mut regions = Regions(vec![false; bytes.len()]);
    regions.take(0, start);
    let mut at = start;
    while let Some(first) = bytes.get(at..at.saturating_add(4)) {
        if first == [0; 4] {
            break;
        }
        let wrong = |what| Err((what, at as u64));
        let Some(entry) = Entry::parse(bytes, at) else {
            return wrong("entry");
        };
        let len = Entry::len(usize::from(first[0]));
        if !regions.take(at, len) {
            return wrong("overlap");
        }
        if !in_inode && entry.index == 0 {
            return wrong("name index");
        }
        if entry.value_inode != 0 {
            return wrong("value inode");
        }
        // Inside an inode nobody looks where an empty value is.
        let value_at = match in_inode && entry.value_len == 0 {
            true => base,
            false => base.saturating_add(entry.value_offset),
        };
        if in_inode && entry.value_len > bytes.len() - start {
            return wrong("value size");
        }
        let Some(value) = bytes.get(value_at..value_at.saturating_add(entry.value_len)) else {
            return wrong("value");
        };
        if entry.value_len != 0 && !regions.take(value_at, padded(entry.value_len)) {
            return wrong("value overlap");
        }
        let unhashed = in_inode && entry.hash == 0;
        if !unhashed && !entry.hash_fits(value) {
            return wrong("hash");
        }
        at += len;
    }
    if regions.take(at, 4) {
        Ok(())
    } else {
        Err(("end mark", at as u64))
    }
}

/// Attributes between `at` (behind the extra fields) and the end of the inode.
pub(super) fn check_in_inode(subject: &Subject<'_>, at: u64, bytes: &[u8], out: &mut GroupScan) {
    if bytes.first_chunk() != Some(&MAGIC.to_le_bytes()) {
        return;
    }
    // Value offsets count from the first entry, behind the magic number.
    if let Err((what, offset)) = check_entries(bytes, 4, 4, true) {
        let finding = subject
            .finding(Code::InodeXattr)
            .name(what.as_bytes())
            .at(offset);
        let fix = Fix::word(at, 0);
        out.findings.push(match what {
            // What an entry says, another one or the end of the room contradicts: a person may know better.
            "value" | "overlap" | "value overlap" => damage(finding).fix(fix),
            _ => finding.fix(fix),
        });
    }
}

/// How many inodes refer to the block whose removal was interrupted: its count still has them.
fn dying(image: &Image, volume: &Volume, orphans: &[u32], block: u32) -> u64 {
    let raws = orphans
        .iter()
        .filter_map(|&ino| volume.inode_at(ino))
        .map(|at| image.inode(at));
    raws.filter(|raw| raw.i_links_count.get() == 0 && raw.i_file_acl.get() == block)
        .count() as u64
}

/// Checks every attribute block once and compares its reference count with the references found.
pub(super) fn check_blocks(
    (image, volume): (&Image, &Volume),
    census: &Census,
    refs: &[XattrRef],
    orphans: &[u32],
    findings: &mut Vec<Finding>,
) {
    let mut bytes = vec![0; volume.layout.block_size as usize];
    for same in refs.chunk_by(|a, b| a.block == b.block) {
        let Some(first) = same.first() else { continue };
        census.claim(first.block);
        image.read(volume.layout.at(first.block), &mut bytes);
        let le32 = |i: usize| {
            bytes
                .get(i..i + 4)
                .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        let (magic, refcount, blocks) = (le32(0), le32(4), le32(8));
        let detach = || {
            let at = |r: &XattrRef| Some(crate::fix::Patch::word(volume.inode_at(r.ino)? + 104, 0));
            Fix::Patches(same.iter().filter_map(at).collect())
        };
        let finding = |code| Finding::new(code).ino(first.ino).block(first.block);
        if magic != MAGIC {
            findings.push(finding(Code::XattrMagic).fix(detach()));
            continue;
        }
        if blocks != 1 {
            findings.push(finding(Code::XattrBlocks).found(blocks).fix(detach()));
            continue;
        }
        if let Err((what, at)) = check_entries(&bytes, HEADER, 0, false) {
            findings.push(
                finding(Code::XattrEntry)
                    .name(what.as_bytes())
                    .at(at)
                    .fix(detach()),
            );
            continue;
        }
        if u64::from(refcount) != same.len() as u64 {
            let right = crate::layout::saturate(same.len() as u64);
            let fix = Fix::word(volume.layout.at(first.block) + 4, right);
            let mut finding = finding(Code::XattrRefcount).found(refcount).expected(right);
            if u64::from(refcount) == same.len() as u64 + dying(image, volume, orphans, first.block)
            {
                finding = finding.severity(Severity::Residue).preen(Preen::Safe);
            }
            findings.push(finding.fix(fix));
        }
    }
}
