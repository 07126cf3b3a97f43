//! The system calls of this module, each behind a function that cannot be misused.
//!
//! # Invariants
//! An address range enters as a [`Span`], and only two things hand out spans: a [`Reservation`], which owns its range
//! until it is dropped, and a [`Stage`], which owns it until it has been moved. So a call that replaces what a span
//! maps touches no memory but ours, and no Rust reference into such a range exists anywhere (values in, values out).

pub(super) mod uffd;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::mm::{Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags};

/// A level above the page: the grain of huge entries, of address congruence and of eviction windows.
pub(super) const HUGE: usize = 2 << 20;

/// The size of a page of this process, in bytes.
pub(super) fn page_size() -> usize {
    rustix::param::page_size()
}

/// The kernel's limit on mappings of one process (`vm.max_map_count`).
pub(super) fn max_map_count() -> usize {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(65_530)
}

/// A page-aligned range of addresses that a [`Reservation`] or a [`Stage`] owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    va: usize,
    len: usize,
}

impl Span {
    pub(super) fn va(self) -> usize {
        self.va
    }

    pub(super) fn len(self) -> usize {
        self.len
    }

    /// The `len` bytes from `at` on, inside this span.
    pub(super) fn part(self, at: usize, len: usize) -> Span {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.len),
            "a part of a span lies inside it"
        );
        Span {
            va: self.va + at,
            len,
        }
    }

    fn ptr(self) -> *mut std::ffi::c_void {
        ptr::with_exposed_provenance_mut(self.va)
    }
}

/// What a mapping permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    None,
    Read,
    ReadWrite,
}

impl Rights {
    fn prot(self) -> ProtFlags {
        match self {
            Rights::None => ProtFlags::empty(),
            Rights::Read => ProtFlags::READ,
            Rights::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        }
    }
}

/// How a file is mapped: `MAP_SHARED`, or with `MAP_SYNC` where the medium is persistent memory behind a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Plain,
    Sync,
}

/// Address space that belongs to us until it is dropped, whatever is mapped in it.
#[derive(Debug)]
pub(super) struct Reservation {
    whole: Span,
}

impl Reservation {
    /// Reserves `len` bytes whose start is `phase` modulo 2 MiB, without memory and without rights.
    pub(super) fn new(len: usize, phase: usize) -> io::Result<Reservation> {
        let padded = len
            .checked_add(2 * HUGE)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: without an address the kernel chooses a free range, so nothing that exists is replaced.
        let start = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), padded, ProtFlags::empty(), flags)
        }?;
        let base = start.expose_provenance();
        let va = base + (phase.wrapping_sub(base) & (HUGE - 1));
        let (head, tail) = (va - base, base + padded - (va + len));
        let all = Reservation {
            whole: Span { va, len },
        };
        release(Span {
            va: base,
            len: head,
        })?;
        release(Span {
            va: va + len,
            len: tail,
        })?;
        Ok(all)
    }

    pub(super) fn span(&self) -> Span {
        self.whole
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // At the mapping limit the kernel can refuse to cut a range out; then it stays reserved for the life of the
        // process, which costs address space and nothing else.
        let _ = release(self.whole);
    }
}

fn release(span: Span) -> io::Result<()> {
    if span.len == 0 {
        return Ok(());
    }
    // SAFETY: the span is owned by the caller and is not used again; no reference into it exists (module invariant).
    Ok(unsafe { rustix::mm::munmap(span.ptr(), span.len) }?)
}

/// A mapping at an address nobody knows, to be moved over a view in one step.
///
/// The kernel chooses the place of each stage: after a move the old place is free, and another thread's stack may
/// come to lie there, so no staging address may be used twice.
#[derive(Debug)]
pub(super) struct Stage {
    span: Span,
}

impl Stage {
    /// Anonymous memory without rights.
    pub(super) fn anonymous(len: usize) -> io::Result<Stage> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: without an address the kernel chooses a free range, so nothing that exists is replaced.
        let at =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags) }?;
        Stage {
            span: Span {
                va: at.expose_provenance(),
                len,
            },
        }
        .kept_from_children()
    }

    /// `len` bytes of `file` from `offset` on, without rights.
    pub(super) fn file(file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Stage> {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: without an address the kernel chooses a free range, so nothing that exists is replaced.
        let at = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::empty(),
                flags,
                file,
                offset,
            )
        }?;
        Stage {
            span: Span {
                va: at.expose_provenance(),
                len,
            },
        }
        .kept_from_children()
    }

    fn kept_from_children(self) -> io::Result<Stage> {
        dont_fork(self.span)?;
        Ok(self)
    }

    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Puts the staged mapping in the place of whatever `over` maps, in a single step. Under `EVENT_REMAP` it returns
    /// when the fault thread has read the event, so it is never called on that thread.
    pub(super) fn move_over(self, over: Span) -> io::Result<()> {
        assert_eq!(
            self.span.len, over.len,
            "a stage covers exactly what it replaces"
        );
        let (from, len) = (self.span, self.span.len);
        // SAFETY: `from` is this stage's own and `over` belongs to a view; no reference into either exists.
        unsafe {
            rustix::mm::mremap_fixed(from.ptr(), len, len, MremapFlags::MAYMOVE, over.ptr())
        }?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Only reached when a step failed: what is left of the stage goes.
        let _ = release(self.span);
    }
}

/// Maps `file` from `offset` on over the whole span: one step, over when it returns. Children do not inherit it.
pub(super) fn map_file(
    over: Span,
    file: BorrowedFd<'_>,
    offset: u64,
    rights: Rights,
    sharing: Sharing,
) -> io::Result<()> {
    let flags = match sharing {
        Sharing::Plain => MapFlags::SHARED,
        Sharing::Sync => MapFlags::SHARED_VALIDATE | MapFlags::SYNC,
    } | MapFlags::NORESERVE
        | MapFlags::FIXED;
    // SAFETY: the span is ours and nothing refers into it, so replacing what it maps breaks no reference.
    unsafe { rustix::mm::mmap(over.ptr(), over.len, rights.prot(), flags, file, offset) }?;
    dont_fork(over)
}

/// Maps private zeroes over the whole span, in one step. Children do not inherit it.
pub(super) fn map_anonymous(over: Span, rights: Rights) -> io::Result<()> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: the span is ours and nothing refers into it, so replacing what it maps breaks no reference.
    unsafe { rustix::mm::mmap_anonymous(over.ptr(), over.len, rights.prot(), flags) }?;
    dont_fork(over)
}

/// Changes the rights of the whole span.
pub(super) fn protect(span: Span, rights: Rights) -> io::Result<()> {
    let flags = MprotectFlags::from_bits_retain(rights.prot().bits());
    // SAFETY: the span is ours and nothing refers into it.
    Ok(unsafe { rustix::mm::mprotect(span.ptr(), span.len, flags) }?)
}

/// A child of the program gets nothing here: an unresolved page would read as silent zeroes in it.
fn dont_fork(span: Span) -> io::Result<()> {
    advise(span, Advice::LinuxDontFork)
}

/// No huge page may take the place of single zero pages. Kernels without huge pages answer EINVAL: nothing to forbid.
pub(super) fn no_huge_pages(span: Span) {
    let _ = advise(span, Advice::LinuxNoHugepage);
}

/// Puts zero pages under a readable span, for kernels that can protect populated pages only.
pub(super) fn populate_read(span: Span) -> io::Result<()> {
    advise(span, Advice::LinuxPopulateRead)
}

fn advise(span: Span, advice: Advice) -> io::Result<()> {
    // SAFETY: the advice used here changes inheritance, page sizes or population, never contents; the span is ours.
    Ok(unsafe { rustix::mm::madvise(span.ptr(), span.len, advice) }?)
}

/// A memory file of `len` bytes, all of them absent.
pub(super) fn memory_file(name: &str, len: u64) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, len)?;
    Ok(file)
}

/// Whether pieces of the image may be mapped with `MAP_SYNC`: found out by mapping one page of it.
pub(super) fn probe_sharing(image: &File, offset: u64) -> Sharing {
    let Ok(place) = Reservation::new(page_size(), 0) else {
        return Sharing::Plain;
    };
    match map_file(
        place.span(),
        image.as_fd(),
        offset,
        Rights::Read,
        Sharing::Sync,
    ) {
        Ok(()) => Sharing::Sync,
        Err(_) => Sharing::Plain,
    }
}

/// A counter that another thread can wait for in `poll`.
pub(super) fn event() -> io::Result<OwnedFd> {
    let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
    Ok(rustix::event::eventfd(0, flags)?)
}

/// Pokes whoever polls `event`. A counter that is full already pokes as well.
pub(super) fn poke(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes_native());
}

/// Takes the pokes that have arrived.
pub(super) fn take_pokes(event: &OwnedFd) {
    let _ = rustix::io::read(event, &mut [0_u8; 8]);
}

/// The counter of an eventfd is a number of this machine, not of the medium.
trait NativeBytes {
    fn to_ne_bytes_native(self) -> [u8; 8];
}

impl NativeBytes for u64 {
    #[expect(
        clippy::host_endian_bytes,
        reason = "an eventfd takes a number in the order of this machine"
    )]
    fn to_ne_bytes_native(self) -> [u8; 8] {
        self.to_ne_bytes()
    }
}
