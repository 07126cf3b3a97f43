//! Inode numbers, link counts, and every limit that a tree can break.

use ext2dax_format::{Compat, RoCompat, indirect};

use super::{Body, MAX_LINKS, Meta, Node, NodeId, Tree};
use crate::options::Options;
use crate::source::{SourceError, Why};

/// The name of the directory that fsck wants.
const LOST_FOUND: &[u8] = b"lost+found";
/// Sizes from here on need the `large_file` feature.
const LARGE_FILE: u64 = 1 << 31;

/// A tree in the order of its inodes: the root, `lost+found`, then directory by directory in the order of names, the
/// files of one directory next to each other.
#[derive(Debug)]
pub(crate) struct Numbered {
    /// Nodes in the order of their inodes; the root has inode 2, the next one the first free inode, and so on.
    pub(crate) order: Vec<NodeId>,
    /// Of each node, its place in `order`; `NOWHERE` for one without a name.
    places: Vec<u32>,
    /// Of each node, the number of its names, or of a directory two and its subdirectories.
    links: Vec<u32>,
    /// Of each node, the directory that has its first name.
    parents: Vec<NodeId>,
}

const NOWHERE: u32 = u32::MAX;

impl Numbered {
    /// Walks through the tree. `lost+found` is added if it is missing.
    ///
    /// # Errors
    /// The first file, in the order of the walk, that ext2 with these options cannot hold.
    pub(crate) fn new(tree: &mut Tree, options: &Options) -> Result<Self, SourceError> {
        let lost_found = match tree.find(LOST_FOUND) {
            Some(id) if tree.names_of(id).is_some() => id,
            Some(_) => return Err(SourceError::new(LOST_FOUND, Why::NotADirectory)),
            None => tree.put(
                LOST_FOUND,
                Meta::new(0o700),
                Body::Directory(Default::default()),
            )?,
        };
        let count = tree.nodes.len();
        let mut numbered = Self {
            order: Vec::with_capacity(count),
            places: vec![NOWHERE; count],
            links: vec![0; count],
            parents: vec![NodeId::ROOT; count],
        };
        numbered.number(NodeId::ROOT, NodeId::ROOT);
        numbered.number(lost_found, NodeId::ROOT);
        let mut directories = vec![NodeId::ROOT];
        while let Some(directory) = directories.pop() {
            let mut inside = Vec::new();
            for (_, child) in tree.names(directory) {
                if matches!(tree.node(child).body, Body::Directory(_)) {
                    inside.push(child);
                } else {
                    numbered.links[child.index()] += 1;
                }
                numbered.number(child, directory);
            }
            let subdirectories = u32::try_from(inside.len()).unwrap_or(u32::MAX);
            numbered.links[directory.index()] = subdirectories.saturating_add(2);
            directories.extend(inside.iter().rev());
        }
        for &id in &numbered.order {
            numbered
                .check(tree, id, options)
                .map_err(|why| SourceError::new(&numbered.path(tree, id), why))?;
        }
        Ok(numbered)
    }

    fn number(&mut self, id: NodeId, parent: NodeId) {
        let place = &mut self.places[id.index()];
        if *place == NOWHERE {
            *place = u32::try_from(self.order.len()).unwrap_or(NOWHERE);
            self.order.push(id);
            self.parents[id.index()] = parent;
        }
    }

    /// Files, the root and `lost+found` included.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.order.len()).unwrap_or(u32::MAX)
    }

    /// Where a node stands in the order of inodes.
    pub(crate) fn place(&self, id: NodeId) -> u32 {
        self.places[id.index()]
    }

    /// The inode of the node at a place, with `first_ino` for the second one.
    pub(crate) fn ino(place: u32, first_ino: u32) -> u32 {
        match place {
            0 => ext2dax_format::Ino::ROOT.get(),
            _ => first_ino + place - 1,
        }
    }

    pub(crate) fn links(&self, id: NodeId) -> u32 {
        self.links[id.index()]
    }

    pub(crate) fn parent(&self, id: NodeId) -> NodeId {
        self.parents[id.index()]
    }

    /// A node's first path, for messages.
    pub(crate) fn path(&self, tree: &Tree, id: NodeId) -> Vec<u8> {
        let mut names = Vec::new();
        let mut id = id;
        while id != NodeId::ROOT {
            let parent = self.parent(id);
            let name = tree.names(parent).find(|(_, child)| *child == id);
            names.push(name.map_or(&b"?"[..], |(name, _)| name));
            id = parent;
        }
        names.reverse();
        let mut path = vec![b'/'];
        path.extend_from_slice(&names.join(&b'/'));
        path
    }

    fn check(&self, tree: &Tree, id: NodeId, options: &Options) -> Result<(), Why> {
        let node = tree.node(id);
        let links = self.links(id);
        match &node.body {
            Body::Directory(_) if links > MAX_LINKS => {
                return Err(Why::TooManySubdirectories(links - 2));
            }
            Body::Directory(_) => {}
            _ if links > MAX_LINKS => return Err(Why::TooManyLinks(links)),
            Body::Regular(contents) => {
                let max = indirect::max_file_size(options.block_size.trailing_zeros());
                if contents.size > max {
                    return Err(Why::FileTooLarge(contents.size, max));
                }
                let large = options.revision > 0
                    && options.features.ro_compat.contains(RoCompat::LARGE_FILE);
                if contents.size >= LARGE_FILE && !large {
                    return Err(Why::NeedsFeature("a file of 2 GiB or more", "large_file"));
                }
            }
            Body::Symlink(target) if target.len() >= options.block_size as usize => {
                let max = options.block_size - 1;
                return Err(Why::SymlinkTooLong(target.len(), max));
            }
            _ => {}
        }
        check_owner(node, options)?;
        let has_attributes =
            options.revision > 0 && options.features.compat.contains(Compat::EXT_ATTR);
        if !node.attributes.is_empty() && !has_attributes {
            return Err(Why::NeedsFeature("an extended attribute", "ext_attr"));
        }
        Ok(())
    }
}

/// The upper halves of owners belong to Linux's part of the inode; revision 0 readers do not look there.
fn check_owner(node: &Node, options: &Options) -> Result<(), Why> {
    let larger = node.meta.uid.max(node.meta.gid);
    if options.revision == 0 && larger > u32::from(u16::MAX) {
        return Err(Why::OwnerTooLarge(larger));
    }
    Ok(())
}
