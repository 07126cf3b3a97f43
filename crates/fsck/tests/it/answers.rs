//! Questions on a terminal: each answer is about one finding, `a` about this and all that follow, an empty line takes the
//! answer that is shown, and the end of input is a no to everything that is left. script(1) is the terminal.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::judge::{e2fsck, have, ours, scratch};
use crate::lab::Lab;
use crate::samples;

/// Runs the program on a terminal on which somebody types; its exit status and what is to be read on the terminal.
fn converse(image: &Path, typed: &str) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_fsck-ext2dax");
    let command = format!("'{program}' -f '{}'", image.display());
    let mut child = Command::new("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The end of what is typed is the end of input on the terminal.
    child
        .stdin
        .take()
        .unwrap()
        .write_all(typed.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), seen)
}

#[test]
fn every_answer_is_about_what_was_asked() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") || !have("script") {
        return;
    }
    let dir = scratch();
    let image = dir.path().join("image");
    let (_, size, options) = samples::SHAPES[0];
    samples::make(&image, size, options);
    let mut lab = Lab::new(fs::read(&image).unwrap());
    // Three things that have nothing to do with each other, each one finding.
    lab.inode("/plain", 112, 4, 9);
    lab.inode("/big", 118, 2, 9);
    lab.inode("/a", 20, 4, 0x3000_0000);
    let damaged = lab.target.bytes;
    for (typed, status, left) in [
        ("y\ny\ny\n", 1, 0),
        ("a\n", 1, 0),
        ("yes\nall\n", 1, 0),
        ("\n\n\n", 1, 0),
        ("n\n\nn\n", 5, 2),
        (" \nn\n", 5, 2),
        ("Y\nwhat\ny\nn\n", 5, 1),
        ("n\na\n", 5, 1),
        ("n\nn\ny\n", 5, 2),
        ("y\n", 5, 2),
        ("n\nn\nn\n", 4, 3),
        ("", 4, 3),
    ] {
        fs::write(&image, &damaged).unwrap();
        let (answer, seen) = converse(&image, typed);
        assert_eq!(answer, status, "{typed:?}");
        assert!(seen.contains("<y> (y, n, a for all)? "), "{seen}");
        let found = ours(&image).unwrap().findings.len();
        assert_eq!(found, left, "{typed:?}");
        assert_eq!(e2fsck(&image).0 == 0, left == 0, "{typed:?}");
        let same = fs::read(&image).unwrap() == damaged;
        assert_eq!(
            same,
            left == 3,
            "{typed:?}: what was turned down is not touched"
        );
    }
}
