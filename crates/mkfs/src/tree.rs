//! What should be in an image: a tree of names, attributes and where each file's bytes come from.
//!
//! Memory grows with the number of names. The bytes of files stay where they are until the image is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ext2dax_format::device::Device;
use ext2dax_format::xattr::NameIndex;
use ext2dax_format::{FileType, LINK_MAX, NAME_MAX, Timestamp};

use crate::merge::late::Late;
use crate::options::Options;
use crate::source::{Contents, Reader, SourceError, Why};

mod walk;

pub(crate) use walk::Numbered;

/// The number of a node; the root is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub(crate) const ROOT: Self = Self(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Permissions, owner and time of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, with set-user-ID, set-group-ID and sticky: at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, which stands for access and change time, too. `None`: the time of the image.
    pub time: Option<Timestamp>,
}

impl Meta {
    /// Root's, at the time of the image.
    #[must_use]
    pub const fn new(mode: u16) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            time: None,
        }
    }
}

/// An extended attribute, with the value as it lies on the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) index: NameIndex,
    pub(crate) name: Box<[u8]>,
    pub(crate) value: Box<[u8]>,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Body {
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    Regular(Contents),
    Symlink(Box<[u8]>),
    Device(FileType, Device),
    Fifo,
    Socket,
}

impl Body {
    pub(crate) fn kind(&self) -> FileType {
        match self {
            Self::Directory(_) => FileType::Directory,
            Self::Regular(_) => FileType::Regular,
            Self::Symlink(_) => FileType::Symlink,
            Self::Device(kind, _) => *kind,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
        }
    }
}

/// A file of any kind.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) meta: Meta,
    pub(crate) body: Body,
    /// Sorted by prefix number, length and name: the order of an attribute block.
    pub(crate) attributes: Vec<Attribute>,
}

/// The contents of an image to be made: built by hand, or read from directories and archives.
///
/// Paths are bytes, separated by `/`; a leading `/` and components `.` mean nothing, `..` is refused. Directories on the
/// way that are not there yet are made, owned by root with mode 0755. What comes later replaces what was there, but a
/// directory over a directory keeps the names in it.
#[derive(Debug)]
pub struct Tree {
    pub(crate) nodes: Vec<Node>,
    /// What pieces of contents are read from, by number.
    pub(crate) readers: Vec<Reader>,
    /// Bytes of small files, those of a directory together.
    pub(crate) kept: Vec<Vec<u8>>,
    /// Whether somebody said what the root is like.
    root_given: bool,
    /// Directories that only are on the way to something.
    implied: BTreeSet<NodeId>,
    /// Directories that took the place of something else: they are not merged with one of the image.
    alone: BTreeSet<NodeId>,
    /// What layers remove, for an image that is below them all.
    removals: Vec<Removal>,
    /// Whether this goes over an image.
    overlay: bool,
    /// Lines of device tables, of a tree that goes over an image.
    late: Vec<Late>,
}

/// What layers remove from those before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// A name and everything below it.
    Name(Box<[u8]>),
    /// Everything in a directory.
    Inside(Box<[u8]>),
}

impl Removal {
    pub(crate) fn path(&self) -> &[u8] {
        match self {
            Self::Name(path) | Self::Inside(path) => path,
        }
    }

    /// Whether a directory itself stays.
    pub(crate) fn keeps_directory(&self) -> bool {
        matches!(self, Self::Inside(_)) || components(self.path()).eq([&b"lost+found"[..]])
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// An empty root directory, mode 0755, owned by root.
    #[must_use]
    pub fn new() -> Self {
        let root = Node {
            meta: Meta::new(0o755),
            body: Body::Directory(BTreeMap::new()),
            attributes: Vec::new(),
        };
        Self {
            nodes: vec![root],
            readers: Vec::new(),
            kept: Vec::new(),
            root_given: false,
            implied: BTreeSet::new(),
            alone: BTreeSet::new(),
            removals: Vec::new(),
            overlay: false,
            late: Vec::new(),
        }
    }

    /// A tree that goes over a file system that is there (see [`Merging`](crate::Merging)): what it removes, and what
    /// device tables say about files, concerns those of the file system, too.
    #[must_use]
    pub fn overlay() -> Self {
        Self {
            overlay: true,
            ..Self::new()
        }
    }

    pub(crate) fn is_overlay(&self) -> bool {
        self.overlay
    }

    pub(crate) fn root_given(&self) -> bool {
        self.root_given
    }

    /// Whether a directory is there only because something is below it.
    pub(crate) fn is_implied(&self, id: NodeId) -> bool {
        self.implied.contains(&id)
    }

    /// Marks a directory that nobody has described yet.
    pub(crate) fn imply(&mut self, id: NodeId) {
        self.implied.insert(id);
    }

    /// Whether a directory must not be merged with one of the image.
    pub(crate) fn stands_alone(&self, id: NodeId) -> bool {
        self.alone.contains(&id)
    }

    pub(crate) fn removals(&self) -> &[Removal] {
        &self.removals
    }

    pub(crate) fn late(&self) -> &[Late] {
        &self.late
    }

    pub(crate) fn add_late(&mut self, late: Late) {
        self.late.push(late);
    }

    /// Gives the root an owner and mode where the options say more than the tree does.
    pub(crate) fn settle_root(&mut self, options: &Options) {
        let default = Options::default();
        let given = self.root_given;
        let meta = &mut self.node_mut(NodeId::ROOT).meta;
        if !given || options.root_mode != default.root_mode {
            meta.mode = options.root_mode;
        }
        if !given || options.root_owner != default.root_owner {
            (meta.uid, meta.gid) = options.root_owner;
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// Adds a directory, or changes the attributes of one that is there.
    ///
    /// # Errors
    /// See [`SourceError`]: the path cannot be, or leads through something that is no directory.
    pub fn directory(&mut self, path: impl AsRef<[u8]>, meta: Meta) -> Result<(), SourceError> {
        self.put(path.as_ref(), meta, Body::Directory(BTreeMap::new()))?;
        Ok(())
    }

    /// Adds a regular file with these bytes.
    ///
    /// # Errors
    /// As [`Tree::directory`].
    pub fn file(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Meta,
        bytes: impl Into<Box<[u8]>>,
    ) -> Result<(), SourceError> {
        let contents = Contents::bytes(bytes.into());
        self.put(path.as_ref(), meta, Body::Regular(contents))?;
        Ok(())
    }

    /// Adds a regular file with the bytes that `from` has when the image is written.
    ///
    /// # Errors
    /// As [`Tree::directory`], and what the system says about `from`.
    pub fn file_from(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Meta,
        from: impl AsRef<Path>,
    ) -> Result<(), SourceError> {
        let contents = Contents::of_path(from.as_ref())?;
        self.put(path.as_ref(), meta, Body::Regular(contents))?;
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Tree::directory`]; an empty target.
    pub fn symlink(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Meta,
        target: impl Into<Box<[u8]>>,
    ) -> Result<(), SourceError> {
        let target = target.into();
        if target.is_empty() {
            return Err(SourceError::new(path.as_ref(), Why::EmptySymlink));
        }
        self.put(path.as_ref(), meta, Body::Symlink(target))?;
        Ok(())
    }

    /// Adds a FIFO or socket, or a device with its number.
    ///
    /// # Errors
    /// As [`Tree::directory`]; a kind that is no special file; a device number that does not fit.
    pub fn special(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Meta,
        kind: FileType,
        device: Device,
    ) -> Result<(), SourceError> {
        let body = match kind {
            FileType::Fifo => Body::Fifo,
            FileType::Socket => Body::Socket,
            FileType::CharDevice | FileType::BlockDevice if device.encode().is_some() => {
                Body::Device(kind, device)
            }
            FileType::CharDevice | FileType::BlockDevice => {
                return Err(SourceError::new(path.as_ref(), Why::DeviceNumber(device)));
            }
            _ => return Err(SourceError::new(path.as_ref(), Why::NotSpecial)),
        };
        self.put(path.as_ref(), meta, body)?;
        Ok(())
    }

    /// Adds another name of a file that is there.
    ///
    /// # Errors
    /// As [`Tree::directory`]; a target that is missing or a directory.
    pub fn hard_link(
        &mut self,
        path: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
    ) -> Result<(), SourceError> {
        let (path, target) = (path.as_ref(), target.as_ref());
        let missing = || SourceError::new(path, Why::LinkTarget(target.into()));
        let id = self.find(target).ok_or_else(missing)?;
        if matches!(self.node(id).body, Body::Directory(_)) {
            return Err(missing());
        }
        self.place(path, id)
    }

    /// Gives a file an extended attribute: the full name, as `user.mime_type`, and the value as Linux programs see it.
    ///
    /// # Errors
    /// As [`Tree::directory`]; a path that is missing, a name without a known prefix, an ACL that is none.
    pub fn attribute(
        &mut self,
        path: impl AsRef<[u8]>,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), SourceError> {
        let path = path.as_ref();
        let id = self
            .find(path)
            .ok_or_else(|| SourceError::new(path, Why::Missing))?;
        let attribute = crate::attributes::from_linux(name, value)
            .map_err(|why| SourceError::new(path, why))?;
        self.set_attribute(id, attribute);
        Ok(())
    }

    pub(crate) fn set_attribute(&mut self, id: NodeId, attribute: Attribute) {
        let all = &mut self.node_mut(id).attributes;
        match all.binary_search_by(|old| old.order().cmp(&attribute.order())) {
            Ok(at) => all[at] = attribute,
            Err(at) => all.insert(at, attribute),
        }
    }

    /// Removes a name, and everything below it. Whether it was there.
    pub fn remove(&mut self, path: impl AsRef<[u8]>) -> bool {
        let Some((parent, name)) = split(path.as_ref()) else {
            return false;
        };
        if self.overlay {
            self.removals.push(Removal::Name(path.as_ref().into()));
        }
        let Some(parent) = self.find(parent) else {
            return false;
        };
        match &mut self.node_mut(parent).body {
            Body::Directory(names) => names.remove(name).is_some(),
            _ => false,
        }
    }

    /// Removes every name in a directory.
    pub(crate) fn clear(&mut self, path: &[u8]) {
        if self.overlay {
            self.removals.push(Removal::Inside(path.into()));
        }
        if let Some(id) = self.find(path)
            && let Body::Directory(names) = &mut self.node_mut(id).body
        {
            names.clear();
        }
    }

    /// The node at a path; symbolic links are not followed.
    pub(crate) fn find(&self, path: &[u8]) -> Option<NodeId> {
        let mut id = NodeId::ROOT;
        for name in components(path) {
            match &self.node(id).body {
                Body::Directory(names) => id = *names.get(name)?,
                _ => return None,
            }
        }
        Some(id)
    }

    /// Adds or replaces what is at a path.
    pub(crate) fn put(
        &mut self,
        path: &[u8],
        meta: Meta,
        body: Body,
    ) -> Result<NodeId, SourceError> {
        let is_directory = matches!(body, Body::Directory(_));
        if let Some(id) = self.find(path)
            && is_directory
            && matches!(self.node(id).body, Body::Directory(_))
        {
            self.root_given |= id == NodeId::ROOT;
            self.give_directory(id, meta, Vec::new());
            return Ok(id);
        }
        let id = self.push(Node {
            meta,
            body,
            attributes: Vec::new(),
        });
        self.place(path, id)?;
        Ok(id)
    }

    /// Says what a directory that is there is like.
    pub(crate) fn give_directory(&mut self, id: NodeId, meta: Meta, attributes: Vec<Attribute>) {
        self.implied.remove(&id);
        let node = self.node_mut(id);
        node.meta = meta;
        node.attributes = attributes;
    }

    pub(crate) fn push(&mut self, node: Node) -> NodeId {
        let id = u32::try_from(self.nodes.len()).expect("fewer than 2^32 files fit into memory");
        self.nodes.push(node);
        NodeId(id)
    }

    /// Gives a node a name.
    fn place(&mut self, path: &[u8], id: NodeId) -> Result<(), SourceError> {
        let mut parent = NodeId::ROOT;
        let mut names = components(path).peekable();
        if names.peek().is_none() {
            return Err(SourceError::new(path, Why::RootIsDirectory));
        }
        while let Some(name) = names.next() {
            check_name(name).map_err(|why| SourceError::new(path, why))?;
            let last = names.peek().is_none();
            let Body::Directory(inside) = &self.node(parent).body else {
                return Err(SourceError::new(path, Why::ThroughFile));
            };
            match inside.get(name).copied() {
                Some(child) if !last => parent = child,
                _ => {
                    let child = if last {
                        id
                    } else {
                        let id = self.push(Node {
                            meta: Meta::new(0o755),
                            body: Body::Directory(BTreeMap::new()),
                            attributes: Vec::new(),
                        });
                        self.imply(id);
                        id
                    };
                    self.insert(parent, name.into(), child);
                    parent = child;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn insert(&mut self, parent: NodeId, name: Box<[u8]>, child: NodeId) {
        let Body::Directory(names) = &mut self.node_mut(parent).body else {
            return;
        };
        let old = names.insert(name, child);
        if self.overlay
            && let Some(old) = old
            && self.names_of(old).is_none()
            && self.names_of(child).is_some()
        {
            self.alone.insert(child);
        }
    }

    pub(crate) fn names_of(&self, id: NodeId) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match &self.node(id).body {
            Body::Directory(names) => Some(names),
            _ => None,
        }
    }

    /// Names of a directory; nothing for other files.
    pub(crate) fn names(&self, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        self.names_of(id)
            .into_iter()
            .flatten()
            .map(|(name, id)| (&name[..], *id))
    }
}

impl Attribute {
    /// The name as Linux programs see it.
    pub(crate) fn full_name(&self) -> Vec<u8> {
        let mut name = self.index.prefix().unwrap_or("").as_bytes().to_vec();
        name.extend_from_slice(&self.name);
        name
    }

    /// The value as Linux programs see it.
    pub(crate) fn linux_value(&self) -> std::borrow::Cow<'_, [u8]> {
        match self.index {
            NameIndex::AclAccess | NameIndex::AclDefault => {
                crate::attributes::acl::to_linux(&self.value).into()
            }
            _ => (&self.value[..]).into(),
        }
    }

    /// The order in an attribute block.
    pub(crate) fn order(&self) -> (u8, usize, &[u8]) {
        (self.index.raw(), self.name.len(), &self.name)
    }
}

/// The components of a path that mean something.
pub(crate) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

/// A path without its last component, and that.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|&byte| byte != b'/')? + 1;
    let path = &path[..end];
    let from = path
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1);
    Some((&path[..from], &path[from..])).filter(|(_, name)| *name != b"." && *name != b"..")
}

pub(crate) fn check_name(name: &[u8]) -> Result<(), Why> {
    if name == b".." {
        return Err(Why::ClimbsOut);
    }
    if name.len() > NAME_MAX {
        return Err(Why::NameTooLong(name.len()));
    }
    if name.contains(&0) {
        return Err(Why::NulInName);
    }
    Ok(())
}

/// The most names that a file has.
pub(crate) const MAX_LINKS: u32 = LINK_MAX as u32;
