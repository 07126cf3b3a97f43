//! Truncate and punch: pointers are cleared, what they led to comes back as a token.

use alloc::vec::Vec;

use ext2dax_format::{CorruptKind, FileBlock, FsBlock, Result, Run, indirect};
use ext2dax_pmem::Off;
use zerocopy::little_endian::U32;

use super::{BlockTree, TreeGuard};
use crate::token::Detached;

/// What is to be cleared and what it leads to, found before anything is stored.
struct Cut<'t> {
    tree: &'t BlockTree,
    range: core::ops::Range<u64>,
    /// Slots to clear, the highest file block first.
    slots: Vec<Off<U32>>,
    detached: Detached,
    count: u64,
}

impl Cut<'_> {
    fn detach(&mut self, block: FsBlock) -> Result<()> {
        self.count += 1;
        // More blocks than there are: pointers meet, perhaps in a table that holds itself. Without this bound, a small
        // hostile image would keep us here for hours.
        if self.count > u64::from(self.tree.volume.geometry().blocks_count()) {
            let kind = CorruptKind::BlockUsedTwice {
                inode: self.tree.ino.get(),
                block: block.get(),
            };
            return Err(kind.into());
        }
        self.detached.push(Run::single(block));
        Ok(())
    }

    /// Goes through what hangs on one slot: `below` levels of indirect blocks, file blocks from `base` on. Says whether
    /// the slot still leads to something.
    fn slot(&mut self, slot: Off<U32>, below: u32, base: u64) -> Result<bool> {
        let raw = self.tree.pointer(slot);
        if raw == 0 {
            return Ok(false);
        }
        let span = indirect::span(below, self.tree.volume.geometry().addr_bits());
        if base >= self.range.end || base + span <= self.range.start {
            return Ok(true);
        }
        let file_block = FileBlock(u32::try_from(base).unwrap_or(u32::MAX));
        let block = self.tree.check(raw, file_block)?;
        if below > 0 {
            let mark = self.slots.len();
            if self.table(block, below - 1, base)? {
                return Ok(true);
            }
            // Nothing is left under this slot: one store detaches all of it.
            self.slots.truncate(mark);
        }
        self.slots.push(slot);
        self.detach(block)?;
        Ok(false)
    }

    /// Says whether the table still leads to something.
    fn table(&mut self, table: FsBlock, below: u32, base: u64) -> Result<bool> {
        let geometry = self.tree.volume.geometry();
        let (slots, span) = (
            geometry.addr_per_block(),
            indirect::span(below, geometry.addr_bits()),
        );
        let mut left = false;
        for index in (0..slots).rev() {
            left |= self.slot(
                self.tree.table_slot(table, index),
                below,
                base + u64::from(index) * span,
            )?;
        }
        Ok(left)
    }
}

impl BlockTree {
    /// What [`BlockTree::detach`] answers for a tree without blocks.
    pub fn detach_nothing(&self) -> Detached {
        Detached::none(self.volume.brand())
    }

    /// Takes the blocks of file blocks `from..to` out of the tree, the highest first, and with them the indirect blocks
    /// that lead to nothing then. `to` at `u32::MAX` means to the end.
    ///
    /// Order: pointers (a whole subtree by its one pointer), then `i_blocks`, then one fence. What comes back is
    /// unreachable, durably; its bits are still set. Nothing to detach: no store, no fence.
    ///
    /// # Locking
    /// The guard is this tree's, and the caller keeps look-ups of the range out.
    ///
    /// # Errors
    /// `Corrupt`: a pointer in the range leaves the file system, leads into its tables, or meets another one. Nothing
    /// has changed.
    pub fn detach(
        &self,
        _guard: &mut TreeGuard<'_>,
        from: FileBlock,
        to: FileBlock,
    ) -> Result<Detached> {
        let end = if to.0 == u32::MAX {
            u64::MAX
        } else {
            u64::from(to.0)
        };
        let mut cut = Cut {
            tree: self,
            range: u64::from(from.0)..end,
            slots: Vec::new(),
            detached: Detached::none(self.volume.brand()),
            count: 0,
        };
        let addr_bits = self.volume.geometry().addr_bits();
        for index in (0..indirect::SLOTS).rev() {
            let below = (index + 1).saturating_sub(indirect::DIRECT);
            let base = match below {
                0 => u64::from(index),
                _ => (1..below).fold(u64::from(indirect::DIRECT), |base, level| {
                    base + indirect::span(level, addr_bits)
                }),
            };
            cut.slot(self.root_slot(index), below, base)?;
        }
        if !cut.slots.is_empty() {
            self.recent.while_changing(|| self.clear(&cut));
        }
        Ok(cut.detached)
    }

    fn clear(&self, cut: &Cut<'_>) {
        let pmem = self.pmem();
        let mut flushed = u64::MAX;
        // PUBLISH: each store turns blocks into a hole. Before: they are the file's. After: leaked bits, until they are
        // freed; i_blocks may lag behind (residue).
        for &slot in &cut.slots {
            pmem.store(slot, U32::new(0));
            // Slots come in falling order: a line is done when the next slot lies in another one.
            if flushed != u64::MAX && slot.at() / 64 != flushed / 64 {
                pmem.flush(flushed, 4);
            }
            flushed = slot.at();
        }
        pmem.flush(flushed, 4);
        pmem.line_order();
        let sectors = cut
            .count
            .saturating_mul(u64::from(self.volume.geometry().sectors_per_block()));
        let sectors = u32::try_from(sectors).unwrap_or(u32::MAX);
        self.store_sectors(self.sectors().saturating_sub(sectors));
        pmem.fence();
    }
}
