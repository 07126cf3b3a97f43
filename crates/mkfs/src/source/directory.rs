//! A directory of the host as a source.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use super::{Data, SourceError, Why};
use crate::parallel;
use crate::rules::Rules;
use crate::tree::{Body, Meta, Node, NodeId, Tree};

mod look;
mod names;

use look::{Handle, Looked, Looker, read_attributes};
use names::Names;

/// Names of one directory that one step of a thread looks at.
const STEP: usize = 256;
/// Bytes of small files that are kept in memory, in all: opening a file again would cost more than the copy.
const KEPT_IN_ALL: u64 = 64 << 20;

/// A directory that is still to be read: its path on the host, its path inside, its node.
struct Pending {
    path: PathBuf,
    inside: Vec<u8>,
    id: NodeId,
}

/// Hard links that were found already: device and inode.
type Links = HashMap<(u64, u64), NodeId>;

impl Tree {
    /// Adds everything below a directory of the host; names that are there already are replaced, directories merged.
    ///
    /// The root keeps mode, owner and time that it has, and takes the directory's attributes. Directories are read by up
    /// to `threads` threads; the result does not depend on their number.
    ///
    /// # Errors
    /// The first file that cannot be read, or that ext2 cannot hold.
    pub fn add_directory(
        &mut self,
        path: impl AsRef<Path>,
        rules: &Rules,
        threads: usize,
    ) -> Result<(), SourceError> {
        let path = path.as_ref();
        let top = self.top(rules)?;
        let meta = std::fs::metadata(path).map_err(|error| SourceError::io(path, error))?;
        if !meta.is_dir() {
            return Err(SourceError::new(
                path.as_os_str().as_bytes(),
                Why::NotADirectory,
            ));
        }
        for attribute in read_attributes(Handle::Path(path), || path.to_owned(), rules)? {
            self.set_attribute(top, attribute);
        }
        let kept: u64 = self.kept.iter().map(|kept| kept.len() as u64).sum();
        let budget = AtomicU64::new(KEPT_IN_ALL.saturating_sub(kept));
        let mut links = Links::new();
        let mut pending = vec![Pending {
            path: path.to_owned(),
            inside: rules.prefix().to_vec(),
            id: top,
        }];
        // One level after the other: all directories of a level are read at once.
        while !pending.is_empty() {
            let found = read_all(&pending, rules, &budget, threads)?;
            let mut next = Vec::new();
            self.nodes
                .reserve(found.iter().map(|(names, _)| names.len()).sum());
            for (directory, (names, looked)) in pending.iter().zip(found) {
                self.take_all(directory, &names, looked, rules, &mut links, &mut next)?;
            }
            pending = next;
        }
        Ok(())
    }

    /// The node below which a source goes: the root, or the directory that `--prefix` names.
    pub(crate) fn top(&mut self, rules: &Rules) -> Result<NodeId, SourceError> {
        if rules.prefix().is_empty() {
            return Ok(NodeId::ROOT);
        }
        match self.find(rules.prefix()) {
            Some(id) if matches!(self.node(id).body, Body::Directory(_)) => Ok(id),
            _ => {
                let body = Body::Directory(Default::default());
                let id = self.put(rules.prefix(), Meta::new(0o755), body)?;
                self.imply(id);
                Ok(id)
            }
        }
    }

    /// Adds what was found in one directory; `looked` is about its names in their order.
    fn take_all(
        &mut self,
        directory: &Pending,
        names: &Names,
        looked: Vec<Looked>,
        rules: &Rules,
        links: &mut Links,
        next: &mut Vec<Pending>,
    ) -> Result<(), SourceError> {
        let is_whiteout = |name: &[u8]| rules.whiteouts && name.starts_with(super::WHITEOUT);
        for name in names.iter().filter(|name| is_whiteout(name)) {
            self.white_out_name(&directory.inside, name);
        }
        // Where nothing is there yet, a whole map is made at once.
        let is_new = self.names_of(directory.id).is_some_and(BTreeMap::is_empty);
        let mut fresh = Vec::with_capacity(if is_new { names.len() } else { 0 });
        let mut names = names.iter();
        for Looked { files, kept } in looked {
            let store = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
            if !kept.is_empty() {
                self.kept.push(kept);
            }
            // In this order no name is taken and dropped where the files end.
            for (mut file, name) in files.into_iter().zip(names.by_ref()) {
                if is_whiteout(name) {
                    continue;
                }
                if let Body::Regular(contents) = &mut file.body
                    && let Data::Kept(number, _) = &mut contents.data
                {
                    *number = store;
                }
                let id = self.take(directory, name, file, rules, links, next)?;
                if is_new {
                    fresh.push((name.into(), id));
                } else {
                    self.insert(directory.id, name.into(), id);
                }
            }
        }
        if let Body::Directory(names) = &mut self.node_mut(directory.id).body
            && is_new
        {
            *names = fresh.into_iter().collect();
        }
        Ok(())
    }

    /// The node of one name.
    fn take(
        &mut self,
        directory: &Pending,
        name: &[u8],
        found: look::Found,
        rules: &Rules,
        links: &mut Links,
        next: &mut Vec<Pending>,
    ) -> Result<NodeId, SourceError> {
        let is_directory = matches!(found.body, Body::Directory(_));
        let is_link = found.links > 1 && !is_directory;
        let key = found.stamp.file();
        if is_link && let Some(&id) = links.get(&key) {
            return Ok(id);
        }
        let path = || directory.path.join(OsStr::from_bytes(name));
        let mut node = Node {
            meta: found.meta,
            body: found.body,
            attributes: found.attributes,
        };
        if !rules.keeps_everything() {
            rules
                .apply(&join(&directory.inside, name), &mut node)
                .map_err(|why| SourceError::new(path().as_os_str().as_bytes(), why))?;
        }
        if !is_directory {
            let id = self.push(node);
            if is_link {
                links.insert(key, id);
            }
            return Ok(id);
        }
        let old = self
            .names_of(directory.id)
            .and_then(|names| names.get(name).copied());
        let id = match old {
            Some(id) if matches!(self.node(id).body, Body::Directory(_)) => {
                self.give_directory(id, node.meta, node.attributes);
                id
            }
            _ => self.push(node),
        };
        next.push(Pending {
            path: path(),
            inside: join(&directory.inside, name),
            id,
        });
        Ok(id)
    }
}

/// Reads directories: the names of each, and what they stand for, in pieces.
fn read_all(
    pending: &[Pending],
    rules: &Rules,
    budget: &AtomicU64,
    threads: usize,
) -> Result<Vec<(Names, Vec<Looked>)>, SourceError> {
    let looker = || Looker::new(rules, budget);
    let mut all = parallel::try_map(pending.len(), threads, looker, |looker, nr| {
        let Pending { path, inside, .. } = &pending[nr];
        let directory = names::open(path)?;
        let names = Names::read(&directory, path, |name| rules.excludes(inside, name))?;
        let looked = match names.len() {
            0..=STEP => vec![looker.look(&directory, path, &names, 0..names.len())?],
            _ => Vec::new(),
        };
        Ok((names, looked))
    })?;
    // Large directories are shared by the threads.
    let mut steps: Vec<(usize, Range<usize>)> = Vec::new();
    for (nr, (names, looked)) in all.iter().enumerate() {
        if looked.is_empty() {
            let starts = (0..names.len()).step_by(STEP);
            steps.extend(starts.map(|from| (nr, from..names.len().min(from + STEP))));
        }
    }
    let found = parallel::try_map(steps.len(), threads, looker, |looker, step| {
        let (nr, range) = &steps[step];
        let path = &pending[*nr].path;
        looker.look(&names::open(path)?, path, &all[*nr].0, range.clone())
    })?;
    for ((nr, _), looked) in steps.into_iter().zip(found) {
        all[nr].1.push(looked);
    }
    Ok(all)
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
