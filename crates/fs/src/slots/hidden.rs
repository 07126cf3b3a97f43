//! The hidden file: where the records lie if the boot block is in use.
//!
//! A regular file of 1,024 bytes in one block, with one link and no name, on the inode that is set aside for boot loaders.
//! Checkers count its block like any other file's; other drivers never look.
//!
//! It is made by the first mount for writing that finds the image clean and the inode unused, and then stays. The mount's
//! first record must be there before the image is marked as in use, and nothing may be leaked before that:
//!
//! ```text
//! record area in a free block, inode without a mode | mount record | image in use | bit | blocks, links, mode
//! ```
//! Up to the third fence the image is as clean as it was. Behind it, the record is found through the inode that is not
//! there yet, and the next mount does the rest.

use ext2dax_format::slot::{AREA_BYTES, HIDDEN_INO, is_ours};
use ext2dax_format::{FsBlock, RawInode, Result, Run};
use ext2dax_getblock::Volume;
use ext2dax_pmem::{Off, field};
use zerocopy::FromZeros;
use zerocopy::little_endian::{U16, U32};

/// A regular file that only its owner reads, and nobody writes.
const MODE: u16 = 0o100_600;

/// A hidden file, or what is there of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hidden {
    inode: Off<RawInode>,
    block: FsBlock,
    /// Its block and its mode have not been entered.
    pub(super) unfinished: bool,
}

impl Hidden {
    /// The hidden file of an image, if it has one, perhaps unfinished. Whatever else the inode is used for is left alone.
    pub(super) fn find(volume: &Volume) -> Option<Self> {
        let (inode, raw) = load(volume)?;
        let unfinished = raw.i_mode.get() == 0;
        let sectors = volume.geometry().sectors_per_block();
        let finished = raw.i_mode.get() == MODE
            && raw.i_links_count.get() == 1
            && raw.i_blocks.get() == sectors;
        let [first, rest @ ..] = raw.i_block;
        let one_block = rest.iter().all(|block| block.get() == 0) && raw.i_file_acl.get() == 0;
        let block = volume.geometry().fs_block(first.get()).ok()?;
        let fits = raw.i_size.get() as usize == AREA_BYTES && one_block && (unfinished || finished);
        let hidden = Self {
            inode,
            block,
            unfinished,
        };
        let data = fits && volume.is_metadata(Run::single(block)) == Ok(false);
        (data && is_ours(&volume.pmem().read_value(Off::new(hidden.area(volume)))))
            .then_some(hidden)
    }

    /// Begins to make one on a clean image, out of sight. Durable on return. `None` if the inode is somebody's or no block
    /// is free: nothing has changed then.
    pub(super) fn begin(volume: &Volume) -> Option<Self> {
        let (inode, old) = load(volume)?;
        let unused = old.i_mode.get() == 0
            && old.i_links_count.get() == 0
            && old.i_blocks.get() == 0
            && old.i_file_acl.get() == 0;
        let block = volume.vacant_block().filter(|_| unused)?;
        let hidden = Self {
            inode,
            block,
            unfinished: true,
        };
        let mut raw = RawInode::new_zeroed();
        raw.i_size = U32::new(u32::try_from(AREA_BYTES).ok()?);
        raw.i_block[0] = U32::new(block.get());
        let pmem = volume.pmem();
        let len = u64::from(volume.geometry().block_size());
        pmem.zero_flushed(hidden.area(volume), len);
        pmem.write_value(inode, &raw);
        pmem.flush(inode.at(), size_of::<RawInode>() as u64);
        // EPOCH: zeroes in a free block, and an inode without a mode, whose pointers nobody reads.
        pmem.fence();
        Some(hidden)
    }

    /// Where the records lie.
    pub(super) fn area(&self, volume: &Volume) -> u64 {
        volume.geometry().offset(self.block)
    }

    /// Enters the file, on an image that is marked as in use. Durable on return; done again it changes nothing.
    ///
    /// # Errors
    /// `Corrupt`: the block's group is damaged.
    pub(super) fn finish(&self, volume: &Volume) -> Result<()> {
        volume.claim_block(self.block)?;
        let pmem = volume.pmem();
        // EPOCH: the bit. Leaked, should the rest not come.
        pmem.fence();
        let sectors = volume.geometry().sectors_per_block();
        pmem.store(field!(self.inode, RawInode, i_blocks), U32::new(sectors));
        pmem.store(field!(self.inode, RawInode, i_links_count), U16::new(1));
        pmem.line_order();
        pmem.flush(self.inode.at(), 64);
        // PUBLISH: the file is one. Before: an inode without a mode, whose count of blocks may be wrong, and a leaked block.
        // After: the file, with its block.
        pmem.publish(field!(self.inode, RawInode, i_mode), U16::new(MODE));
        Ok(())
    }
}

/// The inode; `None` if the tables cannot be read.
fn load(volume: &Volume) -> Option<(Off<RawInode>, RawInode)> {
    let ino = volume.geometry().ino(HIDDEN_INO).ok()?;
    let inode = volume.inode_offset(ino).ok()?;
    Some((inode, volume.pmem().read_value(inode)))
}
