//! The copy routines themselves: every length, every alignment, and faults in the middle.

use super::{portable, resume_after_fault};

type Copy = unsafe fn(*mut u8, *const u8, usize) -> usize;

const ROUTINES: [(&str, Copy); 2] = [("assembly", super::copy), ("portable", portable::copy)];

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i % 251).expect("below 251") + 1)
        .collect()
}

#[test]
fn every_length_and_alignment_is_copied_exactly() {
    let source = pattern(2048);
    for (name, copy) in ROUTINES {
        for len in (0..140).chain([511, 512, 513, 1500, 1985]) {
            for skew in [(0, 0), (1, 0), (0, 1), (3, 5), (8, 16), (63, 1)] {
                let mut target = vec![0u8; 2048];
                // SAFETY: both ranges are inside their vectors, which are not used meanwhile.
                let left = unsafe {
                    copy(
                        target.as_mut_ptr().wrapping_add(skew.0),
                        source.as_ptr().wrapping_add(skew.1),
                        len,
                    )
                };
                assert_eq!(left, 0);
                assert_eq!(
                    target[skew.0..skew.0 + len],
                    source[skew.1..skew.1 + len],
                    "{name}: {len} bytes, {skew:?}"
                );
                assert!(
                    target[..skew.0]
                        .iter()
                        .chain(&target[skew.0 + len..])
                        .all(|b| *b == 0),
                    "{name}: {len}, {skew:?}"
                );
            }
        }
    }
}

/// Large copies take another way where source and destination lie almost alike within a page.
#[test]
fn large_copies_are_exact_wherever_the_two_sides_lie_within_a_page() {
    const ROOM: usize = 3 * 4096;
    let source = pattern(ROOM);
    let mut target = vec![0_u8; 2 * ROOM];
    // The first byte of the target that lies within its page as the source does.
    let alike = (source.as_ptr() as usize).wrapping_sub(target.as_ptr() as usize) % 4096;
    for (name, copy) in ROUTINES {
        for ahead in (0..70).chain([2048, 4064, 4095]) {
            for len in [2047, 2048, 2049, 4096, 5001] {
                target.fill(0);
                let start = alike + ahead;
                // SAFETY: both ranges are inside their vectors, which are not used meanwhile.
                let left = unsafe {
                    copy(
                        target.as_mut_ptr().wrapping_add(start),
                        source.as_ptr(),
                        len,
                    )
                };
                assert_eq!(left, 0);
                let (before, rest) = target.split_at(start);
                let (copied, behind) = rest.split_at(len);
                assert!(
                    copied == &source[..len] && before.iter().chain(behind).all(|&b| b == 0),
                    "{name}: {len} bytes, {ahead} ahead"
                );
            }
        }
    }
}

#[test]
fn zeroes_reach_every_byte_and_no_other() {
    for zero in [
        super::zero as unsafe fn(*mut u8, usize) -> usize,
        portable::zero,
    ] {
        for (at, len) in [(0, 0), (0, 1), (1, 7), (7, 9), (8, 8), (3, 600), (64, 64)] {
            let mut target = pattern(1024);
            // SAFETY: the range is inside the vector, which is not used meanwhile.
            let left = unsafe { zero(target.as_mut_ptr().wrapping_add(at), len) };
            assert_eq!(left, 0);
            let expected: Vec<u8> = pattern(1024)
                .iter()
                .enumerate()
                .map(|(i, b)| if (at..at + len).contains(&i) { 0 } else { *b })
                .collect();
            assert_eq!(target, expected, "{len} bytes at {at}");
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod past_the_cache {
    #[repr(align(64))]
    struct Lines([u8; 1024]);

    #[test]
    fn whole_lines_are_written() {
        let source = super::pattern(1024);
        let mut target = Lines([0; 1024]);
        // SAFETY: 832 bytes from line 1 on are inside the array; the source has more.
        let left = unsafe {
            super::super::copy_nt(
                target.0.as_mut_ptr().wrapping_add(64),
                source.as_ptr().wrapping_add(3),
                832,
            )
        };
        assert_eq!(left, 0);
        assert_eq!(target.0[64..896], source[3..835]);
        // SAFETY: as above, for the destination.
        let left = unsafe { super::super::zero_nt(target.0.as_mut_ptr().wrapping_add(128), 128) };
        assert_eq!(left, 0);
        assert_eq!(target.0[128..256], [0; 128]);
        assert_eq!(target.0[256..896], source[195..835]);
    }
}

/// A fault that nobody can resolve, in the middle of a copy from or to a caller's memory, must end the copy and not the
/// program: the handler resumes where the routine tells it to, and the count says how far it came.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod faults {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{copy, copy_nt, zero, zero_nt};
    use super::{pattern, resume_after_fault};

    static TAKEN: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn on_fault(
        signal: libc::c_int,
        _info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        let context: *mut libc::ucontext_t = context.cast();
        let rip = usize::try_from(libc::REG_RIP).expect("a register number");
        // SAFETY: the kernel hands a valid context to a handler installed with SA_SIGINFO.
        let pc = unsafe { &mut (*context).uc_mcontext.gregs[rip] };
        match resume_after_fault(usize::try_from(*pc).expect("an address")) {
            Some(resume) => {
                TAKEN.fetch_add(1, Ordering::Relaxed);
                *pc = i64::try_from(resume).expect("an address");
            }
            // Not ours: the fault happens again and ends the program as it should.
            None => {
                // SAFETY: restores the default action.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
        }
    }

    /// One page that may be used, then one that may not.
    struct Cliff {
        base: *mut u8,
        edge: *mut u8,
    }

    impl Cliff {
        fn new() -> Self {
            // SAFETY: a new mapping at an address of the kernel's choice.
            let base = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    8192,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            assert_ne!(base, libc::MAP_FAILED);
            let edge = base.cast::<u8>().wrapping_add(4096);
            // SAFETY: the second page of the mapping just made.
            let protected = unsafe { libc::mprotect(edge.cast(), 4096, libc::PROT_NONE) };
            assert_eq!(protected, 0);
            Cliff {
                base: base.cast(),
                edge,
            }
        }
    }

    impl Drop for Cliff {
        fn drop(&mut self) {
            // SAFETY: the mapping made by `new`, unused from now on.
            unsafe { libc::munmap(self.base.cast(), 8192) };
        }
    }

    fn install() {
        // SAFETY: all zero is a valid value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler only changes its context and an atomic.
        let installed =
            unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) };
        assert_eq!(installed, 0);
    }

    #[test]
    fn a_copy_ends_at_the_page_that_faults_and_says_how_far_it_came() {
        install();
        let ours = pattern(4096);
        let cliff = Cliff::new();
        for before in [1usize, 5, 17, 64, 100, 513, 2040] {
            for len in [before + 1, before + 7, before + 40, before + 2000] {
                let len = len.min(4096);
                let start = cliff.edge.wrapping_sub(before);
                // SAFETY: the destination faults, which the handler answers; the source is long enough.
                let left = unsafe { copy(start, ours.as_ptr(), len) };
                let done = len - left;
                // A step of the loop may fault as a whole, so up to 31 bytes that would have fitted are not counted.
                assert!(
                    done <= before && before - done < 32,
                    "{done} of {before} bytes, wanted {len}"
                );
                let mut back = vec![0; len];
                // SAFETY: the source faults, which the handler answers; the destination is long enough.
                let left = unsafe { copy(back.as_mut_ptr(), start, len) };
                let read = len - left;
                assert!(
                    read <= before && before - read < 32,
                    "{read} of {before} bytes, wanted {len}"
                );
                assert_eq!(back[..done.min(read)], ours[..done.min(read)]);
                // SAFETY: the destination faults, which the handler answers.
                let left = unsafe { zero(start, len) };
                assert_eq!(len - left, before, "zeroes, wanted {len}");
            }
        }
        for before in [0usize, 64, 640] {
            let start = cliff.edge.wrapping_sub(before);
            // SAFETY: aligned to lines, faults are answered, the source is long enough.
            let left = unsafe { copy_nt(start, ours.as_ptr(), 1024) };
            assert_eq!(left, 1024 - before);
            // SAFETY: aligned to lines, faults are answered.
            let left = unsafe { zero_nt(start, 1024) };
            assert_eq!(left, 1024 - before);
        }
        assert!(TAKEN.load(Ordering::Relaxed) > 0);
        assert_eq!(resume_after_fault(install as *const () as usize), None);
    }
}
