//! The orphan list: inodes that a crash must not leave as they are.
//!
//! A member is either dead but still open (its blocks are freed at the last close, or at the next mount), or live and being
//! truncated (the truncation is completed at the next mount). The list hangs on `s_last_orphan`; a member's deletion time
//! is the number of the next one.
//!
//! New members go to the tail and only the tail is taken off, unlike in ext4: an inode with a small deletion time that is
//! not on the list makes e2fsck ask a human, and both a push at the head and a removal from the middle pass through such a
//! state. A member that is finished but not the tail stays listed, empty and dead, until it is.
//!
//! # Locking
//! The lock has rank ORPHAN and is held for a push or a pop only. A truncation owns the tail from its push to its pop;
//! whoever wants to push meanwhile waits, holding whatever it holds: a truncation in that stretch takes nothing below
//! ORPHAN any more.

use alloc::vec::Vec;
use core::fmt;

use ext2dax_format::{CorruptKind, Error, Geometry, Ino, RawInode, RawSuperblock, Result};
use ext2dax_getblock::Volume;
use ext2dax_pmem::{Off, Pmem, field};
use ext2dax_sync::{Condvar, Mutex, MutexGuard, rank};
use hashbrown::{HashMap, HashSet};
use zerocopy::little_endian::U32;

use crate::state::SUPERBLOCK;

/// The list of one mounted file system.
pub(crate) struct OrphanList {
    volume: Volume,
    members: Mutex<Members>,
    tail_free: Condvar,
}

#[derive(Debug, Default)]
struct Members {
    /// In the order of the list.
    list: Vec<Member>,
    /// Where each member stands in `list`. Positions never change: only the end of the list moves.
    position: HashMap<u32, usize>,
    /// The tail is being truncated; nobody else may push.
    truncating: bool,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    ino: Ino,
    /// The word that leads on to the next member: its deletion time.
    link: Off<U32>,
    /// It has names and is being truncated; else it is dead.
    live: bool,
    /// What was to be done is done; it waits to become the tail.
    finished: bool,
}

/// A truncated inode's place at the tail of the list. Must be given back to [`OrphanList::end`]; dropped, it blocks the
/// list, and the next mount completes the truncation.
#[derive(Debug)]
#[must_use]
pub(crate) struct Listing(Ino);

/// Inodes that left the list and are dead: they get a deletion time, and their numbers may be used again.
pub(crate) type Released = Vec<Ino>;

impl Members {
    /// The word that a new member's number goes to: the head of the list, or the last member's deletion time.
    fn tail(&self) -> Off<U32> {
        self.list
            .last()
            .map_or(field!(SUPERBLOCK, RawSuperblock, s_last_orphan), |member| {
                member.link
            })
    }

    fn push(&mut self, member: Member) {
        self.position.insert(member.ino.get(), self.list.len());
        self.list.push(member);
    }
}

impl fmt::Debug for OrphanList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrphanList").finish_non_exhaustive()
    }
}

impl OrphanList {
    pub(crate) fn new(volume: Volume) -> Self {
        Self {
            volume,
            members: Mutex::new(rank::ORPHAN, Members::default()),
            tail_free: Condvar::new(),
        }
    }

    fn pmem(&self) -> &Pmem {
        self.volume.pmem()
    }

    fn member(&self, ino: Ino, live: bool) -> Result<Member> {
        let link = field!(self.volume.inode_offset(ino)?, RawInode, i_dtime);
        Ok(Member {
            ino,
            link,
            live,
            finished: false,
        })
    }

    /// Waits for the tail.
    fn lock_tail(&self) -> MutexGuard<'_, Members> {
        let mut members = self.members.lock();
        while members.truncating {
            members = self.tail_free.wait(members);
        }
        members
    }

    fn push_locked(&self, members: &mut Members, member: Member) {
        // PUBLISH: the inode is listed. Before: as it was. After: listed; as long as it is live and nothing else has
        // changed, processing the list changes nothing. Its own deletion time is 0: the end of the list.
        self.pmem()
            .publish(members.tail(), U32::new(member.ino.get()));
        members.push(member);
    }

    /// Lists a live inode that is about to be truncated, and keeps the tail until [`OrphanList::end`]. Durable on
    /// return. Waits while another truncation has the tail.
    ///
    /// # Errors
    /// `Corrupt` if the inode's group is damaged; nothing has changed.
    pub(crate) fn begin(&self, ino: Ino) -> Result<Listing> {
        let member = self.member(ino, true)?;
        let mut members = self.lock_tail();
        self.push_locked(&mut members, member);
        members.truncating = true;
        Ok(Listing(ino))
    }

    /// Takes a truncated inode off the list; durable on return. The caller has made its blocks and size durable.
    pub(crate) fn end(&self, listing: Listing) -> Released {
        let mut members = self.members.lock();
        let released = self.finish(&mut members, listing.0);
        members.truncating = false;
        drop(members);
        self.tail_free.notify_all();
        released
    }

    /// Lists an inode that is about to lose its last name while it is open. Its deletion time is 0 and stays so. Durable
    /// on return.
    ///
    /// # Errors
    /// `Corrupt` if the inode's group is damaged; nothing has changed.
    pub(crate) fn push(&self, ino: Ino) -> Result<()> {
        let member = self.member(ino, false)?;
        self.push_locked(&mut self.lock_tail(), member);
        Ok(())
    }

    /// A member is finished: dead, it has given back what it had; live, found at mount, it is truncated. Returns the dead
    /// members that are off the list now, durably: none if this one is not the tail, more than one if it was what others
    /// waited for.
    pub(crate) fn remove(&self, ino: Ino) -> Released {
        self.finish(&mut self.members.lock(), ino)
    }

    fn finish(&self, members: &mut Members, ino: Ino) -> Released {
        if let Some(&position) = members.position.get(&ino.get()) {
            members.list[position].finished = true;
        }
        let mut released = Released::new();
        while let Some(tail) = members.list.pop_if(|tail| tail.finished) {
            members.position.remove(&tail.ino.get());
            // PUBLISH: the tail is off the list. Before: listed, empty or truncated. After: not listed, its deletion time
            // 0.
            self.pmem().publish(members.tail(), U32::new(0));
            if !tail.live {
                released.push(tail.ino);
            }
        }
        released
    }

    /// The inodes on the list as it stands on the medium.
    ///
    /// # Errors
    /// As [`OrphanList::load`].
    pub(crate) fn on_medium(&self, geometry: &Geometry) -> Result<HashSet<u32>> {
        let list = self.load(geometry)?;
        *self.members.lock() = Members::default();
        Ok(list.into_iter().map(Ino::get).collect())
    }

    /// Takes over the list that stands on the medium. Returns the members from the tail on, which is the order in which
    /// they can be taken off.
    ///
    /// # Errors
    /// `Corrupt(OrphanList)` if the list loops or leads to a number that no file has; nothing has changed.
    pub(crate) fn load(&self, geometry: &Geometry) -> Result<Vec<Ino>> {
        let mut members = self.members.lock();
        let mut seen = HashSet::new();
        let mut previous = 0;
        loop {
            let next = self.pmem().load(members.tail()).get();
            if next == 0 {
                break;
            }
            let wrong = Error::Corrupt(CorruptKind::OrphanList {
                inode: previous,
                next,
            });
            let ino = geometry
                .named_ino(next)
                .filter(|&ino| ino != Ino::ROOT)
                .ok_or(wrong)?;
            if !seen.insert(next) {
                return Err(wrong);
            }
            let inode = self.volume.inode_offset(ino)?;
            let live = self
                .pmem()
                .load(field!(inode, RawInode, i_links_count))
                .get()
                > 0;
            members.push(self.member(ino, live)?);
            previous = next;
        }
        Ok(members.list.iter().rev().map(|member| member.ino).collect())
    }
}
