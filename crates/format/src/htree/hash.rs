//! The three hashes of names, each over signed or unsigned bytes.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "wrapping words, fixed indexes"
)]

use core::num::Wrapping;

use crate::Geometry;

/// A hash function: `s_def_hash_version` or a root's `hash_version`, with the signedness resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashVersion {
    /// The first one, signed bytes.
    Legacy,
    /// Three rounds of 8 steps each of MD4, signed bytes.
    HalfMd4,
    /// 16 rounds of TEA, signed bytes.
    Tea,
    /// [`HashVersion::Legacy`] with unsigned bytes.
    LegacyUnsigned,
    /// [`HashVersion::HalfMd4`] with unsigned bytes.
    HalfMd4Unsigned,
    /// [`HashVersion::Tea`] with unsigned bytes.
    TeaUnsigned,
}

impl HashVersion {
    /// The hash behind a version byte: 0 to 2 follow the superblock's `s_flags`, 3 to 5 are unsigned anyway.
    #[must_use]
    pub const fn new(byte: u8, geometry: &Geometry) -> Option<Self> {
        let byte = if byte < 3 && geometry.unsigned_hash() {
            byte + 3
        } else {
            byte
        };
        match byte {
            0 => Some(Self::Legacy),
            1 => Some(Self::HalfMd4),
            2 => Some(Self::Tea),
            3 => Some(Self::LegacyUnsigned),
            4 => Some(Self::HalfMd4Unsigned),
            5 => Some(Self::TeaUnsigned),
            _ => None,
        }
    }

    /// The version byte of a root, without the signedness: that stands in the superblock.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Legacy | Self::LegacyUnsigned => 0,
            Self::HalfMd4 | Self::HalfMd4Unsigned => 1,
            Self::Tea | Self::TeaUnsigned => 2,
        }
    }
}

/// `s_hash_seed`; all zero stands for the initial values of MD4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seed(pub [u32; 4]);

/// The hash of a name. The index is ordered by `major`, whose lowest bit is always clear (an entry's lowest bit says that
/// the block goes on with the hash of the one before); `minor` decides among equals when a cursor is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameHash {
    /// What the index is ordered by.
    pub major: u32,
    /// Second half; 0 for the legacy hash.
    pub minor: u32,
}

/// The last even number stands for the end of a directory; a name that hashes to it gets the one before.
const END: u32 = 0xffff_fffe;

/// Hashes a name.
///
/// # On disk
/// Linux `ext4/directory.rst` names the functions; MD4 is RFC 1320, TEA the cipher of Wheeler and Needham. How names are
/// packed into words, which words are the answer and what the signedness does is pinned by vectors of e2fsprogs 1.47.
#[must_use]
pub fn hash(name: &[u8], version: HashVersion, seed: Seed) -> NameHash {
    let start = if seed.0 == [0; 4] {
        [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476]
    } else {
        seed.0
    };
    let mut state = start.map(Wrapping);
    let (major, minor) = match version {
        HashVersion::Legacy => (legacy(name, signed), 0),
        HashVersion::LegacyUnsigned => (legacy(name, unsigned), 0),
        HashVersion::HalfMd4 => half_md4(&mut state, name, signed),
        HashVersion::HalfMd4Unsigned => half_md4(&mut state, name, unsigned),
        HashVersion::Tea => tea(&mut state, name, signed),
        HashVersion::TeaUnsigned => tea(&mut state, name, unsigned),
    };
    let major = major & !1;
    NameHash {
        major: if major == END { END - 2 } else { major },
        minor,
    }
}

type Word = Wrapping<u32>;
type Widen = fn(u8) -> Word;

fn signed(byte: u8) -> Word {
    Wrapping(i32::from(byte.cast_signed()).cast_unsigned())
}

fn unsigned(byte: u8) -> Word {
    Wrapping(u32::from(byte))
}

fn legacy(name: &[u8], widen: Widen) -> u32 {
    let (mut last, mut before) = (Wrapping(0x12a3_fe2d_u32), Wrapping(0x37ab_e8f9_u32));
    for &byte in name {
        let mut next = before + (last ^ (widen(byte) * Wrapping(7_152_373)));
        if next.0 & 0x8000_0000 != 0 {
            next -= 0x7fff_ffff;
        }
        (before, last) = (last, next);
    }
    last.0 << 1
}

/// Packs the first bytes of `rest` into words, each with its first byte on top; missing bytes are the length of `rest`.
fn pack<const N: usize>(rest: &[u8], widen: Widen) -> [Word; N] {
    let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
    let pad = Wrapping(len | len << 8);
    let pad = pad | pad << 16;
    let mut words = [pad; N];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        *word = bytes
            .iter()
            .fold(pad, |word, &byte| widen(byte) + (word << 8));
    }
    words
}

fn half_md4(state: &mut [Word; 4], name: &[u8], widen: Widen) -> (u32, u32) {
    let mut rest = name;
    while !rest.is_empty() {
        half_md4_block(state, &pack::<8>(rest, widen));
        rest = rest.get(32..).unwrap_or_default();
    }
    (state[1].0, state[2].0)
}

fn half_md4_block(state: &mut [Word; 4], words: &[Word; 8]) {
    type Mix = fn(Word, Word, Word) -> Word;
    let rounds: [(Mix, u32, [usize; 8], [usize; 4]); 3] = [
        (
            |x, y, z| z ^ (x & (y ^ z)),
            0,
            [0, 1, 2, 3, 4, 5, 6, 7],
            [3, 7, 11, 19],
        ),
        (
            |x, y, z| (x & y) + ((x ^ y) & z),
            0x5a82_7999,
            [1, 3, 5, 7, 0, 2, 4, 6],
            [3, 5, 9, 13],
        ),
        (
            |x, y, z| x ^ y ^ z,
            0x6ed9_eba1,
            [3, 7, 2, 6, 1, 5, 0, 4],
            [3, 9, 11, 15],
        ),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, turns) in rounds {
        for (step, &index) in order.iter().enumerate() {
            let sum = a + mix(b, c, d) + words[index] + Wrapping(constant);
            let turned = Wrapping(
                sum.0
                    .rotate_left(u32::try_from(turns[step % 4]).unwrap_or(0)),
            );
            (a, b, c, d) = (d, turned, b, c);
        }
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word += add;
    }
}

fn tea(state: &mut [Word; 4], name: &[u8], widen: Widen) -> (u32, u32) {
    let mut rest = name;
    while !rest.is_empty() {
        tea_block(state, &pack::<4>(rest, widen));
        rest = rest.get(16..).unwrap_or_default();
    }
    (state[0].0, state[1].0)
}

fn tea_block(state: &mut [Word; 4], key: &[Word; 4]) {
    let (mut left, mut right) = (state[0], state[1]);
    let mut sum = Wrapping(0_u32);
    for _ in 0..16 {
        sum += 0x9e37_79b9;
        left += ((right << 4) + key[0]) ^ (right + sum) ^ ((right >> 5) + key[1]);
        right += ((left << 4) + key[2]) ^ (left + sum) ^ ((left >> 5) + key[3]);
    }
    state[0] += left;
    state[1] += right;
}
