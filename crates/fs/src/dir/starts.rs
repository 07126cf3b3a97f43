//! Where entries begin, as a bit map.
//!
//! A directory block is a singly linked list. Taking an entry out lengthens the one before it, and finding that one by
//! walking costs thousands of steps in a block of 64 KiB. One bit for each four bytes answers in a few.

use alloc::vec::Vec;

/// A bit for each possible start of an entry, in every block of a directory.
#[derive(Debug)]
pub(super) struct Starts {
    bits: Vec<u64>,
    words_per_block: usize,
}

/// Bytes of a directory block that one word of the map covers.
const BYTES_PER_WORD: u32 = 4 * u64::BITS;

impl Starts {
    pub(super) fn new(block_size: u32) -> Self {
        Self {
            bits: Vec::new(),
            words_per_block: (block_size / BYTES_PER_WORD) as usize,
        }
    }

    pub(super) fn push_block(&mut self) {
        self.bits.resize(self.bits.len() + self.words_per_block, 0);
    }

    fn word(&self, block: u32, offset: u32) -> usize {
        block as usize * self.words_per_block + (offset / BYTES_PER_WORD) as usize
    }

    fn bit(offset: u32) -> u64 {
        1 << (offset / 4 % u64::BITS)
    }

    pub(super) fn set(&mut self, block: u32, offset: u32) {
        let word = self.word(block, offset);
        self.bits[word] |= Self::bit(offset);
    }

    pub(super) fn clear(&mut self, block: u32, offset: u32) {
        let word = self.word(block, offset);
        self.bits[word] &= !Self::bit(offset);
    }

    /// The last start before `offset` in `block`.
    pub(super) fn before(&self, block: u32, offset: u32) -> Option<u32> {
        let first = self.word(block, 0);
        let mut word = self.word(block, offset);
        let mut bits = self.bits[word] & (Self::bit(offset) - 1);
        while bits == 0 {
            if word == first {
                return None;
            }
            word -= 1;
            bits = self.bits[word];
        }
        Some(self.offset(word - first, 63 - bits.leading_zeros()))
    }

    /// The first start at or behind `offset` in `block`.
    pub(super) fn at_or_after(&self, block: u32, offset: u32) -> Option<u32> {
        let first = self.word(block, 0);
        let end = first + self.words_per_block;
        let mut word = self.word(block, offset);
        if word >= end {
            return None;
        }
        let mut bits = self.bits[word] & !(Self::bit(offset) - 1);
        while bits == 0 {
            word += 1;
            if word == end {
                return None;
            }
            bits = self.bits[word];
        }
        Some(self.offset(word - first, bits.trailing_zeros()))
    }

    fn offset(&self, word_in_block: usize, bit: u32) -> u32 {
        let word = u32::try_from(word_in_block).expect("a block has at most 256 words");
        word * BYTES_PER_WORD + bit * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_found_across_words_and_not_across_blocks() {
        for block_size in [1024, 4096, 65_536] {
            let mut starts = Starts::new(block_size);
            starts.push_block();
            starts.push_block();
            for offset in [0, 12, 252, 256, 520, block_size - 12] {
                starts.set(1, offset);
            }
            starts.set(0, block_size - 12);
            let before = |offset| starts.before(1, offset);
            assert_eq!(before(0), None, "the block before does not count");
            assert_eq!(
                (before(12), before(16), before(256), before(520)),
                (Some(0), Some(12), Some(252), Some(256))
            );
            assert_eq!(before(block_size - 12), Some(520));
            assert_eq!(starts.at_or_after(1, 13 & !3), Some(12));
            assert_eq!(starts.at_or_after(1, 16), Some(252));
            assert_eq!(starts.at_or_after(1, 524), Some(block_size - 12));
            assert_eq!(starts.at_or_after(1, block_size - 8), None);
            assert_eq!(starts.at_or_after(1, block_size), None);
            starts.clear(1, 252);
            assert_eq!(starts.before(1, 256), Some(12));
        }
    }
}
