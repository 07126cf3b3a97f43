//! An image of its own, mounted and served by this process, and checked when it is over.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use ext2dax::FileSystem;
use ext2dax::pmem::{FileRegion, Pmem};
use ext2dax_fsck::{CheckOptions, check};
use ext2dax_fuse::{Ender, MountError, Options};

pub(crate) struct Mount {
    directory: tempfile::TempDir,
    ender: Ender,
    server: Option<JoinHandle<Result<(), MountError>>>,
}

/// Whether this process may mount. Says so if not; in CI that is a failure.
pub(crate) fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root()
        && OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .is_ok();
    if !can {
        assert!(
            std::env::var_os("CI").is_none(),
            "no right to mount, or no /dev/fuse"
        );
        eprintln!("skipped: no right to mount, or no /dev/fuse");
    }
    can
}

impl Mount {
    /// A new image of 64 MiB, mounted with `options`.
    pub(crate) fn new(options: &str) -> Option<Self> {
        Self::with_image(options, &ext2dax_mkfs::Options::default(), 64 << 20)
    }

    pub(crate) fn with_image(
        options: &str,
        plan: &ext2dax_mkfs::Options,
        len: u64,
    ) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        ext2dax_mkfs::make_file(directory.path().join("image"), plan, len).expect("made");
        std::fs::create_dir(directory.path().join("mount")).expect("a directory");
        Some(Self::again(directory, options))
    }

    /// Mounts the image that lies in `directory`.
    pub(crate) fn again(directory: tempfile::TempDir, options: &str) -> Self {
        let options = Options::parse(options).expect("good options");
        let image = directory.path().join("image");
        let region =
            FileRegion::open_at(&image, options.access(), options.offset, None).expect("opened");
        let fs = FileSystem::mount(region, &options.mount_options()).expect("mounted");
        let serve = options.serve_options("image");
        let mounted = ext2dax_fuse::mount(fs, &directory.path().join("mount"), &serve)
            .expect("mounted by the kernel");
        Self {
            ender: mounted.ender(),
            server: Some(std::thread::spawn(move || mounted.run())),
            directory,
        }
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.ender.end().expect("taken off");
            server.join().expect("no panic").expect("a clean end");
        }
    }

    /// Unmounts, and gives back the directory with the image.
    pub(crate) fn stop_unchecked(mut self) -> tempfile::TempDir {
        self.stop();
        std::mem::replace(
            &mut self.directory,
            tempfile::tempdir().expect("a directory"),
        )
    }

    /// Unmounts, has both checkers look at the image, and gives back the directory it lies in.
    pub(crate) fn end(mut self) -> tempfile::TempDir {
        self.stop();
        assert_clean(&self.image());
        std::mem::replace(
            &mut self.directory,
            tempfile::tempdir().expect("a directory"),
        )
    }
}

impl Drop for Mount {
    /// A test that failed leaves no mount behind.
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = self.ender.end();
            let _ = server.join();
        }
    }
}

/// Clean to our checker and to e2fsck, where there is one.
pub(crate) fn assert_clean(image: &Path) {
    let region = FileRegion::open(image, ext2dax::pmem::Access::ReadOnly).expect("opened");
    let report = check(&Pmem::new(region), &CheckOptions::default()).expect("checked");
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let judge = Command::new("timeout")
        .args(["20", "e2fsck", "-fn"])
        .arg(image)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output();
    match judge {
        Ok(output) if output.status.code() != Some(127) => assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        _ => {
            assert!(std::env::var_os("CI").is_none(), "e2fsck is missing");
            eprintln!("skipped: e2fsck is missing");
        }
    }
}

/// Bytes that differ from their neighbours and from those of other sizes.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 7 + i / 251 + len % 13).to_le_bytes()[0] | 1)
        .collect()
}

/// Says that a test is skipped if a program is missing; in CI that is a failure.
pub(crate) fn skipped_without(program: &str) -> bool {
    let path = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
    let there = path.iter().any(|dir| Path::new(dir).join(program).exists());
    if !there {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing");
        eprintln!("skipped: {program} is missing");
    }
    !there
}

/// A command line as a user who is not root and in no group of root's.
pub(crate) fn as_nobody(line: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sh",
        "-c",
    ]);
    command.arg(line);
    command
}

/// What a command says that must not fail.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().expect("run");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
