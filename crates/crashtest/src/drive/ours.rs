//! Operations applied to ext2dax.

use std::collections::HashMap;

use ext2dax::{
    Device, DirBuilder, Error, FileSystem, FileTimes, FileType, Inode, New, OpenOptions,
    Permissions,
};
use ext2dax_pmem::{UserSlice, UserSliceMut};

use crate::model::{Outcome, Path};

use super::{Op, Shown, System, seen, seen_names, seen_set, shown_size};

/// Ours, through paths and open files.
#[derive(Debug)]
pub struct Ours {
    fs: FileSystem,
    /// The directory that the root of every path is.
    below: Vec<u8>,
    open: HashMap<usize, Inode>,
}

impl Ours {
    /// A mounted file system.
    #[must_use]
    pub fn new(fs: FileSystem) -> Self {
        Self::below(fs, b"")
    }

    /// A directory of a mounted file system, given without a slash at its end.
    #[must_use]
    pub fn below(fs: FileSystem, dir: &[u8]) -> Self {
        Self {
            fs,
            below: dir.to_vec(),
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

    /// What a path leads to, a symlink at its end included.
    fn inode(&self, path: &Path) -> Result<Inode, Error> {
        let at = |path: &[Vec<u8>]| [&self.below[..], b"/", &path.join(&b'/')].concat();
        match path.split_last() {
            None => self.fs.inode(at(path)),
            Some((name, dir)) => self.fs.inode(at(dir))?.lookup(name),
        }
    }

    fn try_apply(&mut self, op: &Op) -> Result<u64, Error> {
        let fs = &self.fs;
        let ours = |path: &Path| [&self.below[..], b"/", &path.join(&b'/')].concat();
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
            Op::RenameWith(from, to, how) => {
                let parent = |path: &Path| fs.inode(ours(&path[..path.len() - 1].to_vec()));
                let (from_dir, to_dir) = (parent(from)?, parent(to)?);
                let name = |path: &Path| path.last().expect("a name").clone();
                from_dir.rename_with(&name(from), &to_dir, &name(to), *how)?;
            }
            Op::ReadLink(path) => return Ok(seen(&fs.read_link(ours(path))?)),
            Op::Stat(path) => {
                let metadata = fs.symlink_metadata(ours(path))?;
                let shown = Shown {
                    mode: metadata.mode(),
                    links: metadata.nlink().into(),
                    owner: (metadata.uid(), metadata.gid()),
                    size: shown_size(metadata.file_type(), metadata.len()),
                    device: shown_device(metadata.file_type(), metadata.rdev()),
                };
                return Ok(shown.seen());
            }
            Op::Truncate(path) => {
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o644)
                    .open(fs, ours(path))?;
            }
            Op::Sync(path) => open(path)?.sync_all()?,
            Op::SyncAll => fs.sync()?,
            Op::SeekData(path, at) => return open(path)?.seek_data(*at),
            Op::SeekHole(path, at) => return open(path)?.seek_hole(*at),
            Op::CopyRange(from, at, to, to_at, len) => {
                let (from, to) = (open(from)?, open(to)?);
                return from.copy_range(*at, &to, *to_at, *len);
            }
            Op::Fallocate(path, how, range) => {
                open(path)?.inode().fallocate(*how, range.clone())?;
            }
            Op::Write(path, at, bytes) => {
                return Ok(open(path)?.write_at(&bytes.make()[..], *at)? as u64);
            }
            Op::Append(path, bytes) => {
                let file = OpenOptions::new().append(true).open(fs, ours(path))?;
                return Ok(file.write(&bytes.make()[..])? as u64);
            }
            Op::WriteDirect(path, at, bytes) => {
                return Ok(open(path)?.write_at(&bytes.make()[..], *at)? as u64);
            }
            Op::WriteVectored(path, at, pieces) => {
                let pieces: Vec<_> = pieces.iter().map(|bytes| bytes.make()).collect();
                let pieces: Vec<UserSlice<'_>> =
                    pieces.iter().map(|bytes| (&bytes[..]).into()).collect();
                return Ok(open(path)?.write_vectored_at(&pieces, *at)? as u64);
            }
            Op::ReadVectored(path, at, pieces) => {
                let mut bufs: Vec<_> = pieces.iter().map(|len| vec![0xa5; *len]).collect();
                let mut slices: Vec<UserSliceMut<'_>> =
                    bufs.iter_mut().map(|buf| (&mut buf[..]).into()).collect();
                let done = open(path)?.read_vectored_at(&mut slices, *at)?;
                drop(slices);
                return Ok(seen(&bufs.concat()[..done]));
            }
            Op::ReadDirect(path, at, len) => return read_ours(open(path)?.inode(), *at, *len),
            Op::Read(path, at, len) => return read_ours(fs.open(ours(path))?.inode(), *at, *len),
            Op::SetLen(path, size) => open(path)?.set_len(*size)?,
            Op::Punch(path, range) => open(path)?.punch_hole(range.clone())?,
            Op::ZeroRange(path, range) => open(path)?.zero_range(range.clone())?,
            Op::Allocate(path, range) => open(path)?.allocate(range.clone())?,
            Op::Chmod(path, mode) => {
                fs.set_permissions(ours(path), Permissions::from_mode(*mode))?
            }
            Op::Chown(path, uid, gid) => {
                fs.set_owner(ours(path), Some(*uid), Some(*gid))?;
            }
            Op::SetTimes(path, accessed, modified) => {
                let times = FileTimes::new()
                    .set_accessed(*accessed)
                    .set_modified(*modified);
                fs.set_times(ours(path), times)?;
            }
            Op::List(path) => {
                let mut names = Vec::new();
                for entry in fs.read_dir(ours(path))? {
                    let entry = entry?;
                    names.push((entry.file_name().to_vec(), entry.file_type()?));
                }
                return Ok(seen_names(names));
            }
            Op::ListSlowly(path, most) => {
                let dir = fs.inode(ours(path))?;
                let (mut names, mut cookie) = (Vec::new(), 0);
                loop {
                    let entries = dir.read_dir(cookie, *most)?;
                    let Some(last) = entries.last() else { break };
                    cookie = last.next;
                    for entry in entries {
                        if *entry.name == *b"." || *entry.name == *b".." {
                            continue;
                        }
                        // Entries of the first revision do not tell.
                        let file_type = match entry.file_type {
                            Some(file_type) => file_type,
                            None => dir.lookup(&entry.name)?.file_type(),
                        };
                        names.push((entry.name.into_vec(), file_type));
                    }
                }
                return Ok(seen_names(names));
            }
            Op::SetXattr(path, name, value, how) => {
                self.inode(path)?.set_xattr(name, value, *how)?;
            }
            Op::GetXattr(path, name) => return Ok(seen(&self.inode(path)?.xattr(name)?)),
            Op::RemoveXattr(path, name) => self.inode(path)?.remove_xattr(name)?,
            Op::ListXattrs(path) => return Ok(seen_set(self.inode(path)?.list_xattrs()?)),
            Op::Open(slot, path) => {
                let inode = open(path)?.inode().clone();
                self.open.insert(*slot, inode);
            }
            Op::OpenNameless(slot, path, mode) => {
                let new = New {
                    mode: *mode,
                    ..New::default()
                };
                let inode = fs.inode(ours(path))?.tmpfile(&new)?;
                self.open.insert(*slot, inode);
            }
            Op::LinkOpen(slot, path) => {
                if let (Some(inode), Some((name, dir))) = (self.open.get(slot), path.split_last()) {
                    fs.inode(ours(&dir.to_vec()))?.link(name, inode)?;
                }
            }
            Op::StatOpen(slot) => {
                if let Some(inode) = self.open.get(slot) {
                    return Ok(shown(inode)?.seen());
                }
            }
            Op::WriteOpen(slot, at, bytes) => {
                let Some(file) = self.open.get(slot) else {
                    return Ok(0);
                };
                return Ok(file.write_at(*at, &bytes.make()[..])? as u64);
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

fn shown_device(file_type: FileType, device: Option<Device>) -> Option<(u32, u32)> {
    match file_type {
        FileType::CharDevice | FileType::BlockDevice => {
            device.map(|device| (device.major, device.minor))
        }
        FileType::Fifo | FileType::Socket => Some((0, 0)),
        _ => None,
    }
}

/// An open file as stat shows it.
fn shown(inode: &Inode) -> Result<Shown, Error> {
    let attributes = inode.attributes()?;
    Ok(Shown {
        mode: u32::from(attributes.file_type.mode() | attributes.permissions),
        links: attributes.links.into(),
        owner: (attributes.uid, attributes.gid),
        size: shown_size(attributes.file_type, attributes.size),
        device: shown_device(attributes.file_type, attributes.device),
    })
}

fn read_ours(file: &Inode, at: u64, len: usize) -> Result<u64, Error> {
    let mut buf = vec![0xa5; len];
    let done = file.read_at(at, &mut buf[..])?;
    Ok(seen(&buf[..done]))
}

impl System for Ours {
    fn apply(&mut self, op: &Op) -> Outcome {
        self.try_apply(op).map_err(Error::errno)
    }
}
