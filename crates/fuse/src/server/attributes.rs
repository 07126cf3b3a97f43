//! Attributes: what stat answers, what chmod, chown, truncate and utimensat change.

use ext2dax::{Attributes, Clock as _, FileType, Inode, SetAttributes, SystemClock, Timestamp};

use super::{Answer, Caller, Errno, Server};

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o0010;

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

impl Change {
    /// A change of owner, or a chown that names neither owner nor group: the kernel sends that as a change of nothing.
    fn is_chown(&self) -> bool {
        self.uid.is_some() || self.gid.is_some() || *self == Self::default()
    }
}

/// What a mode loses when somebody else's bytes or another owner come in: set-user-id, and set-group-id where it means
/// a program and not mandatory locking.
pub(super) fn without_set_id(permissions: u16) -> u16 {
    let lost = if permissions & GROUP_EXECUTE != 0 {
        SET_UID | SET_GID
    } else {
        SET_UID
    };
    permissions & !lost
}

/// Takes the set-id bits from a regular file whose contents change.
pub(super) fn drop_set_id(inode: &Inode) -> Answer<()> {
    if inode.file_type() != FileType::Regular {
        return Ok(());
    }
    let old = inode.attributes()?.permissions;
    let new = without_set_id(old);
    if new != old {
        inode.set_attributes(&SetAttributes {
            permissions: Some(new),
            ..SetAttributes::default()
        })?;
    }
    Ok(())
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
    /// # Errors
    /// `EROFS`, `EPERM` by a flag, `EFBIG`, `ENOSPC`, `EINVAL` for the length of anything but a regular file.
    pub fn set_attributes(&self, caller: Caller, node: u64, change: Change) -> Answer<Attributes> {
        let inode = self.node(node)?;
        if let Some(size) = change.size {
            inode.set_len(size)?;
            if !caller.is_root() {
                drop_set_id(&inode)?;
            }
        }
        let mut permissions = change
            .mode
            .map(|mode| u16::try_from(mode & 0o7777).unwrap_or(0));
        if permissions.is_none() && change.is_chown() && inode.file_type() != FileType::Directory {
            let old = inode.attributes()?.permissions;
            permissions = Some(without_set_id(old)).filter(|new| *new != old);
        }
        let set = SetAttributes {
            permissions,
            uid: change.uid,
            gid: change.gid,
            accessed: change.accessed.map(Self::resolve),
            modified: change.modified.map(Self::resolve),
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
        if flags.contains(ext2dax::InodeFlags::IMMUTABLE)
            || flags.contains(ext2dax::InodeFlags::APPEND) && !appends
        {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
}
