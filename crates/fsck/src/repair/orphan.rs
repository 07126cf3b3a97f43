//! Completing the removals and truncations of the orphan list.

use super::inode::with_subject;
use crate::Checked;
use crate::fix::Patch;
use crate::image::Image;
use crate::layout::{Layout, SUPER_AT};
use crate::scan::{Subject, field, now};

/// Takes the members off the list from its tail on, each after its removal or truncation is complete.
pub(super) fn complete(image: &Image, checked: &Checked) {
    let volume = &checked.volume;
    let head = SUPER_AT + 232;
    let mut links = vec![head];
    let mut members = Vec::new();
    let mut next = image.le32(head);
    while let Some(at) = volume.inode_at(next) {
        if members.len() as u64 > u64::from(volume.layout.inodes) {
            break;
        }
        members.push(next);
        links.push(at + field::DTIME);
        next = image.le32(at + field::DTIME);
    }
    for (&ino, &link) in members.iter().zip(&links).rev() {
        let Some(at) = volume.inode_at(ino) else {
            continue;
        };
        let dead = image.le16(at + field::LINKS) == 0;
        if !dead {
            let _ = with_subject(image, checked, ino, |subject| {
                truncate(image, &volume.layout, subject)
            });
        }
        // Off the list first: a member with the time of its death would lead the list astray.
        image.patch(Patch::word(link, 0));
        if dead {
            image.patch(Patch::word(
                at + field::DTIME,
                now().max(volume.layout.inodes),
            ));
        }
    }
}

/// Cuts an inode to its size: pointers past the end go, and the end of the last block is zeroed.
fn truncate(image: &Image, layout: &Layout, subject: &Subject<'_>) {
    if !subject.has_blocks() {
        return;
    }
    let size = u64::from(layout.block_size);
    let keep = subject.size().div_ceil(size);
    let map = subject.at + field::BLOCK;
    cut_from(image, layout, map, keep);
    let tail = subject.size() % size;
    if tail != 0
        && let Some(block) = lookup(image, layout, map, keep - 1)
    {
        let zeros = vec![0; usize::try_from(size - tail).unwrap_or(0)];
        image.write(layout.at(block) + tail, &zeros);
    }
}

/// Clears all pointers of a map from block `keep` of the file on, the last ones first, so that no hole comes to be.
pub(super) fn cut_from(image: &Image, layout: &Layout, map: u64, keep: u64) {
    let n = u64::from(layout.addrs());
    let mut tops = [(0, 0_u64); 15];
    let mut first = 0;
    for (i, top) in (0_u32..).zip(&mut tops) {
        let level = i.saturating_sub(11);
        *top = (level, first);
        first += n.pow(level);
    }
    for (i, (level, first)) in (0_u32..15).zip(tops).rev() {
        cut(image, layout, map + u64::from(i) * 4, level, first, keep);
    }
}

/// Clears the pointer at `at` if everything behind it lies past the end, else looks below it.
fn cut(image: &Image, layout: &Layout, at: u64, level: u32, first: u64, keep: u64) {
    let block = image.le32(at);
    let span = u64::from(layout.addrs()).pow(level);
    if block == 0 || first + span <= keep {
        return;
    }
    if first >= keep {
        image.patch(Patch::word(at, 0));
        return;
    }
    if level > 0 && layout.holds(block) {
        let below = span / u64::from(layout.addrs());
        for i in (0..u64::from(layout.addrs())).rev() {
            cut(
                image,
                layout,
                layout.at(block) + i * 4,
                level - 1,
                first + i * below,
                keep,
            );
        }
    }
}

/// The block behind block `lblk` of the file whose map starts at `map`.
pub(super) fn lookup(image: &Image, layout: &Layout, map: u64, lblk: u64) -> Option<u32> {
    let block = image.le32(slot(image, layout, map, lblk)?);
    layout.holds(block).then_some(block)
}

/// Byte offset of the pointer to block `lblk` of the file whose map starts at `map`, if the blocks above it are there.
pub(super) fn slot(image: &Image, layout: &Layout, map: u64, lblk: u64) -> Option<u64> {
    let n = u64::from(layout.addrs());
    let (mut at, mut rest, mut level) = match lblk {
        0..12 => (map + lblk * 4, 0, 0),
        _ if lblk - 12 < n => (map + 48, lblk - 12, 1),
        _ if lblk - 12 - n < n * n => (map + 52, lblk - 12 - n, 2),
        _ => (map + 56, lblk.checked_sub(12 + n + n * n)?, 3_u32),
    };
    loop {
        let Some(below) = level.checked_sub(1) else {
            return Some(at);
        };
        let block = image.le32(at);
        if !layout.holds(block) {
            return None;
        }
        level = below;
        let span = n.pow(level);
        at = layout.at(block) + rest / span * 4;
        rest %= span;
    }
}
