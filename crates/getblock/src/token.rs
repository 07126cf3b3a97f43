//! Proof tokens on the transitions that can lose data.
//!
//! ```text
//! allocate -> Fresh -> zero or write, fence -> Zeroed -> published
//! pointer cleared, fence -> Detached -> free
//! ```
//! A tree takes only [`Zeroed`], a bitmap only [`Detached`], and the only way out of [`Pending`] is a fence. Tokens are
//! neither `Clone` nor constructible outside; each remembers its volume, and debug builds refuse a token of another one.
//! (A brand by invariant lifetime would refuse it at compile time, but would make every holder of a volume generic over
//! that lifetime: in-core inodes and file handles could not be `'static`.) A token that is dropped leaks its blocks
//! until the next fsck: never damage.
//!
//! Blocks that were never written cannot be published:
//! ```compile_fail,E0308
//! use ext2dax_getblock::{BlockTree, Fresh, TreeGuard};
//! use ext2dax_format::FileBlock;
//! fn publish(tree: &BlockTree, guard: &mut TreeGuard<'_>, fresh: Fresh) {
//!     let _ = tree.swing(guard, FileBlock(0), fresh);
//! }
//! ```
//! What is still reachable cannot be freed:
//! ```compile_fail,E0308
//! use ext2dax_getblock::{Volume, Zeroed};
//! fn free(volume: &Volume, zeroed: Zeroed) { volume.free(zeroed); }
//! ```
//! Nothing is durable before a fence:
//! ```compile_fail,E0308
//! use ext2dax_getblock::{BlockTree, Fresh, TreeGuard, Volume};
//! use ext2dax_format::FileBlock;
//! fn publish(volume: &Volume, tree: &BlockTree, guard: &mut TreeGuard<'_>, fresh: Fresh) {
//!     let _ = tree.swing(guard, FileBlock(0), fresh.zero(volume));
//! }
//! ```
//! A token is used once:
//! ```compile_fail,E0382
//! use ext2dax_getblock::{Detached, Volume};
//! fn free_twice(volume: &Volume, detached: Detached) { volume.free(detached); volume.free(detached); }
//! ```
//! Nor is one forgotten silently:
//! ```compile_fail
//! #![deny(unused_must_use)]
//! use ext2dax_getblock::{BlockTree, TreeGuard};
//! use ext2dax_format::FileBlock;
//! fn forget(tree: &BlockTree, guard: &mut TreeGuard<'_>) -> ext2dax_format::Result<()> {
//!     tree.detach(guard, FileBlock(0), FileBlock(1))?;
//!     Ok(())
//! }
//! ```

use alloc::vec::Vec;

use ext2dax_format::{FsBlock, Run};
use ext2dax_pmem::Pmem;

use crate::Volume;

/// The identity of a volume, for debug checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Brand(pub(crate) usize);

/// Blocks whose bits are set and flushed and whose contents are unknown.
#[must_use = "dropping it leaks the blocks; abandon and free them"]
#[derive(Debug)]
pub struct Fresh {
    pub(crate) run: Run,
    pub(crate) block_bits: u32,
    pub(crate) brand: Brand,
}

impl Fresh {
    /// The blocks.
    #[must_use]
    pub const fn run(&self) -> Run {
        self.run
    }

    /// Where the first block lies, in bytes from the start of the file system.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        (self.run.start.get() as u64) << self.block_bits
    }

    /// Makes every byte zero and flushes; durable after the next fence.
    pub fn zero(self, volume: &Volume) -> Pending<Zeroed> {
        let len = u64::from(self.run.len) << self.block_bits;
        volume.pmem().zero(self.offset(), len);
        volume.pmem().flush(self.offset(), len);
        Pending(Zeroed(self))
    }

    /// The caller's word that every byte has been written and flushed, and that a fence followed.
    pub fn assume_written(self) -> Zeroed {
        Zeroed(self)
    }

    /// The first `at` blocks and the rest.
    pub fn split(self, at: u32) -> (Self, Self) {
        let (head, rest) = self.run.split(at);
        (Self { run: head, ..self }, Self { run: rest, ..self })
    }

    /// Blocks that nothing will ever point to: ready to be freed.
    pub fn abandon(self) -> Detached {
        Detached::single(self.run, self.brand)
    }
}

/// Blocks that are zero or completely written, durable, and not reachable yet: what a pointer may lead to.
#[must_use = "dropping it leaks the blocks"]
#[derive(Debug)]
pub struct Zeroed(pub(crate) Fresh);

impl Zeroed {
    /// Hands the blocks over to an inode whose body, durable by now, leads to them: the first block of a directory, the
    /// text of a symlink.
    pub fn hand_over(self) -> Run {
        self.0.run
    }

    /// The blocks.
    #[must_use]
    pub const fn run(&self) -> Run {
        self.0.run
    }

    /// Gives them up without having published them.
    pub fn abandon(self) -> Detached {
        self.0.abandon()
    }
}

/// Blocks that nothing on the medium leads to any more, durably. [`Volume::free`] clears their bits.
#[must_use = "dropping it leaks the blocks until the next fsck"]
#[derive(Debug)]
pub struct Detached {
    // Most detached sets are one run: no heap for those.
    first: Option<Run>,
    more: Vec<Run>,
    pub(crate) brand: Brand,
}

impl Detached {
    pub(crate) const fn none(brand: Brand) -> Self {
        Self {
            first: None,
            more: Vec::new(),
            brand,
        }
    }

    pub(crate) const fn single(run: Run, brand: Brand) -> Self {
        Self {
            first: Some(run),
            more: Vec::new(),
            brand,
        }
    }

    /// Adds blocks, merging with the last run where they touch.
    pub(crate) fn push(&mut self, run: Run) {
        if run.is_empty() {
            return;
        }
        let Some(last) = self.more.last_mut().or(self.first.as_mut()) else {
            self.first = Some(run);
            return;
        };
        if last.end() == run.start.get() {
            last.len = last.len.saturating_add(run.len);
        } else if run.end() == last.start.get() {
            *last = Run {
                start: run.start,
                len: last.len.saturating_add(run.len),
            };
        } else {
            self.more.push(run);
        }
    }

    /// The blocks, in no particular order.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.first.into_iter().chain(self.more.iter().copied())
    }

    /// How many blocks there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs().map(|run| u64::from(run.len)).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// All blocks of both.
    pub fn merge(mut self, other: Self) -> Self {
        other.runs().for_each(|run| self.push(run));
        self
    }

    /// Two tokens: the blocks for which `keep` says no, and those for which it says yes (pinned ones, say).
    pub fn partition(self, mut keep: impl FnMut(FsBlock) -> bool) -> (Self, Self) {
        let (mut rest, mut kept) = (Self::none(self.brand), Self::none(self.brand));
        for block in self.runs().flat_map(Run::iter) {
            let side = if keep(block) { &mut kept } else { &mut rest };
            side.push(Run::single(block));
        }
        (rest, kept)
    }
}

/// Stores issued and flushed, not fenced: what is inside comes out of [`Epoch::fence`] only.
#[must_use = "what is inside comes out of Epoch::fence"]
#[derive(Debug)]
pub struct Pending<T>(pub(crate) T);

impl<T> Pending<T> {
    /// Two pending results that one fence completes.
    pub fn and<U>(self, other: Pending<U>) -> Pending<(T, U)> {
        Pending((self.0, other.0))
    }
}

/// The end of a group of stores.
#[derive(Debug)]
pub struct Epoch<'p>(&'p Pmem);

impl<'p> Epoch<'p> {
    /// An epoch on this medium.
    #[must_use]
    pub const fn new(pmem: &'p Pmem) -> Self {
        Self(pmem)
    }

    /// One fence: what was pending is durable.
    pub fn fence<T>(self, pending: Pending<T>) -> T {
        self.0.fence();
        pending.0
    }
}
