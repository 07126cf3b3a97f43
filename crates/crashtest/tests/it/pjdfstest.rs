//! The POSIX test suite on a mount of ours and on the kernel's, on like images.

use std::path::Path;

use anyhow::{Context as _, Result};
use ext2dax_crashtest::judge;
use ext2dax_crashtest::kernel::{Mode, Mounted};
use ext2dax_crashtest::pjdfstest::{self, Cases, Features, Verdict, counts};
use ext2dax_crashtest::served::{SHARED, Served};

use crate::scratch;

/// Options of mke2fs for the images. Inodes of 256 bytes: smaller ones have whole seconds, which the suite would wait for.
const SHAPES: [&[&str]; 2] = [
    &["-b", "4096", "-I", "256"],
    &["-b", "1024", "-I", "256", "-O", "dir_index,^resize_inode"],
];

fn on_ours(image: &Path, other: &Path, features: Features) -> Result<Option<Cases>> {
    let Some(served) = Served::new(scratch::tool(), image, SHARED)? else {
        return Ok(None);
    };
    let cases = pjdfstest::run(served.path(), other, features)?;
    served.unmount()?;
    judge::clean(image)?;
    Ok(cases)
}

fn on_the_kernel(image: &Path, other: &Path, features: Features) -> Result<Option<Cases>> {
    let Some(mounted) = Mounted::new(image, Mode::Write)? else {
        return Ok(None);
    };
    let cases = pjdfstest::run(mounted.path(), other, features)?;
    mounted.unmount()?;
    Ok(cases)
}

/// Cases that cannot run on a FUSE mount of anybody's, and why.
const NOT_ON_FUSE: [(&str, &str); 1] = [(
    "link::link_count_max",
    "the C library knows the limit of a file system by its magic number, and none for FUSE's",
)];

/// Cases that the kernel passes and ours does not, and what the suite says of them.
fn worse(ours: &Cases, kernel: &Cases) -> Vec<String> {
    let passes = |name: &str| match ours.get(name) {
        Some((Verdict::Passed, _)) => true,
        Some((Verdict::Skipped, _)) => NOT_ON_FUSE.iter().any(|(known, _)| *known == name),
        _ => false,
    };
    kernel
        .iter()
        .filter(|(name, (verdict, _))| *verdict == Verdict::Passed && !passes(name))
        .map(|(name, _)| format!("{name}: {:?}", ours.get(name)))
        .collect()
}

#[test]
fn pjdfstest_fails_nowhere_that_the_kernel_passes() -> Result<()> {
    for shape in SHAPES {
        let scratch = scratch::dir()?;
        let images = ["ours", "kernel"].map(|name| scratch.path().join(name));
        for image in &images {
            if !judge::mke2fs(image, 64, shape)? {
                return Ok(());
            }
        }
        // The second file system of the suite has to be another one than that under test, and no more.
        let other = tempfile::tempdir()?;
        let features = Features {
            posix_fallocate: true,
            birth_time: true,
        };
        let ours = on_ours(&images[0], other.path(), features).context("ours")?;
        let kernel = on_the_kernel(&images[1], other.path(), features).context("the kernel")?;
        let Some((ours, kernel)) = ours.zip(kernel) else {
            return Ok(());
        };
        for (name, why) in NOT_ON_FUSE {
            println!("  not on FUSE: {name}: {why}");
        }
        println!(
            "pjdfstest, {:?}: passed, failed, skipped: ours {:?}, the kernel {:?}",
            shape,
            counts(&ours),
            counts(&kernel)
        );
        for (name, (verdict, said)) in &kernel {
            if *verdict == Verdict::Failed {
                println!("  the kernel fails {name}: {said}");
            }
        }
        let worse = worse(&ours, &kernel);
        assert!(
            worse.is_empty(),
            "{:?}: the kernel passes and ours does not:\n{}",
            shape,
            worse.join("\n")
        );
    }
    Ok(())
}
