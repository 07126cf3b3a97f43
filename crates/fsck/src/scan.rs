//! Pass 1: every inode in use, its blocks and its size.
//!
//! Groups are spread over threads. A group's findings, kinds and directories come back in one piece and are put together
//! in the order of the groups, so that the report does not depend on the number of threads.

mod blocks;
mod inode;
mod quick;
mod special;
mod tree;
mod xattr;

pub(crate) use inode::{Subject, field, flag};
pub(crate) use tree::{Slot, TRANSLATOR, TreeWalk, Visit};

use std::sync::atomic::{AtomicU32, Ordering};

use crate::census::{Census, Counts, Dir, Kind, XattrRef};
use crate::finding::Finding;
use crate::fix::{Fix, Patch};
use crate::image::Image;
use crate::layout::{Layout, SUPER_AT, feature};
use crate::open::Volume;
use crate::parallel;
use crate::problem::Code;
use crate::{Error, Hands};

/// Bytes of an inode table that are read at a time; they stay in the second-level cache.
const PIECE: usize = 64 << 10;

/// What the scan of one group found.
#[derive(Debug, Default)]
pub(crate) struct GroupScan {
    pub(crate) findings: Vec<Finding>,
    pub(crate) dirs: Vec<Dir>,
    pub(crate) xattrs: Vec<XattrRef>,
    pub(crate) counts: Counts,
}

/// Everything that the scan of an inode looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) image: &'a Image,
    pub(crate) volume: &'a Volume,
    pub(crate) census: &'a Census,
    /// Whether deletion times below the inode count can be told from orphan list links.
    pub(crate) low_dtime: bool,
    /// Members of the orphan list.
    pub(crate) orphans: &'a [u32],
    pub(crate) now: u32,
    /// Indirect blocks that may still be entered although they were reached before. Hostile trees point at one block
    /// from everywhere; without a limit their walk would take longer than anybody waits.
    pub(crate) again: &'a AtomicU32,
}

impl Scan<'_> {
    fn may_enter_again(&self) -> bool {
        self.again
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }
}

/// How many indirect blocks may be entered again: 16 Mi pointers in all.
pub(crate) fn again_budget(layout: &Layout) -> AtomicU32 {
    AtomicU32::new((1 << 24) / layout.addrs())
}

/// Runs pass 1.
pub(crate) fn run(
    image: &Image,
    volume: &Volume,
    orphans: &[u32],
    hands: Hands<'_>,
    findings: &mut Vec<Finding>,
) -> Result<Census, Error> {
    let layout = &volume.layout;
    let mut census = Census::new(layout)?;
    claim_metadata(volume, &census);
    let inodes = layout.inodes;
    let low = |time: u32| time != 0 && time < inodes;
    let sb = &volume.sb;
    let low_dtime = !(low(sb.s_wtime.get()) || low(sb.s_mtime.get()) || low(sb.s_mkfs_time.get()));
    let again = again_budget(layout);
    let scan = Scan {
        image,
        volume,
        census: &census,
        low_dtime,
        orphans,
        now: now(),
        again: &again,
    };
    let scans = parallel::map_with(layout.groups, hands.threads, Vec::new, |table, group| {
        if hands.cancel.is_set() {
            return GroupScan::default();
        }
        hands.progress.step(1, group, layout.groups);
        let scan = scan_group(scan, group, table);
        hands.progress.found_more(scan.findings.len());
        scan
    });
    let mut xattrs = Vec::new();
    for (group, scan) in (0..).zip(scans) {
        findings.extend(scan.findings);
        census.set_used_in_group(group, crate::layout::saturate(scan.counts.inodes()));
        census.dirs.extend(scan.dirs);
        census.counts.add(&scan.counts);
        xattrs.extend(scan.xattrs);
    }
    xattrs.sort_unstable();
    xattr::check_blocks(image, volume, &census, &xattrs, findings);
    if census.counts.large != 0 {
        check_large_file(volume, findings);
    }
    Ok(census)
}

/// Files of 2 GiB and more want their feature, and with it a revision in which features mean something.
fn check_large_file(volume: &Volume, findings: &mut Vec<Finding>) {
    let layout = &volume.layout;
    if layout.ro_compat & feature::RO_LARGE_FILE != 0 && layout.revision > 0 {
        return;
    }
    let mut patches = vec![Patch::word(
        SUPER_AT + 100,
        layout.ro_compat | feature::RO_LARGE_FILE,
    )];
    if layout.revision == 0 {
        patches.push(Patch::word(SUPER_AT + 84, layout.first_ino));
        patches.push(Patch::half(SUPER_AT + 88, 128));
        patches.push(Patch::word(SUPER_AT + 76, 1));
    }
    findings.push(Finding::new(Code::LargeFile).fix(Fix::Patches(patches)));
}

/// The clock of deletion times: seconds since 1970.
pub(crate) fn now() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| crate::layout::saturate(since.as_secs()))
}

fn claim_metadata(volume: &Volume, census: &Census) {
    let layout = &volume.layout;
    for (group, places) in (0..).zip(&volume.places) {
        for (first, count) in layout
            .fixed_metadata(group)
            .into_iter()
            .chain(places.runs(layout))
        {
            census.claimed.set_run(first, count, |_, _| {});
        }
    }
}

fn scan_group(scan: Scan<'_>, group: u32, table: &mut Vec<u8>) -> GroupScan {
    let layout = &scan.volume.layout;
    let mut out = GroupScan::default();
    let first = layout.first_ino_of(group);
    let Some(start) = scan.volume.inode_at(first) else {
        return out;
    };
    let end = first.saturating_add(layout.inodes_per_group);
    let inode_size = layout.inode_size as usize;
    // A piece of the table at a time: one copy of some kilobytes costs less than many of some bytes.
    let len = PIECE.min(layout.inodes_per_group as usize * inode_size);
    table.resize(len, 0);
    let mut buffer = Vec::new();
    for (piece, first) in (0_u64..).zip((first..end).step_by(len / inode_size)) {
        let block_at = start + piece * len as u64;
        let rest = (end - first) as usize * inode_size;
        table.truncate(rest);
        scan.image.read(block_at, table);
        for (index, (ino, bytes)) in (0_u64..).zip((first..end).zip(table.chunks_exact(inode_size)))
        {
            let at = block_at + index * u64::from(layout.inode_size);
            if ino >= layout.first_ino {
                if bytes.get(26..28) == Some(&[0, 0]) {
                    inode::check_free(scan, ino, at, bytes, &mut out);
                    continue;
                }
                if let Some((kind, links)) = quick::check(scan, ino, bytes, &mut out) {
                    note(scan.census, &mut out, ino, kind, links);
                    continue;
                }
            }
            buffer.resize(layout.block_size as usize, 0);
            let kind = inode::check(scan, (ino, at), bytes, &mut buffer, &mut out);
            if kind.used() {
                let links = scan.image.le16(at + field::LINKS);
                note(scan.census, &mut out, ino, kind, links);
            }
        }
    }
    out
}

fn note(census: &Census, out: &mut GroupScan, ino: u32, kind: Kind, links: u16) {
    census.set_inode(ino, kind, links);
    if let Some(count) = out.counts.kinds.get_mut(usize::from(kind.0)) {
        *count += 1;
    }
}
