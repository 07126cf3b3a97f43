//! Ranked locks over std, spinning or the schedule explorer.
//!
//! Every lock of ext2dax has a [`rank`](mod@rank): a thread may only take a lock above all those it holds. Debug builds keep
//! the ranks that a thread holds and panic on a wrong order, at the first wrong acquisition and not at the first
//! deadlock. Release builds keep nothing: a lock is the primitive below it and no more, because locks are taken inside
//! fault handlers, which may be signal handlers (no heap, no thread-local value with a destructor).
//!
//! Three back ends have one interface:
//!
//! | Build | Locks | Waiting |
//! |---|---|---|
//! | feature `std` | std's, futex based on Linux | in the kernel |
//! | without `std` | spinning | [`set_relax`] names what to do between two looks |
//! | `--cfg shuttle` | the schedule explorer's | every operation is a schedule point, see `explore` |
//!
//! A reader-writer lock never starves a writer on any of them: a reader that comes after a waiting writer waits, too.
//! Locks are not poisoned by a panic: what they guard is either rebuilt from the medium or advisory.
#![cfg_attr(not(any(feature = "std", shuttle)), no_std)]

#[cfg(any(feature = "std", shuttle))]
extern crate std;

pub mod atomic;
mod backend;
mod condvar;
#[cfg(shuttle)]
pub mod explore;
mod gate;
pub mod lane;
mod mutex;
mod once;
pub mod rank;
mod rwlock;
#[cfg(feature = "std")]
pub mod shield;
#[cfg(not(feature = "std"))]
mod shield {
    //! Without std there are no signals.
    use crate::rank::Rank;

    pub(crate) struct Raised;

    impl Raised {
        #[inline(always)]
        pub(crate) fn new(_covered: bool) -> Self {
            Self
        }
    }

    pub(crate) const fn covers(_rank: Rank) -> bool {
        false
    }
}
#[cfg(any(feature = "std", shuttle))]
pub mod thread;

pub use backend::spinning::set_relax;
pub use condvar::Condvar;
pub use gate::{Gate, GateGuard, GatePass};
pub use mutex::{Mutex, MutexGuard};
pub use once::OnceLock;
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Gives way between two looks at something that another thread is about to change.
pub fn relax() {
    backend::relax();
}

/// A schedule point of the explorer, for accesses that it cannot see (memory of a view, a page table). Nothing otherwise.
#[inline(always)]
pub fn point() {
    #[cfg(shuttle)]
    backend::point();
}

/// Whether the code under test runs with the named mistake.
///
/// Always `false`, at compile time, except under the schedule explorer: there a test chooses one name
/// (`explore::Config::mutant`) and shows that some oracle notices. The name stands in the real code, where the mistake
/// would be made: `if !mutant("zero-page-kept") { unmap(..) }`.
#[cfg(not(shuttle))]
#[inline(always)]
pub const fn mutant(_name: &str) -> bool {
    false
}

#[cfg(shuttle)]
pub use explore::mutant;
