//! Many threads, every operation, one image: it ends clean for e2fsck and for our checker.
//!
//! Nothing is compared here but what must hold whatever the others do: an error is one that a race explains, a listing
//! has no name twice, what is read was written by somebody. The judges then see whether anything was lost or leaked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ext2dax::{Error, FileSystem, FileType, Inode, MountOptions, New, RenameFlags, SetAttributes};
use ext2dax_crashtest::progress::Progress;
use ext2dax_crashtest::{hostile, judge};
use ext2dax_mkfs::{Inodes, Options};
use ext2dax_pmem::Access;

use crate::scratch;

const THREADS: u64 = 6;

const NEW: New = New {
    mode: 0o755,
    umask: 0,
    uid: 1000,
    gid: 1000,
    device: (1, 3),
};

struct Random(hostile::Random);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0.next() % bound
    }

    fn long(&mut self, bound: u32) -> u64 {
        u64::from(self.below(bound))
    }

    fn bytes(&mut self, letter: u8, most: u32) -> Vec<u8> {
        vec![letter; self.below(most) as usize + 1]
    }
}

fn name(random: &mut Random) -> Vec<u8> {
    let number = random.below(16) as usize;
    format!("{number}{}", "-".repeat(number * 9)).into_bytes()
}

fn some_directory(fs: &FileSystem, random: &mut Random) -> Inode {
    let mut at = fs.root().unwrap();
    for _ in 0..random.below(4) {
        match at.lookup(&name(random)) {
            Ok(below) if below.file_type() == FileType::Directory => at = below,
            _ => break,
        }
    }
    at
}

/// What may go wrong because of what others do, or because the image is small.
fn is_expected(error: Error) -> bool {
    const ERRNOS: &[i32] = &[
        1,   // EPERM: a link to a directory
        2,   // ENOENT
        11,  // EAGAIN
        16,  // EBUSY
        17,  // EEXIST
        20,  // ENOTDIR
        21,  // EISDIR
        22,  // EINVAL: a directory into itself, no regular file
        28,  // ENOSPC
        31,  // EMLINK
        39,  // ENOTEMPTY
        6,   // ENXIO: no more data behind
        61,  // ENODATA
        95,  // EOPNOTSUPP
        116, // ESTALE
    ];
    !matches!(error, Error::Corrupt(_)) && ERRNOS.contains(&error.errno())
}

fn contents(fs: &FileSystem, random: &mut Random) -> Result<(), Error> {
    let file = some_directory(fs, random).lookup(&name(random))?;
    // Every byte of every file is a letter or zero.
    let letter = b"abcdefghijklmnopqrstuvwxyz"[random.below(26) as usize];
    let text = random.bytes(letter, 9_000);
    let (at, len) = (random.long(60_000), random.long(20_000) + 1);
    match random.below(12) {
        0..=2 => file.write_at(at, &text[..]).map(drop),
        3 => file.append(&text[..]).map(drop),
        4..=5 => {
            let mut buffer = vec![0; 20_000];
            let read = file.read_at(at, &mut buffer[..])?;
            let strange = buffer[..read]
                .iter()
                .find(|byte| !(byte.is_ascii_lowercase() || **byte == 0));
            assert_eq!(strange, None, "bytes that nobody wrote");
            Ok(())
        }
        6 => file.set_len(at),
        7 => file.punch_hole(at..at + len),
        8 => file.zero_range(at..at + len),
        9 => file.allocate(at..at + len),
        10 => {
            let to = some_directory(fs, random).lookup(&name(random))?;
            file.copy_range(at, &to, random.long(60_000), len).map(drop)
        }
        _ => file
            .seek_data(at)
            .and_then(|at| file.seek_hole(at))
            .map(drop),
    }
}

fn attributes(fs: &FileSystem, random: &mut Random) -> Result<(), Error> {
    let file = some_directory(fs, random).lookup(&name(random))?;
    let attribute = format!("user.{}", random.below(4)).into_bytes();
    match random.below(7) {
        0..=1 => file.attributes().map(drop),
        2 => file.set_attributes(&SetAttributes {
            permissions: Some(0o700 | u16::try_from(random.below(64)).unwrap()),
            ..SetAttributes::default()
        }),
        3 => {
            let value = random.bytes(b'v', 300);
            file.set_xattr(&attribute, &value, ext2dax::SetXattr::Any)
        }
        4 => file
            .xattr(&attribute)
            .map(|value| assert!(value.iter().all(|byte| *byte == b'v'))),
        5 => file.remove_xattr(&attribute),
        _ => file.list_xattrs().map(drop),
    }
}

fn names(fs: &FileSystem, random: &mut Random) -> Result<(), Error> {
    let dir = some_directory(fs, random);
    let own = name(random);
    match random.below(20) {
        0..=3 => dir.create(&own, &NEW).map(drop),
        4..=5 => dir.mkdir(&own, &NEW).map(drop),
        6 => {
            let text = random.bytes(b't', 100);
            dir.symlink(&own, &text, &NEW).map(drop)
        }
        7 => {
            let mode = [0o010_644, 0o020_644, 0o140_755][random.below(3) as usize];
            dir.mknod(&own, &New { mode, ..NEW }).map(drop)
        }
        8..=9 => {
            let file = some_directory(fs, random).lookup(&name(random))?;
            dir.link(&own, &file)
        }
        10..=12 => dir.unlink(&own),
        13 => dir.rmdir(&own),
        14 => {
            let mut seen = std::collections::BTreeSet::new();
            for entry in dir.read_dir(0, usize::MAX)? {
                assert!(seen.insert(entry.name), "a name twice in one listing");
            }
            Ok(())
        }
        _ => {
            let to = some_directory(fs, random);
            let flags = [
                RenameFlags::Replace,
                RenameFlags::Replace,
                RenameFlags::NoReplace,
                RenameFlags::Exchange,
            ];
            let flags = flags[random.below(4) as usize];
            dir.rename_with(&own, &to, &name(random), flags)
        }
    }
}

fn step(fs: &FileSystem, random: &mut Random) -> Result<(), Error> {
    match random.below(100) {
        0..=59 => names(fs, random),
        60..=84 => contents(fs, random),
        85..=97 => attributes(fs, random),
        98 => {
            let counts = fs.statfs();
            assert!(counts.blocks_free <= counts.blocks);
            Ok(())
        }
        _ => fs.sync(),
    }
}

/// Short: a few seconds on each shape. Soak: ten minutes in all.
#[test]
fn a_crowd_of_threads_leaves_a_clean_image() {
    let seed = scratch::seed(1);
    let (patience, steps) = if judge::soak() {
        (Duration::from_secs(150), u64::MAX)
    } else {
        (Duration::from_secs(20), 4_000)
    };
    for (block_size, mib) in [(1024, 16), (2048, 16), (4096, 32), (65_536, 128)] {
        println!("blocks of {block_size}, seed {seed} (EXT2DAX_SEED)");
        let dir = scratch::dir().unwrap();
        let image = dir.path().join("crowd.img");
        let options = Options {
            inodes: Inodes::Count(1500),
            ..Options::with_block_size(block_size)
        };
        ext2dax_mkfs::make_file(&image, &options, mib << 20).unwrap();
        let region = judge::region(&image, Access::ReadWrite).unwrap();
        // Few inodes are kept in core, so that they come and go while others are at them.
        let fs = FileSystem::mount(region, &MountOptions::new().inode_cache(64)).unwrap();
        let done = AtomicU64::new(0);
        let progress = Progress::timed(format!("crowd, blocks of {block_size}"), patience);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (fs, done, progress) = (fs.clone(), &done, &progress);
                scope.spawn(move || {
                    let mut random = Random(hostile::Random(seed << 32 | thread));
                    let mut count = 0;
                    while count < steps && progress.elapsed() < patience {
                        match step(&fs, &mut random) {
                            Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => {
                                assert!(is_expected(error), "{error} ({})", error.errno());
                            }
                        }
                        count += 1;
                        progress.add(1);
                    }
                });
            }
        });
        let done = done.into_inner();
        assert!(done > 2_000, "hardly anything worked: {done}");
        println!("    {done} operations that did something");
        fs.unmount().unwrap();
        judge::clean(&image).unwrap_or_else(|found| panic!("block size {block_size}: {found:#}"));
    }
}
