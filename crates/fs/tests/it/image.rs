//! Images made by mke2fs and judged by e2fsck.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ext2dax::{FileSystem, MountOptions};
use ext2dax_pmem::{Access, FileRegion, OpenError};
use tempfile::TempDir;

/// An image in a directory of its own, in memory if the host has such a place.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    _dir: TempDir,
}

/// Shapes of file systems: block sizes, revisions, inode sizes, with and without the `filetype` feature.
pub(crate) const SHAPES: &[&str] = &[
    "-b 1024 -I 128",
    "-b 1024 -I 256 -O ^filetype",
    "-b 2048 -I 256",
    "-b 4096 -I 256",
    "-b 4096 -I 128 -O ^dir_index",
    "-b 4096 -r 0",
    "-b 1024 -r 0",
    "-b 8192 -I 256",
    "-b 16384 -I 128",
    "-b 32768 -I 256",
    "-b 65536 -I 256",
    "-b 65536 -I 512 -O ^filetype",
];

fn scratch() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        TempDir::new_in(shm)
    } else {
        TempDir::new()
    }
    .expect("a place for an image")
}

/// Runs a program, or says that it is missing: a failure only where every judge is expected.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
    {
        Ok(output) => Some(output),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => panic!("{program}: {error}"),
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            None
        }
    }
}

impl Image {
    /// Makes an image of `mebibytes` with the mke2fs options `shape`; `None` without mke2fs.
    pub(crate) fn new(shape: &str, mebibytes: u64) -> Option<Self> {
        let dir = scratch();
        let path = dir.path().join("image");
        File::create(&path)
            .expect("a file")
            .set_len(mebibytes << 20)
            .expect("its length");
        let name = path.to_str().expect("an ASCII path").to_owned();
        let mut arguments = vec![
            "-q",
            "-F",
            "-t",
            "ext2",
            "-E",
            "root_owner=0:0",
            "-N",
            "4096",
        ];
        if !shape.contains("-N") {
            arguments.extend(["-N", "4096"]);
        }
        arguments.extend(shape.split_whitespace());
        arguments.push(&name);
        let output = run("mke2fs", &arguments)?;
        assert!(
            output.status.success(),
            "mke2fs {shape}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(Self { path, _dir: dir })
    }

    /// A copy of the image as it is now: what a crash at this moment leaves.
    pub(crate) fn copy(&self) -> Self {
        let dir = scratch();
        let path = dir.path().join("image");
        std::fs::copy(&self.path, &path).expect("a copy of the image");
        Self { path, _dir: dir }
    }

    pub(crate) fn name(&self) -> &str {
        self.path.to_str().expect("an ASCII path")
    }

    pub(crate) fn mount(&self) -> FileSystem {
        self.mount_with(&MountOptions::new())
    }

    pub(crate) fn mount_with(&self, options: &MountOptions) -> FileSystem {
        FileSystem::mount(self.region(), options).expect("the image mounts")
    }

    /// The image as a region. A test on another thread may be starting a judge just now: between fork and exec its child
    /// holds every open file of this process, and with it the lock of an image that was closed meanwhile.
    pub(crate) fn region(&self) -> FileRegion {
        for _ in 0..1000 {
            match FileRegion::open(&self.path, Access::ReadWrite) {
                Err(OpenError::InUse { .. }) => {
                    std::thread::sleep(std::time::Duration::from_millis(2))
                }
                opened => return opened.expect("the image opens"),
            }
        }
        panic!("the image stays in use");
    }

    /// e2fsck finds nothing to complain about.
    pub(crate) fn assert_clean(&self, when: &str) {
        let Some(output) = run("e2fsck", &["-fn", self.name()]) else {
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.code() != Some(0)
            && let Ok(keep) = std::env::var("KEEP_IMAGE")
        {
            std::fs::copy(&self.path, keep).expect("a copy of the image");
        }
        assert!(
            output.status.code() == Some(0),
            "{when}: e2fsck -fn: {:?}\n{text}",
            output.status
        );
    }

    /// What e2fsck -p does to the image: its exit code.
    pub(crate) fn preen(&self) -> i32 {
        run("e2fsck", &["-fp", self.name()])
            .map_or(0, |output| output.status.code().expect("an exit code"))
    }
}
