//! What the tests here share: images in memory, seeds, mounts.

use std::path::Path;

use anyhow::Result;
use ext2dax::{Atime, FileSystem, MountOptions};
use ext2dax_crashtest::judge;
use ext2dax_pmem::Access;

/// A directory for images, in memory where the host has one.
pub(crate) fn dir() -> Result<tempfile::TempDir> {
    let shm = Path::new("/dev/shm");
    Ok(if shm.is_dir() {
        tempfile::tempdir_in(shm)?
    } else {
        tempfile::tempdir()?
    })
}

/// The seed of a run: fixed, unless `EXT2DAX_SEED` says otherwise.
pub(crate) fn seed(default: u64) -> u64 {
    std::env::var("EXT2DAX_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(default)
}

/// Ours on an image, for reading and writing; reading leaves access times alone.
pub(crate) fn mount(image: &Path) -> Result<FileSystem> {
    let region = judge::region(image, Access::ReadWrite)?;
    Ok(FileSystem::mount(
        region,
        &MountOptions::new().atime(Atime::Never),
    )?)
}

/// Ours on an image that must not change.
pub(crate) fn mount_read_only(image: &Path) -> Result<FileSystem> {
    let region = judge::region(image, Access::ReadOnly)?;
    Ok(FileSystem::mount(
        region,
        &MountOptions::new().read_only(true),
    )?)
}

/// The tool `ext2dax`, built with these tests; `EXT2DAX_TOOL` names another, such as an optimised one.
pub(crate) fn tool() -> &'static Path {
    static TOOL: std::sync::LazyLock<std::path::PathBuf> = std::sync::LazyLock::new(|| {
        std::env::var_os("EXT2DAX_TOOL")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_ext2dax-served").into())
            .into()
    });
    &TOOL
}
