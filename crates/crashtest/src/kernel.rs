//! An image mounted by the kernel through a loop device.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::judge;

/// How the kernel mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reading only; the image does not change.
    Read,
    /// Reading and writing.
    Write,
}

/// A mounted image. Unmounted on drop; [`Mounted::unmount`] says whether that worked.
#[derive(Debug)]
pub struct Mounted {
    dir: tempfile::TempDir,
    mounted: bool,
}

impl Mounted {
    /// Mounts `image` as ext2; `None`, and said so, where this process may not mount or the kernel does not know the
    /// block size.
    ///
    /// # Errors
    /// A directory to mount on cannot be made.
    pub fn new(image: &Path, mode: Mode) -> Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let options = match mode {
            Mode::Read => "loop,ro,noatime",
            Mode::Write => "loop,rw,noatime",
        };
        let args = ["-t", "ext2", "-o", options].map(OsStr::new);
        let args = args
            .into_iter()
            .chain([image.as_os_str(), dir.path().as_os_str()]);
        let reason = match judge::run("mount", args)? {
            None => "mount is not installed".to_owned(),
            Some(output) if output.status.success() => {
                return Ok(Some(Self { dir, mounted: true }));
            }
            Some(output) => judge::said(&output),
        };
        judge::skipped(&format!("kernel mount of {}: {reason}", image.display()));
        Ok(None)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path below the mount.
    #[must_use]
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    fn end(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.mounted) {
            return Ok(());
        }
        // Another thread may be starting a tool just now: between fork and exec its child holds what this process had
        // open in here.
        for _ in 0..500 {
            let output = judge::run("umount", [self.dir.path()])?;
            if output.is_some_and(|output| output.status.success()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} stays in use", self.dir.path().display())
    }

    /// Unmounts: from here on the image holds everything.
    ///
    /// # Errors
    /// Somebody is in it.
    pub fn unmount(mut self) -> Result<()> {
        self.end()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A mount that cannot be ended is left to its owner; the directory then cannot be removed either.
        let _ = self.end();
    }
}
