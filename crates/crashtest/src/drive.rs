//! Operations, their random supply, and the systems that carry them out.

mod acl;
mod expected;
mod kernel;
mod ours;
mod supply;

use std::ops::Range;

use ext2dax::{Fallocate, FileType, RenameFlags, SetXattr, Timestamp};

use crate::model::{Outcome, Path};

pub use expected::expected;
pub use kernel::{Kernel, set_times};
pub use ours::Ours;
pub use supply::random_op;

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
    RenameWith(Path, Path, RenameFlags),
    ReadLink(Path),
    Stat(Path),
    Write(Path, u64, Bytes),
    Append(Path, Bytes),
    Read(Path, u64, usize),
    WriteVectored(Path, u64, Vec<Bytes>),
    ReadVectored(Path, u64, Vec<usize>),
    /// Past the page cache, where there is one.
    WriteDirect(Path, u64, Bytes),
    ReadDirect(Path, u64, usize),
    SetLen(Path, u64),
    /// `open` with `O_CREAT | O_TRUNC`.
    Truncate(Path),
    Sync(Path),
    SyncAll,
    SeekData(Path, u64),
    SeekHole(Path, u64),
    CopyRange(Path, u64, Path, u64, u64),
    Fallocate(Path, Fallocate, Range<u64>),
    Punch(Path, Range<u64>),
    ZeroRange(Path, Range<u64>),
    Allocate(Path, Range<u64>),
    Chmod(Path, u16),
    Chown(Path, u32, u32),
    SetTimes(Path, Timestamp, Timestamp),
    List(Path),
    /// With so little room that a few names fit at a time.
    ListSlowly(Path, usize),
    SetXattr(Path, Vec<u8>, Vec<u8>, SetXattr),
    GetXattr(Path, Vec<u8>),
    RemoveXattr(Path, Vec<u8>),
    ListXattrs(Path),
    Open(usize, Path),
    /// `open` with `O_TMPFILE` in this directory.
    OpenNameless(usize, Path, u16),
    LinkOpen(usize, Path),
    StatOpen(usize),
    WriteOpen(usize, u64, Bytes),
    ReadOpen(usize, u64, usize),
    SetLenOpen(usize, u64),
    Close(usize),
}

impl Op {
    /// The operation for people: names as text.
    #[must_use]
    pub fn told(&self) -> String {
        let mut text = String::new();
        for (number, part) in format!("{self:?}").split('[').enumerate() {
            let bytes = part.split_once(']').and_then(|(list, rest)| {
                let bytes = list
                    .split(", ")
                    .map(str::parse)
                    .collect::<Result<Vec<u8>, _>>();
                Some((bytes.ok()?, rest))
            });
            match bytes {
                Some((bytes, rest)) if number > 0 => {
                    text.push_str(&format!("\"{}\"{rest}", bytes.escape_ascii()));
                }
                _ => {
                    text.push_str(if number > 0 { "[" } else { "" });
                    text.push_str(part);
                }
            }
        }
        text
    }
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
    /// Operations whose answer only another system can judge, or whose ways of failing are many.
    pub everything: bool,
    /// More bytes of data are not kept: the edge of the space is another test's subject.
    pub max_bytes: u64,
    /// More files are not kept.
    pub max_files: usize,
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

/// A digest of a listing, each name with its type.
fn seen_names(mut names: Vec<(Vec<u8>, FileType)>) -> u64 {
    names.retain(|(name, _)| name != b"lost+found");
    names.sort_by(|left, right| left.0.cmp(&right.0));
    let listed = names
        .into_iter()
        .map(|(name, file_type)| [&name[..], &[b'/', file_type.dirent()]].concat());
    seen(&listed.collect::<Vec<_>>().concat())
}

/// A digest of the names of attributes, in no order.
fn seen_set(mut names: Vec<Vec<u8>>) -> u64 {
    names.sort();
    seen(&names.join(&0))
}

/// What stat shows of a file besides times and its place.
#[derive(Clone, Copy, Debug)]
struct Shown {
    mode: u32,
    links: u64,
    owner: (u32, u32),
    size: u64,
    device: Option<(u32, u32)>,
}

impl Shown {
    fn seen(self) -> u64 {
        let Self {
            mode,
            links,
            owner,
            size,
            device,
        } = self;
        seen(format!("{mode:o} {links} {owner:?} {size} {device:?}").as_bytes())
    }
}

/// The mode of a file that gets another owner: set-user-id goes, and set-group-id where the group may execute; both stay
/// with directories.
fn mode_of_another(file_type: FileType, mode: u16) -> u16 {
    let mut mode = mode;
    if file_type != FileType::Directory {
        mode &= !0o4000;
        if mode & 0o2010 == 0o2010 {
            mode &= !0o2000;
        }
    }
    mode
}

/// The size of what has one by itself; a directory's is its driver's business.
fn shown_size(file_type: FileType, size: u64) -> u64 {
    match file_type {
        FileType::Regular | FileType::Symlink => size,
        _ => 0,
    }
}
