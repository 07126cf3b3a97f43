//! An image mounted by ours through FUSE: `ext2dax mount` as a process of its own.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::judge;

/// A server that does not mount, or does not end, within this time hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// Between two looks at a mount or a process.
const PAUSE: Duration = Duration::from_millis(5);

/// What everybody may do, as the modes say, and devices and set-user-id as on any mount of root.
pub const SHARED: &str = "allow_other,default_permissions,dev,suid";

/// An image that a server of ours has mounted. Unmounted on drop; [`Served::unmount`] says whether all went well.
#[derive(Debug)]
pub struct Served {
    dir: tempfile::TempDir,
    server: Option<Child>,
}

impl Served {
    /// Starts `tool mount image DIR -f -o options` and waits for the mount; `None`, and said so, where there is no FUSE.
    ///
    /// # Errors
    /// The server ended, or did not mount in time: what it said.
    pub fn new(tool: &Path, image: &Path, options: &str) -> Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        if !Path::new("/dev/fuse").exists() {
            judge::skipped("there is no /dev/fuse");
            return Ok(None);
        }
        let server = Command::new(tool)
            .arg("mount")
            .args([image, dir.path()])
            .args(["-f", "-o", options])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| tool.display().to_string())?;
        let mut served = Self {
            dir,
            server: Some(server),
        };
        served.wait_for_mount()?;
        Ok(Some(served))
    }

    fn wait_for_mount(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.is_mounted()? {
            let server = self.server.as_mut().expect("not ended yet");
            if let Some(status) = server.try_wait()? {
                let said = said(server);
                self.server = None;
                bail!("the server ended with {status}: {said}");
            }
            ensure!(start.elapsed() < LIMIT, "no mount after {LIMIT:?}");
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn is_mounted(&self) -> Result<bool> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let path = self.dir.path().to_str().context("a plain path")?;
        Ok(mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == Some(path)))
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

    /// The process that serves.
    #[must_use]
    pub fn server_id(&self) -> u32 {
        self.server.as_ref().map_or(0, Child::id)
    }

    /// Unmounts and waits for the server: from here on the image holds everything.
    ///
    /// # Errors
    /// Somebody is in it, or the server ended badly: what it said.
    pub fn unmount(mut self) -> Result<()> {
        self.leave()?;
        let (status, said) = self.wait_for_end()?;
        ensure!(
            status.success(),
            "the server ended with {status} after the unmount: {said}"
        );
        Ok(())
    }

    /// Ends the mount; root by umount(8), anybody else by FUSE's own helper.
    fn leave(&self) -> Result<()> {
        let dir = self.dir.path().as_os_str();
        let mut said = String::new();
        for _ in 0..500 {
            for (tool, flag) in [("umount", "-i"), ("fusermount3", "-u")] {
                let Some(output) = judge::run(tool, [flag.as_ref(), dir])? else {
                    continue;
                };
                if output.status.success() || !self.is_mounted()? {
                    return Ok(());
                }
                said = judge::said(&output);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} stays in use: {said}", self.dir.path().display())
    }

    fn wait_for_end(&mut self) -> Result<(ExitStatus, String)> {
        let mut server = self.server.take().expect("not ended yet");
        let start = Instant::now();
        loop {
            if let Some(status) = server.try_wait()? {
                return Ok((status, said(&mut server)));
            }
            if start.elapsed() > LIMIT {
                server.kill()?;
                server.wait()?;
                bail!("the server did not end within {LIMIT:?} of the unmount");
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// What an ended server said.
fn said(server: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = &mut server.stderr {
        // Bytes that are no text are no reason to lose the rest.
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes);
        text = String::from_utf8_lossy(&bytes).trim().to_owned();
    }
    text
}

impl Drop for Served {
    fn drop(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        // After a failure there may be files open in here: the mount goes once they are closed.
        let _ = judge::run(
            "umount",
            ["-i".as_ref(), "-l".as_ref(), self.dir.path().as_os_str()],
        );
        let start = Instant::now();
        while matches!(server.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(PAUSE);
        }
        let _ = server.kill();
        let _ = server.wait();
    }
}
