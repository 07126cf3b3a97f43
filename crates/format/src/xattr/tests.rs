use super::*;
use crate::{Error, sample};

const INO: Ino = Ino::ROOT;

/// `user.a` = "hello" and `trusted.bcd` = "" in an area that starts with `head` bytes before the entries.
fn entries(area: &mut [u8], at: usize, values_from: usize) {
    let value_at = area.len() - 8;
    area[value_at..value_at + 5].copy_from_slice(b"hello");
    let entry = RawXattrEntry {
        e_name_len: 1,
        e_name_index: 1,
        e_value_offs: U16::new(u16::try_from(value_at - values_from).unwrap()),
        e_value_size: U32::new(5),
        e_hash: U32::new(entry_hash(b"a", b"hello")),
        ..RawXattrEntry::default()
    };
    area[at..at + 16].copy_from_slice(entry.as_bytes());
    area[at + 16] = b'a';
    let entry = RawXattrEntry {
        e_name_len: 3,
        e_name_index: 4,
        ..RawXattrEntry::default()
    };
    area[at + 20..at + 36].copy_from_slice(entry.as_bytes());
    area[at + 36..at + 39].copy_from_slice(b"bcd");
}

fn block() -> Vec<u8> {
    let mut block = vec![0; 1024];
    let header = RawXattrHeader {
        h_magic: U32::new(MAGIC),
        h_refcount: U32::new(1),
        h_blocks: U32::new(1),
        ..RawXattrHeader::default()
    };
    block[..32].copy_from_slice(header.as_bytes());
    entries(&mut block, 32, 0);
    block
}

fn read(block: &[u8]) -> Result<Vec<Attribute<'_>>> {
    let at = sample::geometry(1024, 1).fs_block(100)?;
    Attributes::in_block(block, INO, at)?.collect()
}

fn kind(block: &[u8]) -> CorruptKind {
    match read(block) {
        Err(Error::Corrupt(kind)) => kind,
        other => panic!("{other:?}"),
    }
}

fn check_both(found: &[Attribute<'_>]) {
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].index, found[0].name, found[0].value),
        (NameIndex::User, &b"a"[..], &b"hello"[..])
    );
    assert_eq!(
        (found[1].index, found[1].name, found[1].value),
        (NameIndex::Trusted, &b"bcd"[..], &b""[..])
    );
}

#[test]
fn attributes_of_a_block_and_of_an_inode_read_back() {
    check_both(&read(&block()).unwrap());
    let mut area = vec![0; 96];
    area[..4].copy_from_slice(&MAGIC.to_le_bytes());
    entries(&mut area, 4, 4);
    let found: Vec<_> = Attributes::in_inode(&area, INO)
        .collect::<Result<_>>()
        .unwrap();
    check_both(&found);
    assert_eq!(Attributes::in_inode(&[0; 96], INO).count(), 0);
    assert_eq!(Attributes::in_inode(&[], INO).count(), 0);
}

#[test]
fn each_damage_has_its_kind() {
    let patched = |at: usize, bytes: &[u8]| {
        let mut block = block();
        block[at..at + bytes.len()].copy_from_slice(bytes);
        kind(&block)
    };
    assert!(matches!(
        patched(0, b"\x01"),
        CorruptKind::XattrMagic {
            found: 0xea02_0001,
            ..
        }
    ));
    assert!(matches!(
        patched(4, b"\0"),
        CorruptKind::XattrRefcount { found: 0, .. }
    ));
    assert!(matches!(
        patched(4, b"\x01\x04"),
        CorruptKind::XattrRefcount { found: 1025, .. }
    ));
    assert!(matches!(
        patched(8, b"\x02"),
        CorruptKind::XattrBlocks { found: 2, .. }
    ));
    assert!(matches!(
        patched(36, b"\x01"),
        CorruptKind::XattrValueBlock {
            offset: 32,
            found: 1,
            ..
        }
    ));
    assert!(matches!(
        patched(40, b"\xff\xff\xff\xff"),
        CorruptKind::XattrValue { offset: 32, .. }
    ));
    assert!(
        matches!(
            patched(34, b"\x28\x00"),
            CorruptKind::XattrValue { offset: 32, .. }
        ),
        "value over its own entry"
    );
    assert!(
        matches!(
            patched(34, b"\xff\x03"),
            CorruptKind::XattrValue { offset: 32, .. }
        ),
        "value past the block"
    );
    // Fill everything with entries of the longest name: the list runs off the end.
    let mut full = block();
    full[32..].fill(0xff);
    assert!(matches!(kind(&full), CorruptKind::XattrEntry { .. }));
    assert!(matches!(kind(&[]), CorruptKind::XattrMagic { .. }));
}

#[test]
fn names_split_into_prefix_and_rest() {
    assert_eq!(
        NameIndex::split(b"user.mime"),
        Some((NameIndex::User, &b"mime"[..]))
    );
    assert_eq!(
        NameIndex::split(b"system.posix_acl_access"),
        Some((NameIndex::AclAccess, &b""[..]))
    );
    assert_eq!(
        NameIndex::split(b"system.posix_acl_accessx"),
        Some((NameIndex::System, &b"posix_acl_accessx"[..]))
    );
    assert_eq!(NameIndex::split(b"user."), None);
    assert_eq!(NameIndex::split(b"other.x"), None);
    for raw in 0..=255 {
        assert_eq!(NameIndex::from_raw(raw).raw(), raw);
    }
}
