//! A file that has no name, or not its final one, until it is whole: whoever kills the program finds the old file or
//! the new one.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// The file while it is written.
#[derive(Debug)]
pub(super) struct Aside {
    file: File,
    /// Its name beside the final one, if it has one.
    name: Option<PathBuf>,
    /// The path under which this process can open it.
    path: PathBuf,
}

impl Aside {
    /// Makes an empty file in the folder of `target`.
    pub(super) fn new(target: &Path) -> io::Result<Self> {
        let target = follow(target);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(folder(&target), flags, Mode::from_bits_retain(0o666)) {
            Ok(file) => {
                let file = File::from(file);
                let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
                if path.exists() {
                    return Ok(Self {
                        file,
                        name: None,
                        path,
                    });
                }
            }
            // A file system without nameless files; an old kernel takes the flag for a directory.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let name = beside(&target);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&name)?;
        Ok(Self {
            file,
            path: name.clone(),
            name: Some(name),
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, in place of a file that has it. That one's owner and permissions are kept where the
    /// system allows it.
    pub(super) fn rename_to(mut self, target: &Path) -> io::Result<()> {
        let target = follow(target);
        if let Ok(old) = std::fs::metadata(&target) {
            let _ = std::os::unix::fs::fchown(&self.file, Some(old.uid()), Some(old.gid()));
            let mode = std::fs::Permissions::from_mode(old.mode() & 0o7777);
            self.file.set_permissions(mode)?;
        }
        if self.name.is_none() {
            // A link cannot replace a name, a rename can.
            let name = beside(&target);
            rustix::fs::linkat(CWD, &self.path, CWD, &name, AtFlags::SYMLINK_FOLLOW)?;
            self.name = Some(name);
        }
        if let Some(name) = &self.name {
            std::fs::rename(name, &target)?;
            self.name = None;
        }
        // The name is to last as long as the bytes.
        File::open(folder(&target))?.sync_all()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = std::fs::remove_file(name);
        }
    }
}

/// Where a symbolic link leads: the link stays.
fn follow(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn beside(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    // Long names are cut by nobody: a name of its own is short enough.
    let name = if name.len() > 200 {
        OsString::from(".image")
    } else {
        name
    };
    let mut unique = name;
    unique.push(format!(".{}.part", std::process::id()));
    folder(target).join(unique)
}
