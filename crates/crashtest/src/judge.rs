//! Outside judges.
//!
//! A judge that is not there is named once for each check it would have made, and fails the check where `CI=true` is
//! set: it never passes silently.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ext2dax_pmem::{Access, FileRegion, OpenError, Pmem};

/// No judge may take longer, unless its caller says so.
const LIMIT_SECS: u64 = 60;

/// What timeout(1) answers where there is no such tool.
const NOT_FOUND: i32 = 127;

/// What timeout(1) answers for a tool that it had to end.
const TIMED_OUT: i32 = 124;

/// Says that a check was skipped and why.
///
/// # Panics
/// Where `CI=true` is set.
#[expect(
    clippy::print_stdout,
    reason = "a skipped judge is part of a test's answer"
)]
pub fn skipped(what: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "missing in CI: {what}"
    );
    println!("skipped: {what}");
}

/// Whether long rounds were asked for (`EXT2DAX_SOAK=1`).
#[must_use]
pub fn soak() -> bool {
    std::env::var_os("EXT2DAX_SOAK").is_some_and(|soak| soak != "0")
}

/// Where tools are looked for: the path, the folders that plain users lack, and the suites that `.ci/setup` builds
/// (`EXT2DAX_JUDGES` if they are elsewhere).
#[must_use]
pub fn search_path() -> OsString {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/judges");
    let mut built = std::env::var_os("EXT2DAX_JUDGES").unwrap_or_else(|| built.into());
    built.push("/bin");
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:");
    path.push(built);
    path
}

/// Runs a tool and answers its output; `None` if there is no such tool.
///
/// # Errors
/// It exists and cannot be started; it is not done in time.
pub fn run<S: AsRef<OsStr>>(
    tool: &str,
    args: impl IntoIterator<Item = S>,
) -> Result<Option<Output>> {
    run_within(LIMIT_SECS, tool, args)
}

/// [`run`] for tools that take their time: at most `secs` seconds.
///
/// # Errors
/// As [`run`].
pub fn run_within<S: AsRef<OsStr>>(
    secs: u64,
    tool: &str,
    args: impl IntoIterator<Item = S>,
) -> Result<Option<Output>> {
    // A judge that loops would stop the whole run.
    let started = Command::new("timeout")
        .env("PATH", search_path())
        .args(["--kill-after=5", &secs.to_string()])
        .arg(tool)
        .args(args)
        .stdin(Stdio::null())
        .output();
    match started {
        Ok(output) if output.status.code() == Some(NOT_FOUND) => Ok(None),
        Ok(output) if output.status.code() == Some(TIMED_OUT) => {
            bail!("{tool}: not done after {secs} s: {}", said(&output))
        }
        Ok(output) => Ok(Some(output)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| tool.to_owned()),
    }
}

/// Runs a tool that must succeed; `false` if there is no such tool.
///
/// # Errors
/// It failed; the text is what it said.
pub fn run_ok<S: AsRef<OsStr>>(tool: &str, args: impl IntoIterator<Item = S>) -> Result<bool> {
    let Some(output) = run(tool, args)? else {
        skipped(&format!("{tool} is not installed"));
        return Ok(false);
    };
    ensure!(
        output.status.success(),
        "{tool}: {}: {}",
        output.status,
        said(&output)
    );
    Ok(true)
}

/// What a tool said, complaints first.
#[must_use]
pub fn said(output: &Output) -> String {
    let (err, out) = (
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout),
    );
    format!("{} {}", err.trim(), out.trim())
}

/// Makes an image of `mib` MiB with mke2fs; `false` if there is none.
///
/// # Errors
/// mke2fs refused.
pub fn mke2fs(image: &Path, mib: u64, args: &[&str]) -> Result<bool> {
    std::fs::File::create(image)?.set_len(mib << 20)?;
    let mut all = vec!["-q", "-F", "-t", "ext2"];
    all.extend(args);
    run_ok(
        "mke2fs",
        all.into_iter().map(OsStr::new).chain([image.as_os_str()]),
    )
}

/// `e2fsck -fn`: exit 0 and not a word of trouble.
///
/// # Errors
/// What it found.
pub fn e2fsck_clean(image: &Path) -> Result<()> {
    let Some(output) = run("e2fsck", [OsStr::new("-fn"), image.as_os_str()])? else {
        skipped("e2fsck is not installed");
        return Ok(());
    };
    ensure!(
        output.status.code() == Some(0),
        "e2fsck -fn: {}: {}",
        output.status,
        said(&output)
    );
    Ok(())
}

/// Opens an image. Another thread may be starting a judge just now: between fork and exec its child holds every open
/// file of this process, and with it the lock of an image that was closed meanwhile.
///
/// # Errors
/// As [`FileRegion::open`]; still in use after two seconds.
pub fn region(image: &Path, access: Access) -> Result<FileRegion> {
    for _ in 0..1000 {
        match FileRegion::open(image, access) {
            Err(OpenError::InUse { .. }) => std::thread::sleep(Duration::from_millis(2)),
            opened => return Ok(opened?),
        }
    }
    bail!("{} stays in use", image.display())
}

/// Our own fsck: no finding.
///
/// # Errors
/// What it found.
pub fn fsck_clean(image: &Path) -> Result<()> {
    let region = region(image, Access::ReadOnly)?;
    let report = ext2dax_fsck::check(&Pmem::new(region), &ext2dax_fsck::CheckOptions::default())?;
    if report.is_clean() {
        return Ok(());
    }
    let found: Vec<String> = report
        .findings
        .iter()
        .take(20)
        .map(|finding| format!("{finding:?}"))
        .collect();
    bail!(
        "fsck.ext2dax: {} findings:\n{}",
        report.findings.len(),
        found.join("\n")
    );
}

/// Both checkers.
///
/// # Errors
/// What either found.
pub fn clean(image: &Path) -> Result<()> {
    e2fsck_clean(image)?;
    fsck_clean(image)
}

/// Copies the tree of an image to a directory of the host with debugfs, which reads every block size; `false` if there
/// is none. Its exit status proves nothing: its complaints do.
///
/// # Errors
/// What it complained of.
pub fn debugfs_rdump(image: &Path, to: &Path) -> Result<bool> {
    let request = format!("rdump / {}", to.display());
    let args = [OsStr::new("-R"), OsStr::new(&request), image.as_os_str()];
    let Some(output) = run("debugfs", args)? else {
        skipped("debugfs is not installed");
        return Ok(false);
    };
    let complaints: Vec<&str> = std::str::from_utf8(&output.stderr)?
        .lines()
        .filter(|line| !line.starts_with("debugfs ") && !line.trim().is_empty())
        .collect();
    ensure!(complaints.is_empty(), "debugfs: {}", complaints.join("; "));
    Ok(true)
}
