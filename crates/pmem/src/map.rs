//! Memory maps as regions: the promises that the region contract needs.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::raw::region::{Persist, PmemRegion, SyncFailed};

mod huge;

/// Memory of the process that starts out zero and is gone with it.
#[derive(Debug)]
pub struct AnonRegion {
    map: MmapRaw,
    persist: Persist,
}

impl AnonRegion {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// What the operating system answered, mostly that there is not that much memory.
    pub fn new(len: u64) -> io::Result<Self> {
        Self::with_persist(len, Persist::Volatile)
    }

    /// `len` zero bytes, in large pages where the system has them: for memory that is used here and there all over, where
    /// one fault for each small page would cost more than the zeroes.
    ///
    /// # Errors
    /// What the operating system answered, mostly that there is not that much memory.
    pub fn with_large_pages(len: u64) -> io::Result<Self> {
        let region = Self::new(len)?;
        // A wish: without large pages the region is as good, and slower.
        let _ = region.map.advise(Advice::HugePage);
        Ok(region)
    }

    /// `len` zero bytes that are treated as a medium of another kind: flushes and fences are executed as there.
    ///
    /// # Errors
    /// What the operating system answered.
    pub fn with_persist(len: u64, persist: Persist) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let map = MmapOptions::new().len(len.max(1)).map_anon()?;
        Ok(AnonRegion {
            map: map.into(),
            persist,
        })
    }
}

// SAFETY: the mapping lives until drop, is page aligned, readable and writable, and never handed out as a reference.
unsafe impl PmemRegion for AnonRegion {
    fn base(&self) -> NonNull<u8> {
        NonNull::new(self.map.as_mut_ptr()).expect("a mapping is never at address 0")
    }

    fn len(&self) -> usize {
        self.map.len()
    }

    fn persist(&self) -> Persist {
        self.persist
    }
}

/// A shared mapping of part of an open file.
#[derive(Debug)]
pub(crate) struct Shared {
    map: Mapping,
    writable: bool,
}

#[derive(Debug)]
enum Mapping {
    Cached(MmapRaw),
    /// Nothing that msync would have to write.
    Memory(Pages),
}

/// A mapping that memmap2 cannot make: with MAP_SYNC, or at a place that is chosen.
#[derive(Debug)]
struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range that belongs to this value alone; the memory may be accessed from every thread.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: made by `mmap` with this length; nobody else unmaps it, and the region that lends it out is gone.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl Shared {
    /// Maps `len` bytes from `offset`; through the page cache, if there is one.
    pub(crate) fn new(file: &File, offset: u64, len: usize, writable: bool) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.offset(offset).len(len);
        let map = if writable {
            options.map_raw(file)?
        } else {
            options.map_raw_read_only(file)?
        };
        Ok(Shared {
            map: Mapping::Cached(map),
            writable,
        })
    }

    /// Maps with MAP_SYNC: flushed lines are durable without asking the file system. `None`: it cannot.
    pub(crate) fn synchronous(
        file: &File,
        offset: u64,
        len: usize,
        writable: bool,
    ) -> Option<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let mut prot = ProtFlags::READ;
        prot.set(ProtFlags::WRITE, writable);
        let flags = MapFlags::SHARED_VALIDATE | MapFlags::SYNC;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { mmap(std::ptr::null_mut(), len, prot, flags, file, offset) }.ok()?;
        let base = NonNull::new(base.cast())?;
        Some(Shared {
            map: Mapping::Memory(Pages { base, len }),
            writable,
        })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        match &self.map {
            Mapping::Cached(map) => {
                NonNull::new(map.as_mut_ptr()).expect("a mapping is never at address 0")
            }
            Mapping::Memory(map) => map.base,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.map {
            Mapping::Cached(map) => map.len(),
            Mapping::Memory(map) => map.len,
        }
    }

    pub(crate) fn writable(&self) -> bool {
        self.writable
    }

    /// msync of the pages that meet the range.
    pub(crate) fn sync(&self, range: Range<u64>) -> io::Result<()> {
        let Mapping::Cached(map) = &self.map else {
            return Ok(());
        };
        let start = usize::try_from(range.start).map_err(|_| io::ErrorKind::InvalidInput)?;
        let end = usize::try_from(range.end).map_err(|_| io::ErrorKind::InvalidInput)?;
        map.flush_range(start, end.saturating_sub(start))
    }
}

// SAFETY: the mapping lives as long as the region and is 64-byte aligned, which `FileRegion::open` has checked; it is
// shared memory of a file, never handed out as a reference. That the file is not truncated below it is what the lock on
// the image asks of other programs; one that does it anyway causes a signal, not undefined behaviour.
unsafe impl PmemRegion for crate::open::FileRegion {
    fn base(&self) -> NonNull<u8> {
        self.mapping().base()
    }

    fn len(&self) -> usize {
        self.mapping().len()
    }

    fn persist(&self) -> Persist {
        self.persistence()
    }

    fn huge_phase(&self) -> Option<u32> {
        self.phase()
    }

    fn sync(&self, range: Range<u64>) -> Result<(), SyncFailed> {
        self.sync_range(range).map_err(|error| SyncFailed {
            errno: error.raw_os_error().unwrap_or(0),
        })
    }

    fn read_once(&self, at: u64, to: &mut [u8]) -> bool {
        self.read_past_mapping(at, to)
    }

    fn populate_huge(&self, range: Range<u64>) -> bool {
        self.populate_range(range)
    }

    fn writable(&self) -> bool {
        self.mapping().writable()
    }
}
