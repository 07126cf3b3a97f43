//! The program: exit status and the lines that scripts read.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::judge::{have, run, scratch};

pub(crate) fn fsck(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fsck-ext2dax"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn status(args: &[&str]) -> i32 {
    fsck(args).status.code().unwrap()
}

pub(crate) fn text(output: &Output) -> String {
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
        (vec!["-fn", "-z", "/dev/null", &good], 16),
        (vec!["-fn", "-E", "discard", &good], 16),
        (vec!["-fy", "-D", "-E", "fixes_only", &good], 16),
        (vec!["-fn", "-E", "bmap2extent", &good], 16),
        (vec!["-fn", "-k", &good], 16),
        (vec!["-fn", "-j", "journal", &good], 16),
        (vec!["-y", "-D", &good], 0),
        (vec!["-fy", "-E", "journal_only", &good], 0),
        (
            vec![
                "-fn",
                "-E",
                "fragcheck,readahead_kb=10,nodiscard,ea_ver=2",
                &good,
            ],
            0,
        ),
        (vec!["-fy", "-E", "discard", &good], 0),
        (vec!["-fy", "-z", "/no/such/dir/undo", &good], 8),
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
    for (at, magic, kind) in [
        (0, &b"XFSB"[..], "xfs"),
        (0, b"\x1f\x8b\x08", "gzip"),
        (0, b"\x7fELF\x02\x01", "an ELF file"),
        (512, b"EFI PART", "a whole disk (GPT)"),
        (510, b"\x55\xaa", "a whole disk (MBR)"),
        (4086, b"SWAPSPACE2", "swap space"),
        (0, &b"127.0.0.1 localhost\n".repeat(200), "text"),
        (0, b"", "zero bytes"),
    ] {
        let mut bytes = vec![0; 1 << 20];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        fs::write(&empty, &bytes).unwrap();
        for mode in ["-fn", "-fp", "-fy"] {
            let output = fsck(&[mode, empty.to_str().unwrap()]);
            let said = text(&output);
            let clear = said.contains(&format!("looks like {kind}")) && said.lines().count() == 1;
            assert!(
                output.status.code() == Some(8) && clear,
                "{mode} {kind}: {said}"
            );
        }
        assert!(fs::read(&empty).unwrap() == bytes, "{kind}: bytes changed");
    }
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

/// A repair and a rebuilding of directories, taken back by e2undo to the last byte; and one that was killed in between.
#[test]
fn e2undo_takes_a_repair_back() {
    if !have("e2undo") || !have("e2fsck") {
        return;
    }
    let dir = scratch();
    let undo = dir.path().join("undo");
    let undo = undo.to_str().unwrap();
    let mut count = 0;
    crate::shared_images::for_each(|name, image| {
        let before = fs::read(&image).unwrap();
        let path = image.to_str().unwrap();
        for args in [&["-fy"][..], &["-fy", "-D"]] {
            fs::write(&image, &before).unwrap();
            let _ = fs::remove_file(undo);
            let output = fsck(&[args, &["-z", undo, path]].concat());
            assert!(
                output.status.code().unwrap() <= 1,
                "{name}: {}",
                text(&output)
            );
            let undone = run("e2undo", &[undo, path]);
            assert!(undone.status.success(), "{name}: {undone:?}");
            assert!(
                fs::read(&image).unwrap() == before,
                "{name} {args:?}: not as before"
            );
            count += 1;
        }
    });
    println!("{count} repairs taken back");
}

#[test]
fn an_undo_file_serves_images_inside_disks_and_is_never_overwritten() {
    if !have("e2undo") || !have("mke2fs") {
        return;
    }
    let dir = scratch();
    for block in ["1024", "4096", "65536"] {
        let good = image(&dir.path().join("good"), &["-t", "ext2", "-b", block]);
        let mut disk = vec![0xEE; 1 << 20];
        disk.extend(fs::read(&good).unwrap());
        disk[(1 << 20) + 1024 + 12] = 9;
        let path = dir.path().join("disk");
        fs::write(&path, &disk).unwrap();
        let (name, undo) = (path.to_str().unwrap(), dir.path().join("undo"));
        let undo = undo.to_str().unwrap();
        let _ = fs::remove_file(undo);
        assert_eq!(
            status(&["-fy", "-E", "offset=1048576", "-z", undo, name]),
            1
        );
        assert_eq!(
            status(&["-fy", "-E", "offset=1048576", "-z", undo, name]),
            8,
            "there already"
        );
        let undone = run("e2undo", &["-o", "1048576", undo, name]);
        assert!(undone.status.success(), "{undone:?}");
        assert!(fs::read(&path).unwrap() == disk, "not as before");
    }
}

/// The primary is restored from the backup that was named, and every other backup with it.
#[test]
fn a_backup_that_was_asked_for_becomes_the_superblock_of_all_groups() {
    if !have("mke2fs") || !have("e2fsck") {
        return;
    }
    let dir = scratch();
    let good = image(
        &dir.path().join("good"),
        &["-t", "ext2", "-b", "1024", "-g", "512"],
    );
    let mut bytes = fs::read(&good).unwrap();
    bytes[1024..2048].fill(0);
    // The backup of group 3 is spoilt as well.
    let third = (1 + 3 * 512) * 1024;
    bytes[third..third + 1024].fill(0xAA);
    fs::write(&good, &bytes).unwrap();
    assert_eq!(status(&["-fy", "-b", "513", "-B", "1024", &good]), 1);
    let after = fs::read(&good).unwrap();
    for group in [0, 1, 3, 5, 7] {
        let at = if group == 0 {
            1024
        } else {
            (1 + group * 512) * 1024
        };
        assert_eq!(after[at + 56..at + 58], [0x53, 0xEF], "group {group}");
        assert_eq!(usize::from(after[at + 90]), group, "s_block_group_nr");
    }
    for args in [&["-fn"][..], &["-fn", "-b", "1537", "-B", "1024"]] {
        let judged = run("e2fsck", &[args, &[&good]].concat());
        assert_eq!(judged.status.code(), Some(0), "{judged:?}");
    }
}

/// Signals: stopped between two repairs the image is as good as it was, and the exit status says so.
#[test]
fn an_interrupt_stops_between_two_repairs() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let dir = scratch();
    let path = dir.path().join("many");
    fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let name = path.to_str().unwrap();
    run(
        "mke2fs",
        &["-q", "-F", "-t", "ext2", "-b", "1024", "-N", "60000", name],
    );
    let mut bytes = fs::read(&path).unwrap();
    // Nearly every inode: a live empty file without a name, to be connected to lost+found one after the other.
    let le32 = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (per_group, groups) = (le32(1024 + 40), 8);
    let tables: Vec<usize> = (0..groups)
        .map(|group| le32(2048 + group * 32 + 8) * 1024)
        .collect();
    for (group, table) in tables.iter().enumerate() {
        for index in 0..per_group {
            if group * per_group + index < 20 {
                continue;
            }
            let at = table + index * 256;
            bytes[at..at + 2].copy_from_slice(&0o010_600_u16.to_le_bytes());
            bytes[at + 26] = 1;
        }
    }
    fs::write(&path, &bytes).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fsck-ext2dax"))
        .args(["-fy", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // As soon as it stores something it is at work.
    let started = std::time::Instant::now();
    while fs::read(&path).unwrap()[1024 + 58] & 1 == 1 && started.elapsed().as_secs() < 20 {
        std::thread::yield_now();
    }
    let killed = run("kill", &["-INT", &child.id().to_string()]);
    assert!(killed.status.success());
    let status = child.wait().unwrap().code().unwrap();
    assert_eq!(status & 32, 32, "{status}");
    let finished = fsck(&["-fy", name]);
    assert!(finished.status.code().unwrap() <= 1, "{finished:?}");
    let judged = run("e2fsck", &["-fn", name]);
    assert_eq!(judged.status.code(), Some(0));
}

/// Progress lines for programs: of every pass, in e2fsck's form, and only after SIGUSR1 where there is a minus.
#[test]
fn progress_lines_name_pass_share_and_image() {
    if !have("mke2fs") {
        return;
    }
    let dir = scratch();
    let good = image(
        &dir.path().join("good"),
        &["-t", "ext2", "-b", "1024", "-g", "512"],
    );
    let output = fsck(&["-fn", "-C", "1", &good]);
    let lines: Vec<String> = text(&output)
        .lines()
        .filter(|line| line.ends_with(&good) && line.split(' ').count() == 4)
        .map(str::to_owned)
        .collect();
    for pass in ["1 ", "2 ", "5 "] {
        assert!(
            lines.iter().any(|line| line.starts_with(pass)),
            "{pass}: {lines:?}"
        );
    }
    let quiet = fsck(&["-fn", "-C", "-1", &good]);
    assert!(
        !text(&quiet).contains(&format!(" {good}\n")),
        "{}",
        text(&quiet)
    );
}

/// fsck(8) looks for `fsck.TYPE` along the path, takes the type from fstab, and hands the exit status on.
#[test]
fn fsck_of_the_system_finds_and_runs_the_program() {
    if !have("mke2fs") || !have("fsck") {
        return;
    }
    let dir = scratch();
    let good = image(&dir.path().join("good"), &["-t", "ext2", "-b", "1024"]);
    let tools = dir.path().join("sbin");
    fs::create_dir(&tools).unwrap();
    let program = env!("CARGO_BIN_EXE_fsck-ext2dax");
    std::os::unix::fs::symlink(program, tools.join("fsck.ext2dax")).unwrap();
    // Without a line there fsck(8) asks the image, which says that it is ext2, and runs e2fsck.
    let fstab = dir.path().join("fstab");
    fs::write(&fstab, format!("{good} /mnt ext2dax defaults 0 2\n")).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let run_fsck = |args: &[&str]| {
        Command::new("fsck")
            .args(["-t", "ext2dax", &good])
            .args(args)
            .env(
                "PATH",
                format!("{}:{path}:/usr/sbin:/sbin", tools.display()),
            )
            .env("FSTAB_FILE", &fstab)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let output = run_fsck(&["-n"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains(": clean, "), "{}", text(&output));
    poke(&good, 1024 + 12, 7);
    let output = run_fsck(&["-f", "-n"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(
        text(&output).contains("p5.count.free-blocks"),
        "{}",
        text(&output)
    );
    assert_eq!(run_fsck(&["-f", "-a"]).status.code(), Some(1));
    assert_eq!(run_fsck(&["-f", "-n"]).status.code(), Some(0));
}

/// Only what was chosen is shown and repaired; the exit status speaks of everything all the same.
#[test]
fn only_chosen_codes_are_repaired() {
    if !have("mke2fs") || !have("debugfs") {
        return;
    }
    let dir = scratch();
    let bad = image(&dir.path().join("bad"), &["-t", "ext2", "-b", "1024"]);
    poke(&bad, 1024 + 12, 7);
    run(
        "debugfs",
        &["-w", "-R", "set_inode_field / links_count 9", &bad],
    );
    let counts = |text: &str| {
        let has = |word: &str| text.contains(word);
        (has("[p4.links.too-high"), has("[p5.count.free-blocks"))
    };
    for (args, status, shown) in [
        (&["-fn", "--only=p4"][..], 4, (true, false)),
        (&["-fn", "--only=p1.block,p5.count"], 4, (false, true)),
        (&["-fp", "--only=p4.links.too-high"], 5, (true, false)),
        (&["-fn"], 4, (false, true)),
        (&["-fy", "--only=p4"], 4, (false, false)),
        (&["-fy", "--only=p5"], 1, (false, true)),
        (&["-fn"], 0, (false, false)),
        (&["-fn", "--only=p9"], 16, (false, false)),
        (&["-fn", "--only=p"], 16, (false, false)),
    ] {
        let output = fsck(&[args, &[&bad]].concat());
        let text = text(&output);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
        assert_eq!(counts(&text), shown, "{args:?}: {text}");
    }
}

/// The mark is believed where superblock and descriptors can be; else a check follows without being asked for.
#[test]
fn an_image_that_is_marked_clean_is_looked_at_all_the_same() {
    if !have("mke2fs") {
        return;
    }
    let dir = scratch();
    let options = ["-t", "ext2", "-b", "1024"];
    let short = image(&dir.path().join("short"), &options);
    fs::File::options()
        .write(true)
        .open(&short)
        .and_then(|file| file.set_len(3 << 20))
        .unwrap();
    for mode in ["-n", "-p", "-y"] {
        let output = fsck(&[mode, &short]);
        assert_eq!(output.status.code(), Some(8), "{}", text(&output));
        assert!(
            text(&output).contains("1024 blocks are missing"),
            "{}",
            text(&output)
        );
    }
    let moved = image(&dir.path().join("moved"), &options);
    assert!(text(&fsck(&["-n", &moved])).contains(": clean, "));
    // The inode table of the first group: bytes 8 to 11 of its descriptor in block 2.
    poke(&moved, 2 * 1024 + 8, 1);
    let output = fsck(&["-n", &moved]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(!text(&output).contains(": clean, "), "{}", text(&output));
    assert_eq!(status(&["-y", &moved]), 1);
    assert_eq!(status(&["-n", &moved]), 0);
}
