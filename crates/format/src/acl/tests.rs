use super::*;
use std::vec::Vec;

fn entry(tag: Tag, permissions: u16) -> Entry {
    named(tag, permissions, UNDEFINED_ID)
}

fn named(tag: Tag, permissions: u16, id: u32) -> Entry {
    Entry {
        tag,
        permissions,
        id,
    }
}

fn full() -> Vec<Entry> {
    Vec::from([
        entry(Tag::UserObj, 7),
        named(Tag::User, 6, 1000),
        entry(Tag::GroupObj, 5),
        named(Tag::Group, 4, 100_000),
        entry(Tag::Mask, 6),
        entry(Tag::Other, 0),
    ])
}

fn to_disk(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = head(DISK_VERSION).to_vec();
    for entry in entries {
        bytes.extend_from_slice(&entry.to_disk()[..entry.disk_len()]);
    }
    bytes
}

fn to_attribute(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = head(ATTRIBUTE_VERSION).to_vec();
    entries
        .iter()
        .for_each(|entry| bytes.extend_from_slice(&entry.to_attribute()));
    bytes
}

#[test]
fn both_forms_say_the_same() {
    let entries = full();
    let disk = to_disk(&entries);
    // Four entries of 4 bytes and two of 8 behind the head, as ext2 counts.
    assert_eq!(disk.len(), 4 + 4 * 4 + 2 * 8);
    let read: Option<Vec<_>> = Entries::of_disk(&disk).expect("a version").collect();
    assert_eq!(read.as_deref(), Some(&*entries));
    let value = to_attribute(&entries);
    let read: Option<Vec<_>> = Entries::of_attribute(&value).expect("a version").collect();
    assert_eq!(read, Some(entries));
}

#[test]
fn damaged_lists_are_seen() {
    let disk = to_disk(&full());
    assert!(Entries::of_disk(&disk[..3]).is_none());
    assert!(Entries::of_disk(&[2, 0, 0, 0]).is_none(), "another version");
    // Cut anywhere but between entries, the last entry is damaged.
    let ends = [4, 8, 16, 20, 28, 32, 36];
    for len in 4..=disk.len() {
        let all: Option<Vec<_>> = Entries::of_disk(&disk[..len]).expect("a version").collect();
        assert_eq!(all.is_some(), ends.contains(&len), "{len} bytes");
    }
    for tag in [0_u16, 3, 0x40, 0xffff] {
        let mut wrong = disk.clone();
        wrong[4..6].copy_from_slice(&tag.to_le_bytes());
        assert_eq!(
            Entries::of_disk(&wrong).and_then(|mut all| all.next()),
            Some(None)
        );
    }
    let nobody = to_disk(&[named(Tag::User, 7, UNDEFINED_ID)]);
    assert_eq!(
        Entries::of_disk(&nobody).and_then(|mut all| all.next()),
        Some(None)
    );
}

#[test]
fn values_of_system_calls_are_checked_by_length_and_version() {
    assert_eq!(
        Entries::of_attribute(&[2, 0]).err(),
        Some(Error::InvalidArgument)
    );
    assert_eq!(
        Entries::of_attribute(&[1, 0, 0, 0]).err(),
        Some(Error::NotSupported)
    );
    let mut value = to_attribute(&full());
    value.push(0);
    assert_eq!(
        Entries::of_attribute(&value).err(),
        Some(Error::InvalidArgument)
    );
    assert!(Entries::of_attribute(&[2, 0, 0, 0]).is_ok_and(|mut all| all.next().is_none()));
}

#[test]
fn only_lists_in_order_with_a_mask_where_needed_are_valid() {
    assert!(is_valid(full()));
    let minimal = [
        entry(Tag::UserObj, 7),
        entry(Tag::GroupObj, 5),
        entry(Tag::Other, 5),
    ];
    assert!(is_valid(minimal));
    assert!(!is_valid([]));
    for missing in 0..full().len() {
        let mut entries = full();
        let left_out = entries.remove(missing);
        // Without its only named user or group the list is still one.
        assert_eq!(is_valid(entries), left_out.tag.is_named(), "{left_out:?}");
    }
    for at in 1..full().len() {
        let mut entries = full();
        entries.swap(at - 1, at);
        assert!(!is_valid(entries), "entries {} and {at} swapped", at - 1);
    }
    let mut wide = full();
    wide[0].permissions = 8;
    assert!(!is_valid(wide));
    // A mask may stand where nobody is named.
    let masked = [
        entry(Tag::UserObj, 7),
        entry(Tag::GroupObj, 5),
        entry(Tag::Mask, 5),
        entry(Tag::Other, 5),
    ];
    assert!(is_valid(masked));
}
