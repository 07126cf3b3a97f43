//! Names that go. Life goes first, then the name, then what the file had.
//!
//! ```text
//! last name, nobody has it open: intent | dtime ; links := 0 | name off, pointers ~ bits
//! last name, open:               intent, list push | links := 0 | name off     (the last close does the rest)
//! one of several names:          intent | name off | links - 1
//! directory:                     intent | dtime ; links := 0 | name off, parent's links - 1, pointers ~ bits
//! ```
//! A crash in between leaves a name that leads to a dead inode: checkers clear it, and the removal is complete.

use alloc::sync::Arc;

use ext2dax_format::slot::{Intent, Operation};
use ext2dax_format::{CorruptKind, Error, InodeFlags, Result};
use ext2dax_sync::mutant;

use super::{check_name, named};
use crate::dir::{Change, Dir, Found};
use crate::inode::Node;
use crate::inode::attr::take_life;
use crate::inode::lifetime::{self, Listed, Remains};
use crate::mount::Mount;
use crate::xattr;

/// Removes a name that is no directory's.
///
/// # Errors
/// `NotFound`, `IsADirectory`, `NotPermitted` by a flag of the file or the directory, `NotADirectory`, `ReadOnlyFs`,
/// `Corrupt`. Nothing has changed then.
pub(crate) fn unlink(mount: &Mount, parent: &Node, name: &[u8]) -> Result<()> {
    let core = &mount.core;
    core.writable()?;
    check_name(name, Error::IsADirectory)?;
    let _writing = core.gates.write.enter();
    let mut dir = Dir::lock(core, parent)?;
    let found = dir.find(name).ok_or(Error::NotFound)?;
    let child = named(mount, found.ino)?;
    dir.check_change(Change::Remove)?;
    check_flags(&child)?;
    if child.is_dir() {
        return Err(Error::IsADirectory);
    }
    let _child =
        (!mutant("a name goes without the file's lock")).then(|| child.lock.write_nested());
    check_removable(&child)?;
    dir.begin_change(Change::Remove)?;
    let links = child.record().links();
    if links <= 1 {
        xattr::make_private(&child);
    }
    core.slots.settle(child.record().mark());
    let operation = if links > 1 {
        Operation::UnlinkOne
    } else {
        // What it has must be findable, or it could not be freed.
        child.record().check_contents()?;
        Operation::Unlink
    };
    let intent = Intent {
        subject: child.ino().get(),
        from: parent.ino().get(),
        from_place: found.place.into(),
        subject_links: links,
        ..Intent::new(operation)
    };
    let armed = core.slots.arm(&intent);
    if links > 1 {
        one_of_several(&mut dir, &found, &child);
        armed.done(&[child.record().mark()]);
        return Ok(());
    }
    let ending = Ending::begin(mount, &child)?;
    if ending != Ending::Listed {
        // EPOCH: the intent.
        core.pmem.fence();
    }
    ending.take_life(&child);
    // EPOCH: dead; the name leads to a dead inode, which checkers clear.
    core.pmem.fence();
    dir.erase(&found);
    parent.record().touch_modified();
    let remains = ending.strip(&child);
    // EPOCH: done. What the file had is leaked until its bits are clear.
    remains.fence();
    armed.done(&[]);
    // The directory is free again while the file's blocks are freed.
    drop(dir);
    ending.finish(mount, &child, remains);
    Ok(())
}

/// How a file whose last name goes comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nobody has it open: it dies for good.
    Now,
    /// Somebody has it open: it is on the orphan list before it dies.
    Listed,
    /// The same for a file with an attribute block, which must not be listed alive: a checker that truncates a listed live
    /// file drops its attributes. It is listed after its death; until then a crash leaves a dead inode, which is no worse.
    ListedDead,
}

impl Ending {
    /// Decides, and lists the file if that comes first; durable. The caller holds the file's lock exclusively.
    ///
    /// # Errors
    /// `Corrupt` if it cannot be listed; nothing has changed.
    pub(super) fn begin(mount: &Mount, child: &Node) -> Result<Self> {
        // The number may soon be another file's.
        mount.core.slots.settle(child.record().protection_mark());
        mount.core.slots.settle(child.record().size_mark());
        // A file that got its first name on the list may be there still.
        let listed = mount.core.orphans.has_revived(child.ino());
        let open = child.is_open() && !mutant("a name goes without a look for handles");
        if !listed && !open {
            return Ok(Self::Now);
        }
        if !listed && child.record().file_acl() != 0 {
            return Ok(Self::ListedDead);
        }
        // EPOCH: the list. A listed live inode is truncated to its own size.
        mount.core.orphans.push(child.ino())?;
        Ok(Self::Listed)
    }

    /// Takes the life. Flushed, not fenced.
    pub(super) fn take_life(self, child: &Node) {
        let record = child.record();
        if self == Self::Now {
            // Nobody can ask for the time of the change any more; the deletion time says it.
            take_life(record);
        } else {
            record.touch_changed();
            // The deletion time stays 0: it is the list's.
            record.put_links(0);
            child.mark_unlinked();
        }
    }

    /// In the epoch that takes the name, behind the one of [`Ending::take_life`]: takes the blocks from the file, if they
    /// are few enough to keep the directory's lock for.
    pub(super) fn strip(self, child: &Arc<Node>) -> Remains<'_> {
        if self == Self::Now {
            lifetime::strip(child)
        } else {
            Remains::none(child)
        }
    }

    /// Behind the epoch of the name: lists what could not be listed before, or gives back what the file had. The removal is
    /// complete, so damage that is found now is noted, not returned.
    ///
    /// A handle goes without a lock: the last one may have gone since [`Ending::begin`] saw it.
    pub(super) fn finish(self, mount: &Mount, child: &Arc<Node>, remains: Remains<'_>) {
        match self {
            Self::Now => give_back(mount, child, remains),
            Self::Listed => lifetime::end_if_unused(mount, child),
            Self::ListedDead => match mount.core.orphans.push(child.ino()) {
                Ok(()) => lifetime::end_if_unused(mount, child),
                Err(error) => mount.core.report(error),
            },
        }
    }
}

fn one_of_several(dir: &mut Dir<'_>, found: &Found, child: &Node) {
    let record = child.record();
    // EPOCH: the intent.
    dir.core.pmem.fence();
    dir.erase(found);
    dir.node.record().touch_modified();
    // EPOCH: the name is gone, the count one too high.
    dir.core.pmem.fence();
    record.put_links(record.links() - 1);
    record.touch_changed();
    // EPOCH: done.
    dir.core.pmem.fence();
}

/// Frees what a dead, nameless inode had. The removal is complete, so damage that is found now is noted, not returned.
fn give_back(mount: &Mount, child: &Arc<Node>, remains: Remains<'_>) {
    if let Err(error) = lifetime::reclaim(mount, child, Listed::No, remains) {
        mount.core.report(error);
    }
}

/// See [`check_flags`]; the caller holds the file's lock.
pub(super) fn check_removable(child: &Node) -> Result<()> {
    child.check_alive()?;
    check_flags(child)
}

/// Immutable and append-only files keep their names. Without the file's lock the answer is good for the order of
/// complaints only: flags come before types, as in Linux.
pub(super) fn check_flags(child: &Node) -> Result<()> {
    if child
        .record()
        .flags()
        .intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND)
    {
        return Err(Error::NotPermitted);
    }
    Ok(())
}

/// Removes an empty directory.
///
/// # Errors
/// `NotFound`, `NotADirectory`, `DirectoryNotEmpty` (also for `..`), `InvalidArgument` for `.`, `NotPermitted` by a flag,
/// `Busy` for a `lost+found` in which renames are under way, `ReadOnlyFs`, `Corrupt`. Nothing has changed then.
pub(crate) fn rmdir(mount: &Mount, parent: &Node, name: &[u8]) -> Result<()> {
    let core = &mount.core;
    core.writable()?;
    check_name(
        name,
        if name == b"." {
            Error::InvalidArgument
        } else {
            Error::DirectoryNotEmpty
        },
    )?;
    let _writing = core.gates.write.enter();
    let mut dir = Dir::lock(core, parent)?;
    let found = dir.find(name).ok_or(Error::NotFound)?;
    let child = named(mount, found.ino)?;
    if core::ptr::eq(&*child, parent) {
        return Err(CorruptKind::DirectoryDots {
            inode: parent.ino().get(),
        }
        .into());
    }
    dir.check_change(Change::Remove)?;
    check_flags(&child)?;
    let (victim, is_empty) = Dir::lock_victim(core, &child)?;
    check_removable(&child)?;
    if !is_empty {
        return Err(Error::DirectoryNotEmpty);
    }
    dir.begin_change(Change::Remove)?;
    mount.temporaries.retire(&child)?;
    mount.ways.leave(&child);
    xattr::make_private(&child);
    for mark in [
        parent.record().parent_mark(),
        child.record().mark(),
        child.record().parent_mark(),
    ] {
        core.slots.settle(mark);
    }
    let intent = Intent {
        subject: child.ino().get(),
        from: parent.ino().get(),
        from_place: found.place.into(),
        from_links: parent.record().links(),
        ..Intent::new(Operation::Unlink)
    };
    let armed = core.slots.arm(&intent);
    let ending = Ending::begin(mount, &child)?;
    if ending != Ending::Listed {
        // EPOCH: the intent.
        core.pmem.fence();
    }
    ending.take_life(&child);
    // EPOCH: dead; the name leads to a dead inode, and the parent's count is one too high.
    core.pmem.fence();
    dir.erase(&found);
    drop_subdirectory(&dir);
    let remains = ending.strip(&child);
    // EPOCH: done.
    remains.fence();
    armed.done(&[parent.record().parent_mark()]);
    drop(dir);
    ending.finish(mount, &child, remains);
    victim.forget();
    Ok(())
}

/// A subdirectory's `..` no longer counts: its entry is gone.
pub(super) fn drop_subdirectory(dir: &Dir<'_>) {
    let record = dir.node.record();
    let links = record.links();
    if links > 2 {
        record.put_links(links - 1);
    } else {
        // A directory from elsewhere may say 1: not counted.
        dir.count();
    }
    record.touch_modified();
}
