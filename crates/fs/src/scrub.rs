//! After a crash of which nothing is written down, for who mounts without a checker: names and link counts are made to agree before anybody changes them.
//!
//! A crash may leave a link count one too high, and names of dead inodes. Both are harmless as they stand, but not once
//! work goes on: a name removed later would leave a file alive that nothing leads to, and a directory would count as
//! filled because of a name that nobody sees. So every directory is read once: blocks behind its end are taken in, dead
//! names are taken out, temporary links of `lost+found` are removed, and counts that are too high are lowered. Leaked blocks and inodes stay for a
//! checker, and the image stays marked.
//!
//! Every step leaves less residue than it found, so a crash in between is just another crash.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use ext2dax_format::{Error, Ino, Result};

use crate::dir::{self, Change, Dir, Entry};
use crate::inode::Node;
use crate::mount::Mount;
use crate::ops;

/// Entries read at a time.
const BATCH: usize = 128;
/// How temporary links in `lost+found` are called.
const TEMPORARY: &[u8] = b"#ext2dax-";

/// Names found for one inode.
struct Found {
    node: Arc<Node>,
    names: u16,
}

/// Reads every directory and repairs what a crash may have left there. Nobody else uses the mount yet.
///
/// A directory that cannot be read is noted as damage; then counts stay as they are, because names may be missing.
///
/// # Errors
/// `Corrupt` if there is no root directory.
pub(crate) fn scrub(mount: &Mount) -> Result<()> {
    let core = &mount.core;
    let root = mount.inodes.get(core, Ino::ROOT)?;
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::from([Ino::ROOT.get()]);
    let mut directories = Vec::from([(root, 0)]);
    let mut whole = true;
    let mut temporary = Vec::new();
    while let Some((directory, depth)) = directories.pop() {
        let below =
            match take_in(mount, &directory).and_then(|()| names(mount, &directory, &mut found)) {
                Ok(below) => below,
                Err(error) => {
                    core.report(error);
                    whole = false;
                    continue;
                }
            };
        let subdirectories = below.iter().filter(|(_, child)| child.is_dir()).count();
        let links = u16::try_from(2 + subdirectories).unwrap_or(u16::MAX);
        if directory.record().links() > links && directory.record().links() > 2 {
            lower(&directory, links);
        }
        for (name, child) in below {
            if child.is_dir() {
                if seen.insert(child.ino().get()) {
                    directories.push((child, depth + 1));
                }
            } else if depth == 1 && name.starts_with(TEMPORARY) {
                temporary.push((Arc::clone(&directory), name));
            }
        }
    }
    if whole {
        found
            .values()
            .filter(|found| found.node.record().links() > found.names)
            .for_each(|f| lower(&f.node, f.names));
    }
    // EPOCH: counts are what the names say.
    core.pmem.fence();
    drop(found);
    for (directory, name) in temporary {
        // With the counts right, the last link of a replaced file ends it; one of several just goes.
        if let Err(error) = ops::unlink::unlink(mount, &directory, &name) {
            core.report(error);
        }
    }
    Ok(())
}

/// Raises the size of a directory over blocks that are mapped behind its end: a crash came between their pointer and the
/// size. Their entries are complete, and a checker will see them, so they must be seen here, too.
fn take_in(mount: &Mount, directory: &Node) -> Result<()> {
    let record = directory.record();
    let block_size = u64::from(mount.core.geometry.block_size());
    loop {
        let size = record.size();
        let Ok(block) = u32::try_from(size / block_size) else {
            return Ok(());
        };
        dir::take_in(record, block)?;
        if record.size() == size {
            return Ok(());
        }
    }
}

/// The live children of a directory by name; those that are no directories are counted in `found` if they have several
/// links. Dead names are taken out.
fn names(
    mount: &Mount,
    directory: &Node,
    found: &mut BTreeMap<u32, Found>,
) -> Result<Vec<(Vec<u8>, Arc<Node>)>> {
    let core = &mount.core;
    let mut children = Vec::new();
    let mut dead = Vec::new();
    let mut cookie = 0;
    loop {
        let batch = dir::read_dir(directory, cookie, BATCH)?;
        let Some(last) = batch.last() else { break };
        cookie = last.next;
        for Entry { ino, name, .. } in batch {
            if matches!(&*name, b"." | b"..") {
                continue;
            }
            match mount.inodes.get(core, core.geometry.ino(ino)?) {
                Ok(child) => {
                    if !child.is_dir() && child.record().links() > 1 {
                        let node = Arc::clone(&child);
                        found.entry(ino).or_insert(Found { node, names: 0 }).names += 1;
                    }
                    if child.is_dir() || name.starts_with(TEMPORARY) {
                        children.push((name.into_vec(), child));
                    }
                }
                Err(Error::Stale) => dead.push(name),
                Err(error) => return Err(error),
            }
        }
    }
    if !dead.is_empty() {
        let mut directory = Dir::lock(core, directory)?;
        directory.begin_change(Change::Remove)?;
        for name in dead {
            if let Some(entry) = directory.find(&name) {
                directory.erase(&entry);
            }
        }
        // EPOCH: the names of dead inodes are gone, as a checker would have it.
        core.pmem.fence();
    }
    Ok(children)
}

fn lower(node: &Node, links: u16) {
    let record = node.record();
    record.set_links(links);
    record.flush_line0();
}
