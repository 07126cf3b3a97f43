//! Immutable and append-only.

use anyhow::Result;

use super::systems::{Kind, Op};
use super::{ACCESS, Pair, four_kinds, named, set};

/// Immutable and append-only files and directories: every call that might change them.
#[test]
fn immutable_and_append_only_have_the_answers_of_the_kernel() {
    const IMMUTABLE: u32 = 0x10;
    const APPEND: u32 = 0x20;
    const NODUMP: u32 = 0x40;
    let attempt = || -> Result<()> {
        let Some(mut pair) = Pair::new("1024", "128")? else {
            return Ok(());
        };
        four_kinds(&mut pair)?;
        for name in ["dir/file", "dir/other", "dir/target"] {
            pair.both(&Op::Make(Kind::File, name.to_owned(), 0o644, 0))?
                .expect("create");
            pair.both(&Op::Append(name.to_owned()))?.expect("write");
        }
        pair.both(&Op::Make(Kind::Dir, "dir/sub".to_owned(), 0o755, 0))?
            .expect("mkdir");
        let own = |path: &str| path.to_owned();
        for (path, dir) in [("dir/file", false), ("dir/sub", true)] {
            for flags in [IMMUTABLE, APPEND, IMMUTABLE | APPEND, NODUMP, 0] {
                pair.both(&Op::Flags(own(path), flags))?.expect("chattr");
                let mut ops = vec![
                    Op::Chmod(own(path), 0o600),
                    Op::Chown(own(path), Some(3), None),
                    Op::Touch(own(path)),
                    Op::Times(own(path)),
                    set(path, b"user.a", b"1"),
                    set(path, b"trusted.a", b"1"),
                    set(path, ACCESS, &named([7, 5, 4], 1, 7)),
                    Op::Remove(own(path), b"user.a".to_vec()),
                    Op::Remove(own(path), ACCESS.to_vec()),
                    Op::Rename(own(path), own("dir/moved")),
                    Op::Rename(own("dir/moved"), own(path)),
                    Op::Rename(own("dir/target"), own(path)),
                ];
                if dir {
                    ops.extend([
                        Op::Make(Kind::File, own("dir/sub/new"), 0o644, 0),
                        Op::Make(Kind::Symlink, own("dir/sub/newer"), 0o644, 0),
                        Op::Link(own("dir/other"), own("dir/sub/linked")),
                        Op::Unlink(own("dir/sub/new")),
                        Op::Rename(own("dir/sub/newer"), own("dir/sub/older")),
                        Op::Rename(own("dir/other"), own("dir/sub/other")),
                        Op::Rename(own("dir/sub/other"), own("dir/other")),
                        Op::Unlink(own("dir/sub")),
                        Op::Rmdir(own("dir/sub")),
                    ]);
                } else {
                    ops.extend([
                        Op::Write(own(path), 0),
                        Op::Append(own(path)),
                        Op::Truncate(own(path), 0),
                        Op::Punch(own(path)),
                        Op::Link(own(path), own("dir/linked")),
                        Op::Unlink(own("dir/linked")),
                        Op::Rmdir(own(path)),
                        Op::Unlink(own(path)),
                    ]);
                }
                for op in ops {
                    pair.both(&op)?.ok();
                }
                pair.both(&Op::Flags(own(path), 0)).ok();
                // What was free to go is made again.
                for op in [
                    Op::Make(Kind::File, own("dir/file"), 0o644, 0),
                    Op::Make(Kind::File, own("dir/target"), 0o644, 0),
                    Op::Make(Kind::Dir, own("dir/sub"), 0o755, 0),
                ] {
                    pair.both(&op)?.ok();
                }
                for path in ["dir", "dir/file", "dir/other", "dir/sub"] {
                    pair.same(path)?;
                }
            }
        }
        pair.end(&["dir", "dir/file", "dir/sub"])
    };
    attempt().unwrap();
}
