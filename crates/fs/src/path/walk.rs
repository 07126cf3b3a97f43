//! From a path to an inode.
//!
//! Rules, as POSIX and Linux have them: repeated slashes count as one; `.` is the directory itself; `..` of the root is
//! the root; a symlink on the way is followed, at most 40 of them in one walk; a trailing slash asks for a directory and
//! follows a symlink in last place; an empty path leads nowhere.
//!
//! # Locking
//! One directory is locked at a time, shared, for the look-up of one name. What a name leads to may change right after:
//! calls that change names look again under the lock. The root is in core for as long as the mount is, and a walk that
//! only passes it counts no reference to it.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Deref;

use ext2dax_format::{CorruptKind, Error, FileType, Ino, NAME_MAX, Result};

use crate::inode::{Attributes, Node};
use crate::mount::Mount;
use crate::ops;

/// Symlinks followed in one walk, as in Linux.
const MAX_SYMLINKS: u32 = 40;

/// What becomes of a symlink in last place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastLink {
    Follow,
    Keep,
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Last<'p> {
    Name(Cow<'p, [u8]>),
    Dot,
    DotDot,
    /// The path is nothing but slashes.
    Root,
}

/// An inode on the way: the root, which the mount keeps, or one that the walk keeps.
#[derive(Clone, Debug)]
pub(crate) enum Here<'m> {
    Root(&'m Arc<Node>),
    Kept(Arc<Node>),
}

impl Deref for Here<'_> {
    type Target = Arc<Node>;

    #[inline]
    fn deref(&self) -> &Arc<Node> {
        match self {
            Self::Root(node) => node,
            Self::Kept(node) => node,
        }
    }
}

impl Here<'_> {
    fn into_kept(self) -> Arc<Node> {
        match self {
            Self::Root(node) => Arc::clone(node),
            Self::Kept(node) => node,
        }
    }
}

/// The directory that holds the last component, and that component.
#[derive(Debug)]
pub(crate) struct Place<'m, 'p> {
    pub(crate) dir: Here<'m>,
    pub(crate) last: Last<'p>,
    /// A slash follows the last component.
    pub(crate) wants_dir: bool,
}

/// Where the last component of a path lies.
#[derive(Clone, Copy, Debug)]
struct Split {
    start: usize,
    /// Without the slashes behind it.
    end: usize,
}

impl Split {
    fn of(path: &[u8]) -> Self {
        let end = path.len() - path.iter().rev().take_while(|&&byte| byte == b'/').count();
        let slash = path[..end].iter().rposition(|&byte| byte == b'/');
        Self {
            start: slash.map_or(0, |slash| slash + 1),
            end,
        }
    }
}

impl<'m, 'p> Place<'m, 'p> {
    /// The last component of `path`, which `dir` holds.
    fn new(dir: Here<'m>, path: Cow<'p, [u8]>) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::NotADirectory);
        }
        let Split { start, end } = Split::of(&path);
        let wants_dir = end < path.len();
        let last = match &path[start..end] {
            b"" => Last::Root,
            b"." => Last::Dot,
            b".." => Last::DotDot,
            name if name.len() > NAME_MAX => return Err(Error::NameTooLong),
            _ => Last::Name(match path {
                Cow::Borrowed(path) => Cow::Borrowed(&path[start..end]),
                Cow::Owned(path) => Cow::Owned(path[start..end].to_vec()),
            }),
        };
        Ok(Self {
            dir,
            last,
            wants_dir,
        })
    }
}

impl Place<'_, '_> {
    /// The last component as the name of something to be made.
    ///
    /// # Errors
    /// `AlreadyExists` for `.`, `..` and the root.
    pub(crate) fn new_name(&self) -> Result<&[u8]> {
        self.name(Error::AlreadyExists)
    }

    /// The last component, if it is an ordinary name; else `otherwise`.
    ///
    /// # Errors
    /// `otherwise`.
    pub(crate) fn name(&self, otherwise: Error) -> Result<&[u8]> {
        match &self.last {
            Last::Name(name) => Ok(name),
            Last::Dot | Last::DotDot | Last::Root => Err(otherwise),
        }
    }
}

/// One walk: counts the symlinks it follows.
#[derive(Debug)]
pub(crate) struct Walk<'m> {
    mount: &'m Arc<Mount>,
    links_left: u32,
}

impl<'m> Walk<'m> {
    pub(crate) fn new(mount: &'m Arc<Mount>) -> Self {
        Self {
            mount,
            links_left: MAX_SYMLINKS,
        }
    }

    /// The root directory.
    ///
    /// # Errors
    /// `Corrupt` if it is no live directory.
    pub(crate) fn root(&self) -> Result<Here<'m>> {
        match &self.mount.root {
            Some(root) => Ok(Here::Root(root)),
            None => self
                .mount
                .inodes
                .get(&self.mount.core, Ino::ROOT)
                .map(Here::Kept),
        }
    }

    /// The inode that `path` leads to.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `TooManySymlinks`, `NameTooLong`, `Corrupt`.
    pub(crate) fn find(&mut self, path: &[u8], last: LastLink) -> Result<Arc<Node>> {
        let Split { start, .. } = Split::of(path);
        let found = match self.way(&path[..start])? {
            Some(dir) => self.find_from(dir, &path[start..], last),
            None => self.find_from(self.root()?, path, last),
        };
        found.map(Here::into_kept)
    }

    /// The same, a relative path beginning at `dir`.
    ///
    /// # Errors
    /// As [`Walk::find`].
    pub(crate) fn find_from(
        &mut self,
        dir: Here<'m>,
        path: &[u8],
        last: LastLink,
    ) -> Result<Here<'m>> {
        if path.is_empty() {
            return Err(Error::NotFound);
        }
        let mut here = self.start(dir, path)?;
        let mut components = Components(path);
        while let Some(component) = components.next() {
            let next = self.step(&here, component)?;
            let is_last = components.is_done();
            let keep = is_last && last == LastLink::Keep && !components.has_trailing_slash();
            here = if next.file_type() == FileType::Symlink && !keep {
                self.follow(here, &next)?
            } else {
                Here::Kept(next)
            };
        }
        if components.has_trailing_slash() && !here.is_dir() {
            return Err(Error::NotADirectory);
        }
        Ok(here)
    }

    /// The directory that holds the last component of `path`.
    ///
    /// # Errors
    /// As [`Walk::find`], for the components before the last.
    pub(crate) fn place<'p>(&mut self, path: &'p [u8]) -> Result<Place<'m, 'p>> {
        let path = Cow::Borrowed(path);
        match self.way(&path[..Split::of(&path).start])? {
            Some(dir) => Place::new(dir, path),
            None => self.place_from(self.root()?, path),
        }
    }

    /// The directory that `before`, the part of a path before its last component, leads to from the root; `None` if the
    /// way there is short, or winds too much to be remembered.
    ///
    /// # Errors
    /// As [`Walk::find`].
    fn way(&self, before: &[u8]) -> Result<Option<Here<'m>>> {
        let mut components = Components(before);
        if components.is_done() {
            return Ok(None);
        }
        let ways = &self.mount.ways;
        if let Some(node) = ways.find(before) {
            return Ok(Some(Here::Kept(node)));
        }
        let mut begun = ways.begin();
        let mut here = self.root()?;
        while let Some(name) = components.next() {
            if matches!(name, b"." | b"..") || name.len() > NAME_MAX {
                return Ok(None);
            }
            let next = ops::pass(self.mount, &here, name)?;
            if !next.is_dir() {
                return Ok(None);
            }
            begun.nodes.push(Arc::clone(&next));
            here = Here::Kept(next);
        }
        ways.remember(before, begun);
        Ok(Some(here))
    }

    /// The same, a relative path beginning at `dir`.
    ///
    /// # Errors
    /// As [`Walk::place`].
    pub(crate) fn place_from<'p>(
        &mut self,
        dir: Here<'m>,
        path: Cow<'p, [u8]>,
    ) -> Result<Place<'m, 'p>> {
        if path.is_empty() {
            return Err(Error::NotFound);
        }
        let before = &path[..Split::of(&path).start];
        let dir = if before.is_empty() {
            self.start(dir, &path)?
        } else {
            self.find_from(dir, before, LastLink::Follow)?
        };
        Place::new(dir, path)
    }

    /// The directories that hold the last components of both paths. Mostly they are one, and are found once.
    ///
    /// # Errors
    /// As [`Walk::place`].
    pub(crate) fn two_places<'p>(
        &mut self,
        first: &'p [u8],
        second: &'p [u8],
    ) -> Result<(Place<'m, 'p>, Place<'m, 'p>)> {
        let one = self.place(first)?;
        let before = &first[..Split::of(first).start];
        let other = if !second.is_empty() && before == &second[..Split::of(second).start] {
            Place::new(one.dir.clone(), Cow::Borrowed(second))?
        } else {
            Walk::new(self.mount).place(second)?
        };
        Ok((one, other))
    }

    /// What the last component of `place` leads to, a symlink itself.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`.
    pub(crate) fn find_last(&self, place: &Place<'_, '_>) -> Result<Arc<Node>> {
        match &place.last {
            Last::Name(name) => self.step(&place.dir, name),
            Last::Dot | Last::Root => Ok(Arc::clone(&place.dir)),
            Last::DotDot => self.step(&place.dir, b".."),
        }
    }

    /// The attributes of what `path` leads to, read where the inode lies: an inode that is not in core stays out of it.
    ///
    /// # Errors
    /// As [`Walk::find`].
    pub(crate) fn attributes(&mut self, path: &[u8], last: LastLink) -> Result<Attributes> {
        let place = self.place(path)?;
        if let Last::Name(name) = &place.last {
            let found = ops::attributes(self.mount, &place.dir, name)?;
            let follows = last == LastLink::Follow || place.wants_dir;
            if !(follows && found.file_type == FileType::Symlink) {
                return if place.wants_dir && found.file_type != FileType::Directory {
                    Err(Error::NotADirectory)
                } else {
                    Ok(found)
                };
            }
        }
        Walk::new(self.mount).find(path, last)?.attributes()
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// `TooManySymlinks` if it is one too many in this walk; `Corrupt`.
    pub(crate) fn target(&mut self, link: &Arc<Node>) -> Result<Box<[u8]>> {
        self.links_left = self
            .links_left
            .checked_sub(1)
            .ok_or(Error::TooManySymlinks)?;
        ops::read_link(self.mount, link)
    }

    fn follow(&mut self, dir: Here<'m>, link: &Arc<Node>) -> Result<Here<'m>> {
        let target = self.target(link)?;
        self.find_from(dir, &target, LastLink::Follow)
    }

    fn start(&self, dir: Here<'m>, path: &[u8]) -> Result<Here<'m>> {
        if path.first() == Some(&b'/') {
            self.root()
        } else {
            Ok(dir)
        }
    }

    fn step(&self, dir: &Arc<Node>, name: &[u8]) -> Result<Arc<Node>> {
        if name == b"." || name == b".." && dir.ino() == Ino::ROOT {
            return if dir.is_dir() {
                Ok(Arc::clone(dir))
            } else {
                Err(Error::NotADirectory)
            };
        }
        if name.len() > NAME_MAX {
            return Err(if dir.is_dir() {
                Error::NameTooLong
            } else {
                Error::NotADirectory
            });
        }
        ops::lookup(self.mount, dir, name)
    }
}

/// The components of a path, slashes left out.
struct Components<'p>(&'p [u8]);

impl<'p> Components<'p> {
    fn next(&mut self) -> Option<&'p [u8]> {
        let start = self.0.iter().position(|&byte| byte != b'/')?;
        let rest = &self.0[start..];
        let len = rest
            .iter()
            .position(|&byte| byte == b'/')
            .unwrap_or(rest.len());
        let (component, rest) = rest.split_at(len);
        self.0 = rest;
        Some(component)
    }

    fn is_done(&self) -> bool {
        self.0.iter().all(|&byte| byte == b'/')
    }

    /// After the last component: whether slashes follow it.
    fn has_trailing_slash(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Of a look-up that is repeated because the node found before was dead by the time it got a handle: it is another one.
/// Removing takes the name away before the directory is let go, so only on a damaged image does the name remain.
///
/// # Errors
/// `Corrupt(DeadInode)`.
pub(super) fn check_not_again(gone: Option<&Arc<Node>>, node: &Arc<Node>) -> Result<()> {
    if gone.is_some_and(|gone| Arc::ptr_eq(gone, node)) {
        let inode = node.ino().get();
        return Err(CorruptKind::DeadInode { inode }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components(path: &[u8]) -> (alloc::vec::Vec<&[u8]>, bool) {
        let mut rest = Components(path);
        let mut found = alloc::vec::Vec::new();
        while let Some(component) = rest.next() {
            found.push(component);
        }
        (found, rest.has_trailing_slash())
    }

    #[test]
    fn slashes_separate_and_never_count() {
        assert_eq!(components(b"a/b"), (alloc::vec![&b"a"[..], b"b"], false));
        assert_eq!(
            components(b"//a///b//"),
            (alloc::vec![&b"a"[..], b"b"], true)
        );
        assert_eq!(components(b"/"), (alloc::vec![], true));
        assert_eq!(components(b"."), (alloc::vec![&b"."[..]], false));
    }
}
