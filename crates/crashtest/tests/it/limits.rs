//! The end of a file, errno for errno beside the kernel's driver: the same calls on ours and on a loop mount.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use ext2dax::{Error, File, OpenOptions};
use ext2dax_crashtest::kernel::{Mode, Mounted};
use ext2dax_crashtest::{judge, kernel};
use rustix::fs::{FallocateFlags, SeekFrom};

use crate::scratch;

/// What a call answered: a count or a place, or an errno.
type Answer = Result<u64, i32>;

/// One call near the end of files; numbers count from the largest size.
#[derive(Clone, Copy, Debug)]
enum Call {
    Write {
        at: i64,
        len: usize,
    },
    Read {
        at: i64,
        len: usize,
    },
    SetLen {
        at: i64,
    },
    /// From the start of the other file.
    CopyHere {
        at: i64,
        len: u64,
    },
    /// Inside the other file, which has 10,000 bytes; from, to and length.
    CopyInside(u64, u64, u64),
    Data {
        at: i64,
    },
    Hole {
        at: i64,
    },
    Punch {
        at: i64,
        len: u64,
    },
    Collapse,
    Insert,
}

use Call::{Collapse, CopyHere, CopyInside, Data, Hole, Insert, Punch, Read, SetLen, Write};

const CALLS: &[Call] = &[
    SetLen { at: 1 },
    SetLen { at: 0 },
    Hole { at: -1 },
    Hole { at: 0 },
    Data { at: 0 },
    Write { at: -1, len: 2 },
    Write {
        at: -8192,
        len: 100_000,
    },
    Write { at: 0, len: 1 },
    Write { at: 0, len: 0 },
    Write { at: 77, len: 1 },
    Read { at: -3, len: 10 },
    Read { at: 0, len: 10 },
    Read { at: 5, len: 10 },
    Data { at: -1 },
    Hole { at: -1 },
    CopyHere { at: -3, len: 10 },
    CopyHere { at: 0, len: 10 },
    CopyHere { at: 0, len: 0 },
    CopyHere { at: 9, len: 1 },
    CopyInside(0, 100, 200),
    CopyInside(100, 0, 200),
    CopyInside(0, 100, 100),
    CopyInside(9990, 5, 100),
    CopyInside(9990, 9995, 100),
    CopyInside(10_000, 0, 5),
    CopyInside(20_000, 0, 5),
    Punch {
        at: -8192,
        len: 4096,
    },
    Punch { at: -10, len: 9000 },
    Punch { at: 0, len: 9000 },
    Punch { at: -1, len: 0 },
    Collapse,
    Insert,
    SetLen { at: -5 },
    Write { at: -5, len: 50 },
    SetLen { at: 1 << 40 },
];

fn at(limit: u64, at: i64) -> u64 {
    limit.checked_add_signed(at).unwrap()
}

fn ours(file: &File, other: &File, limit: u64, call: Call) -> Answer {
    let errno = |error: Error| error.errno();
    match call {
        Write { at: pos, len } => file
            .write_at(&vec![7; len][..], at(limit, pos))
            .map(|done| done as u64)
            .map_err(errno),
        Read { at: pos, len } => file
            .read_at(&mut vec![7; len][..], at(limit, pos))
            .map(|done| done as u64)
            .map_err(errno),
        SetLen { at: pos } => file.set_len(at(limit, pos)).map(|()| 0).map_err(errno),
        CopyHere { at: pos, len } => other
            .copy_range(0, file, at(limit, pos), len)
            .map_err(errno),
        CopyInside(from, to, len) => other.copy_range(from, other, to, len).map_err(errno),
        Data { at: pos } => file.seek_data(at(limit, pos)).map_err(errno),
        Hole { at: pos } => file.seek_hole(at(limit, pos)).map_err(errno),
        Punch { .. } | Collapse | Insert => {
            let (how, range) = match call {
                Punch { at: pos, len } => (
                    ext2dax::Fallocate::PunchHole,
                    at(limit, pos)..at(limit, pos) + len,
                ),
                Collapse => (ext2dax::Fallocate::CollapseRange, 0..65_536),
                _ => (ext2dax::Fallocate::InsertRange, 0..65_536),
            };
            file.fallocate(how, range).map(|()| 0).map_err(errno)
        }
    }
}

fn kernels(file: &std::fs::File, other: &std::fs::File, limit: u64, call: Call) -> Answer {
    let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(0);
    let raw = |error: rustix::io::Errno| error.raw_os_error();
    let copy = |to: &std::fs::File, mut from_pos, mut to_pos, len: u64| {
        rustix::fs::copy_file_range(
            other,
            Some(&mut from_pos),
            to,
            Some(&mut to_pos),
            usize::try_from(len).unwrap(),
        )
        .map(|done| done as u64)
        .map_err(raw)
    };
    let fallocate = |flags, from, len| {
        rustix::fs::fallocate(file.as_fd(), flags, from, len)
            .map(|()| 0)
            .map_err(raw)
    };
    match call {
        Write { at: pos, len } => file
            .write_at(&vec![7; len], at(limit, pos))
            .map(|done| done as u64)
            .map_err(errno),
        Read { at: pos, len } => file
            .read_at(&mut vec![7; len], at(limit, pos))
            .map(|done| done as u64)
            .map_err(errno),
        SetLen { at: pos } => file.set_len(at(limit, pos)).map(|()| 0).map_err(errno),
        CopyHere { at: pos, len } => copy(file, 0, at(limit, pos), len),
        CopyInside(from, to, len) => copy(other, from, to, len),
        Data { at: pos } => rustix::fs::seek(file, SeekFrom::Data(at(limit, pos))).map_err(raw),
        Hole { at: pos } => rustix::fs::seek(file, SeekFrom::Hole(at(limit, pos))).map_err(raw),
        Punch { at: pos, len } => fallocate(
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            at(limit, pos),
            len,
        ),
        Collapse => fallocate(FallocateFlags::COLLAPSE_RANGE, 0, 65_536),
        Insert => fallocate(FallocateFlags::INSERT_RANGE, 0, 65_536),
    }
}

#[test]
fn files_end_where_the_kernels_do_errno_for_errno() -> Result<()> {
    for block_size in [1024, 2048, 4096] {
        let dir = scratch::dir()?;
        let image = |name: &str| -> Result<_> {
            let path = dir.path().join(name);
            let mkfs = ext2dax_mkfs::Options {
                block_size,
                ..ext2dax_mkfs::Options::default()
            };
            ext2dax_mkfs::make_file(&path, &mkfs, 32 << 20)?;
            Ok(path)
        };
        let (mine, theirs) = (image("ours")?, image("kernels")?);
        let fs = scratch::mount(&mine)?;
        let Some(mounted) = Mounted::new(&theirs, Mode::Write)? else {
            return Ok(());
        };
        let limit = fs.geometry().max_file_size();
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .open(&fs, name)
        };
        let open_there = |name: &str| {
            std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(mounted.join(name))
        };
        let (file, other) = (open("/f")?, open("/o")?);
        let (their_file, their_other) = (open_there("f")?, open_there("o")?);
        other.write_all_at(&[3; 10_000], 0)?;
        their_other.write_all_at(&[3; 10_000], 0)?;
        for &call in CALLS {
            let found = ours(&file, &other, limit, call);
            let wanted = kernels(&their_file, &their_other, limit, call);
            assert_eq!(found, wanted, "blocks of {block_size}, {call:?}");
            let sizes = (file.len()?, other.len()?);
            let their_sizes = (their_file.metadata()?.len(), their_other.metadata()?.len());
            assert_eq!(sizes, their_sizes, "blocks of {block_size}, after {call:?}");
        }
        drop((file, other, their_file, their_other));
        fs.unmount()?;
        mounted.unmount()?;
        judge::clean(&mine)?;
        // What one of them left at the end of the largest file, the other one reads.
        let seen = {
            let Some(mounted) = kernel::Mounted::new(&mine, Mode::Read)? else {
                return Ok(());
            };
            let mut last = [0; 10];
            let theirs = std::fs::File::open(mounted.join("f"))?;
            theirs.read_exact_at(&mut last, limit - 10)?;
            last
        };
        let fs = scratch::mount_read_only(&mine)?;
        let mut last = [0; 10];
        File::open(&fs, "/f")?.read_exact_at(&mut last, limit - 10)?;
        assert_eq!(seen, last);
    }
    Ok(())
}
