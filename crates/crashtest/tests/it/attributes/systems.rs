//! The same calls, made to the kernel below a mount and to the library.

use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ext2dax::{Error, FileSystem, Inode, InodeFlags, New, SetAttributes, SetXattr, Timestamp};
use rustix::fs::{
    AtFlags, CWD, IFlags, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags,
};
use rustix::io::Errno;

/// What kind of file a call makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Fifo,
    Symlink,
}

/// A call; names are paths without a leading slash.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Make(Kind, String, u16, u16),
    Set(String, Vec<u8>, Vec<u8>, SetXattr),
    Get(String, Vec<u8>),
    Remove(String, Vec<u8>),
    List(String),
    Chmod(String, u16),
    Chown(String, Option<u32>, Option<u32>),
    Flags(String, u32),
    Write(String, u64),
    Append(String),
    Truncate(String, u64),
    Punch(String),
    Touch(String),
    Times(String),
    Link(String, String),
    Rename(String, String),
    Unlink(String),
    Rmdir(String),
    Stat(String),
}

/// What a call answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Done,
    Value(Vec<u8>),
    Names(Vec<Vec<u8>>),
    /// Mode with type, owner, group, links, flags that users see.
    Stat(u32, u32, u32, u32),
}

/// What a call answers, or its errno.
pub(super) type Outcome = Result<Seen, i32>;

/// A file system that takes calls.
pub(super) trait System {
    fn apply(&mut self, op: &Op) -> Outcome;
}

/// Everything that can be asked about a file's attributes.
pub(super) fn everything(system: &mut dyn System, path: &str) -> Vec<(Vec<u8>, Outcome)> {
    let mut all = vec![(b"stat".to_vec(), system.apply(&Op::Stat(path.to_owned())))];
    let listed = system.apply(&Op::List(path.to_owned()));
    if let Ok(Seen::Names(names)) = &listed {
        for name in names {
            let value = system.apply(&Op::Get(path.to_owned(), name.clone()));
            all.push((name.clone(), value));
        }
    }
    all.push((b"list".to_vec(), listed));
    all
}

fn sorted(mut names: Vec<Vec<u8>>) -> Seen {
    names.sort();
    Seen::Names(names)
}

/// The kernel's driver below a mount.
pub(super) struct Kernel(pub(super) PathBuf);

impl Kernel {
    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn make(&self, kind: Kind, path: &str, mode: u16, umask: u16) -> std::io::Result<()> {
        let at = self.at(path);
        // The umask belongs to the process, unless a thread asks for one of its own.
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                own_umask(umask)?;
                make_here(kind, &at, mode)
            });
            made.join().expect("the thread ends")
        })
    }

    fn try_apply(&self, op: &Op) -> std::io::Result<Seen> {
        match op {
            Op::Make(kind, path, mode, umask) => self.make(*kind, path, *mode, *umask)?,
            Op::Set(path, name, value, how) => {
                let flags = match how {
                    SetXattr::Any => XattrFlags::empty(),
                    SetXattr::Create => XattrFlags::CREATE,
                    SetXattr::Replace => XattrFlags::REPLACE,
                };
                rustix::fs::lsetxattr(self.at(path), &**name, value, flags)?;
            }
            Op::Get(path, name) => {
                let mut value = vec![0; 65_536];
                let len = rustix::fs::lgetxattr(self.at(path), &**name, &mut *value)?;
                value.truncate(len);
                return Ok(Seen::Value(value));
            }
            Op::Remove(path, name) => rustix::fs::lremovexattr(self.at(path), &**name)?,
            Op::List(path) => {
                let mut names = vec![0; 65_536];
                let len = rustix::fs::llistxattr(self.at(path), &mut *names)?;
                names.truncate(len);
                let names = names
                    .split(|byte| *byte == 0)
                    .filter(|name| !name.is_empty());
                return Ok(sorted(
                    names
                        .filter(|name| !name.starts_with(b"security.selinux"))
                        .map(<[u8]>::to_vec)
                        .collect(),
                ));
            }
            Op::Chmod(path, mode) => {
                let permissions = std::fs::Permissions::from_mode(u32::from(*mode));
                std::fs::set_permissions(self.at(path), permissions)?;
            }
            Op::Chown(path, uid, gid) => std::os::unix::fs::lchown(self.at(path), *uid, *gid)?,
            Op::Flags(path, flags) => {
                let file = std::fs::File::open(self.at(path))?;
                rustix::fs::ioctl_setflags(&file, IFlags::from_bits_retain(*flags))?;
            }
            Op::Write(path, pos) => {
                let file = std::fs::OpenOptions::new()
                    .write(true)
                    .open(self.at(path))?;
                file.write_all_at(b"written", *pos)?;
            }
            Op::Append(path) => {
                use std::io::Write;
                let mut file = std::fs::OpenOptions::new()
                    .append(true)
                    .open(self.at(path))?;
                file.write_all(b"appended")?;
            }
            Op::Truncate(path, len) => {
                // By path, as truncate(2): opening comes first otherwise.
                let file = std::fs::OpenOptions::new()
                    .write(true)
                    .open(self.at(path))?;
                file.set_len(*len)?;
            }
            Op::Punch(path) => {
                let file = std::fs::OpenOptions::new()
                    .write(true)
                    .custom_flags(0)
                    .open(self.at(path))?;
                let flags =
                    rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, 0, 1)?;
            }
            Op::Touch(path) => {
                let now = Timespec {
                    tv_sec: 0,
                    tv_nsec: UTIME_NOW,
                };
                let times = Timestamps {
                    last_access: now,
                    last_modification: now,
                };
                rustix::fs::utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Op::Times(path) => {
                let times = Timestamps {
                    last_access: Timespec {
                        tv_sec: 0,
                        tv_nsec: UTIME_OMIT,
                    },
                    last_modification: Timespec {
                        tv_sec: 1_000_000_000,
                        tv_nsec: 0,
                    },
                };
                rustix::fs::utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Op::Link(from, to) => std::fs::hard_link(self.at(from), self.at(to))?,
            Op::Rename(from, to) => std::fs::rename(self.at(from), self.at(to))?,
            Op::Unlink(path) => std::fs::remove_file(self.at(path))?,
            Op::Rmdir(path) => std::fs::remove_dir(self.at(path))?,
            Op::Stat(path) => {
                let found = std::fs::symlink_metadata(self.at(path))?;
                let links = u32::try_from(found.nlink()).expect("few links");
                return Ok(Seen::Stat(found.mode(), found.uid(), found.gid(), links));
            }
        }
        Ok(Seen::Done)
    }
}

/// Gives this thread a umask of its own.
fn own_umask(umask: u16) -> std::io::Result<()> {
    #[expect(
        deprecated,
        reason = "sound for this flag: umask and working directory of one thread"
    )]
    rustix::thread::unshare(rustix::thread::UnshareFlags::FS)?;
    rustix::process::umask(Mode::from_raw_mode(u32::from(umask)));
    Ok(())
}

fn make_here(kind: Kind, at: &Path, mode: u16) -> std::io::Result<()> {
    let permissions = Mode::from_raw_mode(u32::from(mode));
    match kind {
        Kind::File => drop(
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(u32::from(mode))
                .open(at)?,
        ),
        Kind::Dir => rustix::fs::mkdirat(CWD, at, permissions)?,
        Kind::Fifo => {
            rustix::fs::mknodat(CWD, at, rustix::fs::FileType::Fifo, permissions, 0)?;
        }
        Kind::Symlink => std::os::unix::fs::symlink("target", at)?,
    }
    Ok(())
}

impl System for Kernel {
    fn apply(&mut self, op: &Op) -> Outcome {
        self.try_apply(op).map_err(|error| {
            error
                .raw_os_error()
                .or_else(|| Errno::from_io_error(&error).map(Errno::raw_os_error))
                .expect("an errno")
        })
    }
}

/// The library.
pub(super) struct Ours(pub(super) FileSystem);

impl Ours {
    fn inode(&self, path: &str) -> Result<Inode, Error> {
        path.split('/')
            .try_fold(self.0.root()?, |dir, name| dir.lookup(name.as_bytes()))
    }

    /// The directory of a path and its last component.
    fn place<'a>(&self, path: &'a str) -> Result<(Inode, &'a [u8]), Error> {
        match path.rsplit_once('/') {
            None => Ok((self.0.root()?, path.as_bytes())),
            Some((dir, name)) => Ok((self.inode(dir)?, name.as_bytes())),
        }
    }

    fn set(&self, path: &str, change: &SetAttributes) -> Result<(), Error> {
        self.inode(path)?.set_attributes(change)
    }

    fn try_apply(&self, op: &Op) -> Result<Seen, Error> {
        match op {
            Op::Make(kind, path, mode, umask) => {
                let (dir, name) = self.place(path)?;
                let fifo = if *kind == Kind::Fifo { 0o010_000 } else { 0 };
                let new = New {
                    mode: mode | fifo,
                    umask: *umask,
                    ..New::default()
                };
                match kind {
                    Kind::File => dir.create(name, &new)?,
                    Kind::Dir => dir.mkdir(name, &new)?,
                    Kind::Fifo => dir.mknod(name, &new)?,
                    Kind::Symlink => dir.symlink(name, b"target", &new)?,
                };
            }
            Op::Set(path, name, value, how) => self.inode(path)?.set_xattr(name, value, *how)?,
            Op::Get(path, name) => return self.inode(path)?.xattr(name).map(Seen::Value),
            Op::Remove(path, name) => self.inode(path)?.remove_xattr(name)?,
            Op::List(path) => return self.inode(path)?.list_xattrs().map(sorted),
            Op::Chmod(path, mode) => self.set(
                path,
                &SetAttributes {
                    permissions: Some(*mode),
                    ..SetAttributes::default()
                },
            )?,
            Op::Chown(path, uid, gid) => self.set(
                path,
                &SetAttributes {
                    uid: *uid,
                    gid: *gid,
                    ..SetAttributes::default()
                },
            )?,
            Op::Flags(path, flags) => self
                .inode(path)?
                .set_flags(InodeFlags::from_bits_retain(*flags))?,
            Op::Write(path, pos) => drop(self.inode(path)?.write_at(*pos, &b"written"[..])?),
            Op::Append(path) => drop(self.inode(path)?.append(&b"appended"[..])?),
            Op::Truncate(path, len) => self.inode(path)?.set_len(*len)?,
            Op::Punch(path) => self.inode(path)?.punch_hole(0..1)?,
            Op::Touch(path) => self.set(
                path,
                &SetAttributes {
                    touch: true,
                    ..SetAttributes::default()
                },
            )?,
            Op::Times(path) => self.set(
                path,
                &SetAttributes {
                    modified: Some(Timestamp::from_secs(1_000_000_000)),
                    ..SetAttributes::default()
                },
            )?,
            Op::Link(from, to) => {
                let (dir, name) = self.place(to)?;
                dir.link(name, &self.inode(from)?)?;
            }
            Op::Rename(from, to) => {
                let (dir, name) = self.place(from)?;
                let (to_dir, to_name) = self.place(to)?;
                dir.rename(name, &to_dir, to_name)?;
            }
            Op::Unlink(path) => {
                let (dir, name) = self.place(path)?;
                dir.unlink(name)?;
            }
            Op::Rmdir(path) => {
                let (dir, name) = self.place(path)?;
                dir.rmdir(name)?;
            }
            Op::Stat(path) => {
                let found = self.inode(path)?.attributes()?;
                let mode = u32::from(found.file_type.mode() | found.permissions);
                return Ok(Seen::Stat(
                    mode,
                    found.uid,
                    found.gid,
                    u32::from(found.links),
                ));
            }
        }
        Ok(Seen::Done)
    }
}

impl System for Ours {
    fn apply(&mut self, op: &Op) -> Outcome {
        self.try_apply(op).map_err(Error::errno)
    }
}
