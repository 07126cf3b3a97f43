//! Writing cache lines back, and ordering.

use core::sync::atomic::{Ordering, compiler_fence, fence};

use super::region::Persist;

/// What the medium and this processor need; chosen once, when a region is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Lines need no write-back.
    None,
    /// Write back, keep the line: the cheapest to come back to.
    #[cfg(target_arch = "x86_64")]
    Clwb,
    /// Write back and drop the line; weakly ordered, so several run at once.
    #[cfg(target_arch = "x86_64")]
    ClflushOpt,
    /// Write back and drop the line, one after the other; every x86-64 has it.
    #[cfg(target_arch = "x86_64")]
    Clflush,
    /// Clean to the point of persistence.
    #[cfg(target_arch = "aarch64")]
    DcCvap,
}

impl Flush {
    pub(crate) fn choose(persist: Persist) -> Flush {
        match persist {
            Persist::FlushLines => Flush::of_processor(),
            Persist::FenceOnly | Persist::PageCache | Persist::Volatile => Flush::None,
        }
    }

    /// Asks the processor itself: feature detection of std is not there without std.
    #[cfg(target_arch = "x86_64")]
    fn of_processor() -> Flush {
        use core::arch::x86_64::{__cpuid, __cpuid_count};
        // Leaf 7: EBX bit 23 is CLFLUSHOPT, bit 24 CLWB (Intel SDM volume 2A, CPUID; AMD64 volume 3, appendix E).
        if __cpuid(0).eax < 7 {
            return Flush::Clflush;
        }
        let features = __cpuid_count(7, 0).ebx;
        if features & 1 << 24 != 0 {
            Flush::Clwb
        } else if features & 1 << 23 != 0 {
            Flush::ClflushOpt
        } else {
            Flush::Clflush
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn of_processor() -> Flush {
        Flush::DcCvap
    }

    /// No documented way to write a line back: a region that needs one must not be called persistent here.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn of_processor() -> Flush {
        panic!(
            "no cache line write-back is known for this processor: the region cannot be FlushLines"
        )
    }

    /// Starts the write-back of every line that meets `ptr..ptr + len`.
    ///
    /// # Safety
    /// The range is mapped.
    #[inline]
    pub(crate) unsafe fn lines(self, ptr: *const u8, len: usize) {
        if self == Flush::None || len == 0 {
            return;
        }
        let line = crate::raw::LINE;
        let skew = ptr as usize % line;
        let first = ptr.wrapping_sub(skew);
        for at in (0..skew + len).step_by(line) {
            // SAFETY: the line contains a byte of the range, which is mapped, and a line never crosses a page.
            unsafe { self.line(first.wrapping_add(at)) };
        }
    }

    /// # Safety
    /// The line is mapped.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn line(self, line: *const u8) {
        use core::arch::asm;
        match self {
            Flush::None => {}
            // SAFETY: the processor has the instruction (CPUID) and the line is mapped; contents do not change.
            Flush::Clwb => unsafe {
                asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags))
            },
            // SAFETY: as above.
            Flush::ClflushOpt => unsafe {
                asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags))
            },
            // SAFETY: as above; baseline instruction.
            Flush::Clflush => unsafe {
                asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags))
            },
        }
    }

    /// # Safety
    /// The line is mapped.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn line(self, line: *const u8) {
        if self == Flush::DcCvap {
            // SAFETY: a cache maintenance instruction on a mapped line; contents do not change. DC CVAP in its SYS form.
            unsafe {
                core::arch::asm!("sys #3, c7, c12, #1, {}", in(reg) line, options(nostack, preserves_flags))
            }
        }
    }

    /// # Safety
    /// The line is mapped.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[inline(always)]
    unsafe fn line(self, _line: *const u8) {}
}

/// Orders this thread's stores and flushes before all that follow; waits for the flushes.
///
/// A page cache outlives the process that stores to it: at whatever instruction that dies, it holds what was stored before, in
/// program order, and nothing is written back or past the cache that would have to be waited for. There the order of
/// visible stores is all that is left to ask for, and x86-64 has that without an instruction.
#[inline(always)]
pub(crate) fn drain(persist: Persist) {
    if persist == Persist::Volatile {
        compiler_fence(Ordering::SeqCst);
        return;
    }
    if persist == Persist::PageCache {
        compiler_fence(Ordering::SeqCst);
        fence(Ordering::Release);
        return;
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SFENCE changes no register and no memory. Without `nomem` the compiler moves no access across it.
    unsafe {
        core::arch::asm!("sfence", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes no register and no memory.
    unsafe {
        core::arch::asm!("dsb sy", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fence(Ordering::SeqCst);
    let _ = fence;
}

/// Keeps two stores to one line in order; see the memory model in the crate's documentation.
#[inline(always)]
pub(crate) fn line_order(persist: Persist) {
    // x86-64 keeps stores in order, and a line is written back whole: only the compiler must be held.
    compiler_fence(Ordering::SeqCst);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes no register and no memory.
    unsafe {
        core::arch::asm!("dmb ishst", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fence(Ordering::Release);
    let _ = persist;
}
