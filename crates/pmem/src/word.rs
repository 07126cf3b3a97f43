//! The words that are loaded and stored whole.

use zerocopy::little_endian::{U16, U32, U64};

mod sealed {
    pub trait Sealed {}
}

/// A value that one instruction loads or stores: 1, 2, 4 or 8 bytes, little-endian on the medium.
///
/// A crash keeps it whole or leaves the old one. Implemented for `u8` and zerocopy's little-endian integers, and for
/// nothing else.
pub trait Word: Copy + sealed::Sealed {
    /// Bytes on the medium; also the alignment that loads and stores require.
    const WIDTH: usize;

    /// The number, zero-extended.
    fn to_bits(self) -> u64;

    /// The word whose number is the low [`Word::WIDTH`] bytes of `bits`.
    fn from_bits(bits: u64) -> Self;
}

impl sealed::Sealed for u8 {}
impl sealed::Sealed for U16 {}
impl sealed::Sealed for U32 {}
impl sealed::Sealed for U64 {}

impl Word for u8 {
    const WIDTH: usize = 1;

    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(self)
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        bits.to_le_bytes()[0]
    }
}

impl Word for U16 {
    const WIDTH: usize = 2;

    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(self.get())
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        let b = bits.to_le_bytes();
        U16::from_bytes([b[0], b[1]])
    }
}

impl Word for U32 {
    const WIDTH: usize = 4;

    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(self.get())
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        let b = bits.to_le_bytes();
        U32::from_bytes([b[0], b[1], b[2], b[3]])
    }
}

impl Word for U64 {
    const WIDTH: usize = 8;

    #[inline(always)]
    fn to_bits(self) -> u64 {
        self.get()
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        U64::new(bits)
    }
}
