//! What a file's blocks look like from here: runs, and nothing of how they are recorded.

use core::ops::Range;

use ext2dax_format::Error;

/// What stands behind a file block, and for how many blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// No blocks: reads as zeroes.
    Hole {
        /// In blocks, at least one.
        len: u64,
    },
    /// Consecutive blocks of the medium.
    Data {
        /// Byte offset of the first block in the region.
        off: u64,
        /// In blocks, at least one.
        len: u64,
    },
}

impl Extent {
    /// Length in blocks.
    #[must_use]
    pub fn len(self) -> u64 {
        match self {
            Extent::Hole { len } | Extent::Data { len, .. } => len,
        }
    }

    /// An extent is never empty; kept beside [`Extent::len`] for its readers.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// The answer of [`BlockMap::allocate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// Byte offset of the first block in the region.
    pub off: u64,
    /// In blocks, at least one and at most what was asked for.
    pub len: u64,
    /// Whether the run was a hole until now. Its bytes are zero, on the medium, too.
    pub new: bool,
}

/// The answer of [`BlockMap::fill_hole`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// In blocks, at least one and at most what was asked for.
    pub len: u64,
    /// Whether the next store of [`BlockMap::commit_size`] cannot overtake the pointers even without a fence.
    pub ordered: bool,
}

/// The block tree of one file, as the address space needs it. Blocks are counted in [`BlockMap::block_bits`], and offsets
/// are bytes of the region.
///
/// # Locking
/// Everything here may be called with INODE, INVALIDATE and ENTRY held, and takes only what ranks above ENTRY.
/// A lookup takes nothing: pointers that it reads are only ever set while a fault is possible.
pub trait BlockMap: Send + Sync {
    /// Blocks that no pointer leads to any more, durably. Dropping it leaks them until fsck.
    type Detached: Send;

    /// Binary logarithm of the block size: 10 to 16.
    fn block_bits(&self) -> u32;

    /// Largest size in bytes that a file can have here.
    fn max_size(&self) -> u64;

    /// The run that starts at block `at`, at most `max` blocks of it. Never allocates.
    ///
    /// # Errors
    /// `Corrupt` or `Io`; nothing has changed.
    fn lookup(&self, at: u64, max: u64) -> Result<Extent, Error>;

    /// The same, but a hole is filled: on return the blocks of a new run are zero, durable and published.
    ///
    /// Shape: the run starts at `at` and is entirely new or entirely old.
    ///
    /// # Errors
    /// `NoSpace`, `Corrupt`, `Io`: nothing that can be reached has changed.
    fn allocate(&self, at: u64, max: u64) -> Result<Allocated, Error>;

    /// Fills a hole with blocks that are written before anything leads to them: takes a run for at most `max` blocks of
    /// the hole at `at`, has `fill(offset, length)` write all of it (in bytes; flushed, not fenced), and links it in.
    ///
    /// `fill` answers which bytes of the run, counted from its start, must reach the file; an empty range: none did, and
    /// the blocks are given back. It runs with no lock of the map held and may touch user memory. If somebody else has
    /// filled the hole meanwhile, those bytes are copied to his blocks.
    ///
    /// What `fill` wrote is durable on return, the pointers are after the next fence. `None`: the map cannot do it here,
    /// use [`BlockMap::allocate`].
    ///
    /// # Errors
    /// `NoSpace`, `Corrupt`, `Io`: nothing that can be reached has changed, and `fill` has not run.
    fn fill_hole(
        &self,
        _at: u64,
        _max: u64,
        _fill: &mut dyn FnMut(u64, u64) -> Range<u64>,
    ) -> Result<Option<Filled>, Error> {
        Ok(None)
    }

    /// Clears the pointers of `blocks` (an end of `u64::MAX`: to the end of the file), highest first, and fences if
    /// there were any.
    ///
    /// # Errors
    /// `Corrupt` or `Io`: some of the pointers, the highest, may be gone; their blocks leak until fsck.
    fn detach(&self, blocks: Range<u64>) -> Result<Self::Detached, Error>;

    /// Calls `each(offset in bytes, length in blocks)` for every detached run, data blocks only.
    fn runs(&self, detached: &Self::Detached, each: &mut dyn FnMut(u64, u64));

    /// Gives the blocks back. Nothing reaches them any more: no translation, no pin, no copy.
    fn free(&self, detached: Self::Detached);

    /// Makes the size on the medium `to`.
    ///
    /// Growing publishes it. Shrinking starts a truncation that survives a crash, and each successful call is followed
    /// by exactly one [`BlockMap::finish_shrink`].
    ///
    /// # Errors
    /// Nothing has changed.
    fn commit_size(&self, from: u64, to: u64) -> Result<(), Error>;

    /// Ends what a shrinking [`BlockMap::commit_size`] began, whether or not the blocks could be detached.
    ///
    /// # Errors
    /// The medium failed; the truncation will be finished at the next mount.
    fn finish_shrink(&self) -> Result<(), Error>;

    /// The content changes now: modification and change time, in memory.
    fn touch(&self);

    /// Whether content may change at all.
    ///
    /// # Errors
    /// `ReadOnlyFs` on a read-only file system, after an error, or after a shutdown.
    fn writable(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Notes once that the image contradicts itself.
    fn report_corrupt(&self, error: Error);
}
