//! A block map over a vector, whose free blocks hold a pattern: a store after the free is seen at the next use.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ext2dax_dax::{Allocated, BlockMap, Extent};
use ext2dax_format::Error;
use ext2dax_pmem::Pmem;
use ext2dax_sync::{Mutex, rank};

const POISON: u64 = 0xDEAD_DEAD_DEAD_DEAD;

fn index(at: u64) -> usize {
    usize::try_from(at).expect("a block of a small file")
}

fn number(len: u64) -> u32 {
    u32::try_from(len).expect("a small image")
}

pub(crate) struct Blocks {
    pmem: Pmem,
    bits: u32,
    max_size: u64,
    /// Block of the image behind each block of the file; 0 for a hole.
    file: Vec<AtomicU32>,
    free: Mutex<VecDeque<u32>>,
    full: AtomicBool,
    after_free: AtomicU64,
}

impl Blocks {
    pub(crate) fn new(pmem: Pmem, bits: u32, image_blocks: u32, max_size: u64) -> Blocks {
        let blocks = Blocks {
            pmem,
            bits,
            max_size,
            file: (0..max_size >> bits).map(|_| AtomicU32::new(0)).collect(),
            free: Mutex::new(rank::TREE, VecDeque::new()),
            full: AtomicBool::new(false),
            after_free: AtomicU64::new(0),
        };
        for block in 1..image_blocks {
            blocks.poison(block);
            blocks.free.lock().push_back(block);
        }
        blocks
    }

    /// Hands out blocks in an order in which no two follow each other.
    pub(crate) fn scatter(&self) {
        let mut free = self.free.lock();
        let (even, odd): (Vec<u32>, Vec<u32>) =
            free.iter().rev().partition(|block| *block % 2 == 0);
        *free = even.into_iter().chain(odd).collect();
    }

    /// Whether the image has no block left, from now on.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free.lock().len()
    }

    /// Blocks that were stored to while they were free.
    pub(crate) fn stored_after_free(&self) -> u64 {
        self.after_free.load(Ordering::SeqCst)
    }

    /// Blocks of the file at or behind `at`.
    pub(crate) fn attached_from(&self, at: u64) -> usize {
        self.file
            .iter()
            .skip(index(at))
            .filter(|block| block.load(Ordering::SeqCst) != 0)
            .count()
    }

    /// The word at byte `at` of the file, zero in a hole.
    pub(crate) fn word(&self, at: u64) -> u64 {
        match self.block(at >> self.bits) {
            0 => 0,
            block => {
                let off = (u64::from(block) << self.bits) + (at & ((1 << self.bits) - 1));
                let mut bytes = [0; 8];
                self.pmem.read(off, &mut bytes);
                u64::from_le_bytes(bytes)
            }
        }
    }

    fn block(&self, at: u64) -> u32 {
        self.file
            .get(index(at))
            .map_or(0, |block| block.load(Ordering::SeqCst))
    }

    fn offset(&self, block: u32) -> u64 {
        u64::from(block) << self.bits
    }

    fn poison(&self, block: u32) {
        let bytes = POISON.to_le_bytes().repeat(1 << (self.bits - 3));
        self.pmem.write(self.offset(block), &bytes);
    }

    fn take(&self, block: u32) {
        let mut bytes = vec![0; 1 << self.bits];
        self.pmem.read(self.offset(block), &mut bytes);
        if bytes
            .chunks_exact(8)
            .any(|word| word != POISON.to_le_bytes())
        {
            self.after_free.fetch_add(1, Ordering::SeqCst);
        }
        self.pmem.zero(self.offset(block), 1 << self.bits);
        self.pmem.fence();
    }
}

impl BlockMap for Blocks {
    type Detached = Vec<u32>;

    fn block_bits(&self) -> u32 {
        self.bits
    }

    fn max_size(&self) -> u64 {
        self.max_size
    }

    fn lookup(&self, at: u64, max: u64) -> Result<Extent, Error> {
        let first = self.block(at);
        let mut len = 1;
        while len < max && at + len < self.file.len() as u64 {
            let next = self.block(at + len);
            let continues = if first == 0 {
                next == 0
            } else {
                u64::from(next) == u64::from(first) + len
            };
            if !continues {
                break;
            }
            len += 1;
        }
        Ok(if first == 0 {
            Extent::Hole { len }
        } else {
            Extent::Data {
                off: self.offset(first),
                len,
            }
        })
    }

    fn allocate(&self, at: u64, max: u64) -> Result<Allocated, Error> {
        let mut free = self.free.lock();
        if let Extent::Data { off, len } = self.lookup(at, max)? {
            return Ok(Allocated {
                off,
                len,
                new: false,
            });
        }
        let Extent::Hole { len: hole } = self.lookup(at, max)? else {
            unreachable!("looked up under the lock")
        };
        if self.full.load(Ordering::SeqCst) {
            return Err(Error::NoSpace);
        }
        let first = free.pop_front().ok_or(Error::NoSpace)?;
        let mut len = 1;
        while len < hole && free.front() == Some(&(first + number(len))) {
            free.pop_front();
            len += 1;
        }
        for i in 0..number(len) {
            self.take(first + i);
            let slot = &self.file[index(at) + i as usize];
            slot.store(first + i, Ordering::SeqCst);
        }
        Ok(Allocated {
            off: self.offset(first),
            len,
            new: true,
        })
    }

    fn detach(&self, blocks: Range<u64>) -> Result<Vec<u32>, Error> {
        let end = blocks.end.min(self.file.len() as u64);
        let slots = (blocks.start..end).rev().map(|at| &self.file[index(at)]);
        Ok(slots
            .map(|slot| slot.swap(0, Ordering::SeqCst))
            .filter(|&block| block != 0)
            .collect())
    }

    fn runs(&self, detached: &Vec<u32>, each: &mut dyn FnMut(u64, u64)) {
        detached
            .iter()
            .for_each(|&block| each(self.offset(block), 1));
    }

    fn free(&self, detached: Vec<u32>) {
        let mut free = self.free.lock();
        for block in detached {
            self.poison(block);
            free.push_back(block);
        }
    }

    fn commit_size(&self, _from: u64, _to: u64) -> Result<(), Error> {
        Ok(())
    }

    fn finish_shrink(&self) -> Result<(), Error> {
        Ok(())
    }

    fn touch(&self) {}

    fn report_corrupt(&self, error: Error) {
        panic!("this map is never corrupt: {error}");
    }
}
