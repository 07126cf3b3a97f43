//! Renames of directories. The letters are the rows of the order table.
//!
//! A directory must not have two names, and its `..` must name the directory that holds it: so a move that one store
//! cannot express passes through states that e2fsck repairs only when asked (exception X1 of the crash rules). Within one
//! directory this is rare: one store does it whenever the new name fits into a block that can be swapped.

use ext2dax_format::{CorruptKind, Error, Result};
use ext2dax_getblock::Epoch;

use super::rename::{Dirs, Source, Target};
use super::rename_file::rename_in_place;
use super::unlink::{drop_subdirectory, give_back};
use crate::dir::{Dir, Edit};
use crate::inode::attr::take_life;
use crate::mount::{Core, Mount};

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
            let mut moved = Moved::lock(core, dirs, source)?;
            rename_by_two_names(core, dirs, source, &mut moved, new_name)
        }
        Some(target) => {
            let (mut moved, victim) = lock_both(core, dirs, source, target)?;
            if !victim.is_empty() {
                return Err(Error::DirectoryNotEmpty);
            }
            mount.temporaries.retire(target.node)?;
            if !rename_over_swapped(core, dirs, source, target)? {
                rename_over(core, dirs, source, &mut moved, target);
            }
            give_back(mount, target.node);
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
    fn lock(core: &'a Core, dirs: &Dirs<'_>, source: &Source<'a>) -> Result<Self> {
        if dirs.are_same() {
            return Ok(Self::Stays);
        }
        let dir = Dir::lock_nested(core, source.node)?;
        let wrong = Error::Corrupt(CorruptKind::DirectoryDots {
            inode: source.node.ino().get(),
        });
        let dot_dot = dir.find(b"..").ok_or(wrong)?;
        Ok(Self::Changes { dir, dot_dot })
    }

    /// The epochs of `..` and of the old parent's count, behind the one that took the old name.
    fn adopt(&mut self, core: &Core, dirs: &mut Dirs<'_>) {
        let Self::Changes { dir, dot_dot } = self else {
            return;
        };
        let kind = dot_dot.kind;
        dir.redirect(dot_dot, dirs.to().node.ino().get(), kind);
        dir.node.record().touch_changed();
        // EPOCH: `..` names the new parent; the old one's count is one too high.
        core.pmem.fence();
        drop_subdirectory(dirs.from().node);
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
        let moved = Moved::lock(core, dirs, source)?;
        Ok((moved, Dir::lock_nested(core, target.node)?))
    } else {
        let victim = Dir::lock_nested(core, target.node)?;
        Ok((Moved::lock(core, dirs, source)?, victim))
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
    // EPOCH: the entry's bytes, out of sight.
    core.pmem.fence();
    dirs.to().publish(staged);
    if !dirs.are_same() {
        let record = dirs.to().node.record();
        record.put_links(record.links() + 1);
    }
    // EPOCH: two names.
    core.pmem.fence();
    dirs.from().erase(&source.found);
    dirs.touch();
    source.node.record().touch_changed();
    // EPOCH: the new name; `..` still names the old parent.
    core.pmem.fence();
    moved.adopt(core, dirs);
    Ok(())
}

/// Row h: over an empty directory whose entry can be swapped together with the source's. `false` if it cannot.
fn rename_over_swapped(
    core: &Core,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    target: &Target<'_>,
) -> Result<bool> {
    let Dirs::Same(dir) = dirs else {
        return Ok(false);
    };
    let kind = dir.kind(source.node.file_type());
    let edits = [
        Edit::Redirect(target.found, source.node.ino().get(), kind),
        Edit::Erase(source.found),
    ];
    let Some(shadow) = dir.shadow(&edits)? else {
        return Ok(false);
    };
    // EPOCH: edited copies that nothing leads to.
    core.pmem.fence();
    take_life(target.node.record());
    // EPOCH: the target is dead under its name, which checkers clear; the source has its old one.
    core.pmem.fence();
    let old = dir.publish_shadow(shadow)?;
    drop_subdirectory(dir.node);
    source.node.record().touch_changed();
    // EPOCH: done.
    core.volume.free(Epoch::new(&core.pmem).fence(old));
    Ok(true)
}

/// Row k over an empty directory, which dies first.
fn rename_over(
    core: &Core,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    moved: &mut Moved<'_>,
    target: &Target<'_>,
) {
    let kind = dirs.to().kind(source.node.file_type());
    take_life(target.node.record());
    // EPOCH: the target is dead under its name, which checkers clear.
    core.pmem.fence();
    // The target's `..` goes and the source's comes: the new parent's count stays.
    dirs.to()
        .redirect(&target.found, source.node.ino().get(), kind);
    // EPOCH: two names.
    core.pmem.fence();
    dirs.from().erase(&source.found);
    if dirs.are_same() {
        drop_subdirectory(dirs.to().node);
    }
    dirs.touch();
    source.node.record().touch_changed();
    // EPOCH: the new name; `..` still names the old parent, if that is another.
    core.pmem.fence();
    moved.adopt(core, dirs);
}
