//! Where new blocks go.
//!
//! * A block that continues its predecessor follows it.
//! * A large or growing file gets 2 MiB of free blocks that are aligned as its own offsets are (a [`Window`]), so that a
//!   mapping can use huge entries. The rest of the window is reserved in memory by whole lines of the bitmap (512
//!   blocks), until the file is closed: writers on different files then touch different lines.
//! * Small files are packed: first fit from the start of their inode's group, around reserved lines.
//! * Indirect blocks are packed, too, and so stay out of the runs of data that windows hold.
//! * Where a block is smaller than a page, the first block of a page takes its own position in a free page-aligned
//!   cluster, and leaves the other positions to its page: others look for whole free clusters.
//! * Reservations are advice. Before `NoSpace`, the search is repeated without them.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use ext2dax_format::{Error, FsBlock, GroupNr, Result, Run};

use crate::bitmap::Bitmap;
use crate::groups::{Kind, LINE};
use crate::token::Fresh;
use crate::volume::{State, Volume};

/// Translations cover this many bytes at once where they can.
const HUGE: u32 = 2 << 20;
/// The smallest page of the platforms we know.
const PAGE: u32 = 4096;
/// From this offset, or in requests of this size, a file counts as large.
const LARGE: u64 = 64 << 10;
/// A run this long is good enough not to look into further groups.
const GOOD_RUN: u32 = 16;
/// Groups that are looked at for something better than what the first has.
const NEAR_GROUPS: u32 = 32;

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// File data from this file block on.
    Data(u32),
    /// Indirect blocks, attributes: never mapped into a program.
    Table,
}

/// A request for blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    /// Where to begin to look.
    pub(crate) group: GroupNr,
    /// The very block, if it is free.
    pub(crate) goal: Option<FsBlock>,
    /// The goal lies in a page cluster that already belongs to this page of the file.
    pub(crate) joins: bool,
    /// At most so many.
    pub(crate) len: u32,
    pub(crate) used_for: Use,
    /// May take reserved blocks.
    pub(crate) privileged: bool,
}

/// 2 MiB of a file and the free blocks kept for it.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Which 2 MiB of the file.
    chunk: u32,
    /// The block for the chunk's first file block.
    base: u32,
    group: GroupNr,
    /// Lines of the group's bitmap reserved for it.
    lines: u128,
}

/// What one file has reserved.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    /// Made with the first window: most inodes in core are small files and directories, which never have one.
    held: Option<Box<Held>>,
    /// The block behind the last indirect block, in the same page cluster.
    table_goal: Option<FsBlock>,
}

#[derive(Debug, Default)]
struct Held {
    windows: [Option<Window>; 4],
    oldest: usize,
}

impl Windows {
    fn held(&self) -> impl Iterator<Item = &Window> {
        let held = self.held.iter();
        held.flat_map(|held| held.windows.iter().flatten())
    }

    fn lines_in(&self, group: GroupNr) -> u128 {
        let here = self.held().filter(|window| window.group == group);
        here.fold(0, |lines, window| lines | window.lines)
    }

    fn for_chunk(&self, chunk: u32) -> Option<Window> {
        self.held().copied().find(|window| window.chunk == chunk)
    }

    fn keep(&mut self, state: &State, window: Window) {
        let held = self.held.get_or_insert_default();
        let old = held.windows[held.oldest].replace(window);
        held.oldest = (held.oldest + 1) % held.windows.len();
        if let Some(old) = old {
            let still = self.lines_in(old.group);
            state
                .groups
                .reserve_lines(old.group, old.lines & !still, false);
        }
        state.groups.reserve_lines(window.group, window.lines, true);
    }

    /// Gives every reservation back.
    pub(crate) fn release(&mut self, state: &State) {
        for window in self.held() {
            state
                .groups
                .reserve_lines(window.group, window.lines, false);
        }
        self.held = None;
        self.table_goal = None;
    }
}

/// A search in one group's bitmap, under the group's lock.
struct Search<'s> {
    bitmap: Bitmap<'s>,
    group: GroupNr,
    first: u32,
    len: u32,
    /// Lines that others have reserved.
    avoid: u128,
}

impl Search<'_> {
    /// Free and unreserved bits from `from` on, at most `max`.
    fn free_from(&self, from: u32, max: u32) -> u32 {
        let mut nr = from;
        let end = from.saturating_add(max).min(self.len);
        while nr < end {
            if self.avoid >> (nr / LINE) & 1 != 0 {
                break;
            }
            let line_end = if self.avoid == 0 {
                end
            } else {
                ((nr / LINE + 1) * LINE).min(end)
            };
            let run = self.bitmap.clear_run(nr, line_end - nr);
            nr += run;
            if nr < line_end {
                break;
            }
        }
        nr - from
    }

    fn next_free(&self, from: u32) -> Option<u32> {
        let mut nr = from;
        loop {
            nr = self.bitmap.find_clear(nr, self.len)?;
            if self.avoid >> (nr / LINE) & 1 == 0 {
                return Some(nr);
            }
            nr = (nr / LINE + 1) * LINE;
        }
    }

    /// The first free run of `want` bits from `from` on, else the longest.
    fn best(&self, from: u32, want: u32) -> Option<(u32, u32)> {
        let mut best: Option<(u32, u32)> = None;
        let mut nr = from;
        while let Some(start) = self.next_free(nr) {
            let run = self.free_from(start, want);
            if best.is_none_or(|(_, len)| run > len) {
                best = Some((start, run));
            }
            if run >= want {
                break;
            }
            nr = start + run.max(1);
        }
        best
    }

    /// The same where the run starts `residue` blocks into a free cluster of `cluster` blocks.
    fn best_clustered(
        &self,
        from: u32,
        want: u32,
        cluster: u32,
        residue: u32,
    ) -> Option<(u32, u32)> {
        let mut best: Option<(u32, u32)> = None;
        let mut nr = from;
        while let Some(free) = self.next_free(nr) {
            let aligned = (self.first + free).next_multiple_of(cluster) - self.first;
            let run = self.free_from(aligned, want.saturating_add(residue).max(cluster));
            if run >= cluster {
                let len = (run - residue).min(want);
                if best.is_none_or(|(_, old)| len > old) {
                    best = Some((aligned + residue, len));
                }
                if len >= want {
                    break;
                }
            }
            nr = aligned + run.max(1);
        }
        best
    }

    /// A free run of `huge` bits whose blocks are aligned, from `from` on and then from the start.
    fn aligned(&self, from: u32, huge: u32, phase: u32) -> Option<u32> {
        let first = (self.first + phase).next_multiple_of(huge) - phase - self.first;
        let all = || (first..self.len.saturating_sub(huge - 1)).step_by(huge as usize);
        let free = |&nr: &u32| self.free_from(nr, huge) == huge;
        all()
            .filter(|&nr| nr >= from)
            .find(free)
            .or_else(|| all().filter(|&nr| nr < from).find(free))
    }
}

impl Volume {
    /// Takes blocks: bits set and flushed, durable with the next fence.
    ///
    /// # Errors
    /// `NoSpace`: nothing has changed.
    pub(crate) fn take(&self, want: Want, windows: &mut Windows) -> Result<Fresh> {
        let spendable = u32::try_from(self.spendable(want.privileged)).unwrap_or(u32::MAX);
        let want = Want {
            len: want.len.min(spendable),
            ..want
        };
        if want.len == 0 {
            return Err(Error::NoSpace);
        }
        let run = match want.used_for {
            Use::Table => self.take_table(want, windows),
            Use::Data(at) => self.take_data(want, at, windows),
        };
        let run = match run {
            Some(run) => run,
            None => self.take_any(want).ok_or(Error::NoSpace)?,
        };
        Ok(Fresh {
            run,
            block_bits: self.geometry().block_bits(),
            brand: self.brand(),
        })
    }

    /// Takes one block for the caller's own use (a directory or attribute block that he attaches himself): bit set and
    /// flushed, not fenced; contents unknown.
    ///
    /// # Errors
    /// `NoSpace`: nothing has changed.
    pub fn allocate_block(&self, goal: Option<FsBlock>, privileged: bool) -> Result<Fresh> {
        let group = goal.map_or(GroupNr::FIRST, |goal| self.geometry().group_of_block(goal));
        self.allocate_one(group, goal, privileged)
    }

    /// The same anywhere in `group`, or as near as there is one: for who has no block in mind that could be free.
    ///
    /// # Errors
    /// `NoSpace`: nothing has changed.
    pub fn allocate_block_in(&self, group: GroupNr, privileged: bool) -> Result<Fresh> {
        self.allocate_one(group, None, privileged)
    }

    fn allocate_one(
        &self,
        group: GroupNr,
        goal: Option<FsBlock>,
        privileged: bool,
    ) -> Result<Fresh> {
        let want = Want {
            group,
            goal,
            joins: false,
            len: 1,
            used_for: Use::Data(0),
            privileged,
        };
        self.take(want, &mut Windows::default())
    }

    /// Takes one page-aligned cluster: as many blocks as make a page (1 if a block is a page or larger). For a page
    /// whose blocks are to be moved together (`faults.md` 6.6).
    ///
    /// # Errors
    /// `NoSpace`: no such cluster is free; nothing has changed.
    pub fn allocate_cluster(&self, near: Option<FsBlock>, privileged: bool) -> Result<Fresh> {
        let cluster = self.cluster();
        if self.spendable(privileged) < u64::from(cluster) {
            return Err(Error::NoSpace);
        }
        let first = near.map_or(GroupNr::FIRST, |near| self.geometry().group_of_block(near));
        // Once around reservations, once over them.
        for polite in [true, false] {
            for group in self.groups_from(first) {
                let run = self.in_group(group, 0, polite, |search| {
                    search.best_clustered(0, cluster, cluster, 0)
                });
                if let Some(run) = run {
                    return Ok(Fresh {
                        run,
                        block_bits: self.geometry().block_bits(),
                        brand: self.brand(),
                    });
                }
            }
        }
        Err(Error::NoSpace)
    }
}

impl State {
    /// Blocks in a page, at least 1.
    pub(crate) fn cluster(&self) -> u32 {
        (PAGE >> self.geometry().block_bits()).max(1)
    }

    /// Blocks in 2 MiB, and how many blocks past such a boundary block 0 lies; `None` if no block is aligned to 2 MiB.
    fn huge(&self) -> Option<(u32, u32)> {
        let bits = self.geometry().block_bits();
        // Without huge entries the placement does no harm.
        let phase = self.pmem().huge_phase().unwrap_or(0) * PAGE;
        phase
            .is_multiple_of(self.geometry().block_size())
            .then_some((HUGE >> bits, phase >> bits))
    }

    fn groups_from(&self, first: GroupNr) -> impl Iterator<Item = GroupNr> + use<> {
        crate::inodes::around(self.geometry(), first)
    }

    fn take_table(&self, want: Want, windows: &mut Windows) -> Option<Run> {
        let cluster = self.cluster();
        let goal = windows.table_goal.take().or(want.goal);
        let run = goal
            .and_then(|goal| self.take_at(goal, 1, 1, 0, |run| run))
            .or_else(|| self.take_packed(want, if cluster > 1 { Some(0) } else { None }))?;
        // The next indirect block fills this cluster up, so that it does not break another one.
        let next = run.end();
        windows.table_goal = (next % cluster != 0)
            .then(|| self.geometry().fs_block(next).ok())
            .flatten();
        Some(run)
    }

    fn take_data(&self, want: Want, at: u32, windows: &mut Windows) -> Option<Run> {
        let bits = self.geometry().block_bits();
        let large = u64::from(at) << bits >= LARGE || u64::from(want.len) << bits >= LARGE;
        let cluster = self.cluster();
        let huge = self.huge().filter(|_| large);
        let chunk_start = huge.is_some_and(|(huge, _)| at.is_multiple_of(huge));
        if let Some(goal) = want.goal.filter(|_| !chunk_start) {
            // Whoever begins a page needs its whole cluster, and a goal in the middle of one cannot have it.
            let in_place = want.joins || goal.get() % cluster == 0 && at.is_multiple_of(cluster);
            let need = if want.joins { 1 } else { cluster };
            let own = windows.lines_in(self.geometry().group_of_block(goal));
            let limit =
                |run| huge.map_or(run, |huge| chunks_of(run, want.len, at, goal.get(), huge));
            if in_place && let Some(run) = self.take_at(goal, need, want.len, own, limit) {
                return Some(run);
            }
        }
        if let Some((huge, phase)) = huge
            && let Some(run) = self.take_in_window(want, at, huge, phase, windows)
        {
            return Some(run);
        }
        self.take_packed(want, (cluster > 1).then_some(at % cluster))
    }

    /// The block's own place in the 2 MiB that hold its chunk of the file.
    fn take_in_window(
        &self,
        want: Want,
        at: u32,
        huge: u32,
        phase: u32,
        windows: &mut Windows,
    ) -> Option<Run> {
        let (chunk, within) = (at / huge, at % huge);
        let window = match windows.for_chunk(chunk) {
            Some(window) => window,
            None => {
                let window = self.find_window(want, chunk, huge, phase, windows)?;
                windows.keep(self, window);
                window
            }
        };
        let target = self
            .geometry()
            .fs_block(window.base.checked_add(within)?)
            .ok()?;
        let limit = |run| chunks_of(run, want.len, at, target.get(), (huge, phase));
        self.take_at(target, 1, want.len, windows.lines_in(window.group), limit)
    }

    fn find_window(
        &self,
        want: Want,
        chunk: u32,
        huge: u32,
        phase: u32,
        windows: &Windows,
    ) -> Option<Window> {
        let geometry = self.geometry();
        let goal_group = want
            .goal
            .map_or(want.group, |goal| geometry.group_of_block(goal));
        let mut near = self.groups_from(goal_group).take(NEAR_GROUPS as usize);
        near.find_map(|group| {
            if self
                .groups
                .free_hint(self.pmem(), geometry, group, Kind::Blocks)
                < huge
            {
                return None;
            }
            let own = windows.lines_in(group);
            // Behind the goal, else away from the start of the group, where small files are packed.
            let from = match want.goal {
                Some(goal) if group == goal_group => geometry.locate_block(goal).1,
                _ => geometry.group_len(group) / 4,
            };
            let _guard = self.lock_group(group);
            let search = self.search(group, own, true)?;
            let nr = search.aligned(from, huge, phase)?;
            let last = nr + huge - 1;
            let lines = (u128::MAX >> (127 - last / LINE)) & (u128::MAX << (nr / LINE));
            Some(Window {
                chunk,
                base: search.first + nr,
                group,
                lines,
            })
        })
    }

    /// First fit, near the inode. `residue` is the place in a page cluster that data of a small-block file needs.
    fn take_packed(&self, want: Want, residue: Option<u32>) -> Option<Run> {
        let cluster = self.cluster();
        let look = |search: &Search<'_>| {
            let blocks = self.groups.hint(search.group, Kind::Blocks);
            let from = blocks.load(Ordering::Relaxed);
            let Some(residue) = residue else {
                let hit = search.best(from, want.len)?;
                if search.avoid == 0 && want.len == 1 {
                    // Whatever lies before it is in use, by whom ever.
                    blocks.store(hit.0, Ordering::Relaxed);
                }
                return Some(hit);
            };
            // Small files leave clusters behind that are free in part: not to be looked at again by each of them.
            let clusters = self.groups.cluster_hint(search.group);
            let from = from.max(clusters.load(Ordering::Relaxed));
            let hit = search.best_clustered(from, want.len, cluster, residue)?;
            if search.avoid == 0 && want.len <= cluster - residue {
                // The first free one was good enough, and no reservation hid another.
                clusters.store(hit.0, Ordering::Relaxed);
            }
            Some(hit)
        };
        let good = want.len.min(GOOD_RUN);
        let mut best: Option<(GroupNr, u32)> = None;
        for group in self.groups_from(want.group).take(NEAR_GROUPS as usize) {
            if self
                .groups
                .free_hint(self.pmem(), self.geometry(), group, Kind::Blocks)
                == 0
            {
                continue;
            }
            let mut found = 0;
            let run = self.in_group(group, 0, true, |search| {
                let hit = look(search)?;
                found = hit.1;
                (hit.1 >= good).then_some(hit)
            });
            if run.is_some() {
                return run;
            }
            if found > best.map_or(0, |(_, len)| len) {
                best = Some((group, found));
            }
        }
        let (group, _) = best?;
        self.in_group(group, 0, true, look)
    }

    /// Anything that is free, anywhere, reserved by somebody or not.
    fn take_any(&self, want: Want) -> Option<Run> {
        self.groups_from(want.group).find_map(|group| {
            self.in_group(group, u128::MAX, false, |search| search.best(0, want.len))
        })
    }

    /// The very block, and what follows it, as far as `limit` allows, if at least `need` blocks are free there.
    fn take_at(
        &self,
        block: FsBlock,
        need: u32,
        len: u32,
        own: u128,
        limit: impl FnOnce(u32) -> u32,
    ) -> Option<Run> {
        let (group, nr) = self.geometry().locate_block(block);
        self.in_group(group, own, true, |search| {
            let run = search.free_from(nr, len.max(need));
            (run >= need).then(|| (nr, limit(run.min(len))))
        })
    }

    fn search(&self, group: GroupNr, own: u128, polite: bool) -> Option<Search<'_>> {
        self.count_group(group).ok()?;
        let bitmap = self
            .groups
            .bitmap(self.pmem(), self.geometry(), group, Kind::Blocks)
            .ok()?;
        let avoid = if polite {
            self.groups.reserved_lines(group) & !own
        } else {
            0
        };
        let all = self.geometry().group_run(group);
        Some(Search {
            bitmap,
            group,
            first: all.start.get(),
            len: all.len,
            avoid,
        })
    }

    /// Looks in one group under its lock and takes what `look` finds. A damaged group has nothing.
    fn in_group(
        &self,
        group: GroupNr,
        own: u128,
        polite: bool,
        look: impl FnOnce(&Search<'_>) -> Option<(u32, u32)>,
    ) -> Option<Run> {
        let _guard = self.lock_group(group);
        let search = self.search(group, own, polite)?;
        if self.groups.known(group, Kind::Blocks) == Some(0) {
            return None;
        }
        let (nr, len) = look(&search)?;
        let set = search.bitmap.set(nr, len);
        self.adjust(group, Kind::Blocks, -set.cast_signed());
        let hint = self.groups.hint(group, Kind::Blocks);
        if hint.load(Ordering::Relaxed) == nr {
            hint.store(nr + len, Ordering::Relaxed);
        }
        self.geometry().fs_run(search.first + nr, len).ok()
    }
}

/// How much of a free run a file should take at file block `at`, so that the 2 MiB after these can be aligned again:
/// not past the end of its 2 MiB where the run is out of step with them, and whole ones only where the run ends early.
fn chunks_of(run: u32, wanted: u32, at: u32, block: u32, (huge, phase): (u32, u32)) -> u32 {
    let first = huge - at % huge;
    if run <= first {
        return run;
    }
    let in_step = (block % huge + phase) % huge == at % huge;
    match in_step {
        false => first,
        true if run == wanted => run,
        true => run - (run - first) % huge,
    }
}
