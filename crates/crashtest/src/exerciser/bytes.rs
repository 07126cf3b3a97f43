//! A file as a vector of bytes.

use anyhow::{Result, bail};

/// The window of one file, and its size.
#[derive(Debug)]
pub(super) struct Bytes {
    base: u64,
    limit: u64,
    size: u64,
    /// From `base` on; zero from the size on.
    window: Vec<u8>,
}

impl Bytes {
    pub(super) fn new(base: u64, window: u64, limit: u64) -> Self {
        Self {
            base,
            limit,
            size: 0,
            window: vec![0; window as usize],
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// The largest size that the window holds.
    pub(super) fn end(&self) -> u64 {
        self.base + self.window.len() as u64
    }

    pub(super) fn window_len(&self) -> u64 {
        self.window.len() as u64
    }

    fn at(&self, pos: u64) -> usize {
        (pos.saturating_sub(self.base) as usize).min(self.window.len())
    }

    /// How many bytes a read finds.
    pub(super) fn readable(&self, pos: u64, len: u64) -> u64 {
        len.min(self.size.saturating_sub(pos))
    }

    /// Bytes from `pos` on, whether or not inside the size.
    pub(super) fn get(&self, pos: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let skipped = self.base.saturating_sub(pos).min(len) as usize;
        let from = self.at(pos);
        let to = (from + bytes.len() - skipped).min(self.window.len());
        bytes[skipped..skipped + to - from].copy_from_slice(&self.window[from..to]);
        bytes
    }

    pub(super) fn write(&mut self, pos: u64, from: &[u8]) {
        if from.is_empty() {
            return;
        }
        assert!(pos >= self.base, "operations stay in the window");
        let at = self.at(pos);
        self.window[at..at + from.len()].copy_from_slice(from);
        self.size = self.size.max(pos + from.len() as u64);
    }

    /// A store through a mapping: what lies past the size is nobody's.
    pub(super) fn store(&mut self, pos: u64, from: &[u8]) {
        let inside = self.readable(pos, from.len() as u64) as usize;
        self.write(pos, &from[..inside]);
    }

    pub(super) fn zero(&mut self, pos: u64, end: u64) {
        let (from, to) = (self.at(pos), self.at(end.min(self.size).max(pos)));
        self.window[from..to].fill(0);
    }

    pub(super) fn resize(&mut self, size: u64) {
        let from = self.at(size);
        self.window[from..].fill(0);
        self.size = size;
    }

    /// Whether `found` is what stands at `pos`.
    pub(super) fn compare(&self, pos: u64, found: &[u8], route: &str) -> Result<()> {
        let wanted = self.get(pos, found.len() as u64);
        if wanted == found {
            return Ok(());
        }
        let first = (0..found.len())
            .find(|&at| found[at] != wanted[at])
            .unwrap_or(0);
        let wrong = (0..found.len())
            .filter(|&at| found[at] != wanted[at])
            .count();
        let show = |bytes: &[u8]| bytes[first..(first + 8).min(bytes.len())].to_vec();
        bail!(
            "{route}: byte {:#x} is {:x?}, and should be {:x?}; {wrong} bytes of {} are wrong (size {:#x})",
            pos + first as u64,
            show(found),
            show(&wanted),
            found.len(),
            self.size
        );
    }
}
