//! Memory of a caller, which may be a mapped view of the very bytes that are copied, and may change during the copy.

use core::fmt;
use core::marker::PhantomData;

/// Bytes to copy from. Nobody but the copy routine looks at them, so they may change, fault or alias the region.
#[derive(Clone, Copy)]
pub struct UserSlice<'a> {
    ptr: *const u8,
    len: usize,
    life: PhantomData<&'a [u8]>,
}

/// Bytes to copy to, with the same freedoms as [`UserSlice`].
pub struct UserSliceMut<'a> {
    ptr: *mut u8,
    len: usize,
    life: PhantomData<&'a mut [u8]>,
}

// SAFETY: the value is an address and a length; what is there is only touched by the copy routine, which tolerates
// changes by other threads. The lifetime keeps the memory valid.
unsafe impl Send for UserSlice<'_> {}
// SAFETY: as above.
unsafe impl Sync for UserSlice<'_> {}
// SAFETY: as above.
unsafe impl Send for UserSliceMut<'_> {}
// SAFETY: as above; no method changes the memory through a shared reference.
unsafe impl Sync for UserSliceMut<'_> {}

impl<'a> UserSlice<'a> {
    /// Memory known by address only, such as a view or the buffer of a system call.
    ///
    /// # Safety
    /// For `'a`, every byte is readable, or an access to it is answered by a fault handler that resolves it or resumes
    /// at [`resume_after_fault`](crate::resume_after_fault).
    pub unsafe fn from_raw(ptr: *const u8, len: usize) -> Self {
        UserSlice {
            ptr,
            len,
            life: PhantomData,
        }
    }

    /// Address of the first byte.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr
    }

    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first `mid` bytes and the rest.
    ///
    /// # Panics
    /// If there are fewer than `mid` bytes.
    #[inline]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        assert!(mid <= self.len, "split at {mid} of {} bytes", self.len);
        let rest = self.ptr.wrapping_add(mid);
        (
            UserSlice { len: mid, ..self },
            UserSlice {
                ptr: rest,
                len: self.len - mid,
                life: PhantomData,
            },
        )
    }

    /// Gives up the first `n` bytes.
    ///
    /// # Panics
    /// If there are fewer than `n` bytes.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        *self = self.split_at(n).1;
    }

    /// Copies into memory of our own. Returns the bytes copied: fewer than the shorter of both if a fault cut it short.
    #[inline]
    pub fn copy_to(self, to: &mut [u8]) -> usize {
        let len = self.len.min(to.len());
        // SAFETY: `to` is valid for writes of `len` bytes and ours alone; this slice is readable, or faults as its
        // constructor says.
        let left = unsafe { super::copy::copy(to.as_mut_ptr(), self.ptr, len) };
        len - left
    }
}

impl<'a> UserSliceMut<'a> {
    /// Memory known by address only.
    ///
    /// # Safety
    /// For `'a`, every byte is writable and not referred to by any Rust reference, or an access to it is answered by a
    /// fault handler that resolves it or resumes at [`resume_after_fault`](crate::resume_after_fault).
    pub unsafe fn from_raw(ptr: *mut u8, len: usize) -> Self {
        UserSliceMut {
            ptr,
            len,
            life: PhantomData,
        }
    }

    /// Address of the first byte.
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.ptr
    }

    /// Address of the first byte, to compare with.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr
    }

    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same bytes for a shorter while.
    #[inline]
    pub fn reborrow(&mut self) -> UserSliceMut<'_> {
        UserSliceMut {
            ptr: self.ptr,
            len: self.len,
            life: PhantomData,
        }
    }

    /// The first `mid` bytes and the rest.
    ///
    /// # Panics
    /// If there are fewer than `mid` bytes.
    #[inline]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        assert!(mid <= self.len, "split at {mid} of {} bytes", self.len);
        let rest = self.ptr.wrapping_add(mid);
        let rest = UserSliceMut {
            ptr: rest,
            len: self.len - mid,
            life: PhantomData,
        };
        (
            UserSliceMut {
                ptr: self.ptr,
                len: mid,
                life: PhantomData,
            },
            rest,
        )
    }

    /// Gives up the first `n` bytes.
    ///
    /// # Panics
    /// If there are fewer than `n` bytes.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len, "advance by {n} of {} bytes", self.len);
        self.ptr = self.ptr.wrapping_add(n);
        self.len -= n;
    }

    /// Copies from memory of our own. Returns the bytes copied: fewer than the shorter of both if a fault cut it short.
    #[inline]
    pub fn copy_from(&mut self, from: &[u8]) -> usize {
        let len = self.len.min(from.len());
        // SAFETY: `from` is valid for reads of `len` bytes; this slice is writable, or faults as its constructor says.
        let left = unsafe { super::copy::copy(self.ptr, from.as_ptr(), len) };
        len - left
    }

    /// Stores zeroes into every byte. Returns the bytes stored: fewer than there are if a fault cut it short.
    #[inline]
    pub fn zero(&mut self) -> usize {
        // SAFETY: this slice is writable, or faults as its constructor says.
        let left = unsafe { super::copy::zero(self.ptr, self.len) };
        self.len - left
    }
}

impl<'a> From<&'a [u8]> for UserSlice<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        UserSlice {
            ptr: bytes.as_ptr(),
            len: bytes.len(),
            life: PhantomData,
        }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for UserSlice<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl<'a> From<&'a mut [u8]> for UserSliceMut<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        UserSliceMut {
            ptr: bytes.as_mut_ptr(),
            len: bytes.len(),
            life: PhantomData,
        }
    }
}

impl<'a, const N: usize> From<&'a mut [u8; N]> for UserSliceMut<'a> {
    fn from(bytes: &'a mut [u8; N]) -> Self {
        bytes.as_mut_slice().into()
    }
}

impl fmt::Debug for UserSlice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserSlice({:p}, {} bytes)", self.ptr, self.len)
    }
}

impl fmt::Debug for UserSliceMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserSliceMut({:p}, {} bytes)", self.ptr, self.len)
    }
}
