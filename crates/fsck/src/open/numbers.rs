//! Numbers of a superblock that the rest of the image contradicts, and what they have to be.

use ext2dax_format::RawSuperblock;

use super::image_word;
use crate::image::Image;
use crate::layout::{Layout, feature};

/// The count of all inodes and the inodes of a group contradict each other. If the first inode bitmap is padded from where
/// the count of all would have it, that is right: to believe the other number is to take files for an inode table.
pub(super) fn right_inodes_per_group(image: &Image, sb: &RawSuperblock) -> Option<(u32, Layout)> {
    let (blocks, first) = (sb.s_blocks_count.get(), sb.s_first_data_block.get());
    let groups = blocks
        .checked_sub(first)?
        .div_ceil(sb.s_blocks_per_group.get());
    let count = sb.s_inodes_count.get();
    let right = count.checked_div(groups)?;
    if right.checked_mul(groups)? != count {
        return None;
    }
    let mut candidate = *sb;
    candidate.s_inodes_per_group = right.into();
    let layout = Layout::new(&candidate, image.len()).ok()?;
    let bitmap = image_word(image, &layout, layout.desc_at(0, 0) + 4);
    if !layout.holds(bitmap) {
        return None;
    }
    let mut bytes = vec![0; layout.block_size as usize];
    image.read(layout.at(bitmap), &mut bytes);
    let padded = |from: u32| {
        let rest = bytes.get(from as usize / 8..).unwrap_or_default();
        rest.iter().all(|&byte| byte == 0xFF)
    };
    let before = padded(right.saturating_sub(8));
    (padded(right) && !before).then_some((right, layout))
}

/// The superblock reserves so many descriptor blocks that they meet the groups' own blocks. If the resize inode, which owns
/// them, has fewer, and those meet nothing, it is right: to believe the superblock is to move a whole inode table away.
pub(super) fn right_reserved(image: &Image, layout: &Layout, copy: u32) -> Option<u32> {
    if layout.reserved_gdt == 0 || layout.incompat & feature::INCOMPAT_META_BG != 0 {
        return None;
    }
    let mut room = layout.reserved_gdt;
    for group in (0..layout.groups).filter(|&group| layout.has_super(group)) {
        let first = layout.group_first(group);
        let table = first.saturating_add(1 + layout.desc_blocks);
        let at = layout.desc_at(group, copy);
        for block in [0, 4, 8].map(|field| image_word(image, layout, at + field)) {
            if (table..first.saturating_add(layout.group_len(group))).contains(&block) {
                room = room.min(block - table);
            }
        }
    }
    if room == layout.reserved_gdt {
        return None;
    }
    let inodes = image_word(image, layout, layout.desc_at(0, copy) + 8);
    if !layout.holds(inodes)
        || !layout.holds(inodes.saturating_add(6 * layout.inode_size / layout.block_size))
    {
        return None;
    }
    let resize = image.inode(layout.at(inodes) + 6 * u64::from(layout.inode_size));
    let double = resize.i_block[13].get();
    if !layout.holds(double) {
        return None;
    }
    let reserved = layout.first_data_block + 1 + layout.desc_blocks;
    let slot = |i: u32| {
        let slot = (layout.desc_blocks + i) % layout.addrs();
        image.le32(layout.at(double) + u64::from(slot) * 4)
    };
    let right = (0..=room).take_while(|&i| slot(i) == reserved + i).count();
    let right = u32::try_from(right).ok()?;
    (right <= room && slot(right) == 0).then_some(right)
}
