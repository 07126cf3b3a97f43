//! New files: a dead inode gets a name, then life.
//!
//! ```text
//! empty regular file: inode (dead), entry aside | name, links := 1 ; dtime := 0
//! anything else:      inode (dead), its blocks, entry aside | name | links ; dtime := 0
//! ```
//! The same without a name: inode (dead) | orphan list. Its first name is made in `link`.
//!
//! A regular file that inherits an access control list has a block of attributes, and is not empty in this sense.
//! A crash in between leaves a name that leads to a dead inode: checkers clear it, and the file never existed. A live inode
//! without a name, which other orders pass through, makes e2fsck ask a human as soon as it has contents.

use alloc::sync::Arc;

use ext2dax_format::slot::{Intent, Operation};
use ext2dax_format::{Error, FileType, Ino, LINK_MAX, Result};
use ext2dax_getblock::{Fresh, Placement, Tentative};
use ext2dax_pmem::Off;

use super::{New, add_subdirectory, check_name};
use crate::dir::{Change, Dir, Staged};
use crate::inode::attr::{NewBlock, NewInode, device_words, give_life};
use crate::inode::lifetime::Handle;
use crate::inode::{Node, Record};
use crate::mount::{Core, Mount};
use crate::xattr::Inherited;

/// Bytes of a symlink that fit into the inode; the text is followed by a zero byte there.
const FAST_SYMLINK: usize = 59;

/// What a new inode holds, besides its attributes.
enum Contents<'a> {
    None,
    Device(u32, u32),
    Directory,
    Symlink(&'a [u8]),
}

/// Makes an empty regular file. The handle is counted before anybody else can remove the name.
///
/// # Errors
/// `AlreadyExists`, `NotADirectory`, `InvalidName`, `NameTooLong`, `NoInodes`, `NoSpace`, `ReadOnlyFs`, `NotPermitted`,
/// `NotFound` if the directory has been removed, `Corrupt`. Nothing has changed then; so for all of this module.
pub(crate) fn create(mount: &Arc<Mount>, parent: &Node, name: &[u8], new: &New) -> Result<Handle> {
    make(mount, parent, name, FileType::Regular, new, Contents::None)
}

/// Makes what the type bits of `new.mode` say, except a directory or a symlink; none means a regular file.
///
/// # Errors
/// As [`create`]; `Overflow` if no encoding holds the device number, `InvalidArgument` for other types.
pub(crate) fn mknod(mount: &Arc<Mount>, parent: &Node, name: &[u8], new: &New) -> Result<Handle> {
    let file_type = if new.mode & ext2dax_format::inode::S_IFMT == 0 {
        FileType::Regular
    } else {
        FileType::from_mode(new.mode).ok_or(Error::InvalidArgument)?
    };
    let contents = match file_type {
        FileType::Regular | FileType::Fifo | FileType::Socket => Contents::None,
        FileType::CharDevice | FileType::BlockDevice => {
            Contents::Device(new.device.0, new.device.1)
        }
        FileType::Directory | FileType::Symlink => return Err(Error::InvalidArgument),
    };
    make(mount, parent, name, file_type, new, contents)
}

/// Makes a directory.
///
/// # Errors
/// As [`create`]; `TooManyLinks` if the parent has 32,000 names.
pub(crate) fn mkdir(mount: &Arc<Mount>, parent: &Node, name: &[u8], new: &New) -> Result<Handle> {
    make(
        mount,
        parent,
        name,
        FileType::Directory,
        new,
        Contents::Directory,
    )
}

/// Makes a symlink to `target`.
///
/// # Errors
/// As [`create`]; `NameTooLong` if the target does not fit into a block with a zero byte behind it, `InvalidArgument` if
/// it is empty or holds a zero byte.
pub(crate) fn symlink(
    mount: &Arc<Mount>,
    parent: &Node,
    name: &[u8],
    target: &[u8],
    new: &New,
) -> Result<Handle> {
    if target.is_empty() || target.contains(&0) {
        return Err(Error::InvalidArgument);
    }
    if target.len() >= mount.core.geometry.block_size() as usize {
        return Err(Error::NameTooLong);
    }
    let new = New {
        mode: 0o777,
        ..*new
    };
    make(
        mount,
        parent,
        name,
        FileType::Symlink,
        &new,
        Contents::Symlink(target),
    )
}

/// Makes an empty regular file without a name, as if in `parent`. It goes with its last handle, unless it has been linked.
///
/// It is on the orphan list from the start, so that a crash frees it.
///
/// # Errors
/// As [`create`].
pub(crate) fn tmpfile(mount: &Arc<Mount>, parent: &Node, new: &New) -> Result<Handle> {
    let core = &mount.core;
    core.writable()?;
    if !parent.is_dir() {
        return Err(Error::NotADirectory);
    }
    let _writing = core.gates.write.enter();
    let directory = parent.lock.read();
    if parent.is_removed() {
        return Err(Error::NotFound);
    }
    let inode = Unborn::prepare(core, parent, FileType::Regular, new, &Contents::None)?;
    drop(directory);
    let node = match mount.inodes.insert_new(core, inode.ino()) {
        Ok(node) => node,
        Err(error) => {
            inode.abandon(core);
            return Err(error);
        }
    };
    node.mark_nameless();
    let record = node.record();
    // On the list the deletion time is not its own.
    record.set_dtime(0);
    record.flush_line0();
    // EPOCH: bits, the dead inode. Out of sight: a crash leaks it.
    core.pmem.fence();
    if let Err(error) = core.orphans.push(inode.ino()) {
        mount.inodes.forget(inode.ino());
        inode.abandon(core);
        return Err(error);
    }
    inode.born();
    Ok(Handle::adopt(mount, node))
}

fn make(
    mount: &Arc<Mount>,
    parent: &Node,
    name: &[u8],
    file_type: FileType,
    new: &New,
    contents: Contents<'_>,
) -> Result<Handle> {
    let core = &mount.core;
    core.writable()?;
    check_name(name, Error::AlreadyExists)?;
    let _writing = core.gates.write.enter();
    let mut dir = Dir::lock(core, parent)?;
    if dir.find(name).is_some() {
        return Err(Error::AlreadyExists);
    }
    dir.check_change(Change::Add)?;
    if file_type == FileType::Directory && parent.record().links() >= LINK_MAX {
        return Err(Error::TooManyLinks);
    }
    dir.begin_change(Change::Add)?;
    let inode = Unborn::prepare(core, parent, file_type, new, &contents)?;
    let staged = match dir.stage(name, inode.ino().get(), dir.kind(file_type)) {
        Ok(staged) => staged,
        Err(error) => {
            inode.abandon(core);
            return Err(error);
        }
    };
    let node = match mount.inodes.insert_new(core, inode.ino()) {
        Ok(node) => node,
        Err(error) => {
            inode.abandon(core);
            return Err(error);
        }
    };
    if file_type == FileType::Directory {
        core.slots.settle(parent.record().parent_mark());
    }
    let intent = Intent {
        subject: inode.ino().get(),
        to: parent.ino().get(),
        to_place: staged.place(),
        to_links: if file_type == FileType::Directory {
            parent.record().links()
        } else {
            0
        },
        value: number_of(inode.block.as_ref()),
        second: number_of(inode.attributes.as_ref()),
        ..Intent::new(Operation::Create)
    };
    let armed = core.slots.arm(&intent);
    // EPOCH: bits, the dead inode, its block, the entry's bytes, the intent. All of it is out of sight: a crash leaks it.
    core.pmem.fence();
    birth(&mut dir, staged, node.record(), file_type, &contents);
    armed.done(&[node.record().mark()]);
    inode.born();
    Ok(Handle::adopt(mount, node))
}

/// The epochs behind the first: name, then life.
fn birth(
    dir: &mut Dir<'_>,
    staged: Staged<'_>,
    record: &Record,
    file_type: FileType,
    contents: &Contents<'_>,
) {
    let core = dir.core;
    let parent = dir.node.record();
    let is_dir = file_type == FileType::Directory;
    // A nameless empty regular file is the one live inode that checkers clear without asking, so its life may share the
    // epoch of its name.
    let merged = file_type == FileType::Regular
        && matches!(contents, Contents::None)
        && record.file_acl() == 0
        && !staged.grows();
    dir.publish(staged);
    if is_dir {
        // The parent's new name is the new directory's `..`. Too high a count is put right without asking.
        add_subdirectory(parent);
    }
    parent.touch_modified();
    if !merged {
        // EPOCH: the name. Before the next fence it leads to a dead inode, which checkers clear.
        core.pmem.fence();
    }
    // PUBLISH: the file lives. Before: a name of a dead inode, or nothing at all. After: the finished file.
    give_life(record, if is_dir { 2 } else { 1 });
    // EPOCH: done.
    core.pmem.fence();
}

/// An inode that is written but dead, with what it took.
struct Unborn {
    number: Tentative,
    block: Option<Fresh>,
    attributes: Option<Fresh>,
}

impl Unborn {
    /// Takes a number, and blocks if the contents or attributes need them, and writes all. Flushed, not fenced.
    fn prepare(
        core: &Core,
        parent: &Node,
        file_type: FileType,
        new: &New,
        contents: &Contents<'_>,
    ) -> Result<Self> {
        let from = parent.record();
        let flags = from.flags();
        let placement = if file_type == FileType::Directory {
            let top =
                parent.ino() == Ino::ROOT || flags.contains(ext2dax_format::InodeFlags::TOPDIR);
            Placement::Directory {
                parent: parent.ino(),
                top,
            }
        } else {
            Placement::Near {
                parent: parent.ino(),
            }
        };
        // A group's set-id bit on a directory hands the group down, and itself to subdirectories.
        let set_gid = from.mode() & 0o2000 != 0;
        let gid = if set_gid || core.options.group_inherits {
            from.gid()
        } else {
            new.gid
        };
        let inherited = if set_gid && file_type == FileType::Directory {
            0o2000
        } else {
            0
        };
        let block = match contents {
            Contents::Device(major, minor) => NewBlock::Bytes(device_words((*major, *minor))?),
            _ => NewBlock::Empty,
        };
        let lists = Inherited::from(parent, file_type, new.mode & 0o7777, new.umask)?;
        let number = core.volume.allocate_inode(placement)?;
        let mut inode = NewInode {
            mode: file_type.mode() | lists.bits | inherited,
            uid: new.uid,
            gid,
            flags: flags.inherited_by(file_type),
            generation: number.generation(),
            size: 0,
            sectors: 0,
            block,
            file_acl: 0,
            now: core.now(),
        };
        let block = match fill(core, parent, number.ino(), &mut inode, contents) {
            Ok(block) => block,
            Err(error) => {
                core.volume.release(number);
                return Err(error);
            }
        };
        let mut unborn = Self {
            number,
            block,
            attributes: None,
        };
        match unborn.write(core, &mut inode, &lists) {
            Ok(()) => Ok(unborn),
            Err(error) => {
                unborn.abandon(core);
                Err(error)
            }
        }
    }

    /// Writes the attributes, and then the inode that leads to them.
    fn write(&mut self, core: &Core, inode: &mut NewInode, lists: &Inherited) -> Result<()> {
        let goal = core
            .geometry
            .group_first_block(core.geometry.locate_ino(self.ino()).0);
        self.attributes = lists.write(core, goal)?;
        if let Some(block) = &self.attributes {
            inode.file_acl = block.run().start.get();
            inode.sectors += core.geometry.sectors_per_block();
        }
        inode.write_dead(core, self.ino())
    }

    fn ino(&self) -> Ino {
        self.number.ino()
    }

    /// Gives everything back: nothing leads to it.
    fn abandon(self, core: &Core) {
        for block in self.block.into_iter().chain(self.attributes) {
            core.volume.free(block.abandon());
        }
        core.volume.release(self.number);
    }

    /// The inode is live: it owns what it took.
    fn born(self) {
        for block in self.block.into_iter().chain(self.attributes) {
            block.assume_written().hand_over();
        }
        self.number.keep();
    }
}

/// The number of a block that was taken, 0 for none.
fn number_of(block: Option<&Fresh>) -> u64 {
    block.map_or(0, |block| u64::from(block.run().start.get()))
}

/// Puts the contents where they belong: into the inode, or into a block of its own.
fn fill(
    core: &Core,
    parent: &Node,
    ino: Ino,
    inode: &mut NewInode,
    contents: &Contents<'_>,
) -> Result<Option<Fresh>> {
    let geometry = &core.geometry;
    let block_size = geometry.block_size();
    match contents {
        Contents::None | Contents::Device(..) => return Ok(None),
        Contents::Symlink(target) if target.len() <= FAST_SYMLINK => {
            let mut bytes = [0; 60];
            bytes[..target.len()].copy_from_slice(target);
            inode.size = target.len() as u64;
            inode.block = NewBlock::Bytes(bytes);
            return Ok(None);
        }
        Contents::Symlink(_) | Contents::Directory => {}
    }
    let group = geometry.locate_ino(ino).0;
    let block = core.volume.allocate_block_in(group, core.is_privileged())?;
    let at = block.offset();
    // The whole block in one aligned piece, which is what processors are quick at.
    core.pmem.zero(at, u64::from(block_size));
    if let Contents::Symlink(target) = contents {
        inode.size = target.len() as u64;
        core.pmem.write(at, target);
    } else {
        inode.size = u64::from(block_size);
        let dots = crate::dir::dot_entries(geometry, ino, parent.ino());
        core.pmem.write_words(Off::new(at), &dots);
    }
    core.pmem.flush(at, u64::from(block_size));
    inode.sectors = geometry.sectors_per_block();
    inode.block = NewBlock::First(block.run().start.get());
    Ok(Some(block))
}
