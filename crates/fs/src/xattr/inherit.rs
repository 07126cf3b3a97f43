//! What a new file gets from its directory: the default list becomes its own, narrowed by the mode it is made with.

use alloc::vec::Vec;

use ext2dax_format::xattr::{Entry, NameIndex};
use ext2dax_format::{FileType, FsBlock, Result};
use ext2dax_getblock::Fresh;

use super::store;
use crate::inode::Node;
use crate::mount::Core;

/// What a new file gets from its directory: its mode, and an attribute block if lists are inherited.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// Permission bits.
    pub(crate) bits: u16,
    access: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
}

impl Inherited {
    /// What a new file of `file_type` that shall have `bits` at most, less `umask`, gets from `parent`, whose INODE lock
    /// the caller holds. A default list stands in for the umask; symlinks have neither.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn from(parent: &Node, file_type: FileType, bits: u16, umask: u16) -> Result<Self> {
        let none = |bits| Self {
            bits,
            access: None,
            default: None,
        };
        if file_type == FileType::Symlink {
            return Ok(none(bits));
        }
        let list = if parent.supports_acl() {
            parent.acl(NameIndex::AclDefault)?
        } else {
            None
        };
        let Some(mut acl) = list else {
            return Ok(none(bits & !(umask & 0o777)));
        };
        let default = (file_type == FileType::Directory).then(|| acl.to_disk());
        let bits = acl.inherit(bits);
        let (_, is_all) = acl.mode();
        Ok(Self {
            bits,
            access: (!is_all).then(|| acl.to_disk()),
            default,
        })
    }

    /// Whether there is something for an attribute block.
    pub(crate) fn has_lists(&self) -> bool {
        self.access.is_some() || self.default.is_some()
    }

    /// Writes the lists into a block near `goal`; flushed, not fenced.
    ///
    /// # Errors
    /// `NoSpace`, `NotSupported` on revision 0. Nothing has changed.
    pub(crate) fn write(&self, core: &Core, goal: FsBlock) -> Result<Option<Fresh>> {
        if !self.has_lists() {
            return Ok(None);
        }
        core.require_ext_attr()?;
        let entry = |index, value| Entry {
            index,
            name: b"",
            value,
        };
        let access = self.access.as_deref();
        let default = self.default.as_deref();
        let entries: Vec<_> = access
            .map(|value| entry(NameIndex::AclAccess, value))
            .into_iter()
            .chain(default.map(|value| entry(NameIndex::AclDefault, value)))
            .collect();
        store::write_new(core, goal, &entries).map(Some)
    }
}
