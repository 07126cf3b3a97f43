//! The server at work: several requests at once, names that come and go during a listing, files asked for by number, and
//! the end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ext2dax::pmem::{AnonRegion, FileRegion};
use ext2dax::{Clock, FileSystem, MountOptions, SystemClock, Timestamp};
use ext2dax_fuse::server::{Behaviour, Caller, Errno, NewNode, Server};
use ext2dax_fuse::{Options, mount};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno as SystemErrno;

use super::Mount;
use super::mounted::{assert_clean, can_mount};

/// A clock at which those who ask for the time wait for each other: two who are there at once have met inside the server.
#[derive(Default)]
struct MeetingPoint {
    armed: Mutex<bool>,
    waiting: Mutex<usize>,
    came: Condvar,
    met: AtomicUsize,
}

impl Clock for MeetingPoint {
    fn now(&self) -> Timestamp {
        if *self.armed.lock().expect("no panic") {
            let mut waiting = self.waiting.lock().expect("no panic");
            *waiting += 1;
            self.came.notify_all();
            let (mut waiting, _) = self
                .came
                .wait_timeout_while(waiting, Duration::from_millis(500), |waiting| *waiting < 2)
                .expect("no panic");
            if *waiting >= 2 {
                self.met.fetch_add(1, Ordering::SeqCst);
            } else {
                *waiting -= 1;
            }
        }
        SystemClock.now()
    }
}

/// How many of two writers to two files met inside the server.
fn writers_that_met(options: &str) -> Option<usize> {
    if !can_mount() {
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    ext2dax_mkfs::make_file(&image, &ext2dax_mkfs::Options::default(), 16 << 20).expect("made");
    let options = Options::parse(options).expect("good options");
    let clock = Arc::new(MeetingPoint::default());
    let region = FileRegion::open(&image, options.access()).expect("opened");
    let mount_options = options
        .mount_options()
        .clock(Arc::<MeetingPoint>::clone(&clock));
    let fs = FileSystem::mount(region, &mount_options).expect("mounted");
    let at = dir.path().join("mount");
    fs::create_dir(&at).expect("made");
    let mounted = mount(fs, &at, &options.serve_options("image")).expect("mounted");
    let ender = mounted.ender();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| mounted.run());
        let files = ["a", "b"].map(|name| File::create(at.join(name)).expect("made"));
        *clock.armed.lock().expect("no panic") = true;
        std::thread::scope(|scope| {
            for mut file in files {
                scope.spawn(move || file.write_all(&[1; 4096]).expect("written"));
            }
        });
        *clock.armed.lock().expect("no panic") = false;
        ender.end().expect("taken off");
        server.join().expect("no panic").expect("a clean end");
    });
    assert_clean(&image);
    Some(clock.met.load(Ordering::SeqCst))
}

#[test]
fn two_writers_are_inside_the_server_at_once() {
    let Some(met) = writers_that_met("threads=2") else {
        return;
    };
    assert!(met >= 2, "{met}");
}

#[test]
fn a_single_event_loop_serves_one_request_after_the_other() {
    let Some(met) = writers_that_met("threads=1") else {
        return;
    };
    assert_eq!(met, 0);
}

#[test]
fn a_listing_gives_every_name_that_stays_exactly_once() {
    let Some(mount) = Mount::new("") else { return };
    let dir = mount.path("dir");
    fs::create_dir(&dir).expect("made");
    for i in 0..3000 {
        File::create(dir.join(format!("stays-{i}"))).expect("made");
        File::create(dir.join(format!("goes-{i}"))).expect("made");
    }
    let mut seen = BTreeSet::new();
    for (i, entry) in fs::read_dir(&dir).expect("listed").enumerate() {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("plain").to_owned();
        assert!(seen.insert(name.clone()), "{name} twice");
        if i % 2 == 0 {
            // Behind the listing and before it, and others that come.
            let _ = fs::remove_file(dir.join(format!("goes-{}", i / 2)));
            File::create(dir.join(format!("comes-{i}"))).expect("made");
            if i % 500 == 0 {
                // A second reader in between, so that whatever somebody keeps of the listing is another one.
                assert!(fs::read_dir(&dir).expect("listed").count() > 3000);
            }
        }
    }
    let stay = seen.iter().filter(|name| name.starts_with("stays")).count();
    assert_eq!(stay, 3000);
    mount.end();
}

#[test]
fn a_tree_is_removed_while_it_is_listed() {
    let Some(mount) = Mount::new("") else { return };
    let dir = mount.path("dir");
    for i in 0..20 {
        let below = dir.join(format!("d{i}"));
        fs::create_dir_all(&below).expect("made");
        for j in 0..100 {
            fs::write(below.join(format!("f{j}")), "x").expect("written");
        }
    }
    let free = |mount: &Mount| rustix::fs::statvfs(mount.root()).expect("told").f_ffree;
    let before = free(&mount);
    fs::remove_dir_all(&dir).expect("removed");
    // The kernel forgets files a moment after their last name has gone.
    for _ in 0..200 {
        if free(&mount) == before + 2021 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(free(&mount), before + 2021);
    mount.end();
}

#[test]
fn renames_replace_refuse_and_exchange() {
    let Some(mount) = Mount::new("") else { return };
    let (a, b) = (mount.path("a"), mount.path("b"));
    fs::write(&a, "a").expect("written");
    fs::write(&b, "b").expect("written");
    let rename = |flags| renameat_with(CWD, &a, CWD, &b, flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(SystemErrno::EXIST));
    rename(RenameFlags::EXCHANGE).expect("exchanged");
    assert_eq!(fs::read(&a).expect("read"), b"b");
    assert_eq!(rename(RenameFlags::WHITEOUT), Err(SystemErrno::INVAL));
    rename(RenameFlags::empty()).expect("replaced");
    assert_eq!(fs::read(&b).expect("read"), b"b");
    assert!(!a.exists());
    fs::create_dir_all(mount.path("dir/below")).expect("made");
    let into = fs::rename(mount.path("dir"), mount.path("dir/below/dir")).expect_err("a circle");
    assert_eq!(into.raw_os_error(), Some(SystemErrno::INVAL.raw_os_error()));
    let long = mount.path("n".repeat(255));
    fs::write(&long, "x").expect("the longest name");
    let longer = fs::write(mount.path("n".repeat(256)), "x").expect_err("too long");
    assert_eq!(
        longer.raw_os_error(),
        Some(SystemErrno::NAMETOOLONG.raw_os_error())
    );
    mount.end();
}

#[test]
fn the_kernel_keeps_what_it_knows_and_misses_cost_it_nothing_twice() {
    let Some(mount) = Mount::new("") else { return };
    let missing = mount.path("missing");
    assert!(!missing.exists());
    assert!(!missing.exists());
    // A name that was missing, and is made, is there.
    fs::write(&missing, "x").expect("written");
    assert!(missing.exists());
    fs::remove_file(&missing).expect("removed");
    assert!(!missing.exists());
    mount.end();
}

#[test]
fn statfs_counts_as_asked() {
    let mut totals = Vec::new();
    for options in ["", "minixdf"] {
        let Some(mount) = Mount::new(options) else {
            return;
        };
        let stat = rustix::fs::statvfs(mount.root()).expect("told");
        assert_eq!((stat.f_bsize, stat.f_namemax), (4096, 255));
        assert!(stat.f_bfree > stat.f_bavail && stat.f_ffree < stat.f_files);
        totals.push(stat.f_blocks);
        mount.end();
    }
    assert_eq!(totals[1], 16_384);
    assert!(totals[0] < totals[1]);
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let Some(mount) = Mount::new("") else { return };
    fs::write(mount.path("file"), "x").expect("written");
    let dir = mount.end();
    let before = fs::read(dir.path().join("image")).expect("read");
    let mount = Mount::again(dir, "ro");
    assert_eq!(fs::read(mount.path("file")).expect("read"), b"x");
    let error = fs::write(mount.path("other"), "x").expect_err("read-only");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let dir = mount.end();
    assert!(fs::read(dir.path().join("image")).expect("read") == before);
}

#[test]
fn an_image_inside_a_disk_is_found_by_its_offset() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let alone = dir.path().join("alone");
    ext2dax_mkfs::make_file(&alone, &ext2dax_mkfs::Options::default(), 8 << 20).expect("made");
    let mut disk = vec![0xaa; 1 << 20];
    File::open(&alone)
        .expect("opened")
        .read_to_end(&mut disk)
        .expect("read");
    fs::write(dir.path().join("image"), &disk).expect("written");
    fs::create_dir(dir.path().join("mount")).expect("made");
    let mount = Mount::again(dir, "offset=1m");
    fs::write(mount.path("file"), "inside").expect("written");
    let dir = mount.stop_unchecked();
    let disk = fs::read(dir.path().join("image")).expect("read");
    assert!(
        disk[..1 << 20].iter().all(|byte| *byte == 0xaa),
        "written before the image"
    );
    fs::write(&alone, &disk[1 << 20..]).expect("written");
    assert_clean(&alone);
}

#[test]
fn a_mount_ends_cleanly_while_files_are_open() {
    let Some(mount) = Mount::new("") else { return };
    let mut file = File::create(mount.path("open")).expect("made");
    file.write_all(b"before").expect("written");
    let nameless = File::create(mount.path("nameless")).expect("made");
    fs::remove_file(mount.path("nameless")).expect("removed");
    // Checked inside: the image is clean although both are open.
    let dir = mount.end();
    let error = file.write_all(b"after").expect_err("the mount is over");
    assert!(error.raw_os_error().is_some());
    drop((file, nameless));
    let mount = Mount::again(dir, "");
    assert_eq!(fs::read(mount.path("open")).expect("read"), b"before");
    assert!(!mount.path("nameless").exists());
    mount.end();
}

#[test]
fn a_mount_ends_when_it_is_unmounted() {
    let Some(mount) = Mount::new("") else { return };
    fs::write(mount.path("file"), "x").expect("written");
    // A program that another test has just forked holds our files until its exec: then again.
    let ended = (0..500).any(|_| {
        let output = std::process::Command::new("umount")
            .arg(mount.root())
            .output();
        std::thread::sleep(std::time::Duration::from_millis(10));
        output.expect("umount is where mount is").status.success()
    });
    assert!(ended, "the mount stays in use");
    let again = Mount::again(mount.end(), "ro");
    assert_eq!(fs::read(again.path("file")).expect("read"), b"x");
    again.end();
}

fn server_in_memory() -> Server {
    let pmem = ext2dax_mkfs::make_memory(&ext2dax_mkfs::Options::default(), 8 << 20).expect("made");
    let mut bytes = vec![0; usize::try_from(pmem.len()).expect("small")];
    pmem.read(0, &mut bytes);
    let region = AnonRegion::new(pmem.len()).expect("memory");
    let copy = ext2dax::pmem::Pmem::new(region);
    copy.write(0, &bytes);
    let fs = FileSystem::mount_pmem(copy, &MountOptions::new()).expect("mounted");
    Server::new(fs, Behaviour::default()).expect("a root")
}

const ROOT: u64 = 1;
const CALLER: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 0,
};
const REGULAR: NewNode = NewNode {
    mode: 0o100_644,
    umask: 0,
    device: 0,
};
const STALE: Errno = Errno(116);

#[test]
fn a_forgotten_file_is_found_by_its_number_until_it_is_gone() {
    let server = server_in_memory();
    let made = server.mknod(CALLER, ROOT, b"file", REGULAR).expect("made");
    let node = u64::from(made.ino);
    server.forget(node, 1);
    assert_eq!(server.attributes(node), Err(STALE));
    let found = server.lookup(node, b".").expect("found by its number");
    assert_eq!((found.ino, found.generation), (made.ino, made.generation));
    assert_eq!(server.attributes(node).expect("known again").ino, made.ino);
    server.forget(node, 1);
    server.unlink(ROOT, b"file").expect("removed");
    assert_eq!(server.lookup(node, b"."), Err(STALE));
    // Inodes of the file system itself are nobody's files.
    for reserved in [0, 3, 7, 8, 10, u64::MAX] {
        assert_eq!(server.lookup(reserved, b"."), Err(STALE), "{reserved}");
    }
    server.close().expect("clean");
}

#[test]
fn a_file_is_kept_for_as_many_lookups_as_the_kernel_has_not_forgotten() {
    let server = server_in_memory();
    let made = server.mknod(CALLER, ROOT, b"file", REGULAR).expect("made");
    let node = u64::from(made.ino);
    server.lookup(ROOT, b"file").expect("there");
    server.lookup(ROOT, b"file").expect("there");
    server.unlink(ROOT, b"file").expect("removed");
    server.forget(node, 2);
    assert_eq!(server.write(node, 0, b"still", None), Ok(5));
    assert_eq!(server.attributes(node).expect("there").links, 0);
    let other = server.mknod(CALLER, ROOT, b"other", REGULAR).expect("made");
    assert_ne!(other.ino, made.ino, "the number is in use");
    server.forget(node, 1);
    assert_eq!(server.attributes(node), Err(STALE));
    server.close().expect("clean");
    assert_eq!(server.attributes(ROOT), Err(STALE));
}
