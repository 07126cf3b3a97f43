//! Free blocks while files are placed: the lowest place that is good enough, always the same one.

use std::collections::VecDeque;

/// Blocks `start..end`.
pub(crate) type Gap = (u32, u32);

/// What the steps of large files and of pages are, in blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Blocks in 2 MiB; `None`: large files are placed as small ones.
    pub(crate) unit: Option<u32>,
    /// Blocks in a page; 1 where blocks are as large.
    pub(crate) page: u32,
    /// Blocks between the last multiple of 2 MiB of the device and block 0.
    pub(crate) phase: u32,
}

impl Grid {
    /// The first block from `at` on that is `residue` blocks behind a multiple of `step`.
    fn align(&self, at: u32, step: u32, residue: u32) -> Option<u32> {
        let over = (u64::from(at) + u64::from(self.phase) + u64::from(step)
            - u64::from(residue % step))
            % u64::from(step);
        let skip = if over == 0 { 0 } else { u64::from(step) - over };
        u32::try_from(u64::from(at) + skip).ok()
    }
}

/// Places for large files: whole steps of 2 MiB, upwards.
pub(crate) struct LargeSpace<'a> {
    grid: Grid,
    gaps: &'a [Gap],
    /// What was passed over, and is for small files.
    left: Vec<Gap>,
    nr: usize,
    /// Where the current gap goes on.
    at: u32,
}

impl<'a> LargeSpace<'a> {
    pub(crate) fn new(gaps: &'a [Gap], grid: Grid) -> Self {
        let at = gaps.first().map_or(0, |gap| gap.0);
        Self {
            grid,
            gaps,
            left: Vec::new(),
            nr: 0,
            at,
        }
    }

    /// Takes `count` blocks: in one piece if they fit into the current gap, else in whole steps of 2 MiB, the rest
    /// behind them.
    ///
    /// # Errors
    /// How many blocks found no place.
    pub(crate) fn take(
        &mut self,
        mut count: u32,
        unit: u32,
        mut found: impl FnMut(Gap),
    ) -> Result<(), u32> {
        while count > 0 {
            let Some(&(_, end)) = self.gaps.get(self.nr) else {
                return Err(count);
            };
            let start = self
                .grid
                .align(self.at, unit, 0)
                .filter(|&start| start < end);
            let take = start.map_or(0, |start| {
                if count <= end - start {
                    count
                } else {
                    (end - start) / unit * unit
                }
            });
            match start {
                Some(start) if take > 0 => {
                    self.leave(self.at, start);
                    found((start, start + take));
                    self.at = start + take;
                    count -= take;
                }
                _ => {
                    self.leave(self.at, end);
                    self.nr += 1;
                    self.at = self.gaps.get(self.nr).map_or(0, |gap| gap.0);
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self, start: u32, end: u32) {
        if start < end {
            self.left.push((start, end));
        }
    }

    /// What is left for small files.
    pub(crate) fn finish(mut self) -> Space {
        if let Some(&(_, end)) = self.gaps.get(self.nr) {
            self.leave(self.at, end);
            let rest = &self.gaps[self.nr + 1..];
            self.left.extend_from_slice(rest);
        }
        Space::new(self.left, self.grid)
    }
}

/// Places for everything else: gaps that shrink from their start, with a tree over them that finds the first one of a
/// length.
pub(crate) struct Space {
    grid: Grid,
    gaps: Vec<Gap>,
    /// Longest gap below each node; leaves from `leaves` on.
    longest: Vec<u32>,
    leaves: usize,
    /// Pieces before a page boundary, for single blocks.
    crumbs: VecDeque<Gap>,
}

impl Space {
    fn new(gaps: Vec<Gap>, grid: Grid) -> Self {
        let leaves = gaps.len().next_power_of_two();
        let mut longest = vec![0; 2 * leaves];
        for (nr, gap) in gaps.iter().enumerate() {
            longest[leaves + nr] = gap.1 - gap.0;
        }
        for nr in (1..leaves).rev() {
            longest[nr] = longest[2 * nr].max(longest[2 * nr + 1]);
        }
        Self {
            grid,
            gaps,
            longest,
            leaves,
            crumbs: VecDeque::new(),
        }
    }

    /// The first gap of at least `len` blocks.
    fn find(&self, len: u32) -> Option<usize> {
        if self.longest[1] < len {
            return None;
        }
        let mut nr = 1;
        while nr < self.leaves {
            nr *= 2;
            if self.longest[nr] < len {
                nr += 1;
            }
        }
        Some(nr - self.leaves)
    }

    fn cut(&mut self, gap: usize, to: u32) {
        self.gaps[gap].0 = to;
        let mut nr = self.leaves + gap;
        self.longest[nr] = self.gaps[gap].1 - to;
        while nr > 1 {
            nr /= 2;
            self.longest[nr] = self.longest[2 * nr].max(self.longest[2 * nr + 1]);
        }
    }

    /// One block, the lowest that is left over somewhere.
    pub(crate) fn take_one(&mut self) -> Option<u32> {
        if let Some(crumb) = self.crumbs.front_mut() {
            let block = crumb.0;
            crumb.0 += 1;
            if crumb.0 == crumb.1 {
                self.crumbs.pop_front();
            }
            return Some(block);
        }
        let gap = self.find(1)?;
        let block = self.gaps[gap].0;
        self.cut(gap, block + 1);
        Some(block)
    }

    /// `count` blocks for file blocks from `at` on: in one piece in the first gap that holds them, pages at the place of
    /// pages; else in as many pieces as it takes.
    ///
    /// # Errors
    /// How many blocks found no place.
    pub(crate) fn take(
        &mut self,
        mut count: u32,
        at: u32,
        mut found: impl FnMut(Gap),
    ) -> Result<(), u32> {
        let page = self.grid.page;
        let paged = page > 1 && count >= page;
        if paged && let Some(gap) = self.find(count + page - 1) {
            let from = self.gaps[gap].0;
            if let Some(start) = self.grid.align(from, page, at % page) {
                if from < start {
                    self.crumbs.push_back((from, start));
                }
                self.cut(gap, start + count);
                found((start, start + count));
                return Ok(());
            }
        }
        while count > 0 {
            let Some(gap) = self.find(count).or_else(|| self.find(1)) else {
                break;
            };
            let (start, end) = self.gaps[gap];
            let stop = end.min(start.saturating_add(count));
            self.cut(gap, stop);
            found((start, stop));
            count -= stop - start;
        }
        while count > 0 {
            let block = self.take_one().ok_or(count)?;
            found((block, block + 1));
            count -= 1;
        }
        Ok(())
    }

    /// Blocks that nobody took, ascending.
    pub(crate) fn free(&self) -> Vec<Gap> {
        let crumbs = self.crumbs.iter().copied();
        let gaps = self.gaps.iter().copied().filter(|gap| gap.0 < gap.1);
        let mut all: Vec<Gap> = gaps.chain(crumbs).collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Grid = Grid {
        unit: Some(8),
        page: 1,
        phase: 0,
    };

    fn large(space: &mut LargeSpace<'_>, count: u32) -> Result<Vec<Gap>, u32> {
        let mut found = Vec::new();
        space.take(count, 8, |gap| found.push(gap))?;
        Ok(found)
    }

    fn small(space: &mut Space, count: u32, at: u32) -> Result<Vec<Gap>, u32> {
        let mut found = Vec::new();
        space.take(count, at, |gap| found.push(gap))?;
        Ok(found)
    }

    #[test]
    fn large_files_start_on_steps_and_small_ones_fill_what_they_pass_over() {
        let gaps = [(3, 30), (35, 64)];
        let mut space = LargeSpace::new(&gaps, GRID);
        assert_eq!(large(&mut space, 9).unwrap(), [(8, 17)]);
        assert_eq!(
            large(&mut space, 10).unwrap(),
            [(40, 50)],
            "no whole step is left in 24..30"
        );
        assert_eq!(large(&mut space, 16), Err(8));
        let mut space = space.finish();
        assert_eq!(small(&mut space, 5, 0).unwrap(), [(3, 8)]);
        assert_eq!(small(&mut space, 6, 0).unwrap(), [(17, 23)]);
        assert_eq!(space.take_one(), Some(23));
        assert_eq!(
            small(&mut space, 7, 0).unwrap(),
            [(24, 30), (35, 36)],
            "in pieces"
        );
        assert_eq!(space.free(), [(36, 40), (50, 56)]);
    }

    #[test]
    fn a_phase_shifts_the_steps() {
        let gaps = [(0, 64)];
        let mut space = LargeSpace::new(&gaps, Grid { phase: 3, ..GRID });
        assert_eq!(large(&mut space, 8).unwrap(), [(5, 13)]);
    }

    #[test]
    fn pages_keep_their_place_and_leave_crumbs_for_single_blocks() {
        let grid = Grid {
            unit: None,
            page: 4,
            phase: 0,
        };
        let gaps = [(1, 40)];
        let mut space = LargeSpace::new(&gaps, grid).finish();
        assert_eq!(small(&mut space, 4, 0).unwrap(), [(4, 8)]);
        assert_eq!(
            small(&mut space, 5, 6).unwrap(),
            [(10, 15)],
            "file block 6 is half a page in"
        );
        assert_eq!(
            small(&mut space, 2, 0).unwrap(),
            [(15, 17)],
            "less than a page"
        );
        assert_eq!([space.take_one(), space.take_one()], [Some(1), Some(2)]);
        assert_eq!(space.free(), [(3, 4), (8, 10), (17, 40)]);
        assert_eq!(small(&mut space, 27, 0), Err(1));
    }
}
