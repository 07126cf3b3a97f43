//! How attributes change: a whole new block, then one pointer.
//!
//! ```text
//! first, another value, one of several goes: new block with all of them | i_file_acl, i_blocks ~ bit of the old block
//! the last one goes:                         i_file_acl := 0, i_blocks ~ bit of the old block
//! some lay behind the inode:                 new block | i_file_acl | magic number there := 0 ~ bit of the old block
//! the old block is shared:                   new block | i_file_acl | its count - 1
//! mode or owner change with them:            new block | i_file_acl, mode, owner
//! ```
//! The last two write an intent in their first epoch, from which the next mount completes or undoes them.
//! Blocks of ours are private: they have one user and are never changed. A crash leaves the old attributes or the new
//! ones, besides leaked blocks and a wrong `i_blocks`; attributes in both places, of which the ones behind the inode
//! count, so that what the change was about is old until they are gone; and, if the block was shared, a count that is one
//! too high, which makes a checker ask (exception X2 of the crash rules).
//!
//! # Locking
//! INODE exclusively. The count of a shared block is read and lowered under `Core::shared_attributes`, a leaf.

use alloc::vec;
use alloc::vec::Vec;

use ext2dax_format::slot::{Intent, Operation};
use ext2dax_format::xattr::{self, Entry, NameIndex};
use ext2dax_format::{CorruptKind, Error, FileType, FsBlock, Result};
use ext2dax_getblock::Fresh;
use ext2dax_pmem::Off;
use zerocopy::little_endian::U32;

use super::load::{self, Found, Loaded, Place};
use crate::inode::{Node, Record, lifetime};
use crate::mount::Core;

/// One attribute's new value; `None` removes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit<'a> {
    pub(crate) index: NameIndex,
    pub(crate) name: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

impl Edit<'_> {
    fn is_about(&self, found: &Found) -> bool {
        found.index == self.index && found.name == self.name
    }
}

/// Whom a file belongs to and what its mode allows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protection {
    /// Permission bits.
    pub(crate) bits: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Protection {
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            bits: record.mode() & 0o7777,
            uid: record.uid(),
            gid: record.gid(),
        }
    }

    /// Stores what differs: the mode first, so that nobody gets a file with set-id bits that are about to go. Not flushed.
    pub(crate) fn store(self, record: &Record) {
        let old = Self::of(record);
        if self.bits != old.bits {
            record.set_permission_bits(self.bits);
            record.pmem().line_order();
        }
        if (self.uid, self.gid) != (old.uid, old.gid) {
            record.set_owner(self.uid, self.gid);
        }
    }

    fn owner(self) -> u64 {
        u64::from(self.gid) << 32 | u64::from(self.uid)
    }
}

/// A change that is ready: what could fail has not.
#[must_use = "a plan that is dropped leaks its block"]
#[derive(Debug)]
pub(crate) struct Plan {
    /// The new block, written and flushed, not fenced. `None`: no attribute is left that belongs into one.
    fresh: Option<Fresh>,
    old: Option<FsBlock>,
    /// How many inodes use the old block.
    users: u32,
    /// The magic number to be cleared behind the inode.
    in_inode: Option<Off<U32>>,
}

impl Plan {
    /// Prepares `edits` of an inode that has `loaded`. The caller holds INODE exclusively.
    ///
    /// # Errors
    /// `NoSpace`: no block is free, or the attributes do not fit into one. `NotSupported` on revision 0, which has no
    /// feature words. Nothing has changed.
    pub(super) fn new(node: &Node, loaded: &Loaded, edits: &[Edit<'_>]) -> Result<Self> {
        let core = node.core();
        let record = node.record();
        let block_size = core.geometry.block_size();
        let mut entries = edited(&loaded.found, edits, |_| true);
        let mut in_inode = loaded.in_inode;
        if !all_fit(&entries, block_size) {
            let touches_inode = loaded.found.iter().any(|found| {
                found.place == Place::Inode && edits.iter().any(|edit| edit.is_about(found))
            });
            entries = edited(&loaded.found, edits, |found| found.place == Place::Block);
            if in_inode.is_none() || touches_inode || !all_fit(&entries, block_size) {
                return Err(Error::NoSpace);
            }
            // The two do not fit together: what lies behind the inode, where no driver of ours changes it, stays.
            in_inode = None;
        }
        let fresh = if entries.is_empty() {
            None
        } else {
            core.require_ext_attr()?;
            let group = core.geometry.locate_ino(record.ino()).0;
            let goal = core.geometry.group_first_block(group);
            Some(write_new(core, goal, &entries)?)
        };
        Ok(Self {
            fresh,
            old: loaded.block,
            users: loaded.users,
            in_inode,
        })
    }

    /// Makes the change, and gives the file mode and owner in the same moment. `with` stores what else rides on it (times),
    /// flushed and not fenced. Durable on return.
    pub(crate) fn commit(mut self, node: &Node, to: Protection, with: impl FnOnce()) {
        let record = node.record();
        let core = node.core();
        let stands = core.slots.settle(record.protection_mark());
        let new = self.fresh.as_ref().map(|fresh| fresh.run().start);
        let from = Protection::of(record);
        // What several stores do needs a note; attributes alone are one pointer.
        let armed = (from != to || self.users > 1)
            .then(|| core.slots.arm(&self.intent(record, from, to, new)));
        if new.is_some() || armed.is_some() || stands {
            // EPOCH: the new block and its bit, the intent. Out of sight: a crash leaks the block.
            core.pmem.fence();
        }
        if let Some(fresh) = self.fresh.take() {
            fresh.assume_written().hand_over();
        }
        if new.is_some() && record.links() > 0 && core.orphans.has_revived(record.ino()) {
            // A file that got its first name on the orphan list, where a checker would take the attributes from it.
            lifetime::free_numbers(core, core.orphans.take_out(record.ino()));
        }
        to.store(record);
        record.touch_changed();
        with();
        swing(node, self.old, new);
        // EPOCH: the new attributes, but for those that the old ones behind the inode hide; i_blocks may lag behind.
        core.pmem.fence();
        if let Some(magic) = self.in_inode {
            // PUBLISH: the attributes behind the inode are gone. Before: they hide their namesakes in the new block, so an
            // attribute that is about to change or go from there still is what it was. After: the new block alone.
            core.pmem.publish(magic, U32::new(0));
        }
        if let Some(old) = self.old {
            let_go(core, old);
        }
        if let Some(armed) = armed {
            armed.done(&[record.protection_mark()]);
        }
    }

    fn intent(
        &self,
        record: &Record,
        from: Protection,
        to: Protection,
        new: Option<FsBlock>,
    ) -> Intent {
        let number = |block: Option<FsBlock>| block.map_or(0, FsBlock::get);
        Intent {
            subject: record.ino().get(),
            from: number(self.old),
            to: number(new),
            subject_links: from.bits,
            other_links: to.bits,
            value: from.owner(),
            second: to.owner(),
            from_links: if self.users > 1 {
                u16::try_from(self.users).unwrap_or(0)
            } else {
                0
            },
            to_links: u16::from(self.in_inode.is_some()),
            ..Intent::new(Operation::Attributes)
        }
    }
}

/// What remains after `edits` of the attributes for which `keep` says yes, in the order of a block.
fn edited<'a>(
    found: &'a [Found],
    edits: &[Edit<'a>],
    keep: impl Fn(&Found) -> bool,
) -> Vec<Entry<'a>> {
    let kept = found
        .iter()
        .filter(|found| keep(found) && !edits.iter().any(|edit| edit.is_about(found)))
        .map(Found::entry);
    let new = edits.iter().filter_map(|edit| {
        edit.value.map(|value| Entry {
            index: edit.index,
            name: edit.name,
            value,
        })
    });
    let mut entries: Vec<_> = kept.chain(new).collect();
    entries.sort_by(Entry::order);
    entries
}

fn all_fit(entries: &[Entry<'_>], block_size: u32) -> bool {
    let needed = entries.iter().fold(0, |sum: u64, entry| {
        sum.saturating_add(entry.len_in_block())
    });
    xattr::fits(needed, block_size)
}

/// Takes a block near `goal` and writes `entries`, which are sorted. Flushed, not fenced.
///
/// # Errors
/// `NoSpace`: no block is free, or they do not fit into one. Nothing has changed.
pub(super) fn write_new(core: &Core, goal: FsBlock, entries: &[Entry<'_>]) -> Result<Fresh> {
    let mut bytes = vec![0; core.geometry.block_size() as usize];
    xattr::write_block(&mut bytes, entries.iter().copied())?;
    let fresh = core
        .volume
        .allocate_block(Some(goal), core.is_privileged())?;
    core.pmem.write_flushed(fresh.offset(), &bytes);
    Ok(fresh)
}

/// Lets the inode lead to `new` instead of `old`. Flushed, not fenced, but for symlinks.
///
/// Whether a symlink's text lies in the inode is told by `i_blocks` and `i_file_acl`, which lie in two lines: in between
/// they must not tell the wrong thing. No blocks at all is a text in the inode, whatever the pointer says; and two blocks
/// without the pointer are none.
fn swing(node: &Node, old: Option<FsBlock>, new: Option<FsBlock>) {
    let record = node.record();
    let pmem = record.pmem();
    let point = || {
        record.set_file_acl(new.map_or(0, FsBlock::get));
        record.flush();
    };
    let step = i32::from(new.is_some()) - i32::from(old.is_some());
    let count = || {
        let tree = record.tree();
        tree.add_sectors(&mut tree.lock(), step);
    };
    if step == 0 {
        point();
    } else if node.file_type() != FileType::Symlink {
        point();
        count();
    } else if record.is_fast_symlink() == (step > 0) {
        point();
        // EPOCH: the pointer; the count is that of a text in the inode, or one too high.
        pmem.fence();
        count();
    } else {
        count();
        // EPOCH: the count, from which the text's place can be told without the pointer.
        pmem.fence();
        point();
    }
}

/// An inode leads to its attribute block no more, durably: it has one user less, and the last one frees it.
fn let_go(core: &Core, block: FsBlock) {
    let at = load::users_at(core, block);
    let shared = {
        let _count = core.shared_attributes.lock();
        let users = core.pmem.load(at).get();
        if users > 1 {
            // PUBLISH: one user less. Before: a count that is one too high (exception X2 of the crash rules). After: the
            // count is right.
            core.pmem.publish(at, U32::new(users - 1));
        }
        users > 1
    };
    if !shared {
        core.volume.free(core.volume.detach_attribute_block(block));
    }
}

/// Completes what [`Plan::commit`] began before a crash: the count of a block that had `users`, if it still says so.
///
/// # Errors
/// `Corrupt` if the block cannot be one.
pub(crate) fn leave_shared(core: &Core, block: u32, users: u16) -> Result<()> {
    let at = load::users_at(core, core.geometry.fs_block(block)?);
    if core.pmem.load(at).get() == u32::from(users) {
        // PUBLISH: as in `let_go`.
        core.pmem.publish(at, U32::new(u32::from(users) - 1));
    }
    Ok(())
}

/// Completes a move from behind the inode.
///
/// # Errors
/// `Corrupt`.
pub(crate) fn clear_in_inode(record: &Record) -> Result<()> {
    if let Some((magic, _)) = load::in_inode_magic(record)? {
        // PUBLISH: as in `Plan::commit`.
        record.pmem().publish(magic, U32::new(0));
    }
    Ok(())
}

/// Whether attributes lie behind the inode.
///
/// # Errors
/// `Corrupt`.
pub(crate) fn has_some_in_inode(record: &Record) -> Result<bool> {
    Ok(load::in_inode_magic(record)?.is_some())
}

/// Gives an inode that is about to die an attribute block of its own, if others share it: its death then leaves no count
/// that is too high. Where that cannot be, the death lets go of the shared block, with the window of exception X2. The
/// caller holds INODE exclusively.
pub(crate) fn make_private(node: &Node) {
    let record = node.record();
    let Ok(Some(block)) = load::block_of(record) else {
        return;
    };
    let core = node.core();
    if core.pmem.load(load::users_at(core, block)).get() <= 1 {
        return;
    }
    if let Ok(plan) = Loaded::of(record).and_then(|loaded| Plan::new(node, &loaded, &[])) {
        plan.commit(node, Protection::of(record), || {});
    }
}

/// Lets go of the attribute block of an inode that dies.
///
/// # Errors
/// `Corrupt`: this is no attribute block; nothing has changed.
pub(crate) fn release(record: &Record) -> Result<()> {
    let Some(block) = load::block_of(record)? else {
        return Ok(());
    };
    let core = record.core();
    let found = core.pmem.load(load::users_at(core, block)).get();
    if found == 0 {
        return Err(CorruptKind::XattrRefcount {
            inode: record.ino().get(),
            block: block.get(),
            found,
        }
        .into());
    }
    record.set_file_acl(0);
    record.flush();
    // EPOCH: nothing leads to the block.
    record.pmem().fence();
    let_go(core, block);
    Ok(())
}
