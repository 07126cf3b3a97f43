//! Extended attributes, access control lists among them.
//!
//! | module | holds |
//! |---|---|
//! | `load` | what lies on the medium, behind an inode and in its attribute block |
//! | `store` | how it changes: a new block, one pointer |
//! | `acl` | lists and modes |
//! | `inherit` | what a new file gets from its directory |
//!
//! Names and values are those of Linux: `user.`, `trusted.`, `security.` and the two lists of `system.`, whose values have
//! the form of the system calls here and a shorter one on the medium. Who calls is not asked: whoever serves several users
//! keeps `trusted.` from most of them, and lets owners set lists.
//!
//! # On disk
//! Linux `ext4/attributes.rst`.

mod acl;
mod inherit;
mod load;
mod store;

use alloc::vec::Vec;

use ext2dax_format::slot::{Intent, Operation};
use ext2dax_format::xattr::NameIndex;
use ext2dax_format::{CorruptKind, Error, FileType, InodeFlags, Result};

use self::acl::Acl;
pub(crate) use self::inherit::Inherited;
use self::load::Loaded;
use self::store::Edit;
pub(crate) use self::store::{
    Plan, Protection, clear_in_inode, has_some_in_inode, leave_shared, make_private, release,
};
use crate::inode::{Inode, Node};

/// The longest name, prefix included, in bytes.
pub const XATTR_NAME_MAX: usize = 255;
/// The longest value that is looked at; what fits into a block is less.
pub const XATTR_VALUE_MAX: usize = 65_536;

/// The mode's set-user-id bit.
const S_ISUID: u16 = 0o4000;
/// The mode's set-group-id bit.
pub(crate) const S_ISGID: u16 = 0o2000;
/// Execution by the group: without it, set-group-id meant mandatory locks once and is left alone.
const S_IXGRP: u16 = 0o0010;

/// Whether an attribute must or must not be there before it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetXattr {
    /// Either way.
    #[default]
    Any,
    /// It must not.
    Create,
    /// It must.
    Replace,
}

/// What a name means.
#[derive(Clone, Copy, Debug)]
enum Key<'a> {
    Plain(NameIndex, &'a [u8]),
    Acl(NameIndex),
}

impl<'a> Key<'a> {
    /// # Errors
    /// `OutOfRange` for an empty name and one of more than 255 bytes; `InvalidArgument` for a bare prefix and a zero byte;
    /// `NotSupported` for a prefix that ext2 has no place for.
    fn parse(name: &'a [u8]) -> Result<Self> {
        check_length(name)?;
        if name.contains(&0) {
            return Err(Error::InvalidArgument);
        }
        match NameIndex::split(name) {
            Some((index @ (NameIndex::AclAccess | NameIndex::AclDefault), _)) => {
                Ok(Self::Acl(index))
            }
            Some((index @ (NameIndex::User | NameIndex::Trusted | NameIndex::Security), rest)) => {
                Ok(Self::Plain(index, rest))
            }
            Some(_) => Err(Error::NotSupported),
            None if matches!(name, b"user." | b"trusted." | b"security.") => {
                Err(Error::InvalidArgument)
            }
            None => Err(Error::NotSupported),
        }
    }
}

fn check_length(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        Err(Error::OutOfRange)
    } else {
        Ok(())
    }
}

/// Attributes of users belong to regular files and directories: elsewhere the mode says nothing about who may have them.
fn has_user_attributes(node: &Node) -> bool {
    matches!(node.file_type(), FileType::Regular | FileType::Directory)
}

impl Node {
    fn acl_damaged(&self) -> Error {
        CorruptKind::XattrAcl {
            inode: self.ino().get(),
        }
        .into()
    }

    /// One list, if there is one with entries. The caller holds INODE.
    ///
    /// # Errors
    /// `Corrupt`.
    fn acl(&self, index: NameIndex) -> Result<Option<Acl>> {
        let record = self.record();
        if !load::has_any(record)? {
            return Ok(None);
        }
        let Some(value) = load::find(record, index, b"")? else {
            return Ok(None);
        };
        let acl = Acl::from_disk(&value).ok_or_else(|| self.acl_damaged())?;
        Ok((!acl.is_empty()).then_some(acl))
    }

    fn supports_acl(&self) -> bool {
        self.core().options.acl && self.file_type() != FileType::Symlink
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        check_length(name)?;
        if name.starts_with(b"user.") && !has_user_attributes(self) {
            return Err(Error::NoData);
        }
        let key = Key::parse(name)?;
        let _inode = self.lock.read();
        self.check_alive()?;
        match key {
            Key::Plain(index, name) => {
                let record = self.record();
                if !load::has_any(record)? {
                    return Err(Error::NoData);
                }
                load::find(record, index, name)?.ok_or(Error::NoData)
            }
            Key::Acl(index) => {
                if !self.supports_acl() {
                    return Err(Error::NotSupported);
                }
                let acl = self.acl(index)?.ok_or(Error::NoData)?;
                Ok(acl.to_attribute())
            }
        }
    }

    fn list_xattrs(&self) -> Result<Vec<Vec<u8>>> {
        let _inode = self.lock.read();
        self.check_alive()?;
        let record = self.record();
        if !load::has_any(record)? {
            return Ok(Vec::new());
        }
        let loaded = Loaded::of(record)?;
        let shown = loaded.found.iter().filter_map(|found| {
            let is_shown = match found.index {
                NameIndex::AclAccess | NameIndex::AclDefault => self.supports_acl(),
                NameIndex::User | NameIndex::Trusted | NameIndex::Security => true,
                NameIndex::System | NameIndex::Unknown(_) => false,
            };
            let prefix = found.index.prefix()?;
            // A zero byte ends a name for every caller: such an entry could not be asked for.
            (is_shown && !found.name.contains(&0))
                .then(|| [prefix.as_bytes(), &found.name].concat())
        });
        Ok(shown.collect())
    }

    /// What every change of attributes begins with. The caller holds INODE exclusively.
    fn check_changeable(&self) -> Result<()> {
        self.check_alive()?;
        if self
            .flags()
            .intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND)
        {
            return Err(Error::NotPermitted);
        }
        Ok(())
    }

    /// Sets or removes an attribute; `None` removes.
    fn change_xattr(
        &self,
        name: &[u8],
        value: Option<&[u8]>,
        how: SetXattr,
        set_group_id: SetGroupId,
    ) -> Result<()> {
        check_length(name)?;
        if value.is_some_and(|value| value.len() > XATTR_VALUE_MAX) {
            return Err(Error::ValueTooLong);
        }
        let core = self.core();
        core.writable()?;
        let key = Key::parse(name);
        let acl = match (key, value) {
            (Ok(Key::Acl(_)), Some(value)) if !value.is_empty() => Acl::from_attribute(value)?,
            _ => None,
        };
        let _writing = core.gates.write.enter();
        let _inode = self.lock.write();
        self.check_changeable()?;
        if name.starts_with(b"user.") && !has_user_attributes(self) {
            return Err(Error::NotPermitted);
        }
        match key? {
            Key::Acl(index) => self.set_acl(index, acl, set_group_id),
            Key::Plain(index, name) => {
                let loaded = Loaded::of(self.record())?;
                let exists = loaded.find(index, name).is_some();
                match how {
                    SetXattr::Create if exists => return Err(Error::AlreadyExists),
                    SetXattr::Replace if !exists => return Err(Error::NoData),
                    _ => {}
                }
                if value.is_none() && !exists {
                    return Err(Error::NoData);
                }
                let edit = Edit { index, name, value };
                let same = Protection::of(self.record());
                Plan::new(self, &loaded, &[edit])?.commit(self, same, || {});
                Ok(())
            }
        }
    }

    /// Sets or removes a list; the access list brings the mode in step.
    fn set_acl(&self, index: NameIndex, acl: Option<Acl>, set_group_id: SetGroupId) -> Result<()> {
        if !self.supports_acl() {
            return Err(Error::NotSupported);
        }
        if index == NameIndex::AclDefault && !self.is_dir() {
            return if acl.is_some() {
                Err(Error::AccessDenied)
            } else {
                Ok(())
            };
        }
        let record = self.record();
        let mut bits = None;
        let mut value = None;
        if let Some(acl) = acl {
            acl.check()?;
            let (mode, is_all) = acl.mode();
            if index == NameIndex::AclAccess {
                let old = record.mode();
                let kept = match set_group_id {
                    SetGroupId::Keep => old & 0o7000,
                    SetGroupId::Clear => old & 0o7000 & !S_ISGID,
                };
                bits = Some(kept | mode);
            }
            // A mode that says it all needs no list.
            if index == NameIndex::AclDefault || !is_all {
                value = Some(acl.to_disk());
            }
        }
        let loaded = Loaded::of(record)?;
        let old = Protection::of(record);
        let new = Protection {
            bits: bits.unwrap_or(old.bits),
            ..old
        };
        if value.is_none() && loaded.find(index, b"").is_none() {
            if bits.is_some() {
                self.set_protection(new);
            }
            return Ok(());
        }
        let edit = Edit {
            index,
            name: b"",
            value: value.as_deref(),
        };
        Plan::new(self, &loaded, &[edit])?.commit(self, new, || {});
        Ok(())
    }

    /// Changes mode and owner of a file whose attributes stay. Durable on return. The caller holds INODE exclusively.
    pub(crate) fn set_protection(&self, new: Protection) {
        self.set_protection_with(new, || self.record().touch_changed());
    }

    /// The same, and `with` stores what else rides on it: times, flushed and not fenced.
    pub(crate) fn set_protection_with(&self, new: Protection, with: impl FnOnce()) {
        let record = self.record();
        let core = self.core();
        let stands = core.slots.settle(record.protection_mark());
        let old = Protection::of(record);
        let is_torn = (old.uid ^ new.uid | old.gid ^ new.gid) >> 16 != 0;
        let armed = is_torn.then(|| {
            let intent = Intent {
                subject: record.ino().get(),
                value: new.uid.into(),
                second: new.gid.into(),
                subject_links: new.bits,
                ..Intent::new(Operation::Own)
            };
            core.slots.arm(&intent)
        });
        if stands || armed.is_some() {
            // EPOCH: the intent. From here on the change happens.
            core.pmem.fence();
        }
        new.store(record);
        with();
        record.flush();
        // EPOCH: done. The upper halves of owners lie in another line than the rest.
        core.pmem.fence();
        if let Some(armed) = armed {
            armed.done(&[record.protection_mark()]);
        }
    }

    /// What a change of the mode to `bits`, and a write by another user if `drops_capability`, mean for attributes; `None`
    /// if nothing. The caller holds INODE exclusively.
    ///
    /// # Errors
    /// `NoSpace`, `Corrupt`. Nothing has changed.
    pub(crate) fn plan_mode(
        &self,
        bits: Option<u16>,
        drops_capability: bool,
    ) -> Result<Option<Plan>> {
        let record = self.record();
        if !load::has_any(record)? {
            return Ok(None);
        }
        let loaded = Loaded::of(record)?;
        let mut value = None;
        if let Some(bits) = bits.filter(|_| self.supports_acl())
            && let Some(found) = loaded.find(NameIndex::AclAccess, b"")
        {
            let mut acl = Acl::from_disk(&found.value).ok_or_else(|| self.acl_damaged())?;
            acl.set_mode(bits);
            value = Some(acl.to_disk()).filter(|value| *value != found.value);
        }
        let list = value.as_deref().map(|value| Edit {
            index: NameIndex::AclAccess,
            name: b"",
            value: Some(value),
        });
        let capability = (drops_capability
            && loaded.find(NameIndex::Security, CAPABILITY).is_some())
        .then_some(Edit {
            index: NameIndex::Security,
            name: CAPABILITY,
            value: None,
        });
        let edits: Vec<_> = list.into_iter().chain(capability).collect();
        if edits.is_empty() {
            return Ok(None);
        }
        Plan::new(self, &loaded, &edits).map(Some)
    }

    /// Whether the file has a capability. The caller holds INODE.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn has_capability(&self) -> Result<bool> {
        let record = self.record();
        Ok(
            load::has_any(record)?
                && load::find(record, NameIndex::Security, CAPABILITY)?.is_some(),
        )
    }
}

/// `security.` and this is what a program may do beyond its user.
const CAPABILITY: &[u8] = b"capability";

/// What becomes of the set-group-id bit when an access list is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SetGroupId {
    Keep,
    Clear,
}

/// The mode that `mode` becomes when somebody writes to the file or gives it away: without set-user-id, and without
/// set-group-id if the group may execute it.
pub(crate) fn without_set_id(mode: u16) -> u16 {
    let group = if mode & S_IXGRP != 0 { S_ISGID } else { 0 };
    mode & !(S_ISUID | group)
}

impl Inode {
    /// The value of an attribute. Names are full ones: `user.x`, `system.posix_acl_access`; lists have the form of the
    /// system calls.
    ///
    /// # Errors
    /// `NoData` if there is none; `OutOfRange` for a name of 0 or more than 255 bytes; `NotSupported` for a prefix that
    /// ext2 has no place for, and for lists of symlinks; `InvalidArgument` for a bare prefix; `Corrupt`.
    pub fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.node().xattr(name)
    }

    /// Sets an attribute; durable on return. An access list changes the mode, and one that a mode can express is not
    /// kept; `how` does not apply to lists, as in Linux.
    ///
    /// # Errors
    /// As [`Inode::xattr`]; `NoData`, `AlreadyExists` by `how`; `NoSpace` if the attributes do not fit into one block, or
    /// none is free; `ValueTooLong` past 65,536 bytes; `NotPermitted` by the immutable or append-only flag, and for
    /// `user.` on anything but regular files and directories; `InvalidArgument` for a list that is none; `AccessDenied`
    /// for a default list of anything but a directory; `ReadOnlyFs`. Nothing has changed then.
    pub fn set_xattr(&self, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        self.node()
            .change_xattr(name, Some(value), how, SetGroupId::Keep)
    }

    /// Sets an access list for a caller outside the file's group, who must not leave the set-group-id bit behind. For
    /// other attributes the same as [`Inode::set_xattr`].
    ///
    /// # Errors
    /// As [`Inode::set_xattr`].
    pub fn set_xattr_as_stranger(&self, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        self.node()
            .change_xattr(name, Some(value), how, SetGroupId::Clear)
    }

    /// Removes an attribute; durable on return. A list that is not there may be removed, as in Linux.
    ///
    /// # Errors
    /// As [`Inode::set_xattr`]; `NoData` if there is none.
    pub fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.node()
            .change_xattr(name, None, SetXattr::Any, SetGroupId::Keep)
    }

    /// The full names of all attributes that can be asked for. Who may not see `trusted.` is the caller's business.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn list_xattrs(&self) -> Result<Vec<Vec<u8>>> {
        self.node().list_xattrs()
    }
}
