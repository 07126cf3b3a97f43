//! Carrying a merge out.

use std::collections::HashMap;

use ext2dax::{Error, FileSystem, Inode, New, SetAttributes, SetXattr};
use ext2dax_format::{FileType, Timestamp};

use super::late::{Late, What};
use super::walk::{Visitor, walk};
use super::{MergeError, MergePlan, Merged, at, find, is_given, names, resolve};
use crate::source::directory::join;
use crate::source::{Contents, SourceError, Why};
use crate::tree::{Body, Meta, Node, NodeId, Removal};
use crate::write::Progress;

/// The name that a new file has for a moment while it takes the place of another.
const ASIDE: &str = ".ext2dax-merge";
/// Bytes copied at a time.
const BUFFER: usize = 1 << 20;

pub(super) fn run(
    plan: &MergePlan,
    fs: &FileSystem,
    progress: impl FnMut(Progress),
) -> Result<Merged, MergeError> {
    let mut apply = Apply {
        plan,
        fs,
        made: HashMap::new(),
        buffer: Vec::new(),
        merged: Merged::default(),
        done: 0,
        progress,
    };
    match apply.all() {
        Ok(()) => Ok(apply.merged),
        Err(cause) => Err(MergeError::Halfway {
            merged: apply.merged,
            done: apply.done,
            all: plan.files(),
            cause: Box::new(cause),
        }),
    }
}

struct Apply<'a, P> {
    plan: &'a MergePlan,
    fs: &'a FileSystem,
    /// Inodes of files with several names that have got one.
    made: HashMap<NodeId, u32>,
    buffer: Vec<u8>,
    merged: Merged,
    done: u64,
    progress: P,
}

/// A directory on the way.
struct Below {
    inode: Inode,
    /// Whether it was not there before.
    made: bool,
}

impl<P: FnMut(Progress)> Apply<'_, P> {
    fn all(&mut self) -> Result<(), MergeError> {
        for removal in self.plan.tree.removals() {
            self.removal(removal)?;
        }
        let root = Below {
            inode: self.fs.root().map_err(at(b""))?,
            made: false,
        };
        walk(&self.plan.tree, root, self)?;
        for late in self.plan.tree.late() {
            self.late(late)?;
        }
        Ok(())
    }

    fn step(&mut self) {
        self.done += 1;
        let (done, all) = (self.done, self.plan.files());
        (self.progress)(Progress { done, all });
    }

    fn removal(&mut self, removal: &Removal) -> Result<(), MergeError> {
        let path = removal.path();
        let Some(inode) = resolve(self.fs, path).map_err(at(path))? else {
            return Ok(());
        };
        if removal.keeps_directory() {
            for name in names(&inode).map_err(at(path))? {
                self.remove(&inode, &join(path, &name), &name)?;
                self.merged.removed += 1;
            }
        } else if let Some((parent, name)) = crate::tree::split(path)
            && let Some(parent) = resolve(self.fs, parent).map_err(at(path))?
        {
            self.remove(&parent, path, name)?;
            self.merged.removed += 1;
        }
        Ok(())
    }

    /// Removes a name with all below it.
    fn remove(&self, parent: &Inode, path: &[u8], name: &[u8]) -> Result<(), MergeError> {
        match parent.unlink(name) {
            Err(Error::IsADirectory) => self.fs.remove_dir_all(path).map_err(at(path)),
            done => done.map_err(at(path)),
        }
    }

    /// What a new file is made with; the rest is set when it is there.
    fn new_of(node: &Node) -> New {
        let device = match &node.body {
            Body::Device(_, device) => (device.major, device.minor),
            _ => (0, 0),
        };
        New {
            mode: node.body.kind().mode() | node.meta.mode,
            umask: 0,
            uid: node.meta.uid,
            gid: node.meta.gid,
            device,
        }
    }

    /// Gives a name to a file that `make` makes under it, or under another from which it then takes the place of what has
    /// the name.
    fn put(
        &mut self,
        directory: &Inode,
        path: &[u8],
        name: &[u8],
        make: impl Fn(&[u8]) -> ext2dax::Result<()>,
    ) -> Result<(), MergeError> {
        let Some(old) = find(directory, name).map_err(at(path))? else {
            return make(name).map_err(at(path));
        };
        self.merged.replaced += 1;
        if old.file_type() == FileType::Directory {
            self.remove(directory, path, name)?;
            return make(name).map_err(at(path));
        }
        drop(old);
        let mut nr = 0;
        let aside = loop {
            let aside = match nr {
                0 => ASIDE.to_owned(),
                _ => format!("{ASIDE}.{nr}"),
            };
            match make(aside.as_bytes()) {
                // Somebody's file, or what an interruption left.
                Err(Error::AlreadyExists) if nr < 1000 => nr += 1,
                made => {
                    made.map_err(at(path))?;
                    break aside;
                }
            }
        };
        let renamed = directory.rename(aside.as_bytes(), directory, name);
        renamed.map_err(|error| {
            let _ = directory.unlink(aside.as_bytes());
            at(path)(error)
        })
    }

    /// Owner, attributes, permissions and times, in an order in which none takes back what another gave.
    fn dress(&self, inode: &Inode, node: &Node, path: &[u8]) -> Result<(), MergeError> {
        let owner = SetAttributes {
            uid: Some(node.meta.uid),
            gid: Some(node.meta.gid),
            ..SetAttributes::default()
        };
        inode.set_attributes(&owner).map_err(at(path))?;
        // What a directory handed down, or what the old one had.
        for name in inode.list_xattrs().map_err(at(path))? {
            if node
                .attributes
                .iter()
                .all(|wanted| wanted.full_name() != name)
            {
                inode.remove_xattr(&name).map_err(at(path))?;
            }
        }
        self.give_attributes(inode, node, path)?;
        let is_symlink = inode.file_type() == FileType::Symlink;
        let time = self.time(&node.meta);
        let rest = SetAttributes {
            permissions: (!is_symlink).then_some(node.meta.mode),
            accessed: time,
            modified: time,
            ..SetAttributes::default()
        };
        inode.set_attributes(&rest).map_err(at(path))
    }

    fn give_attributes(&self, inode: &Inode, node: &Node, path: &[u8]) -> Result<(), MergeError> {
        for attribute in &node.attributes {
            let value = attribute.linux_value();
            inode
                .set_xattr(&attribute.full_name(), &value, SetXattr::Any)
                .map_err(at(path))?;
        }
        Ok(())
    }

    fn time(&self, meta: &Meta) -> Option<Timestamp> {
        match (meta.time, self.plan.latest) {
            (Some(time), Some(latest)) if time.secs >= latest => Some(Timestamp::from_secs(latest)),
            (time, _) => time,
        }
    }

    /// A regular file without a name, whole.
    fn regular(
        &mut self,
        directory: &Inode,
        path: &[u8],
        node: &Node,
        contents: &Contents,
    ) -> Result<Inode, MergeError> {
        let inode = directory.tmpfile(&Self::new_of(node)).map_err(at(path))?;
        self.copy(&inode, path, contents)?;
        self.dress(&inode, node, path)?;
        Ok(inode)
    }

    fn copy(&mut self, inode: &Inode, path: &[u8], contents: &Contents) -> Result<(), MergeError> {
        let block_size = u64::from(self.fs.geometry().block_size());
        let mut end = 0;
        if !contents.blocks.is_empty() {
            self.buffer.resize(BUFFER, 0);
            let open = contents.open(&self.plan.tree)?;
            for run in &contents.blocks {
                let mut pos = u64::from(run.start) * block_size;
                end = (run.end() * block_size).min(contents.size);
                while pos < end {
                    let step = usize::try_from(end - pos).unwrap_or(BUFFER).min(BUFFER);
                    let bytes = &mut self.buffer[..step];
                    open.read_at(pos, bytes)?;
                    write_all(inode, pos, bytes).map_err(at(path))?;
                    pos += step as u64;
                    self.merged.bytes += step as u64;
                }
            }
            open.check_unchanged()?;
        }
        if end < contents.size {
            inode.set_len(contents.size).map_err(at(path))?;
        }
        Ok(())
    }

    fn late(&mut self, late: &Late) -> Result<(), MergeError> {
        let path = &late.path[..];
        let mut found = resolve(self.fs, path).map_err(at(path))?;
        if found.is_none() && late.makes() {
            self.fs.create_dir_all(path).map_err(at(path))?;
            self.merged.directories += 1;
            found = resolve(self.fs, path).map_err(at(path))?;
        }
        let inode = found.ok_or_else(|| late.missing())?;
        late.check_kind(inode.file_type())?;
        match &late.what {
            What::Attribute(attribute) => inode
                .set_xattr(
                    &attribute.full_name(),
                    &attribute.linux_value(),
                    SetXattr::Any,
                )
                .map_err(at(path)),
            What::File | What::Directory => late.change(&inode).map_err(at(path)),
            What::Recursive => {
                let mut pending = vec![inode];
                while let Some(inode) = pending.pop() {
                    for name in names(&inode).map_err(at(path))? {
                        pending.push(inode.lookup(&name).map_err(at(path))?);
                    }
                    late.change(&inode).map_err(at(path))?;
                }
                Ok(())
            }
        }
    }
}

fn write_all(inode: &Inode, pos: u64, bytes: &[u8]) -> ext2dax::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match inode.write_at(pos + done as u64, &bytes[done..])? {
            0 => return Err(Error::NoSpace),
            len => done += len,
        }
    }
    Ok(())
}

impl<P: FnMut(Progress)> Visitor for Apply<'_, P> {
    type Directory = Below;
    type Error = MergeError;

    fn enter(
        &mut self,
        directory: &mut Below,
        path: &[u8],
        name: &[u8],
        id: NodeId,
    ) -> Result<Below, MergeError> {
        let old = find(&directory.inode, name).map_err(at(path))?;
        if let Some(old) = old {
            let is_directory = old.file_type() == FileType::Directory;
            if is_directory && !self.plan.tree.stands_alone(id) {
                return Ok(Below {
                    inode: old,
                    made: false,
                });
            }
            drop(old);
            self.remove(&directory.inode, path, name)?;
            self.merged.replaced += 1;
        }
        let new = Self::new_of(self.plan.tree.node(id));
        let inode = directory.inode.mkdir(name, &new).map_err(at(path))?;
        self.merged.directories += 1;
        Ok(Below { inode, made: true })
    }

    fn file(
        &mut self,
        directory: &mut Below,
        path: &[u8],
        name: &[u8],
        id: NodeId,
    ) -> Result<(), MergeError> {
        let directory = &directory.inode;
        let plan = self.plan;
        let node = plan.tree.node(id);
        if let Some(&number) = self.made.get(&id) {
            let target = self.fs.inode_by_number(number).map_err(at(path))?;
            self.put(directory, path, name, |name| directory.link(name, &target))?;
            self.merged.files += 1;
            return Ok(());
        }
        let new = Self::new_of(node);
        let number = std::cell::Cell::new(0);
        match &node.body {
            Body::Regular(contents) => {
                let inode = self.regular(directory, path, node, contents)?;
                number.set(inode.number());
                self.put(directory, path, name, |name| directory.link(name, &inode))?;
            }
            Body::Symlink(target) => {
                self.put(directory, path, name, |name| {
                    let inode = directory.symlink(name, target, &new)?;
                    number.set(inode.number());
                    Ok(())
                })?;
                self.dress_named(number.get(), node, path)?;
            }
            Body::Device(..) | Body::Fifo | Body::Socket => {
                self.put(directory, path, name, |name| {
                    let inode = directory.mknod(name, &new)?;
                    number.set(inode.number());
                    Ok(())
                })?;
                self.dress_named(number.get(), node, path)?;
            }
            Body::Directory(_) => {
                return Err(SourceError::new(path, Why::NotSpecial).into());
            }
        }
        if plan.numbered.links(id) > 1 {
            self.made.insert(id, number.get());
        }
        self.merged.files += 1;
        self.step();
        Ok(())
    }

    fn leave(&mut self, below: Below, path: &[u8], id: NodeId) -> Result<(), MergeError> {
        let node = self.plan.tree.node(id);
        if below.made || is_given(&self.plan.tree, id) {
            self.dress(&below.inode, node, path)?;
        } else {
            self.give_attributes(&below.inode, node, path)?;
        }
        self.step();
        Ok(())
    }
}

impl<P: FnMut(Progress)> Apply<'_, P> {
    fn dress_named(&self, number: u32, node: &Node, path: &[u8]) -> Result<(), MergeError> {
        let inode = self.fs.inode_by_number(number).map_err(at(path))?;
        self.dress(&inode, node, path)
    }
}
