//! Free blocks and inodes for a repair.

use crate::Checked;
use crate::census::Kind;
use crate::fix::Patch;
use crate::image::Image;

/// Hands out blocks and inodes that nobody uses. The bit in the image's own bitmap is set before the caller gets the
/// number, so that a kill afterwards leaves at most a leak.
#[derive(Debug)]
pub(super) struct Space<'a> {
    image: &'a Image,
    checked: &'a Checked,
    next: u32,
    taken_inodes: Vec<u32>,
}

impl<'a> Space<'a> {
    pub(super) fn new(image: &'a Image, checked: &'a Checked) -> Self {
        Self {
            image,
            checked,
            next: checked.volume.layout.first_data_block,
            taken_inodes: Vec::new(),
        }
    }

    /// A block that is free by the check and by the bitmap; by the check alone if there is no other.
    pub(super) fn block(&mut self) -> Option<u32> {
        let block = self.unmarked_block()?;
        self.mark(block);
        Some(block)
    }

    /// As [`Self::block`], but its bit is the caller's to set.
    pub(super) fn unmarked_block(&mut self) -> Option<u32> {
        let layout = &self.checked.volume.layout;
        let start = self.next;
        let candidates = (start..layout.blocks).chain(layout.first_data_block..start);
        let unclaimed = |block: &u32| !self.checked.census.claimed.test(*block);
        let block = candidates
            .clone()
            .filter(unclaimed)
            .find(|&block| !self.marked(block))
            .or_else(|| candidates.clone().find(unclaimed))?;
        self.checked.census.claimed.set(block);
        self.next = block + 1;
        Some(block)
    }

    /// Whether so many blocks are free.
    pub(super) fn has(&self, count: usize) -> bool {
        let Checked { volume, census, .. } = self.checked;
        let layout = &volume.layout;
        let mut free = 0;
        for bit in (u64::from(layout.first_data_block)..u64::from(layout.blocks)).step_by(64) {
            let rest = u64::from(layout.blocks) - bit;
            let outside = if rest < 64 { u64::MAX << rest } else { 0 };
            free += (!(census.claimed.word64(bit) | outside)).count_ones() as usize;
            if free >= count {
                return true;
            }
        }
        false
    }

    fn bit_at(&self, block: u32) -> Option<(u64, u8)> {
        let volume = &self.checked.volume;
        let group = volume.layout.group_of_block(block);
        let bitmap = volume.places.get(group as usize)?.block_bitmap;
        let bit = block.checked_sub(volume.layout.group_first(group))?;
        (bitmap != 0 && !self.is_claimed(bitmap)).then(|| {
            (
                volume.layout.at(bitmap) + u64::from(bit / 8),
                1 << (bit % 8),
            )
        })
    }

    /// Whether a file claims the bitmap's block: until it has a copy of its own, what stands there is the file's. Pass 5
    /// writes the bits afterwards.
    fn is_claimed(&self, bitmap: u32) -> bool {
        self.checked.census.shared.test(bitmap)
    }

    fn marked(&self, block: u32) -> bool {
        self.bit_at(block)
            .is_some_and(|(at, mask)| self.image.byte(at) & mask != 0)
    }

    /// Sets the block's bit.
    pub(super) fn mark(&self, block: u32) {
        if let Some((at, mask)) = self.bit_at(block) {
            self.image
                .patch(Patch::byte(at, self.image.byte(at) | mask));
        }
    }

    /// A free inode that is not reserved.
    pub(super) fn inode(&mut self) -> Option<u32> {
        let Checked { volume, census, .. } = self.checked;
        let layout = &volume.layout;
        let ino = (layout.first_ino..=layout.inodes).find(|&ino| {
            census.kind(ino) == Kind::FREE
                && volume.inode_at(ino).is_some()
                && !self.taken_inodes.contains(&ino)
        })?;
        self.taken_inodes.push(ino);
        let group = layout.group_of_ino(ino);
        let bitmap = volume.places.get(group as usize)?.inode_bitmap;
        if bitmap != 0 && !self.is_claimed(bitmap) {
            let bit = (ino - 1) % layout.inodes_per_group;
            let at = layout.at(bitmap) + u64::from(bit / 8);
            self.image
                .patch(Patch::byte(at, self.image.byte(at) | 1 << (bit % 8)));
        }
        Some(ino)
    }
}
