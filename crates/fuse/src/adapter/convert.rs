//! Between the terms of the protocol crate and this project's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ext2dax::{Attributes, FileType, Timestamp};
use fuser::{FileAttr, Generation, INodeNo, Request, TimeOrNow};

use crate::server::{Caller, Errno, Time};

impl From<Errno> for fuser::Errno {
    fn from(errno: Errno) -> Self {
        Self::from_i32(errno.0)
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

pub(super) fn kind(file_type: FileType) -> fuser::FileType {
    match file_type {
        FileType::Regular => fuser::FileType::RegularFile,
        FileType::Directory => fuser::FileType::Directory,
        FileType::CharDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::Symlink => fuser::FileType::Symlink,
    }
}

pub(super) fn to_system(time: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(time.secs.unsigned_abs());
    let whole = if time.secs >= 0 {
        UNIX_EPOCH + seconds
    } else {
        UNIX_EPOCH - seconds
    };
    whole + Duration::from_nanos(u64::from(time.nanos))
}

/// Undoes what fuser 0.18 does to the kernel's seconds and nanoseconds: before 1970 it takes both away from the epoch.
pub(super) fn from_system(time: SystemTime) -> Timestamp {
    let (secs, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            since.subsec_nanos(),
        ),
        Err(before) => {
            let before = before.duration();
            let secs = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            (-secs, before.subsec_nanos())
        }
    };
    Timestamp { secs, nanos }
}

pub(super) fn to_time(time: TimeOrNow) -> Time {
    match time {
        TimeOrNow::Now => Time::Now,
        TimeOrNow::SpecificTime(time) => Time::At(from_system(time)),
    }
}

/// The kernel's packing of a device number.
pub(super) fn pack_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | major << 8 | (minor & !0xff) << 12
}

pub(super) fn attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(u64::from(attributes.ino)),
        size: attributes.size,
        blocks: attributes.sectors,
        atime: to_system(attributes.accessed),
        mtime: to_system(attributes.modified),
        ctime: to_system(attributes.changed),
        crtime: UNIX_EPOCH,
        kind: kind(attributes.file_type),
        perm: attributes.permissions,
        nlink: u32::from(attributes.links),
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes
            .device
            .map_or(0, |device| pack_device(device.major, device.minor)),
        blksize: attributes.block_size,
        flags: 0,
    }
}

pub(super) fn generation(attributes: &Attributes) -> Generation {
    Generation(u64::from(attributes.generation))
}

/// An entry that says that there is no such name, for the kernel to keep.
pub(super) const NO_SUCH_NAME: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: fuser::FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};
