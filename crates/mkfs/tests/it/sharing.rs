//! File systems that can have a block in two files: an image beside its source takes no room for large files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contents::made;
use crate::judge::{e2fsck_clean, present, present_as, skip, unmount};
use crate::tree::noise;

/// A file system of its own, mounted until the end of the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// Makes a file system in a file and mounts it. `None`: visibly skipped.
fn mounted(dir: &Path, make: &str, options: &[&str]) -> Option<Mounted> {
    let version = if make == "mkfs.xfs" {
        "-V"
    } else {
        "--version"
    };
    if !present_as(make, version) {
        return None;
    }
    let (file, at) = (dir.join("disk"), dir.join("mount"));
    fs::create_dir(&at).unwrap();
    fs::File::create(&file).unwrap().set_len(512 << 20).unwrap();
    let output = Command::new(make).args(options).arg(&file).output();
    let output = output.unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{make}: {complaint}");
    let mount = Command::new("mount")
        .args(["-o", "loop"])
        .args([&file, &at])
        .output();
    match mount {
        Ok(output) if output.status.success() => Some(Mounted(at)),
        _ => {
            skip(&format!("what {make} made cannot be mounted here"));
            None
        }
    }
}

/// Bytes of a file in blocks that belong to another file, too, as FIEMAP tells.
fn shared_bytes(path: &Path) -> u64 {
    let output = Command::new("filefrag")
        .args(["-v", "-b1"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    // "ext: logical: physical: length: expected: flags:", each field behind a colon.
    let shared = text.lines().filter(|line| line.contains("shared"));
    shared
        .map(|line| {
            let length = line.split(':').nth(3).unwrap();
            length.trim().parse::<u64>().unwrap()
        })
        .sum()
}

fn used(at: &Path) -> u64 {
    assert!(
        Command::new("sync")
            .arg("-f")
            .arg(at)
            .status()
            .unwrap()
            .success()
    );
    let system = rustix::fs::statvfs(at).unwrap();
    (system.f_blocks - system.f_bfree) * system.f_frsize
}

/// What is copied when it need not be costs time and, worse, the room of a second copy; that it was shared shows in no byte.
#[test]
fn images_share_blocks_with_their_source_where_the_file_system_can() {
    if !present("filefrag") {
        return;
    }
    let xfs = ("mkfs.xfs", &["-q", "-m", "reflink=1"][..]);
    let btrfs = ("mkfs.btrfs", &["-q"][..]);
    for (make, options) in [xfs, btrfs] {
        let dir = tempfile::tempdir().unwrap();
        let Some(mount) = mounted(dir.path(), make, options) else {
            continue;
        };
        let at = &*mount.0;
        let source = at.join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("large"), noise(24 << 20, 1)).unwrap();
        fs::write(source.join("odd"), noise((6 << 20) + 777, 2)).unwrap();
        fs::write(source.join("small"), noise(5000, 3)).unwrap();
        for extra in [&[][..], &["-U", "random"]] {
            let before = used(at);
            made(at, &[&["-q", "-d", "source"], extra, &["image"]].concat());
            let image = at.join("image");
            let shared = shared_bytes(&image);
            assert!(
                shared >= 29 << 20,
                "{make} {extra:?}: {shared} bytes shared"
            );
            let taken = used(at).saturating_sub(before);
            assert!(taken < 6 << 20, "{make} {extra:?}: {taken} bytes taken");
            e2fsck_clean(&image, make);
            if extra.is_empty() {
                // Not one bit differs from an image that was copied.
                let other = dir.path().join("image");
                let from = source.to_str().unwrap();
                made(at, &["-q", "-d", from, other.to_str().unwrap()]);
                assert!(fs::read(&image).unwrap() == fs::read(&other).unwrap());
            }
            fs::remove_file(&image).unwrap();
        }
        // The source may go on living.
        made(at, &["-q", "-d", "source", "image"]);
        let whole = fs::read(at.join("image")).unwrap();
        fs::write(source.join("large"), noise(24 << 20, 4)).unwrap();
        assert!(whole == fs::read(at.join("image")).unwrap(), "{make}");
    }
}
