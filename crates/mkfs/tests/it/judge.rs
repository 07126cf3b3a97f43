//! e2fsprogs and the kernel as judges.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Whether a judge is there. Where it must be (`CI=true`), its absence is a failure.
pub(crate) fn present(program: &str) -> bool {
    present_as(program, "-V")
}

/// [`present`] for a program that tells its version otherwise.
pub(crate) fn present_as(program: &str, version: &str) -> bool {
    let found = Command::new(program).arg(version).output().is_ok();
    if !found {
        skip(&format!("{program} is missing"));
    }
    found
}

/// Says what cannot be tested here. Where it must be (`CI=true`), that is a failure.
pub(crate) fn skip(why: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "{why}"
    );
    eprintln!("skipped: {why}");
}

/// Unmounts what the kernel has mounted at `at`. A program that another test has just forked holds our files until its
/// exec: then again.
pub(crate) fn unmount(at: &Path) {
    for _ in 0..500 {
        let ended = Command::new("umount").arg(at).output();
        if ended.expect("umount is where mount is").status.success() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} stays in use", at.display());
}

/// `e2fsck -fn` finds nothing.
pub(crate) fn e2fsck_clean(image: &Path, what: &str) {
    let output = Command::new("e2fsck")
        .arg("-fn")
        .arg(image)
        .output()
        .expect("e2fsck runs");
    assert!(
        output.status.success(),
        "{what}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The superblock as `dumpe2fs -h` prints it.
pub(crate) fn dumpe2fs(image: &Path) -> BTreeMap<String, String> {
    let output = Command::new("dumpe2fs")
        .arg("-h")
        .arg(image)
        .output()
        .expect("dumpe2fs runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}
