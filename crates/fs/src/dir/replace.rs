//! Changes of several entries that become visible in one store.
//!
//! A new entry that fits into the slack before or behind the one it replaces needs no copy: it is written there, reaching
//! to the old one's end, and the length of the entry before both takes the old one out and the new one in. Otherwise the
//! block is copied and the copy edited, and the directory's pointer swings from one to the other; two blocks do the same
//! when their pointers lie in one aligned word.

use alloc::vec;
use alloc::vec::Vec;

use ext2dax_format::dirent::{MIN_LEN, encode_len, needed_len};
use ext2dax_format::{FileBlock, Result};
use ext2dax_getblock::{Detached, Fresh, Pending};
use zerocopy::little_endian::U16;

use super::Dir;
use super::edit::{body, frame, name_len};
use super::index::Header;
use super::names::{Found, Place};

/// An entry, written into slack, that takes another one's place.
#[derive(Debug)]
#[must_use]
pub(crate) struct Replacement {
    old: Found,
    previous: Place,
    place: Place,
    header: Header,
    hash: u32,
}

/// One edit of a copied block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edit<'a> {
    /// Takes an entry out.
    Erase(Found),
    /// Lets an entry lead elsewhere: number and type.
    Redirect(Found, u32, u8),
    /// Puts a name into a block, where there is room once the other edits are done: block, name, number and type.
    Insert(u32, &'a [u8], u32, u8),
}

/// Edited copies of one or two blocks of a directory, not visible yet. Must be published or abandoned.
#[derive(Debug)]
#[must_use]
pub(crate) struct Shadow {
    copies: Vec<Copied>,
}

#[derive(Debug)]
struct Copied {
    block: u32,
    fresh: Fresh,
    changes: Vec<Changed>,
}

/// What an edit means for the index.
#[derive(Debug)]
enum Changed {
    Erased {
        found: Found,
        previous: Option<(Place, Header)>,
        header: Header,
    },
    Redirected {
        found: Found,
        ino: u32,
        kind: u8,
    },
    Inserted {
        place: Place,
        header: Header,
        hash: u32,
        host: Option<Place>,
    },
}

impl Dir<'_> {
    /// Writes an entry for `name` into the slack next to `old`, if it fits there and `old` is not the first of its block.
    /// Flushed, not fenced.
    pub(crate) fn stage_replacement(&self, old: &Found, name: &[u8]) -> Option<Replacement> {
        let pmem = &self.core.pmem;
        let index = self.index();
        let previous = index.previous(old.place)?;
        let (before, header) = (index.header(pmem, previous), index.header(pmem, old.place));
        let need = needed_len(name.len());
        // An empty entry before keeps a record of its own, long enough for the name that is left in it: checkers look at
        // its length.
        let kept = needed_len(usize::from(before.name_len)).max(MIN_LEN);
        let offset = if before.rec_len >= kept + need {
            previous.offset + kept
        } else if header.free() >= need {
            old.place.offset + header.used()
        } else {
            return None;
        };
        let end = old.place.offset + header.rec_len;
        let place = Place {
            offset,
            ..old.place
        };
        let header = Header {
            rec_len: end - offset,
            name_len: name_len(name),
            ..header
        };
        let (head, pad) = frame(header, name);
        let at = index.at(place);
        pmem.write_parts(at, &[&head, name, pad]);
        pmem.flush(at, u64::from(needed_len(name.len())));
        Some(Replacement {
            old: *old,
            previous,
            place,
            header,
            hash: index.names.hash(name),
        })
    }

    /// Takes the old entry out and the new one in. Flushed, not fenced.
    pub(crate) fn publish_replacement(&mut self, replacement: Replacement) {
        let Replacement {
            old,
            previous,
            place,
            header,
            hash,
        } = replacement;
        let pmem = &self.core.pmem;
        let before = self.index().header(pmem, previous);
        let before = Header {
            rec_len: place.offset - previous.offset,
            ..before
        };
        let at = self.index().rec_len_off(previous);
        // PUBLISH: the new name takes the old one's place. Before: the old name. After: the new one.
        pmem.store(at, U16::new(encode_len(before.rec_len)));
        pmem.flush(at.at(), 2);
        let index = self.index_mut();
        index.forget(old.place);
        index.note(previous, before);
        index.note(place, header);
        index.names.remove(&old);
        index
            .names
            .insert(hash, place, header.ino, header.kind, header.name_len);
    }

    /// Copies the blocks that `edits` touch, at most two, and edits the copies. `None` if they touch more, if two pointers
    /// cannot be swung together, or if there is no room for an insertion. Flushed, not fenced.
    ///
    /// # Errors
    /// `NoSpace`: nothing has changed.
    pub(crate) fn shadow(&self, edits: &[Edit<'_>]) -> Result<Option<Shadow>> {
        let Some(blocks) = self.shadow_blocks(edits) else {
            return Ok(None);
        };
        let mut shadow = Shadow { copies: Vec::new() };
        for block in blocks {
            match self.copy_block(block, edits) {
                Ok(Some(copied)) => shadow.copies.push(copied),
                Ok(None) => {
                    self.abandon_shadow(shadow);
                    return Ok(None);
                }
                Err(error) => {
                    self.abandon_shadow(shadow);
                    return Err(error);
                }
            }
        }
        Ok(Some(shadow))
    }

    /// The blocks that the edits touch, if their pointers can be swung in one store.
    fn shadow_blocks(&self, edits: &[Edit<'_>]) -> Option<Vec<u32>> {
        let mut blocks: Vec<u32> = Vec::new();
        for edit in edits {
            let block = match edit {
                Edit::Erase(found) | Edit::Redirect(found, ..) => found.place.block,
                Edit::Insert(block, ..) => *block,
            };
            if !blocks.contains(&block) {
                blocks.push(block);
            }
        }
        match blocks.as_slice() {
            [_] => Some(blocks),
            &[a, b] => self
                .node
                .tree()
                .pair_swappable(FileBlock(a), FileBlock(b))
                .then_some(blocks),
            _ => None,
        }
    }

    fn copy_block(&self, block: u32, edits: &[Edit<'_>]) -> Result<Option<Copied>> {
        let core = self.core;
        let index = self.index();
        let mut bytes = vec![0; index.block_size as usize];
        core.pmem.read(index.blocks[block as usize], &mut bytes);
        let mut copy = Copy {
            bytes,
            block,
            dir: self,
            erased: [None; 2],
            grown: None,
        };
        let mut changes = Vec::new();
        // Insertions last: they may take the room of what was erased.
        for edit in edits {
            match edit {
                Edit::Erase(found) if found.place.block == block => changes.push(copy.erase(found)),
                Edit::Redirect(found, ino, kind) if found.place.block == block => {
                    changes.push(copy.redirect(found, *ino, *kind));
                }
                _ => {}
            }
        }
        for edit in edits {
            if let Edit::Insert(target, name, ino, kind) = edit
                && *target == block
            {
                match copy.insert(name, *ino, *kind) {
                    Some(change) => changes.push(change),
                    None => return Ok(None),
                }
            }
        }
        let present = core.geometry.block_at(index.blocks[block as usize])?;
        let group = core.geometry.group_of_block(present);
        let fresh = core.volume.allocate_block_in(group, core.is_privileged())?;
        core.pmem.write_flushed(fresh.offset(), &copy.bytes);
        Ok(Some(Copied {
            block,
            fresh,
            changes,
        }))
    }

    /// Gives the copies back: nothing leads to them.
    pub(crate) fn abandon_shadow(&self, shadow: Shadow) {
        for copied in shadow.copies {
            self.core.volume.free(copied.fresh.abandon());
        }
    }

    /// Swings the directory's pointer, or two in one word, to the copies. A fence has followed [`Dir::shadow`]. Flushed,
    /// not fenced: the answer is free to go once it is.
    ///
    /// # Errors
    /// `Corrupt` if the pointer is not what it was; nothing has changed.
    pub(crate) fn publish_shadow(&mut self, shadow: Shadow) -> Result<Pending<Detached>> {
        let tree = self.node.tree();
        let mut guard = tree.lock();
        let mut places = Vec::new();
        let mut written = Vec::new();
        for copied in shadow.copies {
            places.push((copied.block, copied.fresh.offset(), copied.changes));
            written.push((FileBlock(copied.block), copied.fresh.assume_written()));
        }
        let second = if written.len() == 2 {
            written.pop()
        } else {
            None
        };
        let first = written.pop().expect("a shadow has one or two copies");
        // PUBLISH: all edits of the block, or of two, at once. Before: the old block. After: the new one.
        let old = match second {
            None => tree.swing(&mut guard, first.0, first.1)?,
            Some(second) => tree.swing_pair(&mut guard, first, second)?,
        };
        drop(guard);
        for (block, at, changes) in places {
            self.index_mut().blocks[block as usize] = at;
            for change in changes {
                self.note_change(change);
            }
        }
        Ok(old)
    }

    fn note_change(&mut self, change: Changed) {
        let index = self.index_mut();
        match change {
            Changed::Erased {
                found,
                previous,
                header,
            } => {
                match previous {
                    Some((place, merged)) => {
                        index.forget(found.place);
                        index.note(place, merged);
                    }
                    None => index.note(found.place, header),
                }
                index.names.remove(&found);
                index.entries -= 1;
            }
            Changed::Redirected { found, ino, kind } => index.names.redirect(&found, ino, kind),
            Changed::Inserted {
                place,
                header,
                hash,
                host,
            } => {
                if let Some(host) = host {
                    index.gaps.set(host.block, host.offset, 0);
                }
                index.note(place, header);
                index
                    .names
                    .insert(hash, place, header.ino, header.kind, header.name_len);
                index.entries += 1;
            }
        }
    }
}

/// The copy of a block while it is edited.
struct Copy<'a> {
    bytes: Vec<u8>,
    block: u32,
    dir: &'a Dir<'a>,
    /// Entries of the block that are none in the copy: what was erased behind another entry.
    erased: [Option<u32>; 2],
    /// The entry that has what was erased last.
    grown: Option<u32>,
}

impl Copy<'_> {
    fn header(&self, offset: u32) -> Header {
        Header::parse(&self.bytes, offset, self.dir.index().block_size)
    }

    fn set(&mut self, offset: u32, field: usize, value: &[u8]) {
        self.bytes[offset as usize + field..][..value.len()].copy_from_slice(value);
    }

    /// The entry before the one at `place`. The index still shows the block as it was: an entry that was erased from this
    /// copy since is no longer a start.
    fn previous(&self, place: Place) -> Option<u32> {
        let mut at = place;
        loop {
            at = self.dir.index().previous(at)?;
            if !self.erased.contains(&Some(at.offset)) {
                return Some(at.offset);
            }
        }
    }

    fn erase(&mut self, found: &Found) -> Changed {
        let offset = found.place.offset;
        let header = self.header(offset);
        match self.previous(found.place) {
            Some(before) => {
                let spare = self.erased.iter_mut().find(|erased| erased.is_none());
                *spare.expect("no rename erases more than two names") = Some(offset);
                self.grown = Some(before);
                let merged = self.header(before);
                let merged = Header {
                    rec_len: merged.rec_len + header.rec_len,
                    ..merged
                };
                self.set(before, 4, &encode_len(merged.rec_len).to_le_bytes());
                let place = Place {
                    block: self.block,
                    offset: before,
                };
                Changed::Erased {
                    found: *found,
                    previous: Some((place, merged)),
                    header,
                }
            }
            None => {
                self.set(offset, 0, &[0; 4]);
                self.grown = Some(offset);
                Changed::Erased {
                    found: *found,
                    previous: None,
                    header: Header { ino: 0, ..header },
                }
            }
        }
    }

    fn redirect(&mut self, found: &Found, ino: u32, kind: u8) -> Changed {
        self.set(found.place.offset, 0, &ino.to_le_bytes());
        self.set(found.place.offset, 7, &[kind]);
        Changed::Redirected {
            found: *found,
            ino,
            kind,
        }
    }

    /// An entry with `need` bytes to spare: the one that an erased name was given to, else one that the index knows.
    fn host(&self, need: u32) -> Option<u32> {
        let roomy = |&offset: &u32| self.header(offset).free() >= need;
        let known = || {
            let gaps = &self.dir.index().gaps;
            gaps.in_block(self.block, need)
                .find(|offset| !self.erased.contains(&Some(*offset)) && roomy(offset))
        };
        self.grown.filter(roomy).or_else(known)
    }

    fn insert(&mut self, name: &[u8], ino: u32, kind: u8) -> Option<Changed> {
        let at = self.host(needed_len(name.len()))?;
        let host = self.header(at);
        let offset = at + host.used();
        let header = Header {
            ino,
            rec_len: host.free(),
            name_len: name_len(name),
            kind,
        };
        let (bytes, len) = body(header, name);
        if host.used() > 0 {
            self.set(at, 4, &encode_len(host.used()).to_le_bytes());
        }
        self.set(offset, 0, &bytes[..len]);
        let in_block = |offset| Place {
            block: self.block,
            offset,
        };
        Some(Changed::Inserted {
            place: in_block(offset),
            header,
            hash: self.dir.index().names.hash(name),
            host: (offset != at).then(|| in_block(at)),
        })
    }
}
