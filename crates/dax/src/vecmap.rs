//! A block map over a vector: files without a file system, for tests.
//!
//! Several files share one [`Store`] of blocks, so a block that one of them gives up can turn up in another. Under the
//! schedule explorer each look at the pointers and each step of an allocation is a schedule point.

use std::collections::BTreeMap;
use std::ops::Range;
use std::string::String;
use std::sync::{Arc, Mutex as Plain, PoisonError};
use std::vec::Vec;

use ext2dax_format::Error;
use ext2dax_pmem::Pmem;
use ext2dax_sync::atomic::{AtomicU64, Ordering};
use ext2dax_sync::{Mutex, mutant, rank};

use crate::blockmap::{Allocated, BlockMap, Extent, Filled};

/// Who has a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    Free,
    /// A pointer of this file leads to it.
    File(u32),
    /// This file gave it up; its bit is still set.
    Detached(u32),
}

/// The blocks of a medium, and who has them.
#[derive(Debug)]
pub struct Store {
    pmem: Pmem,
    block_bits: u32,
    owners: Plain<Vec<Owner>>,
    /// The order in which free blocks are given out.
    order: Vec<u64>,
    point: AtomicU64,
}

impl Store {
    /// All blocks of `pmem`, free, given out in ascending order.
    ///
    /// # Panics
    /// If the medium has more blocks than memory could list.
    #[must_use]
    pub fn new(pmem: Pmem, block_bits: u32) -> Arc<Store> {
        let count = pmem.len() >> block_bits;
        Store::with_order(pmem, block_bits, (0..count).collect())
    }

    /// The same, given out in the order of `order`; blocks that it does not name are never given out.
    ///
    /// # Panics
    /// If the medium has more blocks than memory could list.
    #[must_use]
    pub fn with_order(pmem: Pmem, block_bits: u32, order: Vec<u64>) -> Arc<Store> {
        let count = usize::try_from(pmem.len() >> block_bits).expect("test media are small");
        let owners = Plain::new(std::vec![Owner::Free; count]);
        Arc::new(Store {
            pmem,
            block_bits,
            owners,
            order,
            point: AtomicU64::new(0),
        })
    }

    /// The medium.
    #[must_use]
    pub fn pmem(&self) -> &Pmem {
        &self.pmem
    }

    /// Who has a block.
    #[must_use]
    pub fn owner(&self, block: u64) -> Owner {
        self.owners()[index(block)]
    }

    /// Blocks that nobody has.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.owners()
            .iter()
            .filter(|owner| **owner == Owner::Free)
            .count()
    }

    /// Takes up to `max` free blocks that follow each other: the first, and how many.
    ///
    /// # Errors
    /// `NoSpace`.
    pub fn take(&self, owner: Owner, max: u64) -> Result<(u64, u64), Error> {
        let mut owners = self.owners();
        let first = *self
            .order
            .iter()
            .find(|block| owners[index(**block)] == Owner::Free)
            .ok_or(Error::NoSpace)?;
        let mut len = 0;
        while len < max
            && self.order.contains(&(first + len))
            && owners.get(index(first + len)) == Some(&Owner::Free)
        {
            owners[index(first + len)] = owner;
            len += 1;
        }
        Ok((first, len))
    }

    /// Notes a new owner.
    pub fn give(&self, block: u64, owner: Owner) {
        self.owners()[index(block)] = owner;
    }

    /// A schedule point.
    pub fn point(&self) {
        self.point.load(Ordering::Relaxed);
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, Vec<Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(block: u64) -> usize {
    usize::try_from(block).expect("test media are small")
}

/// The blocks of one file.
#[derive(Debug)]
pub struct VecMap {
    store: Arc<Store>,
    me: u32,
    max_size: u64,
    tree: Mutex<()>,
    blocks: Plain<BTreeMap<u64, u64>>,
    /// What a mount after a crash would find.
    media_size: AtomicU64,
    complaints: Plain<Vec<String>>,
    failing: Plain<Option<Error>>,
}

impl VecMap {
    /// An empty file of the store. `me` is its name in [`Owner`].
    #[must_use]
    pub fn new(store: &Arc<Store>, me: u32) -> VecMap {
        VecMap {
            store: store.clone(),
            me,
            max_size: 1 << 40,
            tree: Mutex::new(rank::TREE, ()),
            blocks: Plain::new(BTreeMap::new()),
            media_size: AtomicU64::new(0),
            complaints: Plain::new(Vec::new()),
            failing: Plain::new(None),
        }
    }

    /// The block of the store behind a block of the file.
    #[must_use]
    pub fn block(&self, at: u64) -> Option<u64> {
        self.blocks().get(&at).copied()
    }

    /// How many blocks the file has, and the last of them.
    #[must_use]
    pub fn attached(&self) -> (usize, Option<u64>) {
        let blocks = self.blocks();
        (blocks.len(), blocks.last_key_value().map(|(at, _)| *at))
    }

    /// Attaches a free block as it is, unzeroed, as a crash may leave one.
    ///
    /// # Errors
    /// `NoSpace`.
    pub fn attach_raw(&self, at: u64) -> Result<u64, Error> {
        let (block, _) = self.store.take(Owner::File(self.me), 1)?;
        self.blocks().insert(at, block);
        Ok(block)
    }

    /// The size that the medium holds.
    #[must_use]
    pub fn media_size(&self) -> u64 {
        self.media_size.load(Ordering::Acquire)
    }

    /// From now on every look-up and allocation fails, until `None` is given.
    pub fn fail(&self, error: Option<Error>) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn check(&self) -> Result<(), Error> {
        let failing = *self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.map_or(Ok(()), Err)
    }

    /// What was reported as corrupt.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn blocks(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u64>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extent(&self, at: u64, max: u64) -> Extent {
        let blocks = self.blocks();
        let Some(first) = blocks.get(&at).copied() else {
            let end = blocks
                .range(at..)
                .next()
                .map_or(u64::MAX, |(next, _)| *next);
            return Extent::Hole {
                len: (end - at).min(max),
            };
        };
        let mut len = 1;
        while len < max && blocks.get(&(at + len)) == Some(&(first + len)) {
            len += 1;
        }
        Extent::Data {
            off: first << self.store.block_bits,
            len,
        }
    }

    fn publish(&self, at: u64, first: u64, len: u64) {
        let mut blocks = self.blocks();
        blocks.extend((0..len).map(|n| (at + n, first + n)));
    }

    fn zero(&self, first: u64, len: u64) {
        let bits = self.store.block_bits;
        self.store.pmem.zero_flushed(first << bits, len << bits);
        self.store.pmem.fence();
    }
}

impl BlockMap for VecMap {
    type Detached = Vec<u64>;

    fn block_bits(&self) -> u32 {
        self.store.block_bits
    }

    fn max_size(&self) -> u64 {
        self.max_size
    }

    fn lookup(&self, at: u64, max: u64) -> Result<Extent, Error> {
        self.store.point();
        self.check()?;
        Ok(self.extent(at, max))
    }

    fn allocate(&self, at: u64, max: u64) -> Result<Allocated, Error> {
        self.check()?;
        let _tree = self.tree.lock();
        let hole = match self.extent(at, max) {
            Extent::Data { off, len } => {
                return Ok(Allocated {
                    off,
                    len,
                    new: false,
                });
            }
            Extent::Hole { len } => len,
        };
        let (first, len) = self.store.take(Owner::File(self.me), hole)?;
        let late = mutant("block zeroed after its pointer is published");
        if !late {
            self.zero(first, len);
        }
        self.store.point();
        self.publish(at, first, len);
        if late {
            self.store.point();
            self.zero(first, len);
        }
        Ok(Allocated {
            off: first << self.store.block_bits,
            len,
            new: true,
        })
    }

    fn fill_hole(
        &self,
        at: u64,
        max: u64,
        fill: &mut dyn FnMut(u64, u64) -> Range<u64>,
    ) -> Result<Option<Filled>, Error> {
        let bits = self.store.block_bits;
        let (first, len) = {
            let _tree = self.tree.lock();
            let Extent::Hole { len } = self.extent(at, max) else {
                return Ok(None);
            };
            self.store.take(Owner::File(self.me), len)?
        };
        let kept = fill(first << bits, len << bits);
        self.store.pmem.fence();
        let _tree = self.tree.lock();
        self.store.point();
        for block in 0..len {
            let (ours, bytes) = (first + block, block << bits..(block + 1) << bits);
            let kept = kept.start.max(bytes.start)..kept.end.min(bytes.end);
            match self.extent(at + block, 1) {
                Extent::Hole { .. } if !kept.is_empty() => {
                    self.publish(at + block, ours, 1);
                    continue;
                }
                Extent::Data { off, .. } if !kept.is_empty() => {
                    let within = kept.start - bytes.start;
                    let pmem = &self.store.pmem;
                    pmem.copy_within((ours << bits) + within, off + within, kept.end - kept.start);
                    pmem.flush(off + within, kept.end - kept.start);
                    pmem.fence();
                }
                _ => {}
            }
            self.store.give(ours, Owner::Free);
        }
        Ok(Some(Filled { len, ordered: true }))
    }

    fn detach(&self, range: Range<u64>) -> Result<Vec<u64>, Error> {
        let _tree = self.tree.lock();
        let mut blocks = self.blocks();
        let gone: Vec<(u64, u64)> = blocks
            .range(range)
            .rev()
            .map(|(at, block)| (*at, *block))
            .collect();
        if !gone.is_empty() {
            self.store.pmem.fence();
        }
        for (at, block) in &gone {
            blocks.remove(at);
            self.store.give(*block, Owner::Detached(self.me));
        }
        Ok(gone.into_iter().map(|(_, block)| block).collect())
    }

    fn runs(&self, detached: &Vec<u64>, each: &mut dyn FnMut(u64, u64)) {
        for block in detached {
            each(block << self.store.block_bits, 1);
        }
    }

    fn free(&self, detached: Vec<u64>) {
        self.store.point();
        for block in detached {
            self.store.give(block, Owner::Free);
        }
    }

    fn commit_size(&self, _from: u64, to: u64) -> Result<(), Error> {
        self.media_size.store(to, Ordering::Release);
        Ok(())
    }

    fn finish_shrink(&self) -> Result<(), Error> {
        Ok(())
    }

    fn touch(&self) {}

    fn report_corrupt(&self, error: Error) {
        self.complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(std::format!("{error}"));
    }
}
