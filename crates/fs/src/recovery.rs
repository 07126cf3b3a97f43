//! What a mount does about operations that the last one did not finish.
//!
//! Each left an intent. Whether its commit store is on the medium decides: if it is, the rest of the operation is done, else
//! what came before is undone, names before counts and counts before bits. What is done already is not done again, so a
//! crash in the middle of a recovery is just another crash, and the intent of an operation that had ended does nothing.
//! The work depends on the number of intents, not on the size of the image or of a directory.
//!
//! What stays: blocks and inodes that were taken in an epoch whose records are incomplete. They are leaked until a checker
//! has run, and so the image stays marked.

use alloc::sync::Arc;

use ext2dax_format::slot::{EntryPlace, Intent, Operation};
use ext2dax_format::{FileType, Ino, Result};
use ext2dax_pmem::Off;
use hashbrown::HashSet;
use zerocopy::little_endian::U32;

use crate::dir::{Spot, take_in};
use crate::inode::attr::{high_half, low_half, take_life};
use crate::inode::{Record, lifetime};
use crate::mount::Core;
use crate::xattr;

/// Completes or undoes one operation. Nobody else uses the mount yet; `listed` are the inodes on the orphan list.
///
/// # Errors
/// `Corrupt` if what the intent names is damaged.
pub(crate) fn recover(core: &Arc<Core>, listed: &HashSet<u32>, intent: &Intent) -> Result<()> {
    let recovery = Recovery {
        core,
        listed,
        intent,
    };
    match intent.operation {
        Operation::Create => recovery.create(),
        Operation::Link => recovery.link(),
        Operation::LinkFirst => recovery.link_first(),
        Operation::Unlink => recovery.unlink(),
        Operation::UnlinkOne => recovery.unlink_one(),
        Operation::Move => recovery.rename(),
        Operation::Replace => recovery.replace(),
        Operation::ReplaceOne => recovery.replace_one(),
        Operation::Exchange => recovery.exchange(),
        Operation::MoveDirectory => recovery.move_directory(),
        Operation::SwapDirectory => recovery.swap_directory(),
        Operation::ExchangeDirectory => recovery.exchange_directory(),
        Operation::Grow => recovery.grow(),
        Operation::Resize => recovery.resize(),
        Operation::Own => recovery.own(),
        Operation::Attributes => recovery.attributes(),
    }
}

struct Recovery<'a> {
    core: &'a Arc<Core>,
    listed: &'a HashSet<u32>,
    intent: &'a Intent,
}

/// An entry that an intent speaks of, if the directory is still there and an entry begins there.
struct Named(Option<Spot>);

impl Named {
    fn leads_to(&self, ino: u32) -> bool {
        self.0.is_some_and(|spot| spot.ino == ino)
    }
}

impl Recovery<'_> {
    fn fence(&self) {
        self.core.pmem.fence();
    }

    fn record(&self, ino: u32) -> Result<Record> {
        Record::new(self.core, self.core.geometry.ino(ino)?)
    }

    fn subject(&self) -> Result<Record> {
        self.record(self.intent.subject)
    }

    fn other(&self) -> Result<Record> {
        self.record(self.intent.other)
    }

    /// A directory that has not been removed since.
    fn directory(&self, ino: u32) -> Result<Option<Record>> {
        let record = self.record(ino)?;
        let lives = record.links() > 0 && record.file_type()? == FileType::Directory;
        Ok(lives.then_some(record))
    }

    fn entry(&self, directory: u32, place: EntryPlace) -> Result<Named> {
        let spot = match self.directory(directory)? {
            Some(record) => Spot::at(&record, place)?,
            None => None,
        };
        Ok(Named(spot))
    }

    fn from(&self) -> Result<Named> {
        self.entry(self.intent.from, self.intent.from_place)
    }

    fn to(&self) -> Result<Named> {
        self.entry(self.intent.to, self.intent.to_place)
    }

    fn erase(&self, entry: &Named) {
        if let Some(spot) = &entry.0 {
            spot.erase(&self.core.pmem);
        }
    }

    fn lead_to(&self, entry: &Named, ino: u32) {
        if let Some(spot) = &entry.0 {
            spot.lead_to(&self.core.pmem, ino);
        }
    }

    fn set_kind(entry: &Named, record: &Record) -> Result<()> {
        entry.0.map_or(Ok(()), |spot| spot.set_kind(record))
    }

    /// A count that the operation changed, and whatever else is not expected stays. Flushed.
    fn count(record: &Record, found: u16, right: u16) {
        if found != right && record.links() == found {
            record.put_links(right);
        }
    }

    /// Takes the extra one back that held a file while it had two names. Flushed.
    fn lower(record: &Record, links: u16) {
        Self::count(record, links.saturating_add(1), links);
    }

    /// A parent's count once a subdirectory has left, where it counts at all. Flushed.
    fn leave(&self, parent: u32, links: u16) -> Result<()> {
        if links > 2
            && let Some(record) = self.directory(parent)?
        {
            Self::count(&record, links, links - 1);
        }
        Ok(())
    }

    /// The death of a file that the operation ends. On the orphan list its deletion time is not its own. Flushed.
    fn end_life(&self, record: &Record) {
        if self.listed.contains(&record.ino().get()) {
            record.put_links(0);
        } else {
            take_life(record);
        }
    }

    /// Gives a dead, nameless inode back, unless the orphan list will. What it has is given back as well if it is certain
    /// that the inode is still the one that died: `whole`.
    fn release(&self, record: &Record, whole: bool) -> Result<()> {
        let ino = record.ino();
        if record.links() > 0 || self.listed.contains(&ino.get()) || is_reserved(self.core, ino) {
            return Ok(());
        }
        let mut directory = false;
        if whole {
            directory = record.file_type()? == FileType::Directory;
            lifetime::free_blocks(record)?;
            xattr::release(record)?;
        }
        self.core.volume.free_inode(ino, directory);
        Ok(())
    }

    /// Frees a block that the operation took and that nothing has ever led to.
    fn free_block(&self, number: u64) -> Result<()> {
        if let Ok(number @ 1..) = u32::try_from(number) {
            let block = self.core.geometry.fs_block(number)?;
            let volume = &self.core.volume;
            volume.free(volume.detach_attribute_block(block));
        }
        Ok(())
    }

    fn create(&self) -> Result<()> {
        let (subject, name) = (self.subject()?, self.to()?);
        let named = name.leads_to(self.intent.subject);
        if named && subject.links() > 0 {
            self.finish_birth(&subject);
            return Ok(());
        }
        if subject.links() > 0 {
            // Life and name of an empty file share an epoch, of which only the life has come.
            if subject.links() > 1 || subject.size() > 0 || subject.sectors() > 0 {
                return Ok(());
            }
            take_life(&subject);
            self.fence();
            return self.release(&subject, true);
        }
        if named {
            self.erase(&name);
        }
        // A directory's name and its parent's count share an epoch.
        let mut whole = named;
        if self.intent.to_links > 1
            && let Some(parent) = self.directory(self.intent.to)?
        {
            whole |= parent.links() == self.intent.to_links + 1;
            Self::lower(&parent, self.intent.to_links);
        }
        self.fence();
        self.release(&subject, whole)?;
        if !whole {
            self.free_block(self.intent.value)?;
            self.free_block(self.intent.second)?;
        }
        Ok(())
    }

    /// Links first, then the deletion time: the second may be missing.
    fn finish_birth(&self, record: &Record) {
        let listed = self.listed.contains(&record.ino().get());
        if !listed && record.dtime() >= self.core.geometry.inodes_count() {
            record.set_dtime(0);
            record.flush_line0();
            self.fence();
        }
    }

    fn link(&self) -> Result<()> {
        if !self.to()?.leads_to(self.intent.subject) {
            Self::lower(&self.subject()?, self.intent.subject_links);
            self.fence();
        }
        Ok(())
    }

    fn link_first(&self) -> Result<()> {
        let (subject, name) = (self.subject()?, self.to()?);
        if subject.links() > 0 {
            self.finish_birth(&subject);
            return Ok(());
        }
        if name.leads_to(self.intent.subject) {
            self.erase(&name);
        }
        self.fence();
        // Its first epoch was durable long before.
        self.release(&subject, true)
    }

    fn unlink(&self) -> Result<()> {
        let subject = self.subject()?;
        if subject.links() > 0 {
            return Ok(());
        }
        let name = self.from()?;
        let named = name.leads_to(self.intent.subject);
        if named {
            self.erase(&name);
        }
        self.leave(self.intent.from, self.intent.from_links)?;
        self.fence();
        self.release(&subject, named)
    }

    fn unlink_one(&self) -> Result<()> {
        if !self.from()?.leads_to(self.intent.subject) {
            let links = self.intent.subject_links;
            Self::count(&self.subject()?, links, links - 1);
            self.fence();
        }
        Ok(())
    }

    fn rename(&self) -> Result<()> {
        let (subject, old) = (self.subject()?, self.from()?);
        if self.to()?.leads_to(self.intent.subject) && old.leads_to(self.intent.subject) {
            self.erase(&old);
            self.fence();
        }
        Self::lower(&subject, self.intent.subject_links);
        self.fence();
        Ok(())
    }

    /// Where a temporary link lies.
    fn temporary(&self) -> Option<Off<U32>> {
        let at = self.intent.value;
        let inside = at.is_multiple_of(4) && at <= self.core.pmem.len().saturating_sub(12);
        inside.then(|| Off::new(at))
    }

    fn temporary_leads_to_other(&self) -> bool {
        let leads = |at: Off<U32>| self.core.pmem.load(at).get() == self.intent.other;
        self.intent.other != 0 && self.temporary().is_some_and(leads)
    }

    /// Takes the temporary link away, if it is this operation's. Flushed.
    fn clear_temporary(&self) {
        if let Some(at) = self.temporary().filter(|_| self.temporary_leads_to_other()) {
            // PUBLISH: the temporary name goes. Before: a second name of a file, or the only one of a dead inode. After: an
            // empty entry.
            self.core.pmem.store(at, U32::new(0));
            self.core.pmem.flush(at.at(), 4);
        }
    }

    fn replace(&self) -> Result<()> {
        let (subject, other) = (self.subject()?, self.other()?);
        let (old, new) = (self.from()?, self.to()?);
        let links = self.intent.subject_links;
        if !new.leads_to(self.intent.subject) {
            self.clear_temporary();
            if new.leads_to(self.intent.other) {
                Self::set_kind(&new, &other)?;
            }
            self.fence();
            Self::lower(&other, self.intent.other_links);
            Self::lower(&subject, links);
            self.fence();
            return Ok(());
        }
        Self::set_kind(&new, &subject)?;
        // The number may mean another file as soon as the temporary link is gone.
        let whole = self.temporary_leads_to_other();
        if whole && other.links() > 0 {
            self.end_life(&other);
        }
        if old.leads_to(self.intent.subject) {
            self.erase(&old);
        }
        self.fence();
        self.clear_temporary();
        Self::lower(&subject, links);
        self.fence();
        self.release(&other, whole)
    }

    fn replace_one(&self) -> Result<()> {
        let (subject, other) = (self.subject()?, self.other()?);
        let (old, new) = (self.from()?, self.to()?);
        let links = self.intent.other_links;
        if new.leads_to(self.intent.subject) {
            Self::set_kind(&new, &subject)?;
            Self::count(&other, links, links - 1);
            if old.leads_to(self.intent.subject) {
                self.erase(&old);
            }
        } else if new.leads_to(self.intent.other) {
            Self::set_kind(&new, &other)?;
        }
        self.fence();
        Self::lower(&subject, self.intent.subject_links);
        self.fence();
        Ok(())
    }

    fn exchange(&self) -> Result<()> {
        let (subject, other) = (self.subject()?, self.other()?);
        let (old, new) = (self.from()?, self.to()?);
        if new.leads_to(self.intent.subject) {
            if old.leads_to(self.intent.subject) {
                self.lead_to(&old, self.intent.other);
                self.fence();
            }
            Self::set_kind(&new, &subject)?;
            Self::set_kind(&old, &other)?;
        } else if new.leads_to(self.intent.other) {
            Self::set_kind(&new, &other)?;
        }
        self.clear_temporary();
        self.fence();
        Self::lower(&subject, self.intent.subject_links);
        Self::lower(&other, self.intent.other_links);
        self.fence();
        Ok(())
    }

    /// An empty directory that died to make room lives again: nothing of it has been given back. Flushed.
    fn revive(&self, record: &Record) {
        if record.links() > 0 {
            return;
        }
        record.set_links(self.intent.other_links);
        if !self.listed.contains(&record.ino().get()) {
            record.pmem().line_order();
            record.set_dtime(0);
        }
        record.flush_line0();
    }

    /// Lets `..` of a directory name its parent. Flushed.
    fn adopt(&self, child: &Record, parent: u32) -> Result<()> {
        if child.file_type()? == FileType::Directory
            && let Some(spot) = Spot::parent(child)?
            && spot.ino != parent
        {
            spot.lead_to(&self.core.pmem, parent);
        }
        Ok(())
    }

    fn move_directory(&self) -> Result<()> {
        let intent = self.intent;
        let subject = self.subject()?;
        let (old, new) = (self.from()?, self.to()?);
        let across = intent.from != intent.to;
        if !new.leads_to(intent.subject) {
            if intent.other != 0 && new.leads_to(intent.other) {
                self.revive(&self.other()?);
            }
            if across
                && intent.other == 0
                && let Some(parent) = self.directory(intent.to)?
            {
                Self::lower(&parent, intent.to_links);
            }
            self.fence();
            return Ok(());
        }
        if across
            && intent.other == 0
            && intent.to_links > 1
            && let Some(parent) = self.directory(intent.to)?
        {
            Self::count(&parent, intent.to_links, intent.to_links + 1);
        }
        if old.leads_to(intent.subject) {
            self.erase(&old);
        }
        self.fence();
        if across {
            self.adopt(&subject, intent.to)?;
            self.fence();
        }
        if across || intent.other != 0 {
            self.leave(intent.from, intent.from_links)?;
            self.fence();
        }
        self.release_other()
    }

    /// Gives the empty directory back that was replaced.
    fn release_other(&self) -> Result<()> {
        if self.intent.other == 0 {
            return Ok(());
        }
        self.release(&self.other()?, false)
    }

    fn swap_directory(&self) -> Result<()> {
        let intent = self.intent;
        if self.to()?.leads_to(intent.subject) {
            self.leave(intent.from, intent.from_links)?;
            self.fence();
            return self.release_other();
        }
        if !self.to()?.leads_to(intent.other) {
            return Ok(());
        }
        self.revive(&self.other()?);
        if let Some(parent) = self.directory(intent.from)? {
            Self::count(
                &parent,
                intent.from_links.saturating_sub(1),
                intent.from_links,
            );
        }
        self.fence();
        Ok(())
    }

    fn exchange_directory(&self) -> Result<()> {
        let intent = self.intent;
        let (subject, other) = (self.subject()?, self.other()?);
        let (old, new) = (self.from()?, self.to()?);
        let (one, two) = (intent.subject, intent.other);
        let ours = |entry: &Named| entry.leads_to(one) || entry.leads_to(two);
        if !ours(&old) || !ours(&new) {
            return Ok(());
        }
        let begun = new.leads_to(one) || old.leads_to(two);
        let (at_old, at_new) = if begun {
            (&other, &subject)
        } else {
            (&subject, &other)
        };
        for (entry, record) in [(&old, at_old), (&new, at_new)] {
            if !entry.leads_to(record.ino().get()) {
                self.lead_to(entry, record.ino().get());
            }
        }
        self.fence();
        Self::set_kind(&old, at_old)?;
        Self::set_kind(&new, at_new)?;
        if intent.from != intent.to {
            self.adopt(at_old, intent.from)?;
            self.adopt(at_new, intent.to)?;
            self.fence();
            let is_dir = |record: &Record| record.file_type() == Ok(FileType::Directory);
            let swaps = begun && is_dir(&subject) != is_dir(&other);
            let change = match (swaps, is_dir(&subject)) {
                (false, _) => 0,
                (true, true) => 1,
                (true, false) => -1,
            };
            self.settle_count(intent.to, intent.to_links, change)?;
            self.settle_count(intent.from, intent.from_links, -change)?;
        }
        self.fence();
        Ok(())
    }

    /// A parent's count, which was `links` and becomes that and `change`, whatever it is in between.
    fn settle_count(&self, parent: u32, links: u16, change: i16) -> Result<()> {
        let right = links.saturating_add_signed(change);
        let Some(record) = self.directory(parent)? else {
            return Ok(());
        };
        let found = record.links();
        if links > 1 && found != right && found.abs_diff(links) <= 1 {
            record.put_links(right);
        }
        Ok(())
    }

    fn grow(&self) -> Result<()> {
        match self.directory(self.intent.to)? {
            Some(directory) => take_in(&directory, self.intent.to_place.block),
            None => Ok(()),
        }
    }

    /// Across a multiple of 4 GiB, the larger of the two halves' mixtures comes first: undone while the file grows,
    /// completed while it shrinks.
    fn resize(&self) -> Result<()> {
        let subject = self.subject()?;
        let (from, to) = (self.intent.value, self.intent.second);
        let mixed = if to > from {
            u64::from(high_half(to)) << 32 | u64::from(low_half(from))
        } else {
            u64::from(high_half(from)) << 32 | u64::from(low_half(to))
        };
        if subject.size() == mixed && mixed != from && mixed != to {
            let right = if to > from { from } else { to };
            self.core
                .pmem
                .store(subject.size_high_at(), U32::new(high_half(right)));
            subject.flush();
            self.fence();
        }
        Ok(())
    }

    fn own(&self) -> Result<()> {
        let subject = self.subject()?;
        if subject.links() > 0
            && let (Ok(uid), Ok(gid)) = (
                u32::try_from(self.intent.value),
                u32::try_from(self.intent.second),
            )
        {
            subject.set_permission_bits(self.intent.subject_links);
            subject.set_owner(uid, gid);
            subject.flush();
            self.fence();
        }
        Ok(())
    }

    /// The pointer to the attribute block decides; where it does not change, the attributes behind the inode do.
    fn attributes(&self) -> Result<()> {
        let intent = self.intent;
        let subject = self.subject()?;
        let found = subject.file_acl();
        let committed = if intent.from == intent.to {
            !xattr::has_some_in_inode(&subject)?
        } else {
            found == intent.to
        };
        if found != intent.from && found != intent.to {
            return Ok(());
        }
        let (mode, owner) = if committed {
            (intent.other_links, intent.second)
        } else {
            (intent.subject_links, intent.value)
        };
        subject.set_permission_bits(mode);
        subject.set_owner(low_half(owner), high_half(owner));
        subject.flush();
        self.fence();
        if !committed {
            return self.free_block(intent.to.into());
        }
        if intent.to_links == 1 {
            xattr::clear_in_inode(&subject)?;
        }
        if intent.from_links > 1 {
            xattr::leave_shared(self.core, intent.from, intent.from_links)?;
        }
        Ok(())
    }
}

fn is_reserved(core: &Core, ino: Ino) -> bool {
    ino.get() < core.geometry.first_ino()
}
