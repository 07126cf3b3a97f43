//! Signals that start and stop the progress lines of a run. The list of bad blocks is a pipe: the program waits for it, all
//! set up, until the signals have been taken.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::judge::{have, run, scratch};

const USR1: u32 = 10;
const USR2: u32 = 12;

/// Whether the signal has been taken, and whoever has taken it waits for the next.
fn is_taken(child: &Child, signal: u32) -> bool {
    let folder = format!("/proc/{}", child.id());
    let status = fs::read_to_string(format!("{folder}/status")).unwrap();
    let pending = |line: &str| {
        let bits = line.strip_prefix("ShdPnd:").unwrap_or("0").trim();
        u64::from_str_radix(bits, 16).unwrap() & 1 << (signal - 1) != 0
    };
    if status.lines().any(pending) {
        return false;
    }
    let tasks = fs::read_dir(format!("{folder}/task")).unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
    stats.into_iter().any(|stat| stat.contains("(signals) S "))
}

/// The progress lines of a run with `-C FD` that gets these signals before it begins to check.
fn lines(fd: &str, image: &Path, signals: &[u32]) -> usize {
    let (list, name) = (image.with_extension("list"), image.to_str().unwrap());
    assert!(run("mkfifo", &[list.to_str().unwrap()]).status.success());
    let mut child = Command::new(env!("CARGO_BIN_EXE_fsck-ext2dax"))
        .args(["-fy", "-C", fd, "-l", list.to_str().unwrap(), name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // This returns when the program has opened the other end.
    let open = fs::File::options().write(true).open(&list).unwrap();
    for &signal in signals {
        let sent = run("kill", &[&format!("-{signal}"), &child.id().to_string()]);
        assert!(sent.status.success());
        while !is_taken(&child, signal) {
            assert!(
                child.try_wait().unwrap().is_none(),
                "signal {signal} has ended the program"
            );
            std::thread::yield_now();
        }
    }
    drop(open);
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    fs::remove_file(&list).unwrap();
    let progress = |line: &&str| line.ends_with(name) && line.split(' ').count() == 4;
    text.lines().filter(progress).count()
}

#[test]
fn usr1_starts_progress_lines_and_usr2_stops_them() {
    if !have("mke2fs") || !have("mkfifo") || !have("kill") {
        return;
    }
    let dir = scratch();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let made = run(
        "mke2fs",
        &[
            "-q",
            "-F",
            "-t",
            "ext2",
            "-b",
            "1024",
            image.to_str().unwrap(),
        ],
    );
    assert!(made.status.success());
    assert_eq!(
        lines("-1", &image, &[]),
        0,
        "with a minus they wait for the signal"
    );
    assert_ne!(lines("-1", &image, &[USR1]), 0, "USR1 starts them");
    assert_eq!(lines("-1", &image, &[USR1, USR2]), 0, "USR2 stops them");
    assert_ne!(
        lines("1", &image, &[]),
        0,
        "without a minus they begin at once"
    );
    assert_eq!(lines("1", &image, &[USR2]), 0, "until USR2 stops them");
    assert_ne!(
        lines("1", &image, &[USR2, USR1]),
        0,
        "and USR1 starts them again"
    );
}
