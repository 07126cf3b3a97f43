//! The POSIX test suite pjdfstest, in its Rust form, run on a mounted directory.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::judge;

/// Most seconds of one run.
const LIMIT_SECS: u64 = 120;

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As POSIX wants it.
    Passed,
    /// Not so.
    Failed,
    /// Asks for something that is not there.
    Skipped,
}

/// Name of a case -> what became of it, and what the suite said.
pub type Cases = BTreeMap<String, (Verdict, String)>;

/// What the file system under test has besides what every one has.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// fallocate of a plain range.
    pub posix_fallocate: bool,
    /// The time of creation.
    pub birth_time: bool,
}

/// Runs all cases in `dir`, with `other` on another file system; `None`, and said so, without the suite or without root.
///
/// # Errors
/// The suite cannot run at all.
pub fn run(dir: &Path, other: &Path, features: Features) -> Result<Option<Cases>> {
    if !rustix::process::geteuid().is_root() {
        judge::skipped("pjdfstest changes users: it needs root");
        return Ok(None);
    }
    // The cases that mount anew for reading come by themselves: what the others leave open would stand in the way.
    let Some(mut cases) = run_some(dir, other, features, "")? else {
        return Ok(None);
    };
    let Some(read_only) = run_some(dir, other, features, "erofs")? else {
        return Ok(None);
    };
    ensure!(!read_only.is_empty(), "pjdfstest: no cases of erofs");
    cases.extend(read_only);
    Ok(Some(cases))
}

fn run_some(dir: &Path, other: &Path, features: Features, pattern: &str) -> Result<Option<Cases>> {
    let config = tempfile::NamedTempFile::new()?;
    std::fs::write(config.path(), configuration(features, pattern == "erofs")?)?;
    // Mounting anew for reading is the kernel's own affair: no helper of a FUSE program is to be asked.
    let tools = tempfile::tempdir()?;
    let mount = tools.path().join("mount");
    std::fs::write(
        &mount,
        "#!/bin/sh\nexec /bin/mount --internal-only \"$@\"\n",
    )?;
    std::fs::set_permissions(&mount, Permissions::from_mode(0o755))?;
    let mut path = OsString::from("PATH=");
    path.push(tools.path());
    path.push(":");
    path.push(judge::search_path());
    let mut args = vec![
        path.as_os_str(),
        OsStr::new("pjdfstest"),
        OsStr::new("-c"),
        config.path().as_os_str(),
        OsStr::new("-p"),
        dir.as_os_str(),
        OsStr::new("-s"),
        other.as_os_str(),
    ];
    if !pattern.is_empty() {
        args.push(OsStr::new(pattern));
    }
    let Some(output) = judge::run_within(LIMIT_SECS, "env", args)? else {
        judge::skipped("pjdfstest is not installed");
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        text.contains("\nSummary: "),
        "pjdfstest did not come to its end: {}",
        judge::said(&output)
    );
    Ok(Some(parse(&text)))
}

fn configuration(features: Features, remount: bool) -> Result<String> {
    let mut text = String::from("[features]\nrename_ctime = {}\nutime_now = {}\nutimensat = {}\n");
    if features.posix_fallocate {
        text.push_str("posix_fallocate = {}\n");
    }
    if features.birth_time {
        text.push_str("stat_st_birthtime = {}\n");
    }
    // Longer than a tick of the kernel's coarse clock.
    write!(
        text,
        "[settings]\nnaptime = 0.02\nallow_remount = {remount}\n"
    )?;
    let [first, second] = two_users()?;
    write!(text, "[dummy_auth]\nentries = [{first}, {second}]\n")?;
    Ok(text)
}

/// Two users that are not root, each with the group of its own that passwd(5) says.
fn two_users() -> Result<[String; 2]> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let groups = std::fs::read_to_string("/etc/group")?;
    let group_name = |gid: &str| {
        groups
            .lines()
            .find(|line| line.split(':').nth(2) == Some(gid))
            .and_then(|line| line.split(':').next())
    };
    let mut found = users.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, uid, gid) = (fields.first()?, fields.get(2)?, fields.get(3)?);
        (*uid != "0" && *gid != "0").then_some(())?;
        Some(format!("[\"{name}\", \"{}\"]", group_name(gid)?))
    });
    let both = found.next().zip(found.next());
    both.map(<[String; 2]>::from)
        .context("/etc/passwd holds no two users besides root")
}

/// The cases of a run: a line with name and verdict each, what is to say indented below.
fn parse(text: &str) -> Cases {
    let mut cases = Cases::new();
    let mut last: Option<String> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let verdict = match words[..] {
            [_, "ok"] => Verdict::Passed,
            [_, "FAILED"] => Verdict::Failed,
            [_, "skipped"] => Verdict::Skipped,
            _ => {
                let said = last.as_ref().and_then(|name| cases.get_mut(name));
                if let (Some((_, said)), true) = (said, line.starts_with('\t')) {
                    said.push_str(line.trim());
                    said.push(' ');
                }
                continue;
            }
        };
        cases.insert(words[0].to_owned(), (verdict, String::new()));
        last = Some(words[0].to_owned());
    }
    cases
}

/// Numbers of cases that passed, failed and were skipped.
#[must_use]
pub fn counts(cases: &Cases) -> [usize; 3] {
    [Verdict::Passed, Verdict::Failed, Verdict::Skipped].map(|wanted| {
        cases
            .values()
            .filter(|(verdict, _)| *verdict == wanted)
            .count()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_case_by_case() {
        let text = "\
open::sticky                                                    ok
chmod::erofs_named                                          FAILED
\tcalled `Result::unwrap()` on an `Err` value: EBUSY
Backtrace:
   0: std::backtrace
link::eloop                                                skipped
\trequires root privileges

Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total
";
        let cases = parse(text);
        assert_eq!(counts(&cases), [1, 1, 1]);
        assert!(cases["chmod::erofs_named"].1.contains("EBUSY"));
        assert_eq!(cases["link::eloop"].0, Verdict::Skipped);
    }
}
