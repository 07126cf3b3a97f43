//! Keeps signal handlers out of a thread while it holds a lock that a page fault may need.
//!
//! Where page faults come as signals, a handler of the program that touches a mapped file faults, and the fault takes
//! locks: on top of a thread that holds them it would wait for itself. So whoever installs such fault handlers installs
//! a shield: its two functions are called around every lock of rank [`INVALIDATE`] or above.
//!
//! Without one, a lock costs one load more. This is a global because signal handlers are: there is one set a process.

use core::marker::PhantomData;
use std::sync::OnceLock;

use crate::rank::{INVALIDATE, Rank};

/// What blocks signals in the calling thread, and lets them through again. Calls nest.
#[derive(Clone, Copy, Debug)]
pub struct Shield {
    /// Before the lock is waited for.
    pub raise: fn(),
    /// After it has been let go.
    pub lower: fn(),
}

static SHIELD: OnceLock<Shield> = OnceLock::new();

/// Puts `shield` around all locks taken from now on. The first one stays.
pub fn install(shield: Shield) {
    let _ = SHIELD.set(shield);
}

/// Whether a lock of this rank is taken behind the shield.
pub(crate) const fn covers(rank: Rank) -> bool {
    rank.number() >= INVALIDATE.number()
}

/// The shield of one acquisition, lowered on drop.
pub(crate) struct Raised {
    lower: Option<fn()>,
    not_send: PhantomData<*const ()>,
}

impl Raised {
    #[inline]
    pub(crate) fn new(covered: bool) -> Self {
        let shield = if covered { SHIELD.get() } else { None };
        if let Some(shield) = shield {
            (shield.raise)();
        }
        Self {
            lower: shield.map(|shield| shield.lower),
            not_send: PhantomData,
        }
    }
}

impl Drop for Raised {
    #[inline]
    fn drop(&mut self) {
        if let Some(lower) = self.lower {
            lower();
        }
    }
}
