//! Extended attributes and access control lists: what the kernel wrote, we read, and the other way round; the same calls
//! have the same answers, error for error.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ext2dax::SetXattr;
use ext2dax_crashtest::drive::Random;
use ext2dax_crashtest::judge;
use ext2dax_crashtest::kernel::{Mode, Mounted};

use crate::scratch;

mod systems;

use systems::{Kernel, Kind, Op, Ours, Seen, System, everything};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

const NOBODY: u32 = u32::MAX;

/// A list in the form of the system calls: tag, permissions, id.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// Owner `modes[0]`, a user, group `modes[1]`, a group, a mask, others `modes[2]`.
fn named(modes: [u16; 3], user: u32, mask: u16) -> Vec<u8> {
    acl(&[
        (0x01, modes[0], NOBODY),
        (0x02, 6, user),
        (0x04, modes[1], NOBODY),
        (0x08, 5, user + 70_000),
        (0x10, mask, NOBODY),
        (0x20, modes[2], NOBODY),
    ])
}

fn plain(modes: [u16; 3]) -> Vec<u8> {
    acl(&[
        (0x01, modes[0], NOBODY),
        (0x04, modes[1], NOBODY),
        (0x20, modes[2], NOBODY),
    ])
}

fn masked(modes: [u16; 3]) -> Vec<u8> {
    acl(&[
        (0x01, modes[0], NOBODY),
        (0x04, modes[1], NOBODY),
        (0x10, modes[1], NOBODY),
        (0x20, modes[2], NOBODY),
    ])
}

fn set(path: &str, name: &[u8], value: &[u8]) -> Op {
    Op::Set(
        path.to_owned(),
        name.to_owned(),
        value.to_owned(),
        SetXattr::Any,
    )
}

/// Shapes that the kernel mounts.
const KERNEL_SHAPES: &[(&str, &str)] = &[
    ("1024", "128"),
    ("1024", "256"),
    ("2048", "128"),
    ("2048", "256"),
    ("4096", "128"),
    ("4096", "256"),
];

/// Two equal, empty images, one of them mounted by the kernel and one by us.
struct Pair {
    dir: tempfile::TempDir,
    mounted: Option<Mounted>,
    kernel: Kernel,
    ours: Option<Ours>,
}

impl Pair {
    fn new(block: &str, inode: &str) -> Result<Option<Self>> {
        let dir = scratch::dir()?;
        let (theirs, image) = (dir.path().join("theirs"), dir.path().join("ours"));
        let args = ["-b", block, "-I", inode, "-N", "4096"];
        if !judge::mke2fs(&theirs, 16, &args)? {
            return Ok(None);
        }
        std::fs::copy(&theirs, &image)?;
        let Some(mounted) = Mounted::new(&theirs, Mode::Write)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            kernel: Kernel(mounted.path().to_owned()),
            ours: Some(Ours(scratch::mount(&image)?)),
            mounted: Some(mounted),
            dir,
        }))
    }

    fn ours(&mut self) -> &mut Ours {
        self.ours.as_mut().expect("mounted")
    }

    /// Both answer the same.
    fn both(&mut self, op: &Op) -> Result<systems::Outcome> {
        let (theirs, ours) = (self.kernel.apply(op), self.ours().apply(op));
        ensure!(theirs == ours, "{op:?}: kernel {theirs:?}, ours {ours:?}");
        Ok(ours)
    }

    fn same(&mut self, path: &str) -> Result<()> {
        let theirs = everything(&mut self.kernel, path);
        let ours = everything(self.ours(), path);
        ensure!(theirs == ours, "{path}: kernel {theirs:?}, ours {ours:?}");
        Ok(())
    }

    /// Ends both mounts; both images are clean, and each side then reads the other's as it read its own.
    fn end(mut self, paths: &[&str]) -> Result<()> {
        let wanted: Vec<_> = paths
            .iter()
            .map(|path| everything(&mut self.kernel, path))
            .collect();
        self.mounted.take().expect("mounted").unmount()?;
        let ours = self.ours.take().expect("mounted");
        ours.0.unmount()?;
        let (theirs, image) = (self.dir.path().join("theirs"), self.dir.path().join("ours"));
        judge::clean(&theirs).context("the kernel's image")?;
        judge::clean(&image).context("our image")?;
        let mounted = Mounted::new(&image, Mode::Write)?.context("mounted before")?;
        let mut kernel = Kernel(mounted.path().to_owned());
        let mut ours = Ours(scratch::mount(&theirs)?);
        for (path, wanted) in paths.iter().zip(&wanted) {
            let read = everything(&mut kernel, path);
            ensure!(
                &read == wanted,
                "{path} of ours: kernel {read:?}, wanted {wanted:?}"
            );
            let read = everything(&mut ours, path);
            ensure!(
                &read == wanted,
                "{path} of the kernel's: ours {read:?}, wanted {wanted:?}"
            );
        }
        // Each goes on with what the other left.
        for system in [&mut kernel as &mut dyn System, &mut ours] {
            for path in paths {
                let _ = system.apply(&set(path, b"trusted.after", b"1"));
                let _ = system.apply(&Op::Chmod((*path).to_owned(), 0o640));
            }
        }
        mounted.unmount()?;
        ours.0.unmount()?;
        judge::clean(&theirs).context("the kernel's image, changed by us")?;
        judge::clean(&image).context("our image, changed by the kernel")
    }
}

fn each_shape(test: fn(&mut Pair) -> Result<Vec<&'static str>>) {
    for (block, inode) in KERNEL_SHAPES {
        let attempt = || -> Result<()> {
            let Some(mut pair) = Pair::new(block, inode)? else {
                return Ok(());
            };
            let paths = test(&mut pair)?;
            pair.end(&paths)
        };
        if let Err(error) = attempt() {
            panic!("blocks of {block}, inodes of {inode}: {error:#}");
        }
    }
}

/// One of each kind.
fn four_kinds(pair: &mut Pair) -> Result<()> {
    for (kind, name) in [
        (Kind::File, "file"),
        (Kind::Dir, "dir"),
        (Kind::Fifo, "fifo"),
        (Kind::Symlink, "link"),
    ] {
        pair.both(&Op::Make(kind, name.to_owned(), 0o755, 0))?
            .expect("a new name");
    }
    Ok(())
}

/// Every name on every kind of file, set, read, removed, with and without conditions.
#[test]
fn names_and_kinds_have_the_answers_of_the_kernel() {
    each_shape(|pair| {
        four_kinds(pair)?;
        let long = [b"user.".to_vec(), vec![b'x'; 250]].concat();
        let too_long = [b"trusted.".to_vec(), vec![b'x'; 248]].concat();
        let names: [&[u8]; 17] = [
            b"user.a",
            b"user.",
            b"user",
            b"trusted.a",
            b"trusted.",
            b"security.a",
            b"security.",
            b"system.",
            b"system.a",
            b"system.data",
            b"system.posix_acl_accessory",
            b"os2.a",
            b"a",
            b"",
            &long,
            &too_long,
            b"security.capability",
        ];
        for path in ["file", "dir", "fifo", "link", "absent"] {
            for name in names {
                // A name that is none is noticed before a path that leads nowhere.
                if path == "absent" && (name.is_empty() || name.len() > 255) {
                    continue;
                }
                let path = path.to_owned();
                let (name, value) = (name.to_vec(), b"value".to_vec());
                pair.both(&Op::Get(path.clone(), name.clone()))?.ok();
                for how in [
                    SetXattr::Replace,
                    SetXattr::Create,
                    SetXattr::Create,
                    SetXattr::Replace,
                ] {
                    // The kernel looks at what a capability says, and a value must say something.
                    if name == b"security.capability" {
                        continue;
                    }
                    pair.both(&Op::Set(path.clone(), name.clone(), value.clone(), how))?
                        .ok();
                    pair.both(&Op::Get(path.clone(), name.clone()))?.ok();
                }
                pair.both(&Op::List(path.clone()))?.ok();
                pair.both(&Op::Remove(path.clone(), name.clone()))?.ok();
                pair.both(&Op::Remove(path, name))?.ok();
            }
        }
        pair.both(&set("file", b"user.a", &[0; 65_537]))?.ok();
        pair.both(&set("file", b"user.a", b"kept"))?.ok();
        pair.both(&set("link", b"trusted.a", b"kept"))?.ok();
        Ok(vec!["file", "dir", "fifo", "link"])
    });
}

/// Values from nothing to more than a block: the last that fits and the first that does not.
#[test]
fn a_block_holds_as_much_as_the_kernel_puts_there() {
    for (block, inode) in KERNEL_SHAPES.iter().filter(|(_, inode)| *inode == "128") {
        let attempt = || -> Result<()> {
            let Some(mut pair) = Pair::new(block, inode)? else {
                return Ok(());
            };
            four_kinds(&mut pair)?;
            let size: usize = block.parse()?;
            let most = size - 32 - 4 - 20;
            for len in [
                0,
                1,
                most - 1,
                most,
                most + 1,
                most + 4,
                size,
                size + 1,
                65_536,
            ] {
                pair.both(&set("file", b"user.a", &vec![7; len]))?.ok();
                pair.same("file")?;
            }
            // Beside another one, and in its place.
            pair.both(&set("file", b"user.a", &vec![7; most - 200]))?
                .ok();
            for len in (100..200).step_by(7) {
                pair.both(&set("file", b"trusted.bcd", &vec![1; len]))?.ok();
                pair.same("file")?;
            }
            pair.end(&["file"])
        };
        if let Err(error) = attempt() {
            panic!("blocks of {block}: {error:#}");
        }
    }
}

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

/// Who gives a file away gives no rights away with it.
#[test]
fn chown_takes_set_id_bits_and_capabilities_as_the_kernel_does() {
    // Version 2, cap_net_raw permitted.
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend(0x2000_u32.to_le_bytes());
    capability.extend([0; 12]);
    let attempt = || -> Result<()> {
        let Some(mut pair) = Pair::new("4096", "256")? else {
            return Ok(());
        };
        four_kinds(&mut pair)?;
        for path in ["file", "dir", "fifo"] {
            for mode in [0o6777, 0o6767, 0o4755, 0o2711, 0o2701, 0o1777] {
                for (uid, gid) in [(Some(5), None), (None, Some(6)), (Some(0), Some(0))] {
                    if path == "file" {
                        pair.both(&set(path, b"security.capability", &capability))?
                            .expect("a capability");
                    }
                    pair.both(&Op::Chmod(path.to_owned(), mode))?
                        .expect("chmod");
                    pair.both(&Op::Chown(path.to_owned(), uid, gid))?
                        .expect("chown");
                    pair.same(path)?;
                }
            }
        }
        pair.end(&["file", "dir", "fifo"])
    };
    attempt().unwrap();
}

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

/// The same random calls, to both.
fn random_calls(pair: &mut Pair, seed: u64, count: usize) -> Result<()> {
    let mut random = Random(seed);
    let mut below = |bound: u64| usize::try_from(random.below(bound)).expect("a small number");
    four_kinds(pair)?;
    pair.both(&Op::Make(Kind::File, "other".to_owned(), 0o600, 0))?
        .expect("create");
    let paths = ["file", "dir", "fifo", "link", "other"];
    let names: [&[u8]; 7] = [
        b"user.a",
        b"user.bb",
        b"trusted.a",
        b"trusted.a-longer-name",
        b"security.x",
        ACCESS,
        DEFAULT,
    ];
    for round in 0..count {
        let path = paths[below(paths.len() as u64)].to_owned();
        let name = names[below(names.len() as u64)].to_vec();
        let op = match below(12) {
            0..=4 if name == ACCESS || name == DEFAULT => {
                let modes = [0, 1, 2].map(|_| u16::try_from(below(8)).expect("a digit"));
                let list = match below(3) {
                    0 => plain(modes),
                    1 => masked(modes),
                    _ => named(modes, 1000, modes[1]),
                };
                set(&path, &name, &list)
            }
            0..=4 => {
                let how = [SetXattr::Any, SetXattr::Create, SetXattr::Replace][below(3)];
                let byte = u8::try_from(round % 256).expect("a byte");
                let bytes = vec![byte; below(60)];
                Op::Set(path, name, bytes, how)
            }
            5..=6 => Op::Remove(path, name),
            7 => Op::Get(path, name),
            8 if path != "link" => Op::Chmod(path, u16::try_from(below(0o10000)).expect("a mode")),
            9 => Op::Chown(path, Some(u32::try_from(below(3)).expect("small")), None),
            10 => Op::Unlink("dir/new".to_owned()),
            11 => Op::Make(Kind::File, "dir/new".to_owned(), 0o666, 0o022),
            _ => Op::List(path),
        };
        pair.both(&op)
            .with_context(|| format!("call {round}"))?
            .ok();
        if round % 16 == 0 {
            for path in paths {
                pair.same(path)
                    .with_context(|| format!("after call {round}, {op:?}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn random_calls_have_the_answers_of_the_kernel() {
    let seed = scratch::seed(0xa77);
    println!("seed {seed}");
    let count = if judge::soak() { 100_000 } else { 1500 };
    for (number, (block, inode)) in (0..).zip(KERNEL_SHAPES) {
        let attempt = || -> Result<()> {
            let Some(mut pair) = Pair::new(block, inode)? else {
                return Ok(());
            };
            random_calls(&mut pair, seed + number, count)?;
            pair.end(&["file", "dir", "fifo", "other"])
        };
        if let Err(error) = attempt() {
            panic!("blocks of {block}, inodes of {inode}, seed {seed}: {error:#}");
        }
    }
}
