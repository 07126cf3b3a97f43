//! File systems served by a process of their own: our FUSE mount, and fuse2fs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a server may take to mount or to leave.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mount and its server; unmounted on drop.
#[derive(Debug)]
pub struct FuseMount {
    dir: PathBuf,
    server: Child,
}

impl FuseMount {
    /// `ext2dax mount -f`: the tool is looked for beside this program.
    ///
    /// # Errors
    /// When the tool is missing or does not mount; the text says which.
    pub fn ours(image: &Path, dir: &Path) -> Result<Self> {
        let tool = std::env::current_exe()?.with_file_name("ext2dax");
        if !tool.exists() {
            bail!(
                "{} is not built (cargo build --release -p ext2dax-cli)",
                tool.display()
            );
        }
        Self::start(
            Command::new(tool).args(["mount", "-f"]).arg(image).arg(dir),
            dir,
        )
    }

    /// fuse2fs of e2fsprogs.
    ///
    /// # Errors
    /// When it is not installed or does not mount; the text says which.
    pub fn fuse2fs(image: &Path, dir: &Path) -> Result<Self> {
        Self::start(Command::new("fuse2fs").arg(image).arg(dir).arg("-f"), dir)
    }

    fn start(command: &mut Command, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let before = std::fs::metadata(dir)?.dev();
        let program = command.get_program().display().to_string();
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{program}: not there"))?;
        let mut mount = FuseMount {
            dir: dir.to_owned(),
            server,
        };
        let start = Instant::now();
        while std::fs::metadata(dir)?.dev() == before {
            if let Some(status) = mount.server.try_wait()? {
                let mut said = String::new();
                if let Some(mut stderr) = mount.server.stderr.take() {
                    std::io::Read::read_to_string(&mut stderr, &mut said)?;
                }
                bail!("{program}: {status}: {}", said.trim());
            }
            if start.elapsed() > PATIENCE {
                bail!("{program}: nothing is mounted after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(mount)
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The server's process.
    pub fn server(&self) -> u32 {
        self.server.id()
    }
}

/// Nanoseconds that the threads of a process have run. 0 if it is gone.
pub fn process_ns(pid: u32) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    let of = |task: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    tasks.filter_map(of).sum()
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        // Nothing can be done about a failure here but to leave the mount to its owner.
        let unmounted = Command::new("umount")
            .arg(&self.dir)
            .stderr(Stdio::null())
            .status();
        let start = Instant::now();
        while unmounted.as_ref().is_ok_and(|status| status.success())
            && start.elapsed() < PATIENCE
            && matches!(self.server.try_wait(), Ok(None))
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
