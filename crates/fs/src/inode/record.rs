//! One inode's record on the medium, read and written in place, field by field.
//!
//! A [`Record`] is the part of the in-core inode that lower layers need too (the block map of a file holds one): where
//! the inode lies, its block tree, and the guard that keeps its times in one piece. It holds no copy of any field: what
//! a getter answers is what the medium says now.
//!
//! # Invariants
//! Stores are of the exact width and in program order, so the lines of the inode obey `ARCHITECTURE.md`'s memory model.
//! A setter stores and nothing more; [`Record::flush`] makes the lines ready for the caller's next fence.
//!
//! # Locking
//! Mode, owner, links, flags and the pointers change under the INODE lock, exclusively. Times may change without it (a
//! page fault sets them), so they and the size are written under a lock of [`Versions`](super::Versions) (rank TABLE, a
//! leaf) and read with a counter
//! that shows whether a writer came between.
//!
//! # On disk
//! *The Second Extended File System: Internal Layout*, "Inode Table"; Linux `ext4/inodes.rst` for the fields from byte
//! 128 on, each of which exists only if `128 + i_extra_isize` covers it.

use alloc::sync::Arc;
use core::fmt;

use ext2dax_format::{
    CorruptKind, Error, FileType, Ino, InodeFlags, RawInode, RawInodeExtra, Result, Timestamp,
};
use ext2dax_getblock::BlockTree;
use ext2dax_pmem::{Off, Pmem, field};
use ext2dax_sync::atomic::{AtomicBool, Ordering};
use zerocopy::little_endian::{U16, U32};

use crate::mount::Core;
use crate::slots::Mark;

/// Bytes of the fixed part of an inode; what follows is the extra part.
const RAW_INODE_BYTES: u32 = 128;

/// Which of the three times of POSIX a call sets; `None` leaves one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeChange {
    pub(crate) access: Option<Timestamp>,
    pub(crate) modify: Option<Timestamp>,
    pub(crate) change: Option<Timestamp>,
}

/// An inode where it lies. See the module's documentation.
pub(crate) struct Record {
    core: Arc<Core>,
    ino: Ino,
    at: Off<RawInode>,
    inode_size: u32,
    tree: BlockTree,
    /// The access time is known to be after the other two: a read need not look.
    access_noted: AtomicBool,
    mark: Mark,
    parent_mark: Mark,
    protection_mark: Mark,
    size_mark: Mark,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("ino", &self.ino)
            .finish_non_exhaustive()
    }
}

impl Record {
    /// # Errors
    /// `Corrupt` if the descriptor of the inode's group is damaged.
    pub(crate) fn new(core: &Arc<Core>, ino: Ino) -> Result<Self> {
        let core = core.near();
        Ok(Self {
            ino,
            at: core.volume.inode_offset(ino)?,
            inode_size: core.geometry.inode_size(),
            tree: BlockTree::new(&core.volume, ino)?,
            access_noted: AtomicBool::new(false),
            mark: Mark::default(),
            parent_mark: Mark::default(),
            protection_mark: Mark::default(),
            size_mark: Mark::default(),
            core,
        })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The slot that may still speak of this file: see [`Slots::settle`](crate::slots::Slots::settle).
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The slot that may still speak of this directory's count.
    pub(crate) fn parent_mark(&self) -> &Mark {
        &self.parent_mark
    }

    /// What intents say of mode, owner and attributes.
    pub(crate) fn protection_mark(&self) -> &Mark {
        &self.protection_mark
    }

    /// What intents say of the size.
    pub(crate) fn size_mark(&self) -> &Mark {
        &self.size_mark
    }

    pub(crate) fn marks(&self) -> [&Mark; 4] {
        [
            &self.mark,
            &self.parent_mark,
            &self.protection_mark,
            &self.size_mark,
        ]
    }

    pub(crate) fn pmem(&self) -> &Pmem {
        &self.core.pmem
    }

    pub(crate) fn ino(&self) -> Ino {
        self.ino
    }

    /// Where the inode lies.
    pub(crate) fn at(&self) -> Off<RawInode> {
        self.at
    }

    pub(crate) fn tree(&self) -> &BlockTree {
        &self.tree
    }

    /// Flushes the whole inode; durable after the caller's next fence.
    pub(crate) fn flush(&self) {
        self.pmem().flush(self.at.at(), u64::from(self.inode_size));
    }

    /// Flushes the first line: liveness, size, times in seconds, the first six pointers.
    pub(crate) fn flush_line0(&self) {
        self.pmem().flush(self.at.at(), 64);
    }

    fn load16(&self, at: Off<U16>) -> u16 {
        self.pmem().load(at).get()
    }

    fn load32(&self, at: Off<U32>) -> u32 {
        self.pmem().load(at).get()
    }

    fn store16(&self, at: Off<U16>, value: u16) {
        self.pmem().store(at, U16::new(value));
    }

    fn store32(&self, at: Off<U32>, value: u32) {
        self.pmem().store(at, U32::new(value));
    }

    // ---- type, mode, owner ----

    pub(crate) fn mode(&self) -> u16 {
        self.load16(field!(self.at, RawInode, i_mode))
    }

    /// Replaces the permission bits (07777) and keeps the type.
    pub(crate) fn set_permission_bits(&self, bits: u16) {
        let mode = (self.mode() & 0xf000) | (bits & 0o7777);
        self.store16(field!(self.at, RawInode, i_mode), mode);
    }

    /// The type that `i_mode` says.
    ///
    /// # Errors
    /// `Corrupt` if the type bits are none of the seven.
    pub(crate) fn file_type(&self) -> Result<FileType> {
        let mode = self.mode();
        FileType::from_mode(mode).ok_or(Error::Corrupt(CorruptKind::InodeType {
            inode: self.ino.get(),
            mode,
        }))
    }

    pub(crate) fn uid(&self) -> u32 {
        let low = self.load16(field!(self.at, RawInode, i_uid));
        let high = self.load16(field!(self.at, RawInode, l_i_uid_high));
        u32::from(high) << 16 | u32::from(low)
    }

    pub(crate) fn gid(&self) -> u32 {
        let low = self.load16(field!(self.at, RawInode, i_gid));
        let high = self.load16(field!(self.at, RawInode, l_i_gid_high));
        u32::from(high) << 16 | u32::from(low)
    }

    /// Stores both owners: the low halves share line 0, the high ones line 1.
    pub(crate) fn set_owner(&self, uid: u32, gid: u32) {
        let (uid_low, uid_high) = halves(uid);
        let (gid_low, gid_high) = halves(gid);
        self.store16(field!(self.at, RawInode, l_i_uid_high), uid_high);
        self.store16(field!(self.at, RawInode, l_i_gid_high), gid_high);
        self.store16(field!(self.at, RawInode, i_uid), uid_low);
        self.store16(field!(self.at, RawInode, i_gid), gid_low);
    }

    // ---- life ----

    pub(crate) fn links(&self) -> u16 {
        self.load16(field!(self.at, RawInode, i_links_count))
    }

    /// Stored, not flushed.
    pub(crate) fn set_links(&self, links: u16) {
        self.store16(field!(self.at, RawInode, i_links_count), links);
    }

    /// Sets the count and flushes it. A time that shows already is not stored and flushes nothing, so no count may ride on
    /// one.
    pub(crate) fn put_links(&self, links: u16) {
        self.set_links(links);
        self.flush_line0();
    }

    pub(crate) fn dtime(&self) -> u32 {
        self.load32(field!(self.at, RawInode, i_dtime))
    }

    pub(crate) fn set_dtime(&self, dtime: u32) {
        self.store32(field!(self.at, RawInode, i_dtime), dtime);
    }

    /// The death time of rule R1: never a number that a checker would take for a link of the orphan list.
    pub(crate) fn death_time(&self) -> u32 {
        death_time(&self.core, self.core.now())
    }

    pub(crate) fn generation(&self) -> u32 {
        self.load32(field!(self.at, RawInode, i_generation))
    }

    pub(crate) fn set_generation(&self, generation: u32) {
        self.store32(field!(self.at, RawInode, i_generation), generation);
    }

    // ---- flags and blocks ----

    pub(crate) fn flags(&self) -> InodeFlags {
        InodeFlags::from_bits_retain(self.load32(field!(self.at, RawInode, i_flags)))
    }

    pub(crate) fn set_flags(&self, flags: InodeFlags) {
        self.store32(field!(self.at, RawInode, i_flags), flags.bits());
    }

    /// The attribute block, 0 if there is none; unchecked.
    pub(crate) fn file_acl(&self) -> u32 {
        self.load32(field!(self.at, RawInode, i_file_acl))
    }

    pub(crate) fn set_file_acl(&self, block: u32) {
        self.store32(field!(self.at, RawInode, i_file_acl), block);
    }

    /// `i_blocks`: units of 512 bytes, indirect blocks and the attribute block included.
    pub(crate) fn sectors(&self) -> u32 {
        self.load32(field!(self.at, RawInode, i_blocks))
    }

    /// Stored, not flushed. For who is alone with the inode: its tree counts otherwise.
    pub(crate) fn set_sectors(&self, sectors: u32) {
        self.store32(field!(self.at, RawInode, i_blocks), sectors);
    }

    /// The 60 bytes of `i_block` as they lie.
    pub(crate) fn block_bytes(&self) -> [u8; 60] {
        let mut bytes = [0; 60];
        self.pmem()
            .read(field!(self.at, RawInode, i_block).at(), &mut bytes);
        bytes
    }

    /// Whether a symlink's target lies in `i_block`: it has no block, but perhaps one of attributes. No blocks at all beside
    /// an attribute block is what a crash leaves: the block is not counted yet, or no more.
    pub(crate) fn is_fast_symlink(&self) -> bool {
        let of_attributes = if self.file_acl() == 0 {
            0
        } else {
            self.core.geometry.sectors_per_block()
        };
        let sectors = self.sectors();
        sectors == 0 || sectors == of_attributes
    }

    /// Refuses an inode whose `i_block` holds something other than block pointers.
    ///
    /// # Errors
    /// `ForeignContents` with the flags that forbid it.
    pub(crate) fn check_contents(&self) -> Result<()> {
        let foreign = self.flags().intersection(InodeFlags::CONTENTS);
        if foreign.is_empty() {
            return Ok(());
        }
        Err(Error::ForeignContents {
            inode: self.ino.get(),
            flags: foreign.bits(),
        })
    }

    // ---- size ----

    fn has_high_size(&self, mode: u16) -> bool {
        FileType::from_mode(mode) == Some(FileType::Regular)
    }

    /// The size on the medium. For a directory the high half is another field and counts as zero.
    pub(crate) fn size(&self) -> u64 {
        self.consistent(|| {
            let low = self.load32(field!(self.at, RawInode, i_size));
            let high = if self.has_high_size(self.mode()) {
                self.load32(field!(self.at, RawInode, i_size_high))
            } else {
                0
            };
            u64::from(high) << 32 | u64::from(low)
        })
    }

    pub(crate) fn size_low_at(&self) -> Off<U32> {
        field!(self.at, RawInode, i_size)
    }

    pub(crate) fn size_high_at(&self) -> Off<U32> {
        field!(self.at, RawInode, i_size_high)
    }

    // ---- times ----

    /// Runs `stores` alone among the writers of times and size, so that no reader sees half of them.
    pub(crate) fn update<R>(&self, stores: impl FnOnce() -> R) -> R {
        self.core.versions.write(self.ino, stores)
    }

    /// Runs `loads` until no writer came between.
    fn consistent<R>(&self, loads: impl Fn() -> R) -> R {
        self.core.versions.read(self.ino, loads)
    }

    /// Whether a read would leave the access time as it is, as far as a change since the last look can tell.
    pub(crate) fn is_access_noted(&self) -> bool {
        self.access_noted.load(Ordering::Relaxed)
    }

    pub(crate) fn set_access_noted(&self) {
        self.access_noted.store(true, Ordering::Relaxed);
    }

    fn extra(&self) -> Option<Extra> {
        if self.inode_size <= RAW_INODE_BYTES {
            return None;
        }
        let at = self
            .at
            .cast::<RawInodeExtra>()
            .add(u64::from(RAW_INODE_BYTES));
        let covered = u32::from(self.load16(field!(at, RawInodeExtra, i_extra_isize)));
        Some(Extra {
            at,
            covered: covered.min(self.inode_size - RAW_INODE_BYTES),
        })
    }

    fn decode(&self, seconds: Off<U32>, extra: Option<Off<U32>>) -> Timestamp {
        Timestamp::decode(self.load32(seconds), extra.map(|at| self.load32(at)))
    }

    fn encode(&self, seconds: Off<U32>, extra: Option<Off<U32>>, time: Timestamp) {
        let (low, high) = time.encode(extra.is_some());
        if let Some(at) = extra {
            self.store32(at, high);
        }
        self.store32(seconds, low);
    }

    /// Access, modification and change time: one moment's values.
    pub(crate) fn times(&self) -> Times {
        self.consistent(|| {
            let extra = self.extra();
            let extra = extra.as_ref();
            Times {
                access: self.decode(
                    field!(self.at, RawInode, i_atime),
                    extra.and_then(Extra::access),
                ),
                modify: self.decode(
                    field!(self.at, RawInode, i_mtime),
                    extra.and_then(Extra::modify),
                ),
                change: self.decode(
                    field!(self.at, RawInode, i_ctime),
                    extra.and_then(Extra::change),
                ),
            }
        })
    }

    /// Stores the times given and flushes their lines; durable with the caller's next fence (rule R8: a time never
    /// costs a fence of its own).
    pub(crate) fn set_times(&self, change: TimeChange) {
        self.access_noted.store(false, Ordering::Relaxed);
        self.update(|| {
            let extra = self.extra();
            let extra = extra.as_ref();
            if let Some(time) = change.access {
                self.encode(
                    field!(self.at, RawInode, i_atime),
                    extra.and_then(Extra::access),
                    time,
                );
            }
            if let Some(time) = change.modify {
                self.encode(
                    field!(self.at, RawInode, i_mtime),
                    extra.and_then(Extra::modify),
                    time,
                );
            }
            if let Some(time) = change.change {
                self.encode(
                    field!(self.at, RawInode, i_ctime),
                    extra.and_then(Extra::change),
                    time,
                );
            }
        });
        self.flush_line0();
        if self.inode_size > RAW_INODE_BYTES {
            self.pmem()
                .flush(self.at.at() + u64::from(RAW_INODE_BYTES), 32);
        }
    }

    /// Modification and change time := now.
    pub(crate) fn touch_modified(&self) {
        let now = self.core.now();
        if self.modified_at(now) {
            return;
        }
        self.set_times(TimeChange {
            access: None,
            modify: Some(now),
            change: Some(now),
        });
    }

    /// Whether both times show just this moment: the clock ticks a few hundred times a second, writes come by the
    /// million.
    fn modified_at(&self, time: Timestamp) -> bool {
        let extra = self.extra();
        let extra = extra.as_ref();
        let shows = |seconds: Off<U32>, extra: Option<Off<U32>>| {
            let (low, high) = time.encode(extra.is_some());
            self.load32(seconds) == low && extra.is_none_or(|at| self.load32(at) == high)
        };
        shows(
            field!(self.at, RawInode, i_mtime),
            extra.and_then(Extra::modify),
        ) && shows(
            field!(self.at, RawInode, i_ctime),
            extra.and_then(Extra::change),
        )
    }

    /// Change time := now.
    pub(crate) fn touch_changed(&self) {
        self.set_times(TimeChange {
            change: Some(self.core.now()),
            ..TimeChange::default()
        });
    }
}

/// The times of one inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) access: Timestamp,
    pub(crate) modify: Timestamp,
    pub(crate) change: Timestamp,
}

/// The part of the inode from byte 128 on, as far as `i_extra_isize` covers it.
struct Extra {
    at: Off<RawInodeExtra>,
    covered: u32,
}

impl Extra {
    /// `field`, if its four bytes lie inside the covered part.
    fn covering(&self, field: Off<U32>) -> Option<Off<U32>> {
        (field.at() + 4 <= self.at.at() + u64::from(self.covered)).then_some(field)
    }

    fn change(&self) -> Option<Off<U32>> {
        self.covering(field!(self.at, RawInodeExtra, i_ctime_extra))
    }

    fn modify(&self) -> Option<Off<U32>> {
        self.covering(field!(self.at, RawInodeExtra, i_mtime_extra))
    }

    fn access(&self) -> Option<Off<U32>> {
        self.covering(field!(self.at, RawInodeExtra, i_atime_extra))
    }
}

/// The low and the high half of an owner.
pub(crate) fn halves(id: u32) -> (u16, u16) {
    let [a, b, c, d] = id.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}

/// `max(now, s_inodes_count)`: works without a clock, and no checker takes it for a link of the orphan list.
pub(crate) fn death_time(core: &Core, now: Timestamp) -> u32 {
    let now = u32::try_from(now.secs).unwrap_or(u32::MAX);
    now.max(core.geometry.inodes_count())
}
