//! Pass 1: every inode in use, its blocks and its size.
//!
//! Spans of inodes are spread over threads. What a span's inodes are is written where it belongs; its findings and
//! directories come back in one piece and are put together in the order of the spans, so that the report does not depend on
//! the number of threads.

mod blocks;
mod indirect;
mod inode;
mod quick;
mod special;
mod tree;
mod xattr;

pub(crate) use inode::{Subject, field, flag};
pub(crate) use tree::{Slot, TRANSLATOR, TreeWalk, Visit};

use std::sync::atomic::{AtomicU32, Ordering};

use ext2dax_pmem::Buffer;

use crate::bits::zeroed;
use crate::census::{Census, Counts, Dir, Kind, XattrRef};
use crate::finding::Finding;
use crate::fix::{Fix, Patch};
use crate::image::Image;
use crate::inodes::known;
use crate::layout::{Layout, SUPER_AT, feature};
use crate::open::Volume;
use crate::problem::Code;
use crate::{Error, Hands};

/// Bytes of an inode table that are read at a time; they stay in the second-level cache.
const PIECE: usize = 128 << 10;
/// Inodes that a thread takes at a time: so few that none waits long for the last one.
const SPAN: u32 = 4096;

/// What the scan of one span of inodes found.
#[derive(Debug, Default)]
pub(crate) struct GroupScan {
    pub(crate) findings: Vec<Finding>,
    pub(crate) dirs: Vec<Dir>,
    pub(crate) xattrs: Vec<XattrRef>,
    pub(crate) counts: Counts,
    /// Blocks that sound inodes own, not yet claimed: those of the next one are mostly their neighbours.
    pending: (u32, u32),
}

impl GroupScan {
    /// Claims a run of blocks, at the latest with [`GroupScan::claim_pending`].
    #[inline]
    fn claim_run(&mut self, census: &Census, first: u32, len: u32) {
        let (start, before) = self.pending;
        if start.wrapping_add(before) == first {
            self.pending = (start, before + len);
        } else {
            census.claim_run(start, before);
            self.pending = (first, len);
        }
    }

    /// Before an inode is looked at that may not be sound, and at the end.
    fn claim_pending(&mut self, census: &Census) {
        let (start, len) = std::mem::take(&mut self.pending);
        census.claim_run(start, len);
    }
}

/// Buffers of one thread.
#[derive(Debug, Default)]
struct Buffers {
    table: Buffer,
    block: Buffer,
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
    let mut known: Vec<u8> = zeroed(inodes.into()).map_err(|_| Census::no_memory(layout))?;
    let spans: Vec<&mut [u8]> = known.chunks_mut(SPAN as usize).collect();
    let buffers = |_| Buffers::default();
    let scans = hands
        .crew
        .map_parts(spans, buffers, |buffers, span, known| {
            let first = 1 + span * SPAN;
            if hands.cancel.is_set() {
                return GroupScan::default();
            }
            let scan = scan_span(scan, first, known, hands, buffers);
            hands.progress.found_more(scan.findings.len());
            scan
        });
    let mut xattrs = Vec::new();
    for scan in scans {
        findings.extend(scan.findings);
        census.dirs.extend(scan.dirs);
        census.counts.add(&scan.counts);
        xattrs.extend(scan.xattrs);
    }
    census.inodes.set_known(known);
    xattrs.sort_unstable();
    xattr::check_blocks((image, volume), &census, &xattrs, orphans, findings);
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

/// Scans as many inodes from `first` on as `known` has bytes for.
fn scan_span(
    scan: Scan<'_>,
    first: u32,
    mut known: &mut [u8],
    hands: Hands<'_>,
    buffers: &mut Buffers,
) -> GroupScan {
    let layout = &scan.volume.layout;
    let mut out = GroupScan::default();
    let mut ino = first;
    while !known.is_empty() {
        let group = layout.group_of_ino(ino);
        let start = layout.first_ino_of(group);
        let rest = (start - 1 + layout.inodes_per_group - (ino - 1)) as usize;
        let (here, behind) = known.split_at_mut(rest.min(known.len()));
        if ino == start {
            hands.progress.step(1, group, layout.groups);
        }
        scan_inodes(scan, ino, here, buffers, &mut out);
        let used = here.iter().filter(|&&byte| byte != 0).count();
        scan.census
            .add_used_in_group(group, crate::layout::saturate(used as u64));
        ino += crate::layout::saturate(here.len() as u64);
        known = behind;
    }
    out.claim_pending(scan.census);
    out
}

/// Scans inodes of one group.
fn scan_inodes(
    scan: Scan<'_>,
    first: u32,
    known: &mut [u8],
    buffers: &mut Buffers,
    out: &mut GroupScan,
) {
    let layout = &scan.volume.layout;
    let Some(start) = scan.volume.inode_at(first) else {
        return;
    };
    let inode_size = layout.inode_size as usize;
    let Buffers { table, block } = buffers;
    block.resize(layout.block_size as usize);
    // A piece of the table at a time: one copy of some kilobytes costs less than many of some bytes.
    let per_piece = PIECE / inode_size;
    let (mut ino, mut at) = (first, start);
    for known in known.chunks_mut(per_piece) {
        table.resize(known.len() * inode_size);
        scan.image.read(at, table);
        for (bytes, known) in table.chunks_exact(inode_size).zip(known) {
            *known = scan_inode(scan, (ino, at), bytes, block, out);
            ino += 1;
            at += u64::from(layout.inode_size);
        }
    }
}

/// Scans one inode and says what is known of it then.
#[inline]
fn scan_inode(
    scan: Scan<'_>,
    (ino, at): (u32, u64),
    bytes: &[u8],
    block: &mut [u8],
    out: &mut GroupScan,
) -> u8 {
    let layout = &scan.volume.layout;
    if ino >= layout.first_ino {
        if bytes.get(26..28) == Some(&[0, 0]) {
            inode::check_free(scan, ino, at, bytes, out);
            return 0;
        }
        if let Some((kind, links)) = quick::check(scan, ino, bytes, block, out) {
            return note(out, kind, links);
        }
    }
    out.claim_pending(scan.census);
    let kind = inode::check(scan, (ino, at), bytes, block, out);
    match kind.used() {
        true => note(out, kind, scan.image.le16(at + field::LINKS)),
        false => 0,
    }
}

#[inline]
fn note(out: &mut GroupScan, kind: Kind, links: u16) -> u8 {
    if let Some(count) = out.counts.kinds.get_mut(usize::from(kind.0)) {
        *count += 1;
    }
    known(kind, links)
}
