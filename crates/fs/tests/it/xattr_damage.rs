//! Damaged attributes: an error that names the place, or what can be read; never a panic, never an endless loop.

use std::os::unix::fs::FileExt;

use ext2dax::{Error, Inode, MountOptions, New, SetAttributes, SetXattr};
use ext2dax_format::CorruptKind;
use ext2dax_format::superblock::OnError;

use crate::image::{Image, run};
use crate::random::Random;

const FILE: New = New {
    mode: 0o644,
    umask: 0,
    uid: 0,
    gid: 0,
    device: (0, 0),
};

const ACCESS: &[u8] = b"system.posix_acl_access";

/// user::rwx, group::r-x, mask::rwx, other::---
const LIST: &[u8] = &[
    2, 0, 0, 0, //
    1, 0, 7, 0, 255, 255, 255, 255, //
    4, 0, 5, 0, 255, 255, 255, 255, //
    16, 0, 7, 0, 255, 255, 255, 255, //
    32, 0, 0, 0, 255, 255, 255, 255,
];

/// An image with a file `f` that has two attributes and a list; where its attribute block and its inode lie.
fn with_attributes(shape: &str) -> Option<(Image, u64, u64)> {
    let image = Image::new(shape, 4)?;
    let fs = image.mount();
    let root = fs.root().expect("the root");
    let file = root.create(b"f", &FILE).expect("create");
    for (name, value) in [(&b"user.a"[..], &b"value"[..]), (b"trusted.bc", &[7; 40])] {
        file.set_xattr(name, value, SetXattr::Any).expect("set");
    }
    file.set_xattr(ACCESS, LIST, SetXattr::Any).expect("a list");
    let block_size = u64::from(fs.statfs().block_size);
    drop((file, root));
    fs.unmount().expect("nothing is open");
    let stat = run("debugfs", &["-R", "stat f", image.name()])?;
    let stat = String::from_utf8_lossy(&stat.stdout).into_owned();
    let block: u64 = stat
        .split("File ACL: ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|word| word.parse().ok())
        .expect("a block number");
    let place = run("debugfs", &["-R", "imap f", image.name()])?;
    let place = String::from_utf8_lossy(&place.stdout).into_owned();
    let after = |words: &str| {
        let rest = place.split(words).nth(1).expect("where the inode lies");
        rest.split([',', '\n'])
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let in_block: u64 = after("located at block ").parse().expect("a block");
    let hex = after("offset 0x");
    let offset = u64::from_str_radix(&hex, 16).expect("an offset");
    Some((image, block * block_size, in_block * block_size + offset))
}

fn patch(image: &Image, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&image.path)
        .expect("the image");
    file.write_all_at(bytes, at).expect("a patch");
}

/// One field of a good file at a time; each has its own kind of error.
#[test]
fn each_damaged_field_of_attributes_has_its_error() {
    type Expected = fn(&CorruptKind) -> bool;
    // The list's entry comes second: 16 bytes without a name, behind 20 bytes of `user.a`.
    let in_block: [(&str, u64, &[u8], Expected); 9] = [
        ("magic", 0, &[1], |kind| {
            matches!(kind, CorruptKind::XattrMagic { .. })
        }),
        ("two blocks", 8, &[2], |kind| {
            matches!(kind, CorruptKind::XattrBlocks { .. })
        }),
        ("no user", 4, &[0], |kind| {
            matches!(kind, CorruptKind::XattrRefcount { .. })
        }),
        ("too many users", 5, &[5], |kind| {
            matches!(kind, CorruptKind::XattrRefcount { .. })
        }),
        ("value past the block", 32 + 2, &[0xfd, 3], |kind| {
            matches!(kind, CorruptKind::XattrValue { offset: 32, .. })
        }),
        ("value in the entries", 32 + 2, &[36, 0], |kind| {
            matches!(kind, CorruptKind::XattrValue { offset: 32, .. })
        }),
        ("a huge value", 32 + 8, &[0xff, 0xff, 0xff, 0xff], |kind| {
            matches!(kind, CorruptKind::XattrValue { offset: 32, .. })
        }),
        ("a value elsewhere", 32 + 4, &[1], |kind| {
            matches!(kind, CorruptKind::XattrValueBlock { offset: 32, .. })
        }),
        // Entries go on into the values until one leaves the block.
        (
            "no end of the list",
            32 + 20 + 16 + 20,
            &[255; 936],
            |kind| matches!(kind, CorruptKind::XattrEntry { .. }),
        ),
    ];
    let in_inode: [(&str, u64, &[u8], Expected); 3] = [
        (
            "block past the end",
            104,
            &[0xff, 0xff, 0xff, 0xff],
            |kind| {
                matches!(
                    kind,
                    CorruptKind::XattrBlock {
                        found: 0xffff_ffff,
                        ..
                    }
                )
            },
        ),
        ("block of the tables", 104, &[1, 0, 0, 0], |kind| {
            matches!(kind, CorruptKind::XattrBlock { found: 1, .. })
        }),
        ("extra fields past the inode", 128, &[0xff, 0x7f], |kind| {
            matches!(kind, CorruptKind::InodeExtraSize { found: 0x7fff, .. })
        }),
    ];
    let Some((good, block, inode)) = with_attributes("-b 1024 -I 256") else {
        return;
    };
    let cases = in_block
        .into_iter()
        .map(|case| (block, case))
        .chain(in_inode.into_iter().map(|case| (inode, case)));
    for (base, (what, at, bytes, expected)) in cases {
        let image = good.copy();
        patch(&image, base + at, bytes);
        let fs = image.mount();
        let root = fs.root().expect("the root");
        let file = root.lookup(b"f").expect("its name can be looked up");
        file.attributes().expect("stat asks for no attributes");
        let is_expected = |result: Result<(), Error>| match result {
            Err(Error::Corrupt(kind)) => assert!(expected(&kind), "{what}: {kind:?}"),
            other => panic!("{what}: {other:?}"),
        };
        is_expected(file.list_xattrs().map(drop));
        is_expected(file.xattr(b"user.a").map(drop));
        is_expected(file.set_xattr(b"user.new", b"1", SetXattr::Any));
        is_expected(file.remove_xattr(b"user.a"));
        drop((file, root));
        fs.abandon();
    }
}

#[test]
fn a_damaged_list_is_an_error_and_other_attributes_go_on() {
    let Some((image, block, _)) = with_attributes("-b 1024 -I 128") else {
        return;
    };
    let mut bytes = vec![0; 1024];
    std::fs::File::open(&image.path)
        .expect("the image")
        .read_exact_at(&mut bytes, block)
        .expect("the block");
    let version = [1, 0, 0, 0, 1, 0, 7, 0];
    let at = bytes
        .windows(8)
        .position(|window| window == version)
        .expect("the list on the medium");
    patch(&image, block + at as u64, &[9]);
    let fs = image.mount();
    let root = fs.root().expect("the root");
    let file = root.lookup(b"f").expect("the file");
    let damaged = Err(Error::Corrupt(CorruptKind::XattrAcl {
        inode: file.number(),
    }));
    assert_eq!(file.xattr(ACCESS), damaged.map(|()| Vec::new()));
    let chmod = SetAttributes {
        permissions: Some(0o600),
        ..SetAttributes::default()
    };
    assert_eq!(file.set_attributes(&chmod), damaged);
    assert_eq!(file.xattr(b"user.a").as_deref(), Ok(&b"value"[..]));
    // A new list replaces it.
    file.set_xattr(ACCESS, LIST, SetXattr::Any).expect("a list");
    file.set_attributes(&chmod).expect("chmod");
    drop((file, root));
    fs.unmount().expect("nothing is open");
    image.assert_clean("a new list");
}

/// Everything that may be asked; answers do not matter, ends do.
fn ask_everything(file: &Inode) {
    let names = file.list_xattrs().unwrap_or_default();
    assert!(names.len() <= 1024 / 16 + 128 / 16, "more names than fit");
    for name in names
        .iter()
        .map(Vec::as_slice)
        .chain([&b"user.a"[..], ACCESS])
    {
        let _ = file.xattr(name);
    }
    let _ = file.clear_privileges();
    let _ = file.set_xattr(b"user.a", b"another", SetXattr::Any);
    let _ = file.set_attributes(&SetAttributes {
        permissions: Some(0o751),
        uid: Some(1),
        ..SetAttributes::default()
    });
    let _ = file.remove_xattr(b"trusted.bc");
    let _ = file.set_xattr(ACCESS, LIST, SetXattr::Any);
}

#[test]
fn random_damage_ends_in_answers() {
    let Some((good, block, inode)) = with_attributes("-b 1024 -I 256") else {
        return;
    };
    let seed = 0xea;
    let mut random = Random(seed);
    for round in 0..150 {
        let image = good.copy();
        for _ in 0..=random.below(3) {
            let at = match random.below(4) {
                // Heads and the first entries, mostly.
                0 => block + random.next() % 1024,
                1 => inode + 104 + random.next() % 4,
                2 => inode + 128 + random.next() % 64,
                _ => block + random.next() % 96,
            };
            patch(&image, at, &[random.byte()]);
        }
        if round % 2 == 0 {
            // Attributes behind the inode, of whatever shape.
            patch(&image, inode + 128 + 32, &[0, 0, 2, 0xea, 3, 1]);
        }
        let options = MountOptions::new().on_error(OnError::Continue);
        let fs = image.mount_with(&options);
        let root = fs.root().expect("the root");
        if let Ok(file) = root.lookup(b"f") {
            ask_everything(&file);
        }
        let _ = root.unlink(b"f");
        drop(root);
        fs.abandon();
    }
}
