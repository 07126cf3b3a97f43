//! Operations applied to a mounted directory.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path as HostPath, PathBuf};

use ext2dax::Timestamp;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Gid, Mode, Timespec, Timestamps, Uid};

use crate::model::{Outcome, Path};

use super::{Op, System, seen, seen_names};

/// The kernel's driver, below a directory where it is mounted.
#[derive(Debug)]
pub struct Kernel {
    root: PathBuf,
    open: HashMap<usize, fs::File>,
}

impl Kernel {
    /// A mounted file system.
    #[must_use]
    pub fn new(root: &HostPath) -> Self {
        Self {
            root: root.to_owned(),
            open: HashMap::new(),
        }
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
                let at = self.host(path);
                fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(u32::from(*mode))
                    .open(&at)?;
                chmod(&at, *mode)?;
            }
            Op::Mkdir(path, mode) => {
                let at = self.host(path);
                fs::create_dir(&at)?;
                chmod(&at, *mode)?;
            }
            Op::Mknod(path, file_type, (major, minor), mode) => {
                let at = self.host(path);
                let kind = rustix::fs::FileType::from_raw_mode(u32::from(file_type.mode()));
                let device = rustix::fs::makedev(*major, *minor);
                rustix::fs::mknodat(
                    CWD,
                    &at,
                    kind,
                    Mode::from_raw_mode(u32::from(*mode)),
                    device,
                )?;
                chmod(&at, *mode)?;
            }
            Op::Symlink(target, path) => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), self.host(path))?;
            }
            Op::Link(from, to) => fs::hard_link(self.host(from), self.host(to))?,
            Op::Unlink(path) => fs::remove_file(self.host(path))?,
            Op::Rmdir(path) => fs::remove_dir(self.host(path))?,
            Op::Rename(from, to) => fs::rename(self.host(from), self.host(to))?,
            Op::Write(path, at, bytes) => {
                return Ok(open(path)?.write_at(&bytes.make(), *at)? as u64);
            }
            Op::Append(path, bytes) => {
                use io::Write;
                let mut file = fs::OpenOptions::new().append(true).open(self.host(path))?;
                return Ok(file.write(&bytes.make())? as u64);
            }
            Op::Read(path, at, len) => {
                return read_host(&fs::File::open(self.host(path))?, *at, *len);
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
                    names.push(entry?.file_name().into_vec());
                }
                return Ok(seen_names(names));
            }
            Op::Open(slot, path) => {
                let file = open(path)?;
                self.open.insert(*slot, file);
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
            Op::Close(slot) => drop(self.open.remove(slot)),
        }
        Ok(0)
    }
}

/// The mode exactly, whatever the umask.
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
