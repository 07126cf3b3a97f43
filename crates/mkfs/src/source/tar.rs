//! Archives as a source: ustar, pax and GNU tar, plain or packed with gzip, zstd or xz.
//!
//! The members of an archive that can be read anywhere stay where they are until the image is written. Those of a
//! stream are kept in a file without a name meanwhile, because the layout depends on all of them.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ext2dax_format::device::Device;
use ext2dax_format::{FileType, Timestamp};

use super::{Contents, Data, Piece, Reader, SourceError, Why};
use crate::attributes;
use crate::rules::Rules;
use crate::tree::{Attribute, Body, Meta, Node, Tree, components};

mod header;
mod input;
mod pax;
mod sparse;

use header::{Flavour, Header, UNIT};
use input::Input;
use pax::Extended;

/// Bytes of an extended header or long name; nothing sensible needs more.
const EXTENDED_MAX: i64 = 16 << 20;

/// A member of an archive.
struct Member {
    path: Vec<u8>,
    what: What,
    meta: Meta,
    attributes: Vec<Attribute>,
}

enum What {
    Body(Body),
    HardLink(Vec<u8>),
}

/// An archive while it is read.
struct Archive<'a> {
    input: Input,
    path: &'a Path,
    rules: &'a Rules,
    /// The number of its reader in the tree.
    reader: u32,
    /// Members so far.
    count: u64,
    /// Where the header of the current one started.
    start: u64,
    global: Extended,
}

impl Tree {
    /// Adds the members of a tar archive, plain or packed with gzip, zstd or xz; `-` is the standard input. A later member
    /// of a name replaces an earlier one. What cannot be read twice is kept in a nameless file in `spool` until the
    /// image is written.
    ///
    /// Owners are the archive's numbers; its names of users are not looked at.
    ///
    /// # Errors
    /// The member that cannot be read, or that ext2 cannot hold, with its number and place in the archive.
    ///
    /// # Panics
    /// Never: there are fewer than 2^32 sources.
    pub fn add_tar(
        &mut self,
        path: impl AsRef<Path>,
        rules: &Rules,
        spool: impl AsRef<Path>,
    ) -> Result<(), SourceError> {
        let path = path.as_ref();
        self.top(rules)?;
        let input = Input::open(path, spool.as_ref()).map_err(|e| SourceError::io(path, e))?;
        let mut archive = Archive {
            input,
            path,
            rules,
            reader: u32::try_from(self.readers.len()).expect("a few sources"),
            count: 0,
            start: 0,
            global: Extended::default(),
        };
        let mut members = Vec::new();
        while let Some(member) = archive.next()? {
            if !rules.excludes_path(&member.path) {
                members.push(member);
            }
        }
        let file = archive
            .input
            .finish()
            .map_err(|e| SourceError::io(path, e))?;
        self.readers.push(Reader {
            file,
            path: path.to_owned(),
        });
        if rules.whiteouts {
            members = self.white_out(members);
        }
        members
            .into_iter()
            .try_for_each(|member| self.add_member(member, rules))
    }

    /// Removes what the layer says is gone. That concerns earlier layers only, wherever it stands in this one.
    fn white_out(&mut self, members: Vec<Member>) -> Vec<Member> {
        let (marks, members): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| {
            let last = components(&member.path).last();
            last.is_some_and(|name| name.starts_with(super::WHITEOUT))
        });
        for mark in marks {
            if let Some((directory, name)) = crate::tree::split(&mark.path) {
                self.white_out_name(directory, name);
            }
        }
        members
    }

    fn add_member(&mut self, member: Member, rules: &Rules) -> Result<(), SourceError> {
        let Member {
            path,
            what,
            meta,
            attributes,
        } = member;
        match what {
            What::HardLink(target) => {
                if components(&path).eq(components(&target)) {
                    return Ok(());
                }
                self.hard_link(&path, &target)
            }
            What::Body(body) => {
                let mut node = Node {
                    meta,
                    body,
                    attributes,
                };
                let inside: Vec<&[u8]> = components(&path).collect();
                rules
                    .apply(&inside.join(&b'/'), &mut node)
                    .map_err(attributes::blame(&path))?;
                let id = self.put(&path, node.meta, node.body)?;
                self.node_mut(id).attributes = node.attributes;
                Ok(())
            }
        }
    }
}

impl Archive<'_> {
    fn wrong(&self, what: &'static str) -> SourceError {
        SourceError::new(
            self.path.as_os_str().as_bytes(),
            Why::Archive {
                member: self.count,
                at: self.start,
                what,
            },
        )
    }

    fn io(&self, error: io::Error) -> SourceError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.wrong("the archive is cut short"),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                self.wrong("the packed data is damaged")
            }
            _ => SourceError::io(self.path, error),
        }
    }

    /// The next member, with what the headers before it say.
    fn next(&mut self) -> Result<Option<Member>, SourceError> {
        let mut extended = self.global.clone();
        let (mut long_name, mut long_link) = (None, None);
        self.count += 1;
        loop {
            self.start = self.input.position();
            let unit = self.input.unit().map_err(|error| self.io(error))?;
            let Some(unit) = unit else {
                return Err(self.wrong("the archive ends without its end mark"));
            };
            let header = Header(&unit);
            if header.is_end() {
                return Ok(None);
            }
            if !header.sum_is_right() {
                return Err(self.wrong(if self.start == 0 {
                    "not a tar archive"
                } else {
                    "the checksum of the header is wrong"
                }));
            }
            match header.kind() {
                b'x' | b'X' => {
                    let bytes = self.extended(&header)?;
                    extended.read(&bytes).map_err(|what| self.wrong(what))?;
                }
                b'g' => {
                    let bytes = self.extended(&header)?;
                    self.global.read(&bytes).map_err(|what| self.wrong(what))?;
                    extended = self.global.clone();
                }
                b'L' => long_name = Some(self.long(&header)?),
                b'K' => long_link = Some(self.long(&header)?),
                // The label of a volume is no file.
                b'V' => {
                    self.extended(&header)?;
                }
                b'M' => return Err(self.wrong("a file goes on in another volume")),
                _ => {
                    extended.path = extended.sparse.name.take().or(extended.path).or(long_name);
                    extended.link = extended.link.or(long_link);
                    return self.member(&header, extended).map(Some);
                }
            }
        }
    }

    fn extended(&mut self, header: &Header<'_>) -> Result<Vec<u8>, SourceError> {
        let size = header
            .size()
            .filter(|size| (0..=EXTENDED_MAX).contains(size));
        let size = size.ok_or_else(|| self.wrong("the size of an extended header is wrong"))?;
        let size = usize::try_from(size).expect("checked");
        self.input.bytes(size).map_err(|error| self.io(error))
    }

    fn long(&mut self, header: &Header<'_>) -> Result<Vec<u8>, SourceError> {
        let mut bytes = self.extended(header)?;
        if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
            bytes.truncate(end);
        }
        Ok(bytes)
    }

    fn member(
        &mut self,
        header: &Header<'_>,
        mut extended: Extended,
    ) -> Result<Member, SourceError> {
        let name = extended.path.take().unwrap_or_else(|| header.name());
        if name.is_empty() {
            return Err(self.wrong("a member without a name"));
        }
        let link = extended.link.take().unwrap_or_else(|| header.link());
        let size = extended.size.or_else(|| header.size());
        let size = size.and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| self.wrong("the size of a member is wrong"))?;
        let meta = self.meta(header, &extended)?;
        let attributes = self.attributes(&extended)?;
        let old = header.flavour() == Flavour::Old;
        let kind = match header.kind() {
            // Before there was a type for them, directories were files whose name ends like this.
            b'0' | 0 if old && name.ends_with(b"/") => b'5',
            kind => kind,
        };
        let what = match kind {
            b'0' | 0 | b'7' | b'S' => What::Body(self.regular(header, &extended, size)?),
            b'1' => {
                self.input.keep(size).map_err(|error| self.io(error))?;
                What::HardLink(self.below(&link))
            }
            b'2' => {
                self.input.keep(size).map_err(|error| self.io(error))?;
                if link.is_empty() {
                    return Err(self.wrong("a symbolic link to nothing"));
                }
                What::Body(Body::Symlink(link.into()))
            }
            b'3' | b'4' | b'6' => {
                self.input.keep(size).map_err(|error| self.io(error))?;
                What::Body(self.special(header, &extended)?)
            }
            // GNU's incremental archives list the names of a directory as its contents.
            b'5' | b'D' => {
                self.input.keep(size).map_err(|error| self.io(error))?;
                What::Body(Body::Directory(BTreeMap::new()))
            }
            _ => return Err(self.wrong("a member of an unknown type")),
        };
        Ok(Member {
            path: self.below(&name),
            what,
            meta,
            attributes,
        })
    }

    /// A path of the archive, below the prefix.
    fn below(&self, path: &[u8]) -> Vec<u8> {
        super::directory::join(self.rules.prefix(), path)
    }

    fn meta(&self, header: &Header<'_>, extended: &Extended) -> Result<Meta, SourceError> {
        let id = |from: Option<i64>| from.and_then(|id| u32::try_from(id).ok());
        let owner = || self.wrong("the owner of a member is out of range");
        let mode = header
            .mode()
            .and_then(|mode| u16::try_from(mode & 0o7777).ok());
        let time: Option<Timestamp> = extended.time.or_else(|| header.time());
        Ok(Meta {
            mode: mode.ok_or_else(|| self.wrong("the mode of a member cannot be read"))?,
            uid: id(extended.uid.or_else(|| header.uid())).ok_or_else(owner)?,
            gid: id(extended.gid.or_else(|| header.gid())).ok_or_else(owner)?,
            time: Some(time.ok_or_else(|| self.wrong("the time of a member cannot be read"))?),
        })
    }

    fn attributes(&self, extended: &Extended) -> Result<Vec<Attribute>, SourceError> {
        let mut all: Vec<Attribute> = Vec::new();
        let mut add = |name: &[u8], value: &[u8]| {
            if !self.rules.wants_attribute(name) {
                return Ok(());
            }
            let attribute = attributes::from_linux(name, value)?;
            // A record of the member replaces one for all members.
            all.retain(|old| old.order() != attribute.order());
            all.push(attribute);
            Ok(())
        };
        let blame = |why| SourceError::new(self.path.as_os_str().as_bytes(), why);
        for (name, value) in &extended.attributes {
            add(name, value).map_err(blame)?;
        }
        let names = ["system.posix_acl_access", "system.posix_acl_default"];
        for (name, text) in names.iter().zip(&extended.acls) {
            let name = name.as_bytes();
            // The binary form says the same in numbers.
            let told = extended.attributes.iter().any(|(told, _)| told == name);
            if let Some(text) = text.as_ref().filter(|_| !told) {
                let value = pax::acl(text).ok_or_else(|| {
                    self.wrong("an access control list without numbers of users and groups")
                })?;
                add(name, &value).map_err(blame)?;
            }
        }
        all.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
        Ok(all)
    }

    fn special(&self, header: &Header<'_>, extended: &Extended) -> Result<Body, SourceError> {
        if header.kind() == b'6' {
            return Ok(Body::Fifo);
        }
        let (major, minor) = header.device();
        let number = |from: Option<i64>| from.and_then(|nr| u32::try_from(nr).ok());
        let major = number(extended.device.0.or(major));
        let minor = number(extended.device.1.or(minor));
        let device = major
            .zip(minor)
            .map(|(major, minor)| Device { major, minor });
        let device = device.filter(|device| device.encode().is_some());
        let device = device.ok_or_else(|| self.wrong("a device number is out of range"))?;
        let kind = if header.kind() == b'3' {
            FileType::CharDevice
        } else {
            FileType::BlockDevice
        };
        Ok(Body::Device(kind, device))
    }

    /// A regular file: one piece, or those of a sparse one.
    fn regular(
        &mut self,
        header: &Header<'_>,
        extended: &Extended,
        size: u64,
    ) -> Result<Body, SourceError> {
        let map = self.sparse_map(header, extended, size)?;
        let kept = size - map.as_ref().map_or(0, |map| map.units * UNIT as u64);
        let at = self.input.keep(kept).map_err(|error| self.io(error))?;
        let (size, pieces) = match map {
            None => (
                size,
                vec![Piece {
                    offset: 0,
                    len: size,
                    at,
                }],
            ),
            Some(map) => {
                let (size, pieces) = (map.size, map.pieces(at, kept));
                (size, pieces.map_err(|what| self.wrong(what))?)
            }
        };
        let data = Data::Pieces(self.reader, pieces.into());
        Ok(Body::Regular(Contents::new(size, data)))
    }
}
