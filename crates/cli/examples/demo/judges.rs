//! Who reads the image when we are done: our fsck, e2fsck, and the kernel.

use std::io;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::Result;
use ext2dax_fsck::CheckOptions;
use ext2dax_pmem::{Access, FileRegion, Pmem};

use super::{Expected, say};

/// True if nothing was found.
pub(super) fn our_fsck(image: &Path) -> Result<bool> {
    let pmem = Pmem::new(FileRegion::open(image, Access::ReadOnly)?);
    let report = ext2dax_fsck::check(&pmem, &CheckOptions::default())?;
    if report.is_clean() {
        let summary = &report.summary;
        say(
            "our fsck",
            &format!(
                "clean: {} inodes, {} blocks in use",
                summary.inodes_used, summary.blocks_used
            ),
        );
        return Ok(true);
    }
    say(
        "our fsck",
        &format!(
            "{} findings, the first: {:?}",
            report.findings.len(),
            report.findings.first()
        ),
    );
    Ok(false)
}

/// True if nothing was found, or there is no e2fsck.
pub(super) fn e2fsck(image: &Path) -> Result<bool> {
    let Some(output) = tool(Command::new("e2fsck").arg("-fn").arg(image))? else {
        say("e2fsck", "MISSING: not installed");
        return Ok(true);
    };
    let clean = output.status.success();
    say("e2fsck -fn", if clean { "clean" } else { "found errors:" });
    if !clean {
        println!("{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(clean)
}

/// True if the kernel reads the same bytes, or cannot be asked.
pub(super) fn kernel(image: &Path, expected: &[Expected]) -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let mounted = tool(
        Command::new("mount")
            .args(["-t", "ext2", "-o", "loop,ro"])
            .arg(image)
            .arg(dir.path()),
    )?;
    match mounted {
        Some(output) if output.status.success() => {}
        Some(output) => {
            say(
                "kernel mount",
                &format!(
                    "MISSING: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                ),
            );
            return Ok(true);
        }
        None => {
            say("kernel mount", "MISSING: no mount program");
            return Ok(true);
        }
    }
    let compared = compare(dir.path(), expected);
    // A mount that cannot be ended would be left behind: that is not clean either.
    let ended =
        tool(Command::new("umount").arg(dir.path()))?.is_some_and(|output| output.status.success());
    if !ended {
        say("kernel mount", "cannot be ended");
    }
    Ok(compared? && ended)
}

fn compare(mount: &Path, expected: &[Expected]) -> Result<bool> {
    let mut total = 0;
    for file in expected {
        if std::fs::read(mount.join(file.path))? != file.bytes {
            say("kernel mount", &format!("/{} has other bytes", file.path));
            return Ok(false);
        }
        total += file.bytes.len();
    }
    let files =
        (0..18).map(|n| std::fs::read_dir(mount.join(format!("tree/{n:02}"))).map(Iterator::count));
    let files: usize = files.sum::<io::Result<usize>>()?;
    if files != 900 || std::fs::read(mount.join("tree/again"))? != b"0.0\n" {
        say(
            "kernel mount",
            &format!("{files} files in the tree instead of 900"),
        );
        return Ok(false);
    }
    say(
        "kernel mount",
        &format!(
            "reads the same {total} bytes in {} files, and the tree",
            expected.len()
        ),
    );
    Ok(true)
}

/// Runs a tool that may be missing; administrators' directories are searched as well.
fn tool(command: &mut Command) -> Result<Option<Output>> {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    match command.env("PATH", path).output() {
        Ok(output) => Ok(Some(output)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
