//! The group table: where each group's tables lie and what is free, learned when the group is first touched.

use alloc::vec::Vec;
// Plain atomics also under the schedule explorer: everything here is either written once or a hint.
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ext2dax_format::{
    CorruptKind, Error, FsBlock, Geometry, GroupDesc, GroupNr, RawGroupDesc, Result, Run,
};
use ext2dax_pmem::{Off, Pmem};
use zerocopy::FromZeros;

use crate::bitmap::Bitmap;

/// Blocks that one cache line of a bitmap covers: what a writer reserves, so that two writers never share a line.
pub(crate) const LINE: u32 = 512;

/// What is known of one group. All zero: nothing yet. Zeroed pages cost nothing until they are touched, so a table for
/// 16 TiB is free at open.
///
/// On two cache lines, since every look at an inode reads the first one, every allocation stores to the second.
#[derive(FromZeros)]
#[repr(C, align(128))]
struct Slot {
    block_bitmap: AtomicU32,
    inode_bitmap: AtomicU32,
    inode_table: AtomicU32,
    /// The hull of the group's tables: blocks outside are data for sure.
    hull_low: AtomicU32,
    /// End of the hull; 0 as long as the descriptor has not been checked. Stored last.
    hull_high: AtomicU32,
    /// What follows is on the second line.
    rest_of_line: [u32; 11],
    /// Free blocks plus one; 0 as long as the bits have not been counted.
    free_blocks: AtomicU32,
    /// Free inodes plus one; 0 as long as the bits have not been counted.
    free_inodes: AtomicU32,
    used_dirs: AtomicU32,
    /// No inode below this index is free.
    inode_hint: AtomicU32,
    /// No block below this index is free.
    block_hint: AtomicU32,
    /// No page cluster that begins below this index is free as a whole.
    cluster_hint: AtomicU32,
    /// Bitmap lines that a file has reserved: at most 65,528 / 512 = 128 of them.
    reserved: [AtomicU64; 2],
    rest: [u64; 3],
}

/// All groups.
pub(crate) struct Groups {
    slots: Vec<Slot>,
    /// Groups whose counters on the medium are to be written at the next sync.
    dirty: Vec<AtomicU64>,
}

/// Which counter of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Blocks,
    Inodes,
}

fn lazy<T: FromZeros>(count: u32) -> Result<Vec<T>> {
    T::new_vec_zeroed(count as usize).map_err(|_| Error::NoMemory)
}

impl Groups {
    pub(crate) fn new(geometry: &Geometry) -> Result<Self> {
        Ok(Self {
            slots: lazy(geometry.groups())?,
            dirty: lazy(geometry.groups().div_ceil(64))?,
        })
    }

    fn slot(&self, group: GroupNr) -> &Slot {
        &self.slots[group.index()]
    }

    /// Reads and checks the descriptor unless that has been done.
    fn load(&self, pmem: &Pmem, geometry: &Geometry, group: GroupNr) -> Result<&Slot> {
        let slot = self.slot(group);
        if slot.hull_high.load(Ordering::Acquire) != 0 {
            return Ok(slot);
        }
        let desc = read_desc(pmem, geometry, group)?;
        let tables = geometry.group_tables(&desc, group);
        let used = || tables.iter().filter(|run| !run.is_empty());
        let low = used().map(|run| run.start.get()).min().unwrap_or(0);
        let high = used().map(|run| run.end()).max().unwrap_or(u32::MAX);
        slot.block_bitmap
            .store(desc.block_bitmap.get(), Ordering::Relaxed);
        slot.inode_bitmap
            .store(desc.inode_bitmap.get(), Ordering::Relaxed);
        slot.inode_table
            .store(desc.inode_table.get(), Ordering::Relaxed);
        slot.hull_low.store(low, Ordering::Relaxed);
        slot.hull_high.store(high, Ordering::Release);
        Ok(slot)
    }

    /// The first block of the group's inode table.
    #[inline]
    pub(crate) fn inode_table(
        &self,
        pmem: &Pmem,
        geometry: &Geometry,
        group: GroupNr,
    ) -> Result<FsBlock> {
        let slot = self.load(pmem, geometry, group)?;
        geometry.fs_block(slot.inode_table.load(Ordering::Relaxed))
    }

    /// The bitmap of one kind.
    pub(crate) fn bitmap<'p>(
        &self,
        pmem: &'p Pmem,
        geometry: &Geometry,
        group: GroupNr,
        kind: Kind,
    ) -> Result<Bitmap<'p>> {
        let slot = self.load(pmem, geometry, group)?;
        let (block, len) = match kind {
            Kind::Blocks => (&slot.block_bitmap, geometry.group_len(group)),
            Kind::Inodes => (&slot.inode_bitmap, geometry.inodes_per_group()),
        };
        let block = geometry.fs_block(block.load(Ordering::Relaxed))?;
        Ok(Bitmap::new(pmem, geometry.offset(block), len))
    }

    /// The first block of `run` that belongs to tables of the group that holds the run's first block, and how much of the
    /// run that group holds.
    fn table_block(
        &self,
        pmem: &Pmem,
        geometry: &Geometry,
        run: Run,
    ) -> Result<(Option<u32>, u32)> {
        let group = geometry.group_of_block(run.start);
        let all = geometry.group_run(group);
        let (here, _) = run.split(all.end().saturating_sub(run.start.get()));
        let slot = self.load(pmem, geometry, group)?;
        let hull = slot.hull_low.load(Ordering::Relaxed)..slot.hull_high.load(Ordering::Relaxed);
        if here.start.get() >= hull.end || here.end() <= hull.start {
            return Ok((None, here.len));
        }
        let tables = [
            (all.start.get(), geometry.group_super_blocks(group)),
            (slot.block_bitmap.load(Ordering::Relaxed), 1),
            (slot.inode_bitmap.load(Ordering::Relaxed), 1),
            (
                slot.inode_table.load(Ordering::Relaxed),
                geometry.inode_table_blocks(),
            ),
        ];
        let hit = tables
            .into_iter()
            .filter(|&(start, len)| {
                here.start.get() < start.saturating_add(len) && start < here.end() && len > 0
            })
            .map(|(start, _)| start.max(here.start.get()))
            .min();
        Ok((hit, here.len))
    }

    /// The first block of the run that belongs to the file system's own tables.
    #[inline]
    pub(crate) fn first_metadata(
        &self,
        pmem: &Pmem,
        geometry: &Geometry,
        run: Run,
    ) -> Result<Option<u32>> {
        let mut rest = run;
        while !rest.is_empty() {
            let (hit, seen) = self.table_block(pmem, geometry, rest)?;
            if hit.is_some() {
                return Ok(hit);
            }
            rest = rest.split(seen).1;
        }
        Ok(None)
    }

    /// Whether the group's descriptor is known and `block` lies outside the hull of its tables: the fast answer.
    #[inline]
    pub(crate) fn surely_data(&self, group: GroupNr, block: FsBlock) -> bool {
        let slot = self.slot(group);
        let high = slot.hull_high.load(Ordering::Acquire);
        high != 0 && (block.get() >= high || block.get() < slot.hull_low.load(Ordering::Relaxed))
    }

    /// A hint that costs no scan of bits: the count if it is known, else what the descriptor says.
    pub(crate) fn free_hint(
        &self,
        pmem: &Pmem,
        geometry: &Geometry,
        group: GroupNr,
        kind: Kind,
    ) -> u32 {
        let slot = self.slot(group);
        match counter(slot, kind).load(Ordering::Relaxed) {
            0 => read_desc(pmem, geometry, group).map_or(0, |desc| match kind {
                Kind::Blocks => u32::from(desc.free_blocks),
                Kind::Inodes => u32::from(desc.free_inodes),
            }),
            known => known - 1,
        }
    }

    /// Directories in a group: as counted since the descriptor was read.
    pub(crate) fn used_dirs(&self, pmem: &Pmem, geometry: &Geometry, group: GroupNr) -> u32 {
        let slot = self.slot(group);
        match slot.used_dirs.load(Ordering::Relaxed) {
            0 => read_desc(pmem, geometry, group).map_or(0, |desc| u32::from(desc.used_dirs)),
            known => known - 1,
        }
    }

    /// Counts the bits of both bitmaps unless that has been done. The caller holds the group's lock.
    ///
    /// Returns how far the descriptor was off: (blocks, inodes), counted less found; `None` if already counted.
    pub(crate) fn count(
        &self,
        pmem: &Pmem,
        geometry: &Geometry,
        group: GroupNr,
    ) -> Result<Option<(i64, i64)>> {
        let slot = self.load(pmem, geometry, group)?;
        if slot.free_inodes.load(Ordering::Acquire) != 0 {
            return Ok(None);
        }
        let desc = read_desc(pmem, geometry, group)?;
        let blocks = self.bitmap(pmem, geometry, group, Kind::Blocks)?;
        let inodes = self.bitmap(pmem, geometry, group, Kind::Inodes)?;
        check_tables_in_use(geometry, group, &desc, &blocks)?;
        let (free_blocks, free_inodes) = (blocks.count_clear(), inodes.count_clear());
        slot.used_dirs
            .store(u32::from(desc.used_dirs) + 1, Ordering::Relaxed);
        slot.free_blocks.store(free_blocks + 1, Ordering::Relaxed);
        slot.free_inodes.store(free_inodes + 1, Ordering::Release);
        let off = (
            i64::from(free_blocks) - i64::from(desc.free_blocks),
            i64::from(free_inodes) - i64::from(desc.free_inodes),
        );
        if off != (0, 0) {
            self.mark_dirty(group);
        }
        Ok(Some(off))
    }

    /// The exact count, `None` if the group was never counted.
    pub(crate) fn known(&self, group: GroupNr, kind: Kind) -> Option<u32> {
        counter(self.slot(group), kind)
            .load(Ordering::Relaxed)
            .checked_sub(1)
    }

    /// Changes a counter. The caller holds the group's lock and has counted the group.
    pub(crate) fn adjust(&self, group: GroupNr, kind: Kind, by: i32) {
        let counter = counter(self.slot(group), kind);
        // Nobody else changes it meanwhile.
        let count = counter.load(Ordering::Relaxed);
        counter.store(count.wrapping_add_signed(by), Ordering::Relaxed);
        self.mark_dirty(group);
    }

    /// The same of the directories. As for [`Groups::adjust`].
    pub(crate) fn adjust_dirs(&self, group: GroupNr, by: i32) {
        let dirs = &self.slot(group).used_dirs;
        // A count that was wrong on the medium must not wrap.
        let known = dirs.load(Ordering::Relaxed);
        dirs.store(known.saturating_add_signed(by).max(1), Ordering::Relaxed);
        self.mark_dirty(group);
    }

    /// Sets the count of directories. The caller holds the group's lock.
    pub(crate) fn set_dirs(&self, pmem: &Pmem, geometry: &Geometry, group: GroupNr, count: u32) {
        if self.used_dirs(pmem, geometry, group) != count {
            self.slot(group)
                .used_dirs
                .store(count + 1, Ordering::Relaxed);
            self.mark_dirty(group);
        }
    }

    /// The group's own tables.
    pub(crate) fn tables(
        &self,
        pmem: &Pmem,
        geometry: &Geometry,
        group: GroupNr,
    ) -> Result<[Run; 4]> {
        Ok(geometry.group_tables(&read_desc(pmem, geometry, group)?, group))
    }

    fn mark_dirty(&self, group: GroupNr) {
        let word = &self.dirty[group.index() / 64];
        let bit = 1 << (group.index() % 64);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// The groups whose counters changed since the last call.
    pub(crate) fn take_dirty<'g>(
        &'g self,
        geometry: &'g Geometry,
    ) -> impl Iterator<Item = GroupNr> + 'g {
        (0_u32..)
            .zip(self.dirty.iter())
            .flat_map(move |(index, word)| {
                let bits = word.swap(0, Ordering::Relaxed);
                (0..64)
                    .filter(move |bit| bits >> bit & 1 != 0)
                    .filter_map(move |bit| geometry.group(index * 64 + bit).ok())
            })
    }

    /// The hint cell of one kind.
    pub(crate) fn hint(&self, group: GroupNr, kind: Kind) -> &AtomicU32 {
        let slot = self.slot(group);
        match kind {
            Kind::Blocks => &slot.block_hint,
            Kind::Inodes => &slot.inode_hint,
        }
    }

    /// The hint of page clusters, where blocks are smaller than a page.
    pub(crate) fn cluster_hint(&self, group: GroupNr) -> &AtomicU32 {
        &self.slot(group).cluster_hint
    }

    /// Inode `index` of the group is free again. The caller holds the group's lock.
    pub(crate) fn lower_inode_hint(&self, group: GroupNr, index: u32) {
        lower(&self.slot(group).inode_hint, index);
    }

    /// Blocks of the group from `first` on are free again. The caller holds the group's lock.
    pub(crate) fn lower_block_hints(&self, group: GroupNr, first: u32) {
        let slot = self.slot(group);
        lower(&slot.block_hint, first);
        // The cluster that the block is in may begin up to a page of the smallest blocks before it.
        lower(&slot.cluster_hint, first.saturating_sub(3));
    }

    /// Bitmap lines reserved by files, one bit a line.
    pub(crate) fn reserved_lines(&self, group: GroupNr) -> u128 {
        let [low, high] = &self.slot(group).reserved;
        u128::from(low.load(Ordering::Relaxed)) | u128::from(high.load(Ordering::Relaxed)) << 64
    }

    /// Reserves the lines of `mask`, or gives them back.
    pub(crate) fn reserve_lines(&self, group: GroupNr, mask: u128, reserve: bool) {
        let [low, high] = &self.slot(group).reserved;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the two halves of the mask"
        )]
        for (word, part) in [(low, mask as u64), (high, (mask >> 64) as u64)] {
            if part == 0 {
            } else if reserve {
                word.fetch_or(part, Ordering::Relaxed);
            } else {
                word.fetch_and(!part, Ordering::Relaxed);
            }
        }
    }
}

/// A hint that is changed under the group's lock only.
fn lower(hint: &AtomicU32, to: u32) {
    if to < hint.load(Ordering::Relaxed) {
        hint.store(to, Ordering::Relaxed);
    }
}

fn counter(slot: &Slot, kind: Kind) -> &AtomicU32 {
    match kind {
        Kind::Blocks => &slot.free_blocks,
        Kind::Inodes => &slot.free_inodes,
    }
}

/// Where the group's descriptor lies.
pub(crate) fn desc_off(geometry: &Geometry, group: GroupNr) -> Off<RawGroupDesc> {
    Off::new(geometry.desc_offset(group))
}

fn read_desc(pmem: &Pmem, geometry: &Geometry, group: GroupNr) -> Result<GroupDesc> {
    let raw = pmem.read_value(desc_off(geometry, group));
    geometry.group_desc(&raw, group)
}

/// A bitmap that calls the group's own tables free would hand them out as data.
fn check_tables_in_use(
    geometry: &Geometry,
    group: GroupNr,
    desc: &GroupDesc,
    blocks: &Bitmap<'_>,
) -> Result<()> {
    for run in geometry.group_tables(desc, group) {
        if run.is_empty() {
            continue;
        }
        let (_, first) = geometry.locate_block(run.start);
        if let Some(bit) = blocks.find_clear(first, first + run.len) {
            let block = run.start.get() + (bit - first);
            return Err(CorruptKind::TableMarkedFree {
                group: group.get(),
                block,
            }
            .into());
        }
    }
    Ok(())
}
