//! Pass 1: every inode in use, its blocks and its size.
//!
//! Groups are spread over threads. A group's findings, kinds and directories come back in one piece and are put together
//! in the order of the groups, so that the report does not depend on the number of threads.

mod blocks;
mod inode;
mod special;
mod tree;
mod xattr;

pub(crate) use inode::{Subject, field, flag};
pub(crate) use tree::{Slot, TreeWalk, Visit};

use ext2dax_sync::atomic::{AtomicU32, Ordering};

use crate::census::{Census, Counts, Dir, Kind, XattrRef};
use crate::finding::Finding;
use crate::fix::{Fix, Patch};
use crate::image::Image;
use crate::layout::{Layout, SUPER_AT, feature};
use crate::open::Volume;
use crate::parallel;
use crate::problem::Code;
use crate::progress::Progress;

/// What the scan of one group found.
#[derive(Debug, Default)]
pub(crate) struct GroupScan {
    pub(crate) findings: Vec<Finding>,
    pub(crate) kinds: Vec<u8>,
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
    threads: usize,
    progress: &Progress,
    findings: &mut Vec<Finding>,
) -> Census {
    let layout = &volume.layout;
    let mut census = Census::new(layout);
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
    let scans = parallel::map(layout.groups, threads, |group| {
        progress.step(1, group, layout.groups);
        scan_group(scan, group)
    });
    let mut xattrs = Vec::new();
    for (group, scan) in (0..).zip(scans) {
        findings.extend(scan.findings);
        census.set_group(group, scan.kinds);
        census.dirs.extend(scan.dirs);
        census.counts.add(&scan.counts);
        xattrs.extend(scan.xattrs);
    }
    xattrs.sort_unstable();
    xattr::check_blocks(image, volume, &census, &xattrs, findings);
    if census.counts.large != 0 {
        check_large_file(volume, findings);
    }
    census
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
    for group in 0..layout.groups {
        for (first, count) in layout.fixed_metadata(group) {
            let last = first.saturating_add(count).min(layout.blocks);
            census.claimed.set_run(first, last.saturating_sub(first));
        }
    }
    for places in &volume.places {
        if places.inode_table != 0 {
            census
                .claimed
                .set_run(places.inode_table, layout.table_blocks);
        }
        for bitmap in [places.block_bitmap, places.inode_bitmap] {
            if bitmap != 0 {
                census.claimed.set(bitmap);
            }
        }
    }
}

fn scan_group(scan: Scan<'_>, group: u32) -> GroupScan {
    let layout = &scan.volume.layout;
    let mut out = GroupScan::default();
    let first = layout.first_ino_of(group);
    let mut buffer = vec![0; layout.block_size as usize];
    for ino in first..first.saturating_add(layout.inodes_per_group) {
        let Some(at) = scan.volume.inode_at(ino) else {
            break;
        };
        // Most inodes of most groups are free: two loads decide, without a copy of the inode.
        if ino >= layout.first_ino && scan.image.le16(at + 26) == 0 {
            inode::check_free(scan, ino, at, &mut out);
            continue;
        }
        let kind = inode::check(scan, ino, at, &mut buffer, &mut out);
        if kind.used() {
            set_kind(&mut out, layout.inodes_per_group, ino - first, kind);
        }
    }
    out
}

fn set_kind(out: &mut GroupScan, inodes_per_group: u32, index: u32, kind: Kind) {
    if out.kinds.is_empty() {
        out.kinds = vec![0; inodes_per_group as usize];
    }
    if let Some(slot) = out.kinds.get_mut(index as usize) {
        *slot = kind.0;
    }
    if let Some(count) = out.counts.kinds.get_mut(usize::from(kind.0)) {
        *count += 1;
    }
}
