//! Carrying out a plan.
//!
//! The primary superblock gets its magic number last: until then nobody takes the image for a file system, neither the
//! old one nor the new one.

use alloc::vec;
use alloc::vec::Vec;

use ext2dax_format::dirent::{self, RawDirEntry};
use ext2dax_format::inode::{EXTRA_ISIZE, RawInode, RawInodeExtra};
use ext2dax_format::superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use ext2dax_format::{FileType, GroupNr, Ino, RawGroupDesc, bitmap, indirect};
use ext2dax_pmem::{Off, Pmem};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{IntoBytes, transmute};

use crate::options::Refusal;
use crate::plan::Plan;

/// What the bytes of the target are before writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Anything: inode tables are cleared.
    Anything,
    /// Zero bytes, as in a new sparse file: what would stay zero is not touched, so it takes no room.
    Zeroes,
}

/// Steps of writing, for a progress bar: tables of a group each, then pieces of contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// All steps.
    pub all: u64,
}

impl Plan {
    /// Writes the image over whatever the region holds. Durable on return, as far as the region can promise.
    ///
    /// # Errors
    /// [`Refusal::RegionTooShort`] and [`Refusal::NotWritable`] before the first byte; [`Refusal::Io`] after, and then
    /// there is no file system.
    pub fn write(&self, pmem: &Pmem) -> Result<(), Refusal> {
        self.write_with(pmem, Before::Anything, |_| {})
    }

    /// [`Plan::write`] with knowledge of what the region holds, and a call a group.
    ///
    /// # Errors
    /// As [`Plan::write`].
    pub fn write_with(
        &self,
        pmem: &Pmem,
        before: Before,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<(), Refusal> {
        let write = |at, bytes: &[u8]| {
            pmem.write_flushed(at, bytes);
            Ok(())
        };
        self.write_around(pmem, &write, before, &mut progress, |image, _| {
            image.write_files()?;
            Ok(None)
        })
    }

    /// Where others keep their signatures and nothing of ours would overwrite them for certain: the start, up to those of
    /// btrfs, and the end, where RAID has its superblocks and GPT its copy.
    pub(crate) fn swept(&self) -> [core::ops::Range<u64>; 2] {
        const UNIT: u64 = 64 << 10;
        let len = self.len_bytes();
        let tail = (len - len % UNIT)
            .saturating_sub(UNIT)
            .max(SUPERBLOCK_OFFSET);
        [
            SUPERBLOCK_OFFSET + 1024..len.min(2 * UNIT),
            tail.max(2 * UNIT).min(len)..len,
        ]
    }

    /// Writes everything but files, which `files` does; the UUID that it returns replaces the planned one. Bytes go
    /// through `write`, which can fail where a store could only be killed: in a file that has no blocks yet.
    pub(crate) fn write_around<E: From<Refusal>>(
        &self,
        pmem: &Pmem,
        write: &Write<'_, E>,
        before: Before,
        progress: &mut (dyn FnMut(Progress) + Send),
        files: impl FnOnce(
            &Image<'_, E>,
            &mut (dyn FnMut(Progress) + Send),
        ) -> Result<Option<[u8; 16]>, E>,
    ) -> Result<(), E> {
        if pmem.len() < self.len_bytes() {
            let (planned, len) = (self.len_bytes(), pmem.len());
            return Err(Refusal::RegionTooShort { planned, len }.into());
        }
        if !pmem.writable() {
            return Err(Refusal::NotWritable.into());
        }
        let magic = Off::<U16>::new(
            SUPERBLOCK_OFFSET + core::mem::offset_of!(RawSuperblock, s_magic) as u64,
        );
        if before == Before::Zeroes {
            // The block gets its place in a file.
            write(SUPERBLOCK_OFFSET, &[0; 1024])?;
        }
        // PUBLISH: no file system. Before: whatever was there. After: nothing that a driver would mount.
        pmem.publish(magic, U16::ZERO);
        let image = Image {
            plan: self,
            pmem,
            write,
            before,
        };
        for range in self.swept() {
            image.clear(range.start, range.end - range.start);
        }
        let all = u64::from(self.geometry.groups());
        for group in self.geometry.all_groups() {
            image.write_group(group)?;
            progress(Progress {
                done: u64::from(group.get()) + 1,
                all,
            });
        }
        image.write_descriptors()?;
        let mut raw = self.superblock;
        if let Some(uuid) = files(&image, progress)? {
            raw.s_uuid = uuid;
        }
        image.write_superblocks(raw)?;
        pmem.fence();
        // PUBLISH: the file system. Before: everything is in place, and nobody takes it for one. After: whole and clean.
        pmem.publish(magic, self.superblock.s_magic);
        let synced = pmem.sync(0..self.len_bytes());
        synced.map_err(|_| Refusal::Io.into())
    }
}

#[cfg(feature = "std")]
impl Plan {
    /// Every byte that writing may change, in ranges: `super_only` as [`Plan::write_supers`] does.
    pub(crate) fn touched(&self, super_only: bool) -> Vec<core::ops::Range<u64>> {
        let geometry = &self.geometry;
        let bytes = |block: u32| u64::from(block) << geometry.block_bits();
        let first = u64::from(geometry.block_size()).max(SUPERBLOCK_OFFSET + 1024);
        let mut all: Vec<_> = core::iter::once(0..first).collect();
        if !super_only {
            all.extend(self.swept());
        }
        for group in geometry.all_groups() {
            let supers = geometry.group_super_blocks(group);
            let start = geometry.group_first_block(group).get();
            let runs = self.table_runs(group).into_iter();
            let runs = runs.filter(|run| !super_only || run.1 <= start + supers);
            all.extend(runs.map(|(from, to)| bytes(from)..bytes(to)));
        }
        if !super_only {
            let taken = self.usage.taken.iter();
            all.extend(taken.map(|&(from, to)| bytes(from)..bytes(to)));
        }
        all
    }

    /// Superblocks and descriptors alone.
    pub(crate) fn write_supers<E: From<Refusal>>(
        &self,
        pmem: &Pmem,
        write: &Write<'_, E>,
    ) -> Result<(), E> {
        let image = Image {
            plan: self,
            pmem,
            write,
            before: Before::Zeroes,
        };
        image.write_descriptors()?;
        let mut raw = self.superblock;
        raw.s_state = {
            use ext2dax_format::superblock::{STATE_ERROR, STATE_VALID};
            U16::new(STATE_VALID | STATE_ERROR)
        };
        image.write_superblocks(raw)?;
        pmem.fence();
        let magic = Off::<U16>::new(
            SUPERBLOCK_OFFSET + core::mem::offset_of!(RawSuperblock, s_magic) as u64,
        );
        // PUBLISH: the new superblock. Before: none that counts. After: one that says that fsck has to look.
        pmem.publish(magic, self.superblock.s_magic);
        let synced = pmem.sync(0..self.len_bytes());
        synced.map_err(|_| Refusal::Io.into())
    }
}

/// Writes bytes at a place.
pub(crate) type Write<'a, E> = dyn Fn(u64, &[u8]) -> Result<(), E> + Sync + 'a;

/// An image while it is written.
pub(crate) struct Image<'a, E> {
    plan: &'a Plan,
    pmem: &'a Pmem,
    write: &'a Write<'a, E>,
    before: Before,
}

impl<E> Image<'_, E> {
    pub(crate) fn offset(&self, block: u32) -> u64 {
        u64::from(block) << self.plan.geometry.block_bits()
    }

    /// Whether bytes that nobody has written are zero.
    #[cfg(feature = "std")]
    pub(crate) fn was_zero(&self) -> bool {
        self.before == Before::Zeroes
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<(), E> {
        (self.write)(at, bytes)
    }

    fn clear(&self, at: u64, len: u64) {
        if self.before == Before::Anything {
            self.pmem.zero(at, len);
            self.pmem.flush(at, len);
        }
    }

    /// Bitmaps and an empty inode table.
    fn write_group(&self, group: GroupNr) -> Result<(), E> {
        let geometry = &self.plan.geometry;
        let desc = self.plan.desc(group);
        let mut bits = vec![0_u8; geometry.block_size() as usize];
        let all = geometry.group_run(group);
        let start = all.start.get();
        for (from, to) in self.plan.table_runs(group) {
            bitmap::set_range(&mut bits, from - start, to - start);
        }
        for (from, to) in self.plan.usage.within(start, all.end()) {
            bitmap::set_range(&mut bits, from - start, to - start);
        }
        // Bits that stand for no block are set, so that nobody allocates them.
        bitmap::set_range(&mut bits, all.len, geometry.bits_per_block());
        self.put(self.offset(desc.bg_block_bitmap.get()), &bits)?;

        bits.fill(0);
        let before = group.get() * geometry.inodes_per_group();
        bitmap::set_range(
            &mut bits,
            0,
            self.plan
                .usage
                .inodes
                .saturating_sub(before)
                .min(geometry.inodes_per_group()),
        );
        bitmap::set_range(
            &mut bits,
            geometry.inodes_per_group(),
            geometry.bits_per_block(),
        );
        self.put(self.offset(desc.bg_inode_bitmap.get()), &bits)?;

        let table = u64::from(geometry.inode_table_blocks()) << geometry.block_bits();
        self.clear(self.offset(desc.bg_inode_table.get()), table);
        Ok(())
    }

    /// The descriptor table, and its copies behind each backup or, with meta_bg, in two more groups of each meta group.
    fn write_descriptors(&self) -> Result<(), E> {
        let geometry = &self.plan.geometry;
        let descs: Vec<RawGroupDesc> = geometry
            .all_groups()
            .map(|group| self.plan.desc(group))
            .collect();
        let per_block = geometry.desc_per_block() as usize;
        let meta_bg = geometry
            .features()
            .incompat
            .contains(ext2dax_format::Incompat::META_BG);
        let mut block = vec![0; geometry.block_size() as usize];
        for (index, descs) in (0_u32..).zip(descs.chunks(per_block)) {
            block.fill(0);
            block[..descs.as_bytes().len()].copy_from_slice(descs.as_bytes());
            if meta_bg {
                let first = index * geometry.desc_per_block();
                for nr in [first, first + 1, first + geometry.desc_per_block() - 1] {
                    let Ok(group) = geometry.group(nr) else {
                        continue;
                    };
                    let skip = u32::from(geometry.group_has_super(group));
                    self.put(
                        self.offset(geometry.group_first_block(group).get() + skip),
                        &block,
                    )?;
                }
            } else {
                for group in self.groups_with_super() {
                    self.put(
                        self.offset(geometry.group_first_block(group).get() + 1 + index),
                        &block,
                    )?;
                }
            }
        }
        Ok(())
    }

    fn groups_with_super(&self) -> impl Iterator<Item = GroupNr> + '_ {
        let geometry = &self.plan.geometry;
        geometry
            .all_groups()
            .filter(|&group| geometry.group_has_super(group))
    }

    /// Primary without its magic number, backups with it.
    fn write_superblocks(&self, mut raw: RawSuperblock) -> Result<(), E> {
        let geometry = &self.plan.geometry;
        for group in self.groups_with_super().skip(1) {
            raw.s_block_group_nr = U16::new(u16::try_from(group.get()).unwrap_or(u16::MAX));
            self.put(
                self.offset(geometry.group_first_block(group).get()),
                raw.as_bytes(),
            )?;
        }
        raw.s_block_group_nr = U16::ZERO;
        raw.s_magic = U16::ZERO;
        self.clear(0, SUPERBLOCK_OFFSET);
        self.put(SUPERBLOCK_OFFSET, raw.as_bytes())?;
        let rest = SUPERBLOCK_OFFSET + 1024;
        self.clear(rest, u64::from(geometry.block_size()).max(rest) - rest);
        Ok(())
    }

    pub(crate) fn write_files(&self) -> Result<(), E> {
        let (geometry, files, options) =
            (&self.plan.geometry, &self.plan.files, &self.plan.options);
        let lost_found = geometry
            .ino(geometry.first_ino())
            .expect("checked by Geometry");

        let mut root = self.inode(FileType::Directory, options.root_mode, 3);
        set_owner(&mut root, options.root_owner);
        self.give_blocks(&mut root, &[files.root]);
        self.write_inode(Ino::ROOT, &root)?;
        let names = [
            (&b"."[..], Ino::ROOT),
            (b"..", Ino::ROOT),
            (b"lost+found", lost_found),
        ];
        self.write_entries(files.root, &names)?;

        let mut inode = self.inode(FileType::Directory, 0o700, 2);
        self.give_blocks(&mut inode, &files.lost_found);
        self.write_inode(lost_found, &inode)?;
        for (index, &block) in files.lost_found.iter().enumerate() {
            let names = [(&b"."[..], lost_found), (b"..", Ino::ROOT)];
            self.write_entries(block, if index == 0 { &names } else { &[] })?;
        }
        if let Some(block) = files.resize {
            self.write_resize_inode(block)?;
        }
        self.write_bad_blocks(&files.bad)
    }

    /// Inode 1 owns the bad blocks; `indirect` are as many as [`Plan::bad_indirect`] says.
    pub(crate) fn write_bad_blocks(&self, indirect: &[u32]) -> Result<(), E> {
        let bad = self.plan.bad_blocks();
        if bad.is_empty() {
            return Ok(());
        }
        let geometry = &self.plan.geometry;
        let (direct, mut rest) = bad.split_at(bad.len().min(indirect::DIRECT as usize));
        let mut inode = RawInode {
            i_mode: U16::ZERO,
            ..self.inode(FileType::Regular, 0, 0)
        };
        for (slot, &block) in inode.i_block.iter_mut().zip(direct) {
            *slot = U32::new(block);
        }
        let mut next = indirect.iter().copied();
        for (level, slot) in (1..).zip(&mut inode.i_block[indirect::INDIRECT_SLOT as usize..]) {
            if !rest.is_empty() {
                *slot = U32::new(self.write_branch(level, &mut rest, &mut next)?);
            }
        }
        let size = (bad.len() as u64) << geometry.block_bits();
        let size: [U32; 2] = transmute!(zerocopy::little_endian::U64::new(size));
        [inode.i_size, inode.i_size_high] = size;
        let blocks = u32::try_from(bad.len() + indirect.len()).unwrap_or(u32::MAX);
        inode.i_blocks = U32::new(blocks.saturating_mul(geometry.sectors_per_block()));
        self.write_inode(Ino::BAD_BLOCKS, &inode)
    }

    /// An indirect block and those below it, for as many of `rest` as it can name; where it lies.
    fn write_branch(
        &self,
        level: u32,
        rest: &mut &[u32],
        next: &mut dyn Iterator<Item = u32>,
    ) -> Result<u32, E> {
        let block = next.next().expect("as many as were counted");
        let mut slots = vec![U32::ZERO; self.plan.geometry.addr_per_block() as usize];
        for slot in &mut slots {
            let Some((&first, after)) = rest.split_first() else {
                break;
            };
            *slot = U32::new(if level == 1 {
                *rest = after;
                first
            } else {
                self.write_branch(level - 1, rest, next)?
            });
        }
        self.put(self.offset(block), slots.as_bytes())?;
        Ok(block)
    }

    fn inode(&self, kind: FileType, mode: u16, links: u16) -> RawInode {
        let time = U32::new(self.plan.options.time);
        RawInode {
            i_mode: U16::new(kind.mode() | mode),
            i_links_count: U16::new(links),
            i_atime: time,
            i_ctime: time,
            i_mtime: time,
            ..RawInode::default()
        }
    }

    /// Direct blocks and what follows from them.
    fn give_blocks(&self, inode: &mut RawInode, blocks: &[u32]) {
        for (slot, &block) in inode.i_block.iter_mut().zip(blocks) {
            *slot = U32::new(block);
        }
        let count = u32::try_from(blocks.len()).expect("at most 12");
        inode.i_size = U32::new(count * self.plan.geometry.block_size());
        inode.i_blocks = U32::new(count * self.plan.geometry.sectors_per_block());
    }

    fn write_inode(&self, ino: Ino, inode: &RawInode) -> Result<(), E> {
        let geometry = &self.plan.geometry;
        let (group, index) = geometry.locate_ino(ino);
        let table = self.offset(self.plan.desc(group).bg_inode_table.get());
        let at = table + u64::from(index) * u64::from(geometry.inode_size());
        self.put(at, inode.as_bytes())?;
        if geometry.inode_size() > 128 {
            let extra = RawInodeExtra {
                i_extra_isize: U16::new(EXTRA_ISIZE),
                i_crtime: U32::new(self.plan.options.time),
                ..RawInodeExtra::default()
            };
            self.put(at + 128, extra.as_bytes())?;
        }
        Ok(())
    }

    /// A directory block with these entries, the last one or a free one filling it.
    fn write_entries(&self, block: u32, names: &[(&[u8], Ino)]) -> Result<(), E> {
        let geometry = &self.plan.geometry;
        let block_size = geometry.block_size();
        let mut bytes = vec![0; block_size as usize];
        let mut at = 0;
        for (index, &(name, ino)) in names.iter().enumerate() {
            let needed = dirent::needed_len(name.len());
            let len = if index + 1 == names.len() {
                block_size - at
            } else {
                needed
            };
            let name_len = u8::try_from(name.len()).expect("short names");
            let head = RawDirEntry::new(
                Some(ino),
                len,
                name_len,
                Some(FileType::Directory),
                geometry,
            );
            let from = at as usize;
            bytes[from..from + 8].copy_from_slice(head.as_bytes());
            bytes[from + 8..from + 8 + name.len()].copy_from_slice(name);
            at += len;
        }
        if names.is_empty() {
            let head = RawDirEntry::new(None, block_size, 0, None, geometry);
            bytes[..8].copy_from_slice(head.as_bytes());
        }
        self.put(self.offset(block), &bytes)?;
        Ok(())
    }

    /// Inode 7 owns the reserved descriptor blocks: its double indirect block names those behind the primary superblock,
    /// each of which is an indirect block that names its copies behind the backups.
    pub(crate) fn write_resize_inode(&self, block: u32) -> Result<(), E> {
        let geometry = &self.plan.geometry;
        let addrs = geometry.addr_per_block();
        let reserved = geometry.reserved_gdt_blocks();
        let backups: Vec<GroupNr> = self.groups_with_super().skip(1).collect();
        let mut double = vec![U32::ZERO; addrs as usize];
        let mut single = vec![U32::ZERO; addrs as usize];
        for nr in 0..reserved {
            // The slot is the number that the block will have in the descriptor table.
            let index = geometry.desc_blocks() + nr;
            let primary = geometry.first_data_block() + 1 + index;
            double[(index % addrs) as usize] = U32::new(primary);
            for (slot, &group) in single.iter_mut().zip(&backups) {
                let copy = geometry.group_first_block(group).get() + 1 + index;
                *slot = U32::new(copy);
                self.clear(self.offset(copy), u64::from(geometry.block_size()));
            }
            self.put(self.offset(primary), single.as_bytes())?;
        }
        self.put(self.offset(block), double.as_bytes())?;

        let mut inode = self.inode(FileType::Regular, 0o600, 1);
        inode.i_block[indirect::INDIRECT_SLOT as usize + 1] = U32::new(block);
        // It reaches to the end of the double indirect block.
        let reach =
            u64::from(indirect::DIRECT) + u64::from(addrs) + u64::from(addrs) * u64::from(addrs);
        let size: [U32; 2] = transmute!(zerocopy::little_endian::U64::new(
            reach << geometry.block_bits()
        ));
        [inode.i_size, inode.i_size_high] = size;
        let copies = u32::try_from(backups.len()).expect("few backups") + 1;
        inode.i_blocks = U32::new((1 + reserved * copies) * geometry.sectors_per_block());
        self.write_inode(Ino::RESIZE, &inode)?;
        Ok(())
    }
}

pub(crate) fn set_owner(inode: &mut RawInode, (uid, gid): (u32, u32)) {
    let halves = |id: u32| -> [U16; 2] { transmute!(U32::new(id)) };
    [inode.i_uid, inode.l_i_uid_high] = halves(uid);
    [inode.i_gid, inode.l_i_gid_high] = halves(gid);
}
