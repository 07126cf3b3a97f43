//! Repairs of whole inodes: taking life, private copies of shared blocks.

use hashbrown::HashMap;

use super::space::Space;
use crate::Checked;
use crate::claims::shared_slots;
use crate::finding::Finding;
use crate::fix::{Fix, Patch};
use crate::image::Image;
use crate::layout::ROOT_INO;
use crate::open::Volume;
use crate::problem::Code;
use crate::scan::{self, Scan, Slot, Subject, field, now};

/// Takes an inode's life: deletion time, then link count 0. A reserved inode loses its block map as well, since nobody
/// asks for its link count.
pub(super) fn clear(image: &Image, volume: &Volume, ino: u32) -> bool {
    let Some(at) = volume.inode_at(ino) else {
        return false;
    };
    image.patch(Patch::word(
        at + field::DTIME,
        now().max(volume.layout.inodes),
    ));
    image.patch(Patch::half(at + field::LINKS, 0));
    image.patch(Patch::word(at + field::FLAGS, 0));
    if ino < volume.layout.first_ino && ino != ROOT_INO {
        return zero(image, volume, ino);
    }
    true
}

/// Zeroes the whole inode.
pub(super) fn zero(image: &Image, volume: &Volume, ino: u32) -> bool {
    let Some(at) = volume.inode_at(ino) else {
        return false;
    };
    image.write(at, &vec![0; volume.layout.inode_size as usize]);
    true
}

/// Looks at an inode as the checks do.
pub(super) fn with_subject<T>(
    image: &Image,
    checked: &Checked,
    ino: u32,
    look: impl FnOnce(&Subject<'_>) -> T,
) -> Option<T> {
    let at = checked.volume.inode_at(ino)?;
    let again = scan::again_budget(&checked.volume.layout);
    let (volume, census) = (&checked.volume, &checked.census);
    let scan = Scan {
        image,
        volume,
        census,
        low_dtime: false,
        orphans: &[],
        now: 0,
        again: &again,
    };
    Some(look(&Subject {
        scan,
        ino,
        at,
        raw: image.inode(at),
    }))
}

/// How many claim each shared block. Whoever comes last keeps it; the others get copies.
#[derive(Debug, Default)]
pub(super) struct Claims {
    counts: HashMap<u32, u32>,
    slots: HashMap<u32, Vec<Slot>>,
}

impl Claims {
    /// Counts the claims of all inodes with shared blocks, whether they are to be repaired now or not.
    pub(super) fn new(image: &Image, checked: &Checked, todo: &[Finding]) -> Self {
        let mut claims = Self::default();
        if !todo.iter().any(|finding| finding.fix == Fix::CloneBlocks) {
            return claims;
        }
        for finding in checked
            .report
            .findings
            .iter()
            .filter(|finding| finding.code == Code::SharedBlocks)
        {
            let kind = checked.census.kind(finding.ino);
            let Some((slots, xattr)) = with_subject(image, checked, finding.ino, |subject| {
                (shared_slots(subject, kind), subject.raw.i_file_acl.get())
            }) else {
                continue;
            };
            for block in slots.iter().map(|slot| slot.block) {
                *claims.counts.entry(block).or_insert(0) += 1;
            }
            if xattr != 0 && checked.census.shared.test(xattr) {
                // An attribute block stays where it is: all others make room.
                *claims.counts.entry(xattr).or_insert(0) += 1;
            }
            claims.slots.insert(finding.ino, slots);
        }
        claims
    }

    fn must_copy(&self, checked: &Checked, block: u32) -> bool {
        checked.volume.is_metadata(block) || self.counts.get(&block).is_some_and(|&count| count > 1)
    }
}

/// Gives the inode its own copies of shared blocks. Where an indirect block is shared, only it is copied: what it leads
/// to is looked at again when the copy is in place.
pub(super) fn clone_blocks(
    image: &Image,
    checked: &Checked,
    space: &mut Space<'_>,
    claims: &mut Claims,
    ino: u32,
) -> bool {
    let Some(slots) = claims.slots.remove(&ino) else {
        return false;
    };
    let level = slots
        .iter()
        .filter(|slot| claims.must_copy(checked, slot.block))
        .map(|slot| slot.level)
        .max()
        .unwrap_or(0);
    let layout = &checked.volume.layout;
    let mut bytes = vec![0; layout.block_size as usize];
    for slot in slots.iter().filter(|slot| slot.level == level) {
        if !claims.must_copy(checked, slot.block) {
            continue;
        }
        let Some(copy) = space.block() else {
            return false;
        };
        image.read(layout.at(slot.block), &mut bytes);
        image.write(layout.at(copy), &bytes);
        image.patch(Patch::word(slot.at, copy));
        if let Some(count) = claims.counts.get_mut(&slot.block) {
            *count -= 1;
        }
    }
    // What was not copied is still this inode's claim.
    true
}
