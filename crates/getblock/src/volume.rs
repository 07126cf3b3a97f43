//! One file system's groups, counters and zones.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use ext2dax_format::{
    CorruptKind, FsBlock, Geometry, GroupNr, Ino, RawGroupDesc, RawInode, RawSuperblock, Result,
    Run,
};
use ext2dax_pmem::{Off, Pmem, field};
use ext2dax_sync::{Mutex, MutexGuard, rank};
use zerocopy::little_endian::{U16, U32};

use crate::desks::Desks;
use crate::groups::{self, Groups, Kind};
use crate::token::{Brand, Detached};

/// The superblock stands 1,024 bytes from the start, whatever the block size.
const SUPERBLOCK: Off<RawSuperblock> = Off::new(1024);

/// Locks of groups; groups share them modulo this number. A thread holds one at a time.
const GROUP_LOCKS: u32 = 64;

/// How far a share of a counter may stand away from what the total knows of it.
const SHARE: i64 = 64;

/// How far the totals may be off, all shares together.
const SLACK: i64 = SHARE * GROUP_LOCKS as i64;

/// How to open a volume.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether the counters in superblock and descriptors may be believed: the file system was cleanly unmounted. If
    /// not, `counts` and `write_back_counters` count every group's bits first.
    pub trust_counters: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trust_counters: true,
        }
    }
}

/// What `statfs` wants to know. Blocks of [`Geometry::block_size`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Free blocks, the reserved ones included.
    pub free_blocks: u64,
    /// Free blocks that anyone may have.
    pub available_blocks: u64,
    /// Free inodes.
    pub free_inodes: u64,
}

/// One mounted file system as the allocators see it. Cloning is cheap and gives the same volume.
#[derive(Clone)]
pub struct Volume(Arc<Clones>);

/// What the clones of a [`Volume`] count themselves in.
struct Clones(Arc<State>);

/// What the clones of a [`Volume`] share.
pub struct State {
    pmem: Pmem,
    geometry: Geometry,
    pub(crate) groups: Groups,
    pub(crate) desks: Desks,
    shares: Box<[Share]>,
    totals: Totals,
    all_counted: AtomicBool,
}

/// The lock of some groups, and what changed in them since they last told the totals: allocations in different groups
/// store to no line in common.
#[repr(align(128))]
struct Share {
    lock: Mutex<()>,
    free: [AtomicI64; 2],
}

/// Free blocks and inodes of the whole volume, less what the shares hold back. On lines of their own: they change under
/// the eyes of threads that read everything else in [`State`].
#[repr(align(128))]
#[derive(Debug, Default)]
struct Totals([AtomicI64; 2]);

impl Totals {
    fn of(&self, kind: Kind) -> &AtomicI64 {
        &self.0[kind as usize]
    }
}

impl Deref for Volume {
    type Target = State;

    #[inline]
    fn deref(&self) -> &State {
        &self.0.0
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.fmt(f)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("geometry", &self.geometry)
            .field("free", &self.totals)
            .finish_non_exhaustive()
    }
}

impl Volume {
    /// Opens a volume. Reads the superblock's counters and nothing else: a group's descriptor is checked, and its bits
    /// are counted, when the group is first needed.
    ///
    /// # Errors
    /// `NoMemory` for the group table: 128 bytes a group, taken up only where touched.
    pub fn open(pmem: Pmem, geometry: Geometry, options: Options) -> Result<Self> {
        let groups = Groups::new(&geometry)?;
        let shares = (0..geometry.groups().min(GROUP_LOCKS))
            .map(|order| Share {
                lock: Mutex::with_order(rank::GROUP, u64::from(order), ()),
                free: Default::default(),
            })
            .collect();
        let count = |at: Off<U32>| AtomicI64::new(i64::from(pmem.load(at).get()));
        let totals = Totals([
            count(field!(SUPERBLOCK, RawSuperblock, s_free_blocks_count)),
            count(field!(SUPERBLOCK, RawSuperblock, s_free_inodes_count)),
        ]);
        Ok(Self(Arc::new(Clones(Arc::new(State {
            pmem,
            geometry,
            groups,
            desks: Desks::default(),
            shares,
            totals,
            all_counted: AtomicBool::new(options.trust_counters),
        })))))
    }

    /// The same volume, whose clones are counted in a word of their own: for threads that clone and drop side by side.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self(Arc::new(Clones(Arc::clone(&self.0.0))))
    }

    pub(crate) fn brand(&self) -> Brand {
        Brand(Arc::as_ptr(&self.0.0).addr())
    }

    /// An attribute block that its last inode has let go of: the caller's word that `i_file_acl` no longer leads to it,
    /// durably, and that no other inode counts as its user. Trees know nothing of attribute blocks.
    pub fn detach_attribute_block(&self, block: FsBlock) -> Detached {
        Detached::single(Run::single(block), self.brand())
    }

    /// Clears the bits of blocks that nothing leads to any more, and flushes them without waiting: a clear that a crash
    /// loses is a leak, no more.
    pub fn free(&self, detached: Detached) {
        debug_assert_eq!(detached.brand, self.brand(), "a token of another volume");
        for run in detached.runs() {
            self.clear_bits(run);
        }
    }
}

impl State {
    /// The file system's shape.
    #[inline]
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The medium.
    #[inline]
    #[must_use]
    pub const fn pmem(&self) -> &Pmem {
        &self.pmem
    }

    /// Where the superblock stands.
    #[must_use]
    pub const fn superblock(&self) -> Off<RawSuperblock> {
        SUPERBLOCK
    }

    /// Where an inode stands in its table.
    ///
    /// # Errors
    /// `Corrupt`: the group's descriptor puts its tables where they cannot be.
    #[inline]
    pub fn inode_offset(&self, ino: Ino) -> Result<Off<RawInode>> {
        let (group, index) = self.geometry.locate_ino(ino);
        let table = self.groups.inode_table(&self.pmem, &self.geometry, group)?;
        let within = u64::from(index) * u64::from(self.geometry.inode_size());
        Ok(Off::new(self.geometry.offset(table) + within))
    }

    /// Whether a block of `run` belongs to the file system's own tables: superblock copies, descriptors, bitmaps, inode
    /// tables. O(1) for each group that the run touches.
    ///
    /// # Errors
    /// `Corrupt`: a group's descriptor is damaged.
    pub fn is_metadata(&self, run: Run) -> Result<bool> {
        Ok(self.first_metadata(run)?.is_some())
    }

    pub(crate) fn first_metadata(&self, run: Run) -> Result<Option<u32>> {
        self.groups.first_metadata(&self.pmem, &self.geometry, run)
    }

    /// Checks a block pointer of `inode` that is not a hole.
    #[inline]
    pub(crate) fn check_pointer(&self, raw: u32, inode: Ino, file_block: u32) -> Result<FsBlock> {
        let Ok(block) = self.geometry.fs_block(raw) else {
            let kind = CorruptKind::PointerOutOfRange {
                inode: inode.get(),
                block: raw,
                file_block,
            };
            return Err(kind.into());
        };
        let group = self.geometry.group_of_block(block);
        if self.groups.surely_data(group, block) {
            return Ok(block);
        }
        match self.first_metadata(Run::single(block))? {
            None => Ok(block),
            Some(block) => Err(CorruptKind::PointerIntoMetadata {
                inode: inode.get(),
                block,
            }
            .into()),
        }
    }

    /// The lock of a group's bitmaps and counters.
    pub(crate) fn lock_group(&self, group: GroupNr) -> MutexGuard<'_, ()> {
        self.share(group).lock.lock()
    }

    fn share(&self, group: GroupNr) -> &Share {
        &self.shares[(group.get() % GROUP_LOCKS) as usize]
    }

    /// Counts a group's bits unless that has been done. The caller holds the group's lock.
    pub(crate) fn count_group(&self, group: GroupNr) -> Result<()> {
        if let Some((blocks, inodes)) = self.groups.count(&self.pmem, &self.geometry, group)? {
            self.totals
                .of(Kind::Blocks)
                .fetch_add(blocks, Ordering::Relaxed);
            self.totals
                .of(Kind::Inodes)
                .fetch_add(inodes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Counts every group that has not been counted, and makes the totals the sums of the groups.
    fn count_all(&self) {
        let (mut blocks, mut inodes) = (0_i64, 0_i64);
        for group in self.geometry.all_groups() {
            let _guard = self.lock_group(group);
            // A damaged group has nothing to give.
            if self.count_group(group).is_ok() {
                blocks += i64::from(self.groups.known(group, Kind::Blocks).unwrap_or(0));
                inodes += i64::from(self.groups.known(group, Kind::Inodes).unwrap_or(0));
            }
        }
        // Allocations on other threads meanwhile may make this slightly off; nobody trusts it (crash.md R8), and the
        // last call, at unmount, is alone.
        for (kind, sum) in [(Kind::Blocks, blocks), (Kind::Inodes, inodes)] {
            let held: i64 = self.held_back(kind);
            self.totals.of(kind).store(sum - held, Ordering::Relaxed);
        }
        self.all_counted.store(true, Ordering::Release);
    }

    fn count_all_unless_trusted(&self) {
        if !self.all_counted.load(Ordering::Acquire) {
            self.count_all();
        }
    }

    /// Changes a counter of a group and of the volume. The caller holds the group's lock and has counted the group.
    pub(crate) fn adjust(&self, group: GroupNr, kind: Kind, by: i32) {
        self.groups.adjust(group, kind, by);
        let share = &self.share(group).free[kind as usize];
        // Stored under the group's lock, so nobody else changes it meanwhile.
        let held = share.load(Ordering::Relaxed) + i64::from(by);
        if held.abs() < SHARE {
            share.store(held, Ordering::Relaxed);
        } else {
            share.store(0, Ordering::Relaxed);
            self.totals.of(kind).fetch_add(held, Ordering::Relaxed);
        }
    }

    /// What the shares have not told the totals.
    fn held_back(&self, kind: Kind) -> i64 {
        self.shares
            .iter()
            .map(|share| share.free[kind as usize].load(Ordering::Relaxed))
            .sum()
    }

    /// The count as exactly as other threads allow: looks at every share.
    pub(crate) fn exact(&self, kind: Kind) -> i64 {
        self.totals.of(kind).load(Ordering::Relaxed) + self.held_back(kind)
    }

    /// How many blocks the caller may still take: exactly when they are few, else a number within [`SLACK`].
    pub(crate) fn spendable(&self, privileged: bool) -> u64 {
        let reserve = if privileged {
            0
        } else {
            i64::from(self.geometry.reserved_blocks())
        };
        let about = self.totals.of(Kind::Blocks).load(Ordering::Relaxed) - reserve - SLACK;
        if about > SLACK {
            return about.unsigned_abs();
        }
        let left = || u64::try_from(self.exact(Kind::Blocks) - reserve).unwrap_or(0);
        if left() == 0 {
            self.count_all_unless_trusted();
        }
        left()
    }

    /// Free blocks without a look at the medium, within [`SLACK`]: right after a clean unmount, else a guess until all
    /// are counted.
    pub(crate) fn free_blocks_guess(&self) -> u64 {
        u64::try_from(self.totals.of(Kind::Blocks).load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The same of inodes.
    pub(crate) fn free_inodes_guess(&self) -> u64 {
        u64::try_from(self.totals.of(Kind::Inodes).load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// What is free.
    ///
    /// The first call after an unclean end reads every bitmap; every other call reads a number of each share.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.count_all_unless_trusted();
        let free_blocks = u64::try_from(self.exact(Kind::Blocks)).unwrap_or(0);
        let free_inodes = u64::try_from(self.exact(Kind::Inodes)).unwrap_or(0);
        Counts {
            free_blocks,
            available_blocks: free_blocks
                .saturating_sub(u64::from(self.geometry.reserved_blocks())),
            free_inodes,
        }
    }

    /// Writes the counters of changed groups and of the superblock, flushed, not fenced. For sync and unmount: nobody
    /// trusts them in between (`crash.md` R8).
    pub fn write_back_counters(&self) {
        self.count_all_unless_trusted();
        let narrow = |count: u32| U16::new(u16::try_from(count).unwrap_or(u16::MAX));
        for group in self.groups.take_dirty(&self.geometry) {
            let _guard = self.lock_group(group);
            let (Some(blocks), Some(inodes)) = (
                self.groups.known(group, Kind::Blocks),
                self.groups.known(group, Kind::Inodes),
            ) else {
                continue;
            };
            let dirs = self.groups.used_dirs(&self.pmem, &self.geometry, group);
            let at = groups::desc_off(&self.geometry, group);
            self.pmem.store(
                field!(at, RawGroupDesc, bg_free_blocks_count),
                narrow(blocks),
            );
            self.pmem.store(
                field!(at, RawGroupDesc, bg_free_inodes_count),
                narrow(inodes),
            );
            self.pmem
                .store(field!(at, RawGroupDesc, bg_used_dirs_count), narrow(dirs));
            self.pmem.flush(at.at(), size_of::<RawGroupDesc>() as u64);
        }
        let wide = |count: u64| U32::new(u32::try_from(count).unwrap_or(u32::MAX));
        let Counts {
            free_blocks: blocks,
            free_inodes: inodes,
            ..
        } = self.counts();
        self.pmem.store(
            field!(SUPERBLOCK, RawSuperblock, s_free_blocks_count),
            wide(blocks),
        );
        self.pmem.store(
            field!(SUPERBLOCK, RawSuperblock, s_free_inodes_count),
            wide(inodes),
        );
        self.pmem.flush(SUPERBLOCK.at(), 64);
    }

    pub(crate) fn clear_bits(&self, run: Run) {
        let mut rest = run;
        while !rest.is_empty() {
            let (group, first) = self.geometry.locate_block(rest.start);
            let (here, after) = rest.split(self.geometry.group_len(group).saturating_sub(first));
            let _guard = self.lock_group(group);
            // A group that cannot be counted never gave these blocks, and tables are never free: the damage is fsck's,
            // the bits stay.
            if self.count_group(group).is_ok()
                && self.first_metadata(here) == Ok(None)
                && let Ok(bitmap) =
                    self.groups
                        .bitmap(&self.pmem, &self.geometry, group, Kind::Blocks)
            {
                let cleared = bitmap.clear(first, here.len);
                self.adjust(group, Kind::Blocks, cleared.cast_signed());
                self.groups.lower_block_hints(group, first);
            }
            rest = after;
        }
    }
}
