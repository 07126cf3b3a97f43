//! The configuration of mke2fs, read only where `MKE2FS_CONFIG` names a file: nothing outside the command line shapes an
//! image by itself.
//!
//! `[defaults]` and, in `[fs_types]`, the entries for `ext2` and for the usages of `-T` give what the command line leaves
//! open; a later one wins. Settings that have no meaning for ext2 are passed over.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::size;
use crate::{Inodes, Options, edit_features};

/// A setting: the usage that it is for, or none for `[defaults]`; its name; its value.
type Setting = (Option<String>, String, String);

/// What `MKE2FS_CONFIG` says about these usages.
///
/// # Errors
/// A file that cannot be read; a line that makes no sense; a value that is out of range.
pub(super) fn apply(path: &Path, usages: &[&str], options: &mut Options) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
    let settings = parse(&text).with_context(|| name.clone())?;
    let groups = std::iter::once(None).chain(usages.iter().map(Some));
    for group in groups {
        let wanted = |setting: &&Setting| setting.0.as_deref() == group.copied();
        for (_, key, value) in settings.iter().filter(wanted) {
            one(key, value, options).with_context(|| format!("{name}: {key} = {value}"))?;
        }
    }
    Ok(())
}

fn one(key: &str, value: &str, options: &mut Options) -> anyhow::Result<()> {
    match key {
        "base_features" => {
            options.features = Default::default();
            edit_features(&mut options.features, &list(value))?;
        }
        // What `-O` would add comes after both.
        "default_features" | "features" => edit_features(&mut options.features, &list(value))?,
        // A negative one is a wish that a device can overrule.
        "blocksize" => {
            let bytes = value.strip_prefix('-').unwrap_or(value);
            options.block_size = size::parse_u32(key, bytes)?;
        }
        "inode_size" => options.inode_size = size::parse_u32(key, value)?,
        "inode_ratio" => options.inodes = Inodes::Ratio(size::parse_u32(key, value)?),
        "reserved_ratio" => options.reserved_share = size::parse_percent(key, value)?,
        "num_backup_sb" => {
            options.backup_superblocks = value.parse().context("not a number")?;
        }
        "errors" => {
            options.on_error = match value {
                "continue" => 1,
                "remount-ro" => 2,
                "panic" => 3,
                _ => bail!("must be continue, remount-ro or panic"),
            }
        }
        _ => {}
    }
    Ok(())
}

fn list(value: &str) -> String {
    value.split([',', ' ']).collect::<Vec<_>>().join(",")
}

/// Sections in brackets, `name = value`, and `name = {` up to `}`; `#` and `;` start a comment line.
fn parse(text: &str) -> anyhow::Result<Vec<Setting>> {
    let mut all = Vec::new();
    let (mut section, mut group) = (String::new(), None);
    for (nr, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name.to_owned();
        } else if line == "}" {
            if group.take().is_none() {
                bail!("line {nr}: nothing is open");
            }
        } else {
            let (key, value) = line
                .split_once('=')
                .with_context(|| format!("line {nr}: no NAME = VALUE"))?;
            let (key, value) = (key.trim(), value.trim().trim_matches('"'));
            match (section.as_str(), &group) {
                ("fs_types", None) if value == "{" => group = Some(key.to_owned()),
                ("defaults", None) => all.push((None, key.to_owned(), value.to_owned())),
                ("fs_types", Some(_)) => {
                    all.push((group.clone(), key.to_owned(), value.to_owned()));
                }
                // Other sections, and what stands between the types, are not for us.
                _ if value == "{" => bail!("line {nr}: no group belongs here"),
                _ => {}
            }
        }
    }
    if group.is_some() {
        bail!("the last group has no end");
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[defaults]\n\tbase_features = sparse_super,filetype,ext_attr\n\tblocksize = 1024\n\
        inode_ratio = 8192\n\n[fs_types]\n\text2 = {\n\t\tinode_size = 128\n\t}\n\t# none\n\tsmall = {\n\
        \t\tblocksize = 2048\n\t\tinode_ratio = 4096\n\t\thash_alg = half_md4\n\t}\n";

    #[test]
    fn later_groups_win_and_others_do_not_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TEXT).unwrap();
        let read = |usages: &[&str]| {
            let mut options = Options::default();
            apply(file.path(), usages, &mut options).unwrap();
            (options.block_size, options.inode_size, options.inodes)
        };
        assert_eq!(read(&["ext2"]), (1024, 128, Inodes::Ratio(8192)));
        assert_eq!(read(&["ext2", "small"]), (2048, 128, Inodes::Ratio(4096)));
        for (bad, why) in [
            ("[defaults]\nblocksize", "line 2: no NAME = VALUE"),
            ("[fs_types]\next2 = {\n", "the last group has no end"),
            ("}\n", "line 1: nothing is open"),
            ("[defaults]\nerrors = x", "errors = x: must be"),
            (
                "[defaults]\nbase_features = extents",
                "not a feature of ext2",
            ),
        ] {
            std::fs::write(file.path(), bad).unwrap();
            let error = apply(file.path(), &["ext2"], &mut Options::default()).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
    }
}
