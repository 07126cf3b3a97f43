//! Lists a directory.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use ext2dax_format::{Error, FileType, RawInode, Result};
use ext2dax_pmem::field;

use super::names::Place;
use super::{Dir, DirIndex};
use crate::inode::Node;

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The inode that the name leads to.
    pub ino: u32,
    /// Its type, where the directory says so (`filetype` feature); else `None`, and the inode knows.
    pub file_type: Option<FileType>,
    /// The name: 1 to 255 bytes of any encoding.
    pub name: Box<[u8]>,
    /// The cookie from which the listing goes on behind this entry.
    pub next: u64,
}

/// One name of a directory as it lies there, for as long as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The inode that the name leads to.
    pub ino: u32,
    /// As [`Entry::file_type`].
    pub file_type: Option<FileType>,
    /// The name.
    pub name: &'a [u8],
    /// As [`Entry::next`].
    pub next: u64,
}

/// Lists up to `max` names from `cookie` on; see [`visit_dir`].
///
/// # Errors
/// As [`visit_dir`].
pub(crate) fn read_dir(node: &Node, cookie: u64, max: usize) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if max == 0 {
        return Ok(entries);
    }
    visit_dir(node, cookie, &mut |entry| {
        entries.push(Entry {
            ino: entry.ino,
            file_type: entry.file_type,
            name: entry.name.into(),
            next: entry.next,
        });
        entries.len() < max
    })?;
    Ok(entries)
}

/// Shows the names from `cookie` on, `.` and `..` included, in the order in which they lie on the medium, until `each`
/// says that it wants no more. 0 is the start; every entry carries the cookie of what follows.
///
/// A cookie is an offset in the directory and names do not move while others come and go, so a name that is there
/// throughout a listing comes exactly once. A name that comes, goes or is renamed meanwhile comes at most once a place.
///
/// # Locking
/// `each` runs under the directory's lock, shared: it must not ask for another.
///
/// # Errors
/// `NotADirectory`; `Corrupt` if the directory cannot be read. A directory that has been removed is empty.
pub(crate) fn visit_dir(
    node: &Node,
    cookie: u64,
    each: &mut dyn FnMut(EntryRef<'_>) -> bool,
) -> Result<()> {
    if !node.is_dir() {
        return Err(Error::NotADirectory);
    }
    let core = node.core();
    let slot = node.lock.read();
    if node.is_removed() {
        return Ok(());
    }
    if let Some(index) = &slot.index {
        list(index, node, cookie, each);
        return Ok(());
    }
    drop(slot);
    match Dir::lock(core, node) {
        Ok(dir) => list(dir.index(), node, cookie, each),
        Err(Error::NotFound) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

impl Dir<'_> {
    /// How many subdirectories there are: looks at every entry.
    pub(crate) fn subdirectories(&self) -> u32 {
        let core = self.core;
        let is_dir = |ino: u32| {
            let at = core
                .geometry
                .ino(ino)
                .and_then(|ino| core.volume.inode_offset(ino));
            let mode = at.map(|at| core.pmem.load(field!(at, RawInode, i_mode)).get());
            mode.is_ok_and(|mode| FileType::from_mode(mode) == Some(FileType::Directory))
        };
        let mut count = 0;
        list(self.index(), self.node, 0, &mut |entry| {
            let directory = match entry.file_type {
                Some(file_type) => file_type == FileType::Directory,
                None => is_dir(entry.ino),
            };
            count += u32::from(directory && !matches!(entry.name, b"." | b".."));
            true
        });
        count
    }
}

fn list(index: &DirIndex, node: &Node, cookie: u64, each: &mut dyn FnMut(EntryRef<'_>) -> bool) {
    let block_size = u64::from(index.block_size);
    let Ok(mut block) = u32::try_from(cookie / block_size) else {
        return;
    };
    let mut offset = u32::try_from(cookie % block_size).expect("less than the block size");
    let mut copy = vec![0; index.block_size as usize];
    while block < index.block_count() {
        let place = Place {
            block,
            offset: offset.next_multiple_of(4),
        };
        if !index.is_hole(block)
            && !index.is_hidden(block)
            && !list_block(index, node, place, &mut copy, each)
        {
            return;
        }
        block += 1;
        offset = 0;
    }
}

/// Shows the entries of one block from `from` on; false if no more are wanted.
fn list_block(
    index: &DirIndex,
    node: &Node,
    from: Place,
    copy: &mut [u8],
    each: &mut dyn FnMut(EntryRef<'_>) -> bool,
) -> bool {
    let pmem = &node.core().pmem;
    let base = u64::from(from.block) * u64::from(index.block_size);
    pmem.read(index.blocks[from.block as usize], copy);
    let mut next = index.starts.at_or_after(from.block, from.offset);
    while let Some(offset) = next {
        let header = super::index::Header::parse(copy, offset, index.block_size);
        let end = offset + header.rec_len;
        if header.ino != 0 {
            let wanted = each(EntryRef {
                ino: header.ino,
                file_type: FileType::from_dirent(header.kind),
                name: &copy[offset as usize + 8..][..usize::from(header.name_len)],
                next: base + u64::from(end),
            });
            if !wanted {
                return false;
            }
        }
        next = (end < index.block_size).then_some(end);
    }
    true
}
