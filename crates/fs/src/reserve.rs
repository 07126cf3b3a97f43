//! Who may use the blocks that are set aside for the superuser.
//!
//! A mount acts for one user ([`MountOptions::owner`](crate::MountOptions::owner)). A server acts for many, one request at a
//! time on a thread: while it holds a [`ReserveGuard`], what the thread takes is taken for whoever that is about. As in a
//! kernel, nothing else hands the caller down to where blocks are found.

#[cfg(feature = "std")]
use core::marker::PhantomData;
#[cfg(feature = "std")]
use std::cell::Cell;

use ext2dax_format::superblock::RawSuperblock;

use crate::options::MountOptions;

#[cfg(feature = "std")]
std::thread_local! {
    static ALLOWED: Cell<Option<bool>> = const { Cell::new(None) };
}

/// The user and the group of an image's reserve, besides root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    user: u32,
    group: u32,
}

impl Reserve {
    pub(crate) fn of(superblock: &RawSuperblock, options: &MountOptions) -> Self {
        let (user, group) = (&superblock.s_def_resuid, &superblock.s_def_resgid);
        Self {
            user: options.reserved_uid.unwrap_or(u32::from(user.get())),
            group: options.reserved_gid.unwrap_or(u32::from(group.get())),
        }
    }

    /// Whether a user may use it: root, its user, and who is in its group unless that is root's. As Linux has it.
    pub fn is_open_to(&self, uid: u32, is_in_group: impl FnOnce(u32) -> bool) -> bool {
        uid == 0 || uid == self.user || self.group != 0 && is_in_group(self.group)
    }
}

/// As long as it lives, its thread takes blocks for somebody who may use the reserve, or may not, whatever the mounts that
/// it uses say. The one made last counts.
#[cfg(feature = "std")]
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct ReserveGuard {
    before: Option<bool>,
    thread: PhantomData<*const ()>,
}

#[cfg(feature = "std")]
impl ReserveGuard {
    /// From now on the calling thread may use reserved blocks, or may not.
    pub fn new(allowed: bool) -> Self {
        Self {
            before: ALLOWED.replace(Some(allowed)),
            thread: PhantomData,
        }
    }
}

#[cfg(feature = "std")]
impl Drop for ReserveGuard {
    fn drop(&mut self) {
        ALLOWED.set(self.before);
    }
}

/// What the calling thread's guard says, if it has one.
pub(crate) fn of_this_thread() -> Option<bool> {
    #[cfg(feature = "std")]
    return ALLOWED.get();
    #[cfg(not(feature = "std"))]
    None
}
