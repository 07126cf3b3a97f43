//! The heap: a bump allocator over a fixed range of memory. The last block can be given back or grow in place, which is
//! what a vector that is being filled needs; everything else stays until the machine ends.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// First address of the heap: above the image of the kernel, which the linker script puts at 2 MiB.
const START: usize = 16 << 20;
/// End of the heap; `kmain` refuses a machine whose module lies below.
pub const END: usize = 64 << 20;

struct Bump(AtomicUsize);

// SAFETY: every answer lies in START..END, which the identity map covers and nobody else uses, is aligned as asked, and
// overlaps no other live block: the cursor moves by compare-exchange, and goes back only over the block at its end.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut cursor = self.0.load(Relaxed);
        loop {
            let at = cursor.next_multiple_of(layout.align());
            let Some(end) = at.checked_add(layout.size()).filter(|&end| end <= END) else {
                return core::ptr::null_mut();
            };
            match self.0.compare_exchange(cursor, end, Relaxed, Relaxed) {
                Ok(_) => return at as *mut u8,
                Err(now) => cursor = now,
            }
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let end = at as usize + layout.size();
        let _ = self.0.compare_exchange(end, at as usize, Relaxed, Relaxed);
    }
}

#[global_allocator]
static HEAP: Bump = Bump(AtomicUsize::new(START));

/// Bytes in use.
pub fn used() -> usize {
    HEAP.0.load(Relaxed) - START
}
