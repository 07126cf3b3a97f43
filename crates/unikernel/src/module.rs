//! The image: the first module that the monitor loaded beside the kernel, as a region. A private copy of the host's file,
//! hence volatile.

use core::ptr::NonNull;

use ext2dax_pmem::{Persist, PmemRegion};

/// First word of `hvm_start_info`.
const MAGIC: u32 = 0x336e_c578;
/// Where `nr_modules` and `modlist_paddr` stand in it.
const MODULES: (u64, u64) = (12, 16);

/// Guest memory that holds an image.
#[derive(Debug)]
pub struct Module {
    base: NonNull<u8>,
    len: usize,
}

impl Module {
    /// The first module of the start information at `start_info`; `None` if there is none, or not above `floor`.
    pub fn find(start_info: u64, floor: usize) -> Option<Self> {
        if read::<u32>(start_info) != MAGIC || read::<u32>(start_info + MODULES.0) == 0 {
            return None;
        }
        let list = read::<u64>(start_info + MODULES.1);
        let (base, len) = (read::<u64>(list) as usize, read::<u64>(list + 8) as usize);
        let base = NonNull::new(base as *mut u8).filter(|base| base.as_ptr() as usize >= floor)?;
        Some(Module { base, len })
    }
}

fn read<T: Copy>(at: u64) -> T {
    // SAFETY: the monitor put the start information and its module list, plain integers, into memory below 4 GiB, which
    // the boot code mapped onto itself; nobody writes to them.
    unsafe { (at as *const T).read_unaligned() }
}

// SAFETY: the monitor handed these bytes over: they are mapped by the identity map for good, write-back cached, page
// aligned (the PVH protocol says so), outside the kernel and its heap (`find` checks), and no reference to them exists.
unsafe impl PmemRegion for Module {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn persist(&self) -> Persist {
        Persist::Volatile
    }
}

// SAFETY: a pointer to memory that every CPU reaches alike; all accesses go through `Pmem`.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}
