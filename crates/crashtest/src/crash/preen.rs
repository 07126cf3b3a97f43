//! e2fsck on hundreds of images in a row, each a copy in memory.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// Seconds after which a run of a judge counts as hung.
const PATIENCE: &str = "20";

/// e2fsck, with a folder of its own for the image. One a thread.
#[derive(Debug)]
pub struct E2fsck {
    folder: tempfile::TempDir,
}

/// What e2fsck says of an image.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Exit status of `e2fsck -p`: 0 clean, 1 repaired.
    pub preen: i32,
    /// Exit status of `e2fsck -fn` after that: 0 clean.
    pub check: i32,
    /// What both printed.
    pub output: String,
    /// The image after both.
    pub image: Vec<u8>,
}

impl Verdict {
    /// Whether preen needed nobody and left nothing behind.
    pub fn is_good(&self) -> bool {
        (self.preen == 0 || self.preen == 1) && self.check == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "e2fsck -p exits {}, then -fn exits {}:\n{}",
            self.preen, self.check, self.output
        )
    }
}

impl E2fsck {
    /// `None`, with a line that says so, if this machine has no e2fsck.
    ///
    /// # Panics
    /// If it is missing and the environment variable CI is `true`: there every judge must be present.
    pub fn find() -> Option<Self> {
        let found = Command::new("e2fsck")
            .arg("-V")
            .stderr(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            crate::judge::skipped("e2fsck is not installed");
            return None;
        }
        // Memory, if there is some: hundreds of images are written.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Some(E2fsck {
            folder: folder.expect("a folder for images"),
        })
    }

    /// Checks a copy of the image, changing nothing: exit status and what it printed.
    ///
    /// # Errors
    /// As [`E2fsck::preen`].
    pub fn check(&self, image: &[u8]) -> Result<(i32, String)> {
        let path = self.folder.path().join("image");
        std::fs::write(&path, image).context("write a copy of the image")?;
        run(&["-fn"], &path)
    }

    /// Preens a copy of the image, then checks it without changing anything.
    ///
    /// # Errors
    /// The copy cannot be written or the program not started.
    pub fn preen(&self, image: &[u8]) -> Result<Verdict> {
        let path = self.folder.path().join("image");
        std::fs::write(&path, image).context("write a copy of the image")?;
        let (preen, mut output) = run(&["-p"], &path)?;
        let (check, second) = run(&["-fn"], &path)?;
        output.push_str(&second);
        let image = std::fs::read(&path).context("read the preened image")?;
        Ok(Verdict {
            preen,
            check,
            output,
            image,
        })
    }
}

fn run(options: &[&str], image: &Path) -> Result<(i32, String)> {
    let output = Command::new("timeout")
        .arg(PATIENCE)
        .arg("e2fsck")
        .args(options)
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .context("start e2fsck")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().unwrap_or(-1), text))
}
