use super::*;
use crate::sample::{self, BLOCK_SIZES};

fn put(block: &mut [u8], at: usize, inode: u32, rec_len: u16, kind: u8, name: &[u8]) {
    let head = RawDirEntry {
        inode: U32::new(inode),
        rec_len: U16::new(rec_len),
        name_len: u8::try_from(name.len()).unwrap(),
        file_type: kind,
    };
    block[at..at + 8].copy_from_slice(head.as_bytes());
    block[at + 8..at + 8 + name.len()].copy_from_slice(name);
}

/// `.`, `..`, a free record, `file` to the end.
fn block(block_size: u32) -> Vec<u8> {
    let mut block = vec![0; block_size as usize];
    put(&mut block, 0, 2, 12, 2, b".");
    put(&mut block, 12, 2, 12, 2, b"..");
    put(&mut block, 24, 0, 16, 0, b"");
    put(&mut block, 40, 12, encode_len(block_size - 40), 1, b"file");
    block
}

fn read(block: &[u8], block_size: u32) -> Result<Vec<Entry<'_>>> {
    Entries::new(
        block,
        &sample::geometry(block_size, 1),
        Ino::ROOT,
        FileBlock(3),
    )
    .collect()
}

#[test]
fn a_block_reads_back_at_every_block_size() {
    for block_size in BLOCK_SIZES {
        let bytes = block(block_size);
        let entries = read(&bytes, block_size).unwrap();
        let names: Vec<_> = entries
            .iter()
            .map(|entry| (entry.ino.map(Ino::get), entry.name))
            .collect();
        assert_eq!(
            names,
            [
                (Some(2), &b"."[..]),
                (Some(2), b".."),
                (None, b""),
                (Some(12), b"file")
            ]
        );
        assert_eq!(entries[3].kind, Some(FileType::Regular));
        assert_eq!(
            (entries[3].used_len(), entries[3].room()),
            (12, block_size - 52)
        );
    }
}

#[test]
fn one_record_may_fill_a_block_of_64_kib() {
    for raw in [0, u16::MAX] {
        let mut bytes = vec![0; 65_536];
        put(&mut bytes, 0, 12, raw, 1, b"only");
        let entries = read(&bytes, 65_536).unwrap();
        assert_eq!((entries.len(), entries[0].rec_len), (1, 65_536));
    }
    for len in [12, 4096, 65_532, 65_536] {
        assert_eq!(decode_len(encode_len(len), 65_536), len);
    }
}

#[test]
fn each_damage_has_its_kind() {
    let kind = |patch: fn(&mut [u8])| {
        let mut bytes = block(1024);
        patch(&mut bytes);
        match read(&bytes, 1024) {
            Err(Error::Corrupt(kind)) => kind,
            other => panic!("{other:?}"),
        }
    };
    let (inode, file_block, offset) = (2, 3, 40);
    for (patch, found) in [
        ((|b| b[44..46].fill(0)) as fn(&mut [u8]), 0),
        (|b| b[44..46].copy_from_slice(&[3, 0]), 3),
        (|b| b[44..46].copy_from_slice(&[14, 0]), 14),
    ] {
        assert_eq!(
            kind(patch),
            CorruptKind::DirentLength {
                inode,
                file_block,
                offset,
                found
            }
        );
    }
    assert_eq!(
        kind(|b| b[44..46].copy_from_slice(&988_u16.to_le_bytes())),
        CorruptKind::DirentPastBlock {
            inode,
            file_block,
            offset,
            found: 988
        }
    );
    assert_eq!(
        kind(|b| {
            b[44..46].copy_from_slice(&12_u16.to_le_bytes());
            b[46] = 5;
        }),
        CorruptKind::DirentNameLength {
            inode,
            file_block,
            offset,
            found: 5
        }
    );
    assert_eq!(
        kind(|b| b[46] = 0),
        CorruptKind::DirentNameEmpty {
            inode,
            file_block,
            offset
        }
    );
    assert_eq!(
        kind(|b| b[49] = b'/'),
        CorruptKind::DirentNameByte {
            inode,
            file_block,
            offset
        }
    );
    assert_eq!(
        kind(|b| b[49] = 0),
        CorruptKind::DirentNameByte {
            inode,
            file_block,
            offset
        }
    );
    for raw in [1, 7, 10, 513, u32::MAX] {
        let mut bytes = block(1024);
        bytes[40..44].copy_from_slice(&raw.to_le_bytes());
        let expected = CorruptKind::DirentInode {
            inode,
            file_block,
            offset,
            found: raw,
        };
        assert_eq!(read(&bytes, 1024), Err(expected.into()));
    }
    // Four bytes are left behind the last record.
    assert_eq!(
        kind(|b| b[44..46].copy_from_slice(&980_u16.to_le_bytes())),
        CorruptKind::DirentPastBlock {
            inode,
            file_block,
            offset: 1020,
            found: 4
        }
    );
}

#[test]
fn without_the_feature_the_type_byte_means_nothing() {
    let mut raw = sample::superblock(1024, 1);
    raw.s_feature_incompat = U32::new(0);
    let geometry = Geometry::new(&raw, sample::region_len(&raw)).unwrap();
    let bytes = block(1024);
    let entries: Vec<_> = Entries::new(&bytes, &geometry, Ino::ROOT, FileBlock(0))
        .collect::<Result<_>>()
        .unwrap();
    assert!(entries.iter().all(|entry| entry.kind.is_none()));
    assert_eq!(
        RawDirEntry::new(None, 12, 1, Some(FileType::Socket), &geometry).file_type,
        0
    );
}

#[test]
fn new_names_are_checked() {
    assert_eq!(check_name(&[b'x'; 255]), Ok(()));
    assert_eq!(check_name(&[b'x'; 256]), Err(Error::NameTooLong));
    assert_eq!(check_name("\u{fffd}\n".as_bytes()), Ok(()));
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
        assert_eq!(check_name(name), Err(Error::InvalidName), "{name:?}");
    }
}

proptest::proptest! {
    /// Any bytes: the walk ends, and what it returns lies inside the block.
    #[test]
    fn random_blocks_end(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 1024)) {
        let geometry = sample::geometry(1024, 1);
        let entries = Entries::new(&bytes, &geometry, Ino::ROOT, FileBlock(0));
        let steps = entries.inspect(|entry| {
            if let Ok(entry) = entry {
                assert!(entry.offset + entry.rec_len <= 1024 && entry.name.len() + 8 <= entry.rec_len as usize);
            }
        }).count();
        assert!(steps <= 1024 / 12 + 1);
    }
}
