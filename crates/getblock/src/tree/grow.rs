//! New branches: built where nobody looks, spliced in by single stores.

use core::fmt;

use ext2dax_format::{Error, FileBlock, FsBlock, Result, Run, indirect};
use ext2dax_pmem::Off;
use zerocopy::little_endian::U32;

use super::{BlockTree, Hints, Intent, Mapping, TreeGuard};
use crate::place::{Use, Want, Windows};
use crate::token::Detached;

/// Indirect blocks that one call builds at most; a run that would need more is cut short. Fixed, because faults grow
/// trees and must not use the heap.
const MAX_TABLES: usize = 20;
/// Slots, or runs of slots, that one call publishes at most.
const MAX_LINKS: usize = 24;

/// Indirect blocks on the way to one file block, at most.
const LEVELS: u32 = 3;

/// Consecutive slots of a live table (or of the inode), to be set to consecutive block numbers.
#[derive(Clone, Copy)]
struct Link {
    slot: Off<U32>,
    first: u32,
    count: u32,
}

/// A new indirect block and the slot that will lead, or already leads, to it.
#[derive(Clone, Copy)]
struct Table {
    block: FsBlock,
    slot: Off<U32>,
}

/// Blocks and indirect blocks for a hole, complete but for the stores that make them reachable.
///
/// New indirect blocks are filled in and flushed. The contents of the data blocks are the caller's: he writes them (or
/// zeroes) at [`Branch::data_offset`], flushes, fences, and then splices. Dropping the branch gives every block back.
#[must_use = "dropping it gives the blocks back"]
pub struct Branch<'t> {
    tree: &'t BlockTree,
    data: Run,
    tables: [Option<Table>; MAX_TABLES],
    links: [Option<Link>; MAX_LINKS],
    /// Blocks that this branch adds to `i_blocks`.
    added: u32,
    spliced: bool,
}

impl fmt::Debug for Branch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branch")
            .field("data", &self.data)
            .field("added", &self.added)
            .finish_non_exhaustive()
    }
}

impl Drop for Branch<'_> {
    fn drop(&mut self) {
        if !self.spliced {
            self.give_back(self.data);
            self.tables
                .iter()
                .flatten()
                .for_each(|table| self.give_back(Run::single(table.block)));
        }
    }
}

impl<'t> Branch<'t> {
    pub(super) const fn new(tree: &'t BlockTree, data: Run) -> Self {
        Self {
            tree,
            data,
            tables: [None; MAX_TABLES],
            links: [None; MAX_LINKS],
            added: 0,
            spliced: false,
        }
    }

    /// The data blocks.
    #[must_use]
    pub const fn data(&self) -> Run {
        self.data
    }

    /// Where the first data block lies, in bytes from the start of the file system.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.tree.volume.geometry().offset(self.data.start)
    }

    /// Whether every store that splices it goes to the inode's first cache line: then a store of `i_size` behind it
    /// needs no fence in between.
    #[must_use]
    pub fn in_first_line(&self) -> bool {
        let line = self.tree.at.at()..self.tree.at.at() + 64;
        self.links
            .iter()
            .flatten()
            .all(|link| line.contains(&link.slot.at()) && line.contains(&last(link)))
    }

    pub(super) fn built_tables(&self) -> bool {
        self.tables[0].is_some()
    }

    fn give_back(&self, run: Run) {
        let volume = &self.tree.volume;
        volume.free(Detached::single(run, volume.brand()));
    }

    fn nr_tables(&self) -> usize {
        self.tables.iter().flatten().count()
    }

    fn nr_links(&self) -> usize {
        self.links.iter().flatten().count()
    }

    /// Links `data` in from file block `at` on, as much of it as tables can be had for. Says how much.
    pub(super) fn link(
        &mut self,
        windows: &mut Windows,
        at: FileBlock,
        hints: Hints,
    ) -> Result<u32> {
        let mut done = 0;
        while done < self.data.len {
            let (nr_tables, nr_links) = (self.nr_tables(), self.nr_links());
            match self.link_leaf(windows, FileBlock(at.0 + done), hints, done) {
                Ok(count) => done += count,
                Err(error) => {
                    self.unlink_from(nr_tables, nr_links);
                    if done == 0 {
                        return Err(error);
                    }
                    break;
                }
            }
        }
        Ok(done)
    }

    /// Forgets the tables and links of a leaf that could not be completed.
    fn unlink_from(&mut self, nr_tables: usize, nr_links: usize) {
        for index in nr_tables..MAX_TABLES {
            if let Some(table) = self.tables[index].take() {
                // Either a slot of a live table that is still zero, or one of an indirect block nobody sees yet.
                self.tree.pmem().store(table.slot, U32::new(0));
                self.give_back(Run::single(table.block));
            }
        }
        self.links[nr_links..].fill(None);
    }

    /// Links the data blocks from number `done` on into one leaf.
    fn link_leaf(
        &mut self,
        windows: &mut Windows,
        at: FileBlock,
        hints: Hints,
        done: u32,
    ) -> Result<u32> {
        let tree = self.tree;
        let path = indirect::path(at, tree.volume.geometry().addr_bits())?;
        let mut slot = tree.root_slot(path.index[0]);
        // Whether the slot can be reached from the inode.
        let mut live = true;
        for &index in path.index.iter().take(path.depth as usize + 1).skip(1) {
            let table = match (tree.pointer(slot), live) {
                (0, _) => match self.link_at(slot) {
                    Some(raw) => {
                        live = false;
                        tree.volume.geometry().fs_block(raw)?
                    }
                    None => {
                        let block = self.new_table(windows, slot, live, hints)?;
                        live = false;
                        block
                    }
                },
                (raw, true) => tree.check(raw, at)?,
                (raw, false) => tree.volume.geometry().fs_block(raw)?,
            };
            slot = tree.table_slot(table, index);
        }
        let count = path.left_in_leaf().min(self.data.len - done);
        let link = Link {
            slot,
            first: self.data.start.get() + done,
            count,
        };
        if live {
            self.push_link(link)?;
        } else {
            tree.store_link(link);
        }
        Ok(count)
    }

    fn link_at(&self, slot: Off<U32>) -> Option<u32> {
        let mut links = self.links.iter().flatten();
        links
            .find(|link| link.slot.at() == slot.at())
            .map(|link| link.first)
    }

    fn push_link(&mut self, link: Link) -> Result<()> {
        let free = self.links.iter_mut().find(|place| place.is_none());
        *free.ok_or(Error::NoSpace)? = Some(link);
        Ok(())
    }

    fn new_table(
        &mut self,
        windows: &mut Windows,
        slot: Off<U32>,
        live: bool,
        hints: Hints,
    ) -> Result<FsBlock> {
        let tree = self.tree;
        if self.nr_tables() == MAX_TABLES {
            return Err(Error::NoSpace);
        }
        let want = Want {
            group: tree.volume.geometry().locate_ino(tree.ino).0,
            goal: None,
            joins: true,
            len: 1,
            used_for: Use::Table,
            privileged: hints.privileged,
        };
        let fresh = tree.volume.take(want, windows)?;
        let block = fresh.run().start;
        tree.pmem().zero_flushed(
            fresh.offset(),
            u64::from(tree.volume.geometry().block_size()),
        );
        let link = Link {
            slot,
            first: block.get(),
            count: 1,
        };
        if live {
            if let Err(error) = self.push_link(link) {
                tree.volume.free(fresh.abandon());
                return Err(error);
            }
        } else {
            tree.store_link(link);
        }
        let place = self.tables.iter_mut().find(|place| place.is_none());
        *place.ok_or(Error::NoSpace)? = Some(Table { block, slot });
        Ok(block)
    }

    /// Gives back the data blocks from number `len` on.
    fn shorten(&mut self, len: u32) {
        let (kept, rest) = self.data.split(len);
        self.data = kept;
        self.give_back(rest);
    }

    /// Notes what the branch adds to `i_blocks`: `data` blocks, and its tables.
    ///
    /// # Errors
    /// How many blocks there are more than the field can count.
    pub(super) fn count(&mut self, data: u32) -> core::result::Result<(), u32> {
        let tables = u32::try_from(self.nr_tables()).unwrap_or(u32::MAX);
        self.added = data.saturating_add(tables);
        let room =
            (u32::MAX - self.tree.sectors()) / self.tree.volume.geometry().sectors_per_block();
        match self.added.checked_sub(room) {
            None | Some(0) => Ok(()),
            Some(excess) => Err(excess),
        }
    }
}

fn last(link: &Link) -> u64 {
    link.slot.at() + u64::from(link.count - 1) * 4
}

impl BlockTree {
    /// Finds the run behind file block `at`, and fills a hole if `intent` says so.
    ///
    /// Shape: starts at `at`, 1..=`max` blocks long, perhaps shorter than the true run. A hole is a run, too.
    /// Units: `at` and `max` count file blocks of `Geometry::block_size()` bytes, not pages.
    /// Order: a `New` run is zero and durable before the pointers to it are stored, and the pointers are durable on
    /// return: two fences, however long the run.
    ///
    /// # Locking
    /// The guard is this tree's. Group locks are taken and given back inside.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::FileTooLarge`], `Corrupt`: nothing reachable has changed; what was taken on the way
    /// is given back.
    pub fn get_blocks(
        &self,
        guard: &mut TreeGuard<'_>,
        at: FileBlock,
        max: u32,
        intent: Intent,
    ) -> Result<Mapping> {
        let found = self.lookup(at, max)?;
        let (Mapping::Hole(len), Intent::Allocate(hints)) = (found, intent) else {
            return Ok(found);
        };
        let branch = self.fill(guard, at, len, hints)?;
        let run = branch.data();
        let len = u64::from(run.len) << self.volume.geometry().block_bits();
        self.pmem().zero_flushed(branch.data_offset(), len);
        self.pmem().fence();
        self.splice(guard, branch);
        self.pmem().fence();
        Ok(Mapping::New(run))
    }

    /// Takes the blocks for a hole of at most `max` file blocks from `at` on, with the indirect blocks that lead to
    /// them, and publishes nothing. Flushed, not fenced.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is a block at `at`; else as [`BlockTree::get_blocks`].
    pub fn prepare(
        &self,
        guard: &mut TreeGuard<'_>,
        at: FileBlock,
        max: u32,
        hints: Hints,
    ) -> Result<Branch<'_>> {
        match self.lookup(at, max)? {
            Mapping::Hole(len) => self.fill(guard, at, len, hints),
            _ => Err(Error::AlreadyExists),
        }
    }

    /// Makes a prepared branch reachable: the pointers, then `i_blocks`; flushed, not fenced. A fence lies between the
    /// writing of the branch's data and this call, and another one follows before anything relies on it.
    pub fn splice(&self, _guard: &mut TreeGuard<'_>, mut branch: Branch<'_>) {
        debug_assert!(core::ptr::eq(self, branch.tree), "a branch of another tree");
        self.store_branch(&mut branch);
        self.recent.grown();
    }

    /// The same for a branch that was prepared before the guard was last given away: somebody else may have used the
    /// slots that it is meant for, and then nothing is published and it comes back.
    #[must_use = "a branch that comes back was not spliced"]
    pub fn splice_if_vacant<'t>(
        &'t self,
        guard: &mut TreeGuard<'_>,
        branch: Branch<'t>,
    ) -> Option<Branch<'t>> {
        let vacant = |link: &Link| {
            (0..link.count).all(|index| self.pointer(link.slot.index(u64::from(index))) == 0)
        };
        if !branch.links.iter().flatten().all(vacant) {
            return Some(branch);
        }
        self.splice(guard, branch);
        None
    }

    pub(super) fn store_branch(&self, branch: &mut Branch<'_>) {
        branch.spliced = true;
        // PUBLISH: each store turns a hole into blocks that are durable and zero (or written); a subset of them reads
        // like the whole. Before: leaked bits. After: the blocks are the file's; i_blocks may lag behind (residue).
        branch
            .links
            .iter()
            .flatten()
            .for_each(|&link| self.store_link(link));
        self.pmem().line_order();
        let step = branch
            .added
            .saturating_mul(self.volume.geometry().sectors_per_block());
        self.store_sectors(self.sectors().saturating_add(step));
    }

    fn store_link(&self, link: Link) {
        for index in 0..link.count {
            self.pmem().store(
                link.slot.index(u64::from(index)),
                U32::new(link.first + index),
            );
        }
        self.pmem().flush(link.slot.at(), u64::from(link.count) * 4);
    }

    /// The hole at `at` is `len` blocks long or longer.
    fn fill(
        &self,
        guard: &mut TreeGuard<'_>,
        at: FileBlock,
        len: u32,
        hints: Hints,
    ) -> Result<Branch<'_>> {
        let geometry = self.volume.geometry();
        let limit = geometry.max_file_size() >> geometry.block_bits();
        let left = u32::try_from(limit.saturating_sub(u64::from(at.0))).unwrap_or(u32::MAX);
        let in_page = at.0 % self.volume.cluster();
        let (goal, joins) = match hints.goal {
            Some(goal) => (Some(goal), Some(in_page != 0)),
            None => self.neighbour(at).unzip(),
        };
        let want = Want {
            group: geometry.locate_ino(self.ino).0,
            goal,
            joins: joins == Some(true),
            len: len.min(left),
            used_for: Use::Data(at.0),
            privileged: hints.privileged,
        };
        if left == 0 {
            return Err(Error::FileTooLarge);
        }
        let windows = &mut *guard.0;
        let mut branch = Branch::new(self, self.volume.take(want, windows)?.run());
        loop {
            let linked = match branch.link(windows, at, hints) {
                // The data took what its indirect blocks need.
                Err(Error::NoSpace) if branch.data.len > 1 => {
                    let less = branch
                        .data
                        .len
                        .saturating_sub(LEVELS)
                        .max(branch.data.len / 2);
                    branch.shorten(less.min(branch.data.len - 1));
                    continue;
                }
                linked => linked?,
            };
            branch.shorten(linked);
            match branch.count(linked) {
                // As much of it as `i_blocks` can still count.
                Err(excess) if excess < linked => {
                    branch.unlink_from(0, 0);
                    branch.shorten(linked - excess);
                }
                counted => break counted.map_err(|_| Error::FileTooLarge)?,
            }
        }
        Ok(branch)
    }

    /// The block behind the one before `at`; else, for a file that is filled at random, the one that would lead up to
    /// the next block of its 2 MiB. And whether that neighbour lies in the same page as `at`.
    fn neighbour(&self, at: FileBlock) -> Option<(FsBlock, bool)> {
        let geometry = self.volume.geometry();
        let cluster = self.volume.cluster();
        if let Some(before) = at.0.checked_sub(1)
            && let Ok(Mapping::Existing(run)) = self.lookup_once(FileBlock(before), 1)
        {
            return Some((
                geometry.fs_block(run.end()).ok()?,
                !at.0.is_multiple_of(cluster),
            ));
        }
        let huge = (2 << 20) >> geometry.block_bits();
        let left = huge - at.0 % huge;
        let Ok(Mapping::Hole(gap)) = self.lookup_once(at, left) else {
            return None;
        };
        if gap >= left {
            return None;
        }
        let after = self
            .lookup_once(FileBlock(at.0 + gap), 1)
            .ok()?
            .run()?
            .start;
        let goal = geometry.fs_block(after.get().checked_sub(gap)?).ok()?;
        Some((goal, gap < cluster - at.0 % cluster))
    }
}
