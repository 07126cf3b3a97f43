//! What is known of each inode: one byte from pass 1, and from pass 2 how many entries lead to it.
//!
//! Nearly every inode has one entry. So a thread of pass 2 counts the first entry that it meets as a bit of its own, which
//! costs no locked instruction, and only those behind it in a word that all threads share.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::Error;
use crate::bits::zeroed;
use crate::census::Kind;

/// In the upper half of an inode's byte: `i_links_count` is so large or larger.
const MANY: u16 = 15;

/// The byte of an inode: what it is, and its `i_links_count`, or that it is not worth a byte.
#[inline]
pub(crate) fn known(kind: Kind, links: u16) -> u8 {
    let [links, _] = links.min(MANY).to_le_bytes();
    kind.0 & 0xF | links << 4
}

/// All inodes, by number less one.
#[derive(Debug)]
pub(crate) struct Inodes {
    known: Vec<u8>,
    links: Links,
    /// Entries behind those that are bits of [`Links`]. Never touched where there are none.
    more: Vec<AtomicU32>,
}

impl Inodes {
    /// # Errors
    /// There is not enough memory.
    pub(crate) fn new(count: u32) -> Result<Self, Error> {
        Ok(Self {
            known: Vec::new(),
            links: Links::default(),
            more: zeroed(count.into())?,
        })
    }

    /// Pass 1 is done: the bytes of all inodes.
    pub(crate) fn set_known(&mut self, known: Vec<u8>) {
        self.known = known;
    }

    #[inline]
    pub(crate) fn kind(&self, ino: u32) -> Kind {
        let byte = self.known.get((ino as usize).wrapping_sub(1));
        Kind(byte.map_or(0, |byte| byte & 0xF))
    }

    /// `i_links_count` as pass 1 found it, if it is small.
    #[inline]
    pub(crate) fn stored_links(&self, ino: u32) -> Option<u16> {
        let byte = self.known.get((ino as usize).wrapping_sub(1))?;
        let links = u16::from(byte >> 4);
        (links < MANY).then_some(links)
    }

    /// The bytes of `count` inodes from `first` on, as far as there are inodes.
    #[inline]
    fn span(&self, first: u32, count: u32) -> &[u8] {
        let start = (first as usize).saturating_sub(1).min(self.known.len());
        let end = start.saturating_add(count as usize).min(self.known.len());
        self.known.get(start..end).unwrap_or_default()
    }

    /// The kinds of `count` inodes from `first` on.
    pub(crate) fn kinds(&self, first: u32, count: u32) -> impl Iterator<Item = Kind> + '_ {
        self.span(first, count).iter().map(|byte| Kind(byte & 0xF))
    }

    /// How many of `count` inodes from `first` on are directories.
    pub(crate) fn dirs(&self, first: u32, count: u32) -> u64 {
        let dir = |byte: &&u8| **byte & 0xF == Kind::DIRECTORY.0;
        self.span(first, count).iter().filter(dir).count() as u64
    }

    /// 64 inodes from `first` on as bits: in use or not.
    #[inline]
    pub(crate) fn used_word(&self, first: u32) -> u64 {
        bits(self.span(first, 64), mark_used)
    }

    /// Entries that lead to `ino`, or the largest number that a count can be.
    pub(crate) fn links(&self, ino: u32) -> u16 {
        let index = (ino as usize).wrapping_sub(1);
        let count = u32::from(self.links.once(index));
        let more = match self.links.more(index) {
            false => 0,
            true => self
                .more
                .get(index)
                .map_or(0, |more| more.load(Ordering::Relaxed)),
        };
        u16::try_from(count.saturating_add(more)).unwrap_or(u16::MAX)
    }

    /// The inodes from `first` on, `count` of them, of which a look at 64 at a time cannot say that they have one link and
    /// one entry, or neither.
    pub(crate) fn unusual(&self, first: u32, count: u32) -> impl Iterator<Item = u32> + '_ {
        let end = first.saturating_add(count);
        (first..end).step_by(64).flat_map(move |first| {
            let rest = (end - first).min(64);
            let mut word = self.unusual_word(first);
            if rest < 64 {
                word &= (1 << rest) - 1;
            }
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros();
                word &= word.wrapping_sub(1);
                (bit < 64).then(|| first + bit)
            })
        })
    }

    fn unusual_word(&self, first: u32) -> u64 {
        let bytes = self.span(first, 64);
        let used = bits(bytes, mark_used);
        let single = bits(bytes, mark_single);
        let index = (first as usize).saturating_sub(1);
        let (once, more) = (self.links.once64(index), self.links.more64(index));
        used ^ once | used ^ single & used | more
    }

    /// One thread has counted its entries.
    pub(crate) fn add(&mut self, links: Links) {
        let Self {
            links: all, more, ..
        } = self;
        all.add(links, |index| count_one(more, index));
    }

    #[inline]
    pub(crate) fn add_link(&self, ino: u32, mine: &mut Links) {
        let index = (ino as usize).wrapping_sub(1);
        if !mine.first(index) {
            count_one(&self.more, index);
        }
    }
}

fn count_one(more: &[AtomicU32], index: usize) {
    if let Some(word) = more.get(index)
        && word.fetch_add(1, Ordering::Relaxed) == u32::MAX
    {
        // Far beyond what a count can be, and it stays there.
        word.fetch_sub(1, Ordering::Relaxed);
    }
}

const EIGHT: u64 = 0x0101_0101_0101_0101;

/// The upper bit of each byte whose lower half, the kind, is not 0.
#[inline]
fn mark_used(eight: u64) -> u64 {
    (eight & (EIGHT * 0xF)) + EIGHT * 0x7F
}

/// The upper bit of each byte whose upper half, the links, is 1.
#[inline]
fn mark_single(eight: u64) -> u64 {
    let links = eight >> 4 & (EIGHT * 0xF);
    EIGHT * 0x80 - (links ^ EIGHT)
}

/// Up to 64 bytes as bits: `mark` makes of eight bytes a word in which the upper bit of each byte counts.
#[inline]
fn bits(bytes: &[u8], mark: impl Fn(u64) -> u64) -> u64 {
    let gather = |eight: [u8; 8]| {
        let marks = mark(u64::from_le_bytes(eight)) >> 7 & EIGHT;
        // Byte i of the marks ends up as bit i of the highest byte.
        marks.wrapping_mul(0x0102_0408_1020_4080) >> 56
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut all = 0;
    for (i, eight) in (0..64).step_by(8).zip(words) {
        all |= gather(*eight) << i;
    }
    if !rest.is_empty() {
        let mut eight = [0; 8];
        for (to, from) in eight.iter_mut().zip(rest) {
            *to = *from;
        }
        let used = (1_u64 << rest.len()) - 1;
        all |= (gather(eight) & used) << (words.len() * 8);
    }
    all
}

/// Two bits an inode: an entry leads to it, and more than one does.
#[derive(Debug, Default)]
pub(crate) struct Links {
    once: Vec<u64>,
    more: Vec<u64>,
}

impl Links {
    /// # Errors
    /// There is not enough memory.
    pub(crate) fn new(inodes: u32) -> Result<Self, Error> {
        let words = u64::from(inodes).div_ceil(64);
        Ok(Self {
            once: zeroed(words)?,
            more: zeroed(words)?,
        })
    }

    /// Counts an entry, unless it is not the first one.
    #[inline]
    fn first(&mut self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        let Some(word) = self.once.get_mut(index / 64) else {
            return true;
        };
        let first = *word & bit == 0;
        *word |= bit;
        if !first && let Some(word) = self.more.get_mut(index / 64) {
            *word |= bit;
        }
        first
    }

    fn once(&self, index: usize) -> bool {
        let word = self.once.get(index / 64).copied().unwrap_or(0);
        word >> (index % 64) & 1 != 0
    }

    fn more(&self, index: usize) -> bool {
        let word = self.more.get(index / 64).copied().unwrap_or(0);
        word >> (index % 64) & 1 != 0
    }

    fn once64(&self, index: usize) -> u64 {
        word64(&self.once, index)
    }

    fn more64(&self, index: usize) -> u64 {
        word64(&self.more, index)
    }

    /// Takes another thread's bits; those that both have are entries for `another`.
    fn add(&mut self, other: Self, mut another: impl FnMut(usize)) {
        if self.once.is_empty() {
            *self = other;
            return;
        }
        for (at, word) in self.more.iter_mut().enumerate() {
            let theirs = |words: &[u64]| words.get(at).copied().unwrap_or(0);
            let (once, more) = (theirs(&other.once), theirs(&other.more));
            if once == 0 {
                continue;
            }
            let Some(mine) = self.once.get_mut(at) else {
                break;
            };
            let mut both = *mine & once;
            *mine |= once;
            *word |= more | both;
            while both != 0 {
                another(at * 64 + both.trailing_zeros() as usize);
                both &= both - 1;
            }
        }
    }
}

/// 64 bits from `index` on, which need not be aligned.
fn word64(words: &[u64], index: usize) -> u64 {
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    match index % 64 {
        0 => word(index / 64),
        shift => word(index / 64) >> shift | word(index / 64 + 1) << (64 - shift),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inodes with kinds, stored links and entries as a simple generator says.
    fn sample(count: u32) -> (Inodes, Vec<(Kind, u16, u16)>) {
        let mut state = 7_u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).expect("31 bits") % below
        };
        let mut expected = Vec::new();
        for _ in 0..count {
            let kind = [Kind::FREE, Kind::REGULAR, Kind::DIRECTORY][next(3)];
            let stored = [1, 1, 1, 2, 14, 15, 40_000][next(7)];
            let found = [0, 1, 1, 1, 2, 5][next(6)];
            match kind {
                Kind::FREE => expected.push((kind, 0, 0)),
                kind => expected.push((kind, stored, found)),
            }
        }
        let mut inodes = Inodes::new(count).expect("some bytes");
        inodes.set_known(expected.iter().map(|e| known(e.0, e.1)).collect());
        let mut threads: Vec<Links> = (0..3).map(|_| Links::new(count).expect("bits")).collect();
        for (ino, e) in (1..).zip(&expected) {
            for _ in 0..e.2 {
                inodes.add_link(ino, &mut threads[next(3)]);
            }
        }
        for links in threads {
            inodes.add(links);
        }
        (inodes, expected)
    }

    #[test]
    fn entries_of_all_threads_are_counted() {
        for count in [1, 63, 64, 65, 1000] {
            let (inodes, expected) = sample(count);
            for (ino, &(kind, stored, found)) in (1..).zip(&expected) {
                assert_eq!(inodes.kind(ino), kind);
                assert_eq!(inodes.links(ino), found, "inode {ino} of {count}");
                assert_eq!(inodes.stored_links(ino), (stored < 15).then_some(stored));
            }
            assert_eq!(inodes.kind(0), Kind::FREE);
            assert_eq!(inodes.kind(count + 1), Kind::FREE);
        }
    }

    #[test]
    fn words_say_the_same_as_one_inode_after_the_other() {
        let (inodes, expected) = sample(500);
        let of = |ino: u32| expected.get(ino as usize - 1).copied();
        for first in 1..501 {
            let mut used = 0;
            for i in 0..64 {
                used |= u64::from(of(first + i).is_some_and(|e| e.0.used())) << i;
            }
            assert_eq!(inodes.used_word(first), used, "at {first}");
            let dirs =
                (first..first + 100).filter(|&ino| of(ino).is_some_and(|e| e.0 == Kind::DIRECTORY));
            assert_eq!(inodes.dirs(first, 100), dirs.count() as u64);
        }
        for (first, count) in [(1, 500), (9, 480), (65, 1), (130, 64)] {
            let plain = |e: (Kind, u16, u16)| !e.0.used() || (e.1, e.2) == (1, 1);
            let expected: Vec<u32> = (first..first + count)
                .filter(|&ino| of(ino).is_some_and(|e| !plain(e)))
                .collect();
            let found: Vec<u32> = inodes.unusual(first, count).collect();
            assert_eq!(found, expected, "{count} from {first}");
        }
    }
}
