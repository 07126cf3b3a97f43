//! The MMU of a Linux process: a file of the image as memory whose pages are the image's blocks.
//!
//! The "page table" is made of pieces of mappings, the "trap" is userfaultfd or a signal. A view lies over a *shadow*, an
//! empty memory file as long as the file: what is not mapped there is a userfault inside the size, and the kernel's own
//! SIGBUS past it. Runs of blocks are pieces of the image mapped over the shadow; holes are zero windows, anonymous
//! memory under write protection; a page whose fault failed is a piece of an empty file.
//!
//! | File | Holds |
//! |---|---|
//! | `sys` | system calls, structures, opcodes: all memory is reached through spans of ours |
//! | `probe` | which mode works here, and why not a better one |
//! | `record` | what each page of a view maps |
//! | `table` | `dax::PageTable` for a view |
//! | `registry` | views by address, for the fault thread and signal handlers |
//! | `faults` | the two threads |
//! | `signal` | the handlers of Signals mode |
//! | `budget` | the kernel's limit on mappings |
//! | `access` | loads and stores that survive SIGBUS |
//! | `view` | the address range a program sees |
//! | `class` | how threads are scheduled |
//!
//! The library starts no thread. The program runs [`FaultLoop::run`] and [`Resolver::run`] on two of its own, before it
//! touches a view, and ends them with [`HostMmu::stop`] after the last view is gone.
//!
//! # Invariants
//! * A revocation returns when no CPU reaches the old pages: one `mmap` or one `mremap` replaces a range.
//! * Nothing is registered in place under a live page: it is staged elsewhere and moved, with `EVENT_REMAP`.
//! * Moves never happen on the fault thread, which must be reading while they wait.
//!
//! # Locking
//! Called with INVALIDATE and ENTRY held. Takes nothing of the file system; the kernel's own lock of the address space
//! stands for PTABLE.

mod access;
mod budget;
mod class;
mod faults;
mod probe;
mod record;
mod registry;
mod signal;
mod stats;
mod sys;
mod table;
mod view;

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ext2dax_dax::{BlockMap, DaxFile};
use ext2dax_format::Error;

pub use access::Trap;
pub use class::{Class, set_class};
pub use faults::{FaultLoop, Resolver};
pub use probe::{Mode, Want};
pub use signal::{on_signal, reinstall, survive_bus};
pub use stats::Stats;
pub use view::View;

use budget::Budget;
use faults::Queue;
use probe::ZeroWindow;
use registry::Registry;
use stats::Counters;
use sys::Sharing;
use sys::uffd::Uffd;
use view::{Around, Mapped, Wait};

/// What a view lets the program do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only; a store is SIGSEGV.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// How an MMU is made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Which mode.
    pub mode: Want,
    /// Pages that the first store to a hole fills at once, if they are holes, too: 1 to 512. More make faults cheaper
    /// and take blocks that nobody asked for.
    pub hole_fill_pages: u32,
    /// Mappings that all views together may take; half of `vm.max_map_count` if not given.
    pub max_mappings: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: Want::Auto,
            hole_fill_pages: 16,
            max_mappings: None,
        }
    }
}

/// What all views of an image share.
#[derive(Debug)]
struct Core {
    mode: Mode,
    why: String,
    uffd: Option<Uffd>,
    zero_window: ZeroWindow,
    /// One open file for every piece: pieces of two open files do not merge.
    image: OwnedFd,
    image_offset: u64,
    sharing: Sharing,
    eof: OwnedFd,
    page: usize,
    hole_fill_pages: u64,
    listed: Registry,
    budget: Budget,
    stats: Counters,
    queue: Queue,
    faults_poke: OwnedFd,
    resolver_poke: OwnedFd,
    stopped: AtomicBool,
    /// Error pages made since the resolver last looked.
    bus_pages: AtomicUsize,
}

impl Core {
    fn registry(&self) -> &Registry {
        if self.mode == Mode::Signals {
            &signal::VIEWS
        } else {
            &self.listed
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn note_bus(&self) {
        self.bus_pages.fetch_add(1, Ordering::AcqRel);
        sys::poke(&self.resolver_poke);
    }

    /// The pages of the window of 2 MiB that holds page `idx`.
    fn window(&self, idx: u64) -> Range<u64> {
        let pages = (sys::HUGE / self.page) as u64;
        let start = idx / pages * pages;
        start..start + pages
    }

    /// The pages that the answer to a fault at `idx` may serve as well.
    fn around(&self, view: &Mapped, idx: u64) -> Around {
        let inside = view.table.inside();
        let clip = |pages: Range<u64>| {
            pages.start.max(inside.start).min(idx)..pages.end.min(inside.end).max(idx + 1)
        };
        let start = idx / self.hole_fill_pages * self.hole_fill_pages;
        Around {
            map: clip(self.window(idx)),
            fill: clip(start..start + self.hole_fill_pages),
        }
    }
}

/// The MMU of this process for one image.
#[derive(Debug)]
pub struct HostMmu {
    core: Arc<Core>,
}

impl HostMmu {
    /// Makes the MMU for an image that begins at byte `image_offset` of the open file `image`, for reading and writing.
    ///
    /// It shares that open file: a lock on it holds until the MMU and its views are gone.
    ///
    /// # Errors
    /// `Unsupported`, with the reason, if the wanted mode cannot be had, or if the image does not begin on a page (then
    /// no block could be a piece; reading and writing files work all the same). Else the error of a system call.
    pub fn new(image: &File, image_offset: u64, options: &Options) -> io::Result<HostMmu> {
        let page = sys::page_size();
        if !image_offset.is_multiple_of(page as u64) {
            let text = format!(
                "the image begins at byte {image_offset}, not on a page of {page} bytes: no views"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let choice = probe::choose(options.mode)?;
        if choice.mode == Mode::Signals {
            signal::reinstall()?;
        }
        let core = Core {
            mode: choice.mode,
            why: choice.why,
            uffd: choice.uffd,
            zero_window: choice.zero_window,
            image: image.as_fd().try_clone_to_owned()?,
            image_offset,
            sharing: sys::probe_sharing(image, image_offset),
            eof: sys::memory_file("ext2dax-eof", 0)?,
            page,
            hole_fill_pages: u64::from(options.hole_fill_pages.clamp(1, 512)),
            listed: Registry::new(),
            budget: Budget::new(options.max_mappings)?,
            stats: Counters::default(),
            queue: Queue::new(),
            faults_poke: sys::event()?,
            resolver_poke: sys::event()?,
            stopped: AtomicBool::new(false),
            bus_pages: AtomicUsize::new(0),
        };
        Ok(HostMmu {
            core: Arc::new(core),
        })
    }

    /// The mode that was chosen.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.core.mode
    }

    /// Why this mode: the calls that failed, and what an administrator could change.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.core.why
    }

    /// The fault thread's work.
    #[must_use]
    pub fn fault_loop(&self) -> FaultLoop {
        FaultLoop {
            core: Arc::clone(&self.core),
        }
    }

    /// The resolver's work.
    #[must_use]
    pub fn resolver(&self) -> Resolver {
        Resolver {
            core: Arc::clone(&self.core),
        }
    }

    /// Shows `range` (bytes; begins on a page) of `file` as memory. It may reach past the end of the file.
    ///
    /// Nothing is mapped yet: the first access of a page is a fault. See [`View::prefault`].
    ///
    /// # Errors
    /// `InvalidArgument` for an empty range or one that does not begin on a page; `NoMemory` without address space or
    /// mappings, `Io` without descriptors; and as `DaxFile::attach`.
    pub fn map<M, F>(&self, file: F, range: Range<u64>, access: Access) -> Result<View, Error>
    where
        M: BlockMap + 'static,
        F: Deref<Target = DaxFile<M>> + Send + Sync + 'static,
    {
        View::new(&self.core, file, range, access)
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats.snapshot()
    }

    /// Ends both threads. Views that are left hang on their next fault: close them first.
    pub fn stop(&self) {
        self.core.stopped.store(true, Ordering::Release);
        sys::poke(&self.core.faults_poke);
        sys::poke(&self.core.resolver_poke);
    }
}

/// Ends the process with a message, without locks or memory: the only answer where going on would lose data.
fn die(message: &str) -> ! {
    let parts: [&[u8]; 3] = [b"ext2dax: ", message.as_bytes(), b"\n"];
    for part in parts {
        let _ = rustix::io::write(io::stderr().as_fd(), part);
    }
    std::process::abort()
}
