//! The POSIX test suite on a mount of ours and on the kernel's, on like images.

use std::path::Path;

use anyhow::{Context as _, Result};
use ext2dax_crashtest::judge;
use ext2dax_crashtest::kernel::{Mode, Mounted};
use ext2dax_crashtest::pjdfstest::{self, Cases, Features, Verdict, counts};
use ext2dax_crashtest::served::{SHARED, Served};

use crate::scratch;

/// One shape of image.
struct Shape {
    options: &'static [&'static str],
    birth_time: bool,
}

const SHAPES: [Shape; 2] = [
    Shape {
        options: &["-b", "4096", "-I", "256"],
        birth_time: true,
    },
    Shape {
        options: &["-b", "1024", "-I", "128", "-O", "^dir_index"],
        birth_time: false,
    },
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

/// Cases that the kernel passes and ours does not, and what the suite says of them.
fn worse(ours: &Cases, kernel: &Cases) -> Vec<String> {
    let passes = |name: &str| {
        ours.get(name)
            .is_some_and(|(verdict, _)| *verdict == Verdict::Passed)
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
            if !judge::mke2fs(image, 64, shape.options)? {
                return Ok(());
            }
        }
        // The second file system of the suite has to be another one than that under test, and no more.
        let other = tempfile::tempdir()?;
        let features = Features {
            posix_fallocate: true,
            birth_time: shape.birth_time,
        };
        let ours = on_ours(&images[0], other.path(), features).context("ours")?;
        let kernel = on_the_kernel(&images[1], other.path(), features).context("the kernel")?;
        let Some((ours, kernel)) = ours.zip(kernel) else {
            return Ok(());
        };
        println!(
            "pjdfstest, {:?}: passed, failed, skipped: ours {:?}, the kernel {:?}",
            shape.options,
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
            shape.options,
            worse.join("\n")
        );
    }
    Ok(())
}
