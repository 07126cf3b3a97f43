//! Reserved blocks, by whoever asks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Mount;
use super::mounted::{as_nobody, skipped_without};

/// One block in five is reserved.
fn image(options: &str) -> Option<Mount> {
    let plan = ext2dax_mkfs::Options {
        reserved_share: 2_000,
        ..ext2dax_mkfs::Options::default()
    };
    let mount = Mount::with_image(options, &plan, 8 << 20)?;
    fs::set_permissions(mount.root(), fs::Permissions::from_mode(0o777)).expect("set");
    Some(mount)
}

/// Free blocks, and those that anyone may have.
fn free(mount: &Mount) -> (u64, u64) {
    let counts = rustix::fs::statvfs(mount.root()).expect("counted");
    (counts.f_bfree, counts.f_bavail)
}

/// Writes until nothing goes any more, as nobody.
fn fill(path: &Path) -> String {
    let line = format!("dd if=/dev/zero of={} bs=64k", path.display());
    let output = as_nobody(&line).output().expect("run");
    assert!(!output.status.success(), "there is an end");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn reserved_blocks_are_not_for_everybody() {
    let Some(mount) = image("allow_other,default_permissions") else {
        return;
    };
    if skipped_without("setpriv") {
        return;
    }
    let (before, available) = free(&mount);
    let reserved = before - available;
    assert!(reserved > 300, "{reserved} blocks are reserved");
    let said = fill(&mount.path("of-nobody"));
    assert!(said.contains("No space left"), "{said}");
    assert_eq!(free(&mount), (reserved, 0), "exactly to the reserve");
    for line in ["mkdir".to_owned(), format!("ln -s {}", "x".repeat(70))] {
        let line = format!("{line} {}", mount.path("more").display());
        assert!(!as_nobody(&line).status().expect("run").success(), "{line}");
    }
    // What takes no block goes on.
    let line = format!("touch {}", mount.path("empty").display());
    assert!(as_nobody(&line).status().expect("run").success());
    fs::create_dir(mount.path("of-root")).expect("made by root");
    fs::write(mount.path("of-root/file"), vec![7; 1 << 20]).expect("written by root");
    assert_eq!(
        free(&mount),
        (reserved - 258, 0),
        "a directory, 256 blocks and one that leads to them"
    );
    mount.end();
}

#[test]
fn the_reserve_is_open_to_the_user_and_the_group_that_the_image_names() {
    for options in ["resuid=65534", "resgid=65534"] {
        let Some(mount) = image(&format!("allow_other,default_permissions,{options}")) else {
            return;
        };
        if skipped_without("setpriv") {
            return;
        }
        fill(&mount.path("of-nobody"));
        assert_eq!(free(&mount), (0, 0), "{options}");
        mount.end();
    }
}
