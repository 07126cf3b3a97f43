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
        let path = base.join("ours.img");
        ext2dax_mkfs::make_file(&path, &options(inodes), mib << 20)?;
        let region = FileRegion::open(&path, Access::ReadWrite)?;
        let fs = FileSystem::mount(region, &MountOptions::new())?;
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
        let pmem = Pmem::new(FileRegion::open(&self.path, Access::ReadOnly)?);
        let report = ext2dax_fsck::check(&pmem, &ext2dax_fsck::CheckOptions::default())?;
        ensure!(
            report.is_clean(),
            "the image is damaged after the run: {:?}",
            report.findings
        );
        Ok(())
    }
}

/// A file system in plain memory whose lines are written back one by one, as on persistent memory: what the fences and
/// flushes of a durable operation cost.
///
/// # Errors
/// When there is not enough memory.
pub fn in_flushed_memory(mib: u64, inodes: u32) -> Result<FileSystem> {
    let plan = ext2dax_mkfs::Plan::new(&options(inodes), mib << 20)?;
    let pmem = Pmem::new(AnonRegion::with_persist(mib << 20, Persist::FlushLines)?);
    plan.write(&pmem)?;
    FileSystem::mount_pmem(pmem, &MountOptions::new()).context("mounting in memory")
}
