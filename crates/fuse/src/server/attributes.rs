//! Attributes: what stat answers, what chmod, chown, truncate and utimensat change.

use ext2dax::{Attributes, Clock as _, Inode, InodeFlags, SetAttributes, SystemClock, Timestamp};

use super::{Answer, Caller, Errno, Server};

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// The time of the request.
    Now,
    /// This one.
    At(Timestamp),
}

/// A change of attributes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Permission bits; a type in it is ignored, as it cannot change.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub accessed: Option<Time>,
    /// Last change of the contents.
    pub modified: Option<Time>,
}

const SET_GROUP_ID: u16 = 0o2000;

impl Server {
    /// What stat answers.
    ///
    /// # Errors
    /// `ESTALE`, `EUCLEAN`.
    pub fn attributes(&self, node: u64) -> Answer<Attributes> {
        Ok(self.node(node)?.attributes()?)
    }

    /// Changes attributes, the length first: if that fails, nothing has changed.
    ///
    /// A change of nothing is what the kernel asks for before a write that takes set-id bits, and a chown(2) that names
    /// neither owner nor group, by whomever: the two cannot be told apart. Set-id bits go, the change time is set.
    ///
    /// # Errors
    /// `EROFS`, `EPERM` by a flag, `EFBIG`, `ENOSPC`, `EINVAL` for the length of anything but a regular file.
    pub fn set_attributes(&self, caller: Caller, node: u64, change: Change) -> Answer<Attributes> {
        let inode = self.node(node)?;
        if let Some(size) = change.size {
            if !caller.is_root() {
                Self::drop_privileges(caller, &inode)?;
            }
            inode.set_len(size)?;
        }
        if change == Change::default() {
            Self::drop_privileges(caller, &inode)?;
        }
        let touch = change.accessed == Some(Time::Now) && change.modified == Some(Time::Now);
        let time = |time: Option<Time>| time.filter(|_| !touch).map(Self::resolve);
        let set = SetAttributes {
            permissions: change
                .mode
                .map(|mode| u16::try_from(mode & 0o7777).unwrap_or(0)),
            uid: change.uid,
            gid: change.gid,
            accessed: time(change.accessed),
            modified: time(change.modified),
            touch,
        };
        if set != SetAttributes::default() || change.size.is_none() {
            inode.set_attributes(&set)?;
        }
        Ok(inode.attributes()?)
    }

    /// Takes from a regular file what a write by `caller` leaves nobody: set-id bits and file capabilities.
    pub(super) fn drop_privileges(caller: Caller, inode: &Inode) -> Answer<()> {
        let attributes = inode.attributes()?;
        let of_group = attributes.permissions & SET_GROUP_ID != 0;
        // Only then is it worth the look at the groups of his process.
        if of_group && !caller.is_root() && !caller.is_in_group(attributes.gid) {
            inode.clear_privileges_as_stranger()?;
        } else {
            inode.clear_privileges()?;
        }
        Ok(())
    }

    fn resolve(time: Time) -> Timestamp {
        match time {
            Time::At(time) => time,
            Time::Now => SystemClock.now(),
        }
    }

    /// Whether a file may be opened like this: flags that the kernel does not know of forbid it, as they do on ext2.
    ///
    /// # Errors
    /// `EPERM` for writing to an immutable file, or to an append-only one other than at its end.
    pub fn check_open(&self, node: u64, writes: bool, appends: bool) -> Answer<()> {
        if !writes {
            return Ok(());
        }
        let flags = self.node(node)?.attributes()?.flags;
        if flags.contains(InodeFlags::IMMUTABLE) || flags.contains(InodeFlags::APPEND) && !appends {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
}
