//! One field of a good image changed: both say the same, or the difference is in the list with its reason.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::judge::{e2fsck, have, ours, scratch};
use crate::samples::{SHAPES, make};

/// A small generator of numbers (xorshift64*): the seed names the whole campaign.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// A change of one field.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    /// The field: `superblock.s_magic`, `inode 12.i_size` and so on.
    pub(crate) field: String,
    at: usize,
    width: usize,
    old: u64,
    new: u64,
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at byte {}: {:#x} -> {:#x}",
            self.field, self.at, self.old, self.new
        )
    }
}

impl Mutation {
    pub(crate) fn apply(&self, bytes: &mut [u8]) {
        bytes[self.at..self.at + self.width].copy_from_slice(&self.new.to_le_bytes()[..self.width]);
    }
}

pub(crate) fn le(bytes: &[u8], at: usize, width: usize) -> u64 {
    let mut word = [0; 8];
    word[..width].copy_from_slice(&bytes[at..at + width]);
    u64::from_le_bytes(word)
}

/// An image in memory whose fields can be named.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) bytes: Vec<u8>,
    pub(crate) block_size: usize,
    inode_size: usize,
    pub(crate) inodes_per_group: usize,
    blocks_per_group: usize,
    groups: usize,
    pub(crate) first: usize,
    meta_bg: bool,
}

type Field = (&'static str, usize, usize);

const SUPER: &[Field] = &[
    ("s_inodes_count", 0, 4),
    ("s_blocks_count", 4, 4),
    ("s_r_blocks_count", 8, 4),
    ("s_free_blocks_count", 12, 4),
    ("s_free_inodes_count", 16, 4),
    ("s_first_data_block", 20, 4),
    ("s_log_block_size", 24, 4),
    ("s_log_frag_size", 28, 4),
    ("s_blocks_per_group", 32, 4),
    ("s_frags_per_group", 36, 4),
    ("s_inodes_per_group", 40, 4),
    ("s_mtime", 44, 4),
    ("s_wtime", 48, 4),
    ("s_mnt_count", 52, 2),
    ("s_max_mnt_count", 54, 2),
    ("s_magic", 56, 2),
    ("s_state", 58, 2),
    ("s_errors", 60, 2),
    ("s_minor_rev_level", 62, 2),
    ("s_lastcheck", 64, 4),
    ("s_checkinterval", 68, 4),
    ("s_creator_os", 72, 4),
    ("s_rev_level", 76, 4),
    ("s_def_resuid", 80, 2),
    ("s_first_ino", 84, 4),
    ("s_inode_size", 88, 2),
    ("s_block_group_nr", 90, 2),
    ("s_feature_compat", 92, 4),
    ("s_feature_incompat", 96, 4),
    ("s_feature_ro_compat", 100, 4),
    ("s_uuid", 104, 4),
    ("s_prealloc_blocks", 204, 1),
    ("s_prealloc_dir_blocks", 205, 1),
    ("s_reserved_gdt_blocks", 206, 2),
    ("s_journal_inum", 224, 4),
    ("s_journal_dev", 228, 4),
    ("s_last_orphan", 232, 4),
    ("s_hash_seed", 236, 4),
    ("s_def_hash_version", 252, 1),
    ("s_desc_size", 254, 2),
    ("s_first_meta_bg", 260, 4),
    ("s_mkfs_time", 264, 4),
    ("s_min_extra_isize", 348, 2),
    ("s_want_extra_isize", 350, 2),
    ("s_flags", 352, 4),
];
const DESC: &[Field] = &[
    ("bg_block_bitmap", 0, 4),
    ("bg_inode_bitmap", 4, 4),
    ("bg_inode_table", 8, 4),
    ("bg_free_blocks_count", 12, 2),
    ("bg_free_inodes_count", 14, 2),
    ("bg_used_dirs_count", 16, 2),
    ("bg_flags", 18, 2),
    ("bg_reserved", 20, 4),
];
const INODE: &[Field] = &[
    ("i_mode", 0, 2),
    ("i_uid", 2, 2),
    ("i_size", 4, 4),
    ("i_atime", 8, 4),
    ("i_ctime", 12, 4),
    ("i_dtime", 20, 4),
    ("i_links_count", 26, 2),
    ("i_blocks", 28, 4),
    ("i_flags", 32, 4),
    ("i_osd1", 36, 4),
    ("i_block[0]", 40, 4),
    ("i_block[1]", 44, 4),
    ("i_block[5]", 60, 4),
    ("i_block[11]", 84, 4),
    ("i_block[12]", 88, 4),
    ("i_block[13]", 92, 4),
    ("i_block[14]", 96, 4),
    ("i_generation", 100, 4),
    ("i_file_acl", 104, 4),
    ("i_size_high", 108, 4),
    ("i_faddr", 112, 4),
    ("i_blocks_high", 116, 2),
    ("i_file_acl_high", 118, 2),
    ("i_uid_high", 120, 2),
    ("i_checksum_lo", 124, 2),
];
const EXTRA: &[Field] = &[
    ("i_extra_isize", 128, 2),
    ("i_ctime_extra", 132, 4),
    ("i_crtime", 144, 4),
    ("in-inode attributes", 160, 4),
    ("in-inode attribute", 164, 4),
    ("in-inode attribute value", 172, 4),
];

impl Target {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let sb = |at: usize, width: usize| usize::try_from(le(&bytes, 1024 + at, width)).unwrap();
        let blocks = sb(4, 4) - sb(20, 4);
        Self {
            block_size: 1024 << sb(24, 4),
            inode_size: if sb(76, 4) == 0 { 128 } else { sb(88, 2) },
            inodes_per_group: sb(40, 4),
            blocks_per_group: sb(32, 4),
            groups: blocks.div_ceil(sb(32, 4)),
            first: sb(20, 4),
            meta_bg: sb(96, 4) & 0x10 != 0,
            bytes,
        }
    }

    /// Blocks of a group; the last one may be short.
    pub(crate) fn blocks_in_group(&self, group: usize) -> usize {
        let all = self.bytes.len() / self.block_size - self.first;
        (all - group * self.blocks_per_group).min(self.blocks_per_group)
    }

    pub(crate) fn desc(&self, group: usize) -> usize {
        let per_block = self.block_size / 32;
        let index = group / per_block;
        let block = if self.meta_bg && index > 0 {
            self.first + index * per_block * self.blocks_per_group + 1
        } else {
            self.first + 1 + index
        };
        block * self.block_size + group % per_block * 32
    }

    pub(crate) fn inode(&self, ino: usize) -> usize {
        let table = le(
            &self.bytes,
            self.desc((ino - 1) / self.inodes_per_group) + 8,
            4,
        );
        usize::try_from(table).unwrap() * self.block_size
            + (ino - 1) % self.inodes_per_group * self.inode_size
    }

    fn inodes(&self) -> impl Iterator<Item = usize> + '_ {
        1..=self.groups * self.inodes_per_group
    }

    fn live(&self) -> Vec<usize> {
        self.inodes()
            .filter(|&ino| le(&self.bytes, self.inode(ino) + 26, 2) != 0)
            .collect()
    }

    fn dirs(&self) -> Vec<usize> {
        self.live()
            .into_iter()
            .filter(|&ino| le(&self.bytes, self.inode(ino), 2) >> 12 == 4)
            .collect()
    }

    /// A random change of one field of a random structure.
    pub(crate) fn mutate(&self, random: &mut Random) -> Mutation {
        loop {
            let (name, at, width) = self.field(random);
            if at + width > self.bytes.len() {
                continue;
            }
            let old = le(&self.bytes, at, width);
            let new = self.value(old, width, random);
            if new != old {
                return Mutation {
                    field: name,
                    at,
                    width,
                    old,
                    new,
                };
            }
        }
    }

    fn value(&self, old: u64, width: usize, random: &mut Random) -> u64 {
        let most = u64::MAX >> (64 - 8 * width);
        let value = match random.below(9) {
            0 => 0,
            1 => 1,
            2 => most,
            3 => most / 2 + 1,
            4 => old.wrapping_add(1),
            5 => old.wrapping_sub(1),
            6 => old ^ 1 << random.below(8 * width as u64),
            7 => random.below((self.bytes.len() / self.block_size) as u64),
            _ => random.next(),
        };
        value & most
    }

    fn field(&self, random: &mut Random) -> (String, usize, usize) {
        match random.below(10) {
            0 => {
                let (name, at, width) = *random.pick(SUPER);
                (format!("superblock.{name}"), 1024 + at, width)
            }
            1 => {
                let group = usize::try_from(random.below(self.groups as u64)).unwrap();
                let (name, at, width) = *random.pick(DESC);
                (
                    format!("group {group}.{name}"),
                    self.desc(group) + at,
                    width,
                )
            }
            2 => {
                let all: Vec<usize> = self.inodes().collect();
                self.inode_field(*random.pick(&all), random)
            }
            3..6 => self.inode_field(*random.pick(&self.live()), random),
            6 | 7 => self.entry_field(random),
            8 => self.pointed_field(random),
            _ => {
                let group = usize::try_from(random.below(self.groups as u64)).unwrap();
                let which = random.below(2);
                let place = le(
                    &self.bytes,
                    self.desc(group) + usize::try_from(which * 4).unwrap(),
                    4,
                );
                let byte = random.below(self.block_size as u64 / 4);
                let name = if which == 0 {
                    "block bitmap"
                } else {
                    "inode bitmap"
                };
                (
                    format!("group {group}.{name}"),
                    usize::try_from(place * self.block_size as u64 + byte).unwrap(),
                    1,
                )
            }
        }
    }

    fn inode_field(&self, ino: usize, random: &mut Random) -> (String, usize, usize) {
        let extra = self.inode_size > 128 && random.below(5) == 0;
        let (name, at, width) = *random.pick(if extra { EXTRA } else { INODE });
        (format!("inode {ino}.{name}"), self.inode(ino) + at, width)
    }

    /// The blocks in the direct pointers of an inode.
    fn direct(&self, ino: usize) -> Vec<usize> {
        let map = self.inode(ino) + 40;
        let blocks = (0..12).map(|i| usize::try_from(le(&self.bytes, map + i * 4, 4)).unwrap());
        blocks
            .filter(|&b| b != 0 && b * self.block_size < self.bytes.len())
            .collect()
    }

    fn entry_field(&self, random: &mut Random) -> (String, usize, usize) {
        let dir = *random.pick(&self.dirs());
        let Some(&block) = self
            .direct(dir)
            .get(usize::try_from(random.below(3)).unwrap())
        else {
            return self.inode_field(dir, random);
        };
        let start = block * self.block_size;
        let (mut at, mut nth) = (start, 0);
        let stop = random.below(20);
        loop {
            let len = usize::try_from(le(&self.bytes, at + 4, 2)).unwrap();
            if nth >= stop || len < 12 || at + len >= start + self.block_size {
                break;
            }
            at += len;
            nth += 1;
        }
        let (name, offset, width) = *random.pick(&[
            ("inode", 0, 4),
            ("rec_len", 4, 2),
            ("name_len", 6, 1),
            ("file_type", 7, 1),
            ("name", 8, 1),
            ("name", 9, 1),
            ("name", 10, 2),
        ]);
        (
            format!("directory {dir} entry {nth}.{name}"),
            at + offset,
            width,
        )
    }

    /// A word of an indirect block, of an index block, of an attribute block or of a symbolic link.
    fn pointed_field(&self, random: &mut Random) -> (String, usize, usize) {
        let ino = *random.pick(&self.live());
        let at = self.inode(ino);
        let (name, pointer, words) = *random.pick(&[
            ("indirect", 88, 64),
            ("double indirect", 92, 16),
            ("attribute block", 104, 24),
            ("first block", 40, 16),
        ]);
        let block = usize::try_from(le(&self.bytes, at + pointer, 4)).unwrap();
        if block == 0 || (block + 1) * self.block_size > self.bytes.len() {
            return self.inode_field(ino, random);
        }
        let word = usize::try_from(random.below(words)).unwrap();
        (
            format!("inode {ino}.{name}[{word}]"),
            block * self.block_size + word * 4,
            4,
        )
    }
}

/// Differences that have a reason: part of the field's name or the word of all our findings, who finds something, why.
pub(crate) const EXPLAINED: &[(&str, Finder, &str)] = &[
    (
        "p0.resize.not-clear",
        Finder::Ours,
        "e2fsck -n asks whether to clear the resize inode, and exits 0",
    ),
    (
        "p0.resize.reserved-blocks",
        Finder::Ours,
        "e2fsck -n asks whether to store 0, and exits 0",
    ),
    (
        "p1.inode.time-epoch",
        Finder::Ours,
        "e2fsck -n says that the time is likely before 1970, and exits 0",
    ),
    (
        "p2.entry.no-type",
        Finder::Ours,
        "e2fsck -n prints `Setting filetype`, and exits 0",
    ),
    (
        "p1.flag.special",
        Finder::Ours,
        "e2fsck -n asks about the flags, and exits 0",
    ),
    (
        "p0.group.flags",
        Finder::Ours,
        "e2fsck -n says that the group is marked, and exits 0 if nothing of it is used",
    ),
    (
        "p0.journal.unexpected",
        Finder::Ours,
        "e2fsck -n says that a journal is there without its feature, and exits 0",
    ),
    (
        "p5.count.free-blocks",
        Finder::Ours,
        "e2fsck takes the total from the groups when it opens the image",
    ),
    (
        "p5.count.free-inodes",
        Finder::Ours,
        "e2fsck takes the total from the groups when it opens the image",
    ),
    (
        "p0.orphan.",
        Finder::Ours,
        "e2fsck -n does not look at the orphan list",
    ),
    (
        "p0.super.",
        Finder::Ours,
        "where a backup is good, e2fsck -n uses it without a word",
    ),
    (
        "p0.group.from-backup",
        Finder::Ours,
        "where a backup is good, e2fsck -n uses it without a word",
    ),
    (
        "superblock.s_first_meta_bg",
        Finder::Ours,
        "where a backup is good, e2fsck -n uses it without a word",
    ),
    (
        "superblock.s_feature_",
        Finder::Ours,
        "features of ext4 and unknown ones are refused by name, large_dir too",
    ),
    (
        "superblock.s_feature_",
        Finder::E2fsck,
        "unknown compat bits do not keep us from looking, nor does btree_dir, which e2fsck refuses",
    ),
    (
        "p0.resize.invalid",
        Finder::Ours,
        "e2fsck -n asks whether to make the resize inode again, and exits 0",
    ),
    (
        "inode 5.i_file_acl",
        Finder::Ours,
        "e2fsck notes the bad attribute block of a reserved inode and never comes back to it",
    ),
    (
        "inode 7.i_file_acl",
        Finder::Ours,
        "e2fsck notes the bad attribute block of a reserved inode and never comes back to it",
    ),
    (
        "p4.links.too-low",
        Finder::Ours,
        "e2fsck takes a directory's count of 1 for `not counted` without the feature for it",
    ),
];

/// Who finds something where the other does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finder {
    Ours,
    E2fsck,
}

fn explained(shape: &str, mutation: &Mutation, finder: Finder, codes: &[&str]) -> bool {
    let field = format!("{shape}: {}", mutation.field);
    let listed = |is: &dyn Fn(&str) -> bool| {
        EXPLAINED
            .iter()
            .any(|(what, who, _)| *who == finder && is(what))
    };
    let by_code = !codes.is_empty()
        && codes
            .iter()
            .all(|code| listed(&|what| code.starts_with(what)));
    by_code || listed(&|what| field.contains(what))
}

fn compare(shape: &str, target: &Target, mutation: &Mutation, file: &Path) -> Result<(), String> {
    let mut bytes = target.bytes.clone();
    mutation.apply(&mut bytes);
    fs::write(file, &bytes).unwrap();
    let (status, text) = e2fsck(file);
    let report = ours(file);
    let clean = report.as_ref().is_ok_and(|report| report.is_clean());
    let finder = match ((status == 0), clean) {
        (true, false) => Finder::Ours,
        (false, true) => Finder::E2fsck,
        _ => return Ok(()),
    };
    let codes: Vec<&str> = report
        .iter()
        .flat_map(|report| &report.findings)
        .map(|finding| finding.code.word())
        .collect();
    if explained(shape, mutation, finder, &codes) {
        return Ok(());
    }
    let found = match report {
        Ok(report) => report
            .findings
            .iter()
            .map(|f| f.text())
            .collect::<Vec<_>>()
            .join("\n"),
        Err(why) => why.to_string(),
    };
    Err(format!(
        "{mutation}: only {finder:?} finds something (e2fsck exits {status})\n--- ours\n{found}\n--- e2fsck\n{text}"
    ))
}

#[test]
fn one_changed_field_gets_the_same_verdict_from_both() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let soak = std::env::var_os("EXT2DAX_SOAK").is_some();
    let seed = number("EXT2DAX_SEED", 1);
    let count = number("EXT2DAX_COUNT", if soak { 100_000 } else { 2_000 });
    println!("seed {seed}, {count} changes: repeat with EXT2DAX_SEED={seed} EXT2DAX_COUNT={count}");
    let dir = scratch();
    let mut wrong = Vec::new();
    for (nr, (name, size, options)) in (0_u64..).zip(SHAPES) {
        let image = dir.path().join(name);
        make(&image, *size, options);
        let target = Target::new(fs::read(&image).unwrap());
        let mut random = Random::new(seed * 1000 + nr);
        for _ in 0..count / SHAPES.len() as u64 {
            let mutation = target.mutate(&mut random);
            if let Err(difference) = compare(name, &target, &mutation, &image) {
                wrong.push(format!("== {name}: {difference}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differences\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
