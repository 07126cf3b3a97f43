//! What a provider of memory promises.

use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;

/// How stores become durable, hence what [`flush`](crate::Pmem::flush) and [`fence`](crate::Pmem::fence) do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persist {
    /// Persistent memory behind volatile caches: lines are written back and fenced. Survives power loss.
    FlushLines,
    /// The platform writes caches back itself when power fails (eADR): only fences. Survives power loss if it keeps that
    /// promise.
    FenceOnly,
    /// A page cache of the operating system: process death loses nothing, power loss everything since the last
    /// [`sync`](crate::Pmem::sync).
    PageCache,
    /// Plain memory: nothing survives.
    Volatile,
}

/// The medium refused or failed to make a range durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncFailed {
    /// The operating system's error number, 0 if it gave none.
    pub errno: i32,
}

impl fmt::Display for SyncFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the medium did not become durable (error number {})",
            self.errno
        )
    }
}

impl core::error::Error for SyncFailed {}

/// Memory that holds an image: facts only, every operation is in [`Pmem`](crate::Pmem).
///
/// # Safety
/// For the value's whole life, and whatever happens to it (moves included):
/// - `base()` is aligned to 64 bytes, and `base()..base() + len()` is mapped, readable, and writable if `writable()`;
///   both functions always give the same answers;
/// - the memory may be accessed from every thread, and is ordinary write-back cached memory;
/// - no Rust reference to any byte of it exists (other processes and raw pointers may read and change it).
pub unsafe trait PmemRegion: Send + Sync {
    /// Address of byte 0.
    fn base(&self) -> NonNull<u8>;

    /// Number of bytes.
    fn len(&self) -> usize;

    /// Whether there is no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How stores become durable.
    fn persist(&self) -> Persist;

    /// Page frame number of byte 0 modulo 512, in 4 KiB pages; `None`: entries of 2 MiB are never possible.
    fn huge_phase(&self) -> Option<u32> {
        None
    }

    /// Makes the bytes of `range` durable by whatever the medium needs beyond flush and fence. May block.
    ///
    /// # Errors
    /// What the medium answered; nothing is known then about the range.
    fn sync(&self, range: Range<u64>) -> Result<(), SyncFailed> {
        let _ = range;
        Ok(())
    }

    /// Copies out bytes that are looked at once, if there is a cheaper way than through the mapping. False: there is none,
    /// or it failed; `to` may hold anything then.
    fn read_once(&self, at: u64, to: &mut [u8]) -> bool {
        let _ = (at, to);
        false
    }

    /// Gives a range that is zero so far its memory now, in pages of 2 MiB, whole ones only. True: it has it, and no store
    /// into the range can be refused for want of memory. False: nothing is known; the range can be used as before.
    fn populate_huge(&self, range: Range<u64>) -> bool {
        let _ = range;
        false
    }

    /// Whether stores are allowed; if not, [`Pmem`](crate::Pmem) panics on them.
    fn writable(&self) -> bool {
        true
    }
}
