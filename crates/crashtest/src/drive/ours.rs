//! Operations applied to ext2dax.

use std::collections::HashMap;

use ext2dax::{Device, DirBuilder, Error, FileSystem, FileTimes, OpenOptions, Permissions};

use crate::model::{Outcome, Path};

use super::{Op, System, seen, seen_names};

/// Ours, through paths and open files.
#[derive(Debug)]
pub struct Ours {
    fs: FileSystem,
    open: HashMap<usize, ext2dax::File>,
}

impl Ours {
    /// A mounted file system.
    #[must_use]
    pub fn new(fs: FileSystem) -> Self {
        Self {
            fs,
            open: HashMap::new(),
        }
    }

    /// The file system.
    #[must_use]
    pub fn fs(&self) -> &FileSystem {
        &self.fs
    }

    /// Closes everything and hands the file system back.
    #[must_use]
    pub fn into_fs(self) -> FileSystem {
        self.fs
    }

    fn try_apply(&mut self, op: &Op) -> Result<u64, Error> {
        let fs = &self.fs;
        let open = |path: &Path| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(fs, ours(path))
        };
        match op {
            Op::Create(path, mode) => {
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(*mode)
                    .open(fs, ours(path))?;
            }
            Op::Mkdir(path, mode) => DirBuilder::new().mode(*mode).create(fs, ours(path))?,
            Op::Mknod(path, file_type, (major, minor), mode) => {
                let device = Device {
                    major: *major,
                    minor: *minor,
                };
                fs.mknod(ours(path), *file_type, *mode, Some(device))?;
            }
            Op::Symlink(target, path) => fs.symlink(target, ours(path))?,
            Op::Link(from, to) => fs.hard_link(ours(from), ours(to))?,
            Op::Unlink(path) => fs.remove_file(ours(path))?,
            Op::Rmdir(path) => fs.remove_dir(ours(path))?,
            Op::Rename(from, to) => fs.rename(ours(from), ours(to))?,
            Op::Write(path, at, bytes) => {
                return Ok(open(path)?.write_at(&bytes.make()[..], *at)? as u64);
            }
            Op::Append(path, bytes) => {
                let file = OpenOptions::new().append(true).open(fs, ours(path))?;
                return Ok(file.write(&bytes.make()[..])? as u64);
            }
            Op::Read(path, at, len) => return read_ours(&fs.open(ours(path))?, *at, *len),
            Op::SetLen(path, size) => open(path)?.set_len(*size)?,
            Op::Punch(path, range) => open(path)?.punch_hole(range.clone())?,
            Op::ZeroRange(path, range) => open(path)?.zero_range(range.clone())?,
            Op::Allocate(path, range) => open(path)?.allocate(range.clone())?,
            Op::Chmod(path, mode) => {
                fs.set_permissions(ours(path), Permissions::from_mode(*mode))?
            }
            Op::Chown(path, uid, gid) => fs.set_owner(ours(path), Some(*uid), Some(*gid))?,
            Op::SetTimes(path, accessed, modified) => {
                let times = FileTimes::new()
                    .set_accessed(*accessed)
                    .set_modified(*modified);
                fs.set_times(ours(path), times)?;
            }
            Op::List(path) => {
                let mut names = Vec::new();
                for entry in fs.read_dir(ours(path))? {
                    names.push(entry?.file_name().to_vec());
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
                return Ok(file.write_at(&bytes.make()[..], *at)? as u64);
            }
            Op::ReadOpen(slot, at, len) => {
                let Some(file) = self.open.get(slot) else {
                    return Ok(0);
                };
                return read_ours(file, *at, *len);
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

fn ours(path: &[Vec<u8>]) -> Vec<u8> {
    [b"/", &path.join(&b'/')[..]].concat()
}

fn read_ours(file: &ext2dax::File, at: u64, len: usize) -> Result<u64, Error> {
    let mut buf = vec![0xa5; len];
    let done = file.read_at(&mut buf[..], at)?;
    Ok(seen(&buf[..done]))
}

impl System for Ours {
    fn apply(&mut self, op: &Op) -> Outcome {
        self.try_apply(op).map_err(Error::errno)
    }
}

// ---- the kernel's ----
