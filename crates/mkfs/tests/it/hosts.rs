//! The same contents on hosts that differ in everything else make the same bytes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::contents::made;
use crate::tree::noise;

/// Files whose names come in another order on each file system, and that were made in this order or the other one.
fn plant(root: &Path, reverse: bool) {
    let mut names: Vec<u32> = (0..300).collect();
    if reverse {
        names.reverse();
    }
    for nr in 0..4 {
        fs::create_dir_all(root.join(format!("sub {nr}/deeper"))).unwrap();
    }
    for &nr in &names {
        let path = root.join(format!("sub {}/file {nr}", nr % 4));
        fs::write(path, noise(nr as usize * 60, u64::from(nr))).unwrap();
    }
    // The name that was there first is another one.
    let (first, second) = if reverse { ("z", "a") } else { ("a", "z") };
    fs::write(root.join(first), "linked").unwrap();
    fs::hard_link(root.join(first), root.join(second)).unwrap();
    std::os::unix::fs::symlink("file 7", root.join("sub 3/deeper/link")).unwrap();
    // Zeroes here, a hole there.
    if reverse {
        fs::File::create(root.join("zero"))
            .unwrap()
            .set_len(400_000)
            .unwrap();
    } else {
        fs::write(root.join("zero"), vec![0; 400_000]).unwrap();
    }
    settle(root);
}

/// Equal modes and times, whatever the umask and the clock.
fn settle(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            settle(&entry.unwrap().path());
        }
    }
    if !meta.is_symlink() {
        let mode = if meta.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let time = Timespec {
        tv_sec: 1_600_000_000,
        tv_nsec: 5,
    };
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: time.tv_sec + i64::from(std::process::id()),
            tv_nsec: 0,
        },
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A library that makes a program believe that it is another day.
fn other_day(dir: &Path) -> Option<PathBuf> {
    let text = "#define _GNU_SOURCE\n#include <time.h>\n#include <sys/time.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
        int clock_gettime(clockid_t c, struct timespec *t) {\n\
          int r = syscall(SYS_clock_gettime, c, t);\n\
          if (r == 0 && c != CLOCK_MONOTONIC) t->tv_sec += 40000000;\n  return r;\n}\n\
        time_t time(time_t *to) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t);\n\
          if (to) *to = t.tv_sec; return t.tv_sec; }\n\
        int gettimeofday(struct timeval *t, void *z) { struct timespec s; clock_gettime(CLOCK_REALTIME, &s);\n\
          t->tv_sec = s.tv_sec; t->tv_usec = s.tv_nsec / 1000; return 0; }\n";
    let (source, library) = (dir.join("day.c"), dir.join("day.so"));
    fs::write(&source, text).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output();
    if built.is_ok_and(|output| output.status.success()) {
        return Some(library);
    }
    eprintln!("skipped: another day, which needs cc");
    None
}

#[test]
fn hosts_that_differ_in_everything_make_equal_images() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(at, 0o755);
    let day = other_day(at);
    let program = env!("CARGO_BIN_EXE_mkfs-ext2dax");
    let options = ["-q", "--owner=0:0", "-L", "name", "-d"];
    plant(&at.join("source"), false);
    let first = at.join("first");
    made(at, &[&options[..], &["source", "first"]].concat());
    let first = fs::read(&first).unwrap();

    // The other host: a file system in memory, names in another order, another user, locale, time zone, umask, day,
    // number of threads.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    open(memory.path(), 0o777);
    let far = memory
        .path()
        .join("a folder of quite another name, and longer/source");
    plant(&far, true);
    let give = |path: &Path| {
        let mut pending = vec![path.to_owned()];
        while let Some(path) = pending.pop() {
            let _ = std::os::unix::fs::lchown(&path, Some(65_534), Some(65_534));
            if path.is_dir() && !path.is_symlink() {
                pending.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
        }
    };
    give(&far);
    let is_root = chown(memory.path(), Some(65_534), Some(65_534)).is_ok();
    // Whoever cannot read where the program lies runs a copy.
    let copy = memory.path().join("mkfs");
    fs::copy(program, &copy).unwrap();
    let target = memory.path().join("second");
    fs::write(&target, "something").unwrap();
    open(&target, 0o666);
    let shell = "umask 077; exec \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", shell, "sh"])
        .arg(&copy)
        .args(options)
        .arg(&far)
        .args(["--threads=3", "second", "auto"])
        .current_dir(memory.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TZ", "Asia/Kathmandu")
        .env("LANG", "tr_TR.UTF-8")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("HOME", "/nowhere");
    if let Some(day) = &day {
        command.env("LD_PRELOAD", day);
    }
    if is_root {
        command.uid(65_534).gid(65_534);
    } else {
        eprintln!("skipped: another user, which needs root");
    }
    // A child that another test has just forked may still hold the copy open for writing.
    let mut output = command.output().unwrap();
    while output.stderr.ends_with(b"Text file busy\n") {
        std::thread::sleep(std::time::Duration::from_millis(10));
        output = command.output().unwrap();
    }
    assert!(output.status.success(), "{output:?}");
    let second = fs::read(&target).unwrap();
    let same = first.iter().zip(&second).position(|(a, b)| a != b);
    assert_eq!(
        (first.len(), None),
        (second.len(), same),
        "first difference"
    );
}

/// The day is another one: without a date of its own, an image that is to be new shows it.
#[test]
fn the_other_day_is_seen_where_it_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let Some(day) = other_day(dir.path()) else {
        return;
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let made = Command::new(env!("CARGO_BIN_EXE_mkfs-ext2dax"))
        .current_dir(dir.path())
        .args(["-q", "x", "4m"])
        .env("LD_PRELOAD", day)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let bytes = fs::read(dir.path().join("x")).unwrap();
    let time = u32::from_le_bytes(*bytes[1024 + 264..].first_chunk().unwrap());
    assert!(u64::from(time) > now.unwrap().as_secs() + 30_000_000);
}
