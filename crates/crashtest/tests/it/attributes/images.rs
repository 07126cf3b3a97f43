//! What lies on the medium: blocks that files share, attributes behind the inode, every block size, and the tools that
//! people use.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ext2dax_crashtest::judge;
use ext2dax_crashtest::kernel::{Mode, Mounted};

use super::systems::{Kernel, Kind, Op, Ours, Seen, System, everything};
use super::{ACCESS, DEFAULT, Pair, masked, named, set};
use crate::scratch;

/// The kernel lets files with equal attributes share a block. Each way of leaving it keeps the count right.
#[test]
fn blocks_that_the_kernel_shares_are_left_one_user_at_a_time() {
    for block in ["1024", "2048", "4096"] {
        let attempt = || -> Result<()> {
            let scratch = scratch::dir()?;
            let image = scratch.path().join("image");
            if !judge::mke2fs(&image, 16, &["-b", block, "-I", "128"])? {
                return Ok(());
            }
            let Some(mounted) = Mounted::new(&image, Mode::Write)? else {
                return Ok(());
            };
            let mut kernel = Kernel(mounted.path().to_owned());
            for number in 0..6 {
                let path = format!("f{number}");
                kernel
                    .apply(&Op::Make(Kind::File, path.clone(), 0o644, 0))
                    .expect("create");
                kernel
                    .apply(&set(&path, b"user.a", &[9; 100]))
                    .expect("set");
                kernel
                    .apply(&set(&path, b"trusted.b", b"shared"))
                    .expect("set");
            }
            mounted.unmount()?;
            let free = shared_block(&image, "f0")?;
            for number in 1..6 {
                ensure!(
                    shared_block(&image, &format!("f{number}"))? == free,
                    "the kernel does not share: this test shows nothing"
                );
            }
            for (round, op) in [
                set("f0", b"user.a", b"alone"),
                Op::Remove("f1".to_owned(), b"user.a".to_vec()),
                Op::Unlink("f2".to_owned()),
                set("f3", ACCESS, &named([7, 5, 4], 1, 7)),
                Op::Unlink("f4".to_owned()),
                set("f5", b"trusted.c", b"the last user"),
            ]
            .into_iter()
            .enumerate()
            {
                let mut ours = Ours(scratch::mount(&image)?);
                ours.apply(&op).expect("left");
                for number in round + 1..6 {
                    let value = ours.apply(&Op::Get(format!("f{number}"), b"user.a".to_vec()));
                    ensure!(value == Ok(Seen::Value(vec![9; 100])), "{op:?}: {value:?}");
                }
                ours.0.unmount()?;
                judge::clean(&image).with_context(|| format!("{op:?}"))?;
            }
            Ok(())
        };
        if let Err(error) = attempt() {
            panic!("blocks of {block}: {error:#}");
        }
    }
}

/// The attribute block of a file, as debugfs shows it.
fn shared_block(image: &Path, name: &str) -> Result<String> {
    let request = format!("stat /{name}");
    let args = [OsStr::new("-R"), OsStr::new(&request), image.as_os_str()];
    let output = judge::run("debugfs", args)?.context("debugfs is where mke2fs is")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let acl = text.split("File ACL: ").nth(1).context("no File ACL")?;
    Ok(acl.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Runs a tool that must succeed and answers what it said.
fn said(tool: &str, args: &[&OsStr]) -> Result<Option<String>> {
    let Some(output) = judge::run(tool, args)? else {
        judge::skipped(&format!("{tool} is not installed"));
        return Ok(None);
    };
    ensure!(output.status.success(), "{tool}: {}", judge::said(&output));
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Every block size, also those that the kernel does not mount: debugfs finds names and values.
#[test]
fn attributes_of_every_block_size_show_in_debugfs() {
    for bits in 10..=16_u32 {
        for inode in ["128", "256"] {
            let attempt = || -> Result<()> {
                let scratch = scratch::dir()?;
                let image = scratch.path().join("image");
                let block = 1_usize << bits;
                let args = ["-b", &block.to_string(), "-I", inode, "-N", "64"];
                if !judge::mke2fs(&image, 16, &args)? {
                    return Ok(());
                }
                let mut ours = Ours(scratch::mount(&image)?);
                let large = vec![b'x'; block - 32 - 4 - 2 * 24 - 40 - 16];
                for op in [
                    Op::Make(Kind::File, "f".to_owned(), 0o644, 0),
                    set("f", b"user.small", b"value of ours"),
                    set("f", ACCESS, &masked([7, 5, 1])),
                    set("f", b"trusted.large", &large),
                ] {
                    ours.apply(&op)
                        .map_err(|errno| anyhow::anyhow!("{op:?}: {errno}"))?;
                }
                ours.0.unmount()?;
                judge::clean(&image)?;
                let listed = said(
                    "debugfs",
                    &["-R".as_ref(), "ea_list f".as_ref(), image.as_ref()],
                )?;
                let Some(listed) = listed else { return Ok(()) };
                for wanted in [
                    "user.small (13) = \"value of ours\"".to_owned(),
                    "system.posix_acl_access".to_owned(),
                    format!("trusted.large ({})", large.len()),
                ] {
                    ensure!(listed.contains(&wanted), "no {wanted} in {listed}");
                }
                let request = "ea_get f trusted.large";
                let value = said(
                    "debugfs",
                    &["-R".as_ref(), request.as_ref(), image.as_ref()],
                )?;
                let value = value.context("debugfs was here")?;
                ensure!(
                    value.contains(std::str::from_utf8(&large)?),
                    "debugfs shows another value"
                );
                Ok(())
            };
            if let Err(error) = attempt() {
                panic!("blocks of {}, inodes of {inode}: {error:#}", 1 << bits);
            }
        }
    }
}

/// The tools that people use, on what we wrote: getfattr and getfacl below a kernel mount.
#[test]
fn getfacl_and_getfattr_show_what_was_set() {
    let attempt = || -> Result<()> {
        let Some(mut pair) = Pair::new("4096", "256")? else {
            return Ok(());
        };
        pair.both(&Op::Make(Kind::Dir, "dir".to_owned(), 0o755, 0))?
            .expect("mkdir");
        pair.both(&set("dir", b"user.word", b"value"))?
            .expect("set");
        pair.both(&set("dir", DEFAULT, &named([7, 5, 0], 1000, 7)))?
            .expect("a default list");
        pair.both(&Op::Make(Kind::File, "dir/f".to_owned(), 0o664, 0o077))?
            .expect("create");
        let image = pair.dir.path().join("ours");
        pair.ours.take().expect("mounted").0.unmount()?;
        let mounted = Mounted::new(&image, Mode::Read)?.context("mounted before")?;
        let list = |root: &Path, path: &str| {
            let at = root.join(path);
            said(
                "getfacl",
                &["-c".as_ref(), "-n".as_ref(), "-p".as_ref(), at.as_ref()],
            )
        };
        for path in ["dir", "dir/f"] {
            let (ours, theirs) = (list(mounted.path(), path)?, list(&pair.kernel.0, path)?);
            ensure!(ours == theirs, "{path}: {ours:?} is not {theirs:?}");
        }
        let Some(shown) = list(mounted.path(), "dir/f")? else {
            return Ok(());
        };
        for line in [
            "user::rw-",
            "user:1000:rw-",
            "group:71000:r-x",
            "mask::rw-",
            "other::---",
        ] {
            ensure!(shown.contains(line), "no {line} in {shown}");
        }
        let at = mounted.join("dir");
        let attributes = said("getfattr", &["-d".as_ref(), at.as_ref()])?.unwrap_or_default();
        ensure!(attributes.contains("user.word=\"value\""), "{attributes}");
        mounted.unmount()
    };
    attempt().unwrap();
}

/// What the kernel keeps behind the inode stays there when it does not fit into the block beside what lies there: the
/// block changes alone. What must leave the inode and cannot is refused, and nothing has changed.
#[test]
fn attributes_behind_the_inode_stay_where_a_block_is_full() {
    for block in ["1024", "4096"] {
        let attempt = || -> Result<()> {
            let scratch = scratch::dir()?;
            let image = scratch.path().join("image");
            if !judge::mke2fs(&image, 16, &["-b", block, "-I", "256"])? {
                return Ok(());
            }
            let Some(mounted) = Mounted::new(&image, Mode::Write)? else {
                return Ok(());
            };
            let size: usize = block.parse()?;
            let mut kernel = Kernel(mounted.path().to_owned());
            let full = size - 32 - 4 - 20 - 8;
            for op in [
                Op::Make(Kind::File, "f".to_owned(), 0o644, 0),
                set("f", b"user.inside", b"behind the inode"),
                set("f", b"user.b", &vec![1; full]),
            ] {
                kernel
                    .apply(&op)
                    .map_err(|errno| anyhow::anyhow!("{op:?}: {errno}"))?;
            }
            mounted.unmount()?;
            let mut ours = Ours(scratch::mount(&image)?);
            let before = everything(&mut ours, "f");
            for refused in [
                set("f", b"user.inside", b"new"),
                set("f", b"user.more", b"1"),
            ] {
                let outcome = ours.apply(&refused);
                ensure!(outcome == Err(28), "{refused:?}: {outcome:?}");
            }
            ensure!(
                everything(&mut ours, "f") == before,
                "something has changed"
            );
            for op in [
                set("f", b"user.b", &vec![2; full]),
                // Now there is room, and everything moves.
                set("f", b"user.b", b"small"),
                set("f", b"user.inside", b"in the block"),
            ] {
                ours.apply(&op)
                    .map_err(|errno| anyhow::anyhow!("{op:?}: {errno}"))?;
            }
            ours.0.unmount()?;
            judge::clean(&image)?;
            let mounted = Mounted::new(&image, Mode::Write)?.context("mounted before")?;
            let mut kernel = Kernel(mounted.path().to_owned());
            let value = kernel.apply(&Op::Get("f".to_owned(), b"user.inside".to_vec()));
            ensure!(
                value == Ok(Seen::Value(b"in the block".to_vec())),
                "{value:?}"
            );
            mounted.unmount()
        };
        if let Err(error) = attempt() {
            panic!("blocks of {block}: {error:#}");
        }
    }
}
