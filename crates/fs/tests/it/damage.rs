//! Damaged directories: an error that names the place, or the names that can be read; never a panic, never an endless loop.

use std::os::unix::fs::FileExt;

use ext2dax::{Error, FileSystem, MountOptions, New, RenameFlags};
use ext2dax_format::CorruptKind;

use crate::image::{Image, run};
use crate::random::Random;

const NEW: New = New {
    mode: 0o644,
    umask: 0,
    uid: 0,
    gid: 0,
    device: (0, 0),
};

/// An image with a directory `d` of some files, and the number of its first block.
fn with_directory(shape: &str, files: usize) -> Option<(Image, u64, u64)> {
    let image = Image::new(shape, 16)?;
    let fs = image.mount();
    let block_size = u64::from(fs.geometry().block_size());
    let dir = fs
        .root()
        .expect("the root")
        .mkdir(b"d", &New { mode: 0o755, ..NEW })
        .expect("mkdir");
    for number in 0..files {
        dir.create(format!("file{number:03}").as_bytes(), &NEW)
            .expect("create");
    }
    drop(dir);
    fs.unmount().expect("nothing is open");
    let output = run("debugfs", &["-R", "bmap d 0", image.name()])?;
    let block: u64 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("a block number");
    Some((image, block * block_size, block_size))
}

fn patch(image: &Image, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&image.path)
        .expect("the image");
    file.write_all_at(bytes, at).expect("a patch");
}

/// The first error that a walk through `d` meets.
fn error_of(image: &Image) -> Option<Error> {
    let fs = image.mount();
    let dir = fs.root().expect("the root").lookup(b"d").expect("d");
    dir.read_dir(0, usize::MAX).err()
}

/// One field of a good directory at a time; each has its own kind of error, which carries the place.
#[test]
fn each_damaged_field_of_an_entry_has_its_error() {
    type Expected = fn(&CorruptKind) -> bool;
    // `.` and `..` take 24 bytes; the first file's entry follows.
    let cases: [(&str, u64, &[u8], Expected); 8] = [
        ("rec_len 0", 28, &[0, 0], |kind| {
            matches!(kind, CorruptKind::DirentLength { offset: 24, .. })
        }),
        ("rec_len odd", 28, &[18, 0], |kind| {
            matches!(kind, CorruptKind::DirentLength { offset: 24, .. })
        }),
        ("rec_len past the block", 28, &[0xFC, 0x7F], |kind| {
            matches!(kind, CorruptKind::DirentPastBlock { offset: 24, .. })
        }),
        ("a long name", 30, &[200], |kind| {
            matches!(kind, CorruptKind::DirentNameLength { offset: 24, .. })
        }),
        ("no name", 30, &[0], |kind| {
            matches!(kind, CorruptKind::DirentNameEmpty { offset: 24, .. })
        }),
        ("a slash", 33, b"/", |kind| {
            matches!(kind, CorruptKind::DirentNameByte { offset: 24, .. })
        }),
        ("an inode too large", 24, &[0xFF; 4], |kind| {
            matches!(kind, CorruptKind::DirentInode { offset: 24, .. })
        }),
        ("a reserved inode", 24, &[7, 0, 0, 0], |kind| {
            matches!(kind, CorruptKind::DirentInode { offset: 24, .. })
        }),
    ];
    for (what, at, bytes, expected) in cases {
        let Some((image, block, _)) = with_directory("-b 4096", 5) else {
            return;
        };
        patch(&image, block + at, bytes);
        match error_of(&image) {
            Some(Error::Corrupt(kind)) => assert!(expected(&kind), "{what}: {kind:?}"),
            other => panic!("{what}: {other:?}"),
        }
        let fs = image.mount();
        let root = fs.root().expect("the root");
        let dir = root.lookup(b"d").expect("d");
        assert!(
            matches!(dir.create(b"new", &NEW).map(drop), Err(Error::Corrupt(_))),
            "{what}: create"
        );
        assert!(
            matches!(root.rmdir(b"d"), Err(Error::Corrupt(_))),
            "{what}: rmdir"
        );
        drop((dir, root));
        fs.unmount().expect("nothing is open");
    }
}

#[test]
fn a_directory_that_names_itself_is_not_removed() {
    let Some((image, block, _)) = with_directory("-b 4096", 1) else {
        return;
    };
    let fs = image.mount();
    let number = fs
        .root()
        .expect("the root")
        .lookup(b"d")
        .expect("d")
        .number();
    fs.unmount().expect("nothing is open");
    patch(&image, block + 24, &number.to_le_bytes());
    let fs = image.mount();
    let root = fs.root().expect("the root");
    let dir = root.lookup(b"d").expect("d");
    assert!(matches!(dir.rmdir(b"file000"), Err(Error::Corrupt(_))));
    assert!(matches!(
        dir.rename(b"file000", &dir, b"x"),
        Err(Error::Corrupt(_))
    ));
    assert!(matches!(
        dir.rename(b"file000", &root, b"x"),
        Err(Error::Corrupt(_))
    ));
    assert_eq!(dir.unlink(b"file000"), Err(Error::IsADirectory));
}

#[test]
fn directories_that_hold_each_other_do_not_stop_a_rename() {
    let Some((image, block, _)) = with_directory("-b 4096", 1) else {
        return;
    };
    let fs = image.mount();
    let dir = fs.root().expect("the root").lookup(b"d").expect("d");
    let below = dir.mkdir(b"below", &NEW).expect("mkdir");
    let number = below.number();
    drop((dir, below));
    fs.unmount().expect("nothing is open");
    // `..` of d names the directory below it.
    patch(&image, block + 12, &number.to_le_bytes());
    let fs = image.mount();
    let root = fs.root().expect("the root");
    let below = root
        .lookup(b"d")
        .expect("d")
        .lookup(b"below")
        .expect("below");
    assert!(matches!(
        below.rename(b"x", &root, b"y"),
        Err(Error::Corrupt(_))
    ));
}

/// Every operation, on directories with random damage.
fn poke(fs: &FileSystem, random: &mut Random) {
    let Ok(root) = fs.root() else { return };
    let mut dirs = vec![root.clone()];
    dirs.extend(root.lookup(b"d"));
    dirs.extend(dirs.last().and_then(|dir| dir.lookup(b"sub").ok()));
    for _ in 0..60 {
        let (dir, other) = (random.pick(&dirs).clone(), random.pick(&dirs).clone());
        let name = format!("file{:03}", random.below(30)).into_bytes();
        let second = format!("file{:03}", random.below(40)).into_bytes();
        let flags = *random.pick(&[
            RenameFlags::Replace,
            RenameFlags::NoReplace,
            RenameFlags::Exchange,
        ]);
        match random.below(10) {
            0 => drop(dir.read_dir(random.next() % 10_000, 50)),
            1 => drop(dir.create(&name, &NEW)),
            2 => drop(dir.unlink(&name)),
            3 => drop(dir.mkdir(&name, &NEW)),
            4 => drop(dir.rmdir(&name)),
            5 => drop(dir.symlink(&name, &[b'x'; 70], &NEW)),
            6 => drop(
                dir.lookup(&second)
                    .and_then(|file| other.link(&name, &file)),
            ),
            7 => drop(dir.lookup(&name).and_then(|link| link.read_link())),
            _ => drop(dir.rename_with(&name, &other, &second, flags)),
        }
    }
}

#[test]
fn random_damage_never_panics() {
    let seeds: u64 = std::env::var("SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(60);
    let Some((image, block, block_size)) = with_directory("-b 1024 -N 128", 20) else {
        return;
    };
    let fs = image.mount();
    let dir = fs.root().expect("the root").lookup(b"d").expect("d");
    dir.mkdir(b"sub", &NEW).expect("mkdir");
    drop(dir);
    let table = fs.geometry();
    fs.unmount().expect("nothing is open");
    // Descriptors, bitmaps and inodes lie in the first blocks.
    let metadata = u64::from(table.inode_table_blocks() + 8) * block_size;
    for seed in 0..seeds {
        println!("seed {seed}");
        let mut random = Random(seed);
        let damaged = image.copy();
        for _ in 0..1 + random.below(6) {
            let at = match random.below(3) {
                0 => 2048 + random.next() % metadata,
                _ => block + random.next() % block_size,
            };
            let bytes = random.next().to_le_bytes();
            patch(&damaged, at, &bytes[..1 + random.below(4)]);
        }
        let options = MountOptions::new().accept_unclean(true);
        if let Ok(fs) = FileSystem::mount(damaged.region(), &options) {
            poke(&fs, &mut random);
        }
    }
}
