//! Single changes of a directory: write an entry aside, publish it, take one out, let one lead elsewhere.
//!
//! Nothing here fences. Each step stores and flushes; the operation closes the epoch. An operation that fails after
//! staging just drops what it staged: bytes in slack carry no meaning.

use ext2dax_format::dirent::{MIN_LEN, encode_len, needed_len};
use ext2dax_format::slot::EntryPlace;
use ext2dax_format::{CorruptKind, Error, FileBlock, FileType, Geometry, Ino, Result};
use ext2dax_getblock::{Branch, Hints};
use zerocopy::little_endian::{U16, U32, U64};

use super::Dir;
use super::index::Header;
use super::names::{Found, Place};

/// No directory grows beyond this many bytes: its size is a 32-bit field, and other drivers read it as signed.
const MAX_SIZE: u64 = 0x7FFF_FFFF;

/// An entry that is written but not visible.
#[derive(Debug)]
#[must_use]
pub(crate) struct Staged<'a> {
    place: Place,
    header: Header,
    hash: u32,
    way: Way<'a>,
}

/// The one store that makes a staged entry visible.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one lives at a time, on the stack; a box would cost every creation an allocation"
)]
enum Way<'a> {
    /// It lies in the slack of the entry before it, whose length is shortened.
    Slack { previous: Place },
    /// It lies in an empty entry, whose inode number is set.
    Empty,
    /// It lies in a block that the directory does not have yet.
    Grow(Branch<'a>),
}

impl Staged<'_> {
    /// Where the entry lies.
    pub(crate) fn place(&self) -> EntryPlace {
        self.place.into()
    }

    /// Whether publishing adds a block, so that the operation cannot give life in the same epoch.
    pub(crate) fn grows(&self) -> bool {
        matches!(self.way, Way::Grow(_))
    }
}

/// The entries of a new directory's only block: `.`, and `..` to its end. What lies behind these bytes is zero.
pub(crate) fn dot_entries(geometry: &Geometry, own: Ino, parent: Ino) -> [U64; 3] {
    let kind = if geometry.has_filetype() {
        FileType::Directory.dirent()
    } else {
        0
    };
    let dot = Header {
        ino: own.get(),
        rec_len: MIN_LEN,
        name_len: 1,
        kind,
    };
    let dot_dot = Header {
        ino: parent.get(),
        rec_len: geometry.block_size() - MIN_LEN,
        name_len: 2,
        kind,
    };
    // An entry is 12 bytes long here: the header of the second begins in the middle of a word.
    let (first, second) = (head(dot), head(dot_dot));
    let words = [
        first,
        u64::from(b'.') | second << 32,
        second >> 32 | u64::from(u16::from_le_bytes(*b"..")) << 32,
    ];
    words.map(U64::new)
}

/// The eight bytes before an entry's name, as a word.
fn head(header: Header) -> u64 {
    u64::from(header.ino)
        | u64::from(encode_len(header.rec_len)) << 32
        | u64::from(header.name_len) << 48
        | u64::from(header.kind) << 56
}

/// The header of an entry, and the zeroes behind its name up to the length that it needs. They are written as they are, with
/// the name in between: see [`Pmem::write_words`](ext2dax_pmem::Pmem::write_words).
pub(super) fn frame(header: Header, name: &[u8]) -> ([u8; 8], &'static [u8]) {
    let pad = needed_len(name.len()) as usize - 8 - name.len();
    (head(header).to_le_bytes(), &[0; 4][..pad])
}

/// The bytes of an entry: header and name, padded with zeroes to its needed length.
pub(super) fn body(header: Header, name: &[u8]) -> ([u8; 264], usize) {
    let mut bytes = [0; 264];
    bytes[..8].copy_from_slice(&head(header).to_le_bytes());
    bytes[8..8 + name.len()].copy_from_slice(name);
    (bytes, needed_len(name.len()) as usize)
}

pub(super) fn name_len(name: &[u8]) -> u8 {
    u8::try_from(name.len()).expect("names were checked to have at most 255 bytes")
}

impl<'a> Dir<'a> {
    /// Writes an entry for `name` where nobody looks, growing the directory if it is full. Flushed, not fenced.
    ///
    /// # Errors
    /// `NoSpace`, `FileTooLarge` when the directory would have to grow; nothing has changed.
    pub(crate) fn stage(&mut self, name: &[u8], ino: u32, kind: u8) -> Result<Staged<'a>> {
        match self.index().gaps.find(needed_len(name.len())) {
            Some((block, offset)) => Ok(self.stage_at(Place { block, offset }, name, ino, kind)),
            None => self.stage_block(name, ino, kind),
        }
    }

    /// Writes an entry into the gap of the entry at `host`, which is large enough.
    pub(super) fn stage_at(&self, host: Place, name: &[u8], ino: u32, kind: u8) -> Staged<'a> {
        let pmem = &self.core.pmem;
        let index = self.index();
        let found = index.header(pmem, host);
        let (place, way) = if found.ino == 0 {
            (host, Way::Empty)
        } else {
            (
                Place {
                    offset: host.offset + found.used(),
                    ..host
                },
                Way::Slack { previous: host },
            )
        };
        let header = Header {
            ino,
            rec_len: found.free(),
            name_len: name_len(name),
            kind,
        };
        let (head, pad) = frame(header, name);
        // The number and the length of an empty entry stand already, and are what other readers see: the number is
        // stored when the entry is published.
        let skip: u8 = if found.ino == 0 { 6 } else { 0 };
        let at = index.at(place);
        let parts = [&head[usize::from(skip)..], name, pad];
        pmem.write_parts(at + u64::from(skip), &parts);
        pmem.flush(at, u64::from(needed_len(name.len())));
        Staged {
            place,
            header,
            hash: index.names.hash(name),
            way,
        }
    }

    /// A block where the directory's size says that there is none is damage, not a name that is taken.
    pub(super) fn mapped_past_end(&self, error: Error, file_block: u32) -> Error {
        match error {
            Error::AlreadyExists => CorruptKind::DirectoryPastEnd {
                inode: self.node.ino().get(),
                file_block,
            }
            .into(),
            other => other,
        }
    }

    fn stage_block(&self, name: &[u8], ino: u32, kind: u8) -> Result<Staged<'a>> {
        let core = self.core;
        let index = self.index();
        let block_size = index.block_size;
        let block = index.block_count();
        if u64::from(block + 1) * u64::from(block_size) > MAX_SIZE {
            return Err(Error::FileTooLarge);
        }
        let tree = self.node.tree();
        let hints = Hints {
            goal: None,
            privileged: self.core.is_privileged(),
        };
        let branch = tree
            .prepare(&mut tree.lock(), FileBlock(block), 1, hints)
            .map_err(|error| self.mapped_past_end(error, block))?;
        let header = Header {
            ino,
            rec_len: block_size,
            name_len: name_len(name),
            kind,
        };
        let (bytes, len) = body(header, name);
        let at = branch.data_offset();
        core.pmem.write(at, &bytes[..len]);
        core.pmem
            .zero(at + len as u64, u64::from(block_size) - len as u64);
        core.pmem.flush(at, u64::from(block_size));
        Ok(Staged {
            place: Place { block, offset: 0 },
            header,
            hash: index.names.hash(name),
            way: Way::Grow(branch),
        })
    }

    /// Makes a staged entry visible. Flushed, not fenced, but for one case: a pointer and the directory's size that do
    /// not lie in one line need a fence between them.
    pub(crate) fn publish(&mut self, staged: Staged<'_>) {
        let pmem = &self.core.pmem;
        let Staged {
            place,
            header,
            hash,
            way,
        } = staged;
        match way {
            Way::Slack { previous } => {
                let index = self.index();
                // PUBLISH: the name appears. Before: bytes in slack. After: an entry, complete since the last fence.
                let at = index.rec_len_off(previous);
                pmem.store(at, U16::new(encode_len(place.offset - previous.offset)));
                pmem.flush(at.at(), 2);
                let index = self.index_mut();
                index.gaps.set(previous.block, previous.offset, 0);
                index.note(place, header);
            }
            Way::Empty => {
                let at = self.index().ino_off(place);
                // PUBLISH: the name appears. Before: an empty entry. After: a live one, complete since the last fence.
                pmem.store(at, U32::new(header.ino));
                pmem.flush(at.at(), 4);
                self.index_mut().note(place, header);
            }
            Way::Grow(branch) => {
                self.publish_block(place.block, branch);
                self.index_mut().note(place, header);
            }
        }
        let index = self.index_mut();
        index
            .names
            .insert(hash, place, header.ino, header.kind, header.name_len);
        index.entries += 1;
    }

    /// Appends a block to the directory. Flushed, not fenced, but for what [`Dir::publish`] says.
    pub(super) fn publish_block(&mut self, block: u32, branch: Branch<'_>) {
        let record = self.node.record();
        let pmem = &self.core.pmem;
        let at = branch.data_offset();
        let one_line = branch.in_first_line();
        let tree = self.node.tree();
        // PUBLISH: the block is reachable. Before: a leaked block. After: a block past the directory's size, which
        // checkers take in by raising the size; its one name leads to a dead inode until the operation gives life.
        tree.splice(&mut tree.lock(), branch);
        if !one_line {
            pmem.fence();
        }
        let size = (block + 1) * self.index().block_size;
        // PUBLISH: the directory's size covers the block; see above for the state without this store.
        pmem.store(record.size_low_at(), U32::new(size));
        record.flush_line0();
        self.index_mut().push_block(at);
    }

    /// Takes an entry out with one store. Flushed, not fenced.
    pub(crate) fn erase(&mut self, found: &Found) {
        let pmem = &self.core.pmem;
        let place = found.place;
        let index = self.index();
        let header = index.header(pmem, place);
        if let Some(previous) = index.previous(place) {
            let before = index.header(pmem, previous);
            let merged = Header {
                rec_len: before.rec_len + header.rec_len,
                ..before
            };
            let at = index.rec_len_off(previous);
            // PUBLISH: the name goes. Before: it stands. After: its bytes are slack of the entry before it.
            pmem.store(at, U16::new(encode_len(merged.rec_len)));
            pmem.flush(at.at(), 2);
            let index = self.index_mut();
            index.forget(place);
            index.note(previous, merged);
        } else {
            let at = index.ino_off(place);
            // PUBLISH: the name goes. Before: it stands. After: the first entry of the block is empty.
            pmem.store(at, U32::new(0));
            pmem.flush(at.at(), 4);
            self.index_mut().note(place, Header { ino: 0, ..header });
        }
        let index = self.index_mut();
        index.names.remove(found);
        index.entries -= 1;
    }

    /// Lets an entry lead to another inode with one store. Flushed, not fenced. The type byte is the caller's: see
    /// [`Dir::set_kind`].
    pub(crate) fn redirect(&mut self, found: &Found, ino: u32, kind: u8) {
        let at = self.index().ino_off(found.place);
        // PUBLISH: the name leads to another inode. Before: to the old one. After: to the new one.
        self.core.pmem.store(at, U32::new(ino));
        self.core.pmem.flush(at.at(), 4);
        self.index_mut().names.redirect(found, ino, kind);
    }

    /// Sets the type byte of an entry (rule R12: 0 before a redirection changes the type, the new one after it).
    /// Flushed, not fenced.
    pub(crate) fn set_kind(&self, found: &Found, kind: u8) {
        let at = self.index().kind_off(found.place);
        self.core.pmem.store(at, kind);
        self.core.pmem.flush(at.at(), 1);
    }
}
