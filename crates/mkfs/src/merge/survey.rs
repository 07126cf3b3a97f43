//! Whether everything has room, and whether the image allows it, before anything changes.

use std::collections::{HashMap, HashSet};

use ext2dax::{Attributes, FileSystem, Inode, InodeFlags};
use ext2dax_format::{FileType, LINK_MAX, dirent};

use super::late::Late;
use super::walk::{Visitor, walk};
use super::{MergeError, at, find, is_given, resolve};
use crate::layout::Needs;
use crate::source::directory::join;
use crate::source::{SourceError, Why};
use crate::tree::{NodeId, Numbered, Removal, Tree};

/// Blocks and inodes that must be free.
///
/// # Errors
/// See [`super::Merging::plan`].
pub(super) fn run(
    fs: &FileSystem,
    tree: &Tree,
    numbered: &Numbered,
    needs: &Needs,
) -> Result<(u64, u64), MergeError> {
    let mut survey = Survey {
        fs,
        tree,
        numbered,
        needs,
        sectors_per_block: u64::from(fs.geometry().sectors_per_block()),
        blocks: Level::default(),
        inodes: Level::default(),
        made: HashSet::new(),
        gone: HashMap::new(),
        cleared: HashSet::new(),
        removed: HashSet::new(),
    };
    for removal in tree.removals() {
        survey.removal(removal)?;
    }
    let root = fs.root().map_err(at(b""))?;
    survey.check_changeable(&root, b"")?;
    walk(tree, Below::new(Some(root)), &mut survey)?;
    for late in tree.late() {
        survey.late(late)?;
    }
    survey.answer()
}

/// How much of something is in use, beyond what is in use now, and the most at any moment.
#[derive(Default)]
struct Level {
    now: i64,
    most: i64,
}

impl Level {
    fn take(&mut self, count: u64) {
        self.now = self.now.saturating_add_unsigned(count);
        self.most = self.most.max(self.now);
    }

    fn give(&mut self, count: u64) {
        self.now = self.now.saturating_sub_unsigned(count);
    }

    fn most(&self) -> u64 {
        u64::try_from(self.most).unwrap_or(0)
    }
}

struct Survey<'a> {
    fs: &'a FileSystem,
    tree: &'a Tree,
    numbered: &'a Numbered,
    needs: &'a Needs,
    sectors_per_block: u64,
    blocks: Level,
    inodes: Level,
    /// Files with several names that have got one.
    made: HashSet<NodeId>,
    /// Of files of the image, how many of their names go.
    gone: HashMap<u32, u16>,
    /// Directories of the image whose names all go first.
    cleared: HashSet<u32>,
    /// Names that go first, by directory.
    removed: HashSet<(u32, Box<[u8]>)>,
}

/// A directory on the way.
struct Below {
    /// What the image has in its place and keeps.
    old: Option<Inode>,
    /// Names that are added: how many, and their bytes in entries.
    names: u64,
    bytes: u64,
    subdirectories: u32,
}

impl Below {
    fn new(old: Option<Inode>) -> Self {
        Self {
            old,
            names: 0,
            bytes: 0,
            subdirectories: 0,
        }
    }

    fn add(&mut self, name: &[u8]) {
        self.names += 1;
        self.bytes += u64::from(dirent::needed_len(name.len()));
    }
}

impl Survey<'_> {
    fn answer(&self) -> Result<(u64, u64), MergeError> {
        let (blocks, inodes) = (self.blocks.most(), self.inodes.most());
        let stat = self.fs.statfs();
        if blocks > stat.blocks_free || inodes > stat.inodes_free {
            let kib = |blocks: u64| blocks * u64::from(stat.block_size) / 1024;
            return Err(MergeError::TooLarge {
                needed_kib: kib(blocks),
                free_kib: kib(stat.blocks_free),
                needed_inodes: inodes,
                free_inodes: stat.inodes_free,
            });
        }
        Ok((blocks, inodes))
    }

    /// What the image has at a name when it comes to that.
    fn old(&self, directory: &Below, name: &[u8]) -> ext2dax::Result<Option<Inode>> {
        let Some(directory) = &directory.old else {
            return Ok(None);
        };
        let number = directory.number();
        if self.cleared.contains(&number) || self.removed.contains(&(number, name.into())) {
            return Ok(None);
        }
        find(directory, name)
    }

    fn check_changeable(&self, inode: &Inode, path: &[u8]) -> Result<Attributes, MergeError> {
        let attributes = inode.attributes().map_err(at(path))?;
        let kept = InodeFlags::IMMUTABLE | InodeFlags::APPEND;
        if attributes.flags.intersects(kept) {
            return Err(at(path)(ext2dax::Error::NotPermitted));
        }
        Ok(attributes)
    }

    /// A name goes, with all below it; with the last one of a file its blocks come back.
    fn forget(&mut self, inode: Inode, path: &[u8]) -> Result<(), MergeError> {
        let mut pending = vec![(inode, path.to_vec())];
        while let Some((inode, path)) = pending.pop() {
            let attributes = self.check_changeable(&inode, &path)?;
            let is_directory = attributes.file_type == FileType::Directory;
            if is_directory {
                pending.extend(children(&inode, &path)?);
            }
            let gone = self.gone.entry(inode.number()).or_default();
            *gone += 1;
            if is_directory || *gone >= attributes.links {
                self.blocks
                    .give(attributes.sectors / self.sectors_per_block);
                self.inodes.give(1);
            }
        }
        Ok(())
    }

    fn removal(&mut self, removal: &Removal) -> Result<(), MergeError> {
        let path = removal.path();
        let Some(inode) = resolve(self.fs, path).map_err(at(path))? else {
            return Ok(());
        };
        if removal.keeps_directory() {
            for (child, path) in children(&inode, path)? {
                self.forget(child, &path)?;
            }
            self.cleared.insert(inode.number());
        } else if let Some((parent, name)) = crate::tree::split(path)
            && let Some(parent) = resolve(self.fs, parent).map_err(at(path))?
        {
            self.check_changeable(&parent, path)?;
            self.forget(inode, path)?;
            self.removed.insert((parent.number(), name.into()));
        }
        Ok(())
    }

    fn take_if(&mut self, is_new: bool, id: NodeId) {
        if !is_new {
            return;
        }
        let place = self.numbered.place(id) as usize;
        self.blocks.take(u64::from(self.needs.all[place].total()));
        self.inodes.take(1);
    }

    /// Blocks by which a directory grows: what its holes cannot take, half of which are too small, as experience has it.
    fn grow(&mut self, below: &Below, path: &[u8]) -> Result<(), MergeError> {
        let Some(old) = below.old.as_ref().filter(|_| below.names > 0) else {
            return Ok(());
        };
        let size = old.attributes().map_err(at(path))?.size;
        let mut used = 0;
        old.visit_dir(0, |entry| {
            used += u64::from(dirent::needed_len(entry.name.len()));
            true
        })
        .map_err(at(path))?;
        let short = below.bytes.saturating_sub(size.saturating_sub(used) / 2);
        let block_size = u64::from(self.fs.geometry().block_size());
        let usual = below.bytes / below.names;
        let blocks = short.div_ceil(block_size - usual);
        let addresses = block_size / 4;
        self.blocks
            .take(blocks + blocks.div_ceil(addresses).min(blocks));
        Ok(())
    }

    fn late(&mut self, late: &Late) -> Result<(), MergeError> {
        if self.tree.find(&late.path).is_some() {
            return Ok(());
        }
        let mut directory = Below::new(Some(self.fs.root().map_err(at(b""))?));
        for name in crate::tree::components(&late.path) {
            let next = self.old(&directory, name).map_err(at(&late.path))?;
            if next.is_none() && !late.makes() {
                return Err(late.missing().into());
            }
            if next.is_none() {
                self.blocks.take(2);
                self.inodes.take(1);
            }
            directory = Below::new(next);
        }
        if let Some(inode) = &directory.old {
            self.check_changeable(inode, &late.path)?;
            late.check_kind(inode.file_type())?;
        }
        Ok(())
    }
}

/// Everything in a directory but `.` and `..`, with paths; nothing of what is no directory.
fn children(directory: &Inode, path: &[u8]) -> Result<Vec<(Inode, Vec<u8>)>, MergeError> {
    let names = super::names(directory).map_err(at(path))?;
    let open = |name: Vec<u8>| {
        let path = join(path, &name);
        let inode = directory.lookup(&name).map_err(at(&path))?;
        Ok((inode, path))
    };
    names.into_iter().map(open).collect()
}

impl Visitor for Survey<'_> {
    type Directory = Below;
    type Error = MergeError;

    fn enter(
        &mut self,
        directory: &mut Below,
        path: &[u8],
        name: &[u8],
        id: NodeId,
    ) -> Result<Below, MergeError> {
        match self.old(directory, name).map_err(at(path))? {
            Some(old) if old.file_type() == FileType::Directory && !self.tree.stands_alone(id) => {
                self.check_changeable(&old, path)?;
                return Ok(Below::new(Some(old)));
            }
            Some(old) => self.forget(old, path)?,
            None => directory.add(name),
        }
        directory.subdirectories += 1;
        self.take_if(true, id);
        Ok(Below::new(None))
    }

    fn file(
        &mut self,
        directory: &mut Below,
        path: &[u8],
        name: &[u8],
        id: NodeId,
    ) -> Result<(), MergeError> {
        let is_new = self.numbered.links(id) == 1 || self.made.insert(id);
        match self.old(directory, name).map_err(at(path))? {
            // A directory goes first, anything else when the new file has its place.
            Some(old) if old.file_type() == FileType::Directory => {
                self.forget(old, path)?;
                self.take_if(is_new, id);
            }
            Some(old) => {
                self.take_if(is_new, id);
                self.forget(old, path)?;
            }
            None => {
                directory.add(name);
                self.take_if(is_new, id);
            }
        }
        Ok(())
    }

    fn leave(&mut self, below: Below, path: &[u8], id: NodeId) -> Result<(), MergeError> {
        let Some(old) = &below.old else {
            return Ok(());
        };
        let links = u32::from(old.attributes().map_err(at(path))?.links);
        if links + below.subdirectories > u32::from(LINK_MAX) {
            let why = Why::TooManySubdirectories((links + below.subdirectories).saturating_sub(2));
            return Err(SourceError::new(path, why).into());
        }
        if is_given(self.tree, id) && !self.tree.node(id).attributes.is_empty() {
            // The block of attributes that it may not have yet.
            self.blocks.take(1);
        }
        self.grow(&below, path)
    }
}
