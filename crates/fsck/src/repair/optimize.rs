//! Pass 3A: directories laid out anew: names in order, no room between them, a hash index where there is to be one.
//!
//! The contents of a directory of one block are written beside it and swung in with one store. A directory of more blocks
//! cannot change with one store, so every name is entered a second time first:
//!
//! 1. the index flag goes: from now on the blocks are read one after the other;
//! 2. a copy of all names is appended;
//! 3. the old blocks become empty, each with one or two stores;
//! 4. the new blocks are swung in where the old ones were;
//! 5. the size is cut to them, then the pointers behind it, the last one first;
//! 6. the index flag comes back.
//!
//! So at every store each name is there once or twice, and never not at all. Whoever finds it twice after a kill drops the
//! second entry, which leads to the same inode: nothing is lost, whether we repair or e2fsck does.

mod arrange;

use hashbrown::HashSet;

use super::orphan::{cut_from, slot};
use super::space::Space;
use super::{clear_valid, dir, repair_image};
use crate::dirs::{self, DirBlock, Entry};
use crate::fix::Patch;
use crate::image::Image;
use crate::layout::{Layout, ROOT_INO, saturate};
use crate::scan::{field, flag};
use crate::{Cancel, CheckOptions, Checked, Error, Report, Severity, check_image};
use arrange::{Arranged, Name, arrange};

/// What an optimisation did.
#[derive(Debug)]
pub struct Optimized {
    /// Directories that were laid out anew; those that were in order stayed as they were.
    pub rebuilt: u64,
    /// Directories for which there was no room to work in: they are as they were.
    pub no_room: u64,
    /// The state afterwards.
    pub report: Report,
}

/// Lays out every directory of a clean file system anew; `lost+found` keeps the room that it has.
///
/// Shape: names in the order of their hashes where the directory gets an index (more than one block, and the `dir_index`
/// feature is set), in the order of their inodes elsewhere.
///
/// # Errors
/// As [`crate::repair()`]. If something is found, nothing is changed and the report says what.
pub fn optimize(pmem: &ext2dax_pmem::Pmem, options: &CheckOptions) -> Result<Optimized, Error> {
    let image = Image::new(pmem.clone()).saved_to(options.undo.clone());
    let done = optimize_image(&image, options);
    image.finish_undo()?;
    done
}

fn optimize_image(image: &Image, options: &CheckOptions) -> Result<Optimized, Error> {
    let mut checked = check_image(image, options)?;
    if !image.writable() {
        return Err(Error::ReadOnly);
    }
    let mut done = Optimized {
        rebuilt: 0,
        no_room: 0,
        report: checked.report.clone(),
    };
    if !checked.report.is_clean() {
        return Ok(done);
    }
    let all: Vec<u32> = checked.census.dirs.iter().map(|dir| dir.ino).collect();
    let mut todo = all.as_slice();
    let mut touched = false;
    while !todo.is_empty() {
        let before = done.rebuilt;
        todo = rebuild_some(image, &checked, todo, &mut done, &mut touched);
        if options.cancel.is_set() {
            break;
        }
        if let Some((_, rest)) = todo.split_first() {
            // No room. What this round has freed may be enough; if it freed nothing, nothing will be.
            if done.rebuilt == before {
                done.no_room += 1;
                todo = rest;
            }
            clean_up(image, options)?;
            checked = check_image(image, options)?;
        }
    }
    if touched {
        done.report = clean_up(image, options)?;
    }
    Ok(done)
}

/// Frees what was swung out and puts the counts right: what an interrupted repair leaves as well.
fn clean_up(image: &Image, options: &CheckOptions) -> Result<Report, Error> {
    // What is half done gets done, whoever wants to stop.
    let options = CheckOptions {
        cancel: Cancel::default(),
        ..options.clone()
    };
    let repaired = repair_image(image, &options, &mut |finding| {
        finding.severity == Severity::Residue
    })?;
    Ok(repaired.report)
}

/// Rebuilds directories until there is no room for one; answers those that are left, that one first.
fn rebuild_some<'t>(
    image: &Image,
    checked: &Checked,
    todo: &'t [u32],
    done: &mut Optimized,
    touched: &mut bool,
) -> &'t [u32] {
    let lost_found = dir::find(image, checked, ROOT_INO, b"lost+found");
    let mut space = Space::new(image, checked);
    for (i, &ino) in todo.iter().enumerate() {
        if Some(ino) == lost_found {
            continue;
        }
        let Some(old) = Old::read(image, checked, ino) else {
            continue;
        };
        let Some(new) = arrange(&checked.volume, &old.names, old.dots) else {
            continue;
        };
        if old.is_arranged(image, &checked.volume.layout, &new) {
            continue;
        }
        if !*touched {
            clear_valid(image, checked);
            *touched = true;
        }
        if !replace(image, checked, &mut space, &old, &new) {
            return todo.get(i..).unwrap_or_default();
        }
        done.rebuilt += 1;
        if checked.cancel.is_set() {
            break;
        }
    }
    &[]
}

/// A directory as it is.
struct Old {
    ino: u32,
    /// Byte offset of its inode.
    at: u64,
    blocks: Vec<DirBlock>,
    /// Its own number and its parent's.
    dots: (u32, u32),
    names: Vec<Name>,
}

impl Old {
    /// `None`: it is not as a check that found nothing has seen it.
    fn read(image: &Image, checked: &Checked, ino: u32) -> Option<Self> {
        let layout = &checked.volume.layout;
        let mut blocks = Vec::new();
        let mut names = Vec::new();
        let mut parent = 0;
        let mut bytes = vec![0; layout.block_size as usize];
        dirs::for_each_block_of(image, &checked.volume, &checked.census, ino, |place| {
            blocks.push(place);
            image.read(layout.at(place.block), &mut bytes);
            let mut offset = 0;
            let mut nth = if place.lblk == 0 { 0_u32 } else { 2 };
            while let Some(entry) = Entry::parse(&bytes, offset) {
                if nth == 1 {
                    parent = entry.ino;
                } else if nth > 1 && entry.ino != 0 {
                    names.push(Name {
                        name: entry.name.to_vec(),
                        ino: entry.ino,
                        file_type: entry.file_type,
                    });
                }
                offset += entry.rec_len;
                nth = nth.saturating_add(1);
            }
            true
        });
        let sound = blocks.first().is_some_and(|block| block.lblk == 0) && parent != 0;
        sound.then_some(Self {
            ino,
            at: checked.volume.inode_at(ino)?,
            blocks,
            dots: (ino, parent),
            names,
        })
    }

    /// Whether the blocks already say what the new ones would; the slack behind names does not count.
    fn is_arranged(&self, image: &Image, layout: &Layout, new: &Arranged) -> bool {
        let flags = image.le32(self.at + field::FLAGS);
        let mut bytes = vec![0; layout.block_size as usize];
        self.blocks.len() == new.blocks.len()
            && (flags & flag::INDEX != 0) == new.indexed
            && self.blocks.iter().zip(&new.blocks).all(|(place, new)| {
                image.read(layout.at(place.block), &mut bytes);
                same_entries(&bytes, &new.bytes)
                    && bytes.get(new.index.clone()) == new.bytes.get(new.index.clone())
            })
    }
}

fn same_entries(a: &[u8], b: &[u8]) -> bool {
    let mut offset = 0;
    while offset < a.len() {
        let (Some(x), Some(y)) = (Entry::parse(a, offset), Entry::parse(b, offset)) else {
            return false;
        };
        if (x.ino, x.rec_len, x.file_type, x.name) != (y.ino, y.rec_len, y.file_type, y.name) {
            return false;
        }
        offset += x.rec_len;
    }
    true
}

/// Puts the new blocks in the place of the old ones. False: there is no room, and nothing has changed.
fn replace(
    image: &Image,
    checked: &Checked,
    space: &mut Space<'_>,
    old: &Old,
    new: &Arranged,
) -> bool {
    let layout = &checked.volume.layout;
    let map = old.at + field::BLOCK;
    let (have, want) = (old.blocks.len(), new.blocks.len());
    let single = have == 1 && want == 1;
    // Blocks in between, copies, the new blocks, and indirect blocks above what is appended.
    let copies = match single {
        true => Vec::new(),
        false => arrange::pack(layout, &old.names),
    };
    let top = have.max(want);
    let appended = top - have + copies.len();
    let needed = want + appended + appended / layout.addrs() as usize + 4;
    if !space.has(needed) {
        return false;
    }
    let flags = image.le32(old.at + field::FLAGS);
    if flags & flag::INDEX != 0 {
        image.patch(Patch::word(old.at + field::FLAGS, flags & !flag::INDEX));
    }
    let empty = dir::new_block(layout, None);
    let fillers = (have..top).map(|_| &empty);
    for (lblk, bytes) in (saturate(have as u64)..).zip(fillers.chain(&copies)) {
        if !dir::add_block(image, checked, space, old.ino, lblk, bytes) {
            // Too far for the tree: what was appended holds nothing that is not elsewhere, too.
            cut_to(image, checked, old, have);
            return false;
        }
    }
    if !single {
        for place in old.blocks.iter().rev() {
            make_empty(image, layout, *place);
        }
    }
    for (lblk, block) in (0_u64..).zip(&new.blocks) {
        let (Some(at), Some(fresh)) = (slot(image, layout, map, lblk), space.block()) else {
            return false;
        };
        image.write(layout.at(fresh), &block.bytes);
        image.patch(Patch::word(at, fresh));
    }
    if !single {
        cut_to(image, checked, old, want);
    }
    if new.indexed {
        let flags = image.le32(old.at + field::FLAGS);
        image.patch(Patch::word(old.at + field::FLAGS, flags | flag::INDEX));
    }
    true
}

/// Leaves a block nothing but what begins a directory, in stores of which each leaves a sound block.
fn make_empty(image: &Image, layout: &Layout, place: DirBlock) {
    let at = layout.at(place.block);
    let size = layout.block_size as usize;
    if place.lblk == 0 {
        let dot = u64::from(image.le16(at + 4));
        let rest = size - usize::try_from(dot).unwrap_or(12);
        let rec_len = u16::from_le_bytes(dir::encode_rec_len(rest));
        image.patch(Patch::half(at + dot + 4, rec_len));
    } else {
        let [low, high] = dir::encode_rec_len(size);
        image.patch(Patch::word(at, 0));
        image.patch(Patch::word(at + 4, u32::from_le_bytes([low, high, 0, 0])));
    }
}

/// Cuts a directory to `blocks` blocks: the size first, which is what drivers go by, then pointers from the end.
fn cut_to(image: &Image, checked: &Checked, old: &Old, blocks: usize) {
    let layout = &checked.volume.layout;
    let blocks = blocks as u64;
    let size = saturate(blocks << (10 + layout.block_log));
    image.patch(Patch::word(old.at + field::SIZE, size));
    cut_from(image, layout, old.at + field::BLOCK, blocks);
    let counted = super::inode::with_subject(image, checked, old.ino, |subject| {
        let mut seen = HashSet::new();
        let mut findings = Vec::new();
        let kind = crate::census::Kind::DIRECTORY;
        let mut walk = crate::scan::TreeWalk::new(subject, kind, &mut findings);
        walk.run(&mut |_, slot| {
            seen.insert(slot.block);
            crate::scan::Visit::Claimed
        });
        seen.len() as u64
    });
    if let Some(counted) = counted {
        let xattr = u64::from(image.le32(old.at + field::FILE_ACL) != 0);
        let sectors = (counted + xattr) * u64::from(layout.block_size / 512);
        image.patch(Patch::word(old.at + field::BLOCKS, saturate(sectors)));
    }
}
