//! The blocks of an inode, and what they say about `i_size`, `i_blocks` and the index flag.

use hashbrown::HashSet;

use super::inode::{BAD_INO, RESIZE_INO, Subject, field, flag};
use super::tree::{Slot, TreeWalk, Visit};
use super::{GroupScan, xattr};
use crate::census::{Dir, Kind, XattrRef};
use crate::finding::Finding;
use crate::fix::Fix;
use crate::layout::{feature, saturate};
use crate::open::{Metadata, Volume};
use crate::problem::Code;

/// The list of bad blocks: every block of it is taken, and none may hold metadata.
pub(super) fn walk_bad_blocks(subject: &Subject<'_>, out: &mut GroupScan) {
    let scan = subject.scan;
    let own = blocks_of_the_list(subject);
    let mut walk = TreeWalk::new(subject, Kind::REGULAR, &mut out.findings);
    walk.is_bad_blocks = true;
    walk.run(&mut |findings, slot: Slot| {
        if slot.level == 0 && own.contains(&slot.block) {
            let finding = Finding::new(Code::BadBlocksOwn).ino(BAD_INO);
            findings.push(finding.block(slot.block).fix(Fix::word(slot.at, 0)));
            return Visit::Seen;
        }
        if let (Some(metadata), 0) = (scan.volume.metadata(slot.block), slot.level) {
            findings.extend(bad_metadata(scan.volume, metadata, slot));
            return Visit::Seen;
        }
        if scan.census.claim(slot.block) {
            Visit::Again
        } else {
            Visit::Claimed
        }
    });
}

/// The indirect blocks that hold the list of bad blocks.
fn blocks_of_the_list(subject: &Subject<'_>) -> HashSet<u32> {
    let mut own = HashSet::new();
    if subject
        .raw
        .i_block
        .iter()
        .skip(12)
        .all(|block| block.get() == 0)
    {
        return own;
    }
    let mut ignored = Vec::new();
    let mut walk = TreeWalk::new(subject, Kind::REGULAR, &mut ignored);
    walk.is_bad_blocks = true;
    walk.run(&mut |_, slot: Slot| {
        let new = slot.level != 0 && own.insert(slot.block);
        if new { Visit::Claimed } else { Visit::Seen }
    });
    own
}

/// A bad block under the file system's own structures: bitmaps and tables can move away from it, the primary superblock and
/// its descriptors cannot, and backups are only backups.
fn bad_metadata(volume: &Volume, metadata: Metadata, slot: Slot) -> Option<Finding> {
    let what = match metadata {
        Metadata::Backup => return None,
        Metadata::Primary => {
            let finding = Finding::new(Code::BadBlocksMeta).fix(Fix::word(slot.at, 0));
            return Some(finding.ino(BAD_INO).block(slot.block));
        }
        Metadata::BlockBitmap => "block bitmap",
        Metadata::InodeBitmap => "inode bitmap",
        Metadata::InodeTable => "inode table",
    };
    let finding = Finding::new(Code::BadBlocksGroup)
        .ino(BAD_INO)
        .block(slot.block)
        .group(volume.layout.group_of_block(slot.block))
        .name(what.as_bytes());
    Some(finding.fix(Fix::MoveGroup(metadata)))
}

/// The block tree, the attribute block, `i_size` and `i_blocks`.
pub(super) fn check_blocks(subject: &Subject<'_>, kind: Kind, out: &mut GroupScan) {
    let scan = subject.scan;
    let layout = &scan.volume.layout;
    let mut blocks = u64::from(xattr::claim(subject, out));
    let mut last = None;
    if subject.has_blocks() {
        let resize = subject.ino == RESIZE_INO;
        let mut walk = TreeWalk::new(subject, kind, &mut out.findings);
        walk.claims = (!resize).then_some(scan.census);
        walk.run(&mut |_, slot: Slot| {
            // The preamble has looked at the resize inode; what it reserves is metadata. Only its one double indirect
            // block is its own.
            let own = !resize || slot.is_own_of_resize_inode(subject);
            if own && scan.census.claim(slot.block) {
                Visit::Again
            } else {
                Visit::Claimed
            }
        });
        let (cleared, fragmented, count) = (walk.too_many, walk.fragmented, walk.blocks);
        last = walk.last;
        blocks += count;
        if fragmented && count < u64::from(layout.blocks_per_group) {
            out.counts.fragmented += 1;
        }
        for (level, count) in out.counts.indirect.iter_mut().enumerate() {
            *count += u64::from(
                subject
                    .raw
                    .i_block
                    .get(12 + level)
                    .is_some_and(|b| b.get() != 0),
            );
        }
        if cleared {
            return;
        }
    }
    if subject.has(flag::INDEX) {
        check_index_flag(subject, kind, out);
    }
    if kind == Kind::DIRECTORY && subject.has_blocks() {
        if blocks == 0 {
            out.findings
                .push(subject.finding(Code::ZeroLengthDir).fix(Fix::ClearInode));
            return;
        }
        out.dirs.push(Dir::new(subject.ino));
    }
    check_size(subject, kind, last, out);
    let sectors = blocks * u64::from(layout.block_size / 512);
    // The Hurd counts a translator, or does not; a text in the inode has no blocks there either.
    let counted = !layout.hurd || (kind == Kind::SYMLINK && blocks == 0);
    if counted && sectors != u64::from(subject.raw.i_blocks.get()) {
        let fix = Fix::word(subject.at + field::BLOCKS, saturate(sectors));
        let finding = subject
            .finding(Code::IBlocks)
            .found(subject.raw.i_blocks.get())
            .expected(sectors);
        out.findings.push(finding.fix(fix));
    }
}

fn check_index_flag(subject: &Subject<'_>, kind: Kind, out: &mut GroupScan) {
    let layout = &subject.scan.volume.layout;
    let fix = subject.clear_flags(flag::INDEX);
    if kind != Kind::DIRECTORY {
        out.findings
            .push(subject.finding(Code::HtreeNotDir).fix(fix));
    } else if !layout.compat(feature::COMPAT_DIR_INDEX) {
        out.findings
            .push(subject.finding(Code::HtreeFeature).fix(fix));
    } else {
        let root = subject.raw.i_block[0].get();
        let wrong = if layout.holds(root) {
            root_info(subject, root)
        } else {
            Some("no block")
        };
        if let Some(wrong) = wrong {
            out.findings.push(
                subject
                    .finding(Code::HtreeRoot)
                    .name(wrong.as_bytes())
                    .fix(fix),
            );
        }
    }
}

/// What is wrong with the fixed part of an index root, if anything.
fn root_info(subject: &Subject<'_>, block: u32) -> Option<&'static str> {
    let mut info = [0_u8; 8];
    subject
        .scan
        .image
        .read(subject.scan.volume.layout.at(block) + 24, &mut info);
    let [r0, r1, r2, r3, version, len, levels, flags] = info;
    match () {
        () if [r0, r1, r2, r3] != [0; 4] => Some("reserved field"),
        () if len < 8 => Some("info length"),
        () if version > 2 => Some("hash version"),
        () if flags & 1 != 0 => Some("flags"),
        () if levels > 1 => Some("depth"),
        () => None,
    }
}

fn check_size(subject: &Subject<'_>, kind: Kind, last: Option<u64>, out: &mut GroupScan) {
    let layout = &subject.scan.volume.layout;
    let size = subject.size();
    let block_size = u64::from(layout.block_size);
    let mapped = last.map_or(0, |last| last + 1);
    let report = |out: &mut GroupScan, code: Code, expected: u64| {
        let finding = subject.finding(code).found(size).expected(expected);
        out.findings.push(finding.fix(subject.set_size(expected)));
    };
    if kind == Kind::DIRECTORY {
        let blocks = size / block_size;
        if !size.is_multiple_of(block_size) || blocks > mapped {
            report(out, Code::DirSize, mapped * block_size);
        } else if mapped - blocks > u64::from(layout.prealloc_dir_blocks) {
            report(out, Code::PastSize, mapped * block_size);
        }
    } else if kind != Kind::SYMLINK {
        if last.is_some_and(|last| size < last * block_size) {
            report(out, Code::PastSize, mapped * block_size);
        } else if size > layout.max_tree_size() {
            report(out, Code::SizeTooLarge, mapped * block_size);
        }
    }
    if Kind::of_mode(subject.raw.i_mode.get()) == Kind::REGULAR && size >= 1 << 31 {
        out.counts.large += 1;
    }
}

/// The attribute block of an inode: claims it for the count of references. Says whether `i_blocks` counts it.
pub(super) fn xattr_ref(subject: &Subject<'_>, out: &mut GroupScan) -> bool {
    let layout = &subject.scan.volume.layout;
    let block = subject.raw.i_file_acl.get();
    if block == 0 {
        return false;
    }
    let fix = Fix::word(subject.at + field::FILE_ACL, 0);
    if !layout.compat(feature::COMPAT_EXT_ATTR) {
        out.findings
            .push(subject.finding(Code::FileAclFeature).block(block).fix(fix));
        return false;
    }
    if !layout.holds(block) {
        out.findings
            .push(subject.finding(Code::FileAclRange).block(block).fix(fix));
        return false;
    }
    out.xattrs.push(XattrRef {
        block,
        ino: subject.ino,
    });
    true
}
