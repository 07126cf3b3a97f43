//! Calls on attributes: the kernel and we answer the same, error for error.

use anyhow::{Context, Result};
use ext2dax::SetXattr;
use ext2dax_crashtest::drive::Random;
use ext2dax_crashtest::judge;
use ext2dax_crashtest::progress::Progress;

use super::systems::{Kind, Op};
use super::{
    ACCESS, DEFAULT, KERNEL_SHAPES, Pair, each_shape, four_kinds, masked, named, plain, set,
};
use crate::scratch;

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

/// The same random calls, to both.
fn random_calls(pair: &mut Pair, seed: u64, count: usize, progress: &Progress) -> Result<()> {
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
        progress.add(1);
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
    let progress = Progress::new("attributes", KERNEL_SHAPES.len() as u64 * count as u64);
    for (number, (block, inode)) in (0..).zip(KERNEL_SHAPES) {
        let attempt = || -> Result<()> {
            let Some(mut pair) = Pair::new(block, inode)? else {
                return Ok(());
            };
            random_calls(&mut pair, seed + number, count, &progress)?;
            pair.end(&["file", "dir", "fifo", "other"])
        };
        if let Err(error) = attempt() {
            panic!("blocks of {block}, inodes of {inode}, seed {seed}: {error:#}");
        }
    }
}
