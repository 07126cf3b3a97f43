//! The files that the kernel knows.
//!
//! The kernel names a file by the number under which it was looked up, and says how often it has forgotten one of those
//! look-ups. In between, the table holds a handle, so the file stays what it was, with or without a name, and its number
//! is not used again.
//!
//! # Locking
//! Sharded by number. A shard is held for a table operation only, and shared for all but a first look-up and a last
//! forget, so requests for different files do not wait for each other, and those for one file hardly do.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use ext2dax::{Error, Inode, Result};

/// A power of two.
const SHARDS: usize = 64;

/// What a request may take that is under way when the mount ends.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);

/// The number by which the kernel names the root directory, whatever its inode number is.
pub(crate) const ROOT: u64 = 1;

/// Inode numbers are dense: one multiplication spreads them.
#[derive(Debug, Default)]
struct SpreadHasher(u64);

impl Hasher for SpreadHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        // 2^64 / golden ratio: consecutive numbers fall far apart, in the high bits that hash tables tag with, too.
        self.0 = (self.0.rotate_left(5) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[derive(Debug)]
struct Known {
    inode: Arc<Inode>,
    /// Look-ups that the kernel has not forgotten.
    lookups: AtomicU64,
}

type Table = HashMap<u32, Known, BuildHasherDefault<SpreadHasher>>;

/// A shard on its own cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(RwLock<Table>);

impl Shard {
    // A panic in a table operation would come from the allocator; the table is whole then.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inode number -> handle and count of look-ups.
#[derive(Debug)]
pub(crate) struct Nodes {
    shards: Box<[Shard]>,
    root: u32,
    /// Read under a shard's lock, so that nothing comes in behind the one who closes.
    closed: AtomicBool,
}

impl Nodes {
    /// A table that knows the root directory, and never forgets it.
    pub(crate) fn new(root: Inode) -> Self {
        let nodes = Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            root: root.number(),
            closed: AtomicBool::new(false),
        };
        nodes.remember(Arc::new(root));
        nodes
    }

    fn shard(&self, number: u32) -> &Shard {
        // The mask keeps the index below SHARDS.
        &self.shards[number as usize & (SHARDS - 1)]
    }

    pub(crate) fn is_root(&self, number: u32) -> bool {
        number == self.root
    }

    /// The inode number behind a number of the kernel's.
    fn number(&self, node: u64) -> Result<u32> {
        if node == ROOT {
            Ok(self.root)
        } else {
            u32::try_from(node).map_err(|_| Error::Stale)
        }
    }

    /// The file that the kernel means.
    ///
    /// # Errors
    /// `Stale` if it does not know such a file.
    pub(crate) fn get(&self, node: u64) -> Result<Arc<Inode>> {
        self.get_number(self.number(node)?)
    }

    /// The same by its inode number.
    ///
    /// # Errors
    /// `Stale` if the kernel does not know it.
    pub(crate) fn get_number(&self, number: u32) -> Result<Arc<Inode>> {
        match self.shard(number).read().get(&number) {
            Some(known) => Ok(Arc::clone(&known.inode)),
            None => Err(Error::Stale),
        }
    }

    /// Counts a look-up of `inode`, and keeps it from now on. Answers whether the kernel knew it.
    pub(crate) fn remember(&self, inode: Arc<Inode>) -> bool {
        let number = inode.number();
        let shard = self.shard(number);
        if let Some(known) = shard.read().get(&number) {
            known.lookups.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        // Whoever comes second drops his handle, after the shard's lock is gone.
        let mut spare = Some(inode);
        let mut table = shard.write();
        if self.closed.load(Ordering::SeqCst) {
            return false;
        }
        table
            .entry(number)
            .and_modify(|known| *known.lookups.get_mut() += 1)
            .or_insert_with(|| Known {
                inode: spare.take().expect("nobody else takes it"),
                lookups: AtomicU64::new(1),
            });
        drop(table);
        spare.is_some()
    }

    /// The kernel has forgotten `times` look-ups. With the last one the handle goes, and with the last handle a file
    /// without a name.
    pub(crate) fn forget(&self, node: u64, times: u64) {
        let Ok(number) = self.number(node) else {
            return;
        };
        if number == self.root {
            return;
        }
        let mut table = self.shard(number).write();
        let Some(known) = table.get_mut(&number) else {
            return;
        };
        let left = known.lookups.get_mut();
        *left = left.saturating_sub(times);
        if *left > 0 {
            return;
        }
        let gone = table.remove(&number);
        drop(table);
        // Giving a large file back takes its time: not under the shard's lock.
        drop(gone);
    }

    /// Forgets every file, the root included, when nobody works on it any more; none is taken in from now on. Waits
    /// for a few seconds at most.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + LONGEST_REQUEST;
        for shard in &self.shards {
            let gone = std::mem::take(&mut *shard.write());
            for known in gone.into_values() {
                while Arc::strong_count(&known.inode) > 1 && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}
