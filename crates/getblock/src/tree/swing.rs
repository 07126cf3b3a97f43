//! A block replaced by another one: shadow copies of directory blocks, blocks moved into a page cluster.

use ext2dax_format::{Error, FileBlock, Result, Run};
use ext2dax_pmem::Off;
use zerocopy::little_endian::{U32, U64};

use super::grow::Branch;
use super::{BlockTree, Hints, Mapping, TreeGuard};
use crate::token::{Detached, Pending, Zeroed};

impl BlockTree {
    /// Points file block `at`, which has a block, to another one by one store of 4 bytes. Flushed, not fenced: the fence
    /// of an [`Epoch`](crate::Epoch) turns the old block into `Detached`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `at` is a hole or `new` is not one block; `Corrupt`. Nothing has changed, and the
    /// new block leaks until the next fsck.
    pub fn swing(
        &self,
        _guard: &mut TreeGuard<'_>,
        at: FileBlock,
        new: Zeroed,
    ) -> Result<Pending<Detached>> {
        let (slot, old) = self.single(at, &new)?;
        // PUBLISH: one word leads to the old block before, to the new one after; the other one is a leaked bit.
        self.recent.while_changing(|| {
            self.pmem().store(slot, U32::new(new.run().start.get()));
        });
        self.pmem().flush(slot.at(), 4);
        Ok(Pending(old))
    }

    /// Whether one store of 8 bytes can swing both blocks: their pointers share an aligned word.
    #[must_use]
    pub fn pair_swappable(&self, a: FileBlock, b: FileBlock) -> bool {
        let slots = (self.slot_of(a), self.slot_of(b));
        matches!(slots, (Ok(Some(a)), Ok(Some(b))) if a.at() / 8 == b.at() / 8 && a.at() != b.at())
    }

    /// Swings two blocks by one store of 8 bytes. Flushed, not fenced.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless [`BlockTree::pair_swappable`]; else as [`BlockTree::swing`].
    pub fn swing_pair(
        &self,
        _guard: &mut TreeGuard<'_>,
        (a, new_a): (FileBlock, Zeroed),
        (b, new_b): (FileBlock, Zeroed),
    ) -> Result<Pending<Detached>> {
        if !self.pair_swappable(a, b) {
            return Err(Error::InvalidArgument);
        }
        let ((slot_a, old_a), (slot_b, old_b)) = (self.single(a, &new_a)?, self.single(b, &new_b)?);
        let half =
            |slot: Off<U32>, new: &Zeroed| u64::from(new.run().start.get()) << (slot.at() % 8 * 8);
        let word: Off<U64> = Off::new(slot_a.at() & !7);
        // PUBLISH: as in `swing`, for both pointers at once.
        self.recent.while_changing(|| {
            self.pmem()
                .store(word, U64::new(half(slot_a, &new_a) | half(slot_b, &new_b)));
        });
        self.pmem().flush(word.at(), 8);
        Ok(Pending(old_a.merge(old_b)))
    }

    /// Puts `new` behind the file blocks from `at` on, whatever was there: blocks, holes, no indirect block at all. Each
    /// pointer moves by a store of its own, so contents must be the same on both sides. Flushed, not fenced; one fence
    /// inside if an indirect block had to be made.
    ///
    /// # Errors
    /// [`Error::NoSpace`] for an indirect block, [`Error::FileTooLarge`], `Corrupt`: nothing has changed, and the new
    /// blocks are given back.
    pub fn replace(
        &self,
        guard: &mut TreeGuard<'_>,
        at: FileBlock,
        new: Zeroed,
        hints: Hints,
    ) -> Result<Pending<Detached>> {
        let run = new.run();
        let mut branch = Branch::new(self, run);
        let mut old = Detached::none(self.volume.brand());
        let mut done = 0;
        while done < run.len {
            match self.lookup(FileBlock(at.0.saturating_add(done)), run.len - done)? {
                Mapping::Existing(there) | Mapping::New(there) => {
                    old.push(there);
                    done += there.len;
                }
                Mapping::Hole(len) => done += len,
            }
        }
        if branch.link(&mut guard.0, at, hints)? < run.len {
            return Err(Error::NoSpace);
        }
        branch
            .count(run.len - u32::try_from(old.count()).unwrap_or(run.len))
            .map_err(|_| Error::FileTooLarge)?;
        if branch.built_tables() {
            self.pmem().fence();
        }
        self.recent
            .while_changing(|| self.store_branch(&mut branch));
        Ok(Pending(old))
    }

    /// The slot of a mapped block and the block, for one new block.
    fn single(&self, at: FileBlock, new: &Zeroed) -> Result<(Off<U32>, Detached)> {
        debug_assert_eq!(
            new.0.brand,
            self.volume.brand(),
            "a token of another volume"
        );
        let slot = self.slot_of(at)?.ok_or(Error::InvalidArgument)?;
        let raw = self.pointer(slot);
        if raw == 0 || new.run().len != 1 {
            return Err(Error::InvalidArgument);
        }
        let old = Run::single(self.check(raw, at)?);
        Ok((slot, Detached::single(old, self.volume.brand())))
    }
}
