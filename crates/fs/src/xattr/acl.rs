//! Access control lists of POSIX: what a list says about a mode, and a mode about a list.

use alloc::vec::Vec;

use ext2dax_format::acl::{self, Entries, Entry, Tag};
use ext2dax_format::{Error, Result};

/// A list, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

/// Read, write and execute of owner, group and others.
const ALL: u16 = 0o777;

impl Acl {
    /// The list in the value of a system call; `None` for one without entries, which stands for no list.
    ///
    /// # Errors
    /// `InvalidArgument`, `NotSupported` for another version. Order and masks are not looked at: see [`Acl::check`].
    pub(super) fn from_attribute(value: &[u8]) -> Result<Option<Self>> {
        let entries: Option<Vec<_>> = Entries::of_attribute(value)?.collect();
        let entries = entries.ok_or(Error::InvalidArgument)?;
        Ok((!entries.is_empty()).then_some(Self(entries)))
    }

    /// The list on the medium; `None` if it is damaged.
    pub(super) fn from_disk(value: &[u8]) -> Option<Self> {
        Entries::of_disk(value)?.collect::<Option<_>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn to_attribute(&self) -> Vec<u8> {
        let mut value = acl::head(acl::ATTRIBUTE_VERSION).to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&entry.to_attribute());
        }
        value
    }

    pub(super) fn to_disk(&self) -> Vec<u8> {
        let mut value = acl::head(acl::DISK_VERSION).to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&entry.to_disk()[..entry.disk_len()]);
        }
        value
    }

    /// # Errors
    /// `InvalidArgument` if this is no valid list.
    pub(super) fn check(&self) -> Result<()> {
        if acl::is_valid(self.0.iter().copied()) {
            Ok(())
        } else {
            Err(Error::InvalidArgument)
        }
    }

    /// The permission bits that the list stands for, and whether they say all that it says.
    pub(super) fn mode(&self) -> (u16, bool) {
        let mut mode = 0;
        let mut is_all = true;
        for entry in &self.0 {
            let bits = entry.permissions & 7;
            match entry.tag {
                Tag::UserObj => mode |= bits << 6,
                Tag::GroupObj => mode |= bits << 3,
                Tag::Other => mode |= bits,
                Tag::Mask => {
                    mode = mode & !0o070 | bits << 3;
                    is_all = false;
                }
                Tag::User | Tag::Group => is_all = false,
            }
        }
        (mode, is_all)
    }

    /// The list after chmod: the group's bits are the mask's, if there is one.
    pub(super) fn set_mode(&mut self, mode: u16) {
        self.each_class(|entry, shift| entry.permissions = mode >> shift & 7);
    }

    /// Makes of a directory's default list the list of a new file that is to have `mode` at most; answers the mode.
    pub(super) fn inherit(&mut self, mode: u16) -> u16 {
        let mut left = mode;
        self.each_class(|entry, shift| {
            entry.permissions &= mode >> shift & 7;
            left = left & !(7 << shift) | entry.permissions << shift;
        });
        left & ALL | mode & !ALL
    }

    /// The entries that the three digits of a mode are about, each with its place in it.
    fn each_class(&mut self, mut each: impl FnMut(&mut Entry, u16)) {
        let has_mask = self.0.iter().any(|entry| entry.tag == Tag::Mask);
        let of_group = if has_mask { Tag::Mask } else { Tag::GroupObj };
        for entry in &mut self.0 {
            match entry.tag {
                Tag::UserObj => each(entry, 6),
                Tag::Other => each(entry, 0),
                tag if tag == of_group => each(entry, 3),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ext2dax_format::acl::UNDEFINED_ID;

    fn list(entries: &[(Tag, u16, u32)]) -> Acl {
        Acl(entries
            .iter()
            .map(|&(tag, permissions, id)| Entry {
                tag,
                permissions,
                id,
            })
            .collect())
    }

    fn masked() -> Acl {
        list(&[
            (Tag::UserObj, 7, UNDEFINED_ID),
            (Tag::User, 7, 1000),
            (Tag::GroupObj, 7, UNDEFINED_ID),
            (Tag::Mask, 6, UNDEFINED_ID),
            (Tag::Other, 5, UNDEFINED_ID),
        ])
    }

    fn minimal() -> Acl {
        list(&[
            (Tag::UserObj, 6, UNDEFINED_ID),
            (Tag::GroupObj, 4, UNDEFINED_ID),
            (Tag::Other, 0, UNDEFINED_ID),
        ])
    }

    #[test]
    fn a_list_without_names_is_a_mode() {
        assert_eq!(minimal().mode(), (0o640, true));
        assert_eq!(masked().mode(), (0o765, false), "the mask is the group's");
    }

    #[test]
    fn chmod_reaches_the_mask_and_not_the_group() {
        let mut acl = masked();
        acl.set_mode(0o4610);
        let permissions: Vec<_> = acl.0.iter().map(|entry| entry.permissions).collect();
        assert_eq!(permissions, [6, 7, 7, 1, 0]);
        let mut acl = minimal();
        acl.set_mode(0o751);
        assert_eq!(acl.mode(), (0o751, true));
    }

    #[test]
    fn a_new_file_gets_what_both_list_and_mode_allow() {
        let mut acl = masked();
        assert_eq!(acl.inherit(0o2644), 0o2644);
        let permissions: Vec<_> = acl.0.iter().map(|entry| entry.permissions).collect();
        assert_eq!(permissions, [6, 7, 7, 4, 4]);
        let mut acl = minimal();
        assert_eq!(acl.inherit(0o777), 0o640);
    }

    #[test]
    fn both_forms_come_back() {
        let value = masked().to_attribute();
        assert_eq!(Acl::from_attribute(&value), Ok(Some(masked())));
        assert_eq!(Acl::from_disk(&masked().to_disk()), Some(masked()));
        assert_eq!(Acl::from_attribute(&value[..4]), Ok(None));
    }
}
