//! Attributes: what stat answers, what chmod, chown, truncate and utimensat change.

use ext2dax::{Attributes, Clock as _, InodeFlags, SetAttributes, SystemClock, Timestamp};

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
    /// A change of nothing is a chown(2) that names neither owner nor group, and does what is left of one: set-id bits go,
    /// the change time is set.
    ///
    /// # Errors
    /// `EROFS`, `EPERM` by a flag, `EFBIG`, `ENOSPC`, `EINVAL` for the length of anything but a regular file.
    pub fn set_attributes(&self, caller: Caller, node: u64, change: Change) -> Answer<Attributes> {
        let inode = self.node(node)?;
        if let Some(size) = change.size {
            if !caller.is_root() {
                inode.clear_privileges()?;
            }
            inode.set_len(size)?;
        }
        if change == Change::default() {
            inode.clear_privileges()?;
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
