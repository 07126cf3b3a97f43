//! Good images as targets: their structures by name, and random changes of one field.

use std::fmt;

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
    /// The inodes that the field is about; `None` where it says something about all of them.
    pub(crate) about: Option<Vec<usize>>,
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

    /// Stores the new value into an image file, or the old one again.
    pub(crate) fn store(&self, file: &std::fs::File, back: bool) {
        use std::os::unix::fs::FileExt as _;
        let value = if back { self.old } else { self.new };
        let bytes = &value.to_le_bytes()[..self.width];
        file.write_all_at(bytes, self.at as u64).unwrap();
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
    ("s_def_resgid", 82, 2),
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
    ("s_log_groups_per_flex", 372, 1),
    ("s_checksum_type", 373, 1),
    ("s_usr_quota_inum", 576, 4),
    ("s_backup_bgs[0]", 588, 4),
    ("s_backup_bgs[1]", 592, 4),
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
    ("i_mtime", 16, 4),
    ("i_dtime", 20, 4),
    ("i_gid", 24, 2),
    ("i_links_count", 26, 2),
    ("i_blocks", 28, 4),
    ("i_flags", 32, 4),
    ("i_osd1", 36, 4),
    ("i_block[0]", 40, 4),
    ("i_block[1]", 44, 4),
    ("i_block[2]", 48, 4),
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
    ("i_gid_high", 122, 2),
    ("i_checksum_lo", 124, 2),
    ("i_reserved2", 126, 2),
];
const EXTRA: &[Field] = &[
    ("i_extra_isize", 128, 2),
    ("i_checksum_hi", 130, 2),
    ("i_ctime_extra", 132, 4),
    ("i_mtime_extra", 136, 4),
    ("i_atime_extra", 140, 4),
    ("i_crtime", 144, 4),
    ("i_crtime_extra", 148, 4),
    ("i_version_hi", 152, 4),
    ("i_projid", 156, 4),
    ("in-inode attributes", 160, 4),
    ("in-inode attribute", 164, 4),
    ("in-inode attribute value inode", 168, 4),
    ("in-inode attribute value", 172, 4),
    ("in-inode attribute hash", 176, 4),
    ("in-inode attribute name", 180, 4),
    ("in-inode attribute end", 192, 4),
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
            let at = self.group_at(index * per_block);
            at / self.block_size + usize::from(le(&self.bytes, at + 56, 2) == 0xEF53)
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
            let Place {
                field,
                at,
                width,
                mut about,
            } = self.field(random);
            if at + width > self.bytes.len() {
                continue;
            }
            let old = le(&self.bytes, at, width);
            let new = self.value(old, width, random);
            if new == old {
                continue;
            }
            if let (Some(about), true) = (&mut about, field.contains("entry")) {
                // The entry leads somewhere else, or nowhere.
                about.extend([old, new].map(|ino| usize::try_from(ino).unwrap_or(0)));
            }
            return Mutation {
                field,
                at,
                width,
                old,
                new,
                about,
            };
        }
    }

    fn value(&self, old: u64, width: usize, random: &mut Random) -> u64 {
        let most = u64::MAX >> (64 - 8 * width);
        let value = match random.below(11) {
            0 => 0,
            1 => 1,
            2 => most,
            3 => most / 2 + 1,
            4 => old.wrapping_add(1),
            5 => old.wrapping_sub(1),
            6 => old ^ 1 << random.below(8 * width as u64),
            7 => random.below((self.bytes.len() / self.block_size) as u64),
            // Somebody else's inode number or block.
            8 => *random.pick(&self.live()) as u64,
            9 => {
                let map = self.inode(*random.pick(&self.live())) + 40;
                le(&self.bytes, map + 4 * to_usize(random.below(15)), 4)
            }
            _ => random.next(),
        };
        value & most
    }

    fn field(&self, random: &mut Random) -> Place {
        let group = to_usize(random.below(self.groups as u64));
        match random.below(13) {
            0 => self.super_field(0, random),
            1 => self.desc_field(group, random),
            2 => {
                let backups: Vec<usize> = (1..self.groups)
                    .filter(|&group| le(&self.bytes, self.group_at(group) + 56, 2) == 0xEF53)
                    .collect();
                match backups.is_empty() {
                    true => self.super_field(0, random),
                    false => self.super_field(*random.pick(&backups), random),
                }
            }
            3 => {
                let all: Vec<usize> = self.inodes().collect();
                self.inode_field(*random.pick(&all), random)
            }
            4..7 => self.inode_field(*random.pick(&self.live()), random),
            7 | 8 => self.entry_field(random),
            9 => self.pointed_field(random),
            10 => self.tree_field(random),
            11 => self.dir_word(random),
            _ => self.bitmap_byte(group, random),
        }
    }

    /// Byte offset of a group's first block.
    fn group_at(&self, group: usize) -> usize {
        (self.first + group * self.blocks_per_group) * self.block_size
    }

    /// A field of the superblock or of one of its backups, or of the descriptors behind that.
    fn super_field(&self, copy: usize, random: &mut Random) -> Place {
        let at = if copy == 0 { 1024 } else { self.group_at(copy) };
        if copy != 0 && random.below(3) == 0 {
            let (name, offset, width) = *random.pick(DESC);
            let group = to_usize(random.below(self.groups.min(self.block_size / 32) as u64));
            let at = at + self.block_size + group * 32 + offset;
            return Place::of_all(format!("backup {copy} group {group}.{name}"), at, width);
        }
        let (name, offset, width) = *random.pick(SUPER);
        let what = match copy {
            0 => format!("superblock.{name}"),
            copy => format!("backup {copy} superblock.{name}"),
        };
        Place::of_all(what, at + offset, width)
    }

    fn desc_field(&self, group: usize, random: &mut Random) -> Place {
        let (name, at, width) = *random.pick(DESC);
        Place::of_all(
            format!("group {group}.{name}"),
            self.desc(group) + at,
            width,
        )
    }

    fn bitmap_byte(&self, group: usize, random: &mut Random) -> Place {
        let which = random.below(2);
        let place = le(&self.bytes, self.desc(group) + to_usize(which * 4), 4);
        let reach = if random.below(4) == 0 { 1 } else { 8 };
        let byte = random.below(self.block_size as u64 / reach);
        let name = if which == 0 { "block" } else { "inode" };
        let at = to_usize(place * self.block_size as u64 + byte);
        let mut place = Place::of_all(format!("group {group}.{name} bitmap"), at, 1);
        place.about = Some(Vec::new());
        place
    }

    fn inode_field(&self, ino: usize, random: &mut Random) -> Place {
        let extra = self.inode_size > 128 && random.below(5) == 0;
        let (name, at, width) = *random.pick(if extra { EXTRA } else { INODE });
        Place::of(
            ino,
            format!("inode {ino}.{name}"),
            self.inode(ino) + at,
            width,
        )
    }

    /// The blocks in the direct pointers of an inode.
    fn direct(&self, ino: usize) -> Vec<usize> {
        let map = self.inode(ino) + 40;
        let blocks = (0..12).map(|i| to_usize(le(&self.bytes, map + i * 4, 4)));
        blocks
            .filter(|&b| b != 0 && b * self.block_size < self.bytes.len())
            .collect()
    }

    fn entry_field(&self, random: &mut Random) -> Place {
        let dir = *random.pick(&self.dirs());
        let blocks = self.direct(dir);
        let few = random.below(3).min(random.below(12));
        let Some(&block) = blocks.get(to_usize(few)) else {
            return self.inode_field(dir, random);
        };
        let start = block * self.block_size;
        let (mut at, mut nth) = (start, 0);
        let stop = random.below(20);
        loop {
            let len = to_usize(le(&self.bytes, at + 4, 2));
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
        let what = format!("directory {dir} entry {nth}.{name}");
        let mut place = Place::of(dir, what, at + offset, width);
        if let Some(about) = &mut place.about {
            about.push(to_usize(le(&self.bytes, at, 4)));
        }
        place
    }

    /// A word of an indirect block, of an index block, of an attribute block or of a symbolic link.
    fn pointed_field(&self, random: &mut Random) -> Place {
        let ino = *random.pick(&self.live());
        let at = self.inode(ino);
        let (name, pointer, words) = *random.pick(&[
            ("indirect", 88, 64),
            ("double indirect", 92, 16),
            ("attribute block", 104, 24),
            ("attribute block", 104, self.block_size as u64 / 4),
            ("first block", 40, 16),
        ]);
        let block = to_usize(le(&self.bytes, at + pointer, 4));
        // A device's number is no block.
        let device = matches!(le(&self.bytes, at, 2) >> 12, 2 | 6) && name != "attribute block";
        if device || block == 0 || (block + 1) * self.block_size > self.bytes.len() {
            return self.inode_field(ino, random);
        }
        let word = to_usize(random.below(words));
        let mut place = Place::of(
            ino,
            format!("inode {ino}.{name}[{word}]"),
            block * self.block_size + word * 4,
            4,
        );
        if name == "attribute block" {
            // Others may share it.
            let same = |&ino: &usize| to_usize(le(&self.bytes, self.inode(ino) + 104, 4)) == block;
            place.about = Some(self.live().into_iter().filter(same).collect());
        }
        place
    }

    /// A word of an indirect block of any level, in use or beside one that is.
    fn tree_field(&self, random: &mut Random) -> Place {
        let deep: Vec<(usize, usize)> = self
            .live()
            .into_iter()
            .flat_map(|ino| (1..4).map(move |level| (ino, level)))
            .filter(|&(ino, level)| le(&self.bytes, self.inode(ino) + 84 + level * 4, 4) != 0)
            .collect();
        if deep.is_empty() {
            return self.inode_field(*random.pick(&self.live()), random);
        }
        let &(ino, level) = random.pick(&deep);
        let mut at = self.inode(ino) + 84 + level * 4;
        let mut left = level;
        loop {
            let start = to_usize(le(&self.bytes, at, 4)) * self.block_size;
            if start == 0 || start + self.block_size > self.bytes.len() {
                break;
            }
            let words = start..start + self.block_size;
            let used: Vec<usize> = words
                .step_by(4)
                .filter(|&word| le(&self.bytes, word, 4) != 0)
                .collect();
            at = match used.is_empty() || random.below(4) == 0 {
                true => start + 4 * to_usize(random.below(self.block_size as u64 / 4)),
                false => *random.pick(&used),
            };
            left -= 1;
            if left == 0 || random.below(3) == 0 {
                break;
            }
        }
        let what = format!("inode {ino} block tree, {} above the data", left);
        Place::of(ino, what, at, 4)
    }

    /// A word of a directory block wherever it is: index nodes, entries in the middle, the ends of blocks.
    fn dir_word(&self, random: &mut Random) -> Place {
        let indexed = |&ino: &usize| le(&self.bytes, self.inode(ino) + 32, 4) & 0x1000 != 0;
        let mut dirs: Vec<usize> = self.dirs().into_iter().filter(indexed).collect();
        if dirs.is_empty() || random.below(4) == 0 {
            dirs = self.dirs();
        }
        let dir = *random.pick(&dirs);
        let blocks = crate::tree::blocks(self, dir);
        if blocks.is_empty() {
            return self.inode_field(dir, random);
        }
        let &(lblk, block) = match random.below(3) {
            0 => &blocks[0],
            _ => random.pick(&blocks),
        };
        let head = random.below(2) == 0;
        let reach = if head { 32 } else { self.block_size as u64 / 4 };
        let word = to_usize(random.below(reach));
        let what = format!("directory {dir} block {lblk}[{word}]");
        let mut place = Place::of(dir, what, block * self.block_size + word * 4, 4);
        if let Some(about) = &mut place.about {
            // The word may be part of any entry of the block.
            about.extend(
                crate::tree::entries(self, dir)
                    .into_iter()
                    .map(|(_, ino)| ino),
            );
        }
        place
    }
}

/// A field of the image.
struct Place {
    field: String,
    at: usize,
    width: usize,
    about: Option<Vec<usize>>,
}

impl Place {
    fn of_all(field: String, at: usize, width: usize) -> Self {
        let about = None;
        Self {
            field,
            at,
            width,
            about,
        }
    }

    fn of(ino: usize, field: String, at: usize, width: usize) -> Self {
        let about = Some(vec![ino]);
        Self {
            field,
            at,
            width,
            about,
        }
    }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap()
}
