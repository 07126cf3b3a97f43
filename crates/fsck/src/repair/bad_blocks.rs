//! The list of bad blocks, inode 1: blocks that nobody may use because the medium cannot keep them.
//!
//! On disk: *The Second Extended File System*, "Reserved inodes"; what e2fsck -l leaves was read back in our tests.

use ext2dax_pmem::Pmem;
use hashbrown::HashSet;

use super::space::Space;
use super::{clear_valid, inode::with_subject, may_repair};
use crate::census::Kind;
use crate::fix::Patch;
use crate::image::Image;
use crate::layout::{Layout, SUPER_AT, saturate};
use crate::scan::{Slot, TreeWalk, Visit, field, now};
use crate::{CheckOptions, Checked, Error, check_image};

const BAD_INO: u32 = 1;
/// Direct pointers of an inode.
const DIRECT: usize = 12;

/// Blocks for the list of bad blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadBlocks {
    /// Numbers of file-system blocks, in any order.
    pub blocks: Vec<u64>,
    /// They are the whole list from now on; otherwise they join those that are on it.
    pub replace: bool,
}

/// What became of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Blocks that were on it.
    pub before: usize,
    /// Blocks that are on it.
    pub after: usize,
    /// Numbers that are none of a block of the file system; they were left out.
    pub ignored: Vec<u64>,
}

/// Writes the list of bad blocks. Nothing else changes: a repair has to follow, which moves what lies on a listed block and
/// says that the file system is valid again.
///
/// Shape: the list is cut pointer by pointer, then the new one grows pointer by pointer. A kill in between leaves a part of
/// the list, and blocks that are marked and used by nobody.
///
/// # Errors
/// As [`crate::repair()`]; there is no room for the list's own blocks, or the primary superblock has to be repaired first.
pub fn list_bad_blocks(
    pmem: &Pmem,
    options: &CheckOptions,
    list: &BadBlocks,
) -> Result<Listed, Error> {
    let image = Image::new(pmem.clone()).saved_to(options.undo.clone());
    let listed = write_list(&image, options, list);
    image.finish_undo()?;
    listed
}

fn write_list(image: &Image, options: &CheckOptions, list: &BadBlocks) -> Result<Listed, Error> {
    let checked = check_image(image, options)?;
    may_repair(image, &checked)?;
    let layout = &checked.volume.layout;
    let old = Owned::of(image, &checked);
    let (mut new, ignored): (Vec<u64>, Vec<u64>) = list
        .blocks
        .iter()
        .copied()
        .partition(|&block| u32::try_from(block).is_ok_and(|block| layout.holds(block)));
    if !list.replace {
        new.extend(old.listed.iter().copied().map(u64::from));
    }
    let mut new: Vec<u32> = new.into_iter().map(saturate).collect();
    new.sort_unstable();
    new.dedup();
    let listed = Listed {
        before: old.listed.len(),
        after: new.len(),
        ignored,
    };
    if new == old.listed {
        return Ok(listed);
    }
    let at = checked.volume.inode_at(BAD_INO).ok_or(Error::BadBlocks)?;
    if checked.volume.copy != 0 || !Image::is_primary(checked.volume.sb_at) {
        return Err(Error::BadBlocks);
    }
    // Neither the list's own blocks nor what a repair allocates may lie on a bad one.
    for &block in &new {
        checked.census.claimed.set(block);
    }
    let mut space = Space::new(image, &checked);
    let count = tree_blocks(layout, new.len());
    if !space.has(count) {
        return Err(Error::BadBlocks);
    }
    clear_valid(image, &checked);
    let mut used: Vec<u32> = new.clone();
    let mut tree = Tree {
        image,
        layout,
        space: &mut space,
        used: &mut used,
    };
    let map = tree.build(&new).ok_or(Error::BadBlocks)?;
    let marks = Marks {
        image,
        checked: &checked,
    };
    for &block in &used {
        marks.set(block, true);
    }
    for i in (0..15).rev() {
        image.patch(Patch::word(at + field::BLOCK + i * 4, 0));
    }
    let size = new.len() as u64 * u64::from(layout.block_size);
    let sectors = used.len() as u64 * u64::from(layout.block_size / 512);
    for (offset, value) in [
        (field::SIZE, saturate(size & 0xFFFF_FFFF)),
        (field::SIZE_HIGH, saturate(size >> 32)),
        (field::BLOCKS, saturate(sectors)),
        (field::ATIME, now()),
        (field::MTIME, now()),
    ] {
        image.patch(Patch::word(at + offset, value));
    }
    for (i, block) in (0..).zip(map) {
        image.patch(Patch::word(at + field::BLOCK + i * 4, block));
    }
    let kept: HashSet<u32> = used.into_iter().collect();
    for block in old.listed.into_iter().chain(old.indirect) {
        if !kept.contains(&block) && !checked.census.shared.test(block) {
            marks.set(block, false);
        }
    }
    Ok(listed)
}

/// What inode 1 owns: the blocks on the list, in order, and those that hold the list.
#[derive(Default)]
struct Owned {
    listed: Vec<u32>,
    indirect: Vec<u32>,
}

impl Owned {
    fn of(image: &Image, checked: &Checked) -> Self {
        let mut owned = Self::default();
        let shared = checked.census.has_shared();
        let _ = with_subject(image, checked, BAD_INO, |subject| {
            let mut findings = Vec::new();
            let mut walk = TreeWalk::new(subject, Kind::REGULAR, &mut findings);
            walk.is_bad_blocks = true;
            walk.run(&mut |_, slot: Slot| {
                match slot.level {
                    0 => owned.listed.push(slot.block),
                    _ => owned.indirect.push(slot.block),
                }
                if shared { Visit::Again } else { Visit::Claimed }
            });
        });
        owned.listed.sort_unstable();
        owned.listed.dedup();
        owned
    }
}

/// How many indirect blocks a list of so many blocks needs, or a few more.
fn tree_blocks(layout: &Layout, len: usize) -> usize {
    let n = layout.addrs() as usize;
    let leaves = len.saturating_sub(DIRECT).div_ceil(n);
    leaves + leaves.div_ceil(n) + 3
}

/// The block map in the making.
struct Tree<'a, 's> {
    image: &'a Image,
    layout: &'a Layout,
    space: &'a mut Space<'s>,
    used: &'a mut Vec<u32>,
}

impl Tree<'_, '_> {
    fn build(&mut self, list: &[u32]) -> Option<[u32; 15]> {
        let mut map = [0; 15];
        let mut rest = list.iter().copied();
        for (slot, block) in map.iter_mut().take(DIRECT).zip(rest.by_ref().take(DIRECT)) {
            *slot = block;
        }
        for (level, slot) in (1..).zip(map.iter_mut().skip(DIRECT)) {
            *slot = self.below(level, &mut rest)?;
        }
        Some(map)
    }

    /// An indirect block over the next blocks of the list; 0 if there are none left.
    fn below(
        &mut self,
        level: u8,
        rest: &mut (impl ExactSizeIterator<Item = u32> + Clone),
    ) -> Option<u32> {
        if rest.len() == 0 {
            return Some(0);
        }
        let block = self.space.unmarked_block()?;
        self.used.push(block);
        let mut bytes = vec![0; self.layout.block_size as usize];
        for word in bytes.chunks_exact_mut(4) {
            let value = match level {
                1 => rest.next().unwrap_or(0),
                _ => self.below(level - 1, rest)?,
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
        self.image.write(self.layout.at(block), &bytes);
        Some(block)
    }
}

/// Bits of the block bitmaps, with the counts that belong to them.
struct Marks<'a> {
    image: &'a Image,
    checked: &'a Checked,
}

impl Marks<'_> {
    fn set(&self, block: u32, used: bool) {
        let (image, layout) = (self.image, &self.checked.volume.layout);
        let group = layout.group_of_block(block);
        let Some(places) = self.checked.volume.places.get(group as usize) else {
            return;
        };
        let Some(bit) = block.checked_sub(layout.group_first(group)) else {
            return;
        };
        if places.block_bitmap == 0 {
            return;
        }
        let at = layout.at(places.block_bitmap) + u64::from(bit / 8);
        let (byte, mask) = (image.byte(at), 1 << (bit % 8));
        if (byte & mask != 0) == used {
            return;
        }
        image.patch(Patch::byte(at, byte ^ mask));
        let free_at = layout.desc_at(group, 0) + 12;
        let (in_group, in_all) = (image.le16(free_at), image.le32(SUPER_AT + 12));
        let (in_group, in_all) = match used {
            true => (in_group.saturating_sub(1), in_all.saturating_sub(1)),
            false => (in_group.saturating_add(1), in_all.saturating_add(1)),
        };
        image.patch(Patch::half(free_at, in_group));
        image.patch(Patch::word(SUPER_AT + 12, in_all));
    }
}
