//! Directories that paths led to lately.
//!
//! Names that are made or looked at one after the other mostly lie in one directory. A walk to it costs a look-up, a lock
//! and a reference for each component, and the locks are those of the root and of directories near it, which every thread
//! takes. So each [lane](ext2dax_sync::lane) remembers a few ways: what stood before the last component of a path, and the
//! directory that it led to.
//!
//! # Invariants
//! A way is good as long as none of the directories on it has been renamed, replaced or removed. Each of them is marked when
//! a walk passes it, under the lock of the directory that names it; whoever moves or removes a marked directory takes a new
//! turn while he holds that lock exclusively, and a way counts only in the turn in which it was begun. So either the walk
//! finds the change, or the change finds the mark. A way keeps its directories in core: their marks last as long as it does.
//! Ways through symlinks, `.` or `..` are not remembered.
//!
//! # Locking
//! The ways of a lane are a leaf (rank TABLE), held to compare paths.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use ext2dax_sync::atomic::{AtomicU64, Ordering};
use ext2dax_sync::lane::{LANES, lane};
use ext2dax_sync::{Mutex, mutant, rank};

use crate::inode::Node;

/// Ways that a lane remembers: those of a rename between two directories.
const WAYS: usize = 2;

/// A way from the root.
struct Way {
    path: Box<[u8]>,
    /// The directories on it, the one it leads to last.
    nodes: Vec<Arc<Node>>,
    turn: u64,
}

#[derive(Default)]
struct Known {
    ways: [Option<Way>; WAYS],
    oldest: usize,
}

/// The ways of one lane, on lines of their own.
#[repr(align(128))]
struct Lane(Mutex<Known>);

/// On a line of its own: it changes seldom, and everybody looks at it.
#[repr(align(128))]
struct Turn(AtomicU64);

/// The ways of one mount.
pub(crate) struct Ways {
    turn: Turn,
    lanes: Box<[Lane]>,
}

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ways")
    }
}

/// A walk that may be remembered.
#[derive(Debug)]
pub(crate) struct Begun {
    turn: u64,
    pub(crate) nodes: Vec<Arc<Node>>,
}

impl Ways {
    pub(crate) fn new() -> Self {
        let lane = |_| Lane(Mutex::new(rank::TABLE, Known::default()));
        Self {
            turn: Turn(AtomicU64::new(0)),
            lanes: (0..LANES).map(lane).collect(),
        }
    }

    /// Where `path` led when the calling thread's lane was there last, if it still does.
    pub(crate) fn find(&self, path: &[u8]) -> Option<Arc<Node>> {
        let known = self.lanes.get(lane())?.0.lock();
        let way = known.ways.iter().flatten().find(|way| *way.path == *path)?;
        let node = way.nodes.last()?;
        (self.turn.0.load(Ordering::SeqCst) == way.turn).then(|| Arc::clone(node))
    }

    /// Before the first look-up of a walk.
    pub(crate) fn begin(&self) -> Begun {
        Begun {
            turn: self.turn.0.load(Ordering::SeqCst),
            nodes: Vec::new(),
        }
    }

    /// Remembers where `path` led. Every directory on the way has been marked.
    pub(crate) fn remember(&self, path: &[u8], begun: Begun) {
        let turn = if mutant("a way counts from its end") {
            self.turn.0.load(Ordering::SeqCst)
        } else {
            begun.turn
        };
        let way = Way {
            path: path.into(),
            nodes: begun.nodes,
            turn,
        };
        let Some(lane) = self.lanes.get(lane()) else {
            return;
        };
        let mut known = lane.0.lock();
        let same = |old: &Option<Way>| old.as_ref().is_some_and(|old| *old.path == *way.path);
        let place = known.ways.iter().position(same).unwrap_or(known.oldest);
        known.oldest = (place + 1) % WAYS;
        let old = known.ways[place].replace(way);
        // Directories may go out of core with it.
        drop(known);
        drop(old);
    }

    /// Comes before `node` is renamed, replaced or removed, with the lock of the directory that names it held exclusively.
    pub(crate) fn leave(&self, node: &Node) {
        if node.is_passed() && !mutant("a way outlives its directory's name") {
            self.turn.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}
