//! Renames of directories. The letters are the rows of the order table.
//!
//! A directory must not have two names, and its `..` must name the directory that holds it: so a move that one store
//! cannot express passes through states that e2fsck repairs only when asked (exception X1 of the crash rules). Within one
//! directory this is rare: one store does it whenever the new name fits into a block that can be swapped.

use alloc::sync::Arc;

use ext2dax_format::slot::Operation;
use ext2dax_format::{CorruptKind, Error, LINK_MAX, Result};
use ext2dax_getblock::Epoch;

use super::add_subdirectory;
use super::rename::{Dirs, Source, Target};
use super::rename_file::{KindChange, rename_in_place};
use super::unlink::{Ending, drop_subdirectory};
use crate::dir::{Dir, Edit};
use crate::inode::Node;
use crate::inode::lifetime::Remains;
use crate::mount::{Core, Mount};
use crate::slots::Armed;
use crate::xattr;

/// Moves a directory, over an empty one if `target` says so.
pub(super) fn rename(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    target: Option<&Target<'_>>,
    new_name: &[u8],
) -> Result<()> {
    let core = &mount.core;
    match target {
        None => {
            if let Dirs::Same(dir) = dirs
                && rename_in_place(core, dir, source, new_name)?
            {
                return Ok(());
            }
            let mut moved = Moved::lock(core, dirs, source.node)?;
            rename_by_two_names(core, dirs, source, &mut moved, new_name)
        }
        Some(target) => {
            let (mut moved, victim) = lock_both(core, dirs, source, target)?;
            if !victim.is_empty() {
                return Err(Error::DirectoryNotEmpty);
            }
            mount.temporaries.retire(target.node)?;
            xattr::make_private(target.node);
            core.slots.settle(target.node.record().parent_mark());
            let ending = match rename_over_swapped(mount, dirs, source, target)? {
                Some(ending) => ending,
                None => rename_over(mount, dirs, source, &mut moved, target)?,
            };
            ending.finish(mount, target.node, Remains::none(target.node));
            victim.forget();
            Ok(())
        }
    }
}

/// The directory that moves, locked if its `..` changes: it stays with the same parent otherwise.
enum Moved<'a> {
    Stays,
    Changes {
        dir: Dir<'a>,
        dot_dot: crate::dir::Found,
    },
}

impl<'a> Moved<'a> {
    fn lock(core: &'a Core, dirs: &Dirs<'_>, node: &'a Arc<Node>) -> Result<Self> {
        if dirs.are_same() {
            return Ok(Self::Stays);
        }
        let dir = Dir::lock_nested(core, node)?;
        let wrong = Error::Corrupt(CorruptKind::DirectoryDots {
            inode: node.ino().get(),
        });
        let dot_dot = dir.find(b"..").ok_or(wrong)?;
        Ok(Self::Changes { dir, dot_dot })
    }

    /// Lets `..` name another parent. Flushed, not fenced.
    fn lead_to(&mut self, parent: &Node) {
        if let Self::Changes { dir, dot_dot } = self {
            let kind = dot_dot.kind;
            dir.redirect(dot_dot, parent.ino().get(), kind);
            dir.node.record().touch_changed();
        }
    }

    /// The epochs of `..` and of the old parent's count, behind the one that took the old name.
    fn adopt(&mut self, core: &Core, dirs: &mut Dirs<'_>) {
        if matches!(self, Self::Stays) {
            return;
        }
        self.lead_to(dirs.to().node);
        // EPOCH: `..` names the new parent; the old one's count is one too high.
        core.pmem.fence();
        drop_subdirectory(dirs.from());
        // EPOCH: done.
        core.pmem.fence();
    }
}

/// Locks what moves and what it replaces by number: neither is above the other.
fn lock_both<'a>(
    core: &'a Core,
    dirs: &Dirs<'_>,
    source: &Source<'a>,
    target: &Target<'a>,
) -> Result<(Moved<'a>, Dir<'a>)> {
    if source.node.ino() < target.node.ino() {
        let moved = Moved::lock(core, dirs, source.node)?;
        Ok((moved, Dir::lock_nested(core, target.node)?))
    } else {
        let victim = Dir::lock_nested(core, target.node)?;
        Ok((Moved::lock(core, dirs, source.node)?, victim))
    }
}

/// Row k: both names for a moment.
fn rename_by_two_names(
    core: &Core,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    moved: &mut Moved<'_>,
    new_name: &[u8],
) -> Result<()> {
    let to = dirs.to();
    let staged = to.stage(
        new_name,
        source.node.ino().get(),
        to.kind(source.node.file_type()),
    )?;
    dirs.settle_counts();
    let place = staged.place();
    let intent = dirs.intent(Operation::MoveDirectory, source, None, place);
    let armed = core.slots.arm(&intent);
    // EPOCH: the entry's bytes, out of sight, and the intent.
    core.pmem.fence();
    dirs.to().publish(staged);
    if !dirs.are_same() {
        add_subdirectory(dirs.to().node.record());
    }
    // EPOCH: two names.
    core.pmem.fence();
    dirs.from().erase(&source.found);
    dirs.touch();
    source.node.record().touch_changed();
    // EPOCH: the new name; `..` still names the old parent.
    core.pmem.fence();
    moved.adopt(core, dirs);
    done(armed, dirs, source);
    Ok(())
}

/// The end of a move, for the intent.
fn done(armed: Armed<'_>, dirs: &mut Dirs<'_>, source: &Source<'_>) {
    let from = dirs.from().node.record().parent_mark();
    let to = dirs.to().node.record().parent_mark();
    armed.done(&[source.node.record().mark(), from, to]);
}

/// Row h: over an empty directory whose entry can be swapped together with the source's. `false` if it cannot.
fn rename_over_swapped(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    target: &Target<'_>,
) -> Result<Option<Ending>> {
    let core = &mount.core;
    let place = target.found.place.into();
    let intent = dirs.intent(Operation::SwapDirectory, source, Some(target), place);
    let Dirs::Same(dir) = dirs else {
        return Ok(None);
    };
    let kind = dir.kind(source.node.file_type());
    let edits = [
        Edit::Redirect(target.found, source.node.ino().get(), kind),
        Edit::Erase(source.found),
    ];
    let Some(shadow) = dir.shadow(&edits)? else {
        return Ok(None);
    };
    core.slots.settle(dir.node.record().parent_mark());
    let armed = core.slots.arm(&intent);
    let ending = match Ending::begin(mount, target.node) {
        Ok(ending) => ending,
        Err(error) => {
            dir.abandon_shadow(shadow);
            return Err(error);
        }
    };
    if ending != Ending::Listed {
        // EPOCH: edited copies that nothing leads to, and the intent.
        core.pmem.fence();
    }
    ending.take_life(target.node);
    // EPOCH: the target is dead under its name, which checkers clear; the source has its old one.
    core.pmem.fence();
    let old = dir.publish_shadow(shadow)?;
    drop_subdirectory(dir);
    source.node.record().touch_changed();
    // EPOCH: done.
    core.volume.free(Epoch::new(&core.pmem).fence(old));
    done(armed, dirs, source);
    Ok(Some(ending))
}

/// Row k over an empty directory, which dies first.
fn rename_over(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    moved: &mut Moved<'_>,
    target: &Target<'_>,
) -> Result<Ending> {
    let core = &mount.core;
    let kind = dirs.to().kind(source.node.file_type());
    dirs.settle_counts();
    let place = target.found.place.into();
    let intent = dirs.intent(Operation::MoveDirectory, source, Some(target), place);
    let armed = core.slots.arm(&intent);
    let ending = Ending::begin(mount, target.node)?;
    if ending != Ending::Listed {
        // EPOCH: the intent.
        core.pmem.fence();
    }
    ending.take_life(target.node);
    // EPOCH: the target is dead under its name, which checkers clear.
    core.pmem.fence();
    // The target's `..` goes and the source's comes: the new parent's count stays.
    dirs.to()
        .redirect(&target.found, source.node.ino().get(), kind);
    // EPOCH: two names.
    core.pmem.fence();
    dirs.from().erase(&source.found);
    if dirs.are_same() {
        drop_subdirectory(dirs.to());
    }
    dirs.touch();
    source.node.record().touch_changed();
    // EPOCH: the new name; `..` still names the old parent, if that is another.
    core.pmem.fence();
    moved.adopt(core, dirs);
    done(armed, dirs, source);
    Ok(ending)
}

/// Two names of which at least one is a directory's, wherever they lie. In between, one of the two has both names or none,
/// and a `..` is stale: the intent is what makes it one step.
pub(super) fn exchange(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    target: &Target<'_>,
) -> Result<()> {
    let core = &mount.core;
    let (to_gains, from_gains) = if dirs.are_same() {
        (false, false)
    } else {
        let (source, target) = (source.node.is_dir(), target.node.is_dir());
        (source && !target, target && !source)
    };
    let full = |dir: &Dir<'_>| dir.node.record().links() >= LINK_MAX;
    if to_gains && full(dirs.to()) || from_gains && full(dirs.from()) {
        return Err(Error::TooManyLinks);
    }
    let (mut to_target, mut to_source) = lock_exchanged(core, dirs, source, target)?;
    dirs.settle_counts();
    let (at_target, at_source) = (
        KindChange::new(target.found, source.found.kind),
        KindChange::new(source.found, target.found.kind),
    );
    let place = target.found.place.into();
    let intent = dirs.intent(Operation::ExchangeDirectory, source, Some(target), place);
    let armed = core.slots.arm(&intent);
    // EPOCH: the intent.
    core.pmem.fence();
    at_target.forget(dirs.to());
    at_source.forget(dirs.from());
    if to_gains {
        add_subdirectory(dirs.to().node.record());
    }
    if from_gains {
        add_subdirectory(dirs.from().node.record());
    }
    // EPOCH: a count, one too high.
    core.pmem.fence();
    let (source_ino, target_ino) = (source.node.ino().get(), target.node.ino().get());
    dirs.to()
        .redirect(&target.found, source_ino, source.found.kind);
    dirs.from()
        .redirect(&source.found, target_ino, target.found.kind);
    // EPOCH: the names are exchanged. Before the fence, one of the two may have both; a `..` may be the old one.
    core.pmem.fence();
    at_target.set(dirs.to());
    at_source.set(dirs.from());
    to_target.lead_to(dirs.to().node);
    to_source.lead_to(dirs.from().node);
    dirs.touch();
    source.node.record().touch_changed();
    target.node.record().touch_changed();
    // EPOCH: every `..` names its parent; a count is one too high.
    core.pmem.fence();
    if to_gains {
        drop_subdirectory(dirs.from());
    }
    if from_gains {
        drop_subdirectory(dirs.to());
    }
    // EPOCH: done.
    core.pmem.fence();
    let from = dirs.from().node.record().parent_mark();
    let to = dirs.to().node.record().parent_mark();
    armed.done(&[
        source.node.record().mark(),
        target.node.record().mark(),
        from,
        to,
    ]);
    Ok(())
}

/// Locks the directories among the two that are exchanged, if their `..` change, by number: neither is above the other.
fn lock_exchanged<'a>(
    core: &'a Core,
    dirs: &Dirs<'_>,
    source: &Source<'a>,
    target: &Target<'a>,
) -> Result<(Moved<'a>, Moved<'a>)> {
    let lock = |node: &'a Arc<Node>| {
        if node.is_dir() {
            Moved::lock(core, dirs, node)
        } else {
            Ok(Moved::Stays)
        }
    };
    if source.node.ino() < target.node.ino() {
        let first = lock(source.node)?;
        Ok((first, lock(target.node)?))
    } else {
        let first = lock(target.node)?;
        Ok((lock(source.node)?, first))
    }
}
