//! Files in memory (tmpfs), mapped so that large pages can be mapped large, and given such pages.
//!
//! A tmpfs hands out pages of 4 KiB, one by one under a lock of the file, unless it was mounted to do otherwise: a
//! gigabyte takes 300 ms before a byte is copied. MADV_COLLAPSE puts a page of 2 MiB in the place of 512 small ones and of
//! holes, on any tmpfs and without that lock, and from then on one entry maps it.

use std::fs::File;
use std::ops::Range;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::{Mapping, Pages, Shared};

/// Bytes of a large page.
const HUGE: usize = 2 << 20;
/// Bytes of a small page, where large ones have 2 MiB.
const PAGE: usize = 4096;

impl Shared {
    /// Maps at an address that is as far behind a multiple of 2 MiB as the offset in the file. `None`: too short for that
    /// to matter, or no room among the addresses.
    pub(crate) fn congruent(file: &File, offset: u64, len: usize, writable: bool) -> Option<Self> {
        if len < HUGE {
            return None;
        }
        let room = Pages::reserve(len.checked_add(HUGE)?)?;
        let phase = usize::try_from(offset % HUGE as u64).ok()?;
        let start = room.base.as_ptr().addr();
        let skip = (phase + HUGE - start % HUGE) % HUGE;
        let base = room.base.as_ptr().wrapping_add(skip);
        let mut prot = ProtFlags::READ;
        prot.set(ProtFlags::WRITE, writable);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: replaces addresses of `room`, which nobody else knows: `skip` is less than what it has more than `len`.
        unsafe { mmap(base.cast(), len, prot, flags, file, offset) }.ok()?;
        Some(Shared {
            map: Mapping::Memory(room.keep(skip, len)),
            writable,
        })
    }

    /// Gives whole large pages memory; see [`PmemRegion::populate_huge`](crate::PmemRegion::populate_huge).
    pub(crate) fn populate_huge(&self, range: Range<u64>) -> bool {
        let (Ok(from), Ok(to)) = (usize::try_from(range.start), usize::try_from(range.end)) else {
            return false;
        };
        let base = self.base().as_ptr();
        let start = base.addr().wrapping_add(from);
        let whole = start.is_multiple_of(HUGE) && to.wrapping_sub(from).is_multiple_of(HUGE);
        if from > to || to > self.len() || !whole {
            return false;
        }
        let advise = |at: usize, len: usize, advice: i32| {
            let at = base.wrapping_add(at).cast();
            // SAFETY: a part of this mapping. Both advices keep its bytes, and answer an error where a store would be
            // killed for want of memory.
            unsafe { libc::madvise(at, len, advice) == 0 }
        };
        // A large page is made around a small one, never of nothing.
        let seeded = (from..to)
            .step_by(HUGE)
            .all(|at| advise(at, PAGE, libc::MADV_POPULATE_WRITE));
        seeded && advise(from, to - from, libc::MADV_COLLAPSE)
    }
}

impl Pages {
    /// Addresses that nothing else gets, and that hold nothing.
    fn reserve(len: usize) -> Option<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags) }.ok()?;
        let base = NonNull::new(base.cast())?;
        Some(Self { base, len })
    }

    /// Gives back everything but `len` bytes behind the first `skip`, which are on a boundary of pages.
    fn keep(self, skip: usize, len: usize) -> Self {
        let room = std::mem::ManuallyDrop::new(self);
        let base = room.base.as_ptr();
        let end = skip + len.next_multiple_of(PAGE);
        for (at, len) in [(0, skip), (end, room.len - end)] {
            if len > 0 {
                // SAFETY: addresses of `room` outside what is kept.
                let _ = unsafe { munmap(base.wrapping_add(at).cast(), len) };
            }
        }
        let base = NonNull::new(base.wrapping_add(skip)).expect("inside a mapping");
        Self { base, len }
    }
}
