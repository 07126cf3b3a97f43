use super::*;
use crate::{Error, sample};

/// UUID 00112233-4455-6677-8899-aabbccddeeff as it lies in the superblock.
const SEED: Seed = Seed([0x3322_1100, 0x7766_5544, 0xbbaa_9988, 0xffee_ddcc]);
const NONE: Seed = Seed([0; 4]);
/// Bytes above 127, where signedness shows: 11 bytes.
const HIGH: &[u8] = b"\xc3\xa4\xc3\xb6\xc3\xbc\xffname";

/// Answers of `debugfs -R "dx_hash -h VERSION [-s UUID] NAME"`, e2fsprogs 1.47.0; versions 3 to 5 by number.
#[test]
fn hashes_agree_with_debugfs() {
    use HashVersion::{HalfMd4, HalfMd4Unsigned, Legacy, LegacyUnsigned, Tea, TeaUnsigned};
    let long = [b'x'; 255];
    let high4 = HIGH.repeat(4);
    let vectors: [(HashVersion, Seed, &[u8], u32, u32); 40] = [
        (Legacy, NONE, b"a", 0xe74b_53e2, 0),
        (Legacy, SEED, b"foo", 0x9f57_ef58, 0),
        (
            Legacy,
            NONE,
            b"abcdefghijklmnopqrstuvwxyz0123456789",
            0x9015_281a,
            0,
        ),
        (
            Legacy,
            NONE,
            b"01234567890123456789012345678901",
            0x0cbe_8030,
            0,
        ),
        (Legacy, NONE, &long, 0x3055_7da6, 0),
        (Legacy, NONE, HIGH, 0xc77f_b390, 0),
        (Legacy, NONE, &high4, 0xaf2b_7a00, 0),
        (LegacyUnsigned, NONE, HIGH, 0x321d_9d90, 0),
        (LegacyUnsigned, NONE, &high4, 0xdda8_51f2, 0),
        (HalfMd4, NONE, b"a", 0xd5fa_7d7a, 0xacb4_8187),
        (HalfMd4, NONE, b"foo", 0x74c6_57ac, 0x85a8_d812),
        (HalfMd4, NONE, b"hello.txt", 0xa26e_1d86, 0x133b_3f98),
        (
            HalfMd4,
            NONE,
            b"abcdefghijklmnopqrstuvwxyz0123456789",
            0x97c6_9942,
            0x2630_f912,
        ),
        (HalfMd4, NONE, b"0123456789abcdef", 0x8cb5_02b6, 0x5acf_4f33),
        (
            HalfMd4,
            NONE,
            b"0123456789abcdefg",
            0x3808_cb0e,
            0x9fb9_d3a1,
        ),
        (
            HalfMd4,
            NONE,
            b"01234567890123456789012345678901",
            0x6538_762a,
            0x2370_aa1f,
        ),
        (HalfMd4, NONE, &long, 0x2aa7_169e, 0x655f_9d9c),
        (HalfMd4, SEED, &long, 0x5966_f920, 0x2628_1ca3),
        (HalfMd4, SEED, b"hello.txt", 0xfd21_d2d0, 0x1502_7261),
        (
            HalfMd4,
            SEED,
            b"0123456789abcdefg",
            0xc52e_00ea,
            0xecf5_e8ca,
        ),
        (HalfMd4, NONE, HIGH, 0xebc1_b7e6, 0xac1f_339b),
        (HalfMd4, SEED, &high4, 0xf98b_6c22, 0xa318_c9b2),
        (HalfMd4Unsigned, NONE, HIGH, 0x9e9f_12f2, 0xaf75_5549),
        (HalfMd4Unsigned, SEED, HIGH, 0xc2ca_2342, 0x7bfd_a436),
        (HalfMd4Unsigned, NONE, &high4, 0x63f0_506a, 0xcf59_232c),
        (HalfMd4Unsigned, SEED, &high4, 0xaa4c_59be, 0x2299_fa4e),
        (Tea, NONE, b"a", 0x6d0e_a4c0, 0xc189_22df),
        (Tea, NONE, b"foo", 0x901b_3376, 0x4878_f6ae),
        (Tea, NONE, b"hello.txt", 0x5107_c3f2, 0x0384_0cb7),
        (
            Tea,
            NONE,
            b"abcdefghijklmnopqrstuvwxyz0123456789",
            0xe073_581c,
            0x45be_1a19,
        ),
        (Tea, NONE, b"0123456789abcdef", 0x5a07_88b2, 0xefa4_e711),
        (Tea, NONE, b"0123456789abcdefg", 0xfb1a_23ec, 0xb1ba_9f3a),
        (Tea, NONE, &long, 0x6c4c_00ee, 0x0eaf_db6b),
        (Tea, SEED, &long, 0xc414_3c16, 0xcb83_0954),
        (
            Tea,
            SEED,
            b"01234567890123456789012345678901",
            0xb724_69c4,
            0x1b1a_dcb0,
        ),
        (Tea, NONE, &high4, 0x0a59_2e66, 0x19fe_e9f8),
        (TeaUnsigned, NONE, HIGH, 0x96ee_e1e6, 0xb47e_b553),
        (TeaUnsigned, SEED, HIGH, 0x4f59_0e96, 0xd5ce_7080),
        (TeaUnsigned, NONE, &high4, 0x71ff_2cfe, 0xe480_f71d),
        (TeaUnsigned, SEED, &high4, 0x1956_448a, 0xa394_e020),
    ];
    for (version, seed, name, major, minor) in vectors {
        assert_eq!(
            hash(name, version, seed),
            NameHash { major, minor },
            "{version:?} {seed:?} {name:?}"
        );
    }
}

fn root_block(block_size: u32) -> Vec<u8> {
    let mut block = vec![0; block_size as usize];
    block[28] = 1;
    block[29] = 8;
    let limit = u16::try_from(root_limit(block_size)).unwrap();
    block[32..34].copy_from_slice(&limit.to_le_bytes());
    block[34] = 2;
    block[36] = 1;
    block[40..44].copy_from_slice(&0x8000_0000_u32.to_le_bytes());
    block[44] = 2;
    block
}

fn index_error(block: &[u8], block_size: u32) -> Error {
    Root::parse(block, &sample::geometry(block_size, 1), Ino::ROOT)
        .map(|_| ())
        .unwrap_err()
}

#[test]
fn a_root_reads_back_at_every_block_size() {
    for block_size in sample::BLOCK_SIZES {
        let block = root_block(block_size);
        let root = Root::parse(&block, &sample::geometry(block_size, 1), Ino::ROOT).unwrap();
        assert_eq!((root.version, root.levels), (HashVersion::HalfMd4, 0));
        let entries: Vec<_> = root.node.iter().collect();
        assert_eq!(entries, [(0, FileBlock(1)), (0x8000_0000, FileBlock(2))]);
    }
}

#[test]
fn each_damage_of_a_root_is_found() {
    for (at, value) in [(24, 1), (28, 6), (29, 7), (30, 2), (31, 1)] {
        let mut block = root_block(1024);
        block[at] = value;
        assert!(
            matches!(
                index_error(&block, 1024),
                Error::Corrupt(CorruptKind::IndexRoot { .. })
            ),
            "byte {at}"
        );
    }
    for (at, value) in [(32, 9), (34, 0), (35, 1)] {
        let mut block = root_block(1024);
        block[at] = value;
        assert!(
            matches!(
                index_error(&block, 1024),
                Error::Corrupt(CorruptKind::IndexCount { .. })
            ),
            "byte {at}"
        );
    }
    assert!(matches!(
        index_error(&[], 1024),
        Error::Corrupt(CorruptKind::IndexRoot { .. })
    ));
}
