//! Extended attributes and access control lists.
//!
//! Names come whole, as programs give them. The kernel has checked who may read and set them; what it leaves to the file
//! system is that only root is shown `trusted.` names in a list, and that a list set by somebody outside the file's group
//! takes the set-group-id bit.

use ext2dax::{Error, SetXattr};

use super::{Answer, Caller, Errno, Server};

/// `XATTR_CREATE` and `XATTR_REPLACE` of setxattr(2).
const CREATE: i32 = 1;
const REPLACE: i32 = 2;
const BOTH: i32 = CREATE | REPLACE;

const ACL_PREFIX: &[u8] = b"system.posix_acl_";

impl Server {
    /// The value of an attribute.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP` for a namespace that ext2 has no room for, `EUCLEAN`.
    pub fn xattr(&self, node: u64, name: &[u8]) -> Answer<Vec<u8>> {
        Ok(self.node(node)?.xattr(name)?)
    }

    /// Sets an attribute; `flags` are those of setxattr(2).
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA` by `flags`; `ENOSPC` if it does not fit into a block with the others; `E2BIG`, `ERANGE`,
    /// `EINVAL`, `EOPNOTSUPP`, `EPERM`, `EROFS`.
    pub fn set_xattr(
        &self,
        caller: Caller,
        node: u64,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Answer<()> {
        let how = match flags {
            0 => SetXattr::Any,
            CREATE => SetXattr::Create,
            REPLACE => SetXattr::Replace,
            BOTH => {
                // Neither can be had: it is missing, or it is there.
                self.xattr(node, name)?;
                return Err(Error::AlreadyExists.into());
            }
            _ => return Err(Errno::EINVAL),
        };
        let inode = self.node(node)?;
        let stranger = name.starts_with(ACL_PREFIX)
            && !caller.is_root()
            && !caller.is_in_group(inode.attributes()?.gid);
        self.with_room(|| {
            if stranger {
                inode.set_xattr_as_stranger(name, value, how)?;
            } else {
                inode.set_xattr(name, value, how)?;
            }
            Ok(())
        })
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`, `EPERM`, `EROFS`.
    pub fn remove_xattr(&self, node: u64, name: &[u8]) -> Answer<()> {
        Ok(self.node(node)?.remove_xattr(name)?)
    }

    /// The names that the caller may see, each with a zero byte behind it.
    ///
    /// # Errors
    /// `EUCLEAN`.
    pub fn list_xattrs(&self, caller: Caller, node: u64) -> Answer<Vec<u8>> {
        let names = match self.node(node)?.list_xattrs() {
            Err(Error::NotSupported) => Vec::new(),
            names => names?,
        };
        let mut list = Vec::new();
        for name in names {
            if caller.is_root() || !name.starts_with(b"trusted.") {
                list.extend_from_slice(&name);
                list.push(0);
            }
        }
        Ok(list)
    }
}
