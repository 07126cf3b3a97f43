//! Random operations, most of them such that they make sense in the state that a model is in.

use std::ops::Range;

use ext2dax::{Fallocate, FileType, RenameFlags, SetXattr, Timestamp};

use crate::model::{Kind, Model, Path};

use super::kernel::DIRECT;
use super::{Bytes, Limits, Op, Random, acl};

/// The next operation.
pub fn random_op(random: &mut Random, model: &Model, limits: &Limits) -> Op {
    // Never near the edge of the space: where that is depends on the driver.
    if model.bytes() > limits.max_bytes {
        return Op::SetLen(contents(random, model), random.below(20_000));
    }
    if model.files() > limits.max_files {
        return match random.below(2) {
            0 => Op::Unlink(existing(random, model)),
            _ => Op::Close(slot(random)),
        };
    }
    if limits.everything && random.one_in(4) {
        return rarer_op(random, model, limits);
    }
    let size = |random: &mut Random| offset(random, limits.max_size);
    match random.below(100) {
        0..=11 => Op::Create(any_name(random, model), mode(random)),
        12..=16 => Op::Mkdir(any_name(random, model), mode(random) | 0o700),
        17..=19 => special(random, model),
        20..=22 => symlink(random, model),
        23..=26 => Op::Link(existing(random, model), any_name(random, model)),
        27..=34 => Op::Unlink(existing(random, model)),
        35..=37 => Op::Rmdir(existing(random, model)),
        38..=46 => Op::Rename(existing(random, model), target(random, model)),
        47..=60 => {
            let bytes = bytes(random, limits.max_write);
            let at = size(random).min(limits.max_size - bytes.len as u64);
            Op::Write(contents(random, model), at, bytes)
        }
        61..=65 => Op::Append(contents(random, model), bytes(random, limits.max_write)),
        66..=70 => Op::Read(
            contents(random, model),
            size(random),
            usize::try_from(random.below(100_000)).expect("small"),
        ),
        71..=75 => Op::SetLen(contents(random, model), near(random, size)),
        76..=78 => Op::Punch(contents(random, model), range(random, limits)),
        79..=80 if limits.ranges => Op::ZeroRange(contents(random, model), range(random, limits)),
        81..=82 if limits.ranges => Op::Allocate(contents(random, model), range(random, limits)),
        79..=82 => Op::Chmod(no_symlink(random, model), mode(random)),
        83..=84 => Op::Chown(existing(random, model), owner(random), owner(random)),
        85..=87 => Op::SetTimes(
            existing(random, model),
            time(random, limits),
            time(random, limits),
        ),
        88..=89 => Op::List(random.pick(&model.directories()).clone()),
        90..=92 => Op::Open(slot(random), contents(random, model)),
        93..=95 => {
            let bytes = bytes(random, limits.max_write);
            let at = size(random).min(limits.max_size - bytes.len as u64);
            Op::WriteOpen(slot(random), at, bytes)
        }
        96 => Op::SetLenOpen(slot(random), size(random)),
        97..=98 => Op::ReadOpen(slot(random), size(random), 50_000),
        _ => Op::Close(slot(random)),
    }
}

/// What only a run asks for that compares systems.
fn rarer_op(random: &mut Random, model: &Model, limits: &Limits) -> Op {
    let size = |random: &mut Random| offset(random, limits.max_size);
    match random.below(80) {
        0..=3 => {
            let how = *random.pick(&[RenameFlags::NoReplace, RenameFlags::Exchange]);
            Op::RenameWith(existing(random, model), target(random, model), how)
        }
        4..=6 => {
            let how = *random.pick(&[
                Fallocate::AllocateKeepSize,
                Fallocate::ZeroRangeKeepSize,
                Fallocate::CollapseRange,
                Fallocate::InsertRange,
            ]);
            Op::Fallocate(contents(random, model), how, range(random, limits))
        }
        7..=10 => Op::SeekData(contents(random, model), size(random)),
        11..=13 => Op::SeekHole(contents(random, model), size(random)),
        14..=18 => {
            let (from, to) = (contents(random, model), contents(random, model));
            let len = 1 + random.below(60_000);
            let to_at = size(random).min(limits.max_size - len);
            Op::CopyRange(from, size(random), to, to_at, len)
        }
        19..=20 => Op::ReadLink(existing(random, model)),
        21..=27 => Op::Stat(existing(random, model)),
        28..=29 => Op::Sync(contents(random, model)),
        30..=31 => Op::List(existing(random, model)),
        32 => Op::Truncate(contents(random, model)),
        33..=35 => Op::Chmod(no_symlink(random, model), any_mode(random)),
        36..=37 => Op::Chown(existing(random, model), owner(random), owner(random)),
        38..=39 => Op::Create(any_name(random, model), any_mode(random)),
        40..=45 => set_xattr(random, model),
        46..=49 => Op::GetXattr(existing(random, model), xattr_name(random)),
        50..=52 => Op::RemoveXattr(existing(random, model), xattr_name(random)),
        53..=55 => Op::ListXattrs(existing(random, model)),
        56..=60 => Op::OpenNameless(slot(random), directory(random, model), any_mode(random)),
        61..=65 => Op::LinkOpen(slot(random), any_name(random, model)),
        66..=67 => Op::StatOpen(slot(random)),
        68..=70 => {
            let pieces = pieces(random);
            let len = pieces.iter().map(|bytes| bytes.len as u64).sum::<u64>();
            let at = size(random).min(limits.max_size - len);
            Op::WriteVectored(contents(random, model), at, pieces)
        }
        71..=73 => {
            let pieces = pieces(random);
            let lens = pieces.iter().map(|bytes| bytes.len).collect();
            Op::ReadVectored(contents(random, model), size(random), lens)
        }
        74 => {
            let bytes = Bytes {
                len: (1 + usize::try_from(random.below(8)).expect("small")) * DIRECT,
                seed: random.next(),
            };
            let at = size(random).min(limits.max_size - bytes.len as u64);
            let at = at - at % DIRECT as u64;
            Op::WriteDirect(contents(random, model), at, bytes)
        }
        75 => {
            let at = size(random);
            let at = at - at % DIRECT as u64;
            Op::ReadDirect(contents(random, model), at, 12 * DIRECT)
        }
        76..=78 => {
            let most = 1 + usize::try_from(random.below(4)).expect("small");
            Op::ListSlowly(directory(random, model), most)
        }
        _ if random.one_in(10) => Op::SyncAll,
        _ => Op::Stat(existing(random, model)),
    }
}

/// Several pieces of one write or read, empty ones among them.
fn pieces(random: &mut Random) -> Vec<Bytes> {
    let piece = |random: &mut Random| {
        let bound = *random.pick(&[0, 1, 700, 5_000, 20_000]);
        Bytes {
            len: usize::try_from(random.below(bound + 1)).expect("small"),
            seed: random.next(),
        }
    };
    (0..random.below(6)).map(|_| piece(random)).collect()
}

/// A directory, mostly.
fn directory(random: &mut Random, model: &Model) -> Path {
    if random.one_in(8) {
        return existing(random, model);
    }
    random.pick(&model.directories()).clone()
}

fn set_xattr(random: &mut Random, model: &Model) -> Op {
    let name = xattr_name(random);
    let value = if name.starts_with(b"system.posix_acl") {
        acl::random(random)
    } else {
        let len = *random.pick(&[0, 1, 20, 150, 700, 3000]);
        let len = usize::try_from(random.below(len + 1)).expect("small");
        Bytes {
            len,
            seed: random.next(),
        }
        .make()
    };
    let how = *random.pick(&[
        SetXattr::Any,
        SetXattr::Any,
        SetXattr::Create,
        SetXattr::Replace,
    ]);
    // The root holds as much as there is room for.
    let path = match random.below(3) {
        0 => Path::new(),
        1 => random.pick(&model.directories()).clone(),
        _ => existing(random, model),
    };
    Op::SetXattr(path, name, value, how)
}

fn xattr_name(random: &mut Random) -> Vec<u8> {
    match random.below(24) {
        0 => [b"user.", &[b'q'; 250][..]].concat(),
        1 => b"user.".to_vec(),
        2 => b"nonsense.name".to_vec(),
        3 => b"security.label".to_vec(),
        4..=5 => b"trusted.key".to_vec(),
        6..=9 => acl::ACCESS.to_vec(),
        10..=13 => acl::DEFAULT.to_vec(),
        _ => [b"user.n", random.below(7).to_string().as_bytes()].concat(),
    }
}

const SLOTS: u64 = 6;

fn slot(random: &mut Random) -> usize {
    usize::try_from(random.below(SLOTS)).expect("small")
}

fn mode(random: &mut Random) -> u16 {
    u16::try_from(random.below(0o1000)).expect("below 0o1000")
}

/// Set-id and sticky bits, too.
fn any_mode(random: &mut Random) -> u16 {
    u16::try_from(random.below(0o10000)).expect("below 0o10000")
}

fn owner(random: &mut Random) -> u32 {
    *random.pick(&[0, 1, 1000, 65_535, 65_536, 4_000_000_000])
}

fn time(random: &mut Random, limits: &Limits) -> Timestamp {
    if limits.fine_times {
        let secs = i64::try_from(random.below(12_000_000_000)).expect("small") - 2_000_000_000;
        Timestamp {
            secs,
            nanos: u32::try_from(random.below(1_000_000_000)).expect("small"),
        }
    } else {
        let secs = i64::try_from(random.below(4_000_000_000)).expect("small") - 2_000_000_000;
        Timestamp { secs, nanos: 0 }
    }
}

fn bytes(random: &mut Random, max: u64) -> Bytes {
    let bound = *random.pick(&[16, 600, 5_000, 20_000, 150_000]);
    Bytes {
        len: usize::try_from(1 + random.below(max.min(bound))).expect("small"),
        seed: random.next(),
    }
}

/// Offsets on both sides of every edge that a block tree has, most of them near the front.
fn offset(random: &mut Random, max: u64) -> u64 {
    let bound = match random.below(40) {
        0 => max,
        1 => 80 << 20,
        2..=4 => 5 << 20,
        5..=12 => 600_000,
        _ => 60_000,
    };
    let exact = random.below(max.min(bound));
    if random.one_in(4) {
        exact / 4096 * 4096
    } else {
        exact
    }
}

fn near(random: &mut Random, size: impl Fn(&mut Random) -> u64) -> u64 {
    if random.one_in(4) {
        random.below(3)
    } else {
        size(random)
    }
}

fn range(random: &mut Random, limits: &Limits) -> Range<u64> {
    let start = offset(random, limits.max_size);
    let bound = if random.one_in(3) { 300_000 } else { 20_000 };
    let len = 1 + random.below(bound);
    start..(start + len).min(limits.max_size).max(start + 1)
}

fn name(random: &mut Random) -> Vec<u8> {
    let number = if random.one_in(3) {
        random.below(300)
    } else {
        random.below(12)
    };
    match random.below(20) {
        0 => [&[b'x'; 240][..], number.to_string().as_bytes()].concat(),
        1 => vec![b'y'; 255],
        2 => [b"\xff\xfe-", number.to_string().as_bytes()].concat(),
        3 => [
            b"a longer name, with spaces ",
            number.to_string().as_bytes(),
        ]
        .concat(),
        4 if random.one_in(10) => vec![b'z'; 256],
        _ => [b"n", number.to_string().as_bytes()].concat(),
    }
}

fn any_name(random: &mut Random, model: &Model) -> Path {
    let directories = model.directories();
    let shallow: Vec<&Path> = directories.iter().filter(|path| path.len() < 4).collect();
    let mut path = (*random.pick(&shallow)).clone();
    path.push(name(random));
    path
}

fn symlink(random: &mut Random, model: &Model) -> Op {
    let len = if random.one_in(3) {
        60 + random.below(900)
    } else {
        1 + random.below(59)
    };
    let target = (0..len)
        .map(|_| b'a' + random.below(26).to_le_bytes()[0])
        .collect();
    Op::Symlink(target, any_name(random, model))
}

/// Where a rename goes: to a new name, mostly.
fn target(random: &mut Random, model: &Model) -> Path {
    if random.one_in(3) {
        existing(random, model)
    } else {
        any_name(random, model)
    }
}

fn existing(random: &mut Random, model: &Model) -> Path {
    if random.one_in(12) {
        return any_name(random, model);
    }
    let directories = model.directories();
    for _ in 0..4 {
        let dir = random.pick(&directories);
        let names = model.names_in(dir);
        if !names.is_empty() {
            let mut path = dir.clone();
            path.push(random.pick(&names).clone());
            return path;
        }
    }
    any_name(random, model)
}

fn no_symlink(random: &mut Random, model: &Model) -> Path {
    loop {
        let path = existing(random, model);
        if !model
            .file(&path)
            .is_some_and(|file| matches!(file.kind, Kind::Symlink(_)))
        {
            return path;
        }
    }
}

/// A path of a regular file, mostly; never of a symlink or a special file.
fn contents(random: &mut Random, model: &Model) -> Path {
    let is_file = |path: &Path| {
        model
            .file(path)
            .is_some_and(|file| matches!(file.kind, Kind::File(_)))
    };
    for _ in 0..12 {
        let path = existing(random, model);
        if is_file(&path) {
            return path;
        }
    }
    loop {
        let path = existing(random, model);
        let kind = model.file(&path).map(|file| &file.kind);
        if !matches!(kind, Some(Kind::Symlink(_) | Kind::Special(..))) {
            return path;
        }
    }
}

fn special(random: &mut Random, model: &Model) -> Op {
    let path = any_name(random, model);
    let file_type = *random.pick(&[
        FileType::CharDevice,
        FileType::BlockDevice,
        FileType::Fifo,
        FileType::Socket,
    ]);
    let device = match file_type {
        FileType::CharDevice | FileType::BlockDevice => {
            *random.pick(&[(1, 3), (255, 255), (0, 256), (256, 0), (4095, 1_048_575)])
        }
        _ => (0, 0),
    };
    Op::Mknod(path, file_type, device, mode(random))
}
