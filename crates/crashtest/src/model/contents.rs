//! What a regular file of the model holds.

use std::collections::BTreeMap;

use crate::tree::{self, CHUNK};

/// Contents of a regular file: chunks that are not there are zero.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    chunks: BTreeMap<u64, Box<[u8]>>,
    size: u64,
}

impl Contents {
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes `bytes` at `at`.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut at = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = usize::try_from(at % CHUNK).expect("less than a chunk");
            let len = rest.len().min(CHUNK as usize - within);
            let chunk = self
                .chunks
                .entry(at / CHUNK)
                .or_insert_with(|| vec![0; CHUNK as usize].into());
            chunk[within..within + len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            at += len as u64;
        }
        self.size = self.size.max(at);
    }

    /// Makes the bytes from `at` to `end` zero, as far as they lie inside.
    pub fn zero(&mut self, at: u64, end: u64) {
        let end = end.min(self.size);
        if at >= end {
            return;
        }
        let touched: Vec<u64> = self
            .chunks
            .range(at / CHUNK..=(end - 1) / CHUNK)
            .map(|(&index, _)| index)
            .collect();
        for index in touched {
            let start = index * CHUNK;
            let from = usize::try_from(at.max(start) - start).expect("less than a chunk");
            let to = usize::try_from(end.min(start + CHUNK) - start).expect("at most a chunk");
            if let Some(chunk) = self.chunks.get_mut(&index) {
                chunk[from..to].fill(0);
            }
        }
    }

    /// Cuts off or extends.
    pub fn set_len(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size);
            self.chunks.retain(|&index, _| index * CHUNK < size);
        }
        self.size = size;
    }

    /// The bytes from `at` on, at most `len`.
    #[must_use]
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let len = usize::try_from(self.size.saturating_sub(at))
            .unwrap_or(len)
            .min(len);
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let pos = at + done as u64;
            let within = usize::try_from(pos % CHUNK).expect("less than a chunk");
            let step = (len - done).min(CHUNK as usize - within);
            if let Some(chunk) = self.chunks.get(&(pos / CHUNK)) {
                bytes[done..done + step].copy_from_slice(&chunk[within..within + step]);
            }
            done += step;
        }
        bytes
    }

    /// Bytes of memory that the chunks take.
    pub(super) fn held(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK
    }

    pub(super) fn digest(&self) -> u32 {
        self.chunks
            .iter()
            .fold(tree::EMPTY_DIGEST, |digest, (&index, chunk)| {
                let start = index * CHUNK;
                let len = usize::try_from((self.size - start).min(CHUNK)).expect("at most a chunk");
                digest ^ tree::chunk_digest(start, &chunk[..len])
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_cut_and_extended_read_zero_in_between() {
        let mut contents = Contents::default();
        contents.write(CHUNK - 2, b"abcd");
        contents.set_len(CHUNK + 1);
        contents.set_len(CHUNK + 4);
        assert_eq!(contents.read(CHUNK - 2, 10), b"abc\0\0\0");
        contents.zero(CHUNK - 1, CHUNK);
        assert_eq!(contents.read(CHUNK - 2, 3), b"a\0c");
    }
}
