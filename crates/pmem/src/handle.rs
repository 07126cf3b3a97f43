//! The safe handle to a region.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::observer::{Observer, Route};
use crate::off::Off;
use crate::raw::region::{Persist, PmemRegion, SyncFailed};
use crate::raw::user::{UserSlice, UserSliceMut};
use crate::raw::{Bits, Window};
use crate::word::Word;

/// Bytes per step when an observed copy goes through memory of our own.
const STEP: usize = 1024;

/// A region, or a slice of one: loads, stores, copies, flushes.
///
/// Cheap to clone; all clones mean the same bytes. Offsets count from the start of the handle's slice.
///
/// # Panics
/// Every access panics when it leaves the region, when a word is not aligned to its width, and on a store to a region
/// that is not writable: offsets come from checked numbers, so these are bugs of the caller, not of the medium.
#[derive(Clone)]
pub struct Pmem {
    window: Window,
    /// Where the slice starts in the region.
    origin: u64,
    observer: Option<Arc<dyn Observer>>,
}

impl Pmem {
    /// A handle to the whole region.
    pub fn new(region: impl PmemRegion + 'static) -> Self {
        Self::from_region(Arc::new(region))
    }

    /// A handle to the whole of a region that others hold, too.
    pub fn from_region(region: Arc<dyn PmemRegion>) -> Self {
        Pmem {
            window: Window::new(region),
            origin: 0,
            observer: None,
        }
    }

    /// A handle whose every change is reported. Handles made from it report to the same observer.
    pub fn with_observer(region: impl PmemRegion + 'static, observer: Arc<dyn Observer>) -> Self {
        Self::new(region).observed_by(observer)
    }

    /// The same bytes, with every change through this handle reported.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn Observer>) -> Self {
        Pmem {
            observer: Some(observer),
            ..self
        }
    }

    /// The `len` bytes from `offset` on, as a handle of their own: an image inside a disk.
    ///
    /// # Panics
    /// If the slice leaves the region, or `offset` is not a multiple of 64.
    #[must_use]
    pub fn slice(&self, offset: u64, len: u64) -> Self {
        let len = usize::try_from(len).expect("a slice is not longer than its region");
        Pmem {
            window: self.window.slice(offset, len),
            origin: self.origin + offset,
            observer: self.observer.clone(),
        }
    }

    /// Bytes in the handle's slice.
    #[inline]
    pub fn len(&self) -> u64 {
        self.window.len() as u64
    }

    /// Whether there is no byte at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How stores become durable.
    #[inline]
    pub fn persist(&self) -> Persist {
        self.window.persist()
    }

    /// Whether stores are allowed.
    #[inline]
    pub fn writable(&self) -> bool {
        self.window.writable()
    }

    /// Page frame number of the slice's first byte modulo 512; `None`: no 2 MiB entries.
    pub fn huge_phase(&self) -> Option<u32> {
        let phase = u64::from(self.window.region().huge_phase()?);
        if !self.origin.is_multiple_of(4096) {
            return None;
        }
        u32::try_from((phase + self.origin / 4096) % 512).ok()
    }

    /// Where the slice starts in its region, in bytes.
    pub fn origin(&self) -> u64 {
        self.origin
    }

    /// Whether two handles are slices of one region that start at the same byte.
    pub fn same_place(&self, other: &Pmem) -> bool {
        self.origin == other.origin && self.window.region().base() == other.window.region().base()
    }

    /// The word at `at`. Not ordered with other accesses.
    #[inline(always)]
    #[track_caller]
    pub fn load<W: Word>(&self, at: Off<W>) -> W {
        self.window.load(at.at(), Ordering::Relaxed)
    }

    /// The word at `at`; later accesses of this thread see at least what was stored before the value that was found.
    #[inline(always)]
    #[track_caller]
    pub fn load_acquire<W: Word>(&self, at: Off<W>) -> W {
        self.window.load(at.at(), Ordering::Acquire)
    }

    /// Stores one word, whole. Ordered after this thread's earlier stores, for other threads and within its line also
    /// for a crash. Not durable before flush and fence.
    #[inline(always)]
    #[track_caller]
    pub fn store<W: Word>(&self, at: Off<W>, word: W) {
        match &self.observer {
            None => self.window.store(at.at(), word),
            Some(observer) => self.observed_store(&**observer, at, word),
        }
    }

    /// Copies bytes out. They may change meanwhile: single bytes are old or new.
    #[inline]
    #[track_caller]
    pub fn read(&self, at: u64, to: &mut [u8]) {
        self.window.read(at, to);
    }

    /// Whether the bytes from `at` on are these. They may change meanwhile, as for [`Pmem::read`].
    #[inline]
    #[track_caller]
    pub fn equals(&self, at: u64, bytes: &[u8]) -> bool {
        self.window.equals(at, bytes)
    }

    /// A hint that the lines from `at` on will be wanted soon: they come while something else is done. Nothing is waited
    /// for, and an offset that lies outside does no harm.
    #[inline]
    pub fn prefetch(&self, at: u64, len: usize) {
        self.window.prefetch(at, len);
    }

    /// [`Pmem::read`] of bytes that will hardly be asked for again, such as a table that a checker goes through once. A page
    /// of a file in the page cache is cheaper to copy by a call of the operating system than to map, and a hole in the
    /// file stays a hole; memory that is the medium itself is read in place.
    #[track_caller]
    pub fn read_once(&self, at: u64, to: &mut [u8]) {
        self.window.check_span(at, to.len());
        if !self.window.region().read_once(self.origin + at, to) {
            self.window.read(at, to);
        }
    }

    /// Copies a structure out; its fields may be from different moments.
    #[inline]
    #[track_caller]
    pub fn read_value<T: FromBytes + IntoBytes>(&self, at: Off<T>) -> T {
        let mut value = T::new_zeroed();
        self.window.read(at.at(), value.as_mut_bytes());
        value
    }

    /// Copies bytes in, without any order until flushed and fenced: for bytes that nothing published leads to, and for
    /// file data.
    #[inline]
    #[track_caller]
    pub fn write(&self, at: u64, from: &[u8]) {
        match &self.observer {
            None => self.window.write(at, from),
            Some(observer) => self.observed_write(&**observer, at, from),
        }
    }

    /// [`Pmem::write`] of words that were just put together: none of them is read in another width than it was made in, which
    /// would wait for everything stored before.
    #[inline]
    #[track_caller]
    pub fn write_words(&self, at: Off<U64>, words: &[U64]) {
        match &self.observer {
            None => {
                for (at, word) in (at.at()..).step_by(8).zip(words) {
                    self.window.store(at, *word);
                }
            }
            Some(observer) => self.observed_write(&**observer, at.at(), words.as_bytes()),
        }
    }

    /// [`Pmem::write`] of several pieces, one behind the other.
    #[inline]
    #[track_caller]
    pub fn write_parts(&self, at: u64, parts: &[&[u8]]) {
        match &self.observer {
            None => {
                let mut at = at;
                for part in parts {
                    self.window.write(at, part);
                    at += part.len() as u64;
                }
            }
            Some(observer) => self.observed_write(&**observer, at, &parts.concat()),
        }
    }

    /// [`Pmem::write`] of a structure.
    #[inline]
    #[track_caller]
    pub fn write_value<T: IntoBytes + Immutable>(&self, at: Off<T>, value: &T) {
        self.write(at.at(), value.as_bytes());
    }

    /// [`Pmem::write`] and [`Pmem::flush`] in one; past the cache when there is much to write, which is cheaper. Durable
    /// after the next fence.
    #[track_caller]
    pub fn write_flushed(&self, at: u64, from: &[u8]) {
        self.copy_in_flushed(at, from.into());
    }

    /// Stores zeroes, without any order until flushed and fenced.
    #[inline]
    #[track_caller]
    pub fn zero(&self, at: u64, len: u64) {
        match &self.observer {
            None => self.window.zero(at, self.count(len)),
            Some(observer) => self.observed_zero(&**observer, at, len),
        }
    }

    /// [`Pmem::zero`] and [`Pmem::flush`] in one; past the cache when there is much to zero. Durable after the next
    /// fence.
    #[track_caller]
    pub fn zero_flushed(&self, at: u64, len: u64) {
        match &self.observer {
            None => self.window.zero_flushed(at, self.count(len)),
            Some(observer) => {
                self.observed_zero(&**observer, at, len);
                self.flush(at, len);
            }
        }
    }

    /// Copies `len` bytes inside the region as a bulk write; the ranges may overlap.
    #[track_caller]
    pub fn copy_within(&self, from: u64, to: u64, len: u64) {
        let mut step = [0; STEP];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(STEP as u64);
            // A copy to a higher place goes from the back, or it would overwrite what it has yet to read.
            let at = if to > from { len - done - n } else { done };
            let piece = &mut step[..self.count(n)];
            self.read(from + at, piece);
            self.write(to + at, piece);
            done += n;
        }
    }

    /// Copies user memory in, as a bulk write. Returns the bytes copied: all, unless a fault in it was cut short.
    ///
    /// Hold nothing of rank INVALIDATE or above: user memory may be a view of this very region and fault.
    #[inline]
    #[track_caller]
    pub fn copy_in(&self, at: u64, from: UserSlice<'_>) -> usize {
        match &self.observer {
            None => self.window.copy_in(at, from),
            Some(observer) => self.observed_copy_in(&**observer, at, from),
        }
    }

    /// [`Pmem::copy_in`] and [`Pmem::flush`] of what was copied, in one; past the cache when there is much. Durable
    /// after the next fence.
    #[inline]
    #[track_caller]
    pub fn copy_in_flushed(&self, at: u64, from: UserSlice<'_>) -> usize {
        match &self.observer {
            None => self.window.copy_in_flushed(at, from),
            Some(observer) => {
                let done = self.observed_copy_in(&**observer, at, from);
                self.flush(at, done as u64);
                done
            }
        }
    }

    /// Copies to user memory. Returns the bytes copied: all, unless a fault in it was cut short.
    ///
    /// Hold nothing of rank INVALIDATE or above: user memory may be a view of this very region and fault.
    #[inline]
    #[track_caller]
    pub fn copy_out(&self, at: u64, to: UserSliceMut<'_>) -> usize {
        self.window.copy_out(at, to)
    }

    /// Starts writing back the lines that meet `at..at + len`. Durable after this thread's next fence.
    #[inline]
    #[track_caller]
    pub fn flush(&self, at: u64, len: u64) {
        self.window.flush(at, self.count(len));
        if let Some(observer) = &self.observer
            && len > 0
        {
            observer.flush(self.origin + at..self.origin + at + len);
        }
    }

    /// Waits for this thread's flushes and orders all its later stores behind them.
    #[inline]
    pub fn fence(&self) {
        self.window.fence();
        if let Some(observer) = &self.observer {
            observer.fence();
        }
    }

    /// Stores one word, flushes it and fences: durable on return, with everything this thread flushed before. The
    /// commit points of the workspace are the calls of this function.
    #[inline]
    #[track_caller]
    pub fn publish<W: Word>(&self, at: Off<W>, word: W) {
        self.store(at, word);
        self.flush(at.at(), W::WIDTH as u64);
        self.fence();
    }

    /// Between two stores to one line of which the first must persist first. Free on x86-64.
    #[inline(always)]
    pub fn line_order(&self) {
        self.window.line_order();
    }

    /// Sets the bits of `mask` in the 8-byte word at `at`, in one atomic step. Returns the word before.
    #[inline]
    #[track_caller]
    pub fn or_word(&self, at: Off<U64>, mask: u64) -> u64 {
        self.change_bits(at, Bits::Set(mask))
    }

    /// Clears all bits but those of `mask` in the 8-byte word at `at`, in one atomic step. Returns the word before.
    #[inline]
    #[track_caller]
    pub fn and_word(&self, at: Off<U64>, mask: u64) -> u64 {
        self.change_bits(at, Bits::Keep(mask))
    }

    /// Makes a range durable by whatever the medium needs beyond flush and fence (msync for a page cache). May block.
    ///
    /// # Errors
    /// What the medium answered; nothing is known then about the range.
    ///
    /// # Panics
    /// If the range leaves the handle's slice.
    pub fn sync(&self, range: Range<u64>) -> Result<(), SyncFailed> {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "sync of {range:?} in {} bytes",
            self.len()
        );
        self.fence();
        self.window
            .region()
            .sync(self.origin + range.start..self.origin + range.end)
    }

    /// Gives a range its memory before the first store, where the medium is memory that the system hands out page by page:
    /// in pages of 2 MiB, each of which one entry can map. The range starts and ends where such pages do, see
    /// [`Pmem::huge_phase`]. Bytes stay what they are; what had no memory yet is zero.
    ///
    /// True: the range has it, and no store into it can be refused for want of memory. False: the medium has no such pages,
    /// or not enough memory for them; nothing is known about the range then, and nothing is wrong with it.
    ///
    /// # Panics
    /// If the range leaves the handle's slice.
    pub fn populate_huge(&self, range: Range<u64>) -> bool {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "large pages for {range:?} in {} bytes",
            self.len()
        );
        self.writable()
            && self
                .window
                .region()
                .populate_huge(self.origin + range.start..self.origin + range.end)
    }

    /// A length as this machine counts; one that does not fit lies outside every region.
    #[inline(always)]
    #[track_caller]
    fn count(&self, len: u64) -> usize {
        usize::try_from(len).expect("a length inside the region fits in memory")
    }

    #[inline]
    #[track_caller]
    fn change_bits(&self, at: Off<U64>, change: Bits) -> u64 {
        match &self.observer {
            None => self.window.fetch_bits(at.at(), change),
            Some(observer) => self.observed_bits(&**observer, at, change),
        }
    }

    #[cold]
    #[track_caller]
    fn observed_store<W: Word>(&self, observer: &dyn Observer, at: Off<W>, word: W) {
        observer.serialize(&mut || {
            self.window.store(at.at(), word);
            observer.store(
                self.origin + at.at(),
                &word.to_bits().to_le_bytes()[..W::WIDTH],
                Route::Ordered,
            );
        });
    }

    #[cold]
    #[track_caller]
    fn observed_bits(&self, observer: &dyn Observer, at: Off<U64>, change: Bits) -> u64 {
        let mut before = 0;
        observer.serialize(&mut || {
            before = self.window.fetch_bits(at.at(), change);
            let after = match change {
                Bits::Set(mask) => before | mask,
                Bits::Keep(mask) => before & mask,
            };
            observer.store(self.origin + at.at(), &after.to_le_bytes(), Route::Ordered);
        });
        before
    }

    #[cold]
    #[track_caller]
    fn observed_write(&self, observer: &dyn Observer, at: u64, from: &[u8]) {
        observer.serialize(&mut || {
            self.window.write(at, from);
            if !from.is_empty() {
                observer.store(self.origin + at, from, Route::Bulk);
            }
        });
    }

    #[cold]
    #[track_caller]
    fn observed_zero(&self, observer: &dyn Observer, at: u64, len: u64) {
        let zeroes = [0; STEP];
        // Checked as a whole first: a range that leaves the region changes nothing.
        self.window.check(at, self.count(len));
        let mut done = 0;
        while done < len {
            let n = (len - done).min(STEP as u64);
            self.observed_write(observer, at + done, &zeroes[..self.count(n)]);
            done += n;
        }
    }

    /// Goes through memory of our own: user memory may fault into the library, which then reports its own stores, so it
    /// is not touched while the observer keeps other changes out; and what is reported is what was stored.
    #[cold]
    #[track_caller]
    fn observed_copy_in(&self, observer: &dyn Observer, at: u64, mut from: UserSlice<'_>) -> usize {
        self.window.check(at, from.len());
        let mut step = [0; STEP];
        let mut done = 0;
        while !from.is_empty() {
            let (piece, rest) = from.split_at(from.len().min(STEP));
            let n = piece.copy_to(&mut step);
            self.observed_write(observer, at + done as u64, &step[..n]);
            done += n;
            if n < piece.len() {
                break;
            }
            from = rest;
        }
        done
    }
}

impl fmt::Debug for Pmem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pmem")
            .field("origin", &self.origin)
            .field("len", &self.len())
            .field("persist", &self.persist())
            .field("writable", &self.writable())
            .field("observed", &self.observer.is_some())
            .finish()
    }
}
