//! What is in use, seen from the inodes: what bitmaps say besides is leaked.
//!
//! For a mount that nobody uses yet. The caller goes through all inodes once and hands over what each has; then every bit
//! is accounted for, and [`Survey::finish`] clears those that nobody owns. Reads inode tables and indirect blocks, no data.
//! Memory: one bit for each block of the groups that hold anything.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use ext2dax_format::{CorruptKind, FsBlock, GroupNr, Ino, RawInode, Result, indirect};
use ext2dax_pmem::{Off, field};
use zerocopy::little_endian::U32;

use crate::bitmap::WORD;
use crate::groups::Kind;
use crate::volume::State;

/// As many numbers as may have been taken at the same time.
const TORN: u32 = 64;

/// Whose blocks are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A file of somebody's: each block is its own, and none belongs to the tables.
    File,
    /// One of the file system's own inodes, which may well lead to tables.
    System,
}

/// What hangs on an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Blocks, indirect ones included.
    pub blocks: u64,
    /// The file block behind the last one that is there.
    pub end: u64,
}

/// What was given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Blocks that nothing leads to.
    pub blocks: u64,
    /// Inodes that are dead.
    pub inodes: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Survey<'s> {
    state: &'s State,
    /// By group, one bit a block; made with the first block that is found there.
    used: Vec<Option<Box<[u64]>>>,
    /// Directories by group.
    directories: Vec<u32>,
    /// Attribute blocks, which inodes may share.
    attributes: BTreeSet<u32>,
    dead: Vec<Ino>,
}

impl State {
    /// Begins a survey. The caller is alone with the volume until it is finished.
    #[must_use]
    pub fn survey(&self) -> Survey<'_> {
        let groups = self.geometry().groups() as usize;
        Survey {
            state: self,
            used: vec![None; groups],
            directories: vec![0; groups],
            attributes: BTreeSet::new(),
            dead: Vec::new(),
        }
    }
}

impl Survey<'_> {
    /// The inodes of a group that may have been used, and whether their bits are set. A crash may have torn an inode whose
    /// bit it lost; as numbers are taken from the lowest on, it is not far behind those that are in use.
    ///
    /// # Errors
    /// `Corrupt`: the group's descriptor is damaged.
    pub fn inodes(&self, group: GroupNr) -> Result<Vec<(Ino, bool)>> {
        let state = self.state;
        let geometry = state.geometry();
        let bitmap = state
            .groups
            .bitmap(state.pmem(), geometry, group, Kind::Inodes)?;
        let count = geometry.inodes_per_group();
        let last = (0..count).rev().find(|&index| bitmap.test(index));
        let end = last.map_or(TORN, |last| last + 1 + TORN).min(count);
        let all = (0..end).filter_map(|index| {
            let ino = geometry.ino_in_group(group, index)?;
            Some((ino, bitmap.test(index)))
        });
        Ok(all.collect())
    }

    /// An inode that is dead: its number is free.
    pub fn dead(&mut self, ino: Ino) {
        self.dead.push(ino);
    }

    /// A directory.
    pub fn directory(&mut self, ino: Ino) {
        self.directories[self.state.geometry().locate_ino(ino).0.index()] += 1;
    }

    /// All blocks of an inode whose `i_block` holds pointers.
    ///
    /// # Errors
    /// `Corrupt`: a pointer that cannot be, or a block that somebody else has. Nothing is given back then.
    pub fn tree(&mut self, ino: Ino, owner: Owner) -> Result<Tree> {
        let at = field!(self.state.inode_offset(ino)?, RawInode, i_block).cast::<U32>();
        let mut walk = Walk {
            survey: self,
            ino,
            owner,
            found: Tree::default(),
        };
        for index in 0..indirect::SLOTS {
            let below = (index + 1).saturating_sub(indirect::DIRECT);
            let base = walk.base(index);
            walk.slot(at.index(u64::from(index)), below, base)?;
        }
        Ok(walk.found)
    }

    /// The attribute block of an inode, which others may have, too.
    ///
    /// # Errors
    /// As [`Survey::tree`].
    pub fn attribute_block(&mut self, ino: Ino, raw: u32) -> Result<()> {
        let block = self.state.check_pointer(raw, ino, 0)?;
        if self.attributes.insert(raw) {
            self.take(block, ino, Owner::File)?;
        }
        Ok(())
    }

    /// Says whether nobody had the block before.
    fn take(&mut self, block: FsBlock, ino: Ino, owner: Owner) -> Result<bool> {
        let state = self.state;
        let geometry = state.geometry();
        let (group, nr) = geometry.locate_block(block);
        let (inode, block) = (ino.get(), block.get());
        let bitmap = state
            .groups
            .bitmap(state.pmem(), geometry, group, Kind::Blocks)?;
        if !bitmap.test(nr) {
            return Err(CorruptKind::BlockMarkedFree { inode, block }.into());
        }
        let words = geometry.blocks_per_group().div_ceil(WORD) as usize;
        let used = self.used[group.index()].get_or_insert_with(|| vec![0; words].into());
        let (word, bit) = (&mut used[(nr / WORD) as usize], 1 << (nr % WORD));
        let first = *word & bit == 0;
        *word |= bit;
        if !first && owner == Owner::File {
            return Err(CorruptKind::BlockUsedTwice { inode, block }.into());
        }
        Ok(first)
    }

    /// Clears the bits that nobody owns, and puts the counts of directories right. Durable with the caller's next fence.
    ///
    /// # Errors
    /// `Corrupt`: something in use is marked as free, or a group is damaged. Nothing has been given back then.
    pub fn finish(mut self) -> Result<Reclaimed> {
        let state = self.state;
        for group in state.geometry().all_groups() {
            self.take_tables(group)?;
        }
        let mut reclaimed = Reclaimed::default();
        for ino in core::mem::take(&mut self.dead) {
            state.free_inode(ino, false);
            reclaimed.inodes += 1;
        }
        for group in state.geometry().all_groups() {
            reclaimed.blocks += self.clear(group)?;
            let _guard = state.lock_group(group);
            let count = self.directories[group.index()];
            state
                .groups
                .set_dirs(state.pmem(), state.geometry(), group, count);
        }
        Ok(reclaimed)
    }

    fn take_tables(&mut self, group: GroupNr) -> Result<()> {
        let state = self.state;
        for run in state.groups.tables(state.pmem(), state.geometry(), group)? {
            for block in run.iter() {
                self.take(block, Ino::ROOT, Owner::System)?;
            }
        }
        Ok(())
    }

    /// What the group's bitmap says beyond what is in use, by word.
    fn leaked(&self, group: GroupNr) -> Result<Vec<(u32, u64)>> {
        let state = self.state;
        let _guard = state.lock_group(group);
        state.count_group(group)?;
        let bitmap = state
            .groups
            .bitmap(state.pmem(), state.geometry(), group, Kind::Blocks)?;
        let used = self.used[group.index()].iter().flatten().copied();
        let words = 0..state.geometry().group_len(group).div_ceil(WORD);
        let leaked = words
            .zip(used.chain(core::iter::repeat(0)))
            .map(|(index, used)| (index, bitmap.word(index) & !used));
        Ok(leaked.filter(|&(_, word)| word != 0).collect())
    }

    fn clear(&self, group: GroupNr) -> Result<u64> {
        let geometry = self.state.geometry();
        let (first, len) = (
            geometry.group_first_block(group).get(),
            geometry.group_len(group),
        );
        let mut cleared = 0;
        for (index, mut leaked) in self.leaked(group)? {
            while leaked != 0 {
                let from = leaked.trailing_zeros();
                let run = (leaked >> from).trailing_ones();
                let nr = index * WORD + from;
                // Past its end a bitmap is all ones.
                let count = run.min(len.saturating_sub(nr));
                if count > 0 {
                    self.state.clear_bits(geometry.fs_run(first + nr, count)?);
                    cleared += u64::from(count);
                }
                leaked &= (!0_u64).checked_shl(from + run).unwrap_or(0);
            }
        }
        Ok(cleared)
    }
}

/// The way through one tree.
struct Walk<'w, 's> {
    survey: &'w mut Survey<'s>,
    ino: Ino,
    owner: Owner,
    found: Tree,
}

impl Walk<'_, '_> {
    /// The file block that a slot of the inode begins with.
    fn base(&self, index: u32) -> u64 {
        let addr_bits = self.survey.state.geometry().addr_bits();
        match index.checked_sub(indirect::DIRECT) {
            None => u64::from(index),
            Some(level) => (1..=level).fold(u64::from(indirect::DIRECT), |base, level| {
                base + indirect::span(level, addr_bits)
            }),
        }
    }

    fn slot(&mut self, slot: Off<U32>, below: u32, base: u64) -> Result<()> {
        let state = self.survey.state;
        let raw = state.pmem().load(slot).get();
        if raw == 0 {
            return Ok(());
        }
        let block = match self.owner {
            Owner::File => {
                let file_block = u32::try_from(base).unwrap_or(u32::MAX);
                state.check_pointer(raw, self.ino, file_block)?
            }
            Owner::System => state.geometry().fs_block(raw)?,
        };
        let first = self.survey.take(block, self.ino, self.owner)?;
        self.found.blocks += 1;
        if below == 0 {
            self.found.end = base + 1;
        }
        // A table that was met before may lead to itself.
        if below == 0 || !first {
            return Ok(());
        }
        let span = indirect::span(below - 1, state.geometry().addr_bits());
        let table = Off::<U32>::new(state.geometry().offset(block));
        for index in 0..u64::from(state.geometry().addr_per_block()) {
            self.slot(table.index(index), below - 1, base + index * span)?;
        }
        Ok(())
    }
}
