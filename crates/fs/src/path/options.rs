//! How a file is opened or made.

use alloc::borrow::Cow;
use alloc::sync::Arc;

use ext2dax_format::{Error, FileType, InodeFlags, Result};

use super::file::{Access, File};
use super::walk::{Last, Walk, check_not_again};
use super::{PathBytes, new_owned};
use crate::inode::lifetime::Handle;
use crate::inode::{Inode, Node};
use crate::mount::{FileSystem, Mount};
use crate::ops;

/// Mode of files that are made without one.
const DEFAULT_FILE_MODE: u16 = 0o644;

/// Options with which a file is opened, as [`std::fs::OpenOptions`](https://doc.rust-lang.org/std/fs/struct.OpenOptions.html)
/// has them, and some that std keeps in `custom_flags`.
///
/// ```
/// # use ext2dax::{FileSystem, OpenOptions, Error};
/// # fn example(fs: &FileSystem) -> Result<(), Error> {
/// let log = OpenOptions::new().append(true).create(true).mode(0o600).open(fs, "/var/log/boot")?;
/// log.write(b"started\n")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the shape of std::fs::OpenOptions: independent switches"
)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    nofollow: bool,
    directory: bool,
    mode: u16,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What an open came upon.
enum Opened {
    /// The file was made here; the handle has been counted since before anybody else could see it.
    Made(Handle),
    Found(Arc<Node>),
}

impl OpenOptions {
    /// Everything off; files are made with mode 0644.
    #[must_use]
    pub fn new() -> Self {
        Self {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            nofollow: false,
            directory: false,
            mode: DEFAULT_FILE_MODE,
        }
    }

    /// Allows reading.
    #[must_use]
    pub fn read(mut self, read: bool) -> Self {
        self.read = read;
        self
    }

    /// Allows writing.
    #[must_use]
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Allows writing, always at the end; each write is one piece with respect to other appends.
    #[must_use]
    pub fn append(mut self, append: bool) -> Self {
        self.append = append;
        self
    }

    /// Empties an existing file. Needs `write`.
    #[must_use]
    pub fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }

    /// Makes the file if there is none. Needs `write` or `append`. A symlink that leads nowhere is followed to where the
    /// file is to be.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Makes the file and fails if the name is taken, even by a symlink. `create` and `truncate` then do not matter.
    #[must_use]
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Refuses a symlink in last place (`O_NOFOLLOW`).
    #[must_use]
    pub fn nofollow(mut self, nofollow: bool) -> Self {
        self.nofollow = nofollow;
        self
    }

    /// Refuses anything but a directory (`O_DIRECTORY`).
    #[must_use]
    pub fn directory(mut self, directory: bool) -> Self {
        self.directory = directory;
        self
    }

    /// Permission bits of a file that is made here.
    #[must_use]
    pub fn mode(mut self, mode: u16) -> Self {
        self.mode = mode & 0o7777;
        self
    }

    fn writes(&self) -> bool {
        self.write || self.append
    }

    fn check(&self) -> Result<()> {
        let makes = self.create || self.create_new;
        let sensible = (self.read || self.writes())
            && (self.writes() || !(makes || self.truncate))
            && !(self.append && self.truncate && !self.create_new)
            && !(self.directory && makes);
        if sensible {
            Ok(())
        } else {
            Err(Error::InvalidArgument)
        }
    }

    /// Opens the file at `path`, making it if these options say so.
    ///
    /// A directory can be opened for reading only, and then for its metadata, times and sync. A device, FIFO or socket
    /// cannot be opened: nothing here drives it.
    ///
    /// # Errors
    /// `InvalidArgument` for options that make no sense together; `NotFound`; `AlreadyExists` with `create_new`;
    /// `IsADirectory`, `NotADirectory`, `TooManySymlinks`, `NameTooLong`; `NotPermitted` by an immutable or append-only
    /// flag; `ReadOnlyFs`; `NotSupported` for special files; and what making a file can fail with.
    pub fn open(&self, fs: &FileSystem, path: impl PathBytes) -> Result<File> {
        self.check()?;
        let mount = &fs.mount;
        if self.writes() {
            mount.core.writable()?;
        }
        let path = path.path_bytes();
        let mut gone = None;
        let (inode, made) = loop {
            let node = match self.find_or_make(mount, path)? {
                Opened::Made(handle) => break (Inode::from_handle(handle), true),
                Opened::Found(node) => node,
            };
            check_not_again(gone.as_ref(), &node)?;
            self.check_node(&node)?;
            match Inode::open(mount, &node) {
                // It was replaced or removed between look-up and handle: what has the name now is what counts.
                Err(Error::NotFound) => gone = Some(node),
                opened => break (opened?, false),
            }
        };
        let node = inode.node();
        let mut file = None;
        if node.file_type() == FileType::Regular && !made {
            let contents = node.file()?;
            if self.truncate && !self.create_new {
                node.set_len(&contents, 0)?;
            }
            if self.read {
                node.note_opened();
            }
            file = Some(contents);
        }
        let access = Access {
            read: self.read,
            write: self.writes(),
            append: self.append,
        };
        Ok(File::new(inode, file, access))
    }

    fn find_or_make(&self, mount: &Arc<Mount>, path: &[u8]) -> Result<Opened> {
        let mut walk = Walk::new(mount);
        let mut place = walk.place(path)?;
        loop {
            // Whoever insists on a new file asks the directory once: making it finds out what is in the way.
            if self.create_new
                && !place.wants_dir
                && let Last::Name(name) = &place.last
            {
                let new = new_owned(mount, self.mode);
                return ops::create(mount, &place.dir, name, &new).map(Opened::Made);
            }
            let found = match walk.find_last(&place) {
                Err(Error::NotFound) if self.create || self.create_new => None,
                found => Some(found?),
            };
            let Some(node) = found else {
                let name = place.name(Error::NotFound)?;
                if place.wants_dir {
                    return Err(Error::IsADirectory);
                }
                let new = new_owned(mount, self.mode);
                match ops::create(mount, &place.dir, name, &new) {
                    // Another thread made it first: then it is there to be opened.
                    Err(Error::AlreadyExists) if !self.create_new => continue,
                    made => return made.map(Opened::Made),
                }
            };
            if self.create_new {
                return Err(Error::AlreadyExists);
            }
            if node.file_type() != FileType::Symlink {
                return if place.wants_dir && !node.is_dir() {
                    Err(Error::NotADirectory)
                } else if (place.wants_dir || place.last == Last::Root) && self.create {
                    Err(Error::IsADirectory)
                } else {
                    Ok(Opened::Found(node))
                };
            }
            if self.nofollow && !place.wants_dir {
                return Err(Error::TooManySymlinks);
            }
            let target = walk.target(&node)?.into_vec();
            let wants_dir = place.wants_dir;
            place = walk.place_from(place.dir, Cow::Owned(target))?;
            place.wants_dir |= wants_dir;
        }
    }

    fn check_node(&self, node: &Node) -> Result<()> {
        match node.file_type() {
            FileType::Directory if self.writes() => return Err(Error::IsADirectory),
            FileType::Directory => return Ok(()),
            _ if self.directory => return Err(Error::NotADirectory),
            FileType::Regular => {}
            _ => return Err(Error::NotSupported),
        }
        let flags = node.flags();
        let forbidden = flags.contains(InodeFlags::IMMUTABLE) && self.writes()
            || flags.contains(InodeFlags::APPEND) && (self.write && !self.append || self.truncate);
        if forbidden {
            Err(Error::NotPermitted)
        } else {
            Ok(())
        }
    }
}
