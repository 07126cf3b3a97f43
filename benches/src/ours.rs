//! ext2dax as a contender: an image on tmpfs, and one in flushed memory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ext2dax::{FileSystem, MountOptions};
use ext2dax_mkfs::Options;
use ext2dax_pmem::{Access, AnonRegion, FileRegion, Persist, Pmem};

/// A mounted image; finished by a check.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    fs: FileSystem,
}

fn options(inodes: u32) -> Options {
    Options {
        inodes: ext2dax_mkfs::Inodes::Count(inodes),
        ..Options::with_block_size(4096)
    }
}

impl Image {
    /// Makes an image of `mib` MiB below `base` and mounts it.
    ///
    /// # Errors
    /// When there is no space, or the image is refused.
    pub fn new(base: &Path, mib: u64, inodes: u32) -> Result<Self> {
        Self::named(base, "ours.img", mib, inodes)
    }

    /// The same under a name of its own.
    ///
    /// # Errors
    /// As [`Image::new`].
    pub fn named(base: &Path, name: &str, mib: u64, inodes: u32) -> Result<Self> {
        let path = base.join(name);
        make(&path, mib, inodes)?;
        let pmem = Pmem::new(FileRegion::open(&path, Access::ReadWrite)?);
        // A medium is there before anybody writes to it. A sparse file on tmpfs is not: its pages would come, and be
        // mapped, in the middle of what is timed.
        let mut page = [0; 4096];
        for at in (0..pmem.len()).step_by(page.len()) {
            pmem.read(at, &mut page);
        }
        let fs = FileSystem::mount_pmem(pmem, &MountOptions::new())?;
        Ok(Image { path, fs })
    }

    /// The mounted file system.
    pub fn fs(&self) -> &FileSystem {
        &self.fs
    }

    /// Where the image lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The image's file, opened once more: for the MMU, which maps pages of it.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(&self) -> Result<std::fs::File> {
        Ok(std::fs::File::options()
            .read(true)
            .write(true)
            .open(&self.path)?)
    }

    /// Unmounts, and lets the checker look: figures of a file system that breaks its image would be worth nothing.
    ///
    /// # Errors
    /// When the image is not clean afterwards.
    pub fn finish(self) -> Result<()> {
        self.fs.unmount()?;
        check(&self.path)
    }
}

/// Makes an image of `mib` MiB.
///
/// # Errors
/// When there is no space.
pub fn make(path: &Path, mib: u64, inodes: u32) -> Result<()> {
    ext2dax_mkfs::make_file(path, &options(inodes), mib << 20)?;
    Ok(())
}

/// Lets our checker look at an image that nobody uses any more.
///
/// # Errors
/// When it is not clean.
pub fn check(path: &Path) -> Result<()> {
    let pmem = Pmem::new(FileRegion::open(path, Access::ReadOnly)?);
    let report = ext2dax_fsck::check(&pmem, &ext2dax_fsck::CheckOptions::default())?;
    ensure!(
        report.is_clean(),
        "{}: damaged after the run: {:?}",
        path.display(),
        report.findings
    );
    Ok(())
}

/// A file system in plain memory whose lines are written back one by one, as on persistent memory: what the fences and
/// flushes of a durable operation cost.
///
/// # Errors
/// When there is not enough memory.
pub fn in_flushed_memory(mib: u64, inodes: u32) -> Result<FileSystem> {
    on_medium(mib, inodes, Persist::FlushLines)
}

/// A file system in plain memory that needs no flushes.
///
/// # Errors
/// When there is not enough memory.
pub fn in_memory(mib: u64, inodes: u32) -> Result<FileSystem> {
    on_medium(mib, inodes, Persist::Volatile)
}

fn on_medium(mib: u64, inodes: u32, persist: Persist) -> Result<FileSystem> {
    let plan = ext2dax_mkfs::Plan::new(&options(inodes), mib << 20)?;
    let pmem = Pmem::new(AnonRegion::with_persist(mib << 20, persist)?);
    plan.write(&pmem)?;
    FileSystem::mount_pmem(pmem, &MountOptions::new()).context("mounting in memory")
}
