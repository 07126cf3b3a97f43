//! Many threads on the same few directories: no deadlock, no lost name, and an image that e2fsck agrees with.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use ext2dax::{Error, FileSystem, Inode, New, RenameFlags};

use crate::image::Image;
use crate::random::Random;

const NEW: New = New {
    mode: 0o755,
    umask: 0,
    uid: 0,
    gid: 0,
    device: (0, 0),
};

fn name(random: &mut Random) -> Vec<u8> {
    let number = random.below(24);
    format!("{number}{}", "-".repeat(number * 7)).into_bytes()
}

/// A directory up to three levels below the root, which may be gone by now.
fn some_directory(fs: &FileSystem, random: &mut Random) -> Inode {
    let mut at = fs.root().expect("the root");
    for _ in 0..random.below(4) {
        match at.lookup(&name(random)) {
            Ok(below) if below.read_dir(0, 1).is_ok() => at = below,
            _ => break,
        }
    }
    at
}

/// What may go wrong when others do the same.
fn is_race(error: Error) -> bool {
    matches!(
        error,
        Error::AlreadyExists
            | Error::NotFound
            | Error::DirectoryNotEmpty
            | Error::IsADirectory
            | Error::NotADirectory
            | Error::InvalidArgument
            | Error::NotPermitted
            | Error::NotSupported
            | Error::Busy
    )
}

fn step(fs: &FileSystem, random: &mut Random) -> Result<(), Error> {
    let dir = some_directory(fs, random);
    let own = name(random);
    match random.below(16) {
        0..=3 => dir.create(&own, &NEW).map(drop),
        4..=5 => dir.mkdir(&own, &NEW).map(drop),
        6 => dir
            .symlink(&own, &vec![b't'; 1 + random.below(100)], &NEW)
            .map(drop),
        7 => {
            let file = some_directory(fs, random).lookup(&name(random))?;
            dir.link(&own, &file)
        }
        8..=9 => dir.unlink(&own),
        10 => dir.rmdir(&own),
        11 => {
            let entries = dir.read_dir(0, usize::MAX)?;
            let names: BTreeSet<&[u8]> = entries.iter().map(|entry| &*entry.name).collect();
            assert_eq!(names.len(), entries.len(), "a name twice in one listing");
            Ok(())
        }
        _ => {
            let to = some_directory(fs, random);
            let flags = *random.pick(&[
                RenameFlags::Replace,
                RenameFlags::Replace,
                RenameFlags::Exchange,
            ]);
            dir.rename_with(&own, &to, &name(random), flags)
        }
    }
}

#[test]
fn threads_on_the_same_directories_leave_a_clean_image() {
    let steps: u64 = std::env::var("STEPS")
        .ok()
        .and_then(|steps| steps.parse().ok())
        .unwrap_or(3000);
    for (shape, seed) in [("-b 1024", 1_u64), ("-b 4096", 2), ("-b 4096 -r 0", 3)] {
        println!("{shape}, seed {seed}");
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (fs, done) = (fs.clone(), &done);
                scope.spawn(move || {
                    let mut random = Random(seed << 32 | thread);
                    for _ in 0..steps {
                        match step(&fs, &mut random) {
                            Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                            Err(error) if is_race(error) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        assert!(done.into_inner() > steps, "hardly anything worked");
        fs.unmount().expect("nothing is open");
        image.assert_clean(shape);
    }
}

/// While files move within and between directories, one of their two possible names always leads to them.
#[test]
fn a_file_that_is_renamed_over_is_never_missing() {
    let Some(image) = Image::new("-b 4096", 64) else {
        return;
    };
    let fs = image.mount();
    let root = fs.root().expect("the root");
    let (d, e) = (
        root.mkdir(b"d", &NEW).expect("mkdir"),
        root.mkdir(b"e", &NEW).expect("mkdir"),
    );
    d.create(b"target", &NEW).expect("create");
    let stop = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..2_u8 {
            let (d, e, stop) = (&d, &e, &stop);
            scope.spawn(move || {
                let from = if writer == 0 { d } else { e };
                for round in 0..2000_u32 {
                    let name = format!("new-{writer}-{round}").into_bytes();
                    from.create(&name, &NEW).expect("create");
                    from.rename(&name, d, b"target").expect("rename");
                }
                stop.fetch_add(1, Ordering::Release);
            });
        }
        scope.spawn(|| {
            while stop.load(Ordering::Acquire) < 2 {
                d.lookup(b"target")
                    .expect("the target of a rename always exists");
            }
        });
    });
    assert_eq!(d.read_dir(0, 10).expect("a listing").len(), 3);
    assert_eq!(e.read_dir(0, 10).expect("a listing").len(), 2);
    drop((root, d, e));
    fs.unmount().expect("nothing is open");
    image.assert_clean("renamed over");
}

/// Handles refer to the mount by a word for each lane of threads. Those of different lanes were taken for different
/// mounts: a link between them was refused as one across devices.
#[test]
fn handles_of_different_threads_belong_to_one_mount() {
    let Some(image) = Image::new("-b 1024", 8) else {
        return;
    };
    let fs = image.mount();
    let elsewhere = |act: &(dyn Fn() -> Inode + Sync)| {
        std::thread::scope(|scope| scope.spawn(act).join()).expect("no panic")
    };
    let root = fs.root().expect("the root");
    let file = elsewhere(&|| root.create(b"file", &NEW).expect("create"));
    let dir = elsewhere(&|| root.mkdir(b"dir", &NEW).expect("mkdir"));
    dir.link(b"link", &file).expect("one mount");
    root.rename(b"file", &dir, b"moved").expect("one mount");
    assert_eq!(
        file.copy_range(0, &elsewhere(&|| dir.lookup(b"link").expect("there")), 0, 1),
        Ok(0)
    );
    drop((root, file));
    let other = dir.file_system();
    drop(dir);
    assert_eq!(fs.unmount().map_err(|error| error.errno()), Err(16));
    // The last one ends the mount.
    other.unmount().expect("nothing is open");
    image.assert_clean("handles of different threads");
}

/// The last handle goes without a lock: it and the last name, going at one moment on two threads, must end the file once.
#[test]
fn the_last_handle_and_the_last_name_go_at_once() {
    let Some(image) = Image::new("-b 1024 -I 128", 8) else {
        return;
    };
    let fs = image.mount();
    let root = fs.root().expect("the root");
    let free = (fs.statfs().blocks_free, fs.statfs().inodes_free);
    let go = std::sync::Barrier::new(2);
    for _ in 0..3_000 {
        let file = root.create(b"file", &NEW).expect("create");
        file.write_at(0, &b"text"[..]).expect("write");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                go.wait();
                drop(file);
            });
            go.wait();
            root.unlink(b"file").expect("unlink");
        });
    }
    assert_eq!(
        (fs.statfs().blocks_free, fs.statfs().inodes_free),
        free,
        "what a file had is free when both are gone"
    );
    drop(root);
    fs.unmount().expect("nothing is open");
    image.assert_clean("last handle against last name");
}
