//! The journal of ext3, which is not replayed here: whether there is one that can be read.

use ext2dax_undo::crc32c;

use crate::census::{Census, Kind};
use crate::dirs;
use crate::finding::Finding;
use crate::fix::{Fix, Patch};
use crate::image::Image;
use crate::layout::{SUPER_AT, feature, saturate};
use crate::open::Volume;
use crate::problem::Code;
use crate::scan::{self, Subject, TreeWalk, Visit};

const JOURNAL_INO: u32 = 8;
const JOURNAL_MAGIC: u32 = 0xC03B_3998;
/// What Linux takes for a journal at all.
const MIN_JOURNAL_BLOCKS: u64 = 1024;
/// Fields of a journal's superblock that say nothing about how to read its log.
const ASIDE: [&str; 2] = ["s_errno", "s_nr_users"];

/// The journal of an ext3 file system is left alone, but its feature, its fields and its inode have to fit each other.
pub(super) fn check(image: &Image, volume: &mut Volume, findings: &mut Vec<Finding>) {
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
            check_super(image, volume, at, findings);
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
        Code::JournalSuper => !ASIDE.iter().any(|name| finding.name == name.as_bytes()),
        _ => false,
    };
    layout.incompat & feature::INCOMPAT_RECOVER != 0
        && layout.compat(feature::COMPAT_JOURNAL)
        && !findings.iter().any(lost)
}

/// The fields of a journal's superblock that say how to read it. An error number there makes every driver call the file
/// system damaged.
fn check_super(image: &Image, volume: &Volume, ino_at: u64, findings: &mut Vec<Finding>) {
    let layout = &volume.layout;
    let raw = image.inode(ino_at);
    let sb = JournalSuper::read(image, layout.at(raw.i_block[0].get()));
    let size = u64::from(raw.i_size_high.get()) << 32 | u64::from(raw.i_size.get());
    let blocks = saturate(size / u64::from(layout.block_size));
    let of_many = sb.second() && sb.word(NR_USERS) > 1;
    if !of_many && let Some((name, value)) = sb.unknown() {
        let finding = Finding::new(Code::JournalUnknown).name(name.as_bytes());
        findings.push(finding.found(value));
        return;
    }
    let mut wrong = |name: &str, found: u32, mut patches: Vec<Patch>| {
        if !ASIDE.contains(&name) {
            // What is in it cannot be read. Without a first block it is empty, and then there is nothing to replay.
            let replayed = layout.incompat & !feature::INCOMPAT_RECOVER;
            patches.push(sb.patch(START, 0));
            patches.extend(sb.plain());
            patches.push(Patch::word(SUPER_AT + 96, replayed));
        }
        let finding = Finding::new(Code::JournalSuper).name(name.as_bytes());
        findings.push(finding.found(found).fix(Fix::Patches(patches)));
    };
    if of_many {
        // Only a journal on a device of its own has many file systems; what else such fields say is not believed.
        wrong("s_nr_users", sb.word(NR_USERS), sb.plain());
    } else if let Some((name, found)) = sb.contradiction() {
        wrong(name, found, Vec::new());
    }
    let block_size = sb.word(BLOCK_SIZE);
    if block_size != layout.block_size {
        let patches = vec![sb.patch(BLOCK_SIZE, layout.block_size)];
        wrong("s_blocksize", block_size, patches);
    }
    let len = sb.word(MAX_LEN);
    if len > blocks {
        wrong("s_maxlen", len, vec![sb.patch(MAX_LEN, blocks)]);
    }
    let error = sb.word(ERROR_NUMBER);
    if error != 0 {
        let mut patches = vec![sb.patch(ERROR_NUMBER, 0)];
        if sb.has_checksum() {
            patches.push(sb.patch(CHECKSUM, sb.checksum(0)));
        }
        wrong("s_errno", error, patches);
    }
}

const BLOCK_TYPE: usize = 4;
const BLOCK_SIZE: usize = 12;
const MAX_LEN: usize = 16;
const START: usize = 28;
const ERROR_NUMBER: usize = 32;
const COMPAT: usize = 36;
const INCOMPAT: usize = 40;
const RO_COMPAT: usize = 44;
const NR_USERS: usize = 64;
const CHECKSUM_TYPE: usize = 80;
const FAST_BLOCKS: usize = 84;
const CHECKSUM: usize = 252;

const COMPAT_CHECKSUM: u32 = 1;
const INCOMPAT_CHECKSUM_2: u32 = 8;
const INCOMPAT_CHECKSUM_3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const KNOWN_INCOMPAT: u32 = 0x3F;
const CRC32C: u32 = 4;
/// Blocks for fast commits where the superblock does not say how many.
const DEFAULT_FAST_BLOCKS: u32 = 256;

/// The superblock of a journal. Linux `ext4/journal.rst`, "Super Block"; all of it is big-endian.
struct JournalSuper {
    bytes: [u8; 1024],
    at: u64,
}

impl JournalSuper {
    fn read(image: &Image, at: u64) -> Self {
        let mut bytes = [0; 1024];
        image.read(at, &mut bytes);
        Self { bytes, at }
    }

    fn word(&self, offset: usize) -> u32 {
        let bytes = self.bytes.get(offset..offset + 4);
        bytes.map_or(0, |bytes| {
            bytes
                .iter()
                .fold(0, |word, &byte| word << 8 | u32::from(byte))
        })
    }

    fn patch(&self, offset: usize, value: u32) -> Patch {
        Patch::word(self.at + offset as u64, value.swap_bytes())
    }

    /// Whether it has features at all.
    fn second(&self) -> bool {
        self.word(BLOCK_TYPE) == 4
    }

    /// Makes it one without features.
    fn plain(&self) -> Vec<Patch> {
        let words = (COMPAT..self.bytes.len()).step_by(4);
        let set = words.filter(|&offset| self.second() && self.word(offset) != 0);
        set.map(|offset| self.patch(offset, 0)).collect()
    }

    /// A version or a feature that is not known, by the name of its field.
    fn unknown(&self) -> Option<(&'static str, u32)> {
        let (version, second) = (self.word(BLOCK_TYPE), self.second());
        let (incompat, ro_compat) = (self.word(INCOMPAT), self.word(RO_COMPAT));
        match () {
            () if !second && version != 3 => Some(("s_blocktype", version)),
            () if second && incompat & !KNOWN_INCOMPAT != 0 => {
                Some(("s_feature_incompat", incompat))
            }
            () if second && ro_compat != 0 => Some(("s_feature_ro_compat", ro_compat)),
            () => None,
        }
    }

    fn has_checksum(&self) -> bool {
        self.second() && self.word(INCOMPAT) & (INCOMPAT_CHECKSUM_2 | INCOMPAT_CHECKSUM_3) != 0
    }

    /// The checksum that belongs to it with this error number.
    fn checksum(&self, error: u32) -> u32 {
        let mut bytes = self.bytes;
        bytes[CHECKSUM..CHECKSUM + 4].fill(0);
        bytes[ERROR_NUMBER..ERROR_NUMBER + 4].copy_from_slice(&error.swap_bytes().to_le_bytes());
        crc32c(&bytes)
    }

    /// A field that does not fit the features.
    fn contradiction(&self) -> Option<(&'static str, u32)> {
        let incompat = self.word(INCOMPAT);
        let ways = [
            self.word(COMPAT) & COMPAT_CHECKSUM,
            incompat & INCOMPAT_CHECKSUM_2,
            incompat & INCOMPAT_CHECKSUM_3,
        ];
        if self.has_checksum() {
            let kind = self.word(CHECKSUM_TYPE) >> 24;
            if ways.iter().filter(|&&way| way != 0).count() > 1 {
                return Some(("s_feature_incompat", incompat));
            }
            if kind != CRC32C {
                return Some(("s_checksum_type", kind));
            }
            if self.word(CHECKSUM) != self.checksum(self.word(ERROR_NUMBER)) {
                return Some(("s_checksum", self.word(CHECKSUM)));
            }
        }
        if self.second() && incompat & INCOMPAT_FAST_COMMIT != 0 {
            let fast = self.word(FAST_BLOCKS);
            let taken = if fast == 0 { DEFAULT_FAST_BLOCKS } else { fast };
            if u64::from(self.word(MAX_LEN)) < u64::from(taken) + MIN_JOURNAL_BLOCKS {
                return Some(("s_num_fc_blks", fast));
            }
        }
        None
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
