//! Operations, their random supply, and the systems that carry them out.

mod kernel;
mod ours;

use std::collections::BTreeMap;
use std::ops::Range;

use ext2dax::{FileType, Timestamp};

use crate::model::errno::ENOSPC;
use crate::model::{Kind, Model, Outcome, Path};

pub use kernel::{Kernel, set_times};
pub use ours::Ours;

/// One operation. Paths never lead through symlinks: how those resolve is another test's subject.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is the system call of its name, the fields in its order"
)]
pub enum Op {
    Create(Path, u16),
    Mkdir(Path, u16),
    Mknod(Path, FileType, (u32, u32), u16),
    Symlink(Vec<u8>, Path),
    Link(Path, Path),
    Unlink(Path),
    Rmdir(Path),
    Rename(Path, Path),
    Write(Path, u64, Bytes),
    Append(Path, Bytes),
    Read(Path, u64, usize),
    SetLen(Path, u64),
    Punch(Path, Range<u64>),
    ZeroRange(Path, Range<u64>),
    Allocate(Path, Range<u64>),
    Chmod(Path, u16),
    Chown(Path, u32, u32),
    SetTimes(Path, Timestamp, Timestamp),
    List(Path),
    Open(usize, Path),
    WriteOpen(usize, u64, Bytes),
    ReadOpen(usize, u64, usize),
    SetLenOpen(usize, u64),
    Close(usize),
}

/// Bytes to write: their number and what they are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// How many.
    pub len: usize,
    /// Seed of the contents.
    pub seed: u64,
}

impl Bytes {
    /// The bytes themselves.
    #[must_use]
    pub fn make(self) -> Vec<u8> {
        let mut random = Random(self.seed);
        let mut bytes = Vec::with_capacity(self.len + 8);
        while bytes.len() < self.len {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        bytes.truncate(self.len);
        bytes
    }
}

/// A small random number generator (splitmix64): the same numbers on every host.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, so it is no iterator worth adapting"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("an index")]
    }
}

/// What may be asked of the systems of a run.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No byte at or past this offset.
    pub max_size: u64,
    /// Most bytes of one write.
    pub max_write: u64,
    /// Times have nanoseconds and years past 2038.
    pub fine_times: bool,
    /// Zero range and allocation exist (the kernel's driver has them for files with extents only).
    pub ranges: bool,
}

/// A system under test.
pub trait System {
    /// Carries out one operation. Reads and listings answer a digest of what they saw.
    ///
    /// # Errors
    /// The errno of the call.
    fn apply(&mut self, op: &Op) -> Outcome;
}

/// A digest of bytes read.
#[must_use]
pub fn seen(bytes: &[u8]) -> u64 {
    u64::from(crc32fast::hash(bytes)) << 32 | (bytes.len() as u64 & 0xffff_ffff)
}

fn seen_names(mut names: Vec<Vec<u8>>) -> u64 {
    names.retain(|name| name != b"lost+found");
    names.sort();
    seen(&names.join(&b'/'))
}

// ---- random supply ----

/// The next operation, mostly one that makes sense in the state of `model`.
pub fn random_op(random: &mut Random, model: &Model, limits: &Limits) -> Op {
    let size = |random: &mut Random| offset(random, limits.max_size);
    match random.below(100) {
        0..=11 => Op::Create(any_name(random, model), mode(random)),
        12..=16 => Op::Mkdir(any_name(random, model), mode(random) | 0o700),
        17..=19 => special(random, model),
        20..=22 => {
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
        23..=26 => Op::Link(existing(random, model), any_name(random, model)),
        27..=34 => Op::Unlink(existing(random, model)),
        35..=37 => Op::Rmdir(existing(random, model)),
        38..=46 => {
            let from = existing(random, model);
            let to = if random.one_in(3) {
                existing(random, model)
            } else {
                any_name(random, model)
            };
            Op::Rename(from, to)
        }
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
        71..=75 => Op::SetLen(contents(random, model), near(random, model, size)),
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

const SLOTS: u64 = 6;

fn slot(random: &mut Random) -> usize {
    usize::try_from(random.below(SLOTS)).expect("small")
}

fn mode(random: &mut Random) -> u16 {
    u16::try_from(random.below(0o1000)).expect("below 0o1000")
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

fn near(random: &mut Random, _model: &Model, size: impl Fn(&mut Random) -> u64) -> u64 {
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

// ---- the model ----

/// What `op` must answer, given what it did answer: a system may run out of space, wholly or halfway through a write,
/// and the model then does as much.
///
/// # Errors
/// Those of the system call, in the order in which Linux finds them.
pub fn expected(model: &mut Model, op: &Op, actual: Outcome) -> Outcome {
    let makes = matches!(
        op,
        Op::Create(..) | Op::Mkdir(..) | Op::Mknod(..) | Op::Symlink(..)
    );
    let grows = matches!(
        op,
        Op::Write(..) | Op::Append(..) | Op::WriteOpen(..) | Op::Link(..) | Op::Rename(..)
    );
    if actual == Err(ENOSPC) && (makes || grows) {
        // A write that fails may have set the time all the same, as in Linux: asking for the contents forgets it.
        match op {
            Op::Write(path, ..) | Op::Append(path, ..) => drop(model.contents_mut(path)),
            Op::WriteOpen(slot, ..) => drop(model.open_contents(*slot)),
            _ => {}
        }
        return Err(ENOSPC);
    }
    match op {
        Op::Create(path, mode) => model.make(path, Kind::File(Default::default()), *mode, (0, 0)),
        Op::Mkdir(path, mode) => model.make(path, Kind::Dir(BTreeMap::new()), *mode, (0, 0)),
        Op::Mknod(path, file_type, device, mode) => {
            model.make(path, Kind::Special(*file_type, *device), *mode, (0, 0))
        }
        Op::Symlink(target, path) => model.make(path, Kind::Symlink(target.clone()), 0o777, (0, 0)),
        Op::Link(from, to) => model.link(from, to),
        Op::Unlink(path) => model.unlink(path),
        Op::Rmdir(path) => model.rmdir(path),
        Op::Rename(from, to) => model.rename(from, to),
        Op::Write(path, at, bytes) => {
            let contents = model.contents_mut(path)?;
            let done = written(*bytes, actual);
            contents.write(*at, &bytes.make()[..done]);
            Ok(done as u64)
        }
        Op::Append(path, bytes) => {
            let contents = model.contents_mut(path)?;
            let done = written(*bytes, actual);
            let end = contents.size();
            contents.write(end, &bytes.make()[..done]);
            Ok(done as u64)
        }
        Op::Read(path, at, len) => match model.file(path).map(|file| &file.kind) {
            Some(Kind::File(contents)) => Ok(seen(&contents.read(*at, *len))),
            _ => model.contents_mut(path).map(|_| 0),
        },
        Op::SetLen(path, size) => model
            .contents_mut(path)
            .map(|contents| contents.set_len(*size))
            .map(|()| 0),
        Op::Punch(path, range) => model
            .contents_mut(path)
            .map(|contents| contents.zero(range.start, range.end))
            .map(|()| 0),
        Op::ZeroRange(path, range) | Op::Allocate(path, range) => {
            let contents = model.contents_mut(path)?;
            if matches!(op, Op::ZeroRange(..)) {
                contents.zero(range.start, range.end);
            }
            // Running out of space halfway leaves the file grown, as fallocate does; the contents are the same.
            contents.set_len(contents.size().max(range.end));
            if actual == Err(ENOSPC) {
                Err(ENOSPC)
            } else {
                Ok(0)
            }
        }
        Op::Chmod(path, mode) => model.change(path, |file| file.mode = *mode),
        Op::Chown(path, uid, gid) => model.change(path, |file| file.owner = (*uid, *gid)),
        Op::SetTimes(path, accessed, modified) => model.change(path, |file| {
            file.accessed = Some(*accessed);
            file.modified = Some(*modified);
        }),
        Op::List(path) => Ok(seen_names(model.names_in(path))),
        Op::Open(slot, path) => model.open(*slot, path),
        Op::WriteOpen(slot, at, bytes) => Ok(model.open_contents(*slot).map_or(0, |contents| {
            let done = written(*bytes, actual);
            contents.write(*at, &bytes.make()[..done]);
            done as u64
        })),
        Op::ReadOpen(slot, at, len) => Ok(model
            .open_contents(*slot)
            .map_or(0, |contents| seen(&contents.read(*at, *len)))),
        Op::SetLenOpen(slot, size) => {
            if let Some(contents) = model.open_contents(*slot) {
                contents.set_len(*size);
            }
            Ok(0)
        }
        Op::Close(slot) => {
            model.close(*slot);
            Ok(0)
        }
    }
}

/// How much of a write the model carries out: what the system did, if it did something.
fn written(bytes: Bytes, actual: Outcome) -> usize {
    match actual {
        Ok(done) if done > 0 && done < bytes.len as u64 => {
            usize::try_from(done).expect("less than the length")
        }
        _ => bytes.len,
    }
}

// ---- ours ----
