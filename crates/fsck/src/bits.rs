//! Bit maps over blocks and inodes. Threads set bits in them at the same time; a set bit never goes away during a check.

use ext2dax_sync::atomic::{AtomicU64, Ordering};

/// One bit for each number below a limit.
#[derive(Debug)]
pub(crate) struct BitMap {
    words: Vec<AtomicU64>,
    len: u64,
}

impl BitMap {
    pub(crate) fn new(len: u64) -> Self {
        let count = usize::try_from(len.div_ceil(64))
            .expect("a bitmap of 2^32 bits fits the address space");
        Self {
            words: (0..count).map(|_| AtomicU64::new(0)).collect(),
            len,
        }
    }

    fn word(&self, bit: u64) -> Option<(&AtomicU64, u64)> {
        if bit >= self.len {
            return None;
        }
        let word = self.words.get(usize::try_from(bit / 64).ok()?)?;
        Some((word, 1 << (bit % 64)))
    }

    /// Sets the bit and says whether it was set before. Numbers past the limit count as set.
    pub(crate) fn set(&self, bit: u32) -> bool {
        let Some((word, mask)) = self.word(u64::from(bit)) else {
            return true;
        };
        word.fetch_or(mask, Ordering::Relaxed) & mask != 0
    }

    pub(crate) fn test(&self, bit: u32) -> bool {
        let Some((word, mask)) = self.word(u64::from(bit)) else {
            return false;
        };
        word.load(Ordering::Relaxed) & mask != 0
    }

    /// The 64 bits that start at `bit`, which need not be aligned; bits past the limit read as 0.
    pub(crate) fn word64(&self, bit: u64) -> u64 {
        let index = usize::try_from(bit / 64).unwrap_or(usize::MAX);
        let word = |index: usize| {
            self.words
                .get(index)
                .map_or(0, |w| w.load(Ordering::Relaxed))
        };
        match bit % 64 {
            0 => word(index),
            shift => word(index) >> shift | word(index.saturating_add(1)) << (64 - shift),
        }
    }

    /// How many bits are set.
    pub(crate) fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|w| u64::from(w.load(Ordering::Relaxed).count_ones()))
            .sum()
    }

    /// Sets a run of bits and says whether any was set before.
    pub(crate) fn set_run(&self, first: u32, len: u32) -> bool {
        let mut any = false;
        for bit in u64::from(first)..u64::from(first).saturating_add(u64::from(len)) {
            any |= u32::try_from(bit).is_ok_and(|bit| self.set(bit));
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_across_word_boundaries() {
        let map = BitMap::new(200);
        for bit in [0, 7, 60, 63, 64, 66, 199] {
            assert!(!map.set(bit));
            assert!(map.set(bit));
        }
        for start in 0..200 {
            let mut expected = 0;
            for i in 0..64 {
                expected |= u64::from(map.test(start + i)) << i;
            }
            assert_eq!(map.word64(u64::from(start)), expected, "at {start}");
        }
        assert_eq!(map.count(), 7);
    }
}
