//! The orphan list: inodes that a crash must not leave as they are.
//!
//! A member is either dead but still open (its blocks are freed at the last close, or at the next mount), or live and being
//! truncated (the truncation is completed at the next mount). The list hangs on `s_last_orphan`; a member's deletion time
//! is the number of the next one.
//!
//! New members go to the tail and only the tail is taken off, unlike in ext4: an inode with a small deletion time that is
//! not on the list makes e2fsck ask a human, and both a push at the head and a removal from the middle pass through such a
//! state. A member that is finished but not the tail stays listed, empty and dead, until it is. One that must not stay, because
//! it lives and has attributes, is taken out by taking everything off that lies behind it, and listing that again.
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
use ext2dax_sync::atomic::{AtomicU32, Ordering};
use ext2dax_sync::{Condvar, Mutex, MutexGuard, rank};
use hashbrown::{HashMap, HashSet};
use zerocopy::little_endian::U32;

use crate::state::SUPERBLOCK;

/// The list of one mounted file system.
pub(crate) struct OrphanList {
    volume: Volume,
    members: Mutex<Members>,
    tail_free: Condvar,
    /// Members that got a name while they were on the list: rare enough that nobody need look for one.
    revived: AtomicU32,
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
    /// It got a name while it was on the list.
    revived: bool,
}

/// A truncated inode's place at the tail of the list. Must be given back to [`OrphanList::end`]; dropped, it blocks the
/// list, and the next mount completes the truncation.
#[derive(Debug)]
#[must_use]
pub(crate) struct Listing {
    ino: Ino,
    /// It was on the list before, wherever, and keeps the tail from nobody.
    member: bool,
}

/// What became of an inode that got a name while it was on the list.
#[derive(Debug)]
pub(crate) struct Revived {
    /// It is on the list still, since it is not the tail; until it leaves, its deletion time is the list's.
    pub(crate) is_listed: bool,
    /// Others that left with it.
    pub(crate) released: Released,
}

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

    fn find(&mut self, ino: Ino) -> Option<&mut Member> {
        let position = *self.position.get(&ino.get())?;
        self.list.get_mut(position)
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
            revived: AtomicU32::new(0),
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
            revived: false,
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
        if let Some(old) = members.find(ino) {
            // It got its name on the list. Nothing takes it off before the truncation is done.
            old.finished = false;
            return Ok(Listing { ino, member: true });
        }
        self.push_locked(&mut members, member);
        members.truncating = true;
        Ok(Listing { ino, member: false })
    }

    /// Takes a truncated inode off the list; durable on return. The caller has made its blocks and size durable.
    pub(crate) fn end(&self, listing: Listing) -> Released {
        let mut members = self.members.lock();
        let released = self.finish(&mut members, listing.ino);
        members.truncating &= listing.member;
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
        let mut members = self.lock_tail();
        match members.find(ino) {
            // It got a name while it was on the list, and loses it again.
            Some(old) => {
                *old = Member {
                    finished: false,
                    live: false,
                    ..*old
                };
                self.pmem().fence();
            }
            None => self.push_locked(&mut members, member),
        }
        Ok(())
    }

    /// Whether a file with a name is on the list because it got the name there. The caller holds its lock.
    pub(crate) fn has_revived(&self, ino: Ino) -> bool {
        self.revived.load(Ordering::Acquire) > 0 && self.contains(ino)
    }

    /// Whether an inode is on the list.
    pub(crate) fn contains(&self, ino: Ino) -> bool {
        self.members.lock().position.contains_key(&ino.get())
    }

    /// A member gets a name, and leaves the list as soon as it is the tail. What was flushed before is durable on return.
    pub(crate) fn revive(&self, ino: Ino) -> Revived {
        let mut members = self.lock_tail();
        let Some(member) = members.find(ino) else {
            drop(members);
            self.pmem().fence();
            return Revived {
                is_listed: false,
                released: Released::new(),
            };
        };
        member.live = true;
        member.revived = true;
        self.revived.fetch_add(1, Ordering::AcqRel);
        let released = self.finish(&mut members, ino);
        let is_listed = members.find(ino).is_some();
        if is_listed {
            self.pmem().fence();
        }
        Revived {
            is_listed,
            released,
        }
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
        self.take_finished(members)
    }

    /// Takes finished members off as long as the tail is one.
    fn take_finished(&self, members: &mut Members) -> Released {
        let mut released = Released::new();
        while let Some(tail) = members.list.pop_if(|tail| tail.finished) {
            self.taken(members, tail);
            if !tail.live {
                released.push(tail.ino);
            }
        }
        released
    }

    /// A member that was the tail leaves the list on the medium, too.
    fn taken(&self, members: &mut Members, tail: Member) {
        members.position.remove(&tail.ino.get());
        if tail.revived {
            self.revived.fetch_sub(1, Ordering::AcqRel);
        }
        // PUBLISH: the tail is off the list. Before: listed, empty or truncated, or about to be listed again. After: not
        // listed, its deletion time 0.
        self.pmem().publish(members.tail(), U32::new(0));
    }

    /// Takes a member off the list wherever it stands: one that is about to live, or lives, with attributes, which a
    /// checker would take from a listed file. The members behind it leave and come back; a crash in between leaks what is
    /// dead of them. What was flushed before is durable on return.
    pub(crate) fn take_out(&self, ino: Ino) -> Released {
        let mut members = self.lock_tail();
        if !members.position.contains_key(&ino.get()) {
            drop(members);
            self.pmem().fence();
            return Released::new();
        }
        let mut behind = Vec::new();
        while let Some(tail) = members.list.pop() {
            self.taken(&mut members, tail);
            if tail.ino == ino {
                break;
            }
            behind.push(tail);
        }
        let mut released = self.take_finished(&mut members);
        for member in behind.into_iter().rev() {
            if !member.finished {
                if member.revived {
                    self.revived.fetch_add(1, Ordering::AcqRel);
                }
                self.push_locked(&mut members, member);
            } else if !member.live {
                released.push(member.ino);
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
