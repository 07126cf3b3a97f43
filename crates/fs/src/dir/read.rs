//! Lists a directory.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use ext2dax_format::{Error, FileType, Result};

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

/// Lists up to `max` names from `cookie` on, `.` and `..` included, in the order in which they lie on the medium. 0 is the
/// start; every entry carries the cookie of what follows; an empty answer is the end.
///
/// A cookie is an offset in the directory and names do not move while others come and go, so a name that is there
/// throughout a listing comes exactly once. A name that comes, goes or is renamed meanwhile comes at most once a place.
///
/// # Errors
/// `NotADirectory`; `Corrupt` if the directory cannot be read. A directory that has been removed is empty.
pub(crate) fn read_dir(node: &Node, cookie: u64, max: usize) -> Result<Vec<Entry>> {
    if !node.is_dir() {
        return Err(Error::NotADirectory);
    }
    let core = node.core();
    let slot = node.lock.read();
    if node.is_removed() {
        return Ok(Vec::new());
    }
    if let Some(index) = &slot.index {
        return Ok(list(index, node, cookie, max));
    }
    drop(slot);
    match Dir::lock(core, node) {
        Ok(dir) => Ok(list(dir.index(), node, cookie, max)),
        Err(Error::NotFound) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn list(index: &DirIndex, node: &Node, cookie: u64, max: usize) -> Vec<Entry> {
    let block_size = u64::from(index.block_size);
    let mut entries = Vec::new();
    let Ok(mut block) = u32::try_from(cookie / block_size) else {
        return entries;
    };
    let mut offset = u32::try_from(cookie % block_size).expect("less than the block size");
    let mut copy = vec![0; index.block_size as usize];
    while block < index.block_count() && entries.len() < max {
        if !index.is_hole(block) && !index.is_hidden(block) {
            list_block(
                index,
                node,
                Place {
                    block,
                    offset: offset.next_multiple_of(4),
                },
                max,
                &mut copy,
                &mut entries,
            );
        }
        block += 1;
        offset = 0;
    }
    entries
}

/// Appends the entries of one block from `from` on.
fn list_block(
    index: &DirIndex,
    node: &Node,
    from: Place,
    max: usize,
    copy: &mut [u8],
    entries: &mut Vec<Entry>,
) {
    let pmem = &node.core().pmem;
    let base = u64::from(from.block) * u64::from(index.block_size);
    pmem.read(index.blocks[from.block as usize], copy);
    let mut next = index.starts.at_or_after(from.block, from.offset);
    while let Some(offset) = next {
        if entries.len() == max {
            return;
        }
        let header = super::index::Header::parse(copy, offset, index.block_size);
        let end = offset + header.rec_len;
        if header.ino != 0 {
            let name = &copy[offset as usize + 8..][..usize::from(header.name_len)];
            entries.push(Entry {
                ino: header.ino,
                file_type: FileType::from_dirent(header.kind),
                name: name.into(),
                next: base + u64::from(end),
            });
        }
        next = (end < index.block_size).then_some(end);
    }
}
