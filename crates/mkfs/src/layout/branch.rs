//! The indirect blocks of a file, in one order: a block before those that it points to.

use ext2dax_format::indirect::{DIRECT, span};

use crate::source::Blocks;

/// The trees of indirect blocks above the runs of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Branches<'a> {
    runs: &'a [Blocks],
    addr_bits: u32,
}

/// An indirect block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    /// 1: points to data; 2 and 3: to indirect blocks.
    pub(crate) level: u32,
    /// First file block below it.
    pub(crate) first: u64,
}

impl<'a> Branches<'a> {
    /// `runs` ascend.
    pub(crate) fn new(runs: &'a [Blocks], addr_bits: u32) -> Self {
        Self { runs, addr_bits }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        let mut count = 0;
        self.visit(&mut |_| count += 1);
        count
    }

    /// The three tops, single, double and triple, each if it is there.
    pub(crate) fn tops(&self) -> impl Iterator<Item = Branch> {
        let mut first = u64::from(DIRECT);
        (1..=3).filter_map(move |level| {
            let top = Branch { level, first };
            first += span(level, self.addr_bits);
            self.holds(top).then_some(top)
        })
    }

    /// Where the tops stand in the order: slot of the inode and number.
    pub(crate) fn top_slots(&self) -> impl Iterator<Item = (u32, u32)> {
        let mut before = 0;
        let mut last: Option<Branch> = None;
        self.tops().map(move |top| {
            if let Some(last) = last.replace(top) {
                self.visit_below(last, &mut |_| before += 1);
            }
            (DIRECT + top.level - 1, before)
        })
    }

    /// Calls `each` for every one, in order.
    fn visit(&self, each: &mut impl FnMut(Branch)) {
        for top in self.tops() {
            self.visit_below(top, each);
        }
    }

    fn visit_below(&self, branch: Branch, each: &mut impl FnMut(Branch)) {
        each(branch);
        if branch.level > 1 {
            for (_, below) in self.below(branch) {
                self.visit_below(below, each);
            }
        }
    }

    /// The slots of a branch that lead to indirect blocks, and those.
    pub(crate) fn below(&self, branch: Branch) -> impl Iterator<Item = (u32, Branch)> {
        let step = span(branch.level - 1, self.addr_bits);
        (0..1_u32 << self.addr_bits).filter_map(move |slot| {
            let below = Branch {
                level: branch.level - 1,
                first: branch.first + u64::from(slot) * step,
            };
            self.holds(below).then_some((slot, below))
        })
    }

    /// Whether there is a block of the file below.
    fn holds(&self, branch: Branch) -> bool {
        let end = branch.first + span(branch.level, self.addr_bits);
        let next = self.runs.partition_point(|run| run.end() <= branch.first);
        self.runs
            .get(next)
            .is_some_and(|run| u64::from(run.start) < end)
    }
}

#[cfg(test)]
mod tests {
    use ext2dax_format::indirect::indirect_blocks;

    use super::*;

    #[test]
    fn a_file_without_holes_has_as_many_as_the_arithmetic_says() {
        for addr_bits in [8, 10] {
            for len in [
                0, 1, 12, 13, 268, 269, 1036, 1037, 66_000, 70_000, 2_000_000,
            ] {
                let runs = [Blocks { start: 0, len }];
                let runs = if len == 0 { &[][..] } else { &runs[..] };
                let count = Branches::new(runs, addr_bits).count();
                let expected = indirect_blocks(u64::from(len), addr_bits);
                assert_eq!(u64::from(count), expected, "{len} {addr_bits}");
            }
        }
    }

    #[test]
    fn one_block_far_out_has_a_branch_of_its_own() {
        let runs = [Blocks {
            start: 12 + 256 + 65_536 + 5,
            len: 1,
        }];
        let branches = Branches::new(&runs, 8);
        assert_eq!(branches.count(), 3);
        let mut seen = Vec::new();
        branches.visit(&mut |branch| seen.push(branch.level));
        assert_eq!(seen, [3, 2, 1]);
        let at_end = [Blocks { start: 11, len: 2 }];
        assert_eq!(Branches::new(&at_end, 8).count(), 1);
    }
}
