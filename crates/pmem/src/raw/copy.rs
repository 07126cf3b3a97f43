//! Copies whose source and destination may alias, change and fault.
//!
//! On x86-64 they are assembly, for three reasons. A copy loop in Rust of memory that somebody else changes is a data
//! race; assembly is not. A fault handler must be able to tell by the program counter that a fault is inside a copy, and
//! to cut it short: `rcx` counts the bytes left at every instruction that touches memory, so the handler resumes at one
//! place and the routine returns that count. And large copies to persistent memory bypass the cache.

#[cfg(target_arch = "x86_64")]
mod x86 {
    // System V calling convention: rdi = destination, rsi = source, rdx = length; rax = bytes NOT done.
    // Invariant between the first and last label: rcx = bytes not yet done, whatever the instruction.
    core::arch::global_asm!(
        ".pushsection .text.ext2dax_pmem_copy,\"ax\",@progbits",
        ".p2align 5",
        ".globl ext2dax_pmem_copy",
        ".hidden ext2dax_pmem_copy",
        ".type ext2dax_pmem_copy,@function",
        "ext2dax_pmem_copy:",
        "mov rcx, rdx",
        "cmp rcx, 2048", // from here on the microcode's set-up cost is repaid
        "jae 5f",
        "2:",
        "cmp rcx, 32",
        "jb 3f",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "add rsi, 32",
        "add rdi, 32",
        "sub rcx, 32",
        "jmp 2b",
        "3:",
        "cmp rcx, 8",
        "jb 4f",
        "mov rax, [rsi]",
        "mov [rdi], rax",
        "add rsi, 8",
        "add rdi, 8",
        "sub rcx, 8",
        "jmp 3b",
        "4:",
        "test rcx, rcx",
        "jz ext2dax_pmem_copy_resume",
        "mov al, [rsi]",
        "mov [rdi], al",
        "inc rsi",
        "inc rdi",
        "dec rcx",
        "jmp 4b",
        // A destination less than 32 bytes ahead of the source within a page makes the microcode of some processors go
        // byte by byte: 1.2 ms a MiB instead of 40 us (AMD, family 25), and a large buffer of the C library starts 16 bytes
        // behind a page. The loop above takes 40 us there, too.
        "5:",
        "lea rax, [rdi - 1]",
        "sub rax, rsi",
        "and eax, 4095",
        "cmp eax, 31",
        "jb 2b",
        "rep movsb",
        "jmp ext2dax_pmem_copy_resume",
        // Non-temporal: whole lines of the destination bypass the cache. The caller fences.
        ".p2align 5",
        ".globl ext2dax_pmem_copy_nt",
        ".hidden ext2dax_pmem_copy_nt",
        ".type ext2dax_pmem_copy_nt,@function",
        "ext2dax_pmem_copy_nt:",
        "mov rcx, rdx",
        "6:",
        "cmp rcx, 64",
        "jb 7f",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + 32]",
        "movups xmm3, [rsi + 48]",
        "movntdq [rdi], xmm0",
        "movntdq [rdi + 16], xmm1",
        "movntdq [rdi + 32], xmm2",
        "movntdq [rdi + 48], xmm3",
        "add rsi, 64",
        "add rdi, 64",
        "sub rcx, 64",
        "jmp 6b",
        "7:",
        "jmp ext2dax_pmem_copy_resume",
        // Zeroes: rdi = destination, rsi = length.
        ".p2align 5",
        ".globl ext2dax_pmem_zero",
        ".hidden ext2dax_pmem_zero",
        ".type ext2dax_pmem_zero,@function",
        "ext2dax_pmem_zero:",
        "mov rcx, rsi",
        "xor eax, eax",
        "rep stosb",
        "jmp ext2dax_pmem_copy_resume",
        ".p2align 5",
        ".globl ext2dax_pmem_zero_nt",
        ".hidden ext2dax_pmem_zero_nt",
        ".type ext2dax_pmem_zero_nt,@function",
        "ext2dax_pmem_zero_nt:",
        "mov rcx, rsi",
        "xorps xmm0, xmm0",
        "8:",
        "cmp rcx, 64",
        "jb ext2dax_pmem_copy_resume",
        "movntdq [rdi], xmm0",
        "movntdq [rdi + 16], xmm0",
        "movntdq [rdi + 32], xmm0",
        "movntdq [rdi + 48], xmm0",
        "add rdi, 64",
        "sub rcx, 64",
        "jmp 8b",
        ".globl ext2dax_pmem_copy_resume",
        ".hidden ext2dax_pmem_copy_resume",
        "ext2dax_pmem_copy_resume:",
        "mov rax, rcx",
        "ret",
        ".popsection",
    );

    unsafe extern "sysv64" {
        pub(super) fn ext2dax_pmem_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
        pub(super) fn ext2dax_pmem_copy_nt(to: *mut u8, from: *const u8, len: usize) -> usize;
        pub(super) fn ext2dax_pmem_zero(to: *mut u8, len: usize) -> usize;
        pub(super) fn ext2dax_pmem_zero_nt(to: *mut u8, len: usize) -> usize;
        pub(super) fn ext2dax_pmem_copy_resume();
    }
}

/// For fault handlers: where to go on if the fault at program counter `pc` cannot be resolved, so that the copy it is
/// in ends early and reports fewer bytes. `None`: the fault is not in a copy of ours.
///
/// Only the program counter changes; every other register keeps its value.
pub fn resume_after_fault(pc: usize) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    {
        let first = x86::ext2dax_pmem_copy as *const () as usize;
        let resume = x86::ext2dax_pmem_copy_resume as *const () as usize;
        (first..resume).contains(&pc).then_some(resume)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = pc;
        None
    }
}

/// Copies `len` bytes, front to back. Returns how many were NOT copied, because a fault handler cut it short.
///
/// # Safety
/// Both ranges are mapped for the access, or faults in them are answered by a handler that resolves them or resumes at
/// [`resume_after_fault`]. No reference that promises unchanging or exclusive memory covers the destination.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> usize {
    // SAFETY: the routine touches exactly the two ranges, and only registers that the convention gives away.
    unsafe { x86::ext2dax_pmem_copy(to, from, len) }
}

/// As [`copy`], past the cache. `to` is 64-byte aligned and `len` a multiple of 64.
///
/// # Safety
/// As for [`copy`].
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) unsafe fn copy_nt(to: *mut u8, from: *const u8, len: usize) -> usize {
    debug_assert!((to as usize | len).is_multiple_of(64));
    // SAFETY: as for `copy`; alignment as `movntdq` wants it.
    unsafe { x86::ext2dax_pmem_copy_nt(to, from, len) }
}

/// Stores `len` zero bytes. Returns how many were NOT stored.
///
/// # Safety
/// As for [`copy`], for the destination.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) unsafe fn zero(to: *mut u8, len: usize) -> usize {
    // SAFETY: the routine touches exactly this range.
    unsafe { x86::ext2dax_pmem_zero(to, len) }
}

/// As [`zero`], past the cache. `to` is 64-byte aligned and `len` a multiple of 64.
///
/// # Safety
/// As for [`zero`].
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) unsafe fn zero_nt(to: *mut u8, len: usize) -> usize {
    debug_assert!((to as usize | len).is_multiple_of(64));
    // SAFETY: as for `zero`; alignment as `movntdq` wants it.
    unsafe { x86::ext2dax_pmem_zero_nt(to, len) }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) use portable::{copy, copy as copy_nt, zero, zero as zero_nt};

/// Other processors: relaxed atomics, whole words where both sides are aligned. Faults cannot be cut short here.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

    /// # Safety
    /// Both ranges are mapped for the access, and every concurrent access to them is atomic or by assembly.
    pub(in crate::raw) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> usize {
        let mut at = 0;
        let aligned = (to as usize | from as usize).is_multiple_of(8);
        while aligned && len - at >= 8 {
            // SAFETY: 8 bytes at `at` are inside the source range and aligned.
            let source = unsafe { AtomicU64::from_ptr(from.wrapping_add(at).cast_mut().cast()) };
            // SAFETY: the same for the destination.
            let target = unsafe { AtomicU64::from_ptr(to.wrapping_add(at).cast()) };
            target.store(source.load(Relaxed), Relaxed);
            at += 8;
        }
        while at < len {
            // SAFETY: byte `at` is inside the source range.
            let source = unsafe { AtomicU8::from_ptr(from.wrapping_add(at).cast_mut()) };
            // SAFETY: the same for the destination.
            let target = unsafe { AtomicU8::from_ptr(to.wrapping_add(at)) };
            target.store(source.load(Relaxed), Relaxed);
            at += 1;
        }
        0
    }

    /// # Safety
    /// The range is mapped for writing, and every concurrent access to it is atomic or by assembly.
    pub(in crate::raw) unsafe fn zero(to: *mut u8, len: usize) -> usize {
        let mut at = 0;
        while at < len {
            let place = to.wrapping_add(at);
            if (place as usize).is_multiple_of(8) && len - at >= 8 {
                // SAFETY: 8 bytes at `at` are inside the range and aligned.
                unsafe { AtomicU64::from_ptr(place.cast()) }.store(0, Relaxed);
                at += 8;
            } else {
                // SAFETY: byte `at` is inside the range.
                unsafe { AtomicU8::from_ptr(place) }.store(0, Relaxed);
                at += 1;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests;
