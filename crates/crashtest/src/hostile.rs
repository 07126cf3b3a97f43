//! Images with bad numbers: which fields there are, what to put into them, and everything that is then done with the image.
//!
//! Any bytes are a legal input. What comes back is data or an error; never a panic, an endless loop, or memory sized by a
//! number that nobody checked. The fuzz targets run [`exercise`] on whatever they are given.

use std::collections::HashSet;

use anyhow::{Context, Result};
use ext2dax::{FileSystem, MountOptions, OpenOptions, SetAttributes, SetXattr};
use ext2dax_format::inode::FileType;
use ext2dax_format::{Geometry, GroupNr, RawGroupDesc, RawSuperblock};
use ext2dax_fsck::CheckOptions;
use ext2dax_mkfs::{Inodes, Options, Plan};
use ext2dax_pmem::{AnonRegion, Pmem};
use zerocopy::FromBytes;

/// A number of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Structure and offset in it.
    pub name: String,
    /// Where it lies, in bytes.
    pub at: usize,
    /// Its bytes: 1, 2 or 4.
    pub width: usize,
}

/// A small image with one of everything, as bytes, and its fields.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The image.
    pub bytes: Vec<u8>,
    /// Fields of superblock, descriptor, inodes, indirect blocks and entries.
    pub fields: Vec<Field>,
    /// Numbers that mean something in this image: tables, directories, limits.
    pub numbers: Vec<u32>,
}

/// A region in memory that holds `bytes`.
///
/// # Errors
/// No memory.
pub fn region(bytes: &[u8]) -> Result<Pmem> {
    let pmem = Pmem::new(AnonRegion::new(bytes.len() as u64)?);
    pmem.write(0, bytes);
    Ok(pmem)
}

impl Sample {
    /// Makes the image: directories, files with one, two and three levels of indirect blocks, links, symlinks of both
    /// kinds, a device.
    ///
    /// # Errors
    /// What failed while making it: the image itself is good.
    pub fn new(block_size: u32) -> Result<Self> {
        let options = Options {
            inodes: Inodes::Count(32),
            ..Options::with_block_size(block_size)
        };
        let plan = Plan::new(&options, u64::from(block_size) * 200)?;
        let pmem = Pmem::new(AnonRegion::new(plan.len_bytes())?);
        plan.write(&pmem)?;
        let inodes = populate(&pmem, block_size).context("populating the sample")?;
        let mut bytes = vec![0; usize::try_from(pmem.len())?];
        pmem.read(0, &mut bytes);
        let mut sample = Self {
            bytes,
            fields: Vec::new(),
            numbers: Vec::new(),
        };
        sample.find_fields(&inodes)?;
        Ok(sample)
    }

    fn find_fields(&mut self, inodes: &[(&'static str, u32)]) -> Result<()> {
        let raw = RawSuperblock::read_from_prefix(&self.bytes[1024..])
            .ok()
            .context("superblock")?
            .0;
        let geometry = Geometry::new(&raw, self.bytes.len() as u64)?;
        let desc_at = usize::try_from(geometry.desc_offset(GroupNr::FIRST))?;
        let desc = RawGroupDesc::read_from_prefix(&self.bytes[desc_at..])
            .ok()
            .context("descriptor")?
            .0;
        let desc = geometry.group_desc(&desc, GroupNr::FIRST)?;
        self.numbers = vec![
            geometry.blocks_count(),
            geometry.blocks_count() - 1,
            geometry.inodes_count(),
            geometry.inodes_count() + 1,
            geometry.block_size(),
            desc.block_bitmap.get(),
            desc.inode_table.get(),
        ];
        // Up to s_mmp_block, and the backup groups.
        self.words("superblock", 1024, (0..90).chain(146..150));
        self.halves(
            "superblock",
            1024,
            [52, 54, 56, 58, 60, 62, 80, 82, 88, 90, 206, 254, 348, 350],
        );
        self.words("descriptor", desc_at, 0..8);
        self.halves("descriptor", desc_at, [12, 14, 16, 18]);
        let table = usize::try_from(geometry.offset(desc.inode_table))?;
        let block_size = geometry.block_size() as usize;
        for &(name, ino) in inodes {
            let at = table + (ino as usize - 1) * geometry.inode_size() as usize;
            self.words(&format!("inode {name}"), at, 0..40);
            self.halves(&format!("inode {name}"), at, [0, 2, 24, 26, 128, 130]);
            let slot = |bytes: &[u8], slot: usize| {
                let at = at + 40 + slot * 4;
                u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
                    as usize
                    * block_size
            };
            // `i_file_acl` lies where a slot of its number would.
            let attributes = slot(&self.bytes, 16);
            if attributes != 0 && name == "file" {
                self.numbers.push(u32::try_from(attributes / block_size)?);
                self.attributes(name, attributes);
            }
            if name == "big" && geometry.inode_size() > 160 {
                self.plant_in_inode(at + 160);
            }
            let first = slot(&self.bytes, 0);
            if matches!(name, "/" | "dir") && first != 0 {
                self.numbers.push(u32::try_from(first / block_size)?);
                self.entries(name, first, block_size);
            }
            if name == "big" || name == "<7>" {
                for level in 12..15 {
                    let block = slot(&self.bytes, level);
                    if block != 0 {
                        self.numbers.push(u32::try_from(block / block_size)?);
                        self.words(
                            &format!("indirect block, slot {level} of {name}"),
                            block,
                            0..40,
                        );
                    }
                }
            }
        }
        Ok(())
    }

    fn words(&mut self, name: &str, at: usize, words: impl IntoIterator<Item = usize>) {
        let field = |word: usize| Field {
            name: format!("{name} +{}", word * 4),
            at: at + word * 4,
            width: 4,
        };
        self.fields.extend(words.into_iter().map(field));
    }

    fn halves(&mut self, name: &str, at: usize, offsets: impl IntoIterator<Item = usize>) {
        let field = |offset: usize| Field {
            name: format!("{name} +{offset} (16 bits)"),
            at: at + offset,
            width: 2,
        };
        self.fields.extend(offsets.into_iter().map(field));
    }

    /// Head and first entries of an attribute block: lengths and prefixes, offset, size and hash of the value.
    fn attributes(&mut self, name: &str, block: usize) {
        self.words(&format!("attributes of {name}"), block, 0..13);
        let mut at = block + 32;
        while self.bytes[at..at + 4] != [0; 4] {
            for (offset, width) in [(0, 1), (1, 1), (2, 2)] {
                self.fields.push(Field {
                    name: format!("attributes of {name}, entry at {}, +{offset}", at - block),
                    at: at + offset,
                    width,
                });
            }
            at += (usize::from(self.bytes[at]) + 16).next_multiple_of(4);
        }
    }

    /// `user.n` = "in here" behind an inode, as the ext4 driver puts it there.
    fn plant_in_inode(&mut self, at: usize) {
        let hash = ext2dax_format::xattr::entry_hash(b"n", b"in here");
        let area = [
            &ext2dax_format::xattr::MAGIC.to_le_bytes()[..],
            &[1, 1, 40, 0, 0, 0, 0, 0, 7, 0, 0, 0],
            &hash.to_le_bytes(),
            b"n\0\0\0\0\0\0\0",
        ]
        .concat();
        self.bytes[at..at + area.len()].copy_from_slice(&area);
        self.bytes[at + 44..at + 51].copy_from_slice(b"in here");
        self.words("attributes behind big", at, 0..8);
    }

    /// Inode, rec_len, name_len, type and first byte of the name of each entry.
    fn entries(&mut self, name: &str, block: usize, block_size: usize) {
        let mut at = block;
        while at < block + block_size {
            for (offset, width) in [(0, 4), (4, 2), (6, 1), (7, 1), (8, 1)] {
                let name = format!("directory {name}, entry at {}, +{offset}", at - block);
                self.fields.push(Field {
                    name,
                    at: at + offset,
                    width,
                });
            }
            let len = u16::from_le_bytes([self.bytes[at + 4], self.bytes[at + 5]]);
            at += if len == u16::MAX || len == 0 {
                block_size
            } else {
                usize::from(len)
            };
        }
    }

    /// What a field is set to: 0, 1, -1, limits, neighbours, numbers that mean something, and two random ones.
    #[must_use]
    pub fn values(&self, field: &Field, random: &mut Random) -> Vec<u32> {
        let mask = u32::MAX >> (32 - 8 * field.width);
        let old = self.get(field);
        let mut values = vec![
            0,
            1,
            2,
            3,
            u32::MAX,
            mask - 1,
            mask / 2,
            mask / 2 + 1,
            mask - 3,
        ];
        values.extend([
            old.wrapping_add(1),
            old.wrapping_sub(1),
            old ^ (mask / 2 + 1),
        ]);
        values.extend(&self.numbers);
        values.extend([random.next(), random.next()]);
        let mut seen = HashSet::new();
        values
            .into_iter()
            .map(|value| value & mask)
            .filter(|&value| value != old && seen.insert(value))
            .collect()
    }

    fn get(&self, field: &Field) -> u32 {
        let bytes = &self.bytes[field.at..field.at + field.width];
        bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u32::from(byte))
    }

    /// The image with one field changed.
    #[must_use]
    pub fn patched(&self, field: &Field, value: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (index, byte) in bytes[field.at..field.at + field.width]
            .iter_mut()
            .enumerate()
        {
            *byte = value.to_le_bytes()[index];
        }
        bytes
    }
}

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Owner, group under a mask, others.
const LIST: &[u8] = &[
    2, 0, 0, 0, //
    1, 0, 7, 0, 255, 255, 255, 255, //
    4, 0, 5, 0, 255, 255, 255, 255, //
    16, 0, 5, 0, 255, 255, 255, 255, //
    32, 0, 1, 0, 255, 255, 255, 255,
];

/// One of everything; answers with names and inode numbers.
fn populate(pmem: &Pmem, block_size: u32) -> Result<Vec<(&'static str, u32)>> {
    let fs = FileSystem::mount_pmem(pmem.clone(), &MountOptions::new())?;
    let block = u64::from(block_size);
    let pointers = block / 4;
    fs.create_dir("/dir")?;
    fs.create_dir("/dir/sub")?;
    fs.write("/file", b"contents")?;
    fs.write("/dir/inner", vec![7; block_size as usize + 1])?;
    let big = fs.create("/big")?;
    for at in [0, 12, 12 + pointers, 12 + pointers + pointers * pointers] {
        big.write_all_at(b"data", at * block)?;
    }
    drop(big);
    fs.symlink("/file", "/fast")?;
    fs.symlink(format!("/dir/{}", "x".repeat(100)), "/slow")?;
    fs.hard_link("/file", "/dir/link")?;
    fs.mknod(
        "/device",
        FileType::CharDevice,
        0o600,
        Some(ext2dax_format::device::Device { major: 1, minor: 3 }),
    )?;
    for path in ["/file", "/dir"] {
        let inode = fs.inode(path)?;
        inode.set_xattr(b"user.attribute", b"its value", SetXattr::Any)?;
        inode.set_xattr(ACCESS, LIST, SetXattr::Any)?;
    }
    fs.inode("/dir")?.set_xattr(DEFAULT, LIST, SetXattr::Any)?;
    let mut inodes = vec![("/", 2), ("<7>", 7), ("<1>", 1)];
    for (name, path) in [
        ("lost+found", "/lost+found"),
        ("dir", "/dir"),
        ("file", "/file"),
        ("big", "/big"),
        ("fast", "/fast"),
        ("slow", "/slow"),
        ("device", "/device"),
    ] {
        inodes.push((name, fs.symlink_metadata(path)?.ino()));
    }
    fs.unmount()?;
    Ok(inodes)
}

/// Pseudo-random numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 32 bits.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: it never ends"
    )]
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) >> 32).expect("32 bits are left")
    }
}

/// What [`exercise`] could do with an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Names met in a walk; `None` if it does not even mount.
    pub names: Option<usize>,
    /// Errors met on the way.
    pub errors: usize,
    /// Whether it mounted for writing.
    pub wrote: bool,
    /// Whether our fsck calls it clean (before anything was written).
    pub clean: bool,
}

/// Does everything with an image that a user might: checks it, mounts it for reading, walks and reads all, mounts it for
/// writing, changes a little everywhere, checks again. Errors are answers; only a panic or no end would be a fault.
pub fn exercise(bytes: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let options = CheckOptions {
        threads: 1,
        ..CheckOptions::default()
    };
    let Ok(pmem) = region(bytes) else {
        return outcome;
    };
    match ext2dax_fsck::check(&pmem, &options) {
        Ok(report) => outcome.clean = report.is_clean(),
        Err(_) => outcome.errors += 1,
    }
    let read_only = MountOptions::new().read_only(true);
    match FileSystem::mount_pmem(pmem.clone(), &read_only) {
        Ok(fs) => {
            let mut walk = Walk::default();
            walk.directory(&fs, b"/");
            walk.after(&fs);
            outcome.names = Some(walk.paths.len());
            outcome.errors += walk.errors;
        }
        Err(_) => outcome.errors += 1,
    }
    match FileSystem::mount_pmem(pmem.clone(), &MountOptions::new()) {
        Ok(fs) => {
            outcome.wrote = true;
            let mut walk = Walk::default();
            walk.directory(&fs, b"/");
            walk.change(&fs);
            outcome.errors += walk.errors;
            let _ = fs.unmount();
        }
        Err(_) => outcome.errors += 1,
    }
    let _ = ext2dax_fsck::check(&pmem, &options);
    outcome
}

/// Names at most, so that a directory that leads in circles ends.
const MAX_NAMES: usize = 2000;

#[derive(Debug, Default)]
struct Walk {
    /// Paths met, with whether each is a directory.
    paths: Vec<(Vec<u8>, bool)>,
    directories: HashSet<u32>,
    errors: usize,
}

impl Walk {
    fn count<T, E>(&mut self, result: std::result::Result<T, E>) -> Option<T> {
        if result.is_err() {
            self.errors += 1;
        }
        result.ok()
    }

    fn directory(&mut self, fs: &FileSystem, path: &[u8]) {
        let Some(entries) = self.count(fs.read_dir(path)) else {
            return;
        };
        for entry in entries {
            if self.paths.len() >= MAX_NAMES {
                return;
            }
            let Some(entry) = self.count(entry) else {
                continue;
            };
            let path = entry.path();
            let meta = self.count(fs.symlink_metadata(&path));
            let is_dir = meta.as_ref().is_some_and(ext2dax::Metadata::is_dir);
            self.paths.push((path.clone(), is_dir));
            self.attributes(fs, &path);
            if is_dir && self.directories.insert(entry.ino()) {
                self.directory(fs, &path);
            } else if let Some(meta) = meta {
                self.file(fs, &path, &meta);
            }
        }
    }

    /// Reads all attributes of what is no symlink.
    fn attributes(&mut self, fs: &FileSystem, path: &[u8]) {
        let Some(inode) = self.count(fs.inode(path)) else {
            return;
        };
        for name in self.count(inode.list_xattrs()).unwrap_or_default() {
            self.count(inode.xattr(&name));
        }
    }

    fn file(&mut self, fs: &FileSystem, path: &[u8], meta: &ext2dax::Metadata) {
        if meta.is_symlink() {
            let target = fs.read_link(path);
            self.count(target);
            self.count(fs.metadata(path));
            return;
        }
        if !meta.is_file() {
            let _ = meta.rdev();
            return;
        }
        let Some(file) = self.count(fs.open(path)) else {
            return;
        };
        let mut buf = vec![0; 20_000];
        self.count(file.read_at(&mut buf[..], 0));
        self.count(file.read_at(&mut buf[..100], meta.len().saturating_sub(50)));
        let mut at = 0;
        // A hostile size is a tree of holes: data is looked for, not read through.
        for _ in 0..32 {
            let Ok(data) = file.seek_data(at) else { break };
            self.count(file.read_at(&mut buf[..4096], data));
            let Ok(hole) = file.seek_hole(data) else {
                break;
            };
            if hole <= at {
                break;
            }
            at = hole;
        }
    }

    fn after(&mut self, fs: &FileSystem) {
        let stat = fs.statfs();
        let _ = format!("{stat:?}");
        self.count(fs.metadata("/no/such/name"));
    }

    /// A little of everything, in the first directories and files met.
    fn change(&mut self, fs: &FileSystem) {
        let paths = std::mem::take(&mut self.paths);
        let join = |dir: &[u8], name: &str| [dir, b"/", name.as_bytes()].concat();
        let directories = paths
            .iter()
            .filter(|(_, is_dir)| *is_dir)
            .map(|(path, _)| path.as_slice());
        for dir in [&b""[..]].into_iter().chain(directories.take(3)) {
            let (one, two, sub) = (
                join(dir, "hostile-one"),
                join(dir, "hostile-two"),
                join(dir, "hostile-dir"),
            );
            self.count(fs.write(&one, vec![3; 5000]));
            self.count(fs.rename(&one, &two));
            self.count(fs.hard_link(&two, &one));
            self.count(fs.create_dir(&sub));
            self.count(fs.symlink(vec![b'y'; 90], join(&sub, "slow")));
            self.count(fs.rename(&two, join(&sub, "moved")));
            self.count(fs.remove_file(&one));
            self.count(fs.remove_dir_all(&sub));
        }
        for (path, _) in paths.iter().take(8) {
            if let Some(inode) = self.count(fs.inode(path)) {
                self.count(inode.set_xattr(b"user.hostile", b"1", SetXattr::Any));
                self.count(inode.clear_privileges());
                self.count(inode.set_attributes(&SetAttributes {
                    permissions: Some(0o751),
                    uid: Some(70_000),
                    ..SetAttributes::default()
                }));
                self.count(inode.remove_xattr(b"user.attribute"));
                self.count(inode.set_xattr(ACCESS, LIST, SetXattr::Any));
            }
        }
        for (path, _) in paths.iter().filter(|(_, is_dir)| !is_dir).take(6) {
            if let Some(file) = self.count(OpenOptions::new().read(true).write(true).open(fs, path))
            {
                let len = file.len().unwrap_or(0);
                self.count(file.write_at(&b"changed"[..], 0));
                self.count(file.write_at(&b"changed"[..], 14 * 1024));
                self.count(file.punch_hole(0..4096));
                self.count(file.set_len(len / 2));
                self.count(file.set_len(len.saturating_add(5)));
            }
            self.count(fs.remove_file(path));
        }
        for (path, _) in paths.iter().filter(|(_, is_dir)| *is_dir).take(3) {
            self.count(fs.remove_dir(path));
        }
        self.count(fs.sync());
    }
}
