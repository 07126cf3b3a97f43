//! One directory block: its entries, one by one.

use ext2dax_pmem::Buffer;
use hashbrown::HashSet;

use super::htree::Index;
use super::names::Names;
use super::{DirBlock, DirScan};
use crate::census::{Dir, Kind};
use crate::dirs;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::inodes::Links;
use crate::layout::{Layout, ROOT_INO};
use crate::problem::Code;
use crate::scan::Subject;

/// Bytes of a directory that are read at a time.
const ROOM: usize = 64 << 10;

/// Buffers of one thread, and what is known of the directory in hand.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Some neighbouring blocks of the directory.
    bytes: Buffer,
    block_size: usize,
    names: Names,
    pub(super) links: Links,
}

impl Scratch {
    pub(super) fn new(layout: &Layout, links: Links) -> Self {
        Self {
            bytes: Buffer::default(),
            block_size: layout.block_size as usize,
            names: Names::new(),
            links,
        }
    }

    /// Starts on a directory of so many blocks.
    pub(super) fn start_dir(&mut self, blocks: usize) {
        self.names.start(blocks.saturating_mul(self.block_size));
    }

    /// Reads the first of `blocks` and those that follow it on the medium too, as far as there is room for them; answers
    /// how many.
    pub(super) fn read(&mut self, subject: &Subject<'_>, blocks: &[DirBlock]) -> usize {
        let most = (ROOM / self.block_size).max(1);
        let row = blocks.windows(2).take(most - 1);
        let count = 1 + row
            .take_while(|pair| matches!(pair, [a, b] if a.block.checked_add(1) == Some(b.block)))
            .count();
        if let Some(first) = blocks.first() {
            self.bytes.resize(count * self.block_size);
            let at = subject.scan.volume.layout.at(first.block);
            subject.scan.image.read(at, &mut self.bytes);
        }
        count
    }
}

/// An entry of a block that has been read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'b> {
    pub(crate) offset: usize,
    pub(crate) ino: u32,
    pub(crate) rec_len: usize,
    pub(crate) file_type: u8,
    pub(crate) name: &'b [u8],
}

impl<'b> Entry<'b> {
    /// The entry at `offset`; `None` if its lengths cannot be.
    #[inline]
    pub(crate) fn parse(bytes: &'b [u8], offset: usize) -> Option<Self> {
        let head: [u8; 8] = bytes.get(offset..offset.checked_add(8)?)?.try_into().ok()?;
        let rec_len = decode_rec_len(u16::from_le_bytes([head[4], head[5]]), bytes.len());
        let name_len = usize::from(head[6]);
        if rec_len < 12
            || !rec_len.is_multiple_of(4)
            || offset.checked_add(rec_len)? > bytes.len()
            || name_len + 8 > rec_len
        {
            return None;
        }
        let name = bytes.get(offset + 8..offset + 8 + name_len)?;
        let ino = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        Some(Self {
            offset,
            ino,
            rec_len,
            file_type: head[7],
            name,
        })
    }
}

/// With blocks of 64 KiB, 0 and 65,535 mean the whole block (Linux `ext4/directory.rst`), and the two lowest bits of any
/// other length, which is a multiple of four, are bits 16 and 17 of it.
#[inline]
pub(crate) fn decode_rec_len(raw: u16, block_size: usize) -> usize {
    match raw {
        0 | u16::MAX if block_size == 65_536 => 65_536,
        raw if block_size == 65_536 => usize::from(raw & !3) | usize::from(raw & 3) << 16,
        raw => usize::from(raw),
    }
}

/// Checks one block, the `nth` of those that have been read, and hands its names to the index.
pub(super) fn check(
    subject: &Subject<'_>,
    dir: &Dir,
    (nth, place): (usize, DirBlock),
    scratch: &mut Scratch,
    mut index: Option<&mut Index>,
    out: &mut DirScan,
) {
    let at = subject.scan.volume.layout.at(place.block);
    let Scratch {
        bytes,
        block_size,
        names,
        links,
    } = scratch;
    let Some(bytes) = bytes.chunks_exact(*block_size).nth(nth) else {
        return;
    };
    let mut block = Block {
        subject,
        dir,
        place,
        out,
        links,
        at,
    };
    if let Some(index) = index.as_deref_mut() {
        index.start_block(place.lblk, bytes);
    }
    let mut offset = 0;
    let mut nth = if place.lblk == 0 { 0_u32 } else { 2 };
    while offset < bytes.len() {
        let Some(entry) = Entry::parse(bytes, offset) else {
            let finding = block
                .finding(Code::EntryCorrupt, offset)
                .fix(Fix::SalvageBlock { lblk: place.lblk });
            block.push(finding);
            break;
        };
        if nth < 2 || !block.is_plain(&entry, names) {
            let after = bytes
                .get(offset + 8 + entry.name.len())
                .copied()
                .unwrap_or(0);
            block.check_slowly(&entry, nth, after, names);
        }
        if let (Some(index), true) = (index.as_deref_mut(), entry.ino != 0) {
            index.add_name(entry.name);
        }
        offset += entry.rec_len;
        nth = nth.saturating_add(1);
    }
    if let Some(index) = index {
        index.end_block(place.lblk, bytes);
    }
}

struct Block<'a> {
    subject: &'a Subject<'a>,
    dir: &'a Dir,
    place: DirBlock,
    out: &'a mut DirScan,
    links: &'a mut Links,
    /// Byte offset of the block.
    at: u64,
}

impl Block<'_> {
    fn finding(&self, code: Code, offset: usize) -> Finding {
        Finding::new(code)
            .ino(self.subject.ino)
            .block(self.place.block)
            .at(offset as u64)
    }

    /// A finding about an entry: `ino` is where it leads.
    fn entry_finding(&self, code: Code, entry: &Entry<'_>) -> Finding {
        self.finding(code, entry.offset)
            .ino(entry.ino)
            .parent(self.subject.ino)
            .name(entry.name)
    }

    fn clear(&self, entry: &Entry<'_>) -> Fix {
        Fix::word(self.at + entry.offset as u64, 0)
    }

    fn push(&mut self, finding: Finding) {
        self.out.findings.push(finding);
    }

    /// Nearly every entry: it leads to a sound inode that is no directory, its type is right, and its name is new. Then it
    /// counts as a link. If anything is out of the ordinary nothing has happened yet, and the long way finds its name.
    #[inline]
    fn is_plain(&mut self, entry: &Entry<'_>, names: &mut Names) -> bool {
        let scan = self.subject.scan;
        let layout = &scan.volume.layout;
        let kind = scan.census.kind(entry.ino);
        let in_range = entry.ino >= layout.first_ino && entry.ino <= layout.inodes;
        let dots = matches!(entry.name, [b'.', ..]);
        if !in_range
            || entry.file_type != kind.entry_type()
            || kind.entry_type() == 0
            || kind == Kind::DIRECTORY
            || !layout.filetype()
            || dots
            || names.is_exact()
            || entry.name.is_empty()
        {
            return false;
        }
        let look = names.look(entry.name);
        if !look.sound || !names.is_new(look) {
            return false;
        }
        scan.census.inodes.add_link(entry.ino, self.links);
        true
    }

    fn check_slowly(&mut self, entry: &Entry<'_>, nth: u32, after: u8, names: &mut Names) {
        let sound = self.check_entry(entry, nth, after);
        if !sound || nth < 2 {
            return;
        }
        if !names.is_exact() {
            if names.is_new(names.look(entry.name)) {
                return;
            }
            // The hash is there, from another name perhaps: only names prove anything.
            names.compare_names(self.names_before(entry));
        }
        if !names.is_new_name(entry.name) {
            let fix = Fix::RenameEntry {
                offset: u32::try_from(entry.offset).unwrap_or(0),
            };
            self.push(self.entry_finding(Code::DupName, entry).fix(fix));
        }
    }

    /// The sound names of the directory before an entry.
    fn names_before(&self, entry: &Entry<'_>) -> HashSet<Vec<u8>> {
        let mut names = HashSet::new();
        let mut bytes = vec![0; self.subject.scan.volume.layout.block_size as usize];
        dirs::for_each_block_until(self.subject, |place| {
            let at = self.subject.scan.volume.layout.at(place.block);
            self.subject.scan.image.read(at, &mut bytes);
            let mut offset = 0;
            let mut nth = if place.lblk == 0 { 0_u32 } else { 2 };
            while let Some(other) = Entry::parse(&bytes, offset) {
                if place.lblk == self.place.lblk && offset >= entry.offset {
                    return false;
                }
                if nth >= 2 && leads(self.subject, &other) {
                    names.insert(other.name.to_vec());
                }
                offset += other.rec_len;
                nth = nth.saturating_add(1);
            }
            place.lblk < self.place.lblk
        });
        names
    }

    /// Checks one entry. True: it is a sound name that counts as a link.
    fn check_entry(&mut self, entry: &Entry<'_>, nth: u32, after: u8) -> bool {
        match nth {
            0 => self.check_dot(entry, after),
            1 => self.check_dotdot(entry, after),
            _ if entry.ino == self.subject.ino => {
                self.push(
                    self.entry_finding(Code::LinkDot, entry)
                        .fix(self.clear(entry)),
                );
                return false;
            }
            _ => {}
        }
        if entry.ino == 0 {
            return false;
        }
        let layout = &self.subject.scan.volume.layout;
        let census = self.subject.scan.census;
        let kind = census.kind(entry.ino);
        let in_range = is_in_range(layout, entry.ino);
        let code = match entry.name {
            _ if !in_range => Some(Code::EntryInode),
            b"." if nth > 1 => Some(Code::DupDot),
            b".." if nth > 1 => Some(Code::DupDotdot),
            _ if nth > 1 && entry.ino == ROOT_INO => Some(Code::LinkRoot),
            b"" if nth > 1 => Some(Code::NullName),
            _ if !kind.used() => Some(Code::UnusedInode),
            _ => None,
        };
        if let Some(code) = code {
            // `.` and `..` are not cleared: they get the right number as soon as it is known.
            let fix = if nth > 1 {
                self.clear(entry)
            } else {
                Fix::WithAnother
            };
            self.push(self.entry_finding(code, entry).found(entry.ino).fix(fix));
            return false;
        }
        if entry.name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            let fix = Fix::RenameEntry {
                offset: u32::try_from(entry.offset).unwrap_or(0),
            };
            self.push(self.entry_finding(Code::BadName, entry).fix(fix));
        }
        self.check_type(entry, kind);
        if nth > 1 && kind == Kind::DIRECTORY {
            let only = census
                .dir(entry.ino)
                .is_none_or(|child| child.offer_parent(self.subject.ino));
            if !only {
                self.out.second_names.push(entry.ino);
            }
        }
        census.inodes.add_link(entry.ino, self.links);
        true
    }

    fn check_dot(&mut self, entry: &Entry<'_>, after: u8) {
        let own = self.subject.ino;
        let at = self.at + entry.offset as u64;
        let code = match entry {
            entry if entry.ino == 0 => Some(Code::MissingDot),
            entry if entry.name != b"." => Some(Code::NotDot),
            _ if after != 0 => Some(Code::DotNul),
            _ => None,
        };
        if let Some(code) = code {
            let fix = if code == Code::DotNul {
                Fix::byte(at + 9, 0)
            } else {
                Fix::MakeDots
            };
            self.push(
                self.finding(code, entry.offset)
                    .name(entry.name)
                    .found(entry.ino)
                    .fix(fix),
            );
        }
        if entry.ino != own && entry.ino != 0 && entry.name == b"." {
            let finding = self
                .finding(Code::DotInode, entry.offset)
                .found(entry.ino)
                .fix(Fix::word(at, own));
            self.push(finding);
        }
        if entry.rec_len > 24 && code.is_none() {
            self.push(
                self.finding(Code::DotSplit, entry.offset)
                    .found(entry.rec_len as u64)
                    .fix(Fix::MakeDots),
            );
        }
    }

    fn check_dotdot(&mut self, entry: &Entry<'_>, after: u8) {
        let code = match entry {
            entry if entry.ino == 0 => Some(Code::MissingDotdot),
            entry if entry.name != b".." => Some(Code::NotDotdot),
            _ if after != 0 => Some(Code::DotdotNul),
            _ => None,
        };
        if code.is_none() || code == Some(Code::DotdotNul) {
            self.dir.set_dotdot(entry.ino);
        }
        if let Some(code) = code {
            let nul = Fix::byte(self.at + entry.offset as u64 + 10, 0);
            let fix = if code == Code::DotdotNul {
                nul
            } else {
                Fix::MakeDots
            };
            self.push(
                self.finding(code, entry.offset)
                    .name(entry.name)
                    .found(entry.ino)
                    .fix(fix),
            );
        }
    }

    fn check_type(&mut self, entry: &Entry<'_>, kind: Kind) {
        let layout = &self.subject.scan.volume.layout;
        let filetype = layout.filetype();
        if filetype && layout.hurd {
            // The Hurd neither keeps types up to date nor reads them.
            return;
        }
        let expected = if filetype { kind.entry_type() } else { 0 };
        if entry.file_type == expected {
            return;
        }
        let code = match (filetype, entry.file_type) {
            (false, _) => Code::TypeUnexpected,
            (true, 0) => Code::TypeMissing,
            (true, _) => Code::TypeWrong,
        };
        let fix = Fix::byte(self.at + entry.offset as u64 + 7, expected);
        self.push(
            self.entry_finding(code, entry)
                .found(entry.file_type)
                .expected(expected)
                .fix(fix),
        );
    }
}

fn is_in_range(layout: &Layout, ino: u32) -> bool {
    ino == ROOT_INO || (layout.first_ino..=layout.inodes).contains(&ino)
}

/// Whether an entry behind `.` and `..` is a sound name for the inode that it leads to.
pub(super) fn leads(subject: &Subject<'_>, entry: &Entry<'_>) -> bool {
    let census = subject.scan.census;
    is_in_range(&subject.scan.volume.layout, entry.ino)
        && ![subject.ino, ROOT_INO].contains(&entry.ino)
        && !matches!(entry.name, b"" | b"." | b"..")
        && census.kind(entry.ino).used()
}
