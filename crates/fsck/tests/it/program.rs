//! The program: exit status and the lines that scripts read.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::judge::{have, run, scratch};

fn fsck(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fsck-ext2dax"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn status(args: &[&str]) -> i32 {
    fsck(args).status.code().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn image(at: &Path, options: &[&str]) -> String {
    fs::File::create(at).unwrap().set_len(4 << 20).unwrap();
    let name = at.to_str().unwrap().to_owned();
    let made = run("mke2fs", &[&["-q", "-F"], options, &[&name]].concat());
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    name
}

/// Stores one byte into an image file.
fn poke(image: &str, at: usize, byte: u8) {
    let mut bytes = fs::read(image).unwrap();
    bytes[at] = byte;
    fs::write(image, bytes).unwrap();
}

#[test]
fn exit_status_is_that_of_e2fsck_and_usage_is_always_16() {
    if !have("mke2fs") {
        return;
    }
    let dir = scratch();
    let good = image(&dir.path().join("good"), &["-t", "ext2", "-b", "1024"]);
    for (args, expected) in [
        (vec!["-fn", &good], 0),
        (vec!["-fy", &good], 0),
        (vec!["-fp", &good], 0),
        (vec!["-fa", &good], 0),
        (vec!["-f", "-n", "-v", "-t", "-t", &good], 0),
        (vec!["-fn", "-b", "1", "-B", "1024", &good], 0),
        (vec!["-V"], 0),
        (vec!["--help"], 0),
        (vec!["-f", &good], 8),
        (vec!["-fn", "/nowhere/at/all"], 8),
        (vec!["-fn", "/dev/null"], 8),
        (vec!["-n", "-p", &good], 16),
        (vec!["-n", "-y", &good], 16),
        (vec!["-fn"], 16),
        (vec!["-fn", "--no-such-option", &good], 16),
        (vec!["-fn", "-E", "no_such_key", &good], 16),
        (vec!["-fn", "-B", "1000", &good], 16),
        (vec!["-fn", "-c", &good], 16),
        (vec!["-fn", "-D", &good], 16),
        (vec!["-fn", "--offset=12q", &good], 16),
    ] {
        let output = fsck(&args);
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{args:?}: {}",
            text(&output)
        );
    }
    // The free block count of the superblock.
    poke(&good, 1024 + 12, 7);
    assert_eq!(status(&["-fn", &good]), 4);
    assert_eq!(status(&["-fp", &good]), 1, "counts are safe for preen");
    assert_eq!(status(&["-fy", &good]), 0);
}

/// Scripts read this line, so it is e2fsck's to the letter.
#[test]
fn a_clean_image_gets_the_line_of_e2fsck() {
    if !have("mke2fs") || !have("e2fsck") {
        return;
    }
    let dir = scratch();
    let good = image(&dir.path().join("good"), &["-t", "ext2", "-b", "1024"]);
    let theirs = run("e2fsck", &["-n", &good]);
    let theirs = String::from_utf8_lossy(&theirs.stdout).into_owned();
    assert_eq!(text(&fsck(&["-n", &good])), theirs);
}

#[test]
fn a_look_changes_neither_bytes_nor_times() {
    if !have("mke2fs") {
        return;
    }
    let dir = scratch();
    let bad = image(&dir.path().join("bad"), &["-t", "ext2", "-b", "1024"]);
    poke(&bad, 1024 + 16, 1);
    let before = (
        fs::read(&bad).unwrap(),
        fs::metadata(&bad).unwrap().modified().unwrap(),
    );
    assert_eq!(status(&["-fn", &bad]), 4);
    assert!(
        before
            == (
                fs::read(&bad).unwrap(),
                fs::metadata(&bad).unwrap().modified().unwrap()
            )
    );
}

#[test]
fn what_is_not_ext2_gets_one_clear_line() {
    if !have("mke2fs") {
        return;
    }
    let dir = scratch();
    let ext4 = image(&dir.path().join("ext4"), &["-t", "ext4", "-b", "1024"]);
    let output = fsck(&["-fn", &ext4]);
    assert_eq!(output.status.code(), Some(8));
    let said = text(&output);
    assert!(
        said.contains("extent") && said.contains("64bit") && said.lines().count() == 1,
        "{said}"
    );
    let empty = dir.path().join("empty");
    fs::write(&empty, b"").unwrap();
    assert_eq!(status(&["-fn", empty.to_str().unwrap()]), 8);
    fs::write(&empty, vec![0; 5000]).unwrap();
    let output = fsck(&["-fn", empty.to_str().unwrap()]);
    assert!(
        output.status.code() == Some(8) && text(&output).contains("no ext2 superblock"),
        "{}",
        text(&output)
    );
    let short = image(&dir.path().join("short"), &["-t", "ext2", "-b", "1024"]);
    fs::File::options()
        .write(true)
        .open(&short)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let output = fsck(&["-fn", &short]);
    assert!(
        output.status.code() == Some(8) && text(&output).contains("blocks are missing"),
        "{}",
        text(&output)
    );
    assert_eq!(
        status(&["-fn", dir.path().to_str().unwrap()]),
        8,
        "a directory"
    );
}

#[test]
fn an_image_inside_a_disk_is_checked_in_its_place() {
    if !have("mke2fs") {
        return;
    }
    let dir = scratch();
    let good = image(&dir.path().join("good"), &["-t", "ext2", "-b", "1024"]);
    let mut disk = vec![0xEE; 1 << 20];
    disk.extend(fs::read(&good).unwrap());
    disk[(1 << 20) + 1024 + 12] = 9;
    let path = dir.path().join("disk");
    fs::write(&path, &disk).unwrap();
    let name = path.to_str().unwrap();
    assert_eq!(status(&["-fn", &format!("{name}?offset=1048576")]), 4);
    assert_eq!(status(&["-fy", "-E", "offset=1048576", name]), 1);
    assert_eq!(status(&["-fn", "--offset=1m", name]), 0);
    let after = fs::read(&path).unwrap();
    assert!(
        after[..1 << 20].iter().all(|&byte| byte == 0xEE),
        "bytes before the image changed"
    );
}

#[test]
fn findings_come_as_one_object_a_line() {
    if !have("mke2fs") {
        return;
    }
    let dir = scratch();
    let bad = image(&dir.path().join("bad"), &["-t", "ext2", "-b", "1024"]);
    poke(&bad, 1024 + 12, 7);
    let output = fsck(&["-fn", "--json", &bad]);
    let lines: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["code"], "p5.count.free-blocks");
    assert_eq!(lines[0]["severity"], "residue");
    assert_eq!(lines[1]["clean"], false);
}
