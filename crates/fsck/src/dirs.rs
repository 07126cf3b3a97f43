//! Pass 2: every block of every directory.
//!
//! Directories are spread over threads. Which entry is "the" name of a subdirectory is decided afterwards, in the order
//! of the directories, so that the answer does not depend on the number of threads.

mod block;
mod htree;

pub(crate) use block::{Entry, decode_rec_len};

use crate::census::{Census, Dir, Kind};
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::layout::ROOT_INO;
use crate::open::Volume;
use crate::parallel;
use crate::problem::Code;
use crate::progress::Progress;
use crate::scan::{Scan, Slot, Subject, TreeWalk, Visit};

/// How many directories a thread takes at a time.
const BATCH: u32 = 64;

/// An entry that leads to a directory.
#[derive(Clone, Debug)]
struct DirLink {
    child: u32,
    parent: u32,
    block: u32,
    offset: u32,
}

/// What the check of some directories found.
#[derive(Debug, Default)]
struct DirScan {
    findings: Vec<Finding>,
    links: Vec<DirLink>,
    dotdots: Vec<(u32, u32)>,
}

/// One block of a directory; `block` 0 is a hole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirBlock {
    pub(crate) lblk: u32,
    pub(crate) block: u32,
}

/// Runs pass 2: counts links, learns parents and `..`.
pub(crate) fn run(
    image: &Image,
    volume: &Volume,
    census: &mut Census,
    threads: usize,
    progress: &Progress,
    findings: &mut Vec<Finding>,
) {
    let dirs = std::mem::take(&mut census.dirs);
    let again = crate::scan::again_budget(&volume.layout);
    let batches = u32::try_from(dirs.len().div_ceil(BATCH as usize)).unwrap_or(u32::MAX);
    let scans = {
        let census = &*census;
        let scan = Scan {
            image,
            volume,
            census,
            low_dtime: false,
            orphans: &[],
            now: 0,
            again: &again,
        };
        parallel::map(batches, threads, |batch| {
            progress.step(2, batch, batches);
            let mut out = DirScan::default();
            let first = batch as usize * BATCH as usize;
            let mut blocks = block::Scratch::new(&volume.layout);
            for dir in dirs.iter().skip(first).take(BATCH as usize) {
                check_dir(scan, dir, &mut blocks, &mut out);
            }
            out
        })
    };
    census.dirs = dirs;
    for scan in scans {
        findings.extend(scan.findings);
        for (ino, dotdot) in scan.dotdots {
            if let Some(dir) = census.dir_index(ino).and_then(|i| census.dirs.get_mut(i)) {
                dir.dotdot = dotdot;
            }
        }
        for link in scan.links {
            learn_parent(image, volume, census, &link, findings);
        }
    }
}

/// The first entry that leads to a directory is its name; any other is one too many.
fn learn_parent(
    image: &Image,
    volume: &Volume,
    census: &mut Census,
    link: &DirLink,
    findings: &mut Vec<Finding>,
) {
    let Some(dir) = census
        .dir_index(link.child)
        .and_then(|i| census.dirs.get_mut(i))
    else {
        return;
    };
    if dir.parent == 0 && link.child != ROOT_INO {
        dir.parent = link.parent;
        return;
    }
    let at = volume.layout.at(link.block) + u64::from(link.offset);
    let mut head = [0_u8; 263];
    let room = (volume.layout.block_size - link.offset).min(263) as usize;
    if let Some(head) = head.get_mut(..room) {
        image.read(at, head);
    }
    let name = head.get(8..8 + usize::from(head[6])).unwrap_or_default();
    let finding = Finding::new(Code::LinkDir)
        .ino(link.child)
        .parent(link.parent)
        .block(link.block);
    findings.push(
        finding
            .name(name)
            .at(link.offset.into())
            .found(dir.parent)
            .fix(Fix::word(at, 0)),
    );
}

fn check_dir(scan: Scan<'_>, dir: &Dir, scratch: &mut block::Scratch, out: &mut DirScan) {
    let Some(at) = scan.volume.inode_at(dir.ino) else {
        return;
    };
    let subject = Subject {
        scan,
        ino: dir.ino,
        at,
        raw: scan.image.inode(at),
    };
    let blocks = list_blocks(&subject);
    scratch.start_dir();
    let mut index = htree::Index::start(&subject, &blocks);
    for &dir_block in &blocks {
        if dir_block.block == 0 {
            let finding = Finding::new(Code::DirHole)
                .ino(dir.ino)
                .at(dir_block.lblk.into());
            out.findings.push(finding.fix(Fix::AllocateDirBlock {
                lblk: dir_block.lblk,
            }));
            continue;
        }
        block::check(&subject, dir_block, scratch, index.as_mut(), out);
    }
    if let Some(index) = index {
        index.finish(&subject, &mut out.findings);
    }
}

/// The blocks of a directory in order. Holes up to the last mapped block are listed; block 0 always is.
fn list_blocks(subject: &Subject<'_>) -> Vec<DirBlock> {
    let mut mapped = Vec::new();
    let mut findings = Vec::new();
    let shared = subject.scan.census.shared.count() != 0;
    let most = subject.scan.volume.layout.blocks as usize;
    let mut walk = TreeWalk::new(subject, Kind::DIRECTORY, &mut findings);
    walk.run(&mut |_, slot: Slot| {
        if slot.level == 0 && mapped.len() < most {
            mapped.push(DirBlock {
                lblk: crate::layout::saturate(slot.lblk),
                block: slot.block,
            });
        }
        // Without shared blocks the tree is a tree; with them its walk needs a limit.
        if shared { Visit::Again } else { Visit::Claimed }
    });
    let mut all = Vec::with_capacity(mapped.len());
    for dir_block in mapped {
        // A hole of a hostile directory can be longer than the file system; one finding says enough.
        if let Some(next) = all
            .last()
            .map_or(Some(0), |last: &DirBlock| last.lblk.checked_add(1))
        {
            let gap = dir_block.lblk.saturating_sub(next).min(64);
            all.extend((next..next.saturating_add(gap)).map(|lblk| DirBlock { lblk, block: 0 }));
        }
        all.push(dir_block);
    }
    if all.is_empty() {
        all.push(DirBlock { lblk: 0, block: 0 });
    }
    all
}

/// Shows every mapped block of every directory to `visit` until it answers false.
pub(crate) fn for_each_block(
    image: &Image,
    volume: &Volume,
    census: &Census,
    mut visit: impl FnMut(&Dir, DirBlock) -> bool,
) {
    let again = crate::scan::again_budget(&volume.layout);
    let scan = Scan {
        image,
        volume,
        census,
        low_dtime: false,
        orphans: &[],
        now: 0,
        again: &again,
    };
    for dir in &census.dirs {
        let Some(at) = volume.inode_at(dir.ino) else {
            continue;
        };
        let subject = Subject {
            scan,
            ino: dir.ino,
            at,
            raw: image.inode(at),
        };
        for place in list_blocks(&subject) {
            if place.block != 0 && !visit(dir, place) {
                return;
            }
        }
    }
}

/// Shows every mapped block of one directory to `visit` until it answers false.
pub(crate) fn for_each_block_of(
    image: &Image,
    volume: &Volume,
    census: &Census,
    ino: u32,
    mut visit: impl FnMut(DirBlock) -> bool,
) {
    let again = crate::scan::again_budget(&volume.layout);
    let scan = Scan {
        image,
        volume,
        census,
        low_dtime: false,
        orphans: &[],
        now: 0,
        again: &again,
    };
    let Some(at) = volume.inode_at(ino) else {
        return;
    };
    let subject = Subject {
        scan,
        ino,
        at,
        raw: image.inode(at),
    };
    for place in list_blocks(&subject) {
        if place.block != 0 && !visit(place) {
            return;
        }
    }
}
