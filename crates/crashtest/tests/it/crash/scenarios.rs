//! The operations, each on the smallest tree that it needs.

use ext2dax::{FileSystem, FileType, RenameFlags, Result};
use ext2dax_crashtest::crash::scenario::{Promise, Scenario};

/// A file of `blocks` blocks and a half, with bytes that tell where they belong.
fn file(fs: &FileSystem, path: &str, blocks: u64) -> Result<()> {
    let block = u64::from(fs.geometry().block_size());
    let bytes: Vec<u8> = (0..blocks * block + block / 2)
        .map(|i| (i % 251).to_le_bytes()[0] | 1)
        .collect();
    fs.write(path, bytes)
}

fn nothing(_: &FileSystem) -> Result<()> {
    Ok(())
}

/// Names of the longest length until the root's first block has no room for one more.
fn crowd(fs: &FileSystem) -> Result<()> {
    let block = u64::from(fs.geometry().block_size());
    for i in 0..block / 264 {
        fs.create(format!("/{i:0>255}"))?;
    }
    Ok(())
}

/// One more block of the root filled with names of the longest length.
fn crowd_named(fs: &FileSystem, round: u32) -> Result<()> {
    let block = u64::from(fs.geometry().block_size());
    for i in 0..block / 264 {
        fs.create(format!("/{round}-{i:0>253}"))?;
    }
    Ok(())
}

fn exchange(fs: &FileSystem, from: &str, name: &str, to: &str, other: &str) -> Result<()> {
    let (from, to) = (fs.inode(from)?, fs.inode(to)?);
    from.rename_with(
        name.as_bytes(),
        &to,
        other.as_bytes(),
        RenameFlags::Exchange,
    )
}

fn two_files(fs: &FileSystem) -> Result<()> {
    file(fs, "/a", 1)?;
    file(fs, "/bb", 2)
}

/// Operations on names.
pub(super) const NAMES: &[Scenario] = &[
    Scenario {
        name: "create",
        promise: Promise::Atomic,
        fences: 2,
        prepare: nothing,
        operation: |fs| fs.create("/new").map(drop),
    },
    Scenario {
        name: "create in a grown directory",
        promise: Promise::Atomic,
        fences: 3,
        prepare: crowd,
        operation: |fs| fs.create(format!("/{:x>255}", "")).map(drop),
    },
    Scenario {
        name: "mkdir",
        promise: Promise::Atomic,
        fences: 3,
        prepare: nothing,
        operation: |fs| fs.create_dir("/new"),
    },
    Scenario {
        name: "mkdir in a directory",
        promise: Promise::Atomic,
        fences: 3,
        prepare: |fs| fs.create_dir("/d"),
        operation: |fs| fs.create_dir("/d/new"),
    },
    Scenario {
        name: "symlink, short",
        promise: Promise::Atomic,
        fences: 3,
        prepare: nothing,
        operation: |fs| fs.symlink("target", "/new"),
    },
    Scenario {
        name: "symlink, long",
        promise: Promise::Atomic,
        fences: 3,
        prepare: nothing,
        operation: |fs| fs.symlink("t".repeat(200), "/new"),
    },
    Scenario {
        name: "link",
        promise: Promise::Atomic,
        fences: 3,
        prepare: |fs| file(fs, "/a", 1),
        operation: |fs| fs.hard_link("/a", "/new"),
    },
    Scenario {
        name: "unlink, empty",
        promise: Promise::Atomic,
        fences: 3,
        prepare: |fs| fs.create("/a").map(drop),
        operation: |fs| fs.remove_file("/a"),
    },
    Scenario {
        name: "unlink, contents",
        promise: Promise::Atomic,
        fences: 3,
        prepare: two_files,
        operation: |fs| fs.remove_file("/a"),
    },
    Scenario {
        name: "unlink, indirect blocks",
        promise: Promise::Atomic,
        fences: 3,
        prepare: |fs| file(fs, "/a", 14),
        operation: |fs| fs.remove_file("/a"),
    },
    Scenario {
        name: "unlink, one name of two",
        promise: Promise::Atomic,
        fences: 3,
        prepare: |fs| file(fs, "/a", 1).and_then(|()| fs.hard_link("/a", "/b")),
        operation: |fs| fs.remove_file("/a"),
    },
    Scenario {
        name: "rmdir",
        promise: Promise::Atomic,
        fences: 3,
        prepare: |fs| fs.create_dir("/d"),
        operation: |fs| fs.remove_dir("/d"),
    },
    Scenario {
        name: "rename, shorter name",
        promise: Promise::Atomic,
        fences: 2,
        prepare: two_files,
        operation: |fs| fs.rename("/bb", "/c"),
    },
    Scenario {
        name: "rename, longer name",
        promise: Promise::Atomic,
        fences: 2,
        prepare: two_files,
        operation: |fs| fs.rename("/a", "/a-much-longer-name"),
    },
    Scenario {
        name: "rename a directory",
        promise: Promise::Atomic,
        fences: 2,
        prepare: |fs| fs.create_dir("/d"),
        operation: |fs| fs.rename("/d", "/e"),
    },
    Scenario {
        name: "rename over a file",
        promise: Promise::EachName,
        fences: 9,
        prepare: two_files,
        operation: |fs| fs.rename("/a", "/bb"),
    },
    Scenario {
        name: "rename over a file, not the first of a mount",
        promise: Promise::EachName,
        fences: 6,
        prepare: |fs| {
            two_files(fs)?;
            file(fs, "/c", 1)?;
            fs.rename("/c", "/a")
        },
        operation: |fs| fs.rename("/a", "/bb"),
    },
    Scenario {
        name: "rename over one name of two",
        promise: Promise::EachName,
        fences: 5,
        prepare: |fs| two_files(fs).and_then(|()| fs.hard_link("/bb", "/other")),
        operation: |fs| fs.rename("/a", "/bb"),
    },
    Scenario {
        name: "rename to another directory",
        promise: Promise::EachName,
        fences: 5,
        prepare: |fs| two_files(fs).and_then(|()| fs.create_dir("/d")),
        operation: |fs| fs.rename("/a", "/d/a"),
    },
    Scenario {
        name: "rename over a file in another directory",
        promise: Promise::EachName,
        fences: 9,
        prepare: |fs| {
            two_files(fs)?;
            fs.create_dir("/d")?;
            file(fs, "/d/a", 1)
        },
        operation: |fs| fs.rename("/a", "/d/a"),
    },
    Scenario {
        name: "create in the seventh block",
        promise: Promise::Atomic,
        fences: 4,
        prepare: |fs| (0..7).try_for_each(|i| crowd_named(fs, i)),
        operation: |fs| fs.create(format!("/{:x>255}", "")).map(drop),
    },
    Scenario {
        name: "mknod",
        promise: Promise::Atomic,
        fences: 3,
        prepare: nothing,
        operation: |fs| fs.mknod("/new", FileType::Fifo, 0o644, None),
    },
    Scenario {
        name: "chmod",
        promise: Promise::Atomic,
        fences: 1,
        prepare: |fs| file(fs, "/a", 1),
        operation: |fs| fs.set_permissions("/a", ext2dax::Permissions::from_mode(0o4711)),
    },
    Scenario {
        name: "chown, high halves",
        promise: Promise::Atomic,
        fences: 2,
        prepare: |fs| file(fs, "/a", 1),
        operation: |fs| fs.set_owner("/a", Some(0x12_3456), Some(0x65_4321)),
    },
    Scenario {
        name: "rename into a new block of the directory",
        promise: Promise::EachName,
        fences: 5,
        prepare: |fs| two_files(fs).and_then(|()| crowd(fs)),
        operation: |fs| fs.rename("/a", format!("/{:y>255}", "")),
    },
    Scenario {
        name: "rename over a file of another kind",
        promise: Promise::EachName,
        fences: 9,
        prepare: |fs| file(fs, "/a", 1).and_then(|()| fs.symlink("/a", "/l")),
        operation: |fs| fs.rename("/a", "/l"),
    },
    Scenario {
        name: "rename over a file without lost+found",
        promise: Promise::EachName,
        fences: 11,
        prepare: |fs| two_files(fs).and_then(|()| fs.remove_dir("/lost+found")),
        operation: |fs| fs.rename("/a", "/bb"),
    },
    Scenario {
        name: "exchange in one block",
        promise: Promise::Atomic,
        fences: 2,
        prepare: two_files,
        operation: |fs| exchange(fs, "/", "a", "/", "bb"),
    },
    Scenario {
        name: "exchange across directories",
        promise: Promise::EachName,
        fences: 10,
        prepare: |fs| {
            two_files(fs)
                .and_then(|()| fs.create_dir("/d"))
                .and_then(|()| file(fs, "/d/c", 1))
        },
        operation: |fs| exchange(fs, "/", "a", "/d", "c"),
    },
    Scenario {
        name: "unlink an open file",
        promise: Promise::Atomic,
        fences: 6,
        prepare: two_files,
        operation: |fs| {
            let open = fs.open("/bb")?;
            fs.remove_file("/bb")?;
            drop(open);
            Ok(())
        },
    },
    Scenario {
        name: "a file without a name gets one",
        promise: Promise::Atomic,
        fences: 9,
        prepare: nothing,
        operation: |fs| {
            let root = fs.root()?;
            let file = root.tmpfile(&ext2dax::New::default())?;
            file.write_at(0, [7; 1500].as_slice())?;
            root.link(b"new", &file)
        },
    },
    Scenario {
        name: "a file without a name gets one, not at the end of the list",
        promise: Promise::Atomic,
        fences: 14,
        prepare: nothing,
        operation: |fs| {
            let root = fs.root()?;
            let file = root.tmpfile(&ext2dax::New::default())?;
            file.write_at(0, [7; 1500].as_slice())?;
            let other = root.tmpfile(&ext2dax::New::default())?;
            root.link(b"new", &file)?;
            drop(other);
            Ok(())
        },
    },
    Scenario {
        name: "rmdir of an open directory",
        promise: Promise::Atomic,
        fences: 7,
        prepare: |fs| fs.create_dir("/d"),
        operation: |fs| {
            let open = fs.inode("/d")?;
            fs.remove_dir("/d")?;
            drop(open);
            Ok(())
        },
    },
    Scenario {
        name: "rename a directory over an empty one",
        promise: Promise::EmptyTargetMayGo,
        fences: 4,
        prepare: |fs| fs.create_dir("/d").and_then(|()| fs.create_dir("/e")),
        operation: |fs| fs.rename("/d", "/e"),
    },
];

/// Operations on contents.
pub(super) const CONTENTS: &[Scenario] = &[
    Scenario {
        name: "append, first block",
        promise: Promise::Atomic,
        fences: 2,
        prepare: |fs| fs.create("/f").map(drop),
        operation: |fs| append(fs, 100),
    },
    Scenario {
        name: "append inside a block",
        promise: Promise::Atomic,
        fences: 2,
        prepare: |fs| fs.write("/f", [7; 70]),
        operation: |fs| append(fs, 100),
    },
    Scenario {
        name: "append across blocks",
        promise: Promise::Atomic,
        fences: 2,
        prepare: |fs| file(fs, "/f", 1),
        operation: |fs| append(fs, 3000),
    },
    Scenario {
        name: "append, first indirect block",
        promise: Promise::Atomic,
        fences: 3,
        prepare: |fs| file(fs, "/f", 11),
        operation: |fs| append(fs, 5000),
    },
    Scenario {
        name: "fill a hole",
        promise: Promise::Contents,
        fences: 2,
        prepare: |fs| sparse(fs, 4),
        operation: |fs| write_at(fs, u64::from(fs.geometry().block_size()), 100),
    },
    Scenario {
        name: "fill a hole behind an indirect block",
        promise: Promise::Contents,
        fences: 2,
        prepare: |fs| sparse(fs, 30),
        operation: |fs| write_at(fs, 20 * u64::from(fs.geometry().block_size()), 100),
    },
    Scenario {
        name: "extend",
        promise: Promise::Atomic,
        fences: 2,
        prepare: |fs| fs.write("/f", [7; 70]),
        operation: |fs| resize(fs, 70_000),
    },
    Scenario {
        name: "truncate inside a block",
        promise: Promise::Atomic,
        fences: 4,
        prepare: |fs| file(fs, "/f", 2),
        operation: |fs| resize(fs, 100),
    },
    Scenario {
        name: "truncate to nothing",
        promise: Promise::Atomic,
        fences: 4,
        prepare: |fs| file(fs, "/f", 2),
        operation: |fs| resize(fs, 0),
    },
    Scenario {
        name: "truncate indirect blocks",
        promise: Promise::Atomic,
        fences: 4,
        prepare: |fs| file(fs, "/f", 14),
        operation: |fs| resize(fs, 1000),
    },
    Scenario {
        name: "extend over 4 GiB",
        promise: Promise::Atomic,
        fences: 5,
        prepare: |fs| fs.write("/f", [7; 70]),
        operation: |fs| resize(fs, (4 << 30) + 10),
    },
    Scenario {
        name: "extend over 4 GiB, not the first time",
        promise: Promise::Atomic,
        fences: 4,
        prepare: |fs| {
            fs.write("/f", [7; 70])
                .and_then(|()| resize(fs, (4 << 30) + 10))
        },
        operation: |fs| resize(fs, (8 << 30) + 5),
    },
    Scenario {
        name: "truncate to less than 4 GiB",
        promise: Promise::Atomic,
        fences: 4,
        prepare: |fs| {
            fs.write("/f", [7; 70])
                .and_then(|()| resize(fs, (4 << 30) + 10))
        },
        operation: |fs| resize(fs, 50),
    },
    Scenario {
        name: "punch",
        promise: Promise::Contents,
        fences: 1,
        prepare: |fs| file(fs, "/f", 14),
        operation: |fs| {
            let block = u64::from(fs.geometry().block_size());
            let file = ext2dax::OpenOptions::new().write(true).open(fs, "/f")?;
            file.punch_hole(block..13 * block)
        },
    },
    Scenario {
        name: "append in pieces across blocks",
        promise: Promise::Atomic,
        fences: 3,
        prepare: |fs| file(fs, "/f", 1),
        operation: |fs| {
            let file = ext2dax::OpenOptions::new().append(true).open(fs, "/f")?;
            let (a, b, c) = ([9u8; 100], [10; 900], [11; 2000]);
            let parts = [(&a[..]).into(), (&b[..]).into(), (&c[..]).into()];
            file.write_vectored(&parts).map(drop)
        },
    },
    Scenario {
        name: "copy behind the end, with a hole",
        promise: Promise::Atomic,
        fences: 4,
        prepare: |fs| {
            sparse(fs, 4)?;
            write_at(fs, 0, 10)?;
            file(fs, "/g", 0)
        },
        operation: |fs| copy(fs, "/f", 0, "/g", u64::from(fs.geometry().block_size())),
    },
    Scenario {
        name: "copy of a hole over blocks",
        promise: Promise::Contents,
        fences: 4,
        prepare: |fs| {
            sparse(fs, 5)?;
            file(fs, "/g", 8)
        },
        operation: |fs| copy(fs, "/f", 0, "/g", 700),
    },
    Scenario {
        name: "allocate inside the file",
        promise: Promise::Atomic,
        fences: 2,
        prepare: |fs| sparse(fs, 6),
        operation: |fs| {
            let block = u64::from(fs.geometry().block_size());
            let file = ext2dax::OpenOptions::new().write(true).open(fs, "/f")?;
            file.fallocate(ext2dax::Fallocate::AllocateKeepSize, block..3 * block)
        },
    },
];

/// All of a file to a place in another one.
fn copy(fs: &FileSystem, from: &str, pos: u64, to: &str, to_pos: u64) -> Result<()> {
    let from = ext2dax::File::open(fs, from)?;
    let to = ext2dax::OpenOptions::new().write(true).open(fs, to)?;
    from.copy_range(pos, &to, to_pos, u64::from(u32::MAX))
        .map(drop)
}

fn append(fs: &FileSystem, len: usize) -> Result<()> {
    let file = ext2dax::OpenOptions::new().append(true).open(fs, "/f")?;
    file.write(vec![9u8; len].as_slice()).map(drop)
}

fn write_at(fs: &FileSystem, at: u64, len: usize) -> Result<()> {
    ext2dax::OpenOptions::new()
        .write(true)
        .open(fs, "/f")?
        .write_all_at(&vec![9; len], at)
}

fn resize(fs: &FileSystem, len: u64) -> Result<()> {
    ext2dax::OpenOptions::new()
        .write(true)
        .open(fs, "/f")?
        .set_len(len)
}

/// A file of so many blocks, all of them holes but the last.
fn sparse(fs: &FileSystem, blocks: u64) -> Result<()> {
    let block = u64::from(fs.geometry().block_size());
    fs.create("/f")?;
    write_at(fs, (blocks - 1) * block, 50)
}

/// Renames of directories that no single store can do: e2fsck asks a human in the middle, and our mount does not.
pub(super) const EXCEPTIONS: &[Scenario] = &[
    Scenario {
        name: "rename a directory to another directory",
        promise: Promise::EachName,
        fences: 5,
        prepare: |fs| {
            fs.create_dir("/from")?;
            fs.create_dir("/to")?;
            fs.create_dir("/from/d")?;
            fs.write("/from/d/file", [3; 100])
        },
        operation: |fs| fs.rename("/from/d", "/to/d"),
    },
    Scenario {
        name: "rename a directory over one in another directory",
        promise: Promise::EmptyTargetMayGo,
        fences: 7,
        prepare: |fs| {
            fs.create_dir("/from")?;
            fs.create_dir("/to")?;
            fs.create_dir("/to/d")?;
            fs.create_dir("/from/d")?;
            fs.write("/from/d/file", [3; 100])
        },
        operation: |fs| fs.rename("/from/d", "/to/d"),
    },
    Scenario {
        name: "exchange directories across directories",
        promise: Promise::EachName,
        fences: 5,
        prepare: |fs| {
            fs.create_dir("/from")?;
            fs.create_dir("/to")?;
            fs.create_dir("/from/d")?;
            fs.create_dir("/to/e")?;
            fs.write("/from/d/file", [3; 100])
        },
        operation: |fs| exchange(fs, "/from", "d", "/to", "e"),
    },
    Scenario {
        name: "exchange a directory and a file across directories",
        promise: Promise::EachName,
        fences: 5,
        prepare: |fs| {
            fs.create_dir("/from")?;
            fs.create_dir("/to")?;
            fs.create_dir("/from/d")?;
            fs.write("/from/d/file", [3; 100])?;
            file(fs, "/to/e", 1)
        },
        operation: |fs| exchange(fs, "/from", "d", "/to", "e"),
    },
    Scenario {
        name: "exchange a file and a directory across directories",
        promise: Promise::EachName,
        fences: 5,
        prepare: |fs| {
            fs.create_dir("/from")?;
            fs.create_dir("/to")?;
            fs.create_dir("/from/d")?;
            fs.write("/from/d/file", [3; 100])?;
            file(fs, "/to/e", 1)
        },
        operation: |fs| exchange(fs, "/to", "e", "/from", "d"),
    },
    Scenario {
        name: "rename a directory into a far block of its directory",
        promise: Promise::EachName,
        fences: 5,
        prepare: |fs| {
            fs.create_dir("/d")?;
            fs.write("/d/file", [3; 100])?;
            (0..3).try_for_each(|i| crowd_named(fs, i))
        },
        operation: |fs| fs.rename("/d", format!("/{:y>255}", "")),
    },
];
