//! What every check starts from: the superblock, and what it points to: descriptors, orphan list, resize inode, journal.

use crate::CheckOptions;
use crate::census::{Census, Kind};
use crate::dirs;
use crate::error::Error;
use crate::finding::Finding;
use crate::fix::{Fix, Patch};
use crate::image::Image;
use crate::layout::{SUPER_AT, feature, saturate};
use crate::open::{self, Volume};
use crate::problem::Code;
use crate::scan::{self, Subject, TreeWalk, Visit, field};

const RESIZE_INO: u32 = 7;
const JOURNAL_INO: u32 = 8;
const JOURNAL_MAGIC: u32 = 0xC03B_3998;
/// What Linux takes for a journal at all.
const MIN_JOURNAL_BLOCKS: u64 = 1024;
/// The field of a journal's superblock that says nothing about how to read it.
const ERROR_NUMBER: &str = "s_errno";
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
    check_journal(image, &mut volume, findings);
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

/// The journal of an ext3 file system is left alone, but its feature, its fields and its inode have to fit each other.
fn check_journal(image: &Image, volume: &mut Volume, findings: &mut Vec<Finding>) {
    let layout = &volume.layout;
    let sb = &volume.sb;
    let external = sb.s_journal_dev.get() != 0 || sb.s_journal_uuid != [0; 16];
    let named = sb.s_journal_inum.get() != 0 || external;
    if !layout.compat(feature::COMPAT_JOURNAL) {
        if named || layout.incompat & feature::INCOMPAT_RECOVER != 0 {
            findings.push(Finding::new(Code::JournalUnexpected).fix(forget_journal(volume)));
        }
        return;
    }
    if external && sb.s_journal_inum.get() == 0 {
        return;
    }
    let ino = sb.s_journal_inum.get();
    let valid = volume.inode_at(ino).is_some_and(|at| {
        let raw = image.inode(at);
        let first = raw.i_block[0].get();
        let magic = || image.le32(layout.at(first)).swap_bytes() == JOURNAL_MAGIC;
        // It may also be an ordinary file, which tune2fs makes in a mounted file system.
        (ino == JOURNAL_INO || ino >= layout.first_ino)
            && raw.i_links_count.get() != 0
            && layout.holds(first)
            && magic()
            && is_whole(image, volume, ino, at)
    });
    if valid {
        if let Some(at) = volume.inode_at(ino) {
            check_journal_super(image, volume, at, findings);
        }
    } else {
        let fix = forget_journal(volume);
        findings.push(Finding::new(Code::JournalMissing).ino(ino).fix(fix));
        // What is wrong with an inode that will be cleared is not asked.
        volume.layout.journal_ino = 0;
    }
}

/// Whether a journal has to be replayed before anything is repaired: not one that nobody can read, nor one that the file
/// system does not have.
pub(crate) fn needs_replay(volume: &Volume, findings: &[Finding]) -> bool {
    let layout = &volume.layout;
    let lost = |finding: &Finding| match finding.code {
        Code::JournalMissing => true,
        Code::JournalSuper => finding.name != ERROR_NUMBER.as_bytes(),
        _ => false,
    };
    layout.incompat & feature::INCOMPAT_RECOVER != 0
        && layout.compat(feature::COMPAT_JOURNAL)
        && !findings.iter().any(lost)
}

/// The fields of a journal's superblock that say how to read it. Linux `ext4/journal.rst`, "Super Block"; all of it is
/// big-endian. An error number there makes every driver call the file system damaged.
fn check_journal_super(image: &Image, volume: &Volume, ino_at: u64, findings: &mut Vec<Finding>) {
    const KNOWN_INCOMPAT: u32 = 0x3F;
    let layout = &volume.layout;
    let raw = image.inode(ino_at);
    let start = layout.at(raw.i_block[0].get());
    let word = |offset: u64| image.le32(start + offset).swap_bytes();
    let size = u64::from(raw.i_size_high.get()) << 32 | u64::from(raw.i_size.get());
    let blocks = saturate(size / u64::from(layout.block_size));
    let second = word(4) == 4;
    let unknown = [
        ("s_blocktype", word(4), second || word(4) == 3),
        (
            "s_feature_incompat",
            word(40),
            !second || word(40) & !KNOWN_INCOMPAT == 0,
        ),
        ("s_feature_ro_compat", word(44), !second || word(44) == 0),
    ];
    if let Some((name, value, _)) = unknown.into_iter().find(|(.., known)| !known) {
        let finding = Finding::new(Code::JournalUnknown).name(name.as_bytes());
        findings.push(finding.found(value));
        return;
    }
    let fields = [
        (
            "s_blocksize",
            12,
            layout.block_size,
            word(12) == layout.block_size,
        ),
        ("s_maxlen", 16, blocks, word(16) <= blocks),
        (ERROR_NUMBER, 32, 0, word(32) == 0),
    ];
    for (name, offset, right, _) in fields.into_iter().filter(|(.., sound)| !sound) {
        let mut patches = vec![Patch::word(start + offset, right.swap_bytes())];
        if name != ERROR_NUMBER {
            // What is in it cannot be read. Without a first block it is empty, and then there is nothing to replay.
            let replayed = layout.incompat & !feature::INCOMPAT_RECOVER;
            patches.push(Patch::word(start + 28, 0));
            patches.push(Patch::word(SUPER_AT + 96, replayed));
        }
        let finding = Finding::new(Code::JournalSuper).name(name.as_bytes());
        findings.push(finding.found(word(offset)).fix(Fix::Patches(patches)));
    }
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

/// Whether the blocks of a journal are all there, one behind the other, to the end of its size.
fn is_whole(image: &Image, volume: &Volume, ino: u32, at: u64) -> bool {
    let layout = &volume.layout;
    let (size, again) = (u64::from(layout.block_size), scan::again_budget(layout));
    let Ok(census) = Census::new(layout) else {
        return true;
    };
    let scan = dirs::plain_scan(image, volume, &census, &again);
    let raw = image.inode(at);
    let subject = Subject { scan, ino, at, raw };
    let (mut next, mut gap) = (0, false);
    let mut findings = Vec::new();
    TreeWalk::new(&subject, Kind::REGULAR, &mut findings).run(&mut |_, slot| {
        if slot.level == 0 {
            gap |= slot.lblk != next;
            next = slot.lblk + 1;
        }
        Visit::Again
    });
    let blocks = subject.size() / size;
    findings.is_empty() && !gap && blocks >= MIN_JOURNAL_BLOCKS && next >= blocks
}

/// Clears everything in the superblock that speaks of a journal; its inode is looked at afterwards.
fn forget_journal(volume: &Volume) -> Fix {
    let layout = &volume.layout;
    let mut patches = vec![
        Patch::word(SUPER_AT + 96, layout.incompat & !feature::INCOMPAT_RECOVER),
        Patch::word(SUPER_AT + 92, layout.compat & !feature::COMPAT_JOURNAL),
    ];
    patches.extend((0..6).map(|i| Patch::word(SUPER_AT + 208 + i * 4, 0)));
    Fix::Patches(patches)
}
