//! A block of `lost+found` that holds temporary links instead of names; see `ops::temporary`.

use ext2dax_format::dirent::encode_len;
use ext2dax_format::slot::{Intent, Operation};
use ext2dax_format::{FileBlock, Result};
use ext2dax_getblock::Hints;
use zerocopy::little_endian::U16;

use super::Dir;
use super::index::DirIndex;
use super::names::Place;
use crate::ops::TEMPORARY_ENTRY;

impl Dir<'_> {
    /// Takes a block of empty entries out of the directory's names, growing the directory if it has none, and cuts it into
    /// entries of the size of a temporary link. Answers where the block lies. Durable on return.
    ///
    /// # Errors
    /// `NoSpace`, `FileTooLarge` if the directory cannot grow; nothing has changed.
    pub(crate) fn reserve_hidden_block(&mut self, kind: u8) -> Result<u64> {
        if let Some(block) = self.index().hidden {
            return Ok(self.index().blocks[block as usize]);
        }
        self.begin_change(super::Change::Add)?;
        let block = match self.empty_block() {
            Some(block) => {
                self.cut(block, kind);
                block
            }
            None => self.append_cut_block(kind)?,
        };
        let index = self.index_mut();
        index.gaps.clear_block(block);
        index.hidden = Some(block);
        Ok(index.blocks[block as usize])
    }

    /// The last block without names, but for the first, which has `.` and `..`.
    fn empty_block(&self) -> Option<u32> {
        let index = self.index();
        (1..index.block_count())
            .rev()
            .find(|&block| !index.is_hole(block) && self.is_empty_block(index, block))
    }

    fn is_empty_block(&self, index: &DirIndex, block: u32) -> bool {
        let mut offset = 0;
        while offset < index.block_size {
            let header = index.header(&self.core.pmem, Place { block, offset });
            if header.ino != 0 {
                return false;
            }
            offset += header.rec_len;
        }
        true
    }

    /// Makes one empty entry of a block of empty entries, writes the cuts behind its head, and shortens it.
    fn cut(&self, block: u32, kind: u8) {
        let pmem = &self.core.pmem;
        let index = self.index();
        let head = Place { block, offset: 0 };
        let length = index.rec_len_off(head);
        // PUBLISH: one empty entry instead of several. Before and after: a block without names.
        pmem.publish(length, U16::new(encode_len(index.block_size)));
        let at = index.at(head);
        let mut bytes = cut_bytes(index.block_size, block, kind);
        pmem.write(
            at + u64::from(TEMPORARY_ENTRY),
            &bytes.split_off(TEMPORARY_ENTRY as usize),
        );
        // Name and type of the first entry, whose number and length stand as they are.
        pmem.write(at + 6, &bytes[6..]);
        pmem.flush(at, u64::from(index.block_size));
        pmem.fence();
        // PUBLISH: the cuts. Before and after: a block without names.
        pmem.publish(length, U16::new(encode_len(TEMPORARY_ENTRY)));
    }

    fn append_cut_block(&mut self, kind: u8) -> Result<u32> {
        let block = self.index().block_count();
        let block_size = self.index().block_size;
        let tree = self.node.tree();
        let hints = Hints {
            goal: None,
            privileged: self.core.is_privileged(),
        };
        let branch = tree
            .prepare(&mut tree.lock(), FileBlock(block), 1, hints)
            .map_err(|error| self.mapped_past_end(error, block))?;
        self.core
            .pmem
            .write(branch.data_offset(), &cut_bytes(block_size, block, kind));
        self.core
            .pmem
            .flush(branch.data_offset(), u64::from(block_size));
        let intent = Intent {
            to: self.node.ino().get(),
            to_place: Place { block, offset: 0 }.into(),
            ..Intent::new(Operation::Grow)
        };
        let armed = self.core.slots.arm(&intent);
        // EPOCH: a block that nothing leads to, and the intent.
        self.core.pmem.fence();
        self.publish_block(block, branch);
        // EPOCH: the directory has a block without names more.
        self.core.pmem.fence();
        armed.done(&[]);
        Ok(block)
    }
}

/// A block of empty entries, each with the name that its temporary link will have: unlike every name that a crash left in
/// another block.
fn cut_bytes(block_size: u32, block: u32, kind: u8) -> alloc::vec::Vec<u8> {
    let mut bytes = alloc::vec![0; block_size as usize];
    for (number, entry) in bytes.chunks_exact_mut(TEMPORARY_ENTRY as usize).enumerate() {
        let name = alloc::format!("#ext2dax-{block}-{number}");
        entry[4..6].copy_from_slice(&encode_len(TEMPORARY_ENTRY).to_le_bytes());
        entry[6] = u8::try_from(name.len()).expect("two numbers of at most ten digits");
        entry[7] = kind;
        entry[8..8 + name.len()].copy_from_slice(name.as_bytes());
    }
    bytes
}
