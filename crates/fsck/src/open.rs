//! Preamble: which superblock and which descriptors to believe.
//!
//! The primary ones, unless they contradict themselves and a backup does not. A backup counts only if its geometry fits
//! the region and every bitmap and table of its descriptors lies in its group on blocks of its own.

mod numbers;

use ext2dax_format::{FileType, RawSuperblock};

use crate::finding::Finding;
use crate::fix::{Fix, Patch};
use crate::image::Image;
use crate::layout::{FIRST_META_BG, Layout, SUPER_AT, Unfit};
use crate::problem::Code;
use crate::{CheckOptions, Error};
use numbers::{right_inodes_per_group, right_reserved};

/// The three places of a group's tables; 0 stands for a place that cannot be used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupPlaces {
    pub(crate) block_bitmap: u32,
    pub(crate) inode_bitmap: u32,
    pub(crate) inode_table: u32,
}

/// What a block of the file system itself holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// The superblock or descriptors that everybody reads.
    Primary,
    /// A backup of them, or room for more descriptors.
    Backup,
    BlockBitmap,
    InodeBitmap,
    InodeTable,
}

/// A superblock with its descriptors, as the rest of the check uses them.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) sb: RawSuperblock,
    /// Byte offset of the superblock that was read.
    pub(crate) sb_at: u64,
    /// Group whose copy of the descriptors was read.
    pub(crate) copy: u32,
    pub(crate) layout: Layout,
    pub(crate) places: Vec<GroupPlaces>,
}

impl GroupPlaces {
    /// The runs of blocks of the bitmaps and the table that have a place.
    pub(crate) fn runs(&self, layout: &Layout) -> impl Iterator<Item = (u32, u32)> {
        [
            (self.block_bitmap, 1),
            (self.inode_bitmap, 1),
            (self.inode_table, layout.table_blocks),
        ]
        .into_iter()
        .filter(|&(first, _)| first != 0)
    }

    fn meets(&self, layout: &Layout, first: u32, end: u32) -> bool {
        self.runs(layout)
            .any(|(start, count)| start < end && first < start.saturating_add(count))
    }
}

impl Volume {
    /// Whether a block belongs to a superblock, the descriptors, a bitmap or an inode table.
    pub(crate) fn is_metadata(&self, block: u32) -> bool {
        let group = self.layout.group_of_block(block);
        let end = block.saturating_add(1);
        self.layout.fixed_meets(group, block, end)
            || self
                .places
                .get(group as usize)
                .is_some_and(|places| places.meets(&self.layout, block, end))
    }

    /// What a block that belongs to the file system itself is.
    pub(crate) fn metadata(&self, block: u32) -> Option<Metadata> {
        let layout = &self.layout;
        let group = layout.group_of_block(block);
        let places = self.places.get(group as usize)?;
        let table = places.inode_table..places.inode_table.saturating_add(layout.table_blocks);
        let primary = || {
            let superblock = u32::from(layout.block_log == 0);
            let mut descs = (0..layout.desc_blocks).map(|index| layout.desc_block(index, 0));
            block == superblock || descs.any(|desc| desc == block)
        };
        match () {
            () if !self.is_metadata(block) => None,
            () if block == places.block_bitmap => Some(Metadata::BlockBitmap),
            () if block == places.inode_bitmap => Some(Metadata::InodeBitmap),
            () if places.inode_table != 0 && table.contains(&block) => Some(Metadata::InodeTable),
            () if primary() => Some(Metadata::Primary),
            () => Some(Metadata::Backup),
        }
    }

    /// Byte offset of an inode, unless its table has no place.
    pub(crate) fn inode_at(&self, ino: u32) -> Option<u64> {
        if ino == 0 || ino > self.layout.inodes {
            return None;
        }
        let places = self.places.get(self.layout.group_of_ino(ino) as usize)?;
        if places.inode_table == 0 {
            return None;
        }
        let index = (ino - 1) % self.layout.inodes_per_group;
        Some(
            self.layout.at(places.inode_table)
                + u64::from(index) * u64::from(self.layout.inode_size),
        )
    }
}

/// Finds the superblock and descriptors to work with; what is wrong with the primary ones goes to `findings`.
pub(crate) fn open(
    image: &Image,
    options: &CheckOptions,
    findings: &mut Vec<Finding>,
) -> Result<Volume, Error> {
    if image.len() < 2 * SUPER_AT {
        return Err(Error::TooShort { len: image.len() });
    }
    if let Some(block) = options.superblock {
        return open_given(image, block, options.block_size, findings);
    }
    let (why, mut found) = match Layout::new(&image.value(SUPER_AT), image.len()) {
        Ok(layout) => {
            let (volume, wrong) = load(image, SUPER_AT, 0, layout);
            if wrong.is_empty() {
                return Ok(volume);
            }
            // The primary descriptors are bad. A backup whose descriptors are all good wins.
            if let Some(backup) =
                find_backup(image).filter(|backup| volume.layout.same_geometry(&backup.layout))
            {
                let block = saturate_block(backup.sb_at, &backup.layout);
                findings.push(
                    Finding::new(Code::DescFromBackup)
                        .block(block)
                        .fix(Fix::RestoreBackup),
                );
                return Ok(backup);
            }
            findings.extend(wrong);
            return Ok(volume);
        }
        Err(why @ (Unfit::Features { .. } | Unfit::Revision(_))) => {
            return Err(Error::from_unfit(&why, image));
        }
        Err(Unfit::Magic) => (
            Unfit::Magic,
            vec![Finding::new(Code::SuperMagic).at(SUPER_AT)],
        ),
        Err(Unfit::Fields(fields)) => (Unfit::Fields(Vec::new()), fields),
        Err(why @ Unfit::TooLarge { .. }) => (why, Vec::new()),
    };
    for finding in &mut found {
        finding.fix = Fix::RestoreBackup;
    }
    if let Some(backup) = find_backup(image) {
        findings.append(&mut found);
        if findings.is_empty() {
            let sb: RawSuperblock = image.value(SUPER_AT);
            let field = Finding::new(Code::SuperField)
                .name(b"s_blocks_count")
                .found(sb.s_blocks_count.get());
            findings.push(field.expected(backup.layout.blocks).fix(Fix::RestoreBackup));
        }
        return Ok(backup);
    }
    if let [only] = found.as_slice()
        && only.code == Code::SuperInodesCount
    {
        return open_with_inodes_count(image, only.clone(), findings);
    }
    if let [only] = found.as_slice()
        && only.name == FIRST_META_BG.as_bytes()
    {
        return open_with_first_meta_bg(image, findings);
    }
    Err(match why {
        Unfit::Fields(_) => Error::BadSuperblock { findings: found },
        why => Error::from_unfit(&why, image),
    })
}

/// The only fault is the inode count: the groups say what it has to be.
fn open_with_inodes_count(
    image: &Image,
    finding: Finding,
    findings: &mut Vec<Finding>,
) -> Result<Volume, Error> {
    let mut sb: RawSuperblock = image.value(SUPER_AT);
    if let Some((right, layout)) = right_inodes_per_group(image, &sb) {
        let at = SUPER_AT + 40;
        let finding = Finding::new(Code::SuperInodesPerGroup)
            .found(sb.s_inodes_per_group.get())
            .expected(right);
        findings.push(finding.fix(Fix::word(at, right)));
        sb.s_inodes_per_group = right.into();
        let (volume, wrong) = load_with(image, sb, SUPER_AT, 0, layout);
        findings.extend(wrong);
        return Ok(volume);
    }
    sb.s_inodes_count = u32::try_from(finding.expected).unwrap_or(u32::MAX).into();
    let layout = Layout::new(&sb, image.len()).map_err(|why| Error::from_unfit(&why, image))?;
    let patch = Patch::word(SUPER_AT, sb.s_inodes_count.get());
    findings.push(finding.fix(Fix::Patches(vec![patch])));
    let (volume, wrong) = load_with(image, sb, SUPER_AT, 0, layout);
    findings.extend(wrong);
    Ok(volume)
}

/// The only fault is where descriptors begin to stand by themselves: everywhere, if they are good there, as mke2fs makes
/// them; or nowhere.
fn open_with_first_meta_bg(image: &Image, findings: &mut Vec<Finding>) -> Result<Volume, Error> {
    let mut sb: RawSuperblock = image.value(SUPER_AT);
    let found = sb.s_first_meta_bg.get();
    let mut with = |first: u32| {
        sb.s_first_meta_bg = first.into();
        let layout = Layout::new(&sb, image.len()).map_err(|why| Error::from_unfit(&why, image))?;
        Ok::<_, Error>(load_with(image, sb, SUPER_AT, 0, layout))
    };
    let (mut volume, mut wrong) = with(0)?;
    if !wrong.is_empty() {
        let other = with(volume.layout.desc_blocks)?;
        if other.1.is_empty() {
            (volume, wrong) = other;
        }
    }
    let right = volume.layout.first_meta_bg;
    let finding = Finding::new(Code::SuperFirstMetaBg).found(found);
    findings.push(
        finding
            .expected(right)
            .fix(Fix::word(SUPER_AT + 260, right)),
    );
    findings.extend(wrong);
    Ok(volume)
}

fn open_given(
    image: &Image,
    block: u64,
    size: Option<u32>,
    findings: &mut Vec<Finding>,
) -> Result<Volume, Error> {
    let sizes: Vec<u32> = size.map_or_else(
        || (0..=6).map(|log| 1024 << log).collect(),
        |size| vec![size],
    );
    let mut last = None;
    for size in sizes {
        let at = block.saturating_mul(u64::from(size));
        if at.saturating_add(1024) > image.len() {
            continue;
        }
        let at = if at == 0 { SUPER_AT } else { at };
        match Layout::new(&image.value(at), image.len()) {
            Ok(layout) if layout.block_size == size => {
                let copy = layout.group_of_block(saturate_block(at, &layout));
                let (volume, wrong) = load(image, at, copy, layout);
                if copy != 0 {
                    let primary = Finding::new(Code::DescFromBackup)
                        .block(saturate_block(at, &volume.layout));
                    if Layout::new(&image.value(SUPER_AT), image.len()).is_err() {
                        findings.push(
                            Finding::new(Code::SuperMagic)
                                .at(SUPER_AT)
                                .fix(Fix::RestoreBackup),
                        );
                    } else if !load(image, SUPER_AT, 0, volume.layout.clone()).1.is_empty() {
                        findings.push(primary.fix(Fix::RestoreBackup));
                    }
                }
                findings.extend(wrong);
                return Ok(volume);
            }
            Ok(_) => {}
            Err(why) => last = Some(why),
        }
    }
    Err(last.map_or(Error::NoSuperblock { at: block }, |why| {
        Error::from_unfit(&why, image)
    }))
}

/// The first backup that fits: where the primary superblock says that groups end, if it can say that at all, then at the
/// ends of full groups of every block size.
pub(crate) fn find_backup(image: &Image) -> Option<Volume> {
    let primary: RawSuperblock = image.value(SUPER_AT);
    let said = (
        primary.s_log_block_size.get(),
        primary.s_blocks_per_group.get(),
    );
    let usual = (0..=6_u32).map(|log| (log, (8 << (10 + log)).min(65_528)));
    let shapes = (said.0 <= 6 && said.1 >= 8)
        .then_some(said)
        .into_iter()
        .chain(usual);
    shapes
        .filter_map(|(log, per_group)| find_backup_of(image, log, per_group))
        .next()
}

fn find_backup_of(image: &Image, log: u32, per_group: u32) -> Option<Volume> {
    let size = 1024_u64 << log;
    let first = u64::from(log == 0);
    for group in [1_u32, 3, 5, 7, 9, 25, 27, 49, 81] {
        let at = (first + u64::from(group) * u64::from(per_group)) * size;
        if at + size > image.len() {
            return None;
        }
        let Ok(layout) = Layout::new(&image.value(at), image.len()) else {
            continue;
        };
        if layout.block_log != log || layout.blocks_per_group != per_group {
            continue;
        }
        let (volume, wrong) = load(image, at, group, layout);
        if wrong.is_empty() {
            return Some(volume);
        }
    }
    None
}

fn saturate_block(at: u64, layout: &Layout) -> u32 {
    u32::try_from(at / u64::from(layout.block_size)).unwrap_or(u32::MAX)
}

pub(crate) fn load(image: &Image, sb_at: u64, copy: u32, layout: Layout) -> (Volume, Vec<Finding>) {
    load_with(image, image.value(sb_at), sb_at, copy, layout)
}

/// Reads the descriptors, marks all metadata and says which places cannot be.
fn load_with(
    image: &Image,
    sb: RawSuperblock,
    sb_at: u64,
    copy: u32,
    mut layout: Layout,
) -> (Volume, Vec<Finding>) {
    let mut wrong = Vec::new();
    if let Some(right) = right_reserved(image, &layout, copy) {
        let finding = Finding::new(Code::SuperReserved);
        let fix = Fix::half(SUPER_AT + 206, u16::try_from(right).unwrap_or(0));
        wrong.push(finding.found(layout.reserved_gdt).expected(right).fix(fix));
        layout.reserved_gdt = right;
    }
    let mut places = Vec::with_capacity(layout.groups as usize);
    for group in 0..layout.groups {
        let at = layout.desc_at(group, copy);
        let mut place = |taken: &GroupPlaces, code: Code, field: u64, count: u32| {
            if at.saturating_add(32) > layout.at(layout.blocks) {
                return 0;
            }
            let block = image.le32(at + field);
            let first = layout.group_first(group);
            let range = first..first.saturating_add(layout.group_len(group));
            let end = block.saturating_add(count);
            let free =
                || !layout.fixed_meets(group, block, end) && !taken.meets(&layout, block, end);
            if !range.contains(&block) || end > range.end || !free() {
                wrong.push(
                    Finding::new(code)
                        .group(group)
                        .block(block)
                        .fix(Fix::PlaceGroup),
                );
                return 0;
            }
            block
        };
        // Where a bitmap and the table claim the same block, the table is right if it reads like one: a bitmap can be
        // made again, inodes cannot.
        let table = image_word(image, &layout, at + 8);
        let bitmaps = [0, 4].map(|field| image_word(image, &layout, at + field));
        let blocks = table..table.saturating_add(layout.table_blocks);
        let met = bitmaps.iter().any(|bitmap| blocks.contains(bitmap));
        let table_first = met && looks_like_table(image, &layout, group, table);
        let mut found = GroupPlaces::default();
        if table_first {
            found.inode_table = place(&found, Code::GroupInodeTable, 8, layout.table_blocks);
        }
        found.block_bitmap = place(&found, Code::GroupBlockBitmap, 0, 1);
        found.inode_bitmap = place(&found, Code::GroupInodeBitmap, 4, 1);
        if !table_first {
            found.inode_table = place(&found, Code::GroupInodeTable, 8, layout.table_blocks);
        }
        places.push(found);
    }
    suspect_first_table(image, &layout, &mut places, &mut wrong);
    (
        Volume {
            sb,
            sb_at,
            copy,
            layout,
            places,
        },
        wrong,
    )
}

/// A word of a descriptor, or 0 if the descriptor lies outside the file system.
fn image_word(image: &Image, layout: &Layout, at: u64) -> u32 {
    if at + 4 > layout.at(layout.blocks) {
        0
    } else {
        image.le32(at)
    }
}

/// The table of group 0 has no root where another place in the group has one: the descriptor is wrong, not the table.
/// Believing it would mean to repair file contents as if they were inodes.
fn suspect_first_table(
    image: &Image,
    layout: &Layout,
    places: &mut [GroupPlaces],
    wrong: &mut Vec<Finding>,
) {
    let Some(first) = places.first_mut() else {
        return;
    };
    if first.inode_table == 0 || has_root(image, layout, first.inode_table) {
        return;
    }
    let table = first.inode_table..first.inode_table.saturating_add(layout.table_blocks);
    let start = layout.group_first(0);
    let end = start
        .saturating_add(layout.group_len(0))
        .saturating_sub(layout.table_blocks);
    let others = GroupPlaces {
        inode_table: 0,
        ..*first
    };
    let free = |at: u32| {
        let end = at.saturating_add(layout.table_blocks);
        !layout.fixed_meets(0, at, end) && !others.meets(layout, at, end)
    };
    let found = (start..=end).take(4096).find(|&at| {
        at != table.start
            && free(at)
            && has_root(image, layout, at)
            && looks_like_table(image, layout, 0, at)
    });
    if found.is_some() {
        let finding = Finding::new(Code::GroupInodeTable)
            .group(0)
            .block(first.inode_table);
        wrong.push(finding.fix(Fix::PlaceGroup));
        first.inode_table = 0;
    }
}

/// Whether a table from `start` on has a root whose first block begins with its own `.`.
fn has_root(image: &Image, layout: &Layout, start: u32) -> bool {
    let root = image.inode(layout.at(start) + u64::from(layout.inode_size));
    let block = root.i_block[0].get();
    root.i_mode.get() >> 12 == 4
        && root.i_links_count.get() >= 2
        && layout.holds(block)
        && image.le32(layout.at(block)) == 2
        && image.le32(layout.at(block) + 8) & 0xFF == u32::from(b'.')
}

/// Whether the blocks from `start` on can be the inode table of a group: every inode that is alive has a type and a size
/// that fits its blocks, and there is at least one; group 0 has its root.
pub(crate) fn looks_like_table(image: &Image, layout: &Layout, group: u32, start: u32) -> bool {
    let range = layout.group_first(group)
        ..layout
            .group_first(group)
            .saturating_add(layout.group_len(group));
    let last = start.saturating_add(layout.table_blocks.saturating_sub(1));
    if !range.contains(&start) || !range.contains(&last) {
        return false;
    }
    let mut alive = 0;
    for index in 0..layout.inodes_per_group {
        let raw = image.inode(layout.at(start) + u64::from(index) * u64::from(layout.inode_size));
        let root = group == 0 && index == 1;
        let typed = FileType::from_mode(raw.i_mode.get());
        if root && typed != Some(FileType::Directory) {
            return false;
        }
        if raw.i_links_count.get() != 0 {
            let mapped = matches!(typed, Some(FileType::Regular | FileType::Directory));
            let inside = raw.i_block.iter().all(|block| block.get() < layout.blocks);
            if typed.is_none() || (mapped && !inside) {
                return false;
            }
            alive += 1;
        }
    }
    alive > 0
}
