//! A file system in memory that says what each operation must do.
//!
//! It shares nothing with the library: trees of maps, contents as sparse chunks, errors as errno numbers in the order in
//! which Linux finds them.

use std::collections::{BTreeMap, HashMap};

use ext2dax::{FileType, Timestamp};

use crate::tree::{self, Entry, Tree};

mod contents;
mod names;

pub use contents::Contents;

/// Errno numbers that the model answers with.
pub mod errno {
    /// No such file or directory.
    pub const ENOENT: i32 = 2;
    /// File exists.
    pub const EEXIST: i32 = 17;
    /// Not a directory.
    pub const ENOTDIR: i32 = 20;
    /// Is a directory.
    pub const EISDIR: i32 = 21;
    /// Invalid argument.
    pub const EINVAL: i32 = 22;
    /// Directory not empty.
    pub const ENOTEMPTY: i32 = 39;
    /// Operation not permitted.
    pub const EPERM: i32 = 1;
    /// File name too long.
    pub const ENAMETOOLONG: i32 = 36;
    /// No space left on device.
    pub const ENOSPC: i32 = 28;
    /// No such device or address.
    pub const ENXIO: i32 = 6;
    /// Operation not supported.
    pub const EOPNOTSUPP: i32 = 95;
}
use errno::{EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR};

/// Answer of an operation: bytes moved where that makes sense, else 0; or an errno.
pub type Outcome = Result<u64, i32>;

/// What a file is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A regular file.
    File(Contents),
    /// A directory: names and files.
    Dir(BTreeMap<Vec<u8>, FileId>),
    /// A symlink and its target.
    Symlink(Vec<u8>),
    /// Device, FIFO or socket.
    Special(FileType, (u32, u32)),
}

impl Kind {
    /// The type that a directory entry has for it.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        match self {
            Self::File(_) => FileType::Regular,
            Self::Dir(_) => FileType::Directory,
            Self::Symlink(_) => FileType::Symlink,
            Self::Special(file_type, _) => *file_type,
        }
    }
}

/// Names one file of a model for ever.
pub type FileId = u64;

/// One file.
#[derive(Clone, Debug)]
pub struct File {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u16,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time, if it was set and nothing changed since.
    pub modified: Option<Timestamp>,
    /// Access time, likewise.
    pub accessed: Option<Timestamp>,
    links: u64,
    handles: u32,
    /// It was made without a name and has never had one.
    nameless: bool,
    /// What the list that a directory hands down says for owner, group and others.
    default_acl: Option<[u16; 3]>,
}

impl File {
    /// How many names lead here; those of a directory count as in any Unix.
    #[must_use]
    pub fn links(&self) -> u64 {
        self.links
    }
}

/// A path: components from the root on.
pub type Path = Vec<Vec<u8>>;

/// A directory and a name in it, the same again, and the file that the first leads to.
type Ends<'p> = (FileId, &'p Vec<u8>, FileId, &'p Vec<u8>, FileId);

/// A file system in memory.
#[derive(Clone, Debug)]
pub struct Model {
    files: HashMap<FileId, File>,
    next: FileId,
    /// Open handles by slot.
    open: BTreeMap<usize, FileId>,
}

/// The root directory.
const ROOT: FileId = 0;

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// A root directory, mode 0755, and nothing in it.
    #[must_use]
    pub fn new() -> Self {
        let root = File {
            kind: Kind::Dir(BTreeMap::new()),
            mode: 0o755,
            owner: (0, 0),
            modified: None,
            accessed: None,
            links: 2,
            handles: 0,
            nameless: false,
            default_acl: None,
        };
        Self {
            files: HashMap::from([(ROOT, root)]),
            next: 1,
            open: BTreeMap::new(),
        }
    }

    /// Every directory, as a path.
    #[must_use]
    pub fn directories(&self) -> Vec<Path> {
        let mut found = Vec::new();
        let mut pending = vec![(Path::new(), ROOT)];
        while let Some((path, id)) = pending.pop() {
            for (name, &child) in self.names(id) {
                if matches!(self.files[&child].kind, Kind::Dir(_)) {
                    pending.push(([&path[..], core::slice::from_ref(name)].concat(), child));
                }
            }
            found.push(path);
        }
        found.sort();
        found
    }

    /// The names in a directory.
    #[must_use]
    pub fn names_in(&self, path: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.resolve(path).map_or_else(
            |_| Vec::new(),
            |id| self.names(id).keys().cloned().collect(),
        )
    }

    /// Open slots.
    #[must_use]
    pub fn open_slots(&self) -> Vec<usize> {
        self.open.keys().copied().collect()
    }

    /// The file at `path`.
    #[must_use]
    pub fn file(&self, path: &[Vec<u8>]) -> Option<&File> {
        self.resolve(path).ok().map(|id| &self.files[&id])
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// As `lstat`.
    pub fn file_or_err(&self, path: &[Vec<u8>]) -> Result<&File, i32> {
        self.resolve(path).map(|id| &self.files[&id])
    }

    /// What names the file at `path` for ever.
    #[must_use]
    pub fn id(&self, path: &[Vec<u8>]) -> Option<FileId> {
        self.resolve(path).ok()
    }

    /// How many files there are, those without a name included.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Bytes of data, in whole chunks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let held = self.files.values().map(|file| match &file.kind {
            Kind::File(contents) => contents.held(),
            _ => 0,
        });
        held.sum()
    }

    /// The names in the directory at `path`, with their types. A symlink there leads nowhere.
    ///
    /// # Errors
    /// As `opendir`.
    pub fn listing(&self, path: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, FileType)>, i32> {
        match &self.file_or_err(path)?.kind {
            Kind::Dir(names) => Ok(names
                .iter()
                .map(|(name, id)| (name.clone(), self.files[id].kind.file_type()))
                .collect()),
            Kind::Symlink(target) if target.len() > 255 => Err(ENAMETOOLONG),
            Kind::Symlink(_) => Err(ENOENT),
            _ => Err(ENOTDIR),
        }
    }

    fn names(&self, id: FileId) -> &BTreeMap<Vec<u8>, FileId> {
        static NONE: BTreeMap<Vec<u8>, FileId> = BTreeMap::new();
        match &self.files[&id].kind {
            Kind::Dir(names) => names,
            _ => &NONE,
        }
    }

    fn names_mut(&mut self, id: FileId) -> &mut BTreeMap<Vec<u8>, FileId> {
        let file = self
            .files
            .get_mut(&id)
            .expect("a directory that was resolved");
        file.modified = None;
        match &mut file.kind {
            Kind::Dir(names) => names,
            _ => panic!("not a directory"),
        }
    }

    fn resolve(&self, path: &[Vec<u8>]) -> Result<FileId, i32> {
        let mut here = ROOT;
        for name in path {
            let Kind::Dir(names) = &self.files[&here].kind else {
                return Err(ENOTDIR);
            };
            if name.len() > 255 {
                return Err(ENAMETOOLONG);
            }
            here = *names.get(name).ok_or(ENOENT)?;
        }
        Ok(here)
    }

    fn parent<'p>(&self, path: &'p [Vec<u8>]) -> Result<(FileId, &'p Vec<u8>), i32> {
        let (dir, name) = self.directory(path)?;
        if name.len() > 255 {
            return Err(ENAMETOOLONG);
        }
        Ok((dir, name))
    }

    /// The directory that a path's last name is in or would be.
    fn directory<'p>(&self, path: &'p [Vec<u8>]) -> Result<(FileId, &'p Vec<u8>), i32> {
        let (name, dir) = path.split_last().expect("no operation on the root's name");
        let dir = self.resolve(dir)?;
        if !matches!(self.files[&dir].kind, Kind::Dir(_)) {
            return Err(ENOTDIR);
        }
        Ok((dir, name))
    }

    /// Both ends of a rename and the file that moves. The new name is looked at last.
    fn ends<'p>(&self, from: &'p [Vec<u8>], to: &'p [Vec<u8>]) -> Result<Ends<'p>, i32> {
        let (from_dir, from_name) = self.directory(from)?;
        let (to_dir, to_name) = self.directory(to)?;
        if from_name.len() > 255 {
            return Err(ENAMETOOLONG);
        }
        let id = *self.names(from_dir).get(from_name).ok_or(ENOENT)?;
        if to_name.len() > 255 {
            return Err(ENAMETOOLONG);
        }
        Ok((from_dir, from_name, to_dir, to_name, id))
    }

    /// Copies bytes inside the file system.
    ///
    /// # Errors
    /// As `copy_file_range`: `EINVAL` where the ranges of one file meet.
    pub fn copy_range(
        &mut self,
        from: &[Vec<u8>],
        at: u64,
        to: &[Vec<u8>],
        to_at: u64,
        len: u64,
    ) -> Outcome {
        let size = self.contents(from)?.size();
        self.contents(to)?;
        let len = len.min(size.saturating_sub(at));
        if self.resolve(from)? == self.resolve(to)? && to_at + len > at && to_at < at + len {
            return Err(EINVAL);
        }
        let bytes = self
            .contents(from)?
            .read(at, usize::try_from(len).expect("small"));
        if len > 0 {
            self.contents_mut(to)?.write(to_at, &bytes);
        }
        Ok(len)
    }

    /// The contents at `path`.
    ///
    /// # Errors
    /// As [`Model::contents_mut`].
    pub fn contents(&self, path: &[Vec<u8>]) -> Result<&Contents, i32> {
        match &self.file_or_err(path)?.kind {
            Kind::File(contents) => Ok(contents),
            Kind::Dir(_) => Err(EISDIR),
            _ => Err(EINVAL),
        }
    }

    /// The contents at `path`, to be changed.
    ///
    /// # Errors
    /// `EISDIR` for a directory, `EINVAL` for what has no contents.
    pub fn contents_mut(&mut self, path: &[Vec<u8>]) -> Result<&mut Contents, i32> {
        let id = self.resolve(path)?;
        let file = self.file_mut(id);
        match &mut file.kind {
            Kind::File(contents) => {
                file.modified = None;
                Ok(contents)
            }
            Kind::Dir(_) => Err(EISDIR),
            _ => Err(EINVAL),
        }
    }

    /// Opens a file in a slot.
    ///
    /// # Errors
    /// As [`Model::contents_mut`].
    pub fn open(&mut self, slot: usize, path: &[Vec<u8>]) -> Outcome {
        let id = self.resolve(path)?;
        match self.files[&id].kind {
            Kind::File(_) => {}
            Kind::Dir(_) => return Err(EISDIR),
            _ => return Err(EINVAL),
        }
        self.close(slot);
        self.file_mut(id).handles += 1;
        self.open.insert(slot, id);
        Ok(0)
    }

    /// Closes a slot, if it is open.
    pub fn close(&mut self, slot: usize) {
        let Some(id) = self.open.remove(&slot) else {
            return;
        };
        let file = self.file_mut(id);
        file.handles -= 1;
        if file.handles == 0 && file.links == 0 {
            self.files.remove(&id);
        }
    }

    /// The file that is open in a slot.
    #[must_use]
    pub fn open_file(&self, slot: usize) -> Option<&File> {
        Some(&self.files[self.open.get(&slot)?])
    }

    /// The contents of an open slot.
    #[must_use]
    pub fn open_contents(&mut self, slot: usize) -> Option<&mut Contents> {
        let id = *self.open.get(&slot)?;
        let file = self.file_mut(id);
        file.modified = None;
        match &mut file.kind {
            Kind::File(contents) => Some(contents),
            _ => None,
        }
    }

    /// A file has got a list, which says `bits` for owner, group and others, or a directory one to hand down.
    pub fn set_acl(&mut self, path: &[Vec<u8>], default: bool, bits: Option<[u16; 3]>) {
        let Ok(id) = self.resolve(path) else { return };
        let file = self.file_mut(id);
        if default {
            file.default_acl = bits;
        } else if let Some([user, group, others]) = bits {
            file.mode = file.mode & 0o7000 | user << 6 | group << 3 | others;
        }
    }

    /// Sets mode, owner or times.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    pub fn change(&mut self, path: &[Vec<u8>], change: impl FnOnce(&mut File)) -> Outcome {
        let id = self.resolve(path)?;
        change(self.file_mut(id));
        Ok(0)
    }

    /// The tree as any reader should see it. Names in the root that a driver puts there itself are the caller's to drop.
    #[must_use]
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut pending = vec![(Vec::new(), ROOT)];
        while let Some((path, id)) = pending.pop() {
            for (name, &child) in self.names(id) {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                pending.push(([&path[..], slash, name].concat(), child));
            }
            tree.insert(path, self.entry(id));
        }
        tree
    }

    fn entry(&self, id: FileId) -> Entry {
        let file = &self.files[&id];
        let (file_type, size, digest, device) = match &file.kind {
            Kind::File(contents) => (FileType::Regular, contents.size(), contents.digest(), None),
            Kind::Dir(_) => (FileType::Directory, 0, tree::EMPTY_DIGEST, None),
            Kind::Symlink(target) => (
                FileType::Symlink,
                target.len() as u64,
                tree::digest(target),
                None,
            ),
            Kind::Special(file_type, device) => {
                let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
                (
                    *file_type,
                    0,
                    tree::EMPTY_DIGEST,
                    is_device.then_some(*device),
                )
            }
        };
        Entry {
            file_type,
            mode: file.mode,
            owner: file.owner,
            links: file.links,
            size,
            digest,
            data: None,
            device,
            modified: file.modified,
            accessed: file.accessed,
            changed: None,
            attributes: None,
            identity: id,
        }
    }
}
