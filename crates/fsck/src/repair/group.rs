//! Repairs of the superblock, the descriptors and the groups' tables.

use super::space::Space;
use crate::Checked;
use crate::finding::Finding;
use crate::fix::Patch;
use crate::image::Image;
use crate::layout::{Layout, SUPER_AT};
use crate::open::{Metadata, Volume, load, looks_like_table};
use crate::problem::Code;
use crate::scan::now;

const RESIZE_INO: u32 = 7;

/// Writes the backup that was read over the primary descriptors and, if it is unusable, the primary superblock.
pub(super) fn restore_backup(image: &Image, volume: &Volume) -> bool {
    let layout = &volume.layout;
    if volume.copy == 0 {
        return false;
    }
    for group in 0..layout.groups {
        let mut desc = [0_u8; 32];
        image.read(layout.desc_at(group, volume.copy), &mut desc);
        image.write(layout.desc_at(group, 0), &desc);
    }
    // The primary superblock may be what leads to the wrong descriptors.
    let fits = Layout::new(&image.value(SUPER_AT), image.len())
        .is_ok_and(|primary| load(image, SUPER_AT, 0, primary).1.is_empty());
    if !fits {
        let mut sb = volume.sb;
        sb.s_block_group_nr = 0.into();
        // Not valid before the repair has ended.
        sb.s_state = (sb.s_state.get() & !1).into();
        image.write(SUPER_AT, zerocopy::IntoBytes::as_bytes(&sb));
    }
    true
}

/// Writes superblock and descriptors over every backup, so that the next who needs one finds the state of today.
pub(super) fn write_backups(image: &Image, volume: &Volume) {
    let layout = &volume.layout;
    let primary: ext2dax_format::RawSuperblock = image.value(SUPER_AT);
    for backup in (1..layout.groups).filter(|&group| layout.has_super(group)) {
        for group in 0..layout.groups {
            let (from, to) = (layout.desc_at(group, 0), layout.desc_at(group, backup));
            if from != to {
                let mut desc = [0_u8; 32];
                image.read(from, &mut desc);
                image.write(to, &desc);
            }
        }
        let mut sb = primary;
        sb.s_block_group_nr = u16::try_from(backup).unwrap_or(u16::MAX).into();
        image.write(
            layout.at(layout.group_first(backup)),
            zerocopy::IntoBytes::as_bytes(&sb),
        );
    }
}

/// Finds a place for a bitmap or an inode table that has none.
pub(super) fn place(image: &Image, checked: &Checked, finding: &Finding) -> bool {
    let Some(group) = finding.group else {
        return false;
    };
    let layout = &checked.volume.layout;
    let (field, count) = match finding.code {
        Code::GroupBlockBitmap => (0, 1),
        Code::GroupInodeBitmap => (4, 1),
        _ => (8, layout.table_blocks),
    };
    let first = layout.group_first(group);
    let end = first.saturating_add(layout.group_len(group));
    let mut runs = (first..end.saturating_sub(count.saturating_sub(1))).filter(|&start| {
        (start..start.saturating_add(count)).all(|block| !checked.census.claimed.test(block))
    });
    let at = layout.desc_at(group, 0) + field;
    if finding.code == Code::GroupInodeTable {
        // The table itself may still be there, and only the descriptor be wrong: then nothing is lost at all.
        let kept = runs
            .clone()
            .take(4096)
            .find(|&start| looks_like_table(image, layout, group, start));
        if let Some(start) = kept {
            image.patch(Patch::word(at, start));
            return true;
        }
    }
    let Some(start) = runs.next() else {
        return false;
    };
    for block in start..start.saturating_add(count) {
        checked.census.claimed.set(block);
        image.write(layout.at(block), &vec![0; layout.block_size as usize]);
    }
    image.patch(Patch::word(at, start));
    true
}

/// Moves a bitmap or an inode table away from a bad block. The copy is whole before the descriptor leads to it.
pub(super) fn move_away(
    image: &Image,
    checked: &Checked,
    space: &Space<'_>,
    finding: &Finding,
    what: Metadata,
) -> bool {
    let layout = &checked.volume.layout;
    let group = finding.group.unwrap_or(0);
    let Some(places) = checked.volume.places.get(group as usize) else {
        return false;
    };
    let (field, from, count) = match what {
        Metadata::BlockBitmap => (0, places.block_bitmap, 1),
        Metadata::InodeBitmap => (4, places.inode_bitmap, 1),
        Metadata::InodeTable => (8, places.inode_table, layout.table_blocks),
        Metadata::Primary | Metadata::Backup => return false,
    };
    let at = layout.desc_at(group, 0) + field;
    if image.le32(at) != from {
        // Another of its blocks was on the list, too: it has moved.
        return true;
    }
    let first = layout.group_first(group);
    let end = first.saturating_add(layout.group_len(group));
    let is_free = |block: u32| !checked.census.claimed.test(block);
    let to = (first..end.saturating_sub(count.saturating_sub(1)))
        .find(|&start| (start..start.saturating_add(count)).all(is_free));
    let Some(to) = to else {
        return false;
    };
    let mut bytes = vec![0; layout.block_size as usize];
    for i in 0..count {
        checked.census.claimed.set(to + i);
        space.mark(to + i);
        image.read(layout.at(from + i), &mut bytes);
        image.write(layout.at(to + i), &bytes);
    }
    image.patch(Patch::word(at, to));
    true
}

/// Makes the resize inode again: one double indirect block over the reserved descriptor blocks, each of which lists its
/// own backups.
pub(super) fn make_resize_inode(image: &Image, checked: &Checked, space: &mut Space<'_>) -> bool {
    let layout = &checked.volume.layout;
    let Some(at) = checked.volume.inode_at(RESIZE_INO) else {
        return false;
    };
    let Some(double) = space.block() else {
        return false;
    };
    let zeros = vec![0; layout.block_size as usize];
    let n = layout.addrs();
    let mut map = zeros.clone();
    let mut blocks = 1_u32;
    for i in 0..layout.reserved_gdt {
        let reserved = layout.first_data_block + 1 + layout.desc_blocks + i;
        let mut list = zeros.clone();
        let backups = (1..layout.groups)
            .filter(|&group| layout.has_super(group))
            .take(n as usize);
        for (slot, group) in (0_u32..).zip(backups) {
            put_word(
                &mut list,
                slot,
                reserved.saturating_add(group.saturating_mul(layout.blocks_per_group)),
            );
            blocks += 1;
        }
        image.write(layout.at(reserved), &list);
        put_word(&mut map, (layout.desc_blocks + i) % n, reserved);
        blocks += 1;
    }
    image.write(layout.at(double), &map);
    let mut raw = ext2dax_format::RawInode::default();
    let n = u64::from(n);
    let size = (12 + n + n * n) << (10 + layout.block_log);
    raw.i_mode = 0o100_600.into();
    raw.i_links_count = 1.into();
    raw.i_size = crate::layout::saturate(size & 0xFFFF_FFFF).into();
    raw.i_size_high = crate::layout::saturate(size >> 32).into();
    raw.i_blocks = blocks.saturating_mul(layout.block_size / 512).into();
    raw.i_block[13] = double.into();
    for time in [&mut raw.i_atime, &mut raw.i_ctime, &mut raw.i_mtime] {
        *time = now().into();
    }
    image.write(at, zerocopy::IntoBytes::as_bytes(&raw));
    true
}

fn put_word(bytes: &mut [u8], slot: u32, value: u32) {
    let at = slot as usize * 4;
    if let Some(word) = bytes.get_mut(at..at + 4) {
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// Writes both bitmaps of a group from what the check counted, word by word where they differ.
pub(super) fn write_bitmaps(image: &Image, checked: &Checked, group: u32) {
    let layout = &checked.volume.layout;
    let Some(places) = checked.volume.places.get(group as usize) else {
        return;
    };
    let first = u64::from(layout.group_first(group));
    let first_ino = layout.first_ino_of(group);
    if places.block_bitmap != 0 {
        let used = |bit: u32| checked.census.claimed.word64(first + u64::from(bit));
        write_bitmap(
            image,
            checked,
            places.block_bitmap,
            layout.group_len(group),
            &used,
        );
    }
    if places.inode_bitmap != 0 {
        let used = |bit: u32| {
            checked
                .census
                .inodes
                .used_word(first_ino.saturating_add(bit))
        };
        write_bitmap(
            image,
            checked,
            places.inode_bitmap,
            layout.inodes_per_group,
            &used,
        );
    }
}

fn write_bitmap(image: &Image, checked: &Checked, block: u32, len: u32, used: &dyn Fn(u32) -> u64) {
    let layout = &checked.volume.layout;
    for bit in (0..layout.block_size * 8).step_by(64) {
        let padding = match len.saturating_sub(bit) {
            0 => u64::MAX,
            n @ 1..64 => u64::MAX << n,
            _ => 0,
        };
        let word = if padding == u64::MAX {
            u64::MAX
        } else {
            used(bit) | padding
        };
        let at = layout.at(block) + u64::from(bit / 8);
        for (half, at) in [(word & 0xFFFF_FFFF, at), (word >> 32, at + 4)] {
            let half = crate::layout::saturate(half);
            if image.le32(at) != half {
                image.patch(Patch::word(at, half));
            }
        }
    }
}
