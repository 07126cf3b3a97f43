//! File systems in memory that this process mounts for itself, and that are gone with it, however it ends.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// A tmpfs that is seen by the thread that mounted it, and by the threads and programs that it starts afterwards: the mount
/// lies in a namespace of theirs, and a signal that ends them all takes it away.
#[derive(Debug)]
pub struct Tmpfs {
    dir: PathBuf,
}

impl Tmpfs {
    /// Mounts one with these options on a folder that is there.
    ///
    /// # Errors
    /// This takes root, and a kernel that knows the options.
    pub fn mount(dir: &Path, options: &str) -> Result<Self> {
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS).context("a namespace for mounts")?;
        // A new namespace still tells the old one what is mounted, unless it is asked not to.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).context("private mounts")?;
        let kind = Some("tmpfs");
        mount(kind, dir, kind, MsFlags::empty(), Some(options))
            .with_context(|| format!("mount of a tmpfs with {options}"))?;
        let dir = dir.to_owned();
        Ok(Self { dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A program that is about to end may still hold a file.
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Tmpfs;

    #[test]
    fn a_mount_is_seen_by_who_made_it_and_by_nobody_else() {
        let dir = tempfile::tempdir().expect("a folder");
        // A thread of its own: that of the test may be the first one of the process.
        let made_by_another = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let tmpfs = Tmpfs::mount(dir.path(), "size=1m").ok()?;
                fs::write(tmpfs.dir().join("file"), b"bytes").expect("a file");
                let mine = fs::read_to_string("/proc/thread-self/mounts").expect("mounts");
                Some((tmpfs, mine))
            });
            other.join().expect("no panic")
        });
        // Who may not mount has nothing to hide.
        let Some((tmpfs, mine)) = made_by_another else {
            return;
        };
        let name = dir.path().to_str().expect("a name");
        assert!(mine.contains(name), "{mine}");
        let ours = fs::read_to_string("/proc/thread-self/mounts").expect("mounts");
        assert!(!ours.contains(name), "{ours}");
        assert!(!dir.path().join("file").exists());
        drop(tmpfs);
    }
}
