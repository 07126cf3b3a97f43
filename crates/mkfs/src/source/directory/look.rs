//! What names of a directory stand for. A small file is opened once: for its attributes, its bytes, and to see that it
//! is still the same afterwards. One that has not changed for a while needs no look before its bytes are read.

use std::ffi::{CStr, OsStr};
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ext2dax_format::FileType;
use ext2dax_format::device::Device;
use rustix::fs::{AtFlags, FileType as Kind, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::{Contents, Data, SourceError, Stamp, Why, time};
use crate::attributes;
use crate::rules::Rules;
use crate::tree::{Attribute, Body, Meta};

/// Files up to this size are read when they are looked at.
const KEPT: usize = 16 << 10;
/// The most bytes that a list of attributes or a value has on Linux.
const ATTRIBUTE_MAX: usize = 64 << 10;

/// What a name stands for.
pub(super) struct Found {
    pub(super) meta: Meta,
    pub(super) links: u64,
    pub(super) stamp: Stamp,
    /// Kept bytes have no store yet.
    pub(super) body: Body,
    pub(super) attributes: Vec<Attribute>,
}

/// What some names of a directory stand for, in their order.
pub(super) struct Looked {
    pub(super) files: Vec<Found>,
    /// Bytes of small files.
    pub(super) kept: Vec<u8>,
}

/// Looks at names; one a thread.
pub(super) struct Looker<'a> {
    rules: &'a Rules,
    /// Bytes that may still be kept.
    budget: &'a AtomicU64,
    buffer: Vec<u8>,
    /// Whether the last file was small, and not empty: so will the next one be, mostly.
    expects_small: bool,
}

/// Which files of a directory have certainly not changed since it was begun.
#[derive(Clone, Copy)]
struct Settled {
    device: u64,
    /// In seconds since 1970.
    before: i64,
}

impl Settled {
    /// How far the clock of the time stamps may be behind, in seconds: a tick or two, and a good deal more.
    const MARGIN: i64 = 2;
    /// Linux magic numbers, statfs(2): tmpfs, ext2 to ext4, XFS, btrfs, F2FS. Each change of their files goes through this
    /// kernel, and its time is that of this kernel's clock, which nobody can set to another value afterwards.
    const LOCAL: [u64; 5] = [0x0102_1994, 0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];

    /// To be asked before the first file is read.
    fn now(directory: &OwnedFd) -> Option<Self> {
        let system = rustix::fs::fstatfs(directory).ok()?;
        let is_local = u64::try_from(system.f_type).is_ok_and(|magic| Self::LOCAL.contains(&magic));
        let device = rustix::fs::fstat(directory).ok()?.st_dev;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        is_local.then_some(Self {
            device,
            before: now - Self::MARGIN,
        })
    }

    /// What was asked for after the bytes were read says so of those bytes.
    fn includes(self, stat: &Stat) -> bool {
        stat.st_dev == self.device && stat.st_ctime < self.before
    }
}

impl<'a> Looker<'a> {
    pub(super) fn new(rules: &'a Rules, budget: &'a AtomicU64) -> Self {
        Self {
            rules,
            budget,
            buffer: vec![0; KEPT + 1],
            expects_small: false,
        }
    }

    /// Looks at some names of a directory, which is open, and has this path.
    pub(super) fn look(
        &mut self,
        directory: &OwnedFd,
        path: &Path,
        names: &super::Names,
        which: Range<usize>,
    ) -> Result<Looked, SourceError> {
        let settled = Settled::now(directory);
        let mut looked = Looked {
            files: Vec::with_capacity(which.len()),
            kept: Vec::new(),
        };
        for nr in which {
            let (name, kind) = names.get(nr);
            let place = Place {
                directory: directory.as_fd(),
                path,
                name,
            };
            let found = match kind {
                Kind::RegularFile => self.open(&place, settled, &mut looked.kept)?,
                _ => None,
            };
            looked.files.push(match found {
                Some(found) => found,
                None => self.by_name(&place)?,
            });
        }
        Ok(looked)
    }

    /// Opens a regular file; `None` if that is not possible, or if it is something else by now.
    fn open(
        &mut self,
        place: &Place<'_>,
        settled: Option<Settled>,
        kept: &mut Vec<u8>,
    ) -> Result<Option<Found>, SourceError> {
        // Something that is no file any more must neither be waited for nor become our terminal.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(place.directory, place.name, flags, Mode::empty()) else {
            return Ok(None);
        };
        // Read first, and asked about afterwards: whatever is not as expected then is read once more.
        let early = settled.filter(|_| self.expects_small);
        let early = early.and_then(|settled| {
            let len = rustix::io::pread(&file, &mut self.buffer, 0).ok()?;
            Some((settled, len))
        });
        let stat = rustix::fs::fstat(&file).map_err(|errno| place.error(errno))?;
        if Kind::from_raw_mode(stat.st_mode) != Kind::RegularFile {
            return Ok(None);
        }
        let stamp = Stamp::of(&stat);
        let spare = self.spare(stamp.size);
        self.expects_small = spare.is_some_and(|len| len > 0);
        let contents = match spare {
            None => Contents::of_stamp(place.full(), stamp),
            Some(0) => Contents::bytes(Box::default()),
            Some(len) => {
                let is_read =
                    early.is_some_and(|(settled, read)| read == len && settled.includes(&stat));
                if !is_read {
                    self.read(place, &file, stamp, len)?;
                }
                let at = u32::try_from(kept.len()).expect("the budget is far below 4 GiB");
                kept.extend_from_slice(&self.buffer[..len]);
                Contents::new(stamp.size, Data::Kept(0, at))
            }
        };
        let handle = Handle::File(file.as_fd());
        Ok(Some(Found {
            attributes: read_attributes(handle, || place.full(), self.rules)?,
            ..Found::new(&stat, Body::Regular(contents))
        }))
    }

    /// The length of a file that is small enough to be kept.
    fn spare(&self, size: u64) -> Option<usize> {
        let len = usize::try_from(size).ok().filter(|&len| len <= KEPT)?;
        let take = |left: u64| left.checked_sub(size);
        let taken = self
            .budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok().then_some(len)
    }

    /// All bytes of a small file, into the buffer.
    fn read(
        &mut self,
        place: &Place<'_>,
        file: &OwnedFd,
        stamp: Stamp,
        len: usize,
    ) -> Result<(), SourceError> {
        // One byte more would be one that was not there.
        let room = &mut self.buffer[..=len];
        let mut done = 0;
        while done < room.len() {
            match rustix::io::pread(file, &mut room[done..], done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(place.error(errno)),
            }
            // What ends here at the first attempt is not asked again.
            if done == len {
                break;
            }
        }
        let stat = rustix::fs::fstat(file).map_err(|errno| place.error(errno))?;
        if done != len || Stamp::of(&stat) != stamp {
            return Err(SourceError::new(
                place.full().as_os_str().as_bytes(),
                Why::Changed,
            ));
        }
        Ok(())
    }

    /// Looks at a name without opening the file.
    fn by_name(&self, place: &Place<'_>) -> Result<Found, SourceError> {
        let path = place.full();
        let error = |errno: Errno| SourceError::io(&path, errno.into());
        let stat = rustix::fs::statat(place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(error)?;
        let body = match Kind::from_raw_mode(stat.st_mode) {
            Kind::Directory => Body::Directory(Default::default()),
            Kind::RegularFile => Body::Regular(Contents::of_stamp(path.clone(), Stamp::of(&stat))),
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(place.directory, place.name, Vec::new());
                Body::Symlink(target.map_err(error)?.into_bytes().into())
            }
            Kind::Fifo => Body::Fifo,
            Kind::Socket => Body::Socket,
            kind => {
                let device = Device {
                    major: rustix::fs::major(stat.st_rdev),
                    minor: rustix::fs::minor(stat.st_rdev),
                };
                if device.encode().is_none() {
                    let why = Why::DeviceNumber(device);
                    return Err(SourceError::new(path.as_os_str().as_bytes(), why));
                }
                let kind = match kind {
                    Kind::CharacterDevice => FileType::CharDevice,
                    _ => FileType::BlockDevice,
                };
                Body::Device(kind, device)
            }
        };
        Ok(Found {
            attributes: read_attributes(Handle::Path(&path), || path.clone(), self.rules)?,
            ..Found::new(&stat, body)
        })
    }
}

impl Found {
    /// All but the attributes.
    fn new(stat: &Stat, body: Body) -> Self {
        Self {
            meta: Meta {
                mode: u16::try_from(stat.st_mode & 0o7777).expect("12 bits"),
                uid: stat.st_uid,
                gid: stat.st_gid,
                time: Some(time(stat)),
            },
            links: stat.st_nlink,
            stamp: Stamp::of(stat),
            body,
            attributes: Vec::new(),
        }
    }
}

/// A name in a directory that is open.
pub(super) struct Place<'a> {
    directory: BorrowedFd<'a>,
    /// Of the directory.
    path: &'a Path,
    name: &'a CStr,
}

impl Place<'_> {
    fn full(&self) -> PathBuf {
        self.path.join(OsStr::from_bytes(self.name.to_bytes()))
    }

    fn error(&self, errno: Errno) -> SourceError {
        SourceError::io(&self.full(), errno.into())
    }
}

/// A file whose attributes are asked for.
#[derive(Clone, Copy)]
pub(super) enum Handle<'a> {
    File(BorrowedFd<'a>),
    /// Not followed if it is a symbolic link.
    Path(&'a Path),
}

impl Handle<'_> {
    fn list(self, to: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::File(file) => rustix::fs::flistxattr(file, to),
            Self::Path(path) => rustix::fs::llistxattr(path, to),
        }
    }

    fn get(self, name: &[u8], to: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::File(file) => rustix::fs::fgetxattr(file, name, to),
            Self::Path(path) => rustix::fs::lgetxattr(path, name, to),
        }
    }
}

/// The attributes of a file that are wanted, sorted; `path` is for messages.
pub(super) fn read_attributes(
    handle: Handle<'_>,
    path: impl Fn() -> PathBuf,
    rules: &Rules,
) -> Result<Vec<Attribute>, SourceError> {
    if !rules.wants_attributes() {
        return Ok(Vec::new());
    }
    let error = |errno: Errno| SourceError::io(&path(), errno.into());
    let mut few = [0_u8; 256];
    let mut many = Vec::new();
    let list = match handle.list(&mut few) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(len) => &few[..len],
        Err(Errno::RANGE) => {
            many.resize(ATTRIBUTE_MAX, 0);
            let len = handle.list(&mut many).map_err(error)?;
            &many[..len]
        }
        Err(errno) => return Err(error(errno)),
    };
    let mut all = Vec::new();
    for name in list
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        if attributes::belongs_to_host(name) || !rules.wants_attribute(name) {
            continue;
        }
        let mut value = vec![0; ATTRIBUTE_MAX];
        match handle.get(name, &mut value) {
            Ok(len) => value.truncate(len),
            // Gone meanwhile, or one that a file system lists and does not give.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => continue,
            Err(errno) => return Err(error(errno)),
        }
        let attribute = attributes::from_linux(name, &value)
            .map_err(|why| SourceError::new(path().as_os_str().as_bytes(), why))?;
        all.push(attribute);
    }
    all.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    Ok(all)
}
