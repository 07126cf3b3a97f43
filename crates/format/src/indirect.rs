//! Indirect addressing as arithmetic: which slots lead to a block of a file.

use crate::{Error, FileBlock, Result};

/// Direct pointers in `i_block`.
pub const DIRECT: u32 = 12;
/// The slot of the single indirect block; double and triple follow.
pub const INDIRECT_SLOT: u32 = 12;
/// Pointers in `i_block`.
pub const SLOTS: u32 = 15;

/// The way from an inode to one block of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreePath {
    /// Indirect blocks on the way: 0 for the direct slots, at most 3.
    pub depth: u32,
    /// `index[0]` is a slot of `i_block`; `index[n]` one of the `n`th indirect block on the way, for `n` up to `depth`.
    pub index: [u32; 4],
    addr_bits: u32,
}

impl TreePath {
    /// The slots on the way, `depth + 1` of them, the one in `i_block` first.
    #[must_use]
    pub fn slots(&self) -> &[u32] {
        self.index
            .get(..=self.depth as usize)
            .unwrap_or(&self.index)
    }

    /// File blocks from this one to the last that the same leaf covers, this one counted. The leaf is the block of
    /// pointers that is looked at last, or the direct part of `i_block`.
    #[must_use]
    pub fn left_in_leaf(&self) -> u32 {
        let last = self.index.get(self.depth as usize).copied().unwrap_or(0);
        let end = if self.depth == 0 {
            DIRECT
        } else {
            1 << self.addr_bits
        };
        end.saturating_sub(last)
    }

    /// File blocks from this one to the last under the pointer at `slots()[level]`, this one counted: the length of a
    /// hole if that pointer is zero. Saturates at `u32::MAX`.
    #[must_use]
    pub fn left_under(&self, level: u32) -> u32 {
        let below = self.depth.saturating_sub(level);
        let mut into = 0_u64;
        for &index in self.slots().iter().skip((level as usize).saturating_add(1)) {
            into = (into << self.addr_bits).saturating_add(u64::from(index));
        }
        u32::try_from(span(below, self.addr_bits).saturating_sub(into)).unwrap_or(u32::MAX)
    }
}

/// File blocks under one pointer with `below` levels of indirect blocks under it: 1 for a pointer to a data block.
#[must_use]
pub const fn span(below: u32, addr_bits: u32) -> u64 {
    1 << below.saturating_mul(addr_bits)
}

/// File blocks that a tree reaches with blocks of `1 << addr_bits` pointers. At 64 KiB a file's `u32` ends before.
#[must_use]
pub const fn reach(addr_bits: u32) -> u64 {
    (DIRECT as u64)
        .saturating_add(span(1, addr_bits))
        .saturating_add(span(2, addr_bits))
        .saturating_add(span(3, addr_bits))
}

/// The way to a block of a file.
///
/// # Errors
/// [`Error::FileTooLarge`] if no tree of this block size reaches so far.
pub const fn path(block: FileBlock, addr_bits: u32) -> Result<TreePath> {
    let mask = (1_u32 << addr_bits).saturating_sub(1);
    if block.0 < DIRECT {
        return Ok(TreePath {
            depth: 0,
            index: [block.0, 0, 0, 0],
            addr_bits,
        });
    }
    let mut rest = block.0.saturating_sub(DIRECT) as u64;
    let mut depth = 1;
    while depth <= 3 {
        if rest < span(depth, addr_bits) {
            let slot = INDIRECT_SLOT.saturating_add(depth).saturating_sub(1);
            // The lowest level's index is the lowest bits, and so on upwards.
            let (low, mid, high) = (
                index_at(rest, 0, mask),
                index_at(rest, addr_bits, mask),
                index_at(rest, addr_bits.saturating_mul(2), mask),
            );
            let index = match depth {
                1 => [slot, low, 0, 0],
                2 => [slot, mid, low, 0],
                _ => [slot, high, mid, low],
            };
            return Ok(TreePath {
                depth,
                index,
                addr_bits,
            });
        }
        rest = rest.saturating_sub(span(depth, addr_bits));
        depth = depth.saturating_add(1);
    }
    Err(Error::FileTooLarge)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the mask leaves fewer than 32 bits"
)]
const fn index_at(rest: u64, shift: u32, mask: u32) -> u32 {
    ((rest >> shift) & mask as u64) as u32
}

/// Indirect blocks of a file without holes that is `blocks` file blocks long.
#[must_use]
pub const fn indirect_blocks(blocks: u64, addr_bits: u32) -> u64 {
    let mut left = blocks.saturating_sub(DIRECT as u64);
    let mut total = 0_u64;
    let mut depth = 1;
    while depth <= 3 && left > 0 {
        let here = if left < span(depth, addr_bits) {
            left
        } else {
            span(depth, addr_bits)
        };
        let mut level = 1;
        while level <= depth {
            total = total.saturating_add(here.div_ceil(span(level, addr_bits)));
            level = level.saturating_add(1);
        }
        left = left.saturating_sub(here);
        depth = depth.saturating_add(1);
    }
    total
}

/// The largest size in bytes that a file is given: the tree's reach, or as many blocks as `i_blocks` can count with their
/// indirect blocks, these reckoned as Linux does, for as many blocks of data as could be counted without any. Up to 512
/// blocks more could be counted, but no Linux driver reads past its own limit.
#[must_use]
pub const fn max_file_size(block_bits: u32) -> u64 {
    let addr_bits = block_bits.saturating_sub(2);
    // i_blocks counts 512-byte sectors in 32 bits.
    let countable = (u32::MAX >> block_bits.saturating_sub(9)) as u64;
    let reach = reach(addr_bits);
    let blocks = if reach.saturating_add(indirect_blocks(reach, addr_bits)) <= countable {
        reach
    } else {
        countable.saturating_sub(indirect_blocks(countable, addr_bits))
    };
    blocks << block_bits
}

/// The largest size in bytes that block pointers reach, counted or not: a sparse file made elsewhere may have it.
#[must_use]
pub const fn addressable_size(block_bits: u32) -> u64 {
    let reach = reach(block_bits.saturating_sub(2));
    let numbered = u32::MAX as u64;
    (if reach < numbered { reach } else { numbered }) << block_bits
}

#[cfg(test)]
mod tests;
