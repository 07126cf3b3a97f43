//! POSIX access control lists: the form of the system calls, and ext2's shorter one.
//!
//! # On disk
//! A version word of 1, then entries of tag and permissions, 16 bits each; those for a named user or group have a 32-bit
//! id behind them. In the form of the system calls the version is 2 and every entry has an id. Linux
//! `include/uapi/linux/posix_acl_xattr.h` has the numbers of the tags.

/// Tags of entries that name a user or a group.
const NAMED: [u16; 2] = [0x02, 0x08];
/// All tags, in the order in which they must stand.
const TAGS: [u16; 6] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20];

/// The on-disk form; `None` if the value is no list.
pub(crate) fn to_disk(value: &[u8]) -> Option<Box<[u8]>> {
    let (version, entries) = value.split_at_checked(4)?;
    if version != 2_u32.to_le_bytes() || !entries.len().is_multiple_of(8) || entries.is_empty() {
        return None;
    }
    let mut disk = 1_u32.to_le_bytes().to_vec();
    let mut before = 0;
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        if !TAGS.contains(&tag) || tag < before {
            return None;
        }
        before = tag;
        let len = if NAMED.contains(&tag) { 8 } else { 4 };
        disk.extend_from_slice(&entry[..len]);
    }
    Some(disk.into())
}

/// The form of the system calls, of a list on disk.
pub(crate) fn to_linux(disk: &[u8]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    let mut rest = disk.get(4..).unwrap_or_default();
    while let Some((entry, after)) = rest.split_at_checked(4) {
        value.extend_from_slice(entry);
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        // An entry that names nobody has no id there, and one of all ones here.
        let (id, after) = match after.split_first_chunk::<4>() {
            Some((id, after)) if NAMED.contains(&tag) => (*id, after),
            _ => ([0xff; 4], after),
        };
        value.extend_from_slice(&id);
        rest = after;
    }
    value
}

/// Changes the users and groups that a list on disk names.
pub(crate) fn map_ids<E>(
    disk: &mut [u8],
    mut uid: impl FnMut(u32) -> Result<u32, E>,
    mut gid: impl FnMut(u32) -> Result<u32, E>,
) -> Result<(), E> {
    let mut at = 4;
    while at + 4 <= disk.len() {
        let tag = u16::from_le_bytes([disk[at], disk[at + 1]]);
        if !NAMED.contains(&tag) {
            at += 4;
            continue;
        }
        if let Some(id) = disk[at + 4..].first_chunk_mut::<4>() {
            let old = u32::from_le_bytes(*id);
            let new = if tag == NAMED[0] {
                uid(old)?
            } else {
                gid(old)?
            };
            *id = new.to_le_bytes();
        }
        at += 8;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    #[test]
    fn only_named_entries_keep_their_id() {
        let none = u32::MAX;
        let value = list(&[
            (1, 7, none),
            (2, 5, 1000),
            (4, 5, none),
            (16, 5, none),
            (32, 0, none),
        ]);
        let mut disk = to_disk(&value).unwrap();
        assert_eq!(disk.len(), 4 + 4 + 8 + 4 + 4 + 4);
        assert_eq!(to_linux(&disk), value);
        assert_eq!(disk[..8], [1, 0, 0, 0, 1, 0, 7, 0]);
        assert_eq!(disk[8..16], [2, 0, 5, 0, 0xe8, 3, 0, 0]);
        map_ids(&mut disk, |id| Ok::<_, ()>(id + 1), Ok).unwrap();
        assert_eq!(disk[8..16], [2, 0, 5, 0, 0xe9, 3, 0, 0]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!(to_disk(b""), None);
        assert_eq!(to_disk(&list(&[])), None);
        assert_eq!(to_disk(&list(&[(3, 7, 0)])), None, "unknown tag");
        assert_eq!(to_disk(&list(&[(4, 7, 0), (1, 7, 0)])), None, "order");
        assert_eq!(to_disk(&list(&[(1, 7, 0)])[..11]), None, "cut");
        let mut version = list(&[(1, 7, 0)]);
        version[0] = 1;
        assert_eq!(to_disk(&version), None, "version");
    }
}
