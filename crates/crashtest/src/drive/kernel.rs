//! Operations applied to a mounted directory.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path as HostPath, PathBuf};

use ext2dax::{Fallocate, FileType, SetXattr, Timestamp};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Gid, Mode, OFlags, RawDir, RenameFlags, SeekFrom, Timespec,
    Timestamps, Uid, XattrFlags,
};

use crate::model::{Outcome, Path};
use crate::tree;

use super::{Op, Shown, System, seen, seen_names, seen_set, shown_size};

/// What direct reads and writes must be aligned to, in the file and in memory: a page suits every driver.
pub(super) const DIRECT: usize = 4096;

/// A FIFO that somebody put in a file's place is not waited for.
const NO_WAIT: i32 = OFlags::NONBLOCK.bits().cast_signed();

/// The kernel's driver, below a directory where it is mounted.
#[derive(Debug)]
pub struct Kernel {
    root: PathBuf,
    open: HashMap<usize, fs::File>,
    /// Open files that should have no name, and the one that they have all the same, out of sight.
    hidden: HashMap<usize, PathBuf>,
}

impl Kernel {
    /// A mounted file system. Modes are those that are asked for: the umask of this process becomes 0.
    #[must_use]
    pub fn new(root: &HostPath) -> Self {
        rustix::process::umask(Mode::empty());
        Self {
            root: root.to_owned(),
            open: HashMap::new(),
            hidden: HashMap::new(),
        }
    }

    /// Where files go that should have no name: a directory beside the root, which is there if anybody asks for them.
    #[must_use]
    pub fn away(root: &HostPath) -> PathBuf {
        root.with_extension("away")
    }

    /// Opens a file without a name where the driver has none such: one whose name nobody looks for.
    ///
    /// # Errors
    /// As `open`, `rename`.
    pub fn open_hidden(&mut self, slot: usize, path: &Path, mode: u16) -> io::Result<()> {
        let away = Self::away(&self.root);
        // It inherits from its directory, whose times stay as they are.
        let dir = self.host(path);
        let times = fs::metadata(&dir)?;
        let name = format!(".nameless-{slot}");
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(u32::from(mode))
            .open(dir.join(&name))?;
        self.vacate(slot)?;
        fs::rename(dir.join(&name), away.join(&name))?;
        let time = |secs, nanos| Timestamp {
            secs,
            nanos: u32::try_from(nanos).expect("below a billion"),
        };
        set_times(
            &dir,
            time(times.atime(), times.atime_nsec()),
            time(times.mtime(), times.mtime_nsec()),
        )?;
        self.open.insert(slot, file);
        self.hidden.insert(slot, away.join(name));
        Ok(())
    }

    /// Closes a slot.
    fn vacate(&mut self, slot: usize) -> io::Result<()> {
        self.open.remove(&slot);
        match self.hidden.remove(&slot) {
            Some(hidden) => fs::remove_file(hidden),
            None => Ok(()),
        }
    }

    /// Writes zeroes: a zero range of a driver that has none.
    ///
    /// # Errors
    /// As `open`, `pwrite`.
    pub fn write_zeroes(&mut self, path: &Path, range: &Range<u64>) -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(self.host(path))?;
        let len = usize::try_from(range.end - range.start).expect("small");
        file.write_all_at(&vec![0; len], range.start)
    }

    /// Makes a file at least `size` bytes long, and its time that of a change.
    ///
    /// # Errors
    /// As `open`, `ftruncate`.
    pub fn extend(&mut self, path: &Path, size: u64) -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(self.host(path))?;
        let old = file.metadata()?.len();
        file.set_len(old.max(size))
    }

    /// The value of an attribute, if there is one.
    #[must_use]
    pub fn attribute(&self, path: &Path, name: &[u8]) -> Option<Vec<u8>> {
        let mut value = vec![0; 65_536];
        let len = rustix::fs::lgetxattr(self.host(path), name, &mut value[..]).ok()?;
        value.truncate(len);
        Some(value)
    }

    /// Type and permission bits, if the file is there.
    #[must_use]
    pub fn mode(&self, path: &Path) -> Option<u32> {
        Some(fs::symlink_metadata(self.host(path)).ok()?.mode())
    }

    fn host(&self, path: &[Vec<u8>]) -> PathBuf {
        let path = std::ffi::OsString::from_vec(path.join(&b'/'));
        if path.is_empty() {
            self.root.clone()
        } else {
            self.root.join(path)
        }
    }

    fn try_apply(&mut self, op: &Op) -> io::Result<u64> {
        let open = |path: &Path| {
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.host(path))
        };
        match op {
            Op::Create(path, mode) => {
                fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(u32::from(*mode))
                    .open(self.host(path))?;
            }
            Op::Mkdir(path, mode) => {
                fs::DirBuilder::new()
                    .mode(u32::from(*mode))
                    .create(self.host(path))?;
            }
            Op::Mknod(path, file_type, (major, minor), mode) => {
                let kind = rustix::fs::FileType::from_raw_mode(u32::from(file_type.mode()));
                let device = rustix::fs::makedev(*major, *minor);
                rustix::fs::mknodat(
                    CWD,
                    self.host(path),
                    kind,
                    Mode::from_raw_mode(u32::from(*mode)),
                    device,
                )?;
            }
            Op::Symlink(target, path) => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), self.host(path))?;
            }
            Op::Link(from, to) => fs::hard_link(self.host(from), self.host(to))?,
            Op::Unlink(path) => fs::remove_file(self.host(path))?,
            Op::Rmdir(path) => fs::remove_dir(self.host(path))?,
            Op::Rename(from, to) => fs::rename(self.host(from), self.host(to))?,
            Op::RenameWith(from, to, how) => {
                let flags = match how {
                    ext2dax::RenameFlags::Replace => RenameFlags::empty(),
                    ext2dax::RenameFlags::NoReplace => RenameFlags::NOREPLACE,
                    ext2dax::RenameFlags::Exchange => RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(CWD, self.host(from), CWD, self.host(to), flags)?;
            }
            Op::ReadLink(path) => {
                return Ok(seen(fs::read_link(self.host(path))?.as_os_str().as_bytes()));
            }
            Op::Stat(path) => return Ok(shown(&fs::symlink_metadata(self.host(path))?).seen()),
            Op::Truncate(path) => {
                fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .custom_flags(NO_WAIT)
                    .mode(0o644)
                    .open(self.host(path))?;
            }
            Op::Sync(path) => open(path)?.sync_all()?,
            Op::SyncAll => rustix::fs::syncfs(fs::File::open(&self.root)?)?,
            Op::SeekData(path, at) => return seek(&open(path)?, SeekFrom::Data(*at)),
            Op::SeekHole(path, at) => return seek(&open(path)?, SeekFrom::Hole(*at)),
            Op::CopyRange(from, at, to, to_at, len) => {
                return copy(&open(from)?, *at, &open(to)?, *to_at, *len);
            }
            Op::Fallocate(path, how, range) => fallocate(&open(path)?, linux_mode(*how), range)?,
            Op::Write(path, at, bytes) => {
                return Ok(open(path)?.write_at(&bytes.make(), *at)? as u64);
            }
            Op::Append(path, bytes) => {
                use io::Write;
                let mut file = fs::OpenOptions::new()
                    .append(true)
                    .custom_flags(NO_WAIT)
                    .open(self.host(path))?;
                return Ok(file.write(&bytes.make())? as u64);
            }
            Op::Read(path, at, len) => {
                let file = fs::OpenOptions::new()
                    .read(true)
                    .custom_flags(NO_WAIT)
                    .open(self.host(path))?;
                return read_host(&file, *at, *len);
            }
            Op::WriteVectored(path, at, pieces) => {
                let pieces: Vec<_> = pieces.iter().map(|bytes| bytes.make()).collect();
                let pieces: Vec<_> = pieces.iter().map(|bytes| io::IoSlice::new(bytes)).collect();
                return Ok(rustix::io::pwritev(open(path)?, &pieces, *at)? as u64);
            }
            Op::ReadVectored(path, at, pieces) => {
                let mut bufs: Vec<_> = pieces.iter().map(|len| vec![0x5a; *len]).collect();
                let mut slices: Vec<_> = bufs
                    .iter_mut()
                    .map(|buf| io::IoSliceMut::new(buf))
                    .collect();
                let done = rustix::io::preadv(open(path)?, &mut slices, *at)?;
                return Ok(seen(&bufs.concat()[..done]));
            }
            Op::WriteDirect(path, at, bytes) => {
                let file = self.open_direct(path)?;
                return aligned(&bytes.make(), |bytes| Ok(file.write_at(bytes, *at)? as u64));
            }
            Op::ReadDirect(path, at, len) => {
                let file = self.open_direct(path)?;
                return aligned(&vec![0x5a; *len], |buf| {
                    let done = file.read_at(buf, *at)?;
                    Ok(seen(&buf[..done]))
                });
            }
            Op::SetLen(path, size) => open(path)?.set_len(*size)?,
            Op::Punch(path, range) => fallocate(
                &open(path)?,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                range,
            )?,
            Op::ZeroRange(path, range) => {
                fallocate(&open(path)?, FallocateFlags::ZERO_RANGE, range)?
            }
            Op::Allocate(path, range) => fallocate(&open(path)?, FallocateFlags::empty(), range)?,
            Op::Chmod(path, mode) => chmod(&self.host(path), *mode)?,
            Op::Chown(path, uid, gid) => {
                let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                rustix::fs::chownat(CWD, self.host(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Op::SetTimes(path, accessed, modified) => {
                set_times(&self.host(path), *accessed, *modified)?
            }
            Op::List(path) => {
                let mut names = Vec::new();
                for entry in fs::read_dir(self.host(path))? {
                    let entry = entry?;
                    let file_type = tree::type_of(entry.file_type()?);
                    names.push((entry.file_name().into_vec(), file_type));
                }
                return Ok(seen_names(names));
            }
            Op::ListSlowly(path, most) => return list_slowly(&self.host(path), *most),
            Op::SetXattr(path, name, value, how) => {
                let flags = match how {
                    SetXattr::Any => XattrFlags::empty(),
                    SetXattr::Create => XattrFlags::CREATE,
                    SetXattr::Replace => XattrFlags::REPLACE,
                };
                rustix::fs::lsetxattr(self.host(path), &name[..], value, flags)?;
            }
            Op::GetXattr(path, name) => {
                let mut value = vec![0; 65_536];
                let len = rustix::fs::lgetxattr(self.host(path), &name[..], &mut value[..])?;
                return Ok(seen(&value[..len]));
            }
            Op::RemoveXattr(path, name) => rustix::fs::lremovexattr(self.host(path), &name[..])?,
            Op::ListXattrs(path) => {
                let mut names = vec![0; 65_536];
                let len = rustix::fs::llistxattr(self.host(path), &mut names[..])?;
                let names = names[..len].split(|&byte| byte == 0).map(<[u8]>::to_vec);
                return Ok(seen_set(names.filter(|name| !name.is_empty()).collect()));
            }
            Op::Open(slot, path) => {
                let file = open(path)?;
                self.vacate(*slot)?;
                self.open.insert(*slot, file);
            }
            Op::OpenNameless(slot, path, mode) => {
                let flags = OFlags::TMPFILE | OFlags::RDWR;
                let mode = Mode::from_raw_mode(u32::from(*mode));
                let file = rustix::fs::open(self.host(path), flags, mode)?;
                self.vacate(*slot)?;
                self.open.insert(*slot, file.into());
            }
            Op::LinkOpen(slot, path) => self.link_open(*slot, path)?,
            Op::StatOpen(slot) => {
                let Some(file) = self.open.get(slot) else {
                    return Ok(0);
                };
                let mut shown = shown(&file.metadata()?);
                shown.links -= u64::from(self.hidden.contains_key(slot));
                return Ok(shown.seen());
            }
            Op::WriteOpen(slot, at, bytes) => {
                let Some(file) = self.open.get(slot) else {
                    return Ok(0);
                };
                return Ok(file.write_at(&bytes.make(), *at)? as u64);
            }
            Op::ReadOpen(slot, at, len) => {
                let Some(file) = self.open.get(slot) else {
                    return Ok(0);
                };
                return read_host(file, *at, *len);
            }
            Op::SetLenOpen(slot, size) => {
                if let Some(file) = self.open.get(slot) {
                    file.set_len(*size)?;
                }
            }
            Op::Close(slot) => self.vacate(*slot)?,
        }
        Ok(0)
    }

    fn open_direct(&self, path: &Path) -> io::Result<fs::File> {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(self.host(path))
    }

    fn link_open(&mut self, slot: usize, path: &Path) -> io::Result<()> {
        let Some(file) = self.open.get(&slot) else {
            return Ok(());
        };
        let to = self.host(path);
        if let Some(hidden) = self.hidden.get(&slot) {
            rustix::fs::renameat_with(CWD, hidden, CWD, to, RenameFlags::NOREPLACE)?;
            self.hidden.remove(&slot);
            return Ok(());
        }
        let file = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, file, CWD, to, AtFlags::SYMLINK_FOLLOW)?;
        Ok(())
    }
}

/// Lets `work` have a copy of `bytes` in memory that direct calls take.
fn aligned<R>(bytes: &[u8], work: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut room = vec![0; bytes.len() + DIRECT];
    let skip = room.as_ptr().align_offset(DIRECT);
    let copy = &mut room[skip..skip + bytes.len()];
    copy.copy_from_slice(bytes);
    work(copy)
}

/// Lists with room for `most` of the longest names.
fn list_slowly(dir: &HostPath, most: usize) -> io::Result<u64> {
    /// What getdents64 writes of a name of 255 bytes.
    const LONGEST: usize = 280;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    let mut room = vec![MaybeUninit::uninit(); most * LONGEST];
    let mut entries = RawDir::new(dir, &mut room);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            let raw = u16::try_from(entry.file_type().as_raw_mode()).expect("a type");
            names.push((name.to_vec(), FileType::from_mode(raw).expect("a type")));
        }
    }
    Ok(seen_names(names))
}

fn chmod(path: &HostPath, mode: u16) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(u32::from(mode)))
}

fn fallocate(file: &fs::File, flags: FallocateFlags, range: &Range<u64>) -> io::Result<()> {
    Ok(rustix::fs::fallocate(
        file,
        flags,
        range.start,
        range.end - range.start,
    )?)
}

/// Sets both times of a file, of a symlink itself.
///
/// # Errors
/// As `utimensat`.
pub fn set_times(path: &HostPath, accessed: Timestamp, modified: Timestamp) -> io::Result<()> {
    let spec = |time: Timestamp| Timespec {
        tv_sec: time.secs,
        tv_nsec: i64::from(time.nanos),
    };
    let times = Timestamps {
        last_access: spec(accessed),
        last_modification: spec(modified),
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn linux_mode(how: Fallocate) -> FallocateFlags {
    let keep = FallocateFlags::KEEP_SIZE;
    match how {
        Fallocate::Allocate => FallocateFlags::empty(),
        Fallocate::AllocateKeepSize => keep,
        Fallocate::PunchHole => FallocateFlags::PUNCH_HOLE | keep,
        Fallocate::ZeroRange => FallocateFlags::ZERO_RANGE,
        Fallocate::ZeroRangeKeepSize => FallocateFlags::ZERO_RANGE | keep,
        Fallocate::CollapseRange => FallocateFlags::COLLAPSE_RANGE,
        Fallocate::InsertRange => FallocateFlags::INSERT_RANGE,
    }
}

/// Seeks in what is on the medium: the ext4 driver does not count bytes that wait to be written as data.
fn seek(file: &fs::File, to: SeekFrom) -> io::Result<u64> {
    file.sync_data()?;
    Ok(rustix::fs::seek(file, to)?)
}

/// Copies in as many calls as the kernel wants.
fn copy(from: &fs::File, at: u64, to: &fs::File, to_at: u64, len: u64) -> io::Result<u64> {
    // A copy that makes its own source longer would go on in what it has written.
    let len = len.min(from.metadata()?.len().saturating_sub(at));
    let (mut at, mut to_at, mut done) = (at, to_at, 0);
    if len == 0 {
        let (at, to_at) = (Some(&mut at), Some(&mut to_at));
        return Ok(rustix::fs::copy_file_range(from, at, to, to_at, 1)? as u64);
    }
    while done < len {
        let rest = usize::try_from(len - done).expect("small");
        match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut to_at), rest)? {
            0 => break,
            more => done += more as u64,
        }
    }
    Ok(done)
}

fn shown(metadata: &fs::Metadata) -> Shown {
    let file_type = tree::type_of(metadata.file_type());
    let device = metadata.rdev();
    let special = !matches!(
        file_type,
        FileType::Regular | FileType::Directory | FileType::Symlink
    );
    Shown {
        mode: metadata.mode(),
        links: metadata.nlink(),
        owner: (metadata.uid(), metadata.gid()),
        size: shown_size(file_type, metadata.len()),
        device: special.then(|| (rustix::fs::major(device), rustix::fs::minor(device))),
    }
}

fn read_host(file: &fs::File, at: u64, len: usize) -> io::Result<u64> {
    let mut buf = vec![0x5a; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut buf[done..], at + done as u64)? {
            0 => break,
            more => done += more,
        }
    }
    Ok(seen(&buf[..done]))
}

impl System for Kernel {
    fn apply(&mut self, op: &Op) -> Outcome {
        self.try_apply(op)
            .map_err(|error| error.raw_os_error().unwrap_or(0))
    }
}
