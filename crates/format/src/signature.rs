//! What something that is not ext2 looks like.

/// A guess from the first bytes of a region, for an error message: give it up to 64 KiB. `None` if nothing is known about
/// them. The ext family is told apart by its feature words.
#[must_use]
pub fn looks_like(head: &[u8]) -> Option<&'static str> {
    if let Some(kind) = ext_family(head) {
        return Some(kind);
    }
    let known: [(usize, &[u8], &'static str); 22] = [
        (0, b"\x1f\x8b", "gzip"),
        (0, b"\x28\xb5\x2f\xfd", "zstd"),
        (0, b"\xfd7zXZ\0", "xz"),
        (0, b"BZh", "bzip2"),
        (0, b"PK\x03\x04", "a zip archive"),
        (257, b"ustar", "a tar archive"),
        (0, b"XFSB", "xfs"),
        (0, b"hsqs", "squashfs"),
        (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
        (1024, b"\x10\x20\xf5\xf2", "f2fs"),
        (65_536 - 4096 + 4086, b"SWAPSPACE2", "swap space"),
        (4086, b"SWAPSPACE2", "swap space"),
        (32_769, b"CD001", "an ISO 9660 image"),
        (
            512,
            b"EFI PART",
            "a whole disk (GPT): give the offset of a partition",
        ),
        (
            4096,
            b"EFI PART",
            "a whole disk (GPT): give the offset of a partition",
        ),
        (3, b"NTFS    ", "NTFS"),
        (3, b"EXFAT   ", "exFAT"),
        (82, b"FAT32   ", "FAT32"),
        (54, b"FAT1", "FAT"),
        (0, b"QFI\xfb", "a qcow2 image: convert it to a raw one"),
        (0, b"\x7fELF", "an ELF file"),
        (0, b"LUKS\xba\xbe", "a LUKS volume"),
    ];
    for (at, magic, name) in known {
        if head.get(at..).is_some_and(|rest| rest.starts_with(magic)) {
            return Some(name);
        }
    }
    if head.get(510..512) == Some(b"\x55\xaa") {
        return Some("a whole disk (MBR): give the offset of a partition");
    }
    if !head.is_empty() && head.iter().all(|&byte| byte == 0) {
        return Some("zero bytes");
    }
    None
}

/// ext2, ext3 or ext4, if the magic number stands where it must.
fn ext_family(head: &[u8]) -> Option<&'static str> {
    let superblock = head.get(1024..)?;
    if superblock.get(56..58)? != [0x53, 0xef] {
        return None;
    }
    let word = |at: usize| {
        let bytes = superblock.get(at..at.saturating_add(4))?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let (compat, incompat, ro_compat) = (word(92)?, word(96)?, word(100)?);
    let later = incompat & !0x1f != 0 || ro_compat & !0x7 != 0;
    Some(match (later, compat & 0x4 != 0) {
        (true, _) => "ext4",
        (false, true) => "ext3",
        (false, false) => "ext2",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; 65_536];
        for &(at, bytes) in parts {
            head[at..at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn known_things_are_named() {
        assert_eq!(looks_like(&head(&[(0, b"\x1f\x8b\x08")])), Some("gzip"));
        assert_eq!(looks_like(&head(&[(0, b"XFSB")])), Some("xfs"));
        assert_eq!(
            looks_like(&head(&[(510, b"\x55\xaa")])),
            Some("a whole disk (MBR): give the offset of a partition")
        );
        let gpt = head(&[(510, b"\x55\xaa"), (512, b"EFI PART")]);
        assert_eq!(
            looks_like(&gpt),
            Some("a whole disk (GPT): give the offset of a partition")
        );
        assert_eq!(looks_like(&head(&[])), Some("zero bytes"));
        assert_eq!(looks_like(b"plain text"), None);
        assert_eq!(looks_like(b""), None);
    }

    #[test]
    fn the_ext_family_is_told_apart_by_features() {
        let magic: (usize, &[u8]) = (1080, b"\x53\xef");
        assert_eq!(looks_like(&head(&[magic])), Some("ext2"));
        assert_eq!(looks_like(&head(&[magic, (1116, b"\x04")])), Some("ext3"));
        assert_eq!(looks_like(&head(&[magic, (1120, b"\x42")])), Some("ext4"));
        assert_eq!(looks_like(&head(&[magic, (1125, b"\x04")])), Some("ext4"));
    }
}
