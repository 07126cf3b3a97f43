//! Loads and stores that survive SIGBUS: an access that cannot be served becomes an error instead of ending the process.
//!
//! Each routine has one instruction that touches the view. Our handler recognises it by its address, puts the address
//! that failed into the result register and goes on at the routine's end. Nothing is skipped that the compiler knows of:
//! to it, these are calls.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use ext2dax_pmem::{UserSlice, UserSliceMut};

use super::View;

/// An access that would have been SIGBUS: past the end of the file, or no way to serve the page
/// ([`View::last_fault_error`] says which).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// The byte of the view that could not be reached.
    pub at: usize,
}

impl std::fmt::Display for Trap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "byte {} of the view cannot be reached", self.at)
    }
}

impl std::error::Error for Trap {}

impl View {
    /// Loads the eight bytes at `at`, which is a multiple of eight, in one access.
    ///
    /// # Errors
    /// [`Trap`], once [`super::survive_bus`] has been called; else the process gets the signal.
    ///
    /// # Panics
    /// If the bytes are not in the view, or not aligned.
    pub fn load(&self, at: usize) -> Result<u64, Trap> {
        let mut value = 0;
        let from = self.word(at);
        // SAFETY: the address lies in the view, which is mapped as long as `self` lives, and is aligned.
        let failed = unsafe { routine::load(from, &mut value) };
        self.outcome(failed).map(|()| value)
    }

    /// Stores eight bytes at `at`, which is a multiple of eight, in one access.
    ///
    /// # Errors
    /// [`Trap`], once [`super::survive_bus`] has been called; else the process gets the signal.
    ///
    /// # Panics
    /// If the bytes are not in the view, or not aligned.
    pub fn store(&self, at: usize, value: u64) -> Result<(), Trap> {
        let to = self.word(at);
        // SAFETY: the address lies in the view, which is mapped as long as `self` lives, and is aligned.
        let failed = unsafe { routine::store(to, value) };
        self.outcome(failed)
    }

    /// Copies bytes of the view out.
    ///
    /// # Errors
    /// [`Trap`] at the first byte that could not be read; those before it have been copied.
    ///
    /// # Panics
    /// If the bytes are not in the view.
    pub fn read(&self, at: usize, bytes: &mut [u8]) -> Result<(), Trap> {
        let from = self.bytes(&(at..at + bytes.len()));
        // SAFETY: the source lies in the view, the destination is exclusively ours; no reference into the view exists.
        let failed = unsafe { routine::copy(bytes.as_mut_ptr(), from, bytes.len()) };
        self.outcome(failed)
    }

    /// Copies bytes into the view.
    ///
    /// # Errors
    /// [`Trap`] at the first byte that could not be written; those before it have been copied.
    ///
    /// # Panics
    /// If the bytes are not in the view.
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), Trap> {
        let to = self.bytes(&(at..at + bytes.len()));
        // SAFETY: the destination lies in the view, into which no reference exists; the source is borrowed.
        let failed = unsafe { routine::copy(to, bytes.as_ptr(), bytes.len()) };
        self.outcome(failed)
    }

    /// These bytes as the source of a write of the library: of another file, or of other bytes of this one.
    ///
    /// A byte that cannot be reached ends the write early, once [`super::survive_bus`] has been called; else the process gets
    /// the signal.
    ///
    /// # Panics
    /// If the bytes are not in the view.
    #[must_use]
    pub fn source(&self, range: Range<usize>) -> UserSlice<'_> {
        let from = self.bytes(&range);
        // SAFETY: the bytes lie in the view, which is mapped as long as `self` lives; what is not there is a fault that the
        // view's own threads or handlers resolve, or one that ends the copy or the process.
        unsafe { UserSlice::from_raw(from, range.len()) }
    }

    /// These bytes as the destination of a read of the library. As [`View::source`] otherwise.
    ///
    /// # Panics
    /// If the bytes are not in the view.
    #[must_use]
    pub fn target(&self, range: Range<usize>) -> UserSliceMut<'_> {
        let to = self.bytes(&range);
        // SAFETY: as in `source`; no reference into a view exists.
        unsafe { UserSliceMut::from_raw(to, range.len()) }
    }

    /// read(2) with these bytes of the view as its buffer: the kernel stores into the file's blocks.
    ///
    /// # Errors
    /// That of the call; EFAULT for a page that cannot be served, or in the modes that do not serve system calls for one
    /// that is not mapped ([`View::prefault`] maps it).
    ///
    /// # Panics
    /// If the bytes are not in the view.
    pub fn read_from(&self, file: impl AsFd, range: Range<usize>) -> io::Result<usize> {
        let buffer = self.bytes(&range).cast();
        // SAFETY: the buffer lies in the view, into which no reference exists.
        count(unsafe { libc::read(file.as_fd().as_raw_fd(), buffer, range.len()) })
    }

    /// write(2) with these bytes of the view as its buffer.
    ///
    /// # Errors
    /// As [`View::read_from`].
    ///
    /// # Panics
    /// If the bytes are not in the view.
    pub fn write_to(&self, file: impl AsFd, range: Range<usize>) -> io::Result<usize> {
        let buffer = self.bytes(&range).cast_const().cast();
        // SAFETY: the buffer lies in the view and stays mapped during the call.
        count(unsafe { libc::write(file.as_fd().as_raw_fd(), buffer, range.len()) })
    }

    fn word(&self, at: usize) -> *mut u64 {
        assert!(at.is_multiple_of(8), "a word is aligned");
        self.bytes(&(at..at + 8)).cast()
    }

    fn bytes(&self, range: &Range<usize>) -> *mut u8 {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "{range:?} lies in a view of {} bytes",
            self.len()
        );
        self.as_ptr().wrapping_add(range.start)
    }

    fn outcome(&self, failed: usize) -> Result<(), Trap> {
        if failed == 0 {
            Ok(())
        } else {
            Err(Trap {
                at: failed.wrapping_sub(self.as_ptr().addr()),
            })
        }
    }
}

fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Where a thread goes on whose access at `pc` failed, if `pc` is one of ours.
#[cfg(target_arch = "x86_64")]
pub(super) fn landing(pc: usize) -> Option<usize> {
    let ours = [
        routine::store as *const (),
        routine::load as *const (),
        routine::copy_counted as *const (),
    ];
    ours.iter()
        .any(|routine| routine.addr() == pc)
        .then_some((routine::landed as *const ()).addr())
}

/// Loads a word at an address that is expected to fail.
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) fn touch(va: usize) {
    let mut value = 0;
    // SAFETY: the routine survives the fault if a handler lands it, which is what its callers test.
    unsafe { routine::load(std::ptr::with_exposed_provenance(va), &mut value) };
}

/// The routines begin with the instruction that may fail; they return zero, or the address that failed.
#[cfg(target_arch = "x86_64")]
mod routine {
    use std::arch::naked_asm;

    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn store(to: *mut u64, value: u64) -> usize {
        naked_asm!("mov [rdi], rsi", "xor eax, eax", "ret")
    }

    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn load(from: *const u64, value: &mut u64) -> usize {
        naked_asm!("mov rax, [rdi]", "mov [rsi], rax", "xor eax, eax", "ret")
    }

    pub(super) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { copy_counted(to, from, 0, len) }
    }

    /// `rep movsb` counts in rcx, which carries the fourth argument.
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn copy_counted(
        to: *mut u8,
        from: *const u8,
        unused: usize,
        len: usize,
    ) -> usize {
        naked_asm!("rep movsb", "xor eax, eax", "ret")
    }

    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn landed() -> usize {
        naked_asm!("ret")
    }
}

/// Without a routine of their own, other processors end with the signal.
#[cfg(not(target_arch = "x86_64"))]
mod routine {
    pub(super) unsafe fn store(to: *mut u64, value: u64) -> usize {
        // SAFETY: the caller's promise.
        unsafe { to.write_volatile(value) };
        0
    }

    pub(super) unsafe fn load(from: *const u64, value: &mut u64) -> usize {
        // SAFETY: the caller's promise.
        *value = unsafe { from.read_volatile() };
        0
    }

    pub(super) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> usize {
        for at in 0..len {
            // SAFETY: the caller's promise.
            let byte = unsafe { from.add(at).read_volatile() };
            // SAFETY: the caller's promise.
            unsafe { to.add(at).write_volatile(byte) };
        }
        0
    }
}
