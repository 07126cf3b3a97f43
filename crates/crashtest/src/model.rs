//! A file system in memory that says what each operation must do.
//!
//! It shares nothing with the library: trees of maps, contents as sparse chunks, errors as errno numbers in the order in
//! which Linux finds them.

use std::collections::{BTreeMap, HashMap};

use ext2dax::{FileType, RenameFlags, Timestamp};

use crate::tree::{self, CHUNK, Entry, Tree};

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
use errno::{EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM};

/// Answer of an operation: bytes moved where that makes sense, else 0; or an errno.
pub type Outcome = Result<u64, i32>;

/// Contents of a regular file: chunks that are not there are zero.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    chunks: BTreeMap<u64, Box<[u8]>>,
    size: u64,
}

impl Contents {
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes `bytes` at `at`.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut at = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = usize::try_from(at % CHUNK).expect("less than a chunk");
            let len = rest.len().min(CHUNK as usize - within);
            let chunk = self
                .chunks
                .entry(at / CHUNK)
                .or_insert_with(|| vec![0; CHUNK as usize].into());
            chunk[within..within + len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            at += len as u64;
        }
        self.size = self.size.max(at);
    }

    /// Makes the bytes from `at` to `end` zero, as far as they lie inside.
    pub fn zero(&mut self, at: u64, end: u64) {
        let end = end.min(self.size);
        if at >= end {
            return;
        }
        let touched: Vec<u64> = self
            .chunks
            .range(at / CHUNK..=(end - 1) / CHUNK)
            .map(|(&index, _)| index)
            .collect();
        for index in touched {
            let start = index * CHUNK;
            let from = usize::try_from(at.max(start) - start).expect("less than a chunk");
            let to = usize::try_from(end.min(start + CHUNK) - start).expect("at most a chunk");
            if let Some(chunk) = self.chunks.get_mut(&index) {
                chunk[from..to].fill(0);
            }
        }
    }

    /// Cuts off or extends.
    pub fn set_len(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size);
            self.chunks.retain(|&index, _| index * CHUNK < size);
        }
        self.size = size;
    }

    /// The bytes from `at` on, at most `len`.
    #[must_use]
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let len = usize::try_from(self.size.saturating_sub(at))
            .unwrap_or(len)
            .min(len);
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let pos = at + done as u64;
            let within = usize::try_from(pos % CHUNK).expect("less than a chunk");
            let step = (len - done).min(CHUNK as usize - within);
            if let Some(chunk) = self.chunks.get(&(pos / CHUNK)) {
                bytes[done..done + step].copy_from_slice(&chunk[within..within + step]);
            }
            done += step;
        }
        bytes
    }

    fn digest(&self) -> u32 {
        self.chunks
            .iter()
            .fold(tree::EMPTY_DIGEST, |digest, (&index, chunk)| {
                let start = index * CHUNK;
                let len = usize::try_from((self.size - start).min(CHUNK)).expect("at most a chunk");
                digest ^ tree::chunk_digest(start, &chunk[..len])
            })
    }
}

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
        let chunks = self.files.values().map(|file| match &file.kind {
            Kind::File(contents) => contents.chunks.len() as u64,
            _ => 0,
        });
        chunks.sum::<u64>() * CHUNK
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

    /// Makes a file of any kind.
    ///
    /// # Errors
    /// As the system call for that kind.
    pub fn make(&mut self, path: &[Vec<u8>], kind: Kind, mode: u16, owner: (u32, u32)) -> Outcome {
        let (dir, name) = self.parent(path)?;
        if self.names(dir).contains_key(name) {
            return Err(EEXIST);
        }
        let file = self.born(dir, kind, mode, owner);
        let is_dir = matches!(file.kind, Kind::Dir(_));
        let id = self.add(file);
        self.names_mut(dir).insert(name.clone(), id);
        if is_dir {
            self.file_mut(dir).links += 1;
        }
        Ok(0)
    }

    /// Makes a regular file without a name, as if in the directory at `path`, and opens it in a slot.
    ///
    /// # Errors
    /// As `open` with `O_TMPFILE`.
    pub fn make_nameless(
        &mut self,
        slot: usize,
        path: &[Vec<u8>],
        mode: u16,
        owner: (u32, u32),
    ) -> Outcome {
        self.listing(path)?;
        let dir = self.resolve(path)?;
        let mut file = self.born(dir, Kind::File(Contents::default()), mode, owner);
        (file.links, file.handles, file.nameless) = (0, 1, true);
        let id = self.add(file);
        self.close(slot);
        self.open.insert(slot, id);
        Ok(0)
    }

    fn add(&mut self, file: File) -> FileId {
        let id = self.next;
        self.next += 1;
        self.files.insert(id, file);
        id
    }

    /// A new file as its directory makes it, before it has its name there.
    fn born(&self, dir: FileId, kind: Kind, mode: u16, owner: (u32, u32)) -> File {
        let is_dir = matches!(kind, Kind::Dir(_));
        let parent = &self.files[&dir];
        // A set-group-id directory hands its group down, and the bit itself to directories.
        let handed_down = parent.mode & 0o2000;
        let group = match handed_down {
            0 => owner.1,
            _ => parent.owner.1,
        };
        let mode = if is_dir { mode | handed_down } else { mode };
        // A list that is handed down takes from the mode what it does not grant.
        let default_acl = parent.default_acl;
        let mode = match default_acl {
            Some([user, group, others]) if !matches!(kind, Kind::Symlink(_)) => {
                mode & (0o7000 | user << 6 | group << 3 | others)
            }
            _ => mode,
        };
        File {
            kind,
            mode,
            owner: (owner.0, group),
            modified: None,
            accessed: None,
            links: if is_dir { 2 } else { 1 },
            handles: 0,
            nameless: false,
            default_acl: if is_dir { default_acl } else { None },
        }
    }

    fn file_mut(&mut self, id: FileId) -> &mut File {
        self.files.get_mut(&id).expect("a file that was resolved")
    }

    fn drop_link(&mut self, id: FileId) {
        let file = self.file_mut(id);
        file.links -= 1;
        if file.links == 0 && file.handles == 0 {
            self.files.remove(&id);
        }
    }

    /// Removes a name that is no directory's.
    ///
    /// # Errors
    /// As `unlink`.
    pub fn unlink(&mut self, path: &[Vec<u8>]) -> Outcome {
        let (dir, name) = self.parent(path)?;
        let id = *self.names(dir).get(name).ok_or(ENOENT)?;
        if matches!(self.files[&id].kind, Kind::Dir(_)) {
            return Err(EISDIR);
        }
        self.names_mut(dir).remove(name);
        self.drop_link(id);
        Ok(0)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As `rmdir`.
    pub fn rmdir(&mut self, path: &[Vec<u8>]) -> Outcome {
        let (dir, name) = self.parent(path)?;
        let id = *self.names(dir).get(name).ok_or(ENOENT)?;
        match &self.files[&id].kind {
            Kind::Dir(names) if names.is_empty() => {}
            Kind::Dir(_) => return Err(ENOTEMPTY),
            _ => return Err(ENOTDIR),
        }
        self.names_mut(dir).remove(name);
        self.files.remove(&id);
        self.file_mut(dir).links -= 1;
        Ok(0)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// As `link`.
    pub fn link(&mut self, from: &[Vec<u8>], to: &[Vec<u8>]) -> Outcome {
        let id = self.resolve(from)?;
        let (dir, name) = self.parent(to)?;
        if self.names(dir).contains_key(name) {
            return Err(EEXIST);
        }
        if matches!(self.files[&id].kind, Kind::Dir(_)) {
            return Err(EPERM);
        }
        self.names_mut(dir).insert(name.clone(), id);
        self.file_mut(id).links += 1;
        Ok(0)
    }

    /// Gives the file that is open in a slot another name, its first one perhaps.
    ///
    /// # Errors
    /// As `linkat` of a file without a name: `ENOENT` where the last one has gone.
    pub fn link_open(&mut self, slot: usize, to: &[Vec<u8>]) -> Outcome {
        let Some(&id) = self.open.get(&slot) else {
            return Ok(0);
        };
        let (dir, name) = self.parent(to)?;
        if self.names(dir).contains_key(name) {
            return Err(EEXIST);
        }
        let file = self.file_mut(id);
        if file.links == 0 && !file.nameless {
            return Err(ENOENT);
        }
        file.links += 1;
        file.nameless = false;
        self.names_mut(dir).insert(name.clone(), id);
        Ok(0)
    }

    /// Moves a name.
    ///
    /// # Errors
    /// As `rename`.
    pub fn rename(&mut self, from: &[Vec<u8>], to: &[Vec<u8>]) -> Outcome {
        let (from_dir, from_name, to_dir, to_name, id) = self.ends(from, to)?;
        if to.len() > from.len() && to.starts_with(from) {
            return Err(EINVAL);
        }
        if from.len() > to.len() && from.starts_with(to) {
            return Err(ENOTEMPTY);
        }
        let is_dir = matches!(self.files[&id].kind, Kind::Dir(_));
        let target = self.names(to_dir).get(to_name).copied();
        if target == Some(id) {
            return Ok(0);
        }
        if let Some(target) = target {
            match &self.files[&target].kind {
                Kind::Dir(_) if !is_dir => return Err(EISDIR),
                Kind::Dir(names) if !names.is_empty() => return Err(ENOTEMPTY),
                Kind::Dir(_) => {
                    self.files.remove(&target);
                    self.file_mut(to_dir).links -= 1;
                }
                _ if is_dir => return Err(ENOTDIR),
                _ => self.drop_link(target),
            }
        }
        self.names_mut(from_dir).remove(from_name);
        self.names_mut(to_dir).insert(to_name.clone(), id);
        if from_dir != to_dir {
            self.moved(id, from_dir, to_dir);
        }
        Ok(0)
    }

    /// Moves a name as `how` says.
    ///
    /// # Errors
    /// As `renameat2`.
    pub fn rename_with(&mut self, from: &[Vec<u8>], to: &[Vec<u8>], how: RenameFlags) -> Outcome {
        if how == RenameFlags::Replace {
            return self.rename(from, to);
        }
        let (from_dir, from_name, to_dir, to_name, id) = self.ends(from, to)?;
        let target = self.names(to_dir).get(to_name).copied();
        if how == RenameFlags::NoReplace {
            return match target {
                Some(_) => Err(EEXIST),
                None => self.rename(from, to),
            };
        }
        let target = target.ok_or(ENOENT)?;
        if (to.len() > from.len() && to.starts_with(from))
            || (from.len() > to.len() && from.starts_with(to))
        {
            return Err(EINVAL);
        }
        if target == id {
            return Ok(0);
        }
        self.names_mut(from_dir).insert(from_name.clone(), target);
        self.names_mut(to_dir).insert(to_name.clone(), id);
        if from_dir != to_dir {
            self.moved(id, from_dir, to_dir);
            self.moved(target, to_dir, from_dir);
        }
        Ok(0)
    }

    /// A file has moved to another directory: if it is one itself, the links of both parents and its `..` change.
    fn moved(&mut self, id: FileId, from_dir: FileId, to_dir: FileId) {
        if matches!(self.files[&id].kind, Kind::Dir(_)) {
            self.file_mut(from_dir).links -= 1;
            self.file_mut(to_dir).links += 1;
            // The entry `..` changes, and with it what some drivers call the contents.
            self.file_mut(id).modified = None;
        }
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
            Kind::File(contents) => (FileType::Regular, contents.size, contents.digest(), None),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_cut_and_extended_read_zero_in_between() {
        let mut contents = Contents::default();
        contents.write(CHUNK - 2, b"abcd");
        contents.set_len(CHUNK + 1);
        contents.set_len(CHUNK + 4);
        assert_eq!(contents.read(CHUNK - 2, 10), b"abc\0\0\0");
        contents.zero(CHUNK - 1, CHUNK);
        assert_eq!(contents.read(CHUNK - 2, 3), b"a\0c");
    }

    #[test]
    fn a_directory_cannot_move_below_itself() {
        let mut model = Model::new();
        let path = |text: &str| {
            text.split('/')
                .map(|name| name.as_bytes().to_vec())
                .collect::<Path>()
        };
        let dir = || Kind::Dir(BTreeMap::new());
        model.make(&path("a"), dir(), 0o755, (0, 0)).unwrap();
        model.make(&path("a/b"), dir(), 0o755, (0, 0)).unwrap();
        assert_eq!(model.rename(&path("a"), &path("a/b/c")), Err(EINVAL));
        assert_eq!(model.rename(&path("a/b"), &path("a")), Err(ENOTEMPTY));
    }
}
