//! Bad blocks: where the tables of a group lie, and the file that owns what nobody may use.

use alloc::vec::Vec;

use ext2dax_format::indirect::DIRECT;
use ext2dax_format::{Geometry, GroupNr};

use crate::options::Refusal;
use crate::plan::Plan;

/// Where the tables of a group lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) block_bitmap: u32,
    pub(crate) inode_bitmap: u32,
    pub(crate) inode_table: u32,
}

impl Tables {
    /// Behind the superblock's copy and the descriptors, in the order in which mke2fs puts them.
    fn usual(geometry: &Geometry, group: GroupNr) -> Self {
        let first = geometry.group_first_block(group).get() + geometry.group_super_blocks(group);
        Self {
            block_bitmap: first,
            inode_bitmap: first + 1,
            inode_table: first + 2,
        }
    }
}

/// What of `start..end` is in none of `out`, which ascend.
fn without(start: u32, end: u32, out: impl Iterator<Item = (u32, u32)>) -> Vec<(u32, u32)> {
    let mut all = Vec::new();
    let mut at = start;
    for (from, to) in out {
        if at < from.min(end) {
            all.push((at, from.min(end)));
        }
        at = at.max(to);
    }
    if at < end {
        all.push((at, end));
    }
    all
}

impl Plan {
    /// The bad blocks in a range.
    fn bad_within(&self, start: u32, end: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let bad = &self.options.bad_blocks;
        let first = bad.partition_point(|&block| block < start);
        let inside = bad[first..].iter().take_while(move |&&block| block < end);
        inside.map(|&block| (block, block + 1))
    }

    /// The bad blocks of the image.
    pub(crate) fn bad_blocks(&self) -> &[u32] {
        let bad = &self.options.bad_blocks;
        &bad[..bad.partition_point(|&block| block < self.geometry.blocks_count())]
    }

    /// Moves tables from bad blocks to the first good ones behind them.
    ///
    /// # Errors
    /// A bad block where nothing else can be, or a group that has no room for its tables.
    pub(crate) fn avoid_bad_blocks(&mut self) -> Result<(), Refusal> {
        let geometry = self.geometry;
        if let Some(&block) = self.options.bad_blocks.first()
            && block < geometry.first_data_block()
        {
            return Err(Refusal::BadBlock(block));
        }
        for group in geometry.all_groups() {
            let all = geometry.group_run(group);
            let (start, end) = (all.start.get(), all.end());
            let first = start + geometry.group_super_blocks(group);
            if let Some((block, _)) = self.bad_within(start, first).next() {
                return Err(Refusal::BadBlock(block));
            }
            let reach = first + 2 + geometry.inode_table_blocks();
            let Some((bad, _)) = self.bad_within(first, reach).next() else {
                continue;
            };
            let mut good = without(first, end, self.bad_within(first, end));
            let mut take = |len: u32| {
                let run = good.iter_mut().find(|run| run.1 - run.0 >= len)?;
                run.0 += len;
                Some(run.0 - len)
            };
            let tables = take(1)
                .zip(take(1))
                .zip(take(geometry.inode_table_blocks()));
            let ((block_bitmap, inode_bitmap), inode_table) =
                tables.ok_or(Refusal::BadBlock(bad))?;
            let tables = Tables {
                block_bitmap,
                inode_bitmap,
                inode_table,
            };
            self.moved.push((group.get(), tables));
        }
        Ok(())
    }

    pub(crate) fn tables(&self, group: GroupNr) -> Tables {
        match self.moved.binary_search_by_key(&group.get(), |of| of.0) {
            Ok(nr) => self.moved[nr].1,
            Err(_) => Tables::usual(&self.geometry, group),
        }
    }

    /// Blocks of a group that belong to no file: superblock and descriptors, bitmaps, inode table.
    pub(crate) fn table_runs(&self, group: GroupNr) -> [(u32, u32); 4] {
        let geometry = &self.geometry;
        let start = geometry.group_first_block(group).get();
        let tables = self.tables(group);
        let (block, inode, table) = (tables.block_bitmap, tables.inode_bitmap, tables.inode_table);
        let mut runs = [
            (start, start + geometry.group_super_blocks(group)),
            (block, block + 1),
            (inode, inode + 1),
            (table, table + geometry.inode_table_blocks()),
        ];
        runs.sort_unstable();
        runs
    }

    /// What files can have of a group, which may be taken for longer than it is.
    fn gaps(&self, group: GroupNr, end: u32) -> Vec<(u32, u32)> {
        let start = self.geometry.group_first_block(group).get();
        let mut out: Vec<(u32, u32)> = self.table_runs(group).into();
        out.extend(self.bad_within(start, end));
        out.sort_unstable();
        without(start, end, out.into_iter())
    }

    /// What tables and bad blocks leave, the last group as long as it is.
    pub(crate) fn free_space(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let groups = self.geometry.all_groups();
        groups.flat_map(|group| self.gaps(group, self.geometry.group_run(group).end()))
    }

    /// What tables and bad blocks leave, the last group as long as the others.
    #[cfg(feature = "std")]
    pub(crate) fn free_space_of_whole_groups(&self) -> Vec<(u32, u32)> {
        let geometry = &self.geometry;
        let gaps = |group| {
            let start = geometry.group_first_block(group).get();
            self.gaps(group, start.saturating_add(geometry.blocks_per_group()))
        };
        geometry.all_groups().flat_map(gaps).collect()
    }

    /// Indirect blocks of the file of bad blocks.
    pub(crate) fn bad_indirect(&self) -> u32 {
        let addrs = self.geometry.addr_per_block();
        let count = u32::try_from(self.bad_blocks().len()).unwrap_or(u32::MAX);
        let (mut left, mut blocks) = (count.saturating_sub(DIRECT), 0);
        for level in 1..=3 {
            let here = left.min(addrs.saturating_pow(level));
            blocks += (1..=level)
                .map(|level| here.div_ceil(addrs.saturating_pow(level)))
                .sum::<u32>();
            left -= here;
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[test]
    fn tables_move_behind_bad_blocks_and_nothing_else_does() {
        let mut options = Options::with_block_size(1024);
        let usual = Plan::new(&options, 20 << 20).unwrap();
        let tables = |plan: &Plan, nr| plan.tables(plan.geometry.group(nr).unwrap());
        let bitmap = tables(&usual, 1).inode_bitmap;
        options.bad_blocks = [300, bitmap, 20_000].into();
        let plan = Plan::new(&options, 20 << 20).unwrap();
        let (zero, one) = (tables(&plan, 0), tables(&plan, 1));
        assert_eq!(zero.inode_table, 301);
        assert_eq!(zero.block_bitmap, tables(&usual, 0).block_bitmap);
        assert_eq!(one.inode_bitmap, bitmap + 1);
        assert_eq!(tables(&plan, 2), tables(&usual, 2));
        let free = |plan: &Plan| plan.superblock.s_free_blocks_count.get();
        assert_eq!(free(&usual) - free(&plan), 3);
        options.bad_blocks = [2].into();
        let refused = Plan::new(&options, 20 << 20).unwrap_err();
        assert_eq!(refused, Refusal::BadBlock(2));
    }

    #[test]
    fn holes_in_a_range() {
        let out = [(0, 3), (5, 6), (5, 6), (9, 20)];
        assert_eq!(without(2, 10, out.into_iter()), [(3, 5), (6, 9)]);
        assert_eq!(without(0, 2, [].into_iter()), [(0, 2)]);
    }
}
