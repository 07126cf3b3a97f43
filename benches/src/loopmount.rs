//! The kernel's own ext2 driver as a peer: an image on tmpfs, made by mke2fs, loop mounted.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted image; unmounted and removed on drop.
#[derive(Debug)]
pub struct LoopMount {
    dir: PathBuf,
    image: PathBuf,
}

impl LoopMount {
    /// Makes an image of `mib` MiB below `base` with mke2fs and mounts it.
    ///
    /// # Errors
    /// When this process may not mount, or a tool is missing; the text says which.
    pub fn new(base: &Path, mib: u64, inodes: u64) -> Result<Self> {
        let image = base.join("loop.img");
        let dir = base.join("loop");
        // All of it is there beforehand, as it is for ours.
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(std::fs::File::create(&image)?, flags, 0, mib << 20)?;
        std::fs::create_dir_all(&dir)?;
        run(Command::new("mke2fs")
            .args([
                "-q",
                "-F",
                "-t",
                "ext2",
                "-b",
                "4096",
                "-N",
                &inodes.to_string(),
            ])
            .arg(&image))?;
        run(Command::new("mount")
            .args(["-o", "loop", "-t", "ext2"])
            .arg(&image)
            .arg(&dir))?;
        Ok(LoopMount { dir, image })
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        // Nothing can be done about a failure here but to leave the mount to its owner.
        let _ = run(Command::new("umount").arg(&self.dir));
        let _ = std::fs::remove_file(&self.image);
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{}: not there", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{}: {}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
