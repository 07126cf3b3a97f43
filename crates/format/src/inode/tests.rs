use super::*;
use crate::{Error, sample};

fn inode(kind: FileType, size: u64) -> RawInode {
    let bytes = size.to_le_bytes();
    RawInode {
        i_mode: U16::new(kind.mode() | 0o644),
        i_size: U32::from_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        i_size_high: U32::from_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        ..RawInode::default()
    }
}

#[test]
fn types_agree_between_mode_and_entry() {
    for kind in FileType::ALL {
        assert_eq!(FileType::from_mode(kind.mode() | 0o7777), Some(kind));
        assert_eq!(FileType::from_dirent(kind.dirent()), Some(kind));
    }
    let bad = RawInode {
        i_mode: U16::new(0o000_644),
        ..RawInode::default()
    };
    assert_eq!(
        bad.checked_type(Ino::ROOT),
        Err(CorruptKind::InodeType {
            inode: 2,
            mode: 0o644
        }
        .into())
    );
}

#[test]
fn sizes_are_checked_by_type() {
    let geometry = sample::geometry(1024, 1);
    let check = |raw: &RawInode| raw.checked_size(Ino::ROOT, &geometry);
    let max = geometry.addressable_size();
    assert_eq!(check(&inode(FileType::Regular, max)), Ok(max));
    let kind = CorruptKind::InodeFileSize {
        inode: 2,
        size: max + 1,
        max,
    };
    assert_eq!(check(&inode(FileType::Regular, max + 1)), Err(kind.into()));
    assert_eq!(check(&inode(FileType::Directory, 2048)), Ok(2048));
    for size in [0, 1000, 1025] {
        let kind = CorruptKind::DirectorySize { inode: 2, size };
        assert_eq!(check(&inode(FileType::Directory, size)), Err(kind.into()));
    }
    // Fast: no block. Slow: one block of two sectors.
    assert_eq!(check(&inode(FileType::Symlink, 59)), Ok(59));
    let kind = CorruptKind::SymlinkLength {
        inode: 2,
        size: 60,
        max: 59,
    };
    assert_eq!(check(&inode(FileType::Symlink, 60)), Err(kind.into()));
    let mut slow = inode(FileType::Symlink, 1023);
    slow.i_blocks = U32::new(2);
    assert_eq!(check(&slow), Ok(1023));
    slow.i_size = U32::new(1024);
    assert_eq!(
        check(&slow),
        Err(CorruptKind::SymlinkLength {
            inode: 2,
            size: 1024,
            max: 1023
        }
        .into())
    );
    slow.i_size = U32::new(0);
    assert!(matches!(
        check(&slow),
        Err(Error::Corrupt(CorruptKind::SymlinkLength { size: 0, .. }))
    ));
}

/// Text of a short target was once freed as block numbers because its length decided; blocks decide.
#[test]
fn a_symlink_is_fast_when_it_owns_no_block_but_attributes() {
    let geometry = sample::geometry(4096, 1);
    let mut link = inode(FileType::Symlink, 10);
    assert!(link.is_fast_symlink(&geometry));
    link.i_file_acl = U32::new(500);
    assert!(!link.is_fast_symlink(&geometry));
    link.i_blocks = U32::new(8);
    assert!(link.is_fast_symlink(&geometry));
    link.i_file_acl = U32::new(0);
    assert!(!link.is_fast_symlink(&geometry));
}

#[test]
fn flags_that_change_the_contents_refuse_them() {
    let mut raw = inode(FileType::Regular, 1);
    raw.i_flags = U32::new(0x8_0010);
    let error = Error::ForeignContents {
        inode: 2,
        flags: 0x8_0000,
    };
    assert_eq!(raw.check_contents(Ino::ROOT), Err(error));
    raw.i_flags = U32::new(0x8000_0010);
    assert_eq!(raw.check_contents(Ino::ROOT), Ok(()));
}

#[test]
fn extra_fields_exist_only_where_the_size_covers_them() {
    let geometry = sample::geometry(1024, 1);
    let mut extra = RawInodeExtra {
        i_extra_isize: U16::new(32),
        i_mtime_extra: U32::new(4 * 77 + 1),
        ..RawInodeExtra::default()
    };
    assert_eq!(extra.checked_size(Ino::ROOT, &geometry), Ok(32));
    let (_, mtime, _) = times(&RawInode::default(), Some(&extra));
    assert_eq!(
        mtime,
        Timestamp {
            secs: 1 << 32,
            nanos: 77
        }
    );
    extra.i_extra_isize = U16::new(8);
    assert_eq!(
        times(&RawInode::default(), Some(&extra)).1,
        Timestamp::default()
    );
    assert_eq!(extra.create_time(), None);
    for found in [2, 132, 65_535] {
        extra.i_extra_isize = U16::new(found);
        let kind = CorruptKind::InodeExtraSize {
            inode: 2,
            found,
            max: 128,
        };
        assert_eq!(extra.checked_size(Ino::ROOT, &geometry), Err(kind.into()));
    }
}

#[test]
fn owners_have_32_bits() {
    let raw = RawInode {
        i_uid: U16::new(0x5678),
        l_i_uid_high: U16::new(0x1234),
        ..RawInode::default()
    };
    assert_eq!((raw.uid(), raw.gid()), (0x1234_5678, 0));
}
