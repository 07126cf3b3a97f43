//! Large pages below what will be written whole: in a file in memory they cost a fraction of small ones, and one entry maps
//! each of them.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use ext2dax_pmem::Pmem;

use crate::layout::HUGE;
use crate::parallel;

/// Large pages that are asked for at once.
const STEP: usize = 8;

/// Which parts of a medium have their memory already.
#[derive(Debug, Default)]
pub(super) struct Huge {
    /// Where the first large page starts.
    first: u64,
    /// Each large page from there on.
    has: Vec<bool>,
}

impl Huge {
    /// Asks for all large pages that lie inside ranges, which ascend and do not touch each other.
    pub(super) fn below(pmem: &Pmem, ranges: &[Range<u64>], threads: usize) -> Self {
        let Some(phase) = pmem.huge_phase() else {
            return Self::default();
        };
        let first = u64::from((512 - phase % 512) % 512) * 4096;
        let whole: Vec<Range<usize>> = ranges
            .iter()
            .filter_map(|range| whole(range, first))
            .collect();
        let steps: Vec<Range<usize>> = whole
            .iter()
            .flat_map(|pages| {
                let starts = pages.clone().step_by(STEP);
                starts.map(|from| from..pages.end.min(from + STEP))
            })
            .collect();
        // Where one is refused, the others would be, too: the medium is another one, or full.
        let refused = AtomicBool::new(false);
        let bytes = |page: usize| first + page as u64 * HUGE;
        let found = parallel::try_map(
            steps.len(),
            threads,
            || (),
            |(), nr| {
                let pages = &steps[nr];
                let has = !refused.load(Ordering::Relaxed)
                    && pmem.populate_huge(bytes(pages.start)..bytes(pages.end));
                if !has {
                    refused.store(true, Ordering::Relaxed);
                }
                Ok::<_, std::convert::Infallible>(has)
            },
        );
        let Ok(found) = found;
        let mut has = vec![false; whole.last().map_or(0, |pages| pages.end)];
        for (pages, found) in steps.into_iter().zip(found) {
            has[pages].fill(found);
        }
        Self { first, has }
    }

    /// Whether the byte at a place has memory, and up to where (at most `end`) that is as true or as false.
    pub(super) fn run(&self, at: u64, end: u64) -> (bool, u64) {
        let Some(page) = at.checked_sub(self.first).map(|from| from / HUGE) else {
            return (false, end.min(self.first));
        };
        let page = usize::try_from(page).unwrap_or(usize::MAX);
        let Some(rest) = self.has.get(page..).filter(|rest| !rest.is_empty()) else {
            return (false, end);
        };
        // No more of them than the question is about: there is one for each small file.
        let most = usize::try_from(end.saturating_sub(at) / HUGE + 2).unwrap_or(usize::MAX);
        let asked = rest.iter().take(most);
        let same = asked.take_while(|&&has| has == rest[0]).count();
        let stop = self.first + (page + same) as u64 * HUGE;
        let is_last = !rest[0] && page + same == self.has.len();
        (rest[0], if is_last { end } else { end.min(stop) })
    }
}

/// Numbers of the large pages inside a range.
fn whole(range: &Range<u64>, first: u64) -> Option<Range<usize>> {
    let start = range.start.saturating_sub(first).div_ceil(HUGE);
    let end = range.end.checked_sub(first)? / HUGE;
    let number = |page: u64| usize::try_from(page).ok();
    (start < end).then_some(number(start)?..number(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_where_memory_begins_or_ends() {
        let huge = Huge {
            first: 4096,
            has: vec![false, true, true, false],
        };
        let page = |nr: u64| 4096 + nr * HUGE;
        let far = page(100);
        assert_eq!(huge.run(0, far), (false, 4096));
        assert_eq!(huge.run(4096, far), (false, page(1)));
        assert_eq!(huge.run(page(1) + 7, far), (true, page(3)));
        assert_eq!(huge.run(page(1), page(2) - 1), (true, page(2) - 1));
        assert_eq!(huge.run(page(3), far), (false, far));
        assert_eq!(huge.run(far, far + 1), (false, far + 1));
        assert_eq!(Huge::default().run(5, 9), (false, 9));
    }

    #[test]
    fn only_whole_pages_count() {
        assert_eq!(whole(&(0..4 * HUGE), 0), Some(0..4));
        assert_eq!(whole(&(1..4 * HUGE - 1), 0), Some(1..3));
        assert_eq!(whole(&(0..HUGE), 4096), None);
        assert_eq!(whole(&(0..4096 + HUGE), 4096), Some(0..1));
        assert_eq!(whole(&(0..100), 4096), None);
    }
}
