//! e2fsck, mke2fs and debugfs, run as programs. Where they are missing the tests say so, and fail under `CI=true`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ext2dax_fsck::{CheckOptions, Report, check};
use ext2dax_pmem::{Access, FileRegion, OpenError, Pmem};

/// Whether a program can be run. A missing one is a visible skip, and a failure where everything has to be there.
pub(crate) fn have(program: &str) -> bool {
    let found = find(program).is_some();
    if !found {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{program} is missing"
        );
        println!("skipped: {program} is not installed");
    }
    found
}

fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/sbin", "/usr/sbin"].map(PathBuf::from);
    std::env::split_paths(&paths)
        .chain(extra)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// Runs a program and returns what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    let program = find(program).expect("have() was asked before");
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .env("E2FSCK_CONFIG", "/dev/null")
        .output()
        .unwrap()
}

/// The exit status and the text of `e2fsck -fn`.
pub(crate) fn e2fsck(image: &Path) -> (i32, String) {
    // On one of its own test images e2fsck -n asks the same question for minutes. The limit is processor time: on a busy
    // machine nothing else says that it hangs. prlimit(1) becomes e2fsck, so there is one process and not two.
    let output = run(
        "prlimit",
        &["--cpu=5", "e2fsck", "-fn", image.to_str().unwrap()],
    );
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(status) = output.status.code() else {
        // The limit ended it in the middle of a line.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        return (-1, text);
    };
    (status, text)
}

/// Maps an image. A program that another test has just forked holds our lock until its exec: then again.
pub(crate) fn open(image: &Path, access: Access) -> Pmem {
    for _ in 0..1000 {
        match FileRegion::open(image, access) {
            Ok(region) => return Pmem::new(region),
            Err(OpenError::InUse { .. }) => std::thread::yield_now(),
            Err(why) => panic!("{why}"),
        }
    }
    panic!("{} stays in use", image.display());
}

/// Our check of an image file, mapped read-only.
pub(crate) fn ours(image: &Path) -> Result<Report, ext2dax_fsck::Error> {
    check(
        &open(image, Access::ReadOnly),
        &CheckOptions {
            threads: 2,
            ..CheckOptions::default()
        },
    )
}

/// A directory for images: in memory where there is one.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}
