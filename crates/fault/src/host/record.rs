//! What each page of a view maps: our own table, since the kernel is never asked.
//!
//! # Locking
//! None of its own. A page's word changes together with its mapping, by an owner of the page's ENTRY or of INVALIDATE
//! exclusive, so the two never disagree; everybody else reads a word that may be old by the time it is used, which is
//! good enough for the fault thread's shortcuts (it wakes a thread that then faults again) and for the budget.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};

use super::sys::{Reservation, Rights, map_anonymous};

/// What a page of a view maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// The shadow: a userfault inside the size, the kernel's SIGBUS past it. In Signals mode memory without rights.
    Missing,
    /// Zeroes; the first store is a fault.
    Zero,
    /// A page of the image, by its number.
    Block { image_page: u64, writable: bool },
    /// The EOF file: every access is SIGBUS.
    Bus,
}

impl Page {
    fn word(self) -> u64 {
        match self {
            Page::Missing => 0,
            Page::Zero => 1,
            Page::Bus => 2,
            Page::Block {
                image_page,
                writable,
            } => 4 | u64::from(writable) | image_page << 3,
        }
    }

    fn from_word(word: u64) -> Page {
        match word & 7 {
            0 => Page::Missing,
            1 => Page::Zero,
            2 => Page::Bus,
            low => Page::Block {
                image_page: word >> 3,
                writable: low & 1 != 0,
            },
        }
    }

    /// Whether the kernel can keep this page and the next one in one mapping.
    fn continued_by(self, next: Page) -> bool {
        match (self, next) {
            (
                Page::Block {
                    image_page,
                    writable,
                },
                Page::Block {
                    image_page: other,
                    writable: too,
                },
            ) => other == image_page + 1 && writable == too,
            (Page::Bus, Page::Bus) => false,
            _ => self == next,
        }
    }
}

/// The pages of one view.
///
/// The words lie in memory that the kernel makes when it is first stored to: eight bytes for each page that has ever
/// been mapped, nothing for the rest of a large sparse view, and no use of the heap on the fault path.
#[derive(Debug)]
pub(super) struct Record {
    memory: Reservation,
    pages: usize,
    /// Places where one mapping ends and another begins: an upper bound of the mappings this view takes, less one.
    seams: AtomicIsize,
}

impl Record {
    pub(super) fn new(pages: usize) -> io::Result<Record> {
        let bytes = (pages * size_of::<AtomicU64>())
            .next_multiple_of(super::sys::page_size())
            .max(1);
        let memory = Reservation::new(bytes.next_multiple_of(super::sys::page_size()), 0)?;
        map_anonymous(memory.span(), Rights::ReadWrite)?;
        Ok(Record {
            memory,
            pages,
            seams: AtomicIsize::new(0),
        })
    }

    fn words(&self) -> &[AtomicU64] {
        let start = std::ptr::with_exposed_provenance::<AtomicU64>(self.memory.span().va());
        // SAFETY: the reservation holds at least `pages` zeroed, aligned words for as long as `self` lives, and they
        // are only ever accessed as atomics.
        unsafe { std::slice::from_raw_parts(start, self.pages) }
    }

    pub(super) fn get(&self, page: usize) -> Page {
        Page::from_word(self.words()[page].load(Ordering::Acquire))
    }

    /// Writes down that `page(i)` is what page `i` of `pages` maps now. The answer is how many mappings that adds.
    pub(super) fn set(&self, pages: Range<usize>, page: impl Fn(usize) -> Page) -> isize {
        if pages.is_empty() {
            return 0;
        }
        let before = self.seams_around(&pages);
        for at in pages.clone() {
            self.words()[at].store(page(at).word(), Ordering::Release);
        }
        let added = self.seams_around(&pages) - before;
        self.seams.fetch_add(added, Ordering::Relaxed);
        added
    }

    /// The mappings of this view, counted from above. Neighbours that change at the same time can make it drift, so
    /// whoever acts on it counts again.
    pub(super) fn mappings(&self) -> usize {
        usize::try_from(self.seams.load(Ordering::Relaxed)).unwrap_or(0) + 1
    }

    /// Counts the mappings of `pages` now.
    pub(super) fn count(&self, pages: Range<usize>) -> usize {
        usize::try_from(self.seams_around(&pages)).unwrap_or(0) + 1
    }

    /// Counts all mappings and makes that the record's figure.
    pub(super) fn recount(&self) -> usize {
        let seams = self.seams_around(&(0..self.pages));
        self.seams.store(seams, Ordering::Relaxed);
        usize::try_from(seams).unwrap_or(0) + 1
    }

    fn seams_around(&self, pages: &Range<usize>) -> isize {
        let (from, to) = (
            pages.start.saturating_sub(1),
            (pages.end + 1).min(self.pages),
        );
        let words = &self.words()[from..to];
        let page = |word: &AtomicU64| Page::from_word(word.load(Ordering::Relaxed));
        let seams = words
            .windows(2)
            .filter(|pair| !page(&pair[0]).continued_by(page(&pair[1])));
        isize::try_from(seams.count()).unwrap_or(isize::MAX)
    }

    /// The first run in `pages` of neighbours that satisfy `wanted`.
    pub(super) fn find(
        &self,
        pages: Range<usize>,
        wanted: impl Fn(Page) -> bool,
    ) -> Option<Range<usize>> {
        let start = pages.clone().find(|&at| wanted(self.get(at)))?;
        let end = (start..pages.end)
            .find(|&at| !wanted(self.get(at)))
            .unwrap_or(pages.end);
        Some(start..end)
    }

    pub(super) fn pages(&self) -> usize {
        self.pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(image_page: u64) -> Page {
        Page::Block {
            image_page,
            writable: true,
        }
    }

    #[test]
    fn pages_survive_the_way_through_a_word() {
        let read_only = Page::Block {
            image_page: (1 << 40) + 3,
            writable: false,
        };
        for page in [
            Page::Missing,
            Page::Zero,
            Page::Bus,
            block(0),
            block(7),
            read_only,
        ] {
            assert_eq!(Page::from_word(page.word()), page);
        }
    }

    #[test]
    fn seams_count_what_the_kernel_cannot_merge() {
        let record = Record::new(16).unwrap();
        assert_eq!(record.mappings(), 1);
        record.set(4..8, |at| block(at as u64 + 100));
        assert_eq!(record.mappings(), 3, "before, the run, behind");
        record.set(8..9, |_| block(108));
        assert_eq!(record.mappings(), 3, "continues the run");
        record.set(9..10, |_| block(300));
        assert_eq!(record.mappings(), 4, "elsewhere in the image");
        record.set(5..6, |_| Page::Zero);
        assert_eq!(record.mappings(), 6, "a hole in the run");
        assert_eq!(record.recount(), 6);
        record.set(0..16, |_| Page::Missing);
        assert_eq!(record.mappings(), 1);
        assert_eq!(record.find(0..16, |page| page == Page::Zero), None);
        assert_eq!(
            record.find(2..16, |page| page == Page::Missing),
            Some(2..16)
        );
    }
}
