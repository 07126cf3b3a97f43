//! Pass 1B: who claims the blocks that are claimed more than once.

use crate::bitmaps::Runs;
use crate::census::{Census, Kind};
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::open::Volume;
use crate::parallel::Crew;
use crate::problem::Code;
use crate::scan::{self, Scan, Slot, Subject, TreeWalk, Visit};

/// Walks every inode again and reports those with shared blocks.
pub(crate) fn run(
    image: &Image,
    volume: &Volume,
    census: &Census,
    crew: Crew<'_>,
    findings: &mut Vec<Finding>,
) {
    if !census.has_shared() {
        return;
    }
    let layout = &volume.layout;
    let again = scan::again_budget(layout);
    let scan = Scan {
        image,
        volume,
        census,
        low_dtime: false,
        orphans: &[],
        now: 0,
        again: &again,
    };
    let groups = crew.map(layout.groups, |group| {
        let mut found = Vec::new();
        for (ino, kind) in census.used_inodes(layout, group) {
            let Some(at) = volume.inode_at(ino) else {
                continue;
            };
            let subject = Subject {
                scan,
                ino,
                at,
                raw: image.inode(at),
            };
            found.extend(check_inode(&subject, kind));
        }
        found
    });
    findings.extend(groups.into_iter().flatten());
}

fn check_inode(subject: &Subject<'_>, kind: Kind) -> Option<Finding> {
    let slots = shared_slots(subject, kind);
    let mut blocks: Vec<u32> = slots.iter().map(|slot| slot.block).collect();
    let xattr = subject.raw.i_file_acl.get();
    if xattr != 0 && subject.scan.census.shared.test(xattr) {
        blocks.push(xattr);
    }
    blocks.sort_unstable();
    let mut runs = Runs::default();
    for &block in &blocks {
        runs.push(block.into());
    }
    let first = *blocks.first()?;
    let finding = subject
        .finding(Code::SharedBlocks)
        .block(first)
        .name(runs.text().as_bytes());
    // The list of bad blocks names places, not contents: the others make room for it.
    let fix = match subject.ino {
        1 => Fix::WithAnother,
        _ => Fix::CloneBlocks,
    };
    Some(finding.found(runs.count).fix(fix))
}

/// The pointers of an inode to shared blocks, indirect blocks before what they lead to.
pub(crate) fn shared_slots(subject: &Subject<'_>, kind: Kind) -> Vec<Slot> {
    let mut slots = Vec::new();
    let census = subject.scan.census;
    let resize = subject.ino == 7;
    if subject.has_blocks() || subject.ino == 1 {
        let mut findings = Vec::new();
        let kind = match kind {
            // A journal is walked as the file that it is.
            Kind::RESERVED => Kind::of_mode(subject.raw.i_mode.get()),
            kind => kind,
        };
        let mut walk = TreeWalk::new(subject, kind, &mut findings);
        walk.is_bad_blocks = subject.ino == 1;
        walk.run(&mut |_, slot: Slot| {
            let shared =
                census.shared.test(slot.block) && (!resize || slot.is_own_of_resize_inode(subject));
            if shared {
                slots.push(slot);
            }
            if shared { Visit::Again } else { Visit::Claimed }
        });
    }
    slots
}
