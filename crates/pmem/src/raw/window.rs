//! A checked piece of a region.

use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::copy;
use super::flush::{self, Flush};
use super::region::{Persist, PmemRegion};
use super::user::{UserSlice, UserSliceMut};
use crate::word::Word;

/// From this many whole lines on, a write to memory that needs flushing bypasses the cache instead of being flushed.
const NON_TEMPORAL: usize = 256;

/// `len` bytes at `base`, part of a region that lives as long as the window.
///
/// # Invariants
/// `base` is 64-byte aligned; `base..base + len` lies inside `region`.
#[derive(Clone)]
pub(crate) struct Window {
    base: NonNull<u8>,
    len: usize,
    flush: Flush,
    persist: Persist,
    writable: bool,
    region: Arc<dyn PmemRegion>,
}

// SAFETY: the region is Send + Sync and its memory may be accessed from every thread (its contract); the other fields
// are plain values.
unsafe impl Send for Window {}
// SAFETY: as above; every access is atomic or a copy that tolerates races.
unsafe impl Sync for Window {}

#[cold]
#[inline(never)]
#[track_caller]
fn outside(at: u64, len: usize, end: usize) -> ! {
    panic!("access of {len} bytes at offset {at:#x} of a region of {end:#x} bytes, or misaligned")
}

#[cold]
#[inline(never)]
#[track_caller]
fn read_only() -> ! {
    panic!("store to a read-only region")
}

impl Window {
    pub(crate) fn new(region: Arc<dyn PmemRegion>) -> Self {
        let base = region.base();
        assert!(
            (base.as_ptr() as usize).is_multiple_of(super::LINE),
            "a region starts on a cache line"
        );
        let persist = region.persist();
        Window {
            base,
            len: region.len(),
            flush: Flush::choose(persist),
            persist,
            writable: region.writable(),
            region,
        }
    }

    /// The part `offset..offset + len`. `offset` is a multiple of 64.
    pub(crate) fn slice(&self, offset: u64, len: usize) -> Self {
        assert!(
            offset.is_multiple_of(crate::LINE),
            "a slice starts on a cache line"
        );
        let base = self.span(offset, len);
        Window {
            base,
            len,
            region: Arc::clone(&self.region),
            ..*self
        }
    }

    pub(crate) fn region(&self) -> &dyn PmemRegion {
        &*self.region
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(crate) fn persist(&self) -> Persist {
        self.persist
    }

    #[inline(always)]
    pub(crate) fn writable(&self) -> bool {
        self.writable
    }

    /// Address of `at` if `len` bytes from there are inside. The one bounds check of the workspace.
    #[inline(always)]
    #[track_caller]
    fn span(&self, at: u64, len: usize) -> NonNull<u8> {
        // On 32-bit machines an offset may not fit; then it is outside, too.
        match usize::try_from(at) {
            Ok(offset) if offset <= self.len && len <= self.len - offset => {
                // SAFETY: `offset <= len`, so the result is inside the region or one past its end.
                unsafe { self.base.add(offset) }
            }
            _ => outside(at, len, self.len),
        }
    }

    #[inline(always)]
    #[track_caller]
    fn span_mut(&self, at: u64, len: usize) -> NonNull<u8> {
        if !self.writable {
            read_only();
        }
        self.span(at, len)
    }

    /// Panics unless `len` bytes from `at` are inside and may be changed.
    #[track_caller]
    pub(crate) fn check(&self, at: u64, len: usize) {
        self.span_mut(at, len);
    }

    /// Panics unless `len` bytes from `at` are inside.
    #[inline]
    #[track_caller]
    pub(crate) fn check_span(&self, at: u64, len: usize) {
        self.span(at, len);
    }

    /// As [`Window::span`], for one word, which is naturally aligned.
    #[inline(always)]
    #[track_caller]
    fn word<W: Word>(&self, at: u64) -> *mut u8 {
        if !at.is_multiple_of(W::WIDTH as u64) {
            outside(at, W::WIDTH, self.len);
        }
        self.span(at, W::WIDTH).as_ptr()
    }

    #[inline(always)]
    #[track_caller]
    pub(crate) fn load<W: Word>(&self, at: u64, order: Ordering) -> W {
        let ptr = self.word::<W>(at);
        // `word` proved that the bytes are inside the region and aligned; they live as long as `self`;
        // everybody else accesses them atomically, by assembly, or from outside the program.
        let bits = match W::WIDTH {
            // SAFETY: as above.
            1 => u64::from(unsafe { AtomicU8::from_ptr(ptr) }.load(order)),
            // SAFETY: as above.
            2 => u64::from(u16::from_le(
                unsafe { AtomicU16::from_ptr(ptr.cast()) }.load(order),
            )),
            // SAFETY: as above.
            4 => u64::from(u32::from_le(
                unsafe { AtomicU32::from_ptr(ptr.cast()) }.load(order),
            )),
            // SAFETY: as above.
            _ => u64::from_le(unsafe { AtomicU64::from_ptr(ptr.cast()) }.load(order)),
        };
        W::from_bits(bits)
    }

    #[inline(always)]
    #[track_caller]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a word of WIDTH bytes has its number in the low WIDTH bytes"
    )]
    pub(crate) fn store<W: Word>(&self, at: u64, word: W) {
        if !self.writable {
            read_only();
        }
        let ptr = self.word::<W>(at);
        let bits = word.to_bits();
        // Release costs nothing on x86-64 and keeps what was prepared visible before the word that publishes it.
        // As in `load`; the region is writable.
        match W::WIDTH {
            // SAFETY: as above.
            1 => unsafe { AtomicU8::from_ptr(ptr) }.store(bits as u8, Ordering::Release),
            // SAFETY: as above.
            2 => unsafe { AtomicU16::from_ptr(ptr.cast()) }
                .store((bits as u16).to_le(), Ordering::Release),
            // SAFETY: as above.
            4 => unsafe { AtomicU32::from_ptr(ptr.cast()) }
                .store((bits as u32).to_le(), Ordering::Release),
            // SAFETY: as above.
            _ => unsafe { AtomicU64::from_ptr(ptr.cast()) }.store(bits.to_le(), Ordering::Release),
        }
    }

    /// Sets (`or`) or keeps (`and`) bits of the 8-byte word at `at` in one step; returns the word before.
    #[inline]
    #[track_caller]
    pub(crate) fn fetch_bits(&self, at: u64, change: Bits) -> u64 {
        if !self.writable {
            read_only();
        }
        let ptr = self.word::<zerocopy::little_endian::U64>(at);
        // SAFETY: as in `load`; the region is writable.
        let word = unsafe { AtomicU64::from_ptr(ptr.cast()) };
        u64::from_le(match change {
            Bits::Set(mask) => word.fetch_or(mask.to_le(), Ordering::AcqRel),
            Bits::Keep(mask) => word.fetch_and(mask.to_le(), Ordering::AcqRel),
        })
    }

    #[inline]
    #[track_caller]
    pub(crate) fn read(&self, at: u64, to: &mut [u8]) {
        let from = self.span(at, to.len());
        // SAFETY: the source is inside the region, the destination is ours alone; both stay mapped.
        let left = unsafe { copy::copy(to.as_mut_ptr(), from.as_ptr(), to.len()) };
        debug_assert_eq!(left, 0, "region memory faulted");
    }

    /// Whether the bytes from `at` on are these. They may change meanwhile: single words are old or new.
    #[inline]
    #[track_caller]
    pub(crate) fn equals(&self, at: u64, bytes: &[u8]) -> bool {
        let ptr = self.span(at, bytes.len()).as_ptr();
        let (words, rest) = if (ptr as usize).is_multiple_of(4) {
            bytes.as_chunks::<4>()
        } else {
            (&[][..], bytes)
        };
        let is_word = |(index, word): (usize, &[u8; 4])| {
            // SAFETY: these four bytes lie inside the span and are aligned; as in `load`.
            let there = unsafe { AtomicU32::from_ptr(ptr.wrapping_add(4 * index).cast()) };
            u32::from_le(there.load(Ordering::Relaxed)).to_le_bytes() == *word
        };
        let is_byte = |(index, byte): (usize, &u8)| {
            // SAFETY: this byte lies inside the span; as in `load`.
            let there = unsafe { AtomicU8::from_ptr(ptr.wrapping_add(4 * words.len() + index)) };
            there.load(Ordering::Relaxed) == *byte
        };
        words.iter().enumerate().all(is_word) && rest.iter().enumerate().all(is_byte)
    }

    /// Asks for the lines that meet `at..at + len`, without waiting for them. Nothing happens outside the window.
    #[inline]
    pub(crate) fn prefetch(&self, at: u64, len: usize) {
        let Some(end) = usize::try_from(at).ok().and_then(|at| at.checked_add(len)) else {
            return;
        };
        if end > self.len {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        for line in (end - len..end).step_by(super::LINE) {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let line = self.base.as_ptr().wrapping_add(line);
            // SAFETY: a hint that faults nowhere and changes no memory.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast_const().cast()) };
        }
    }

    #[inline]
    #[track_caller]
    pub(crate) fn write(&self, at: u64, from: &[u8]) {
        self.copy_in(at, from.into());
    }

    #[inline]
    #[track_caller]
    pub(crate) fn zero(&self, at: u64, len: usize) {
        let to = self.span_mut(at, len);
        // SAFETY: the destination is inside the region and writable.
        unsafe { copy::zero(to.as_ptr(), len) };
    }

    /// Zeroes, then flushes; past the cache if that is cheaper.
    pub(crate) fn zero_flushed(&self, at: u64, len: usize) {
        let to = self.span_mut(at, len).as_ptr();
        let (head, lines, tail) = self.split_lines(to as usize, len);
        // SAFETY: the first part of the range.
        unsafe { copy::zero(to, head) };
        if lines > 0 {
            // SAFETY: the middle part of the range, aligned by `split_lines`.
            unsafe { copy::zero_nt(to.wrapping_add(head), lines) };
        }
        // SAFETY: the last part of the range.
        unsafe { copy::zero(to.wrapping_add(head + lines), tail) };
        self.flush_edges(to, head, lines, tail);
    }

    /// Bytes copied; fewer than `from.len()` if a fault in it was cut short.
    #[inline]
    #[track_caller]
    pub(crate) fn copy_in(&self, at: u64, from: UserSlice<'_>) -> usize {
        let to = self.span_mut(at, from.len());
        // SAFETY: the destination is inside the region and writable; the source is readable or faults as its
        // constructor says. They may be the same memory.
        let left = unsafe { copy::copy(to.as_ptr(), from.as_ptr(), from.len()) };
        from.len() - left
    }

    /// As [`Window::copy_in`], then flushes what was copied; past the cache if that is cheaper.
    pub(crate) fn copy_in_flushed(&self, at: u64, from: UserSlice<'_>) -> usize {
        let len = from.len();
        let to = self.span_mut(at, len).as_ptr();
        let (head, lines, tail) = self.split_lines(to as usize, len);
        let part = |start: usize, len: usize, past_cache: bool| {
            let (to, from) = (to.wrapping_add(start), from.as_ptr().wrapping_add(start));
            let left = if past_cache {
                // SAFETY: a part of the destination (in the region, writable, aligned by `split_lines`) and the same
                // part of the source, which is readable or faults as its constructor says.
                unsafe { copy::copy_nt(to, from, len) }
            } else {
                // SAFETY: as above.
                unsafe { copy::copy(to, from, len) }
            };
            len - left
        };
        let mut done = part(0, head, false);
        if done == head && lines > 0 {
            done += part(head, lines, true);
        }
        if done == head + lines {
            done += part(head + lines, tail, false);
        }
        self.flush_edges(to, head, lines, tail);
        done
    }

    /// Bytes copied; fewer than `to.len()` if a fault in it was cut short.
    #[inline]
    #[track_caller]
    pub(crate) fn copy_out(&self, at: u64, mut to: UserSliceMut<'_>) -> usize {
        let len = to.len();
        let from = self.span(at, len);
        // SAFETY: the source is inside the region; the destination is writable or faults as its constructor says.
        // They may be the same memory.
        let left = unsafe { copy::copy(to.as_mut_ptr(), from.as_ptr(), len) };
        len - left
    }

    #[inline]
    #[track_caller]
    pub(crate) fn flush(&self, at: u64, len: usize) {
        let ptr = self.span(at, len);
        // SAFETY: the range is inside the region, hence mapped.
        unsafe { self.flush.lines(ptr.as_ptr(), len) };
    }

    #[inline(always)]
    pub(crate) fn fence(&self) {
        flush::drain(self.persist);
    }

    #[inline(always)]
    pub(crate) fn line_order(&self) {
        flush::line_order(self.persist);
    }

    /// Bytes before the first whole line, in whole lines to write past the cache, and after them. Without a need to
    /// flush, or for few lines, everything is "before".
    fn split_lines(&self, start: usize, len: usize) -> (usize, usize, usize) {
        let line = super::LINE;
        let head = (line - start % line) % line;
        if self.flush == Flush::None || len < head + NON_TEMPORAL {
            return (len, 0, 0);
        }
        let lines = (len - head) / line * line;
        (head, lines, len - head - lines)
    }

    fn flush_edges(&self, ptr: *mut u8, head: usize, lines: usize, tail: usize) {
        // SAFETY: the first part of a range inside the region.
        unsafe { self.flush.lines(ptr, head) };
        // SAFETY: the last part of that range.
        unsafe { self.flush.lines(ptr.wrapping_add(head + lines), tail) };
    }
}

/// A change of single bits.
#[derive(Clone, Copy)]
pub(crate) enum Bits {
    Set(u64),
    Keep(u64),
}
