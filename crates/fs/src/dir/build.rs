//! Reads a directory and builds its index.

use alloc::vec;

use ext2dax_format::dirent::Entries;
use ext2dax_format::{CorruptKind, Error, FileBlock, Result};
use ext2dax_getblock::Mapping;

use super::index::{DirIndex, HOLE, Header};
use super::names::Place;
use crate::inode::Node;
use crate::mount::Core;

/// Reads every block of the directory, checks it, and builds the index.
///
/// Time and memory are bounded by the size of the image, whatever the directory claims: a hole costs a step a run, and a
/// directory cannot have more blocks than there are.
///
/// # Errors
/// `Corrupt` if the directory's size, one of its pointers or one of its entries is impossible; `ForeignContents` if a flag
/// says that its blocks are not found by pointers.
pub(super) fn index(core: &Core, node: &Node) -> Result<DirIndex> {
    let record = node.record();
    record.check_contents()?;
    let geometry = &core.geometry;
    let block_size = geometry.block_size();
    let size = record.size();
    let count = block_count(core, node, size)?;
    let mut index = DirIndex::new(block_size);
    let mut block = vec![0; block_size as usize];
    let mut at = 0;
    while at < count {
        match node.tree().lookup(FileBlock(at), count - at)? {
            Mapping::Hole(len) => {
                for _ in 0..len {
                    index.push_block(HOLE);
                }
                at += len;
            }
            Mapping::Existing(run) | Mapping::New(run) => {
                for fs_block in run.iter() {
                    let offset = geometry.offset(fs_block);
                    core.pmem.read(offset, &mut block);
                    index.push_block(offset);
                    note_entries(core, node, &mut index, &block, at)?;
                    at += 1;
                }
            }
        }
    }
    Ok(index)
}

/// Whether the directory is one block with `.` and `..` and nothing else, told by the first bytes of the block. `false`
/// where it is not that simple.
///
/// # Errors
/// `Corrupt` if its pointer is impossible.
pub(super) fn is_bare(core: &Core, node: &Node) -> Result<bool> {
    let record = node.record();
    let block_size = core.geometry.block_size();
    if record.check_contents().is_err() || record.size() != u64::from(block_size) {
        return Ok(false);
    }
    let Mapping::Existing(run) = node.tree().lookup(FileBlock(0), 1)? else {
        return Ok(false);
    };
    let mut bytes = [0; 24];
    core.pmem.read(core.geometry.offset(run.start), &mut bytes);
    let [dot, dot_dot] = [0, 12].map(|offset| Header::parse(&bytes, offset, block_size));
    Ok(dot.ino == node.ino().get()
        && (dot.rec_len, dot.name_len, bytes[8]) == (12, 1, b'.')
        && dot_dot.ino != 0
        && (dot_dot.rec_len, dot_dot.name_len) == (block_size - 12, 2)
        && bytes[20..22] == *b"..")
}

fn block_count(core: &Core, node: &Node, size: u64) -> Result<u32> {
    let geometry = &core.geometry;
    let wrong = Error::Corrupt(CorruptKind::DirectorySize {
        inode: node.ino().get(),
        size,
    });
    if !size.is_multiple_of(u64::from(geometry.block_size())) {
        return Err(wrong);
    }
    let count = u32::try_from(size >> geometry.block_bits()).map_err(|_| wrong)?;
    if count > geometry.blocks_count() {
        return Err(wrong);
    }
    Ok(count)
}

fn note_entries(
    core: &Core,
    node: &Node,
    index: &mut DirIndex,
    block: &[u8],
    at: u32,
) -> Result<()> {
    for entry in Entries::new(block, &core.geometry, node.ino(), FileBlock(at)) {
        let entry = entry?;
        let place = Place {
            block: at,
            offset: entry.offset,
        };
        let header = Header {
            ino: entry.ino.map_or(0, |ino| ino.get()),
            rec_len: entry.rec_len,
            name_len: u8::try_from(entry.name.len()).expect("the length of a name is a byte"),
            kind: entry.kind.map_or(0, |kind| kind.dirent()),
        };
        index.note(place, header);
        if entry.ino.is_some() {
            index.note_name(place, header, entry.name);
        }
    }
    Ok(())
}
