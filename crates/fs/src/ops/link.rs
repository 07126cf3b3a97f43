//! Another name for a live inode: the count goes up before the name appears, so that it is never below the number of
//! names. And the first name of a file that was made without one.

use ext2dax_format::slot::{Intent, Operation};
use ext2dax_format::{Error, InodeFlags, LINK_MAX, Result};

use super::check_name;
use crate::dir::{Change, Dir, Staged};
use crate::inode::attr::give_life;
use crate::inode::{Node, lifetime};
use crate::mount::Mount;
use crate::orphan::Revived;

/// The first name of a file that was made without one: name, then life, as for every new file. A crash between the two
/// leaves a name of a dead inode, with the orphan list or without: the file is gone either way, like its process.
///
/// A file with attributes must not live on the list, where a checker would take them from it: it leaves the list first.
fn first_name(dir: &mut Dir<'_>, staged: Staged<'_>, target: &Node) {
    let core = dir.core;
    let record = target.record();
    // EPOCH: the entry's bytes, out of sight, and the intent.
    core.pmem.fence();
    dir.publish(staged);
    dir.node.record().touch_modified();
    // EPOCH: the name of a dead inode, which leaves the orphan list if it is its tail, or if it has to.
    let leaving = if record.file_acl() == 0 {
        core.orphans.revive(target.ino())
    } else {
        Revived {
            is_listed: false,
            released: core.orphans.take_out(target.ino()),
        }
    };
    let kept = leaving.is_listed;
    record.touch_changed();
    if kept {
        // Its deletion time is the list's.
        record.put_links(1);
    } else {
        // PUBLISH: the file lives. Before: a name of a dead inode. After: the file as it was written, with its name.
        give_life(record, 1);
    }
    // EPOCH: done.
    core.pmem.fence();
    target.mark_linked();
    lifetime::free_numbers(target.core(), leaving.released);
}

/// Gives `target` the name `name` in `parent`.
///
/// # Errors
/// `NotPermitted` for a directory and for immutable and append-only files, `TooManyLinks` at 32,000 names, `NotFound` if
/// the file or the directory is gone; `AlreadyExists`, `NotADirectory`, `InvalidName`, `NameTooLong`, `NoSpace`,
/// `ReadOnlyFs`, `Corrupt`. Nothing has changed then.
pub(crate) fn link(mount: &Mount, parent: &Node, name: &[u8], target: &Node) -> Result<()> {
    let core = &mount.core;
    core.writable()?;
    check_name(name, Error::AlreadyExists)?;
    if target.is_dir() {
        // A name that is taken is the first complaint, as in Linux.
        return match super::lookup(mount, parent, name) {
            Ok(_) => Err(Error::AlreadyExists),
            Err(Error::NotFound) => Err(Error::NotPermitted),
            Err(error) => Err(error),
        };
    }
    let _writing = core.gates.write.enter();
    let mut dir = Dir::lock(core, parent)?;
    let _target = target.lock.write_nested();
    target.check_alive()?;
    let record = target.record();
    let links = record.links();
    // The order of Linux's complaints: a name that is taken comes before what the file is.
    if dir.find(name).is_some() {
        return Err(Error::AlreadyExists);
    }
    if record
        .flags()
        .intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND)
    {
        return Err(Error::NotPermitted);
    }
    if links == 0 && !target.is_nameless() {
        return Err(Error::NotFound);
    }
    if links >= LINK_MAX {
        return Err(Error::TooManyLinks);
    }
    dir.begin_change(Change::Add)?;
    let staged = dir.stage(name, target.ino().get(), dir.kind(target.file_type()))?;
    core.slots.settle(record.mark());
    let operation = if links == 0 {
        Operation::LinkFirst
    } else {
        Operation::Link
    };
    let intent = Intent {
        subject: target.ino().get(),
        to: parent.ino().get(),
        to_place: staged.place(),
        subject_links: links,
        ..Intent::new(operation)
    };
    let armed = core.slots.arm(&intent);
    if links == 0 {
        first_name(&mut dir, staged, target);
        armed.done(&[record.mark()]);
        return Ok(());
    }
    // EPOCH: the entry's bytes, out of sight, and the intent.
    core.pmem.fence();
    record.put_links(links + 1);
    record.touch_changed();
    // EPOCH: the count, one too high until the name is there; checkers put that right without asking.
    core.pmem.fence();
    dir.publish(staged);
    parent.record().touch_modified();
    // EPOCH: done.
    core.pmem.fence();
    armed.done(&[record.mark()]);
    Ok(())
}
