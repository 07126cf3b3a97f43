//! Repairs inside directories.

use super::space::Space;
use crate::Checked;
use crate::census::Kind;
use crate::connect::dotdot_at;
use crate::dirs::{self, Entry, decode_rec_len};
use crate::fix::Patch;
use crate::image::Image;
use crate::layout::{Layout, ROOT_INO};
use crate::open::Volume;
use crate::scan::{field, flag};

/// Bytes of an entry with a name of `len` bytes.
pub(crate) fn entry_len(len: usize) -> usize {
    (8 + len + 3) & !3
}

/// Stores those words of a block that differ, in ascending order.
fn store_changes(image: &Image, at: u64, old: &[u8], new: &[u8]) {
    for ((i, old), new) in (0_u64..).zip(old.chunks_exact(4)).zip(new.chunks_exact(4)) {
        if old != new {
            let word = u32::from_le_bytes(new.try_into().expect("chunks of 4 bytes"));
            image.patch(Patch::word(at + i * 4, word));
        }
    }
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..at + value.len()) {
        slot.copy_from_slice(value);
    }
}

/// The length as it is stored: 65,536 does not fit and is stored as 65,535.
pub(crate) fn encode_rec_len(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes()
}

/// Makes a block sound: what can be read as entries stays, the rest is swallowed by its neighbour.
pub(super) fn salvage(image: &Image, volume: &Volume, block: u32) -> bool {
    let layout = &volume.layout;
    let mut old = vec![0; layout.block_size as usize];
    image.read(layout.at(block), &mut old);
    let mut new = old.clone();
    let mut offset = 0;
    let mut previous = None;
    // Every step moves on, shortens what is left, or ends the block.
    for _ in 0..new.len() {
        if offset >= new.len() {
            break;
        }
        match Entry::parse(&new, offset) {
            Some(entry) => {
                previous = Some(offset);
                offset += entry.rec_len;
            }
            None => offset = salvage_entry(&mut new, layout, offset, previous),
        }
    }
    store_changes(image, layout.at(block), &old, &new);
    true
}

/// Repairs the broken entry at `offset`; returns where to go on. The rules are those of e2fsck, so that both save the
/// same names.
fn salvage_entry(
    bytes: &mut [u8],
    layout: &Layout,
    offset: usize,
    previous: Option<usize>,
) -> usize {
    let size = bytes.len();
    let rest = size - offset;
    let head: [u8; 8] = bytes
        .get(offset..offset + 8)
        .and_then(|h| h.try_into().ok())
        .unwrap_or_default();
    let rec_len = decode_rec_len(u16::from_le_bytes([head[4], head[5]]), size);
    let name_len = usize::from(head[6]);
    let ino = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    // An entry of 8 bytes is a hole: close it.
    if rec_len == 8 && rest >= 20 {
        bytes.copy_within(offset + 8.., offset);
        put(bytes, size - 8, &[0; 8]);
        return offset;
    }
    // An entry that runs past the end, with a name that does not: shorten it.
    let name = bytes.get(offset + 8..offset + 8 + name_len);
    let whole = name.is_some_and(|name| !name.contains(&0));
    if rec_len > rest && rest >= 12 && name_len + 8 <= rest && ino <= layout.inodes && whole {
        put(bytes, offset + 4, &encode_rec_len(rest));
        return offset;
    }
    let Some(previous) = previous else {
        // Nothing before it: one empty entry for the rest of the block.
        put(bytes, offset, &[0; 4]);
        put(bytes, offset + 4, &encode_rec_len(rest));
        put(bytes, offset + 6, &[0; 2]);
        return offset;
    };
    let swallowed = if rec_len != 0 && rec_len.is_multiple_of(4) && rec_len <= rest {
        rec_len
    } else {
        rest
    };
    put(
        bytes,
        previous + 4,
        &encode_rec_len(offset - previous + swallowed),
    );
    offset + swallowed
}

/// Makes `.` and `..` the first two entries of a directory.
pub(super) fn make_dots(image: &Image, checked: &Checked, ino: u32) -> bool {
    let layout = &checked.volume.layout;
    let Some(at) = checked.volume.inode_at(ino) else {
        return false;
    };
    let block = image.inode(at).i_block[0].get();
    if !layout.holds(block) {
        return false;
    }
    let mut old = vec![0; layout.block_size as usize];
    image.read(layout.at(block), &mut old);
    let mut new = old.clone();
    let Some(dot) = Entry::parse(&old, 0) else {
        return false;
    };
    let dot_len = dot.rec_len;
    let sound = dot.ino == ino && dot.name == b".";
    let first_len = if dot_len > 24 { 12 } else { dot_len };
    if dot_len > 24 {
        put(&mut new, 12, &[0; 4]);
        put(&mut new, 16, &encode_rec_len(dot_len - 12));
        put(&mut new, 18, &[0; 2]);
    }
    let file_type = if layout.filetype() {
        Kind::DIRECTORY.0
    } else {
        0
    };
    if !sound {
        put_entry(&mut new, 0, ino, first_len, file_type, b".\0");
    } else {
        put(&mut new, 4, &encode_rec_len(first_len));
    }
    let parent = checked.census.parent(ino);
    if let Some(dotdot) = Entry::parse(&new, first_len)
        && (dotdot.ino == 0 || dotdot.name != b"..")
    {
        let len = dotdot.rec_len;
        let parent = if parent == 0 { ROOT_INO } else { parent };
        put_entry(&mut new, first_len, parent, len, file_type, b"..\0");
    }
    store_changes(image, layout.at(block), &old, &new);
    true
}

/// Writes an entry; `name` ends in a NUL that is not part of it.
fn put_entry(bytes: &mut [u8], at: usize, ino: u32, len: usize, file_type: u8, name: &[u8]) {
    put(bytes, at, &ino.to_le_bytes());
    put(bytes, at + 4, &encode_rec_len(len));
    put(
        bytes,
        at + 6,
        &[u8::try_from(name.len() - 1).unwrap_or(0), file_type],
    );
    put(bytes, at + 8, name);
}

/// The bytes of a new directory block: `.` and `..` in block 0, one empty entry in any other.
pub(crate) fn new_block(layout: &Layout, dots: Option<(u32, u32)>) -> Vec<u8> {
    let size = layout.block_size as usize;
    let mut bytes = vec![0; size];
    let Some((own, parent)) = dots else {
        put(&mut bytes, 4, &encode_rec_len(size));
        return bytes;
    };
    let file_type = if layout.filetype() {
        Kind::DIRECTORY.0
    } else {
        0
    };
    put_entry(&mut bytes, 0, own, 12, file_type, b".\0");
    put_entry(&mut bytes, 12, parent, size - 12, file_type, b"..\0");
    bytes
}

/// Allocates the missing block `lblk` of a directory.
pub(super) fn fill_hole(
    image: &Image,
    checked: &Checked,
    space: &mut Space<'_>,
    ino: u32,
    lblk: u32,
) -> bool {
    let layout = &checked.volume.layout;
    let parent = checked.census.parent(ino);
    let parent = if parent == 0 { ROOT_INO } else { parent };
    let bytes = new_block(layout, (lblk == 0).then_some((ino, parent)));
    add_block(image, checked, space, ino, lblk, &bytes)
}

/// Hangs a new block with these bytes into a directory's tree, below new indirect blocks where it takes them.
pub(crate) fn add_block(
    image: &Image,
    checked: &Checked,
    space: &mut Space<'_>,
    ino: u32,
    lblk: u32,
    bytes: &[u8],
) -> bool {
    let layout = &checked.volume.layout;
    let Some(inode) = checked.volume.inode_at(ino) else {
        return false;
    };
    let n = u64::from(layout.addrs());
    let map = inode + field::BLOCK;
    let lblk64 = u64::from(lblk);
    let (mut at, rest, level) = match lblk64 {
        0..12 => (map + lblk64 * 4, 0, 0),
        _ if lblk64 - 12 < n => (map + 48, lblk64 - 12, 1_u32),
        _ => (map + 52, lblk64 - 12 - n, 2),
    };
    if rest >= n.pow(level) && level != 0 {
        return false;
    }
    let mut rest = rest;
    for level in (0..level).rev() {
        let mut block = image.le32(at);
        if block == 0 {
            let Some(new) = space.block() else {
                return false;
            };
            image.write(layout.at(new), &vec![0; layout.block_size as usize]);
            image.patch(Patch::word(at, new));
            add_sectors(image, layout, inode);
            block = new;
        }
        if !layout.holds(block) {
            return false;
        }
        let span = n.pow(level);
        at = layout.at(block) + rest / span * 4;
        rest %= span;
    }
    if image.le32(at) != 0 {
        return true;
    }
    let Some(new) = space.block() else {
        return false;
    };
    image.write(layout.at(new), bytes);
    image.patch(Patch::word(at, new));
    add_sectors(image, layout, inode);
    let size = (lblk64 + 1) << (10 + layout.block_log);
    if u64::from(image.le32(inode + field::SIZE)) < size {
        image.patch(Patch::word(
            inode + field::SIZE,
            crate::layout::saturate(size),
        ));
    }
    true
}

fn add_sectors(image: &Image, layout: &Layout, inode: u64) {
    let sectors = image.le32(inode + field::BLOCKS);
    image.patch(Patch::word(
        inode + field::BLOCKS,
        sectors.saturating_add(layout.block_size / 512),
    ));
}

/// All names of a directory, those of empty entries with inode 0.
pub(super) fn names(image: &Image, checked: &Checked, ino: u32) -> Vec<(Vec<u8>, u32)> {
    let mut names = Vec::new();
    let mut bytes = vec![0; checked.volume.layout.block_size as usize];
    dirs::for_each_block_of(image, &checked.volume, &checked.census, ino, |place| {
        image.read(checked.volume.layout.at(place.block), &mut bytes);
        let mut offset = 0;
        while let Some(entry) = Entry::parse(&bytes, offset) {
            names.push((entry.name.to_vec(), entry.ino));
            offset += entry.rec_len;
        }
        true
    });
    names
}

/// The inode that `name` leads to.
pub(super) fn find(image: &Image, checked: &Checked, dir: u32, name: &[u8]) -> Option<u32> {
    names(image, checked, dir)
        .into_iter()
        .find(|(found, ino)| found == name && *ino != 0)
        .map(|(_, ino)| ino)
}

/// Enters a name into a directory: into an empty entry, behind a short one, or into a new block. Blocks before `first` are
/// known to be full; it moves on to the block that is used.
pub(super) fn insert(
    image: &Image,
    checked: &Checked,
    space: &mut Space<'_>,
    dir: u32,
    (name, ino, file_type): (&[u8], u32, u8),
    first: &mut u32,
) -> bool {
    let layout = &checked.volume.layout;
    let Some(inode) = checked.volume.inode_at(dir) else {
        return false;
    };
    let flags = image.le32(inode + field::FLAGS);
    if flags & flag::INDEX != 0 {
        // The index would not lead to the new name; without it, its blocks are valid empty entries.
        image.patch(Patch::word(inode + field::FLAGS, flags & !flag::INDEX));
    }
    let file_type = if layout.filetype() { file_type } else { 0 };
    let need = entry_len(name.len());
    let mut bytes = vec![0; layout.block_size as usize];
    let mut done = false;
    let mut blocks = 0;
    dirs::for_each_block_of(image, &checked.volume, &checked.census, dir, |place| {
        blocks = place.lblk + 1;
        if place.lblk < *first {
            return true;
        }
        *first = place.lblk;
        image.read(layout.at(place.block), &mut bytes);
        let mut offset = 0;
        while let Some(entry) = Entry::parse(&bytes, offset) {
            let used = if entry.ino == 0 {
                0
            } else {
                entry_len(entry.name.len())
            };
            if entry.rec_len >= used + need {
                let at = layout.at(place.block) + offset as u64;
                publish(image, at, used, entry.rec_len, name, ino, file_type);
                done = true;
                return false;
            }
            offset += entry.rec_len;
        }
        true
    });
    if done {
        return true;
    }
    let mut bytes = new_block(layout, None);
    let len = bytes.len();
    put_entry(&mut bytes, 0, ino, len, file_type, &[name, &[0]].concat());
    add_block(image, checked, space, dir, blocks, &bytes)
}

/// Writes the body of an entry into the slack behind `used` bytes, then the one word that makes it visible.
fn publish(
    image: &Image,
    at: u64,
    used: usize,
    rec_len: usize,
    name: &[u8],
    ino: u32,
    file_type: u8,
) {
    let body = at + used as u64;
    let len = rec_len - used;
    image.write(body + 8, name);
    let [low, high] = encode_rec_len(len);
    let name_len = u8::try_from(name.len()).unwrap_or(u8::MAX);
    image.patch(Patch::word(
        body + 4,
        u32::from_le_bytes([low, high, name_len, file_type]),
    ));
    image.patch(Patch::word(body, ino));
    if used != 0 {
        image.patch(Patch::half(at + 4, u16::try_from(used).unwrap_or(u16::MAX)));
    }
}

/// Stores the parent into `..`.
pub(super) fn set_dotdot(image: &Image, checked: &Checked, dir: u32, parent: u32) {
    if let Some(at) = dotdot_at(image, &checked.volume, dir) {
        image.patch(Patch::word(at, parent));
    }
}
