//! Inode numbers: where new inodes go, and when a number comes back.

use core::sync::atomic::Ordering;

use ext2dax_format::{CorruptKind, Error, Geometry, GroupNr, Ino, RawInode, Result};
use ext2dax_pmem::{Off, field};

use crate::groups::Kind;
use crate::volume::{State, Volume};

/// Groups that are compared for a new top-level directory: enough to spread, and bounded on the largest images.
const COMPARED_GROUPS: usize = 1024;

/// Where a new inode should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// A directory: near its parent while that group is not crowded; top-level ones are spread over the image.
    Directory {
        /// The directory that will hold the name.
        parent: Ino,
        /// The parent is the root, or carries the `TOPDIR` flag.
        top: bool,
    },
    /// Anything else: in its directory's group, so that a directory's files lie together.
    Near {
        /// The directory that will hold the name.
        parent: Ino,
    },
}

/// An inode number taken for a new inode: its bit is set and flushed, the inode itself is untouched. Dropping the token
/// leaks the number until the next fsck; [`Volume::release`] gives it back.
#[must_use = "dropping it leaks the inode number"]
#[derive(Debug)]
pub struct Tentative {
    ino: Ino,
    at: Off<RawInode>,
    generation: u32,
    directory: bool,
}

impl Tentative {
    /// The number.
    #[must_use]
    pub const fn ino(&self) -> Ino {
        self.ino
    }

    /// Where the inode stands.
    #[must_use]
    pub const fn offset(&self) -> Off<RawInode> {
        self.at
    }

    /// The generation to give it: not the one of the number's last owner, and not 0.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Hands the number over to the inode that now has a name.
    pub fn keep(self) -> Ino {
        self.ino
    }
}

impl Volume {
    /// Takes an inode number: bit set and flushed, durable with the next fence.
    ///
    /// # Errors
    /// [`Error::NoInodes`]; `Corrupt` if the number's group is damaged, or if the inode is alive although the bitmap
    /// called it free: its bit is set then, and nothing else has changed.
    pub fn allocate_inode(&self, placement: Placement) -> Result<Tentative> {
        let (first, directory) = match placement {
            Placement::Directory { parent, top } => (self.group_for_directory(parent, top), true),
            Placement::Near { parent } => (self.group_for_file(parent), false),
        };
        let ino = self
            .first_free_inode(first, directory)
            .ok_or(Error::NoInodes)?;
        let at = self.inode_offset(ino)?;
        // The inode is written next, and its neighbour is the one that is most likely taken next.
        let inode_size = self.geometry().inode_size() as usize;
        self.pmem().prefetch(at.at(), 2 * inode_size.min(256));
        if self.pmem().load(field!(at, RawInode, i_links_count)).get() != 0 {
            return Err(CorruptKind::InodeMarkedFree { inode: ino.get() }.into());
        }
        let last = self.pmem().load(field!(at, RawInode, i_generation)).get();
        Ok(Tentative {
            ino,
            at,
            generation: last.wrapping_add(1).max(1),
            directory,
        })
    }

    /// Gives a number back that was never named.
    pub fn release(&self, tentative: Tentative) {
        self.free_inode(tentative.ino, tentative.directory);
    }
}

impl State {
    /// Clears an inode's bit and flushes it without waiting. The inode is dead and nameless, durably; a clear that a
    /// crash loses is a leak.
    pub fn free_inode(&self, ino: Ino, directory: bool) {
        let (group, index) = self.geometry().locate_ino(ino);
        let _guard = self.lock_group(group);
        if self.count_group(group).is_err() {
            return;
        }
        let Ok(bitmap) = self
            .groups
            .bitmap(self.pmem(), self.geometry(), group, Kind::Inodes)
        else {
            return;
        };
        let cleared = bitmap.clear(index, 1);
        self.adjust(group, Kind::Inodes, cleared.cast_signed());
        if directory && cleared > 0 {
            self.groups.adjust_dirs(group, -1);
        }
        self.groups.lower_inode_hint(group, index);
    }

    /// Whether the bitmap says that an inode is in use.
    ///
    /// # Errors
    /// `Corrupt`: the group's descriptor is damaged.
    pub fn inode_in_use(&self, ino: Ino) -> Result<bool> {
        let (group, index) = self.geometry().locate_ino(ino);
        let bitmap = self
            .groups
            .bitmap(self.pmem(), self.geometry(), group, Kind::Inodes)?;
        Ok(bitmap.test(index))
    }

    fn first_free_inode(&self, first: GroupNr, directory: bool) -> Option<Ino> {
        // Once where the counters promise something, once everywhere: after a crash they may be wrong.
        let promising = |&group: &GroupNr| self.hint(group, Kind::Inodes) > 0;
        let around = || around(self.geometry(), first);
        around()
            .filter(promising)
            .chain(around())
            .find_map(|group| self.take_inode(group, directory))
    }

    fn take_inode(&self, group: GroupNr, directory: bool) -> Option<Ino> {
        let _guard = self.lock_group(group);
        self.count_group(group).ok()?;
        if self.groups.known(group, Kind::Inodes) == Some(0) {
            return None;
        }
        let geometry = self.geometry();
        let bitmap = self
            .groups
            .bitmap(self.pmem(), geometry, group, Kind::Inodes)
            .ok()?;
        let hint = self.groups.hint(group, Kind::Inodes);
        // Reserved inodes have their bits set; a bitmap that says otherwise must not hand them out.
        let reserved = if group == GroupNr::FIRST {
            geometry.first_ino() - 1
        } else {
            0
        };
        let from = hint.load(Ordering::Relaxed).max(reserved);
        let Some(lowest) = bitmap.find_clear(from, geometry.inodes_per_group()) else {
            hint.store(geometry.inodes_per_group(), Ordering::Relaxed);
            return None;
        };
        let index = self.desks.choose(&bitmap, group, lowest);
        bitmap.set(index, 1);
        hint.store(lowest + u32::from(index == lowest), Ordering::Relaxed);
        self.adjust(group, Kind::Inodes, -1);
        if directory {
            self.groups.adjust_dirs(group, 1);
        }
        geometry.ino_in_group(group, index)
    }

    fn hint(&self, group: GroupNr, kind: Kind) -> u32 {
        self.groups
            .free_hint(self.pmem(), self.geometry(), group, kind)
    }

    fn dirs(&self, group: GroupNr) -> u32 {
        self.groups.used_dirs(self.pmem(), self.geometry(), group)
    }

    /// The parent's group, else one found by doubling steps, else the next with a free inode.
    fn group_for_file(&self, parent: Ino) -> GroupNr {
        let geometry = self.geometry();
        let (home, _) = geometry.locate_ino(parent);
        let roomy = |group: &GroupNr| {
            self.hint(*group, Kind::Inodes) > 0 && self.hint(*group, Kind::Blocks) > 0
        };
        if roomy(&home) {
            return home;
        }
        // Directories of one full group do not all spill into the same next one.
        let groups = geometry.groups();
        let start = (u64::from(home.get()) + u64::from(parent.get())) % u64::from(groups);
        let steps = core::iter::successors(Some(1_u32), |step| step.checked_mul(2))
            .take_while(|&step| step < groups);
        let jump = steps.scan(start, |at, step| {
            *at = (*at + u64::from(step)) % u64::from(groups);
            u32::try_from(*at)
                .ok()
                .and_then(|nr| geometry.group(nr).ok())
        });
        jump.filter(roomy)
            .chain(around(geometry, home).filter(|&group| self.hint(group, Kind::Inodes) > 0))
            .next()
            .unwrap_or(home)
    }

    /// Orlov's rule, as Linux ext2 applies it: top-level directories go to the group with the fewest directories among
    /// those with more than average room; others stay near their parent as long as its group is not crowded.
    fn group_for_directory(&self, parent: Ino, top: bool) -> GroupNr {
        let geometry = self.geometry();
        let groups = u64::from(geometry.groups());
        let (home, _) = geometry.locate_ino(parent);
        let average = |total: u64| u32::try_from(total / groups).unwrap_or(u32::MAX);
        let (inodes, blocks) = (
            average(self.free_inodes_guess()),
            average(self.free_blocks_guess()),
        );
        let fallback = || {
            let enough = |&group: &GroupNr| self.hint(group, Kind::Inodes) >= inodes.max(1);
            around(geometry, home).find(enough).unwrap_or(home)
        };
        if top {
            // Any fixed rule that differs from call to call will do as a starting point.
            let free = self.exact(Kind::Inodes).unsigned_abs();
            let start = u32::try_from(free.wrapping_mul(0x9e37_79b9) % groups).unwrap_or(0);
            let start = geometry.group(start).unwrap_or(home);
            return around(geometry, start)
                .take(COMPARED_GROUPS)
                .filter(|&group| self.hint(group, Kind::Inodes) >= inodes.max(1))
                .filter(|&group| self.hint(group, Kind::Blocks) >= blocks)
                .min_by_key(|&group| self.dirs(group))
                .unwrap_or_else(fallback);
        }
        let used = u64::from(geometry.inodes_count()).saturating_sub(self.free_inodes_guess());
        let max_dirs = average(used)
            .saturating_add(geometry.inodes_per_group() / 16)
            .max(1);
        let min_inodes = inodes
            .saturating_sub(geometry.inodes_per_group() / 4)
            .max(1);
        let min_blocks = blocks.saturating_sub(geometry.blocks_per_group() / 4);
        around(geometry, home)
            .take(COMPARED_GROUPS)
            .find(|&group| {
                self.dirs(group) < max_dirs
                    && self.hint(group, Kind::Inodes) >= min_inodes
                    && self.hint(group, Kind::Blocks) >= min_blocks
            })
            .unwrap_or_else(fallback)
    }
}

/// All groups, from `first` on and around.
pub(crate) fn around(geometry: &Geometry, first: GroupNr) -> impl Iterator<Item = GroupNr> + use<> {
    let geometry = *geometry;
    let upper = geometry.all_groups().skip(first.index());
    upper.chain(geometry.all_groups().take(first.index()))
}
