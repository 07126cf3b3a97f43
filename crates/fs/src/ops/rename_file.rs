//! Renames of files, and exchanges. The letters are the rows of the order table.

use ext2dax_format::Result;
use ext2dax_format::slot::{Intent, Operation};
use ext2dax_getblock::Epoch;

use super::rename::{Dirs, Done, Source, Target};
use super::temporary::Temporary;
use super::unlink::Ending;
use crate::dir::{Dir, Edit, Found};
use crate::inode::Record;
use crate::mount::{Core, Mount};

/// To a name that is free.
pub(super) fn rename(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    new_name: &[u8],
) -> Result<()> {
    let core = &mount.core;
    if let Dirs::Same(dir) = dirs
        && rename_in_place(core, dir, source, new_name)?
    {
        return Ok(());
    }
    rename_by_link(core, dirs, source, new_name)
}

/// The largest block that is copied to rename a file. With `clwb`, 4 KiB cost about as much as a fence, and a move by link
/// has three fences more.
const LARGEST_COPY: u32 = 16 << 10;

/// Rows a, b and c, for files and directories: within one directory, by one store. `false` if no row fits; nothing has
/// changed then.
pub(super) fn rename_in_place(
    core: &Core,
    dir: &mut Dir<'_>,
    source: &Source<'_>,
    new_name: &[u8],
) -> Result<bool> {
    let ino = source.node.ino().get();
    let kind = dir.kind(source.node.file_type());
    if let Some(replacement) = dir.stage_replacement(&source.found, new_name) {
        // EPOCH: the new entry's bytes, in slack.
        core.pmem.fence();
        dir.publish_replacement(replacement);
        touch(dir, source);
        // EPOCH: done.
        core.pmem.fence();
        return Ok(true);
    }
    // Copying a large block costs more than the fences of a move by link, and takes longer. A directory has no such choice.
    if !source.node.is_dir() && core.geometry.block_size() > LARGEST_COPY {
        return Ok(false);
    }
    let own = source.found.place.block;
    let roomy = dir.block_with_room(new_name);
    for block in [Some(own), roomy.filter(|&block| block != own)]
        .into_iter()
        .flatten()
    {
        let edits = [
            Edit::Erase(source.found),
            Edit::Insert(block, new_name, ino, kind),
        ];
        if let Some(shadow) = dir.shadow(&edits)? {
            // EPOCH: edited copies that nothing leads to.
            core.pmem.fence();
            let old = dir.publish_shadow(shadow)?;
            touch(dir, source);
            // EPOCH: done.
            core.volume.free(Epoch::new(&core.pmem).fence(old));
            return Ok(true);
        }
    }
    Ok(false)
}

/// The times of a directory and of what moved in it, in the epoch that is open. Flushed.
fn touch(dir: &Dir<'_>, source: &Source<'_>) {
    dir.node.record().touch_modified();
    source.node.record().touch_changed();
}

/// Row d: the file has both names for a moment, and a count that is never below them.
fn rename_by_link(
    core: &Core,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    new_name: &[u8],
) -> Result<()> {
    let record = source.node.record();
    let to = dirs.to();
    let staged = to.stage(
        new_name,
        source.node.ino().get(),
        to.kind(source.node.file_type()),
    )?;
    let place = staged.place();
    let intent = dirs.intent(Operation::Move, source, None, place);
    let armed = core.slots.arm(&intent);
    // EPOCH: the entry's bytes, out of sight, and the intent.
    core.pmem.fence();
    let links = raise(record);
    // EPOCH: the count, one too high.
    core.pmem.fence();
    dirs.to().publish(staged);
    // EPOCH: both names, and a count of both.
    core.pmem.fence();
    dirs.from().erase(&source.found);
    dirs.touch();
    // EPOCH: the new name, the count one too high.
    core.pmem.fence();
    lower(record, links);
    // EPOCH: done.
    core.pmem.fence();
    armed.done(&[record.mark()]);
    Ok(())
}

/// One name more; flushed. Answers the count from before.
fn raise(record: &Record) -> u16 {
    let links = record.links();
    record.put_links(links.saturating_add(1));
    links
}

/// Sets a count back, with the change time; flushed.
fn lower(record: &Record, links: u16) {
    record.put_links(links);
    record.touch_changed();
}

/// Over a file.
pub(super) fn rename_over<'a>(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    target: &Target<'a>,
) -> Result<Done<'a>> {
    if target.node.record().links() > 1 {
        rename_over_one_of_several(mount, dirs, source, target);
        return Ok(Done::Yes);
    }
    target.node.record().check_contents()?;
    match mount.temporaries.take(&mount.core.pmem) {
        None => Ok(Done::NeedsTemporary),
        Some(temporary) => rename_over_last(mount, dirs, source, target, temporary),
    }
}

/// The type byte of an entry that changes its type on the way (row g): unknown before the swing, right after it. One that
/// keeps it is left alone.
pub(super) struct KindChange {
    found: Found,
    to: u8,
    needed: bool,
}

impl KindChange {
    pub(super) fn new(found: Found, to: u8) -> Self {
        Self {
            found,
            to,
            needed: found.kind != to,
        }
    }

    /// In the epoch before the swing.
    pub(super) fn forget(&self, dir: &Dir<'_>) {
        if self.needed {
            dir.set_kind(&self.found, 0);
        }
    }

    /// In the epoch behind the swing.
    pub(super) fn set(&self, dir: &Dir<'_>) {
        if self.needed {
            dir.set_kind(&self.found, self.to);
        }
    }
}

/// Row f: the target has other names.
fn rename_over_one_of_several(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    target: &Target<'_>,
) {
    let core = &mount.core;
    let (moved, replaced) = (source.node.record(), target.node.record());
    let kind = dirs.to().kind(source.node.file_type());
    let change = KindChange::new(target.found, kind);
    let place = target.found.place.into();
    let intent = dirs.intent(Operation::ReplaceOne, source, Some(target), place);
    let armed = core.slots.arm(&intent);
    // EPOCH: the intent.
    core.pmem.fence();
    let links = raise(moved);
    change.forget(dirs.to());
    // EPOCH: the count, one too high.
    core.pmem.fence();
    dirs.to()
        .redirect(&target.found, source.node.ino().get(), kind);
    // EPOCH: the new name leads to the source; the replaced file's count is one too high.
    core.pmem.fence();
    change.set(dirs.to());
    lower(replaced, replaced.links() - 1);
    dirs.from().erase(&source.found);
    dirs.touch();
    // EPOCH: the old name is gone, the count one too high.
    core.pmem.fence();
    lower(moved, links);
    // EPOCH: done.
    core.pmem.fence();
    armed.done(&[moved.mark(), replaced.mark()]);
}

/// Row e: the target's last name, replaced while a temporary link holds it.
fn rename_over_last<'a>(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    target: &Target<'a>,
    mut temporary: Temporary<'_>,
) -> Result<Done<'a>> {
    let core = &mount.core;
    let (moved, replaced) = (source.node.record(), target.node.record());
    let kind = dirs.to().kind(source.node.file_type());
    let change = KindChange::new(target.found, kind);
    core.slots.settle(temporary.mark());
    temporary.prepare(dirs.to().kind(target.node.file_type()));
    let place = target.found.place.into();
    let intent = Intent {
        value: temporary.at(),
        ..dirs.intent(Operation::Replace, source, Some(target), place)
    };
    let armed = core.slots.arm(&intent);
    let ending = Ending::begin(mount, target.node)?;
    if ending != Ending::Listed {
        // EPOCH: the intent, and the type in an empty entry.
        core.pmem.fence();
    }
    raise(replaced);
    let links = raise(moved);
    // EPOCH: both counts, one too high.
    core.pmem.fence();
    temporary.publish(target.node.ino());
    change.forget(dirs.to());
    // EPOCH: the target has its temporary name.
    core.pmem.fence();
    dirs.to()
        .redirect(&target.found, source.node.ino().get(), kind);
    // EPOCH: the new name leads to the source; the target's count is one too high.
    core.pmem.fence();
    change.set(dirs.to());
    ending.take_life(target.node);
    dirs.from().erase(&source.found);
    dirs.touch();
    // EPOCH: the target is dead under its temporary name; the old name is gone.
    core.pmem.fence();
    temporary.clear();
    lower(moved, links);
    let remains = ending.strip(target.node);
    // EPOCH: done.
    remains.fence();
    armed.done(&[moved.mark(), temporary.mark()]);
    drop(temporary);
    Ok(Done::Replaced(ending, remains))
}

/// Row i, for any kinds: both entries in one block, or in two whose pointers share a word. `false` if they do not.
pub(super) fn exchange_in_place(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    target: &Target<'_>,
) -> Result<bool> {
    let core = &mount.core;
    let Dirs::Same(dir) = dirs else {
        return Ok(false);
    };
    let (a, b) = (source.node.ino().get(), target.node.ino().get());
    let (a_kind, b_kind) = (
        dir.kind(source.node.file_type()),
        dir.kind(target.node.file_type()),
    );
    let edits = [
        Edit::Redirect(source.found, b, b_kind),
        Edit::Redirect(target.found, a, a_kind),
    ];
    let Some(shadow) = dir.shadow(&edits)? else {
        return Ok(false);
    };
    // EPOCH: edited copies that nothing leads to.
    core.pmem.fence();
    let old = dir.publish_shadow(shadow)?;
    target.node.record().touch_changed();
    touch(dir, source);
    // EPOCH: done.
    core.volume.free(Epoch::new(&core.pmem).fence(old));
    Ok(true)
}

/// Row j: two files whose names lie anywhere. The one at the new name keeps a temporary link while its name leads to the
/// other.
pub(super) fn exchange<'a>(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    target: &Target<'a>,
) -> Result<Done<'a>> {
    let core = &mount.core;
    let Some(mut temporary) = mount.temporaries.take(&core.pmem) else {
        return Ok(Done::NeedsTemporary);
    };
    let (a, b) = (source.node.record(), target.node.record());
    let (a_kind, b_kind) = (
        dirs.to().kind(source.node.file_type()),
        dirs.to().kind(target.node.file_type()),
    );
    let (at_target, at_source) = (
        KindChange::new(target.found, a_kind),
        KindChange::new(source.found, b_kind),
    );
    core.slots.settle(temporary.mark());
    temporary.prepare(b_kind);
    let place = target.found.place.into();
    let intent = Intent {
        value: temporary.at(),
        ..dirs.intent(Operation::Exchange, source, Some(target), place)
    };
    let armed = core.slots.arm(&intent);
    // EPOCH: the intent, and the type in an empty entry.
    core.pmem.fence();
    let (a_links, b_links) = (raise(a), raise(b));
    // EPOCH: both counts, one too high.
    core.pmem.fence();
    temporary.publish(target.node.ino());
    at_target.forget(dirs.to());
    // EPOCH: B has its temporary name.
    core.pmem.fence();
    dirs.to()
        .redirect(&target.found, source.node.ino().get(), a_kind);
    at_source.forget(dirs.from());
    // EPOCH: both names lead to A.
    core.pmem.fence();
    at_target.set(dirs.to());
    dirs.from()
        .redirect(&source.found, target.node.ino().get(), b_kind);
    // EPOCH: the names are exchanged.
    core.pmem.fence();
    at_source.set(dirs.from());
    temporary.clear();
    lower(a, a_links);
    dirs.touch();
    // EPOCH: the temporary name is gone; B's count is one too high.
    core.pmem.fence();
    lower(b, b_links);
    // EPOCH: done.
    core.pmem.fence();
    armed.done(&[a.mark(), b.mark(), temporary.mark()]);
    Ok(Done::Yes)
}
