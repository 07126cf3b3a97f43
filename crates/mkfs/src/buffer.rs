//! Buffers for bytes that the kernel copies.

use std::ops::{Deref, DerefMut};

/// Bytes that start on a page. The kernel copies with one string instruction, which some processors run at a quarter of
/// its speed when the bytes do not start on a line of the cache: what an allocator hands out starts 16 bytes behind one.
#[derive(Debug)]
pub(crate) struct Buffer {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    const PAGE: usize = 4096;

    /// `len` zero bytes.
    pub(crate) fn new(len: usize) -> Self {
        let room = vec![0; len + Self::PAGE];
        let start = room.as_ptr().align_offset(Self::PAGE).min(Self::PAGE);
        Self { room, start, len }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.len]
    }
}
