//! What every check starts from: the superblock, and what it points to: descriptors, orphan list, resize inode, journal.

mod journal;

pub(crate) use journal::needs_replay;

use crate::CheckOptions;
use crate::error::Error;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::layout::{SUPER_AT, feature};
use crate::open::{self, Volume};
use crate::problem::Code;
use crate::scan::field;

const RESIZE_INO: u32 = 7;
/// `s_usr_quota_inum`, `s_grp_quota_inum` and `s_prj_quota_inum`.
const QUOTA_INODES: [u64; 3] = [576, 580, 620];

/// Opens the image, and returns the members of the orphan list in the order of their numbers as well.
pub(crate) fn run(
    image: &Image,
    options: &CheckOptions,
    findings: &mut Vec<Finding>,
) -> Result<(Volume, Vec<u32>), Error> {
    let mut volume = open::open(image, options, findings)?;
    check_group_flags(image, &volume, findings);
    journal::check(image, &mut volume, findings);
    check_quota(image, &volume, findings);
    check_resize_inode(image, &volume, findings);
    let orphans = check_orphans(image, &volume, findings);
    Ok((volume, orphans))
}

/// Group flags of ext4: without the feature for them no group is uninitialised.
fn check_group_flags(image: &Image, volume: &Volume, findings: &mut Vec<Finding>) {
    let layout = &volume.layout;
    for group in 0..layout.groups {
        let flags = image.le16(layout.desc_at(group, volume.copy) + 18);
        let last = group + 1 == layout.groups;
        if flags & 1 != 0 || (last && flags & 2 != 0) {
            let fix = Fix::half(layout.desc_at(group, 0) + 18, flags & !3);
            findings.push(
                Finding::new(Code::GroupFlags)
                    .group(group)
                    .found(flags)
                    .fix(fix),
            );
        }
    }
}

/// Follows the orphan list and returns its members in the order of their numbers.
fn check_orphans(image: &Image, volume: &Volume, findings: &mut Vec<Finding>) -> Vec<u32> {
    let layout = &volume.layout;
    let may_be_listed = |ino: u32| (layout.first_ino..=layout.inodes).contains(&ino);
    let mut members = Vec::new();
    let mut seen = hashbrown::HashSet::new();
    let mut next = volume.sb.s_last_orphan.get();
    let head_at = SUPER_AT + 232;
    let mut link_at = head_at;
    let mut last = 0;
    while next != 0 {
        if !may_be_listed(next) || !seen.insert(next) {
            let code = if last == 0 {
                Code::OrphanHead
            } else {
                Code::OrphanLink
            };
            findings.push(
                Finding::new(code)
                    .ino(last)
                    .found(next)
                    .fix(Fix::word(link_at, 0)),
            );
            break;
        }
        let Some(at) = volume.inode_at(next) else {
            break;
        };
        findings.push(
            Finding::new(Code::OrphanListed)
                .ino(next)
                .fix(Fix::CompleteOrphans),
        );
        members.push(next);
        last = next;
        link_at = at + field::DTIME;
        next = image.le32(link_at);
    }
    members.sort_unstable();
    members
}

/// The inode that owns the descriptor blocks reserved for growing. Linux `ext4/super.rst` and `ext4/special_inodes.rst`;
/// the order of the blocks in its double indirect block is that of resize2fs.
fn check_resize_inode(image: &Image, volume: &Volume, findings: &mut Vec<Finding>) {
    let layout = &volume.layout;
    let Some(at) = volume.inode_at(RESIZE_INO) else {
        return;
    };
    let raw = image.inode(at);
    let blocks = raw.i_block.map(|block| block.get());
    if layout.compat(feature::COMPAT_RESIZE_INODE)
        && layout.incompat & feature::INCOMPAT_META_BG != 0
    {
        // With meta block groups the table grows by itself. What is left of the other way is cleared afterwards.
        let compat = layout.compat & !feature::COMPAT_RESIZE_INODE;
        let fix = Fix::word(SUPER_AT + 92, compat);
        findings.push(Finding::new(Code::ResizeMetaBg).fix(fix));
        return;
    }
    if !layout.compat(feature::COMPAT_RESIZE_INODE) {
        let reserved = volume.sb.s_reserved_gdt_blocks.get();
        if reserved != 0 {
            let fix = Fix::half(SUPER_AT + 206, 0);
            findings.push(Finding::new(Code::ResizeReserved).found(reserved).fix(fix));
        }
        if blocks.iter().any(|&block| block != 0) {
            findings.push(
                Finding::new(Code::ResizeNotClear)
                    .ino(RESIZE_INO)
                    .fix(Fix::ZeroInode),
            );
        }
        return;
    }
    let others = blocks
        .iter()
        .enumerate()
        .any(|(i, &block)| i != 13 && block != 0);
    let regular = raw.i_mode.get() & 0o100_000 != 0;
    let sound = !others && layout.holds(blocks[13]) && raw.i_links_count.get() != 0 && regular;
    if !sound || !resize_map_fits(image, volume, blocks[13]) {
        findings.push(
            Finding::new(Code::ResizeInvalid)
                .ino(RESIZE_INO)
                .fix(Fix::MakeResizeInode),
        );
    }
}

fn resize_map_fits(image: &Image, volume: &Volume, double: u32) -> bool {
    let layout = &volume.layout;
    let backups: Vec<u32> = (1..layout.groups)
        .filter(|&group| layout.has_super(group))
        .collect();
    let mut pointers = vec![0; backups.len().min(layout.addrs() as usize) * 4];
    for i in 0..layout.reserved_gdt {
        let slot = (layout.desc_blocks + i) % layout.addrs();
        let reserved = layout.first_data_block + 1 + layout.desc_blocks + i;
        if image.le32(layout.at(double) + u64::from(slot) * 4) != reserved
            || !layout.holds(reserved)
        {
            return false;
        }
        image.read(layout.at(reserved), &mut pointers);
        for (bytes, &group) in pointers.as_chunks::<4>().0.iter().zip(&backups) {
            let expected =
                u64::from(reserved) + u64::from(group) * u64::from(layout.blocks_per_group);
            if u64::from(u32::from_le_bytes(*bytes)) != expected {
                return false;
            }
        }
    }
    true
}

/// Quota inodes are nothing that an ext2 file system has; whoever believes these fields takes ordinary files for them.
fn check_quota(image: &Image, volume: &Volume, findings: &mut Vec<Finding>) {
    for field in QUOTA_INODES {
        let ino = image.le32(volume.sb_at + field);
        if ino != 0 {
            let fix = Fix::word(SUPER_AT + field, 0);
            findings.push(
                Finding::new(Code::QuotaUnexpected)
                    .ino(ino)
                    .at(field)
                    .fix(fix),
            );
        }
    }
}
