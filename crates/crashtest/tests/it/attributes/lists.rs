//! Access control lists: what is one, what it does to a mode and a mode to it, and what new files get.

use ext2dax::SetXattr;

use super::systems::{Kind, Op};
use super::{ACCESS, DEFAULT, NOBODY, acl, each_shape, four_kinds, masked, named, plain, set};

/// Lists good and bad on every kind of file; modes before and after.
#[test]
fn access_control_lists_and_modes_have_the_answers_of_the_kernel() {
    each_shape(|pair| {
        four_kinds(pair)?;
        let mut lists = vec![
            named([7, 5, 4], 1000, 7),
            named([7, 5, 4], 1000, 0),
            named([0, 0, 0], 0, 7),
            plain([6, 4, 0]),
            plain([7, 7, 7]),
            masked([6, 4, 4]),
            acl(&[]),
            Vec::new(),
        ];
        // What is no list.
        lists.extend([
            b"\x02\0\0".to_vec(),
            1_u32.to_le_bytes().to_vec(),
            acl(&[(1, 7, NOBODY)]),
            acl(&[(1, 7, NOBODY), (4, 7, NOBODY), (0x20, 8, NOBODY)]),
            acl(&[(1, 7, NOBODY), (2, 7, 5), (4, 7, NOBODY), (0x20, 7, NOBODY)]),
            acl(&[
                (1, 7, NOBODY),
                (2, 7, NOBODY),
                (4, 7, NOBODY),
                (0x10, 7, NOBODY),
                (0x20, 7, NOBODY),
            ]),
            acl(&[(4, 7, NOBODY), (1, 7, NOBODY), (0x20, 7, NOBODY)]),
            acl(&[
                (1, 7, NOBODY),
                (4, 7, NOBODY),
                (0x20, 7, NOBODY),
                (0x20, 7, NOBODY),
            ]),
            acl(&[(1, 7, NOBODY), (4, 7, NOBODY), (0x40, 7, NOBODY)]),
            plain([7, 5, 5])[..27].to_vec(),
        ]);
        for path in ["file", "dir", "fifo", "link"] {
            for name in [ACCESS, DEFAULT] {
                pair.both(&Op::Get(path.to_owned(), name.to_vec()))?.ok();
                for list in &lists {
                    pair.both(&set(path, name, list))?.ok();
                    pair.same(path)?;
                }
                let replace = Op::Set(
                    path.to_owned(),
                    name.to_vec(),
                    lists[0].clone(),
                    SetXattr::Replace,
                );
                pair.both(&replace)?.ok();
                pair.same(path)?;
                if path != "link" {
                    for mode in [0o6777, 0o000, 0o1640, 0o755] {
                        pair.both(&Op::Chmod(path.to_owned(), mode))?.ok();
                        pair.same(path)?;
                    }
                }
                pair.both(&Op::Remove(path.to_owned(), name.to_vec()))?.ok();
                pair.both(&Op::Remove(path.to_owned(), name.to_vec()))?.ok();
                pair.same(path)?;
            }
            pair.both(&set(path, ACCESS, &named([7, 5, 1], 7, 3)))?.ok();
        }
        Ok(vec!["file", "dir", "fifo"])
    });
}

/// Every kind of file made below every default list, with modes and umasks.
#[test]
fn new_files_inherit_what_the_kernel_gives_them() {
    each_shape(|pair| {
        let defaults = [
            None,
            Some(named([7, 5, 4], 1000, 7)),
            Some(named([5, 7, 0], 1000, 2)),
            Some(plain([7, 5, 1])),
            Some(plain([4, 4, 4])),
            Some(masked([7, 7, 0])),
        ];
        for (number, default) in defaults.iter().enumerate() {
            let dir = format!("dir{number}");
            pair.both(&Op::Make(Kind::Dir, dir.clone(), 0o755, 0))?
                .expect("mkdir");
            if number % 2 == 1 {
                pair.both(&Op::Chown(dir.clone(), None, Some(77)))?
                    .expect("chown");
                pair.both(&Op::Chmod(dir.clone(), 0o2755))?.expect("chmod");
            }
            if let Some(default) = default {
                pair.both(&set(&dir, DEFAULT, default))?
                    .expect("a default list");
            }
            for (kind, word) in [
                (Kind::File, "f"),
                (Kind::Dir, "d"),
                (Kind::Fifo, "p"),
                (Kind::Symlink, "l"),
            ] {
                for mode in [0o777, 0o666, 0o640, 0o000, 0o1755, 0o6710] {
                    // mkdir(2) never lets set-id bits through.
                    let mode = if kind == Kind::Dir {
                        mode & 0o1777
                    } else {
                        mode
                    };
                    for umask in [0, 0o022, 0o077, 0o137] {
                        let path = format!("{dir}/{word}{mode:o}-{umask:o}");
                        pair.both(&Op::Make(kind, path.clone(), mode, umask))?
                            .expect("a new name");
                        pair.same(&path)?;
                    }
                }
            }
            // What was inherited is inherited again.
            let deep = format!("{dir}/d777-0/again");
            pair.both(&Op::Make(Kind::Dir, deep.clone(), 0o777, 0o022))?
                .expect("mkdir");
            pair.same(&deep)?;
        }
        Ok(vec![
            "dir1/d777-0/again",
            "dir1/f640-0",
            "dir2/d1755-22",
            "dir5/p666-0",
        ])
    });
}
