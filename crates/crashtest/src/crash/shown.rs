//! What a mounted file system shows: names, kinds, contents.

use std::collections::BTreeMap;

use ext2dax::{Error, FileSystem, Inode, Metadata};

/// One object as a name shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    /// Type and permission bits.
    pub mode: u32,
    /// Link count.
    pub links: u16,
    /// Bytes, as stat tells; of directories always 0 here, since their size is no promise.
    pub size: u64,
    /// Contents of a file, its first MiB, or target of a symbolic link.
    pub contents: Vec<u8>,
    /// Inode number: two names of one file show the same.
    pub ino: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Extended attributes by name.
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Node {
            mode,
            links,
            size,
            contents,
            ino,
            owner,
            attributes,
        } = self;
        let used = contents
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        let head = contents[..used.min(24)].escape_ascii();
        write!(
            f,
            "inode {ino} of {owner:x?} mode {mode:o} links {links} size {size} \"{head}\""
        )?;
        if used > 24 {
            write!(f, "..{used}")?;
        }
        for (name, value) in attributes {
            let value = value.escape_ascii();
            write!(f, " {}=\"{value}\"", name.escape_ascii())?;
        }
        Ok(())
    }
}

/// Path to node. The root is the empty path.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// Walks everything that the file system shows and reads all of it.
///
/// A name whose inode is dead is left out: that is the residue of a creation that did not happen or a removal that did.
///
/// # Errors
/// Any other error of the file system: whatever is shown must be readable.
pub fn read(fs: &FileSystem) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    let root = fs.metadata("/")?;
    tree.insert(
        Vec::new(),
        node(&root, Vec::new(), attributes(&fs.root()?)?),
    );
    walk(fs, b"/", &mut tree)?;
    Ok(tree)
}

/// All attributes of a file.
fn attributes(inode: &Inode) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    let names = inode.list_xattrs()?;
    names
        .into_iter()
        .map(|name| inode.xattr(&name).map(|value| (name, value)))
        .collect()
}

fn node(metadata: &Metadata, contents: Vec<u8>, attributes: BTreeMap<Vec<u8>, Vec<u8>>) -> Node {
    let size = if metadata.is_dir() { 0 } else { metadata.len() };
    Node {
        mode: metadata.mode(),
        links: metadata.nlink(),
        size,
        contents,
        ino: metadata.ino(),
        owner: (metadata.uid(), metadata.gid()),
        attributes,
    }
}

/// The contents of a file, but for what lies behind the first MiB: sizes are compared, and nobody writes that far.
fn head(fs: &FileSystem, path: &[u8]) -> Result<Vec<u8>, Error> {
    let inode = fs.inode(path)?;
    let len = inode.attributes()?.size.min(1 << 20);
    let mut contents = vec![0; usize::try_from(len).expect("at most a MiB")];
    let mut done = 0;
    while done < contents.len() {
        match inode.read_at(done as u64, &mut contents[done..])? {
            0 => break,
            more => done += more,
        }
    }
    contents.truncate(done);
    Ok(contents)
}

fn walk(fs: &FileSystem, directory: &[u8], tree: &mut Tree) -> Result<(), Error> {
    let inode = fs.inode(directory)?;
    for entry in fs.read_dir(directory)? {
        let entry = entry?;
        let mut path = directory.to_vec();
        path.extend_from_slice(entry.file_name());
        let metadata = match fs.symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(Error::Stale | Error::NotFound) => continue,
            Err(error) => return Err(error),
        };
        let contents = if metadata.is_file() {
            head(fs, &path)?
        } else if metadata.is_symlink() {
            fs.read_link(&path)?
        } else {
            Vec::new()
        };
        let attributes = attributes(&inode.lookup(entry.file_name())?)?;
        tree.insert(path.clone(), node(&metadata, contents, attributes));
        if metadata.is_dir() {
            path.push(b'/');
            walk(fs, &path, tree)?;
        }
    }
    Ok(())
}

/// Where two trees differ in what is promised: names, kinds, permissions, owners, link counts, sizes, contents, attributes.
/// Inode numbers are nobody's business.
pub fn difference(one: &Tree, other: &Tree) -> Option<String> {
    for (path, node) in one {
        let shown = path.escape_ascii();
        match other.get(path) {
            None => return Some(format!("{shown}: {node:?} against nothing")),
            Some(theirs) => {
                let same = node.mode == theirs.mode
                    && node.owner == theirs.owner
                    && node.links == theirs.links
                    && node.size == theirs.size
                    && node.contents == theirs.contents
                    && node.attributes == theirs.attributes;
                if !same {
                    return Some(format!("{shown}: {node:?} against {theirs:?}"));
                }
            }
        }
    }
    let extra = other.iter().find(|(path, _)| !one.contains_key(*path));
    extra.map(|(path, node)| format!("{}: nothing against {node:?}", path.escape_ascii()))
}

/// A link count below the number of names, which no crash may leave: the next removal would free a file in use.
pub fn count_below_names(tree: &Tree) -> Option<String> {
    let mut names: BTreeMap<u32, u32> = BTreeMap::new();
    for node in tree.values() {
        *names.entry(node.ino).or_default() += 1;
    }
    tree.iter()
        .find(|(_, node)| u32::from(node.links) < names[&node.ino])
        .map(|(path, node)| {
            format!(
                "{}: {node:?} has {} names",
                path.escape_ascii(),
                names[&node.ino]
            )
        })
}
