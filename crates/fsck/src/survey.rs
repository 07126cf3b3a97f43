//! What is asked of a sound file system besides whether it is sound: files in pieces, and what is free.

use std::ops::Range;

use ext2dax_pmem::Pmem;

use crate::census::Kind;
use crate::image::Image;
use crate::scan::{Subject, TreeWalk, Visit, again_budget};
use crate::{CheckOptions, Error, check_image};

/// A file that lies in more than one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fragmented {
    /// Its inode number.
    pub ino: u32,
    /// Its blocks, indirect ones included.
    pub blocks: u64,
    /// Runs of neighbouring blocks.
    pub pieces: u64,
}

/// The files and directories whose blocks, indirect ones included, are not all neighbours, in the order of their numbers.
///
/// # Errors
/// As [`crate::check()`].
pub fn fragments(pmem: &Pmem, options: &CheckOptions) -> Result<Vec<Fragmented>, Error> {
    let image = Image::new(pmem.clone());
    let checked = check_image(&image, options)?;
    let layout = &checked.volume.layout;
    let again = again_budget(layout);
    let mut found = Vec::new();
    for group in 0..layout.groups {
        for (ino, kind) in checked.census.used_inodes(layout, group) {
            let Some(at) = checked.volume.inode_at(ino) else {
                continue;
            };
            let file = kind == Kind::REGULAR || kind == Kind::DIRECTORY;
            if !file || ino < layout.first_ino && ino != crate::layout::ROOT_INO {
                continue;
            }
            let scan = crate::dirs::plain_scan(&image, &checked.volume, &checked.census, &again);
            let raw = image.inode(at);
            let subject = Subject { scan, ino, at, raw };
            let (mut blocks, mut pieces, mut previous) = (0, 0, None);
            let mut findings = Vec::new();
            TreeWalk::new(&subject, kind, &mut findings).run(&mut |_, slot| {
                blocks += 1;
                pieces += u64::from(previous != Some(slot.block));
                previous = slot.block.checked_add(1);
                Visit::Claimed
            });
            if pieces > 1 {
                found.push(Fragmented {
                    ino,
                    blocks,
                    pieces,
                });
            }
        }
    }
    Ok(found)
}

/// The bytes of all free blocks, as runs of offsets in the image. Empty if anything is found: then nobody knows what is
/// free.
///
/// # Errors
/// As [`crate::check()`].
pub fn free_runs(pmem: &Pmem, options: &CheckOptions) -> Result<Vec<Range<u64>>, Error> {
    let image = Image::new(pmem.clone());
    let checked = check_image(&image, options)?;
    let mut runs: Vec<Range<u64>> = Vec::new();
    if !checked.report.is_clean() {
        return Ok(runs);
    }
    let layout = &checked.volume.layout;
    for block in layout.first_data_block..layout.blocks {
        if checked.census.claimed.test(block) {
            continue;
        }
        let start = layout.at(block);
        let end = start + u64::from(layout.block_size);
        match runs.last_mut() {
            Some(run) if run.end == start => run.end = end,
            _ => runs.push(start..end),
        }
    }
    Ok(runs)
}
