//! Bits on the medium: bit `n` is bit `n % 64` of the little-endian word `n / 64`.

use ext2dax_pmem::{Off, Pmem};
use zerocopy::little_endian::U64;

/// Bits of a word.
pub(crate) const WORD: u32 = u64::BITS;

/// One bitmap block: `len` bits that mean something, the rest read as ones (in use).
///
/// Words are read and stored whole. Changes happen under the group's lock, so a search under that lock sees a bitmap that
/// stands still, and a change is a load and a store: nobody else comes in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bitmap<'p> {
    pmem: &'p Pmem,
    at: u64,
    len: u32,
}

impl<'p> Bitmap<'p> {
    pub(crate) const fn new(pmem: &'p Pmem, at: u64, len: u32) -> Self {
        Self { pmem, at, len }
    }

    /// How many bits there are.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    fn word_off(&self, index: u32) -> Off<U64> {
        Off::new(self.at + u64::from(index) * 8)
    }

    /// Word `index`, with every bit at or past the end set.
    pub(crate) fn word(&self, index: u32) -> u64 {
        let past = self.len.saturating_sub(index * WORD);
        let tail = if past < WORD { !0 << past } else { 0 };
        self.pmem.load(self.word_off(index)).get() | tail
    }

    pub(crate) fn test(&self, nr: u32) -> bool {
        self.word(nr / WORD) >> (nr % WORD) & 1 != 0
    }

    /// How many bits are clear.
    pub(crate) fn count_clear(&self) -> u32 {
        (0..self.len.div_ceil(WORD))
            .map(|index| self.word(index).count_zeros())
            .sum()
    }

    /// The first clear bit in `from..to`.
    pub(crate) fn find_clear(&self, from: u32, to: u32) -> Option<u32> {
        self.find(from, to, 0)
    }

    /// The first set bit in `from..to`, bits past the end counting as set.
    pub(crate) fn find_set(&self, from: u32, to: u32) -> Option<u32> {
        self.find(from, to, !0)
    }

    /// The first bit in `from..to` that differs from the bits of `flip` inverted.
    fn find(&self, from: u32, to: u32, flip: u64) -> Option<u32> {
        let mut nr = from;
        while nr < to {
            // Wanted bits are ones here.
            let word = !(self.word(nr / WORD) ^ flip) & (!0 << (nr % WORD));
            if word != 0 {
                let found = (nr / WORD) * WORD + word.trailing_zeros();
                return (found < to).then_some(found);
            }
            nr = (nr / WORD + 1) * WORD;
        }
        None
    }

    /// Length of the run of clear bits that starts at `from`, at most `max`.
    pub(crate) fn clear_run(&self, from: u32, max: u32) -> u32 {
        let to = from.saturating_add(max).min(self.len);
        self.find_set(from, to).unwrap_or(to).saturating_sub(from)
    }

    /// Sets `count` bits and flushes their lines; they are durable after the next fence. Says how many were clear.
    pub(crate) fn set(&self, from: u32, count: u32) -> u32 {
        self.change(from, count, |off, mask| {
            let word = self.pmem.load(off).get();
            self.pmem.store(off, U64::new(word | mask));
            (!word & mask).count_ones()
        })
    }

    /// Clears `count` bits and flushes their lines. Says how many were set.
    pub(crate) fn clear(&self, from: u32, count: u32) -> u32 {
        self.change(from, count, |off, mask| {
            let word = self.pmem.load(off).get();
            self.pmem.store(off, U64::new(word & !mask));
            (word & mask).count_ones()
        })
    }

    fn change(&self, from: u32, count: u32, mut word: impl FnMut(Off<U64>, u64) -> u32) -> u32 {
        let to = from + count;
        let mut changed = 0;
        let mut nr = from;
        while nr < to {
            let end = ((nr / WORD + 1) * WORD).min(to);
            let ones = !0 >> (WORD - (end - nr));
            changed += word(self.word_off(nr / WORD), ones << (nr % WORD));
            nr = end;
        }
        if count > 0 {
            let (first, last) = (from / WORD, (to - 1) / WORD);
            self.pmem.flush(
                self.at + u64::from(first) * 8,
                u64::from(last - first + 1) * 8,
            );
        }
        changed
    }
}
