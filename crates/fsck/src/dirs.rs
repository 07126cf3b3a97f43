//! Pass 2: every block of every directory.
//!
//! Directories are spread over threads. Which entry is "the" name of a subdirectory is decided afterwards, in the order
//! of the directories, so that the answer does not depend on the number of threads.

mod block;
mod htree;
mod names;

pub(crate) use block::{Entry, decode_rec_len};

use std::sync::Mutex;

use crate::census::{Census, Dir, Kind};
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::inodes::Links;
use crate::open::Volume;
use crate::problem::Code;
use crate::scan::{Scan, Slot, Subject, TRANSLATOR, TreeWalk, Visit};
use crate::{Error, Hands};

/// How many directories a thread takes at a time, at most.
const BATCH: usize = 64;
/// How many threads check directories, at most: each has two bits for every inode.
const THREADS: usize = 8;

/// What the check of some directories found.
#[derive(Debug, Default)]
struct DirScan {
    findings: Vec<Finding>,
    /// Directories to which more than one entry leads.
    second_names: Vec<u32>,
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
    hands: Hands<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let layout = &volume.layout;
    // More threads would need more bits for each inode than there is memory for by contract.
    let threads = hands.crew.at_most(THREADS).threads;
    let new = |_| Links::new(layout.inodes).map(|links| Mutex::new(Some(links)));
    let links: Result<Vec<_>, Error> = (0..threads).map(new).collect();
    let links = links.map_err(|_| Census::no_memory(layout))?;
    let (counted, second_names) = check_all(image, volume, census, links, hands, findings);
    for links in counted {
        census.inodes.add(links);
    }
    if !second_names.is_empty() {
        let again = crate::scan::again_budget(layout);
        let scan = plain_scan(image, volume, census, &again);
        report_second_names(scan, &second_names, findings);
    }
    Ok(())
}

/// Checks all directories; answers the links that each thread has counted, and the directories with several names.
fn check_all(
    image: &Image,
    volume: &Volume,
    census: &Census,
    links: Vec<Mutex<Option<Links>>>,
    hands: Hands<'_>,
    findings: &mut Vec<Finding>,
) -> (Vec<Links>, Vec<u32>) {
    let again = crate::scan::again_budget(&volume.layout);
    let scan = plain_scan(image, volume, census, &again);
    let threads = links.len();
    // Small batches where there are few directories: the last one must not keep all others waiting.
    let batch_len = (census.dirs.len() / (threads * 16)).clamp(1, BATCH);
    let batches: Vec<&[Dir]> = census.dirs.chunks(batch_len).collect();
    let count = u32::try_from(batches.len()).unwrap_or(u32::MAX);
    let buffers = |thread: usize| {
        let links = links
            .get(thread)
            .and_then(|links| links.lock().ok()?.take());
        let scratch = block::Scratch::new(&volume.layout, links.unwrap_or_default());
        (scratch, Vec::new())
    };
    let scans = hands
        .crew
        .at_most(threads)
        .map_with(count, buffers, |(scratch, blocks), batch| {
            hands.progress.step(2, batch, count);
            let mut out = DirScan::default();
            for dir in batches.get(batch as usize).copied().unwrap_or_default() {
                if hands.cancel.is_set() {
                    break;
                }
                check_dir(scan, dir, blocks, scratch, &mut out);
            }
            hands.progress.found_more(out.findings.len());
            out
        });
    let mut second_names = Vec::new();
    for scan in scans.0 {
        findings.extend(scan.findings);
        second_names.extend(scan.second_names);
    }
    second_names.sort_unstable();
    let links = scans.1.into_iter().map(|(scratch, _)| scratch.links);
    (links.collect(), second_names)
}

pub(crate) fn plain_scan<'a>(
    image: &'a Image,
    volume: &'a Volume,
    census: &'a Census,
    again: &'a std::sync::atomic::AtomicU32,
) -> Scan<'a> {
    Scan {
        image,
        volume,
        census,
        low_dtime: false,
        orphans: &[],
        now: 0,
        again,
    }
}

/// One entry that leads to a directory is its name, any other is one too many: the first one in the directory that its `..`
/// leads to, or else the first of all. Threads have only seen that there are others: it is decided here, in the order of the
/// directories.
fn report_second_names(scan: Scan<'_>, children: &[u32], findings: &mut Vec<Finding>) {
    let census = scan.census;
    for_each_entry(scan, children, |subject, _, entry| {
        if let Some(dir) = census.dir(entry.ino)
            && dir.dotdot() == subject.ino
        {
            dir.set_parent(subject.ino);
        }
    });
    let mut named = hashbrown::HashSet::new();
    for_each_entry(scan, children, |subject, place, entry| {
        let parent = census.parent(entry.ino);
        if subject.ino != parent || !named.insert(entry.ino) {
            let at = scan.volume.layout.at(place.block) + entry.offset as u64;
            let finding = Finding::new(Code::LinkDir)
                .ino(entry.ino)
                .parent(subject.ino)
                .block(place.block)
                .name(entry.name)
                .at(entry.offset as u64)
                .found(parent);
            findings.push(finding.fix(Fix::word(at, 0)));
        }
    });
}

/// Shows every entry that leads to one of the directories `children`.
fn for_each_entry(
    scan: Scan<'_>,
    children: &[u32],
    mut visit: impl FnMut(&Subject<'_>, DirBlock, &Entry<'_>),
) {
    let layout = &scan.volume.layout;
    let mut bytes = vec![0; layout.block_size as usize];
    for_each_block(scan.image, scan.volume, scan.census, |subject, place| {
        scan.image.read(layout.at(place.block), &mut bytes);
        let mut offset = 0;
        let mut nth = if place.lblk == 0 { 0_u32 } else { 2 };
        while let Some(entry) = Entry::parse(&bytes, offset) {
            let wanted = nth >= 2 && children.binary_search(&entry.ino).is_ok();
            if wanted && block::leads(subject, &entry) {
                visit(subject, place, &entry);
            }
            offset += entry.rec_len;
            nth = nth.saturating_add(1);
        }
        true
    });
}

fn check_dir(
    scan: Scan<'_>,
    dir: &Dir,
    blocks: &mut Vec<DirBlock>,
    scratch: &mut block::Scratch,
    out: &mut DirScan,
) {
    let Some(at) = scan.volume.inode_at(dir.ino) else {
        return;
    };
    let subject = Subject {
        scan,
        ino: dir.ino,
        at,
        raw: scan.image.inode(at),
    };
    list_blocks(&subject, blocks);
    scratch.start_dir(blocks.len());
    let mut index = htree::Index::start(&subject, blocks);
    let mut rest = blocks.as_slice();
    while let [first, behind @ ..] = rest {
        if first.block == 0 {
            let lblk = first.lblk;
            let finding = Finding::new(Code::DirHole).ino(dir.ino).at(lblk.into());
            out.findings
                .push(finding.fix(Fix::AllocateDirBlock { lblk }));
            rest = behind;
            continue;
        }
        let (read, behind) = rest.split_at(scratch.read(&subject, rest));
        for block in read.iter().copied().enumerate() {
            block::check(&subject, dir, block, scratch, index.as_mut(), out);
        }
        rest = behind;
    }
    if let Some(index) = index {
        index.finish(&subject, &mut out.findings);
    }
}

/// The blocks of a directory in order. Holes up to the last mapped block are listed; block 0 always is.
fn list_blocks(subject: &Subject<'_>, all: &mut Vec<DirBlock>) {
    all.clear();
    let mut findings = Vec::new();
    let shared = subject.scan.census.has_shared();
    let most = subject.scan.volume.layout.blocks as usize;
    let mut walk = TreeWalk::new(subject, Kind::DIRECTORY, &mut findings);
    walk.run(&mut |_, slot: Slot| {
        if slot.level == 0 && slot.lblk != TRANSLATOR && all.len() < most {
            let lblk = crate::layout::saturate(slot.lblk);
            // A hole of a hostile directory can be longer than the file system; some findings say enough.
            let next = all
                .last()
                .map_or(Some(0), |last: &DirBlock| last.lblk.checked_add(1));
            if let Some(next) = next {
                let gap = lblk.saturating_sub(next).min(64);
                let hole = |lblk| DirBlock { lblk, block: 0 };
                all.extend((next..next.saturating_add(gap)).map(hole));
            }
            let block = slot.block;
            all.push(DirBlock { lblk, block });
        }
        // Without shared blocks the tree is a tree; with them its walk needs a limit.
        if shared { Visit::Again } else { Visit::Claimed }
    });
    if all.is_empty() {
        all.push(DirBlock { lblk: 0, block: 0 });
    }
}

/// Shows every mapped block of every directory to `visit` until it answers false.
pub(crate) fn for_each_block(
    image: &Image,
    volume: &Volume,
    census: &Census,
    mut visit: impl FnMut(&Subject<'_>, DirBlock) -> bool,
) {
    let again = crate::scan::again_budget(&volume.layout);
    let scan = plain_scan(image, volume, census, &again);
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
        let mut go_on = true;
        for_each_block_until(&subject, |place| {
            go_on = visit(&subject, place);
            go_on
        });
        if !go_on {
            return;
        }
    }
}

/// Shows every mapped block of one directory to `visit` until it answers false.
pub(crate) fn for_each_block_of(
    image: &Image,
    volume: &Volume,
    census: &Census,
    ino: u32,
    visit: impl FnMut(DirBlock) -> bool,
) {
    let again = crate::scan::again_budget(&volume.layout);
    let Some(at) = volume.inode_at(ino) else {
        return;
    };
    let subject = Subject {
        scan: plain_scan(image, volume, census, &again),
        ino,
        at,
        raw: image.inode(at),
    };
    for_each_block_until(&subject, visit);
}

fn for_each_block_until(subject: &Subject<'_>, mut visit: impl FnMut(DirBlock) -> bool) {
    let mut blocks = Vec::new();
    list_blocks(subject, &mut blocks);
    for place in blocks {
        if place.block != 0 && !visit(place) {
            return;
        }
    }
}
