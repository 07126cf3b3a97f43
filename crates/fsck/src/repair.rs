//! Repair: the findings of a check, made true again in the order in which they depend on each other.
//!
//! A repair works in rounds. Each round takes the findings of the first stage that has any, stores their repairs, and
//! checks the whole image again. So a repair never works from a count that an earlier repair has made stale, and a kill
//! at any store leaves an image whose next check goes on from where this one stopped: there is no state outside the
//! image. The superblock's valid bit is cleared before the first store and set when nothing is left.
//!
//! Blocks that a repair takes come from those that neither the check nor the block bitmap calls used; their bits are set
//! before anything leads to them.

mod bad_blocks;
mod dir;
mod group;
mod inode;
mod lost_found;
mod optimize;
mod orphan;
mod renames;
mod space;

use hashbrown::HashSet;
use space::Space;

pub use bad_blocks::{BadBlocks, Listed, list_bad_blocks};
pub use optimize::{Optimized, optimize};

use crate::finding::Finding;
use crate::fix::{Fix, Patch};
use crate::image::Image;
use crate::layout::SUPER_AT;
use crate::problem::{Code, Severity};
use crate::report::Report;
use crate::{CheckOptions, Checked, Error, check_image};

/// Rounds after which a repair gives up: far more than there are stages, since some repairs uncover others.
const ROUNDS: usize = 200;

/// What a repair did.
#[derive(Debug)]
pub struct Repaired {
    /// What was repaired, in the order of the repairs.
    pub fixed: Vec<Finding>,
    /// The state afterwards; its findings are what was left.
    pub report: Report,
    /// It was stopped early, between two complete repairs. The report is that of the check before, without what has been
    /// repaired since.
    pub cancelled: bool,
}

/// Checks and repairs what `approve` agrees to; it is asked once for each finding that has a repair.
///
/// Shape: the image is checked before the first store and after the last one. Findings without a repair, those that
/// `approve` turned down, and those for which there is no room stay in the report.
///
/// # Errors
/// As [`crate::check`]; the image cannot be written; unknown compat features or a journal that wants replay. Nothing has
/// been written then.
pub fn repair(
    pmem: &ext2dax_pmem::Pmem,
    options: &CheckOptions,
    approve: &mut dyn FnMut(&Finding) -> bool,
) -> Result<Repaired, Error> {
    let image = Image::new(pmem.clone()).saved_to(options.undo.clone());
    let repaired = repair_image(&image, options, approve);
    image.finish_undo()?;
    repaired
}

fn repair_image(
    image: &Image,
    options: &CheckOptions,
    approve: &mut dyn FnMut(&Finding) -> bool,
) -> Result<Repaired, Error> {
    let mut checked = check_image(image, options)?;
    may_repair(image, &checked)?;
    let mut asked = Asked {
        approve,
        only: options.only.clone(),
        refused: HashSet::new(),
        agreed: HashSet::new(),
    };
    let mut fixed: Vec<Finding> = Vec::new();
    let mut options = options.clone();
    // Whoever asked for a backup, or needed one, wants the others to be as good.
    let mut backups = options.superblock.is_some();
    for _ in 0..ROUNDS {
        let Some(todo) = next_stage(&checked, &mut asked) else {
            break;
        };
        let before = asked.keys(&checked.report);
        if fixed.is_empty() {
            clear_valid(image, &checked);
        }
        let restores = todo.iter().any(|finding| finding.fix == Fix::RestoreBackup);
        let done = apply(image, &checked, &todo);
        if restores {
            // From now on the primary superblock is the one to believe.
            options.superblock = None;
            backups = true;
        }
        fixed.extend(
            todo.iter()
                .zip(&done)
                .filter(|(_, done)| **done)
                .map(|(finding, _)| {
                    let mut finding = finding.clone();
                    finding.fixed = true;
                    finding
                }),
        );
        let next = check_image(image, &options);
        if matches!(next, Err(Error::Cancelled)) {
            let mut report = checked.report;
            let fixed_now: HashSet<Key> = fixed.iter().map(Asked::key).collect();
            report
                .findings
                .retain(|finding| !fixed_now.contains(&Asked::key(finding)));
            return Ok(Repaired {
                fixed,
                report,
                cancelled: true,
            });
        }
        checked = next?;
        let after = asked.keys(&checked.report);
        for (finding, done) in todo.iter().zip(done) {
            // What a repair did not change will not change the next time either.
            if !done || before == after {
                asked.refused.insert(Asked::key(finding));
            }
        }
    }
    if !fixed.is_empty() {
        crate::armed::disarm(image);
    }
    if checked.report.is_clean() {
        if backups && Image::is_primary(checked.volume.sb_at) {
            group::write_backups(image, &checked.volume);
        }
        set_valid(image, &checked);
    }
    Ok(Repaired {
        fixed,
        report: checked.report,
        cancelled: false,
    })
}

/// Whether anything may be stored at all.
fn may_repair(image: &Image, checked: &Checked) -> Result<(), Error> {
    if !image.writable() {
        return Err(Error::ReadOnly);
    }
    let summary = &checked.report.summary;
    if summary.unknown_compat != 0 || summary.needs_recovery {
        let (compat, recovery) = (summary.unknown_compat, summary.needs_recovery);
        return Err(Error::NotRepaired { compat, recovery });
    }
    Ok(())
}

/// Repairs what loses nothing, and only if everything that is found (and chosen by `options.only`) is of that kind.
///
/// # Errors
/// As [`repair`].
pub fn preen(pmem: &ext2dax_pmem::Pmem, options: &CheckOptions) -> Result<Repaired, Error> {
    let image = Image::new(pmem.clone());
    let first = check_image(&image, options)?;
    let chosen = |finding: &&Finding| options.chooses(finding.code);
    let mut todo = first.report.findings.iter().filter(chosen);
    if !todo.all(|finding| finding.preen == crate::Preen::Safe) {
        return Ok(Repaired {
            fixed: Vec::new(),
            report: first.report,
            cancelled: false,
        });
    }
    drop(first);
    repair(pmem, options, &mut |finding| {
        finding.preen == crate::Preen::Safe
    })
}

/// Repairs what an interrupted ext2dax may have left, and only if nothing else is found: for embedders, before they mount
/// an image that was not unmounted. Nothing is ever lost by it, and nobody has to be asked.
///
/// Shape: if anything is Damage nothing is written, and the report says what. The file system crate does not depend on
/// this one, so the call is the embedder's: check the report, then mount.
///
/// # Errors
/// As [`repair`].
pub fn repair_residue(
    pmem: &ext2dax_pmem::Pmem,
    options: &CheckOptions,
) -> Result<Repaired, Error> {
    let image = Image::new(pmem.clone());
    let first = check_image(&image, options)?;
    if !first.report.is_residue_only() {
        return Ok(Repaired {
            fixed: Vec::new(),
            report: first.report,
            cancelled: false,
        });
    }
    drop(first);
    // What a repair of Residue uncovers is a count that the rest of the image decides.
    repair(pmem, options, &mut |finding| {
        finding.preen == crate::Preen::Safe
    })
}

type Key = (Code, u32, u32, u32, u64, Vec<u8>);

/// Questions and their answers; none is put twice.
struct Asked<'a> {
    only: Vec<Code>,
    approve: &'a mut dyn FnMut(&Finding) -> bool,
    refused: HashSet<Key>,
    agreed: HashSet<Key>,
}

impl Asked<'_> {
    fn key(finding: &Finding) -> Key {
        let place = u64::from(finding.group.unwrap_or(0)) << 32 | finding.at;
        (
            finding.code,
            finding.ino,
            finding.parent,
            finding.block,
            place,
            finding.name.clone(),
        )
    }

    fn keys(&self, report: &Report) -> HashSet<Key> {
        report.findings.iter().map(Self::key).collect()
    }

    fn may(&mut self, finding: &Finding) -> bool {
        let key = Self::key(finding);
        let chosen = self.only.is_empty() || self.only.contains(&finding.code);
        if !chosen || self.refused.contains(&key) {
            return false;
        }
        if self.agreed.contains(&key) || (self.approve)(finding) {
            self.agreed.insert(key);
            return true;
        }
        self.refused.insert(key);
        false
    }
}

/// The approved findings of the first stage that has any.
fn next_stage(checked: &Checked, asked: &mut Asked<'_>) -> Option<Vec<Finding>> {
    let mut stages: Vec<(u8, &Finding)> = checked
        .report
        .findings
        .iter()
        .filter(|finding| finding.repairable() && finding.fix != Fix::WithAnother)
        .map(|finding| (stage(checked, finding), finding))
        .collect();
    stages.sort_by_key(|(stage, _)| *stage);
    for same in stages.chunk_by(|a, b| a.0 == b.0) {
        let todo: Vec<Finding> = same
            .iter()
            .filter(|(_, finding)| asked.may(finding))
            .map(|(_, finding)| (*finding).clone())
            .collect();
        if !todo.is_empty() {
            return Some(todo);
        }
    }
    None
}

/// When a finding is repaired: what others are counted from comes first.
fn stage(checked: &Checked, finding: &Finding) -> u8 {
    match finding.code {
        Code::SuperMagic
        | Code::SuperField
        | Code::SuperInodesCount
        | Code::SuperInodesPerGroup
        | Code::SuperReserved
        | Code::SuperFirstMetaBg
        | Code::DescFromBackup => 0,
        Code::BadBlocksGroup => 1,
        Code::OrphanHead | Code::OrphanLink => 2,
        // An orphan's reference goes first: when it is gone, nothing says any more why the count was too high.
        Code::XattrRefcount if finding.severity == Severity::Residue => 2,
        Code::OrphanListed => 3,
        Code::BlockRange | Code::BlockTooFar | Code::DirHole
            if in_shared_block(checked, finding) =>
        {
            6
        }
        Code::SharedBlocks => 5,
        Code::ResizeInvalid
        | Code::DirSize
        | Code::PastSize
        | Code::SizeTooLarge
        | Code::IBlocks => 7,
        Code::XattrRefcount | Code::LargeFile => 7,
        code if code.pass() == crate::Pass::Preamble => 1,
        code if code.pass() == crate::Pass::Inodes => 4,
        Code::EntryCorrupt | Code::DirHole => 8,
        Code::DupName | Code::BadName | Code::HtreeIndex => 10,
        code if code.pass() == crate::Pass::Directories => 9,
        Code::NoRoot => 11,
        Code::Unconnected | Code::DirLoop => 12,
        Code::DotdotParent => 13,
        Code::Unattached | Code::UnattachedEmpty => 14,
        Code::CountHigh | Code::CountLow => 15,
        _ => 16,
    }
}

/// Whether the repair would store into a block that somebody else claims, too.
fn in_shared_block(checked: &Checked, finding: &Finding) -> bool {
    let Fix::Patches(patches) = &finding.fix else {
        return false;
    };
    let size = u64::from(checked.volume.layout.block_size);
    patches.iter().any(|patch| {
        u32::try_from(patch.at / size).is_ok_and(|block| checked.census.shared.test(block))
    })
}

/// Makes the repairs of one stage; says which could be made.
fn apply(image: &Image, checked: &Checked, todo: &[Finding]) -> Vec<bool> {
    let mut space = Space::new(image, checked);
    let mut claims = inode::Claims::new(image, checked, todo);
    let mut seen_groups = HashSet::new();
    let mut orphans_done = false;
    let mut resize_done = false;
    let mut renames = renames::Renames::default();
    let mut home = lost_found::Home::default();
    todo.iter()
        .map(|finding| match &finding.fix {
            _ if checked.cancel.is_set() => false,
            Fix::Refused | Fix::WithAnother => false,
            Fix::Patches(patches) => {
                patches.iter().for_each(|&patch| image.patch(patch));
                true
            }
            Fix::ClearInode => inode::clear(image, &checked.volume, finding.ino),
            Fix::ZeroInode => inode::zero(image, &checked.volume, finding.ino),
            Fix::CloneBlocks => {
                inode::clone_blocks(image, checked, &mut space, &mut claims, finding.ino)
            }
            Fix::RestoreBackup => group::restore_backup(image, &checked.volume),
            Fix::PlaceGroup => group::place(image, checked, finding),
            Fix::MoveGroup(what) => group::move_away(image, checked, &space, finding, *what),
            Fix::MakeResizeInode => {
                resize_done = resize_done || group::make_resize_inode(image, checked, &mut space);
                resize_done
            }
            Fix::CompleteOrphans => {
                if !orphans_done {
                    orphan::complete(image, checked);
                    orphans_done = true;
                }
                true
            }
            Fix::SalvageBlock { .. } => dir::salvage(image, &checked.volume, finding.block),
            Fix::MakeDots => dir::make_dots(image, checked, finding.ino),
            Fix::AllocateDirBlock { lblk } => {
                dir::fill_hole(image, checked, &mut space, finding.ino, *lblk)
            }
            Fix::RenameEntry { offset } => renames.rename(image, checked, finding, *offset),
            Fix::MakeRoot => lost_found::make_root(image, checked, &mut space),
            Fix::Reconnect => home.reconnect(image, checked, &mut space, finding.ino),
            Fix::WriteGroup => {
                let group = finding.group.unwrap_or(0);
                if seen_groups.insert(group) {
                    group::write_bitmaps(image, checked, group);
                }
                true
            }
        })
        .collect()
}

/// The file system is under repair: no driver is to trust it before the repair has ended.
fn clear_valid(image: &Image, checked: &Checked) {
    if Image::is_primary(checked.volume.sb_at) {
        let state = image.le16(SUPER_AT + 58);
        image.patch(Patch::half(SUPER_AT + 58, state & !1));
    }
}

/// Nothing is left: valid, no errors, checked now, not mounted since.
fn set_valid(image: &Image, checked: &Checked) {
    if !Image::is_primary(checked.volume.sb_at) {
        return;
    }
    image.patch(Patch::word(SUPER_AT + 64, crate::scan::now()));
    image.patch(Patch::half(SUPER_AT + 52, 0));
    let state = image.le16(SUPER_AT + 58);
    image.patch(Patch::half(SUPER_AT + 58, state & !2 | 1));
}
