//! Contents into a file system that is there.
//!
//! The names of a [`Tree`] go over those of the image as one layer over another: a name replaces what has it, but
//! directories are merged. Everything happens through the library that mounts images, so that an interruption leaves what
//! a crash of any program on that library leaves. A regular file is written without a name and gets it, in one step, when
//! it is whole: whoever looks finds the old file or the new one.
//!
//! Whether there is room is computed before the first change, in the order in which blocks will be taken and given back.

use std::fmt;

use ext2dax::{FileSystem, Inode};
use ext2dax_format::xattr::NameIndex;
use ext2dax_format::{Compat, FileType, Geometry, RoCompat};

use crate::layout::Needs;
use crate::options::Options;
use crate::source::scan::{self, Holes, Look};
use crate::source::{Lossy, SourceError, Why};
use crate::tree::{Node, NodeId, Numbered, Tree};
use crate::write::Progress;

mod apply;
pub(crate) mod late;
mod survey;
mod walk;

/// How to put a tree into a file system.
///
/// ```
/// use ext2dax::{FileSystem, MountOptions};
/// use ext2dax_mkfs::{Merging, Meta, Options, Tree, make_memory};
///
/// let fs = FileSystem::mount_pmem(make_memory(&Options::default(), 8 << 20)?, &MountOptions::new())?;
/// fs.write("/motd", "old")?;
/// let mut tree = Tree::overlay();
/// tree.file("motd", Meta::new(0o644), *b"new")?;
/// tree.file("etc/passwd", Meta::new(0o644), *b"root")?;
/// let merged = Merging::default().plan(&fs, tree)?.write(&fs, |_| {})?;
/// assert_eq!((merged.files, merged.replaced), (2, 1));
/// assert_eq!(fs.read("/motd")?, b"new");
/// fs.unmount()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Merging {
    /// What becomes a hole.
    pub holes: Holes,
    /// Times of files are lowered to this one, in seconds.
    pub latest: Option<i64>,
    /// Threads that look for holes; 0 stands for 1.
    pub threads: usize,
}

/// What went into a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Names of files that are no directories.
    pub files: u64,
    /// Directories that were not there.
    pub directories: u64,
    /// Names that led to something else before.
    pub replaced: u64,
    /// Names that layers removed, each with all below it.
    pub removed: u64,
    /// Bytes copied, without holes.
    pub bytes: u64,
}

/// A merge that was checked, and nothing of it done yet.
pub struct MergePlan {
    tree: Tree,
    numbered: Numbered,
    latest: Option<i64>,
    needed: (u64, u64),
}

impl fmt::Debug for MergePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergePlan")
            .field("needed", &self.needed)
            .finish_non_exhaustive()
    }
}

/// Why contents did not go into a file system.
#[derive(Debug)]
#[non_exhaustive]
pub enum MergeError {
    /// A file cannot go into this image, or cannot be read.
    Source(SourceError),
    /// The image does not allow something.
    Image {
        /// Path in the image.
        path: Box<[u8]>,
        /// What the library says.
        error: ext2dax::Error,
    },
    /// Too few free blocks or inodes, at the worst moment.
    TooLarge {
        /// KiB that would be taken, about: what directories grow by is estimated.
        needed_kib: u64,
        /// KiB that are free.
        free_kib: u64,
        /// Inodes that would be taken.
        needed_inodes: u64,
        /// Inodes that are free.
        free_inodes: u64,
    },
    /// It failed on the way: what was done stays.
    Halfway {
        /// What is in.
        merged: Merged,
        /// Files and directories in the order of the work that are done with.
        done: u64,
        /// Files and directories in all.
        all: u64,
        /// What happened.
        cause: Box<MergeError>,
    },
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Image { path, error } => write!(f, "/{}: {error}", Lossy(path)),
            Self::TooLarge {
                needed_kib,
                free_kib,
                needed_inodes,
                free_inodes,
            } => write!(
                f,
                "too small: needs {needed_kib} KiB and {needed_inodes} inodes, has {free_kib} KiB and {free_inodes} \
                 inodes free; nothing was changed"
            ),
            Self::Halfway {
                done, all, cause, ..
            } => write!(
                f,
                "{cause}; {done} of {all} files and directories are in, this one and what follows is not"
            ),
        }
    }
}

impl std::error::Error for MergeError {}

impl From<SourceError> for MergeError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

/// An error of the library, with the path that it is about.
fn at(path: &[u8]) -> impl Fn(ext2dax::Error) -> MergeError {
    move |error| MergeError::Image {
        path: path.into(),
        error,
    }
}

impl Merging {
    /// Reads what must be known of the files and checks everything that can be checked beforehand. Nothing changes.
    ///
    /// # Errors
    /// A file that cannot be read or that this image cannot hold; too little room; a directory that must not be changed;
    /// damage.
    pub fn plan(&self, fs: &FileSystem, mut tree: Tree) -> Result<MergePlan, MergeError> {
        let options = options_of(&fs.geometry());
        let numbered = Numbered::new(&mut tree, &options)?;
        for &id in &numbered.order {
            let checked = check_attributes(tree.node(id));
            checked.map_err(|why| SourceError::new(&numbered.path(&tree, id), why))?;
        }
        scan::run(
            &mut tree,
            &numbered.order,
            options.block_size,
            (self.holes, Look::All),
            self.threads.max(1),
        )?;
        // New directories are packed in the order of names, without an index.
        let needs = Needs::new(&tree, &numbered, &options, None, false)?;
        let needed = survey::run(fs, &tree, &numbered, &needs)?;
        Ok(MergePlan {
            tree,
            numbered,
            latest: self.latest,
            needed,
        })
    }
}

impl MergePlan {
    /// Files, directories and links, each counted once.
    #[must_use]
    pub fn files(&self) -> u64 {
        u64::from(self.numbered.count())
    }

    /// Blocks and inodes that the image must have free, about.
    #[must_use]
    pub fn needed(&self) -> (u64, u64) {
        self.needed
    }

    /// Carries it out, on the file system that it was made for, which nobody has changed since: a mount for reading is
    /// enough to plan. What is in when this returns is durable after [`FileSystem::sync`] or an unmount.
    ///
    /// # Errors
    /// [`MergeError::Halfway`]: a file that changed or cannot be read any more, damage, or an estimate of directories that
    /// was too low.
    pub fn write(
        self,
        fs: &FileSystem,
        progress: impl FnMut(Progress),
    ) -> Result<Merged, MergeError> {
        apply::run(&self, fs, progress)
    }
}

/// What the image allows, in the words of one that is to be made.
fn options_of(geometry: &Geometry) -> Options {
    let mut features = geometry.features();
    if geometry.revision() > 0 {
        // The library sets these with the first file that needs them.
        features.compat |= Compat::EXT_ATTR;
        features.ro_compat |= RoCompat::LARGE_FILE;
    }
    Options {
        block_size: geometry.block_size(),
        // The library keeps all attributes of a file in a block.
        inode_size: 128,
        revision: geometry.revision(),
        features,
        ..Options::default()
    }
}

/// The library has Linux's rules about who can have which attribute.
fn check_attributes(node: &Node) -> Result<(), Why> {
    let kind = node.body.kind();
    for attribute in &node.attributes {
        let fits = match attribute.index {
            NameIndex::User => matches!(kind, FileType::Regular | FileType::Directory),
            NameIndex::AclDefault => kind == FileType::Directory,
            NameIndex::AclAccess => kind != FileType::Symlink,
            NameIndex::Trusted | NameIndex::Security => true,
            NameIndex::System | NameIndex::Unknown(_) => false,
        };
        if !fits {
            return Err(Why::AttributeOfKind(attribute.full_name().into()));
        }
    }
    Ok(())
}

/// Whether somebody said what a directory is like, or it only is on the way to something.
fn is_given(tree: &Tree, id: NodeId) -> bool {
    if id == NodeId::ROOT {
        tree.root_given()
    } else {
        !tree.is_implied(id)
    }
}

/// The file at a path; symbolic links are not followed.
fn resolve(fs: &FileSystem, path: &[u8]) -> ext2dax::Result<Option<Inode>> {
    let mut inode = fs.root()?;
    for name in crate::tree::components(path) {
        match find(&inode, name)? {
            Some(next) => inode = next,
            None => return Ok(None),
        }
    }
    Ok(Some(inode))
}

fn find(directory: &Inode, name: &[u8]) -> ext2dax::Result<Option<Inode>> {
    match directory.lookup(name) {
        Ok(inode) => Ok(Some(inode)),
        Err(ext2dax::Error::NotFound | ext2dax::Error::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names in a directory but `.` and `..`; none in anything else.
fn names(directory: &Inode) -> ext2dax::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    if directory.file_type() == FileType::Directory {
        directory.visit_dir(0, |entry| {
            if entry.name != b"." && entry.name != b".." {
                names.push(entry.name.to_vec());
            }
            true
        })?;
    }
    Ok(names)
}
