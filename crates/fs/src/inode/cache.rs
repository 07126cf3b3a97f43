//! The cache of in-core inodes.
//!
//! Sharded by inode number, so that look-ups in different directories do not meet: the numbers of a directory's files are
//! neighbours, and [neighbours](NEIGHBOURS) share a shard. Each shard holds a bounded number of nodes
//! and lets go of those that nobody uses, the ones not looked up lately first (second chance). A node that is in use,
//! open, or still has stores to sync is never let go, so a shard may exceed its bound while that many are in use.
//!
//! # Locking
//! A shard is a leaf (rank TABLE). Nothing is locked, allocated on the medium or waited for below it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{BuildHasherDefault, Hasher};

use ext2dax_format::{Error, Ino, Result};
use ext2dax_sync::atomic::Ordering;
use ext2dax_sync::{RwLock, rank};
use hashbrown::HashMap;

use super::{Life, Node, Record};
use crate::mount::Core;

/// How far the clock moves for each node that comes in: more than one, so that a full shard shrinks to its bound.
const LOOKS_PER_INSERTION: usize = 4;

/// A shard with more nodes than this gets the memory for all that it may keep.
const SMALL: usize = 64;

/// A power of two.
const SHARDS: usize = 64;

/// So many inode numbers in a row, by logarithm, fall into one shard.
const NEIGHBOURS: u32 = 6;

/// Inode numbers are dense and not chosen by an enemy: one multiplication spreads them.
#[derive(Default)]
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
        // 2^64 / golden ratio: consecutive numbers fall far apart, in the high bits that hashbrown's tags use too.
        self.0 = (self.0.rotate_left(5) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[derive(Default)]
struct Table {
    nodes: HashMap<u32, Arc<Node>, BuildHasherDefault<SpreadHasher>>,
    /// The clock: numbers in the order in which they come up for eviction. A number that has left the table is passed
    /// over when its turn comes; at most two stand here for each node.
    turns: VecDeque<u32>,
}

/// A shard on its own cache lines.
#[repr(align(128))]
struct Shard(RwLock<Table>);

/// Inode number -> in-core inode.
pub(crate) struct Inodes {
    shards: Box<[Shard]>,
    shard_capacity: usize,
}

impl fmt::Debug for Inodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inodes")
            .field("shard_capacity", &self.shard_capacity)
            .finish_non_exhaustive()
    }
}

impl Inodes {
    /// A cache that keeps about `capacity` unused inodes.
    pub(crate) fn new(capacity: usize) -> Self {
        let shards = (0..SHARDS)
            .map(|_| Shard(RwLock::new(rank::TABLE, Table::default())))
            .collect();
        Self {
            shards,
            shard_capacity: capacity.div_ceil(SHARDS).max(1),
        }
    }

    fn shard(&self, ino: Ino) -> &RwLock<Table> {
        // Spread, since the files of a group begin at a round number; and mixed, since two threads that make files keep the
        // distance of their numbers, and after one multiplication they would meet all along or never.
        let mixed = ino.get() >> NEIGHBOURS;
        let mixed = (mixed ^ mixed >> 4).wrapping_mul(0x85eb_ca6b);
        let spread = (mixed ^ mixed >> 15).wrapping_mul(0x9e37_79b9);
        &self.shards[(spread >> (u32::BITS - SHARDS.ilog2())) as usize].0
    }

    /// The node of a live inode.
    ///
    /// The caller holds the lock of a directory that names `ino`, so that the number cannot be given back and used
    /// again between the name and this call.
    ///
    /// # Errors
    /// `Stale` if the inode is dead, `Corrupt` if its mode names no file type.
    pub(crate) fn get(&self, core: &Arc<Core>, ino: Ino) -> Result<Arc<Node>> {
        let shard = self.shard(ino);
        if let Some(node) = shard.read().nodes.get(&ino.get()) {
            // Only the first look-up since the clock went by writes to the line.
            if !node.recent.load(Ordering::Relaxed) {
                node.recent.store(true, Ordering::Relaxed);
            }
            return Ok(Arc::clone(node));
        }
        let record = Record::new(core, ino)?;
        if record.links() == 0 {
            return Err(Error::Stale);
        }
        let file_type = record.file_type()?;
        let fresh = Arc::new(Node::new(record, file_type));
        let mut table = shard.write();
        let node = Arc::clone(table.nodes.entry(ino.get()).or_insert(fresh));
        let evicted = self.evict(&mut table, ino);
        drop(table);
        drop(evicted);
        Ok(node)
    }

    /// The node of a live inode that nobody has led to: the number comes from a handle, and may be anybody's by now.
    ///
    /// The count of links is read under the shard's lock. Whoever takes the last link holds the node meanwhile, so it is
    /// in the table, and leaves it only after the count on the medium is 0: a dead inode gets no node here.
    ///
    /// # Errors
    /// As [`Inodes::get`]. The answer may die at once: opening it tells.
    pub(crate) fn find(&self, core: &Arc<Core>, ino: Ino) -> Result<Arc<Node>> {
        let mut table = self.shard(ino).write();
        if let Some(node) = table.nodes.get(&ino.get()) {
            return Ok(Arc::clone(node));
        }
        let record = Record::new(core, ino)?;
        if record.links() == 0 {
            return Err(Error::Stale);
        }
        let file_type = record.file_type()?;
        let node = Arc::new(Node::new(record, file_type));
        table.nodes.insert(ino.get(), Arc::clone(&node));
        let evicted = self.evict(&mut table, ino);
        drop(table);
        drop(evicted);
        Ok(node)
    }

    /// The node of an inode that is being created: its body is written, its links are still 0.
    ///
    /// # Errors
    /// `Corrupt` if the mode on the medium names no file type.
    pub(crate) fn insert_new(&self, core: &Arc<Core>, ino: Ino) -> Result<Arc<Node>> {
        let record = Record::new(core, ino)?;
        let file_type = record.file_type()?;
        let node = Arc::new(Node::new(record, file_type));
        let mut table = self.shard(ino).write();
        let former = table.nodes.insert(ino.get(), Arc::clone(&node));
        let evicted = self.evict(&mut table, ino);
        drop(table);
        debug_assert!(
            former.is_none_or(|former| former.is_dead()),
            "a free inode number was in use"
        );
        drop(evicted);
        Ok(node)
    }

    /// Takes a dead inode out, before its number is given back.
    pub(crate) fn forget(&self, ino: Ino) {
        let former = self.shard(ino).write().nodes.remove(&ino.get());
        if let Some(former) = former {
            former.life.store(Life::Dead as u8, Ordering::Release);
        }
    }

    /// Every node in core that has contents opened, for sync and unmount.
    pub(crate) fn opened(&self) -> Vec<Arc<Node>> {
        let mut nodes = Vec::new();
        for shard in &self.shards {
            nodes.extend(
                shard
                    .0
                    .read()
                    .nodes
                    .values()
                    .filter(|node| node.opened_file().is_some())
                    .cloned(),
            );
        }
        nodes
    }

    /// Whether any handle is open.
    pub(crate) fn any_open(&self) -> bool {
        self.shards
            .iter()
            .any(|shard| shard.0.read().nodes.values().any(|node| node.is_open()))
    }

    /// Puts a new node on the clock, and moves the hand a little if the table is over its bound. The caller drops what
    /// comes back after the shard's lock.
    fn evict(&self, table: &mut Table, new: Ino) -> Vec<Arc<Node>> {
        if table.turns.len() > 2 * table.nodes.len() {
            let nodes = &table.nodes;
            table.turns.clear();
            table.turns.extend(nodes.keys().copied());
        }
        if table.turns.len() == SMALL {
            // Growing step by step would move memory that another thread allocated, again and again, and allocators take a
            // lock of that thread's for it.
            let rest = self.shard_capacity.saturating_sub(SMALL);
            table.turns.reserve(2 * rest);
            table.nodes.reserve(rest);
        }
        table.turns.push_back(new.get());
        let mut evicted = Vec::new();
        for _ in 0..LOOKS_PER_INSERTION {
            if table.nodes.len() <= self.shard_capacity {
                break;
            }
            let Some(ino) = table.turns.pop_front() else {
                break;
            };
            let Some(node) = table.nodes.get(&ino) else {
                continue;
            };
            if node.recent.swap(false, Ordering::Relaxed) || !is_unused(node) {
                table.turns.push_back(ino);
            } else {
                evicted.extend(table.nodes.remove(&ino));
            }
        }
        evicted
    }
}

/// Nobody but the cache holds the node (the shard's lock keeps it so), nothing is left to sync, and no intent on the medium
/// speaks of it.
fn is_unused(node: &Arc<Node>) -> bool {
    Arc::strong_count(node) == 1
        && !node.core().slots.is_pending(node.record())
        && !node.is_open()
        && node
            .opened_file()
            .is_none_or(|file| Arc::strong_count(&file) == 2 && !file.has_dirty())
}
