//! File block to run, without a lock and without allocating.

use ext2dax_format::{Error, FileBlock, FsBlock, Result, Run, indirect};
use ext2dax_pmem::Off;
use zerocopy::little_endian::U32;

use super::recent::Piece;
use super::{BlockTree, Mapping};

/// Where the way to a file block ends.
enum Leaf {
    /// At the slot of its pointer, with so many slots up to the end of the leaf.
    Slots { slot: Off<U32>, left: u32 },
    /// At a zero pointer further up, with so many blocks of the file under it.
    Hole(u32),
}

/// Whether a look-up is worth remembering.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Kept,
    None,
}

impl BlockTree {
    /// Finds what is behind file block `at`.
    ///
    /// Shape: starts at `at`, 1..=`max` blocks long (`max` 0 counts as 1); a hole is a run, too. Runs and holes are merged
    /// across indirect blocks; one may still be shorter than the true run.
    /// Units: `at` and `max` count file blocks.
    ///
    /// # Locking
    /// None. Allocates nothing.
    ///
    /// # Errors
    /// `Corrupt`: a pointer on the way, or the one to `at`, leaves the file system or leads into its tables.
    /// [`Error::FileTooLarge`]: no tree reaches `at`.
    ///
    /// # On disk
    /// *The Second Extended File System*, "Inode Table", `i_block`; Linux `ext4/blockmap.rst`.
    #[inline]
    pub fn lookup(&self, at: FileBlock, max: u32) -> Result<Mapping> {
        if at.0 >= indirect::DIRECT
            && let Some(start) = self.recent.find(at, max.max(1))
        {
            // Checked when it was remembered, as a run of so many blocks.
            return Ok(Mapping::Existing(
                self.volume.geometry().fs_run(start, max.max(1))?,
            ));
        }
        self.walk(at, max, Memory::Kept)
    }

    /// The same, for the blocks around a hole that is about to be filled: what is found will not be asked for again.
    pub(super) fn lookup_once(&self, at: FileBlock, max: u32) -> Result<Mapping> {
        self.walk(at, max, Memory::None)
    }

    fn walk(&self, at: FileBlock, max: u32, memory: Memory) -> Result<Mapping> {
        let turn = self.recent.turn();
        let (slot, left) = match self.leaf(at)? {
            Leaf::Slots { slot, left } => (slot, left),
            Leaf::Hole(len) => return Ok(Mapping::Hole(self.extend_hole(at, len, max))),
        };
        let raw = self.pointer(slot);
        if raw == 0 {
            let len = self.equal_slots(slot, 1, left, max, |_, found| found == 0);
            return Ok(Mapping::Hole(if len == left {
                self.extend_hole(at, len, max)
            } else {
                len
            }));
        }
        let start = self.check(raw, at)?;
        // What the inode itself holds need not be remembered.
        let reach = match memory {
            Memory::Kept if at.0 >= indirect::DIRECT => self.recent.reach(at.0, raw),
            _ => None,
        };
        let Some(reach) = reach else {
            return match max {
                0 | 1 => Ok(Mapping::Existing(Run::single(start))),
                _ => Ok(Mapping::Existing(
                    self.extend_run(at, start, slot, left, max)?,
                )),
            };
        };
        let compared = max.max(reach);
        let run = self.extend_run(at, start, slot, left, compared)?;
        let found = Piece {
            at: at.0,
            start: raw,
            len: run.len,
            ended: run.len < compared,
        };
        self.recent.remember(turn, found);
        Ok(Mapping::Existing(run.split(max.max(1)).0))
    }

    #[inline]
    fn leaf(&self, at: FileBlock) -> Result<Leaf> {
        if at.0 < indirect::DIRECT {
            return Ok(Leaf::Slots {
                slot: self.root_slot(at.0),
                left: indirect::DIRECT - at.0,
            });
        }
        let path = indirect::path(at, self.volume.geometry().addr_bits())?;
        let mut slot = self.root_slot(path.index[0]);
        for (level, &index) in (0..path.depth).zip(&path.index[1..]) {
            let raw = self.pointer(slot);
            if raw == 0 {
                return Ok(Leaf::Hole(path.left_under(level)));
            }
            slot = self.table_slot(self.check(raw, at)?, index);
        }
        Ok(Leaf::Slots {
            slot,
            left: path.left_in_leaf(),
        })
    }

    /// The slot of a file block's pointer, if there is a table for it.
    pub(super) fn slot_of(&self, at: FileBlock) -> Result<Option<Off<U32>>> {
        Ok(match self.leaf(at)? {
            Leaf::Slots { slot, .. } => Some(slot),
            Leaf::Hole(_) => None,
        })
    }

    /// How many slots from `slot` on are as `same` wants them: `have` are known, at most `left` and `max`.
    fn equal_slots(
        &self,
        slot: Off<U32>,
        have: u32,
        left: u32,
        max: u32,
        same: impl Fn(u32, u32) -> bool,
    ) -> u32 {
        let end = left.min(max.max(1));
        (have..end)
            .find(|&index| !same(index, self.pointer(slot.index(u64::from(index)))))
            .unwrap_or(end.max(have))
    }

    fn extend_run(
        &self,
        at: FileBlock,
        start: FsBlock,
        slot: Off<U32>,
        left: u32,
        max: u32,
    ) -> Result<Run> {
        let raw = start.get();
        let next =
            |done: u32| move |index: u32, found: u32| raw.checked_add(done + index) == Some(found);
        let mut len = self.equal_slots(slot, 1, left, max, next(0));
        let mut leaf_end = left;
        while len == leaf_end && len < max {
            let Some(here) = at.0.checked_add(len) else {
                break;
            };
            // Damage further on is the business of whoever asks for that block.
            let Ok(Leaf::Slots { slot, left }) = self.leaf(FileBlock(here)) else {
                break;
            };
            len += self.equal_slots(slot, 0, left, max - len, next(len));
            leaf_end += left;
        }
        // What follows the first pointer was only compared with it.
        let geometry = self.volume.geometry();
        let run = geometry.fs_run(raw, len.min(geometry.blocks_count() - raw))?;
        let run = match self.volume.first_metadata(run)? {
            Some(end) => run.split(end - raw).0,
            None => run,
        };
        Ok(run)
    }

    fn extend_hole(&self, at: FileBlock, known: u32, max: u32) -> u32 {
        let mut len = known;
        while len < max {
            let Some(here) = at.0.checked_add(len) else {
                break;
            };
            match self.leaf(FileBlock(here)) {
                Ok(Leaf::Hole(more)) => len = len.saturating_add(more),
                Ok(Leaf::Slots { slot, left }) => {
                    let more = self.equal_slots(slot, 0, left, max - len, |_, found| found == 0);
                    len += more;
                    if more < left {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        len.min(max.max(1))
    }

    /// The first file block in `from..to` that has a block.
    ///
    /// # Errors
    /// As [`BlockTree::lookup`].
    pub fn next_data(&self, from: FileBlock, to: FileBlock) -> Result<Option<FileBlock>> {
        self.find(from, to, |mapping| mapping.run().is_some())
    }

    /// The first file block in `from..to` that has none.
    ///
    /// # Errors
    /// As [`BlockTree::lookup`].
    pub fn next_hole(&self, from: FileBlock, to: FileBlock) -> Result<Option<FileBlock>> {
        self.find(from, to, |mapping| mapping.run().is_none())
    }

    fn find(
        &self,
        from: FileBlock,
        to: FileBlock,
        wanted: impl Fn(&Mapping) -> bool,
    ) -> Result<Option<FileBlock>> {
        let mut at = from;
        while at < to {
            let mapping = match self.lookup(at, to.0 - at.0) {
                // Beyond the tree there is nothing.
                Err(Error::FileTooLarge) => Mapping::Hole(to.0 - at.0),
                found => found?,
            };
            if wanted(&mapping) {
                return Ok(Some(at));
            }
            at = FileBlock(at.0.saturating_add(mapping.len()));
        }
        Ok(None)
    }
}
