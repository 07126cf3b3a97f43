//! Questions to the fault handler, and its answers.

use core::ops::Range;

use ext2dax_format::Error;

/// One access that no translation permits.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Page of the file (not of the view).
    pub idx: u64,
    /// A store, or the notice of one.
    pub write: bool,
    /// An entry of 2 MiB is wanted.
    pub huge: bool,
    /// A copy of the library itself runs into it and can be cut short.
    pub in_copy: bool,
    /// Never wait: where a lock or gate is busy, or another thread has to do something first, answer `WouldBlock`.
    pub nowait: bool,
    /// Pages that may be served at the same price, holding `idx`; empty: only that page. Those whose blocks form one run
    /// with the page's are, wherever else they are mapped already.
    pub around: Range<u64>,
    /// Pages of `around`, holding `idx`, of which a store into a hole may give blocks to those from `idx` on; empty: only
    /// to that page.
    pub fill: Range<u64>,
}

impl Fault {
    /// A load or store of one page, in the waiting form.
    #[must_use]
    pub fn at(idx: u64, write: bool) -> Fault {
        Fault {
            idx,
            write,
            huge: false,
            in_copy: false,
            nowait: false,
            around: 0..0,
            fill: 0..0,
        }
    }
}

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The access is permitted now: run it again.
    Installed,
    /// Something changed meanwhile: run the access again.
    Retry,
    /// No entry of 2 MiB here: ask for a page.
    FallbackToPage,
    /// The access cannot be served. Nothing has changed, and the next one may succeed.
    Bus(Bus),
    /// The view does not allow it.
    Segv,
    /// No memory for tables.
    NoMemory,
    /// As `Bus`, `Segv` or `NoMemory`, in a copy of the library: it shall end here.
    CutShort,
    /// Only in the trying form: nothing has changed; ask again from a thread that may wait.
    WouldBlock,
}

/// Why an access got SIGBUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// The page lies wholly past the end of the file.
    PastEof,
    /// A store to a hole, and no block is free.
    NoSpace,
    /// A store to a hole, and the owner may have no more.
    Quota,
    /// The medium failed.
    Io,
    /// The block tree contradicts itself.
    Corrupt,
    /// The medium lost these bytes.
    Poison,
    /// A store to a file system that became read-only.
    ReadOnly,
    /// The file system was shut down.
    Shutdown,
}

impl From<Error> for Bus {
    fn from(error: Error) -> Bus {
        match error {
            Error::NoSpace => Bus::NoSpace,
            Error::Corrupt(_) => Bus::Corrupt,
            Error::ReadOnlyFs => Bus::ReadOnly,
            _ => Bus::Io,
        }
    }
}
