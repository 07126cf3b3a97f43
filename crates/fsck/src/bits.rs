//! Bit maps over blocks and inodes. Threads set bits in them at the same time; a set bit never goes away during a check.

use std::io;

use ext2dax_pmem::{AnonRegion, Off, Pmem};
use zerocopy::IntoBytes as _;
use zerocopy::little_endian::U64;

use crate::Error;

/// `len` zeroes. The system hands out zero pages, and gives each its memory when it is first written: what is never used
/// costs nothing.
///
/// # Errors
/// There is not so much memory.
pub(crate) fn zeroed<T: zerocopy::FromZeros>(len: u64) -> Result<Vec<T>, Error> {
    let needed = len.saturating_mul(size_of::<T>() as u64);
    let count = usize::try_from(len).map_err(|_| Error::NoMemory { needed })?;
    T::new_vec_zeroed(count).map_err(|_| Error::NoMemory { needed })
}

/// One bit for each number below a limit.
#[derive(Debug)]
pub(crate) struct BitMap {
    words: Pmem,
    len: u64,
}

impl BitMap {
    /// For bits of which some are set, or none.
    pub(crate) fn new(len: u64) -> Result<Self, Error> {
        Self::with(len, AnonRegion::new)
    }

    /// For bits that are set here and there all over.
    pub(crate) fn spread(len: u64) -> Result<Self, Error> {
        Self::with(len, AnonRegion::with_large_pages)
    }

    fn with(len: u64, region: impl Fn(u64) -> io::Result<AnonRegion>) -> Result<Self, Error> {
        let needed = len.div_ceil(64) * 8;
        let region = region(needed).map_err(|_| Error::NoMemory { needed })?;
        let words = Pmem::new(region);
        Ok(Self { words, len })
    }

    #[inline]
    fn word(&self, bit: u64) -> Option<(Off<U64>, u64)> {
        (bit < self.len).then(|| (Off::new(bit / 64 * 8), 1 << (bit % 64)))
    }

    /// Sets the bit and says whether it was set before. Numbers past the limit count as set.
    #[inline]
    pub(crate) fn set(&self, bit: u32) -> bool {
        let Some((word, mask)) = self.word(u64::from(bit)) else {
            return true;
        };
        self.words.or_word(word, mask) & mask != 0
    }

    pub(crate) fn test(&self, bit: u32) -> bool {
        let Some((word, mask)) = self.word(u64::from(bit)) else {
            return false;
        };
        self.words.load(word).get() & mask != 0
    }

    /// The 64 bits that start at `bit`, which need not be aligned; bits past the limit read as 0.
    #[inline]
    pub(crate) fn word64(&self, bit: u64) -> u64 {
        let word = |bit: u64| match self.word(bit) {
            Some((word, _)) => self.words.load(word).get(),
            None => 0,
        };
        match bit % 64 {
            0 => word(bit),
            shift => word(bit - shift) >> shift | word(bit - shift + 64) << (64 - shift),
        }
    }

    /// The bits from `first` on, as many as there is room for; bits past the limit read as 0.
    pub(crate) fn copy(&self, first: u32, to: &mut [U64]) {
        let start = u64::from(first) / 64 * 8;
        let there = self.words.len().saturating_sub(start) / 8;
        let count = to.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        let (words, past) = to.split_at_mut(count);
        self.words.read(start, words.as_mut_bytes());
        past.fill(U64::ZERO);
        let shift = first % 64;
        if shift != 0 {
            let next = self.word64((start + 8 * words.len() as u64) * 8);
            let mut rest = &mut *words;
            while let [word, behind @ ..] = rest {
                let next = behind.first().map_or(next, |next| next.get());
                word.set(word.get() >> shift | next << (64 - shift));
                rest = behind;
            }
        }
    }

    /// Sets a run of bits below the limit, a word at a time, and shows `met` the words in which some were set before:
    /// the number of the first bit of the word, and those bits.
    #[inline]
    pub(crate) fn set_run(&self, first: u32, len: u32, mut met: impl FnMut(u64, u64)) {
        let mut bit = u64::from(first);
        let end = bit.saturating_add(u64::from(len)).min(self.len);
        while bit < end {
            let start = bit % 64;
            let count = (64 - start).min(end - bit);
            let mask = (u64::MAX >> (64 - count)) << start;
            if let Some((word, _)) = self.word(bit) {
                let before = self.words.or_word(word, mask) & mask;
                if before != 0 {
                    met(bit - start, before);
                }
            }
            bit += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_across_word_boundaries() {
        let map = BitMap::new(200).expect("25 bytes");
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
    }

    #[test]
    fn runs_set_exactly_their_bits_and_tell_which_were_set() {
        for first in 0..140 {
            for len in 0..140 {
                let map = BitMap::new(250).expect("32 bytes");
                let there = [3, 63, 64, 100, 127, 128, 200];
                for bit in there {
                    map.set(bit);
                }
                let mut met = Vec::new();
                map.set_run(first, len, |at, bits| {
                    met.extend(
                        (0..64_u32)
                            .filter(|i| bits >> i & 1 != 0)
                            .map(|i| at + u64::from(i)),
                    );
                });
                let run = first..(first + len).min(250);
                let expected: Vec<u64> = there
                    .into_iter()
                    .filter(|bit| run.contains(bit))
                    .map(u64::from)
                    .collect();
                assert_eq!(met, expected, "{first} + {len}");
                for bit in 0..250 {
                    assert_eq!(
                        map.test(bit),
                        run.contains(&bit) || there.contains(&bit),
                        "{first} + {len}: {bit}"
                    );
                }
            }
        }
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        assert!(matches!(
            zeroed::<u64>(u64::MAX / 8),
            Err(Error::NoMemory { .. })
        ));
    }
}
