//! What a rename is asked to do, which locks it takes, and which row of the order table it follows.

use alloc::sync::Arc;
use alloc::vec::Vec;

use ext2dax_format::slot::{EntryPlace, Intent, Operation};
use ext2dax_format::{CorruptKind, Error, Ino, LINK_MAX, Result};
use ext2dax_sync::{RwLockWriteGuard, mutant};

use super::unlink::{self, Ending};
use super::{check_name, named, rename_dir, rename_file, temporary};
use crate::dir::{self, Change, Dir, Found};
use crate::inode::Node;
use crate::inode::lifetime::Remains;
use crate::mount::Mount;
use crate::xattr;

/// What happens to a file that has the new name already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameFlags {
    /// It is replaced, atomically: at every moment the name leads to one of the two.
    #[default]
    Replace,
    /// It stays, and the rename fails with `AlreadyExists`.
    NoReplace,
    /// The two swap places; both must exist.
    Exchange,
}

/// The directories of a rename, locked.
pub(super) enum Dirs<'a> {
    Same(Dir<'a>),
    Two { from: Dir<'a>, to: Dir<'a> },
}

impl<'a> Dirs<'a> {
    pub(super) fn from(&mut self) -> &mut Dir<'a> {
        match self {
            Self::Same(dir) => dir,
            Self::Two { from, .. } => from,
        }
    }

    pub(super) fn to(&mut self) -> &mut Dir<'a> {
        match self {
            Self::Same(dir) => dir,
            Self::Two { to, .. } => to,
        }
    }

    pub(super) fn are_same(&self) -> bool {
        matches!(self, Self::Same(_))
    }

    /// What the next mount needs to know of a rename. The counts are those of now.
    pub(super) fn intent(
        &mut self,
        operation: Operation,
        source: &Source<'_>,
        target: Option<&Target<'_>>,
        to_place: EntryPlace,
    ) -> Intent {
        let links = |node: &Node| node.record().links();
        Intent {
            subject: source.node.ino().get(),
            subject_links: links(source.node),
            other: target.map_or(0, |target| target.node.ino().get()),
            other_links: target.map_or(0, |target| links(target.node)),
            from: self.from().node.ino().get(),
            from_place: source.found.place.into(),
            from_links: links(self.from().node),
            to: self.to().node.ino().get(),
            to_place,
            to_links: links(self.to().node),
            ..Intent::new(operation)
        }
    }

    /// Settles what intents may say of the two as parents. Flushed.
    pub(super) fn settle_counts(&mut self) {
        let core = self.from().core;
        core.slots.settle(self.from().node.record().parent_mark());
        if !self.are_same() {
            core.slots.settle(self.to().node.record().parent_mark());
        }
    }

    /// Both directories' times, in the epoch that is open. Flushed.
    pub(super) fn touch(&mut self) {
        self.from().node.record().touch_modified();
        if !self.are_same() {
            self.to().node.record().touch_modified();
        }
    }
}

/// What moves: its name, and the inode, whose lock is held.
pub(super) struct Source<'a> {
    pub(super) found: Found,
    pub(super) node: &'a Arc<Node>,
}

/// What stands at the new name, if anything does.
pub(super) struct Target<'a> {
    pub(super) found: Found,
    pub(super) node: &'a Arc<Node>,
}

/// Moves `name` in `from` to `new_name` in `to`, over what is there if that can be replaced.
///
/// # Errors
/// See [`rename_with`].
pub(crate) fn rename(
    mount: &Arc<Mount>,
    from: &Node,
    name: &[u8],
    to: &Node,
    new_name: &[u8],
) -> Result<()> {
    rename_with(mount, from, name, to, new_name, RenameFlags::Replace)
}

/// Moves a name.
///
/// # Errors
/// `NotFound`; `AlreadyExists` with `NoReplace`; `InvalidArgument` if a directory would go into itself; `NotADirectory`,
/// `IsADirectory` if only one of the two is a directory; `DirectoryNotEmpty`; `Busy` for `.` and `..`; `TooManyLinks`;
/// `NotPermitted` by a flag; `InvalidName`, `NameTooLong`, `NoSpace`, `ReadOnlyFs`, `Corrupt`. Nothing has changed then.
pub(crate) fn rename_with(
    mount: &Arc<Mount>,
    from: &Node,
    name: &[u8],
    to: &Node,
    new_name: &[u8],
    flags: RenameFlags,
) -> Result<()> {
    let core = &mount.core;
    core.writable()?;
    check_name(name, Error::Busy)?;
    // A new name that is too long is complained of behind a source that is not there, as in Linux.
    match check_name(new_name, Error::Busy) {
        Err(Error::NameTooLong) => {}
        other => other?,
    }
    loop {
        if attempt(mount, from, name, to, new_name, flags)? == Attempt::Complete {
            return Ok(());
        }
        // The temporary links are set up with no lock held; once.
        temporary::set_up(mount)?;
    }
}

/// Whether a rename came to its end.
pub(super) enum Done<'a> {
    Yes,
    /// It did, and the file that it replaced lost its last name: what is left is to end it.
    Replaced(Ending, Remains<'a>),
    /// Nothing has changed; a temporary link is needed, and there are none yet.
    NeedsTemporary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Complete,
    NeedsTemporary,
}

fn attempt(
    mount: &Mount,
    from: &Node,
    name: &[u8],
    to: &Node,
    new_name: &[u8],
    flags: RenameFlags,
) -> Result<Attempt> {
    let core = &mount.core;
    let _writing = core.gates.write.enter();
    let same = core::ptr::eq(from, to);
    // Only a name that changes its directory can change the tree, and only one does at a time.
    let tree = if same || mutant("renames without RENAME") {
        None
    } else {
        Some(mount.rename.lock())
    };
    let family = if same {
        Family::default()
    } else {
        Family::of(mount, from, to)?
    };
    let mut dirs = lock_dirs(mount, from, to, &family)?;
    let source_found = dirs.from().find(name).ok_or(Error::NotFound)?;
    check_name(new_name, Error::Busy)?;
    let target_found = dirs.to().find(new_name);
    let source_node = named(mount, source_found.ino)?;
    let target_node = target_found
        .map(|found| named_or_dead(mount, &found))
        .transpose()?;
    check_kinds(&source_node, target_node.as_ref(), flags, &family, from, to)?;
    if target_node
        .as_ref()
        .is_some_and(|node| Arc::ptr_eq(node, &source_node))
    {
        // Two names of one file: POSIX wants nothing done.
        return Ok(Attempt::Complete);
    }
    if flags == RenameFlags::Exchange && target_node.is_none() {
        return Err(Error::NotFound);
    }
    check_flags(&mut dirs, &source_node, target_node.as_ref())?;
    check_types(&source_node, target_node.as_ref(), flags)?;
    let _locks = lock_files(&source_node, target_node.as_ref());
    unlink::check_removable(&source_node)?;
    dirs.from().begin_change(Change::Remove)?;
    let source = Source {
        found: source_found,
        node: &source_node,
    };
    let target = target_found
        .zip(target_node.as_ref())
        .map(|(found, node)| Target { found, node });
    match &target {
        None => dirs.to().begin_change(Change::Add)?,
        Some(target) => {
            unlink::check_removable(target.node)?;
            dirs.to().begin_change(Change::Remove)?;
        }
    }
    if source_node.is_dir()
        && !same
        && target.is_none()
        && dirs.to().node.record().links() >= LINK_MAX
    {
        return Err(Error::TooManyLinks);
    }
    if let Some(target) = &target
        && flags != RenameFlags::Exchange
        && !target.node.is_dir()
        && target.node.record().links() <= 1
    {
        xattr::make_private(target.node);
    }
    core.slots.settle(source_node.record().mark());
    mount.ways.leave(&source_node);
    if let Some(target) = &target {
        mount.ways.leave(target.node);
        core.slots.settle(target.node.record().mark());
    }
    let done = match (flags, target) {
        (RenameFlags::Exchange, Some(target)) => exchange(mount, &mut dirs, &source, &target)?,
        (RenameFlags::Exchange, None) => return Err(Error::NotFound),
        (_, target) if source_node.is_dir() => {
            rename_dir::rename(mount, &mut dirs, &source, target.as_ref(), new_name)?;
            Done::Yes
        }
        (_, None) => {
            rename_file::rename(mount, &mut dirs, &source, new_name)?;
            Done::Yes
        }
        (_, Some(target)) => rename_file::rename_over(mount, &mut dirs, &source, &target)?,
    };
    // The directories are free again while the blocks of a replaced file are freed.
    drop((dirs, tree));
    match (done, &target_node) {
        (Done::NeedsTemporary, _) => return Ok(Attempt::NeedsTemporary),
        (Done::Replaced(ending, remains), Some(node)) => ending.finish(mount, node, remains),
        _ => {}
    }
    Ok(Attempt::Complete)
}

fn exchange<'a>(
    mount: &Mount,
    dirs: &mut Dirs<'_>,
    source: &Source<'_>,
    target: &Target<'a>,
) -> Result<Done<'a>> {
    if rename_file::exchange_in_place(mount, dirs, source, target)? {
        return Ok(Done::Yes);
    }
    if source.node.is_dir() || target.node.is_dir() {
        rename_dir::exchange(mount, dirs, source, target)?;
        return Ok(Done::Yes);
    }
    rename_file::exchange(mount, dirs, source, target)
}

/// The target of a rename. A name that leads to a dead inode is residue of a crash and in the way: it is for a checker.
fn named_or_dead(mount: &Mount, found: &Found) -> Result<Arc<Node>> {
    match named(mount, found.ino) {
        Err(Error::NotFound) => Err(Error::NeedsFsck),
        other => other,
    }
}

fn check_kinds(
    source: &Arc<Node>,
    target: Option<&Arc<Node>>,
    flags: RenameFlags,
    family: &Family,
    from: &Node,
    to: &Node,
) -> Result<()> {
    // A damaged directory may name itself; its lock is held.
    if core::ptr::eq(&**source, from) {
        return Err(CorruptKind::DirectoryDots {
            inode: from.ino().get(),
        }
        .into());
    }
    // Whether there must be a target is asked before where the two lie, as in Linux.
    match (flags, target) {
        (RenameFlags::NoReplace, Some(_)) => return Err(Error::AlreadyExists),
        (RenameFlags::Exchange, None) => return Err(Error::NotFound),
        _ => {}
    }
    if source.is_dir()
        && (core::ptr::eq(&**source, to) || family.above_to.contains(&source.ino().get()))
    {
        return Err(Error::InvalidArgument);
    }
    let Some(target) = target else { return Ok(()) };
    if core::ptr::eq(&**target, to) {
        return Err(CorruptKind::DirectoryDots {
            inode: to.ino().get(),
        }
        .into());
    }
    let above_source =
        core::ptr::eq(&**target, from) || family.above_from.contains(&target.ino().get());
    match flags {
        RenameFlags::Exchange if above_source => Err(Error::InvalidArgument),
        RenameFlags::Exchange => Ok(()),
        // It holds the source: that is the first complaint, as in Linux.
        _ if above_source => Err(Error::DirectoryNotEmpty),
        _ => Ok(()),
    }
}

/// Flags of directories and files that keep names where they are.
fn check_flags(dirs: &mut Dirs<'_>, source: &Node, target: Option<&Arc<Node>>) -> Result<()> {
    dirs.from().check_change(Change::Remove)?;
    unlink::check_flags(source)?;
    let Some(target) = target else {
        return dirs.to().check_change(Change::Add);
    };
    dirs.to().check_change(Change::Remove)?;
    unlink::check_flags(target)
}

/// A directory replaces a directory, and nothing else does.
fn check_types(source: &Node, target: Option<&Arc<Node>>, flags: RenameFlags) -> Result<()> {
    match target {
        Some(target) if flags != RenameFlags::Exchange => {
            match (source.is_dir(), target.is_dir()) {
                (true, false) => Err(Error::NotADirectory),
                (false, true) => Err(Error::IsADirectory),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// The directories above the two of a rename, themselves excluded.
#[derive(Debug, Default)]
struct Family {
    above_from: Vec<u32>,
    above_to: Vec<u32>,
}

impl Family {
    /// The caller holds RENAME, so the answer stays true, and no INODE lock.
    fn of(mount: &Mount, from: &Node, to: &Node) -> Result<Self> {
        Ok(Self {
            above_from: ancestors(mount, from)?,
            above_to: ancestors(mount, to)?,
        })
    }
}

/// Inode numbers of the directories above `node`, nearest first.
///
/// # Errors
/// `Corrupt` if they go in a circle or one has no `..`.
fn ancestors(mount: &Mount, node: &Node) -> Result<Vec<u32>> {
    let mut above: Vec<u32> = Vec::new();
    let mut current: Option<Arc<Node>> = None;
    loop {
        let at = current.as_deref().unwrap_or(node);
        if at.ino() == Ino::ROOT {
            return Ok(above);
        }
        let wrong = Error::Corrupt(CorruptKind::DirectoryDots {
            inode: at.ino().get(),
        });
        let parent = match dir::lookup(at, b"..", |found| named(mount, found.ino)) {
            // A directory that was removed has no way up.
            Err(Error::NotFound) if at.is_removed() => return Err(Error::NotFound),
            Err(Error::NotFound) => return Err(wrong),
            other => other?,
        };
        let number = parent.ino().get();
        if number == node.ino().get() || above.contains(&number) || !parent.is_dir() {
            return Err(wrong);
        }
        above.push(number);
        current = Some(parent);
    }
}

fn lock_dirs<'a>(
    mount: &'a Mount,
    from: &'a Node,
    to: &'a Node,
    family: &Family,
) -> Result<Dirs<'a>> {
    let core = &*mount.core;
    if core::ptr::eq(from, to) {
        return Ok(Dirs::Same(Dir::lock(core, from)?));
    }
    let as_named = mutant("directories locked as they are named");
    let from_first = if as_named || family.above_to.contains(&from.ino().get()) {
        true
    } else if family.above_from.contains(&to.ino().get()) {
        false
    } else {
        from.ino() < to.ino()
    };
    if from_first {
        let from = Dir::lock(core, from)?;
        Ok(Dirs::Two {
            from,
            to: Dir::lock_nested(core, to)?,
        })
    } else {
        let to = Dir::lock(core, to)?;
        Ok(Dirs::Two {
            from: Dir::lock_nested(core, from)?,
            to,
        })
    }
}

type Guard<'a> = RwLockWriteGuard<'a, dir::Slot>;

/// Locks what moves and what is replaced, by number: neither is above the other. Directories among them are locked by
/// who changes them.
fn lock_files<'a>(
    source: &'a Arc<Node>,
    target: Option<&'a Arc<Node>>,
) -> (Option<Guard<'a>>, Option<Guard<'a>>) {
    let lock = |node: &'a Arc<Node>| (!node.is_dir()).then(|| node.lock.write_nested());
    match target {
        Some(target) if target.ino() < source.ino() => {
            let first = lock(target);
            (lock(source), first)
        }
        _ => (lock(source), target.and_then(lock)),
    }
}
