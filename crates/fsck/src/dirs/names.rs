//! Is a name in a directory twice: a table of hashes that is cleared and used again for each directory.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashSet;

/// Slots of a bucket.
const SLOTS: usize = 8;
/// The upper bits of the tags of a bucket, or of as many zeroes.
const UPPER: u64 = EIGHT << 7;

/// Hashes of the names of one directory, in buckets of eight that are at most three quarters full on the average; what does
/// not fit goes to the next. Up to 24 bytes a name of the largest directory. A hash that is there already proves nothing:
/// the caller compares the names themselves.
///
/// A bucket is looked at as one word of tags, so that nearly every name takes the same way: a processor that has to guess
/// how long a search is guesses wrong, and then waits for the hash.
#[derive(Debug)]
pub(super) struct Names {
    /// Of each bucket, a byte a slot from the lowest on: seven bits of the hash with the upper one set, or 0.
    tags: Vec<u64>,
    hashes: Vec<[u64; SLOTS]>,
    count: usize,
    /// The names themselves, from the first hash on that was there twice: many names may be there twice.
    exact: Option<HashSet<Vec<u8>>>,
    /// Secret, so that nobody can make an image whose names all meet.
    seeds: [u64; 2],
}

/// What a look at the bytes of a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    hash: u64,
    /// No `/` and no NUL in it.
    pub(super) sound: bool,
}

const EIGHT: u64 = 0x0101_0101_0101_0101;

/// Whether a byte of the word is 0: a borrow out of a byte whose high bit was clear.
#[inline]
fn has_zero(word: u64) -> bool {
    word.wrapping_sub(EIGHT) & !word & (EIGHT << 7) != 0
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let [low, high] = [product & u128::from(u64::MAX), product >> 64];
    u64::try_from(low).unwrap_or(0) ^ u64::try_from(high).unwrap_or(0)
}

/// The end of a name as one word: its last eight bytes if it has as many, else all of it and a filler. The length goes
/// into the hash apart, so that nothing is mistaken for something else.
#[inline]
fn last_word(name: &[u8], rest: &[u8]) -> u64 {
    if let Some(last) = name.last_chunk::<8>() {
        return u64::from_le_bytes(*last);
    }
    if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    }
    rest.iter().fold(EIGHT * u64::from(b'.'), |word, &byte| {
        word << 8 | u64::from(byte)
    })
}

impl Names {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        Self {
            tags: vec![0; 8],
            hashes: vec![[0; SLOTS]; 8],
            count: 0,
            exact: None,
            seeds: [random.hash_one(1), random.hash_one(2) | 1],
        }
    }

    /// Forgets all names, and makes room for about as many as `blocks` bytes of entries hold.
    pub(super) fn start(&mut self, bytes: usize) {
        self.count = 0;
        self.exact = None;
        // A slot for every 24 bytes of entries, in large directories for every 32. If names are shorter than that and every
        // block full, the table grows.
        let slots = bytes / if bytes > 64 << 10 { 32 } else { 24 };
        let buckets = (slots / SLOTS).next_power_of_two().max(8);
        if buckets > self.tags.len() || buckets < self.tags.len() / 16 {
            self.tags = vec![0; buckets];
            self.hashes = vec![[0; SLOTS]; buckets];
        } else {
            self.tags.truncate(buckets);
            self.tags.fill(0);
            self.hashes.truncate(buckets);
        }
    }

    /// Hashes a name, eight bytes at a time, and looks for bytes that cannot be in it.
    #[inline]
    pub(super) fn look(&self, name: &[u8]) -> Look {
        let [first, second] = self.seeds;
        let mut hash = first ^ name.len() as u64;
        let mut bad = false;
        let (words, rest) = name.as_chunks::<8>();
        let mut add = |word: u64| {
            bad |= has_zero(word) | has_zero(word ^ (EIGHT * u64::from(b'/')));
            hash = fold(hash ^ word, second);
        };
        for word in words {
            add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            add(last_word(name, rest));
        }
        Look {
            hash: fold(hash, second ^ first),
            sound: !bad,
        }
    }

    /// Whether names are compared, and no longer hashes.
    #[inline]
    pub(super) fn is_exact(&self) -> bool {
        self.exact.is_some()
    }

    /// From now on names are compared: `before` are those of the directory so far.
    pub(super) fn compare_names(&mut self, before: HashSet<Vec<u8>>) {
        self.exact = Some(before);
    }

    /// Enters a name whose hash may have been there before; false if the name was.
    pub(super) fn is_new_name(&mut self, name: &[u8]) -> bool {
        match &mut self.exact {
            Some(exact) if exact.contains(name) => false,
            Some(exact) => exact.insert(name.to_vec()),
            None => true,
        }
    }

    /// Enters a hash; false if it was there before.
    #[inline]
    pub(super) fn is_new(&mut self, look: Look) -> bool {
        if self.count * 4 >= self.tags.len() * SLOTS * 3 {
            self.grow();
        }
        let new = Self::enter(&mut self.tags, &mut self.hashes, look.hash);
        self.count += usize::from(new);
        new
    }

    #[inline]
    fn enter(tags: &mut [u64], hashes: &mut [[u64; SLOTS]], hash: u64) -> bool {
        let mask = tags.len() - 1;
        let tag = hash >> 57 | 0x80;
        let mut at = usize::try_from(hash >> 16 & mask as u64).unwrap_or(0);
        while let (Some(tags), Some(hashes)) = (tags.get_mut(at), hashes.get_mut(at)) {
            let free = !*tags & UPPER;
            let slot = free.trailing_zeros() as usize / 8;
            if has_zero(*tags ^ (EIGHT * tag))
                && hashes.iter().take(slot).any(|&there| there == hash)
            {
                return false;
            }
            if let Some(place) = hashes.get_mut(slot) {
                *place = hash;
                *tags |= tag << (slot * 8);
                return true;
            }
            at = (at + 1) & mask;
        }
        true
    }

    #[cold]
    fn grow(&mut self) {
        let buckets = self.tags.len() * 2;
        let (mut tags, mut hashes) = (vec![0; buckets], vec![[0; SLOTS]; buckets]);
        for (bucket, old) in self.tags.iter().zip(&self.hashes) {
            let slots = (bucket & UPPER).count_ones() as usize;
            for &hash in old.iter().take(slots) {
                Self::enter(&mut tags, &mut hashes, hash);
            }
        }
        (self.tags, self.hashes) = (tags, hashes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_new_once_whatever_the_size_of_the_table() {
        let mut names = Names::new();
        for (bytes, count) in [(0, 5000_u32), (1 << 20, 10), (64, 3)] {
            names.start(bytes);
            for round in 0..2 {
                for i in 0..count {
                    let look = names.look(format!("name {i}").as_bytes());
                    assert!(look.sound);
                    assert_eq!(names.is_new(look), round == 0, "{i}");
                }
            }
        }
    }

    #[test]
    fn slashes_and_nuls_are_seen_at_every_place_and_nothing_else_is() {
        let names = Names::new();
        for len in 1..40 {
            let good: Vec<u8> = (0..len)
                .map(|i| [b'a', 0x80, b'.', 0xFF, 1, b'/' + 1, b'/' - 1][i % 7])
                .collect();
            assert!(names.look(&good).sound, "{good:?}");
            for at in 0..len {
                for bad in [0, b'/'] {
                    let mut name = good.clone();
                    name[at] = bad;
                    assert!(!names.look(&name).sound, "{name:?}");
                    assert_ne!(names.look(&name), names.look(&good));
                }
            }
        }
    }
}
