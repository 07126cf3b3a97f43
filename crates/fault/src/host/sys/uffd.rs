//! userfaultfd as of Linux 6.18: structures, opcodes, and a descriptor whose methods take [`Span`]s.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{self, Opcode, Updater, opcode};
use rustix::mm::UserfaultfdFlags;

use super::Span;

const UFFD_API: u64 = 0xAA;
const GROUP: u8 = 0xAA;
const USER_MODE_ONLY: u32 = 1;

/// The kernel tells stores to protected pages from other faults.
pub(in super::super) const FEATURE_WP: u64 = 1;
/// A registration survives a move.
pub(in super::super) const FEATURE_EVENT_REMAP: u64 = 1 << 2;
/// Messages name the thread.
pub(in super::super) const FEATURE_THREAD_ID: u64 = 1 << 8;
/// Shadows can be registered.
pub(in super::super) const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
/// Pages can be protected before they exist.
pub(in super::super) const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;

const MODE_MISSING: u64 = 1;
const MODE_WP: u64 = 2;

const WRITEPROTECT_MODE_WP: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;
const PAGEFAULT_WRITE: u64 = 1;
const PAGEFAULT_WP: u64 = 2;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    range: Range,
    mode: u64,
}

/// One message: the union's three words are flags, address and thread for a page fault.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(in super::super) struct Message {
    event: u8,
    reserved1: u8,
    reserved2: u16,
    reserved3: u32,
    words: [u64; 3],
}

const _: () = assert!(size_of::<Api>() == 24 && size_of::<Range>() == 16);
const _: () = assert!(size_of::<Register>() == 32 && size_of::<WriteProtect>() == 24);
const _: () = assert!(size_of::<Message>() == 32 && offset_of!(Message, words) == 8);

const IOCTL_API: Opcode = opcode::read_write::<Api>(GROUP, 0x3F);
const IOCTL_REGISTER: Opcode = opcode::read_write::<Register>(GROUP, 0x00);
// "Read" is a slip of the kernel's header that has become its interface: the range goes in.
const IOCTL_WAKE: Opcode = opcode::read::<Range>(GROUP, 0x02);
const IOCTL_WRITEPROTECT: Opcode = opcode::read_write::<WriteProtect>(GROUP, 0x06);
const IOCTL_NEW: Opcode = opcode::none(GROUP, 0x00);

/// What a thread did to a page of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct PageFault {
    pub(in super::super) va: usize,
    pub(in super::super) write: bool,
}

impl Message {
    /// The fault this message tells of; other events need no answer but to be read.
    pub(in super::super) fn page_fault(&self) -> Option<PageFault> {
        (self.event == EVENT_PAGEFAULT).then(|| PageFault {
            va: usize::try_from(self.words[1]).expect("an address fits"),
            write: self.words[0] & (PAGEFAULT_WRITE | PAGEFAULT_WP) != 0,
        })
    }
}

/// Whose faults a descriptor reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Reach {
    /// Instructions and system calls.
    All,
    /// Instructions only: needs no privilege.
    UserOnly,
}

/// What is reported of a registered range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Watch {
    Missing,
    WriteProtected,
}

/// An open userfaultfd.
#[derive(Debug)]
pub(in super::super) struct Uffd {
    fd: OwnedFd,
    features: u64,
}

impl Uffd {
    /// Opens a descriptor with those of `wanted` that the kernel has.
    ///
    /// # Errors
    /// The failing call's name, and the error.
    pub(in super::super) fn open(
        reach: Reach,
        wanted: u64,
    ) -> Result<Uffd, (&'static str, io::Error)> {
        // A descriptor takes UFFDIO_API once, and refuses unknown features: ask with a temporary one.
        let mut offered = Api {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        handshake(&descriptor(reach)?, &mut offered)?;
        let mut chosen = Api {
            api: UFFD_API,
            features: wanted & offered.features,
            ioctls: 0,
        };
        let features = chosen.features;
        let fd = descriptor(reach)?;
        handshake(&fd, &mut chosen)?;
        Ok(Uffd { fd, features })
    }

    pub(in super::super) fn has(&self, features: u64) -> bool {
        self.features & features == features
    }

    pub(in super::super) fn register(&self, span: Span, watch: Watch) -> io::Result<()> {
        let mode = match watch {
            Watch::Missing => MODE_MISSING,
            Watch::WriteProtected => MODE_WP,
        };
        let mut register = Register {
            range: range(span),
            mode,
            ioctls: 0,
        };
        update::<IOCTL_REGISTER, _>(self.fd.as_fd(), &mut register)
    }

    /// Makes the next store to each page of the span a fault. EAGAIN (a move of this context waits for its event to
    /// be read) means again.
    pub(in super::super) fn write_protect(&self, span: Span) -> io::Result<()> {
        loop {
            let mut protect = WriteProtect {
                range: range(span),
                mode: WRITEPROTECT_MODE_WP,
            };
            match update::<IOCTL_WRITEPROTECT, _>(self.fd.as_fd(), &mut protect) {
                Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => {
                    std::thread::yield_now()
                }
                result => return result,
            }
        }
    }

    /// Lets every thread that waits in `va .. va + len` try again. The range need not be mapped any more.
    pub(in super::super) fn wake(&self, va: usize, len: usize) {
        let mut range = Range {
            start: va as u64,
            len: len as u64,
        };
        let _ = update::<IOCTL_WAKE, _>(self.fd.as_fd(), &mut range);
    }

    /// Reads the messages that are there; zero when there are none.
    pub(in super::super) fn read(&self, messages: &mut [Message]) -> io::Result<usize> {
        let (start, len) = (messages.as_mut_ptr().cast::<u8>(), size_of_val(messages));
        // SAFETY: `messages` is exclusively borrowed and any bytes are a valid Message.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, len) };
        match rustix::io::read(&self.fd, bytes) {
            Ok(read) => Ok(read / size_of::<Message>()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn range(span: Span) -> Range {
    Range {
        start: span.va() as u64,
        len: span.len() as u64,
    }
}

fn handshake(fd: &OwnedFd, api: &mut Api) -> Result<(), (&'static str, io::Error)> {
    update::<IOCTL_API, _>(fd.as_fd(), api).map_err(|error| ("ioctl(UFFDIO_API)", error))
}

/// A descriptor by the system call, else by the device, whose permissions an administrator can open.
fn descriptor(reach: Reach) -> Result<OwnedFd, (&'static str, io::Error)> {
    let mut flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    if reach == Reach::UserOnly {
        flags |= UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
    }
    // SAFETY: what the descriptor can do to memory it does through the methods above, which take spans of ours.
    let refused = match unsafe { rustix::mm::userfaultfd(flags) } {
        Ok(fd) => return Ok(fd),
        Err(error) => ("userfaultfd(2)", error.into()),
    };
    let device = rustix::fs::open(
        "/dev/userfaultfd",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let Ok(device) = device else {
        return Err(refused);
    };
    // SAFETY: USERFAULTFD_IOC_NEW takes flags by value and touches no memory.
    unsafe { ioctl::ioctl(&device, NewDescriptor(flags.bits())) }
        .map_err(|error| ("ioctl(/dev/userfaultfd, USERFAULTFD_IOC_NEW)", error.into()))
}

/// `USERFAULTFD_IOC_NEW`: flags by value in, a descriptor out.
struct NewDescriptor(u32);

// SAFETY: the opcode takes an integer and returns a new descriptor; nothing in this process's memory changes.
unsafe impl ioctl::Ioctl for NewDescriptor {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        IOCTL_NEW
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::without_provenance_mut(self.0 as usize)
    }

    unsafe fn output_from_ptr(
        out: ioctl::IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<Self::Output> {
        // SAFETY: the call has succeeded, so `out` is a descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(out) })
    }
}

fn update<const CODE: Opcode, T>(fd: BorrowedFd<'_>, value: &mut T) -> io::Result<()> {
    // SAFETY: every CODE of this file is paired with the structure its opcode was computed from.
    let request = unsafe { Updater::<CODE, T>::new(value) };
    // SAFETY: the ranges inside come from spans of ours, and the structure outlives the call.
    Ok(unsafe { ioctl::ioctl(fd, request) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the kernel's header, computed by hand from `_IOWR(0xAA, ..)` and its relatives.
    #[test]
    fn opcodes_are_those_of_the_kernels_header() {
        assert_eq!(u64::from(IOCTL_API), 0xC018_AA3F);
        assert_eq!(u64::from(IOCTL_REGISTER), 0xC020_AA00);
        assert_eq!(u64::from(IOCTL_WAKE), 0x8010_AA02);
        assert_eq!(u64::from(IOCTL_WRITEPROTECT), 0xC018_AA06);
        assert_eq!(u64::from(IOCTL_NEW), 0xAA00);
    }
}
