//! The plan: every number of the image, decided and checked before the first byte is written.
//!
//! The numbers are those that mke2fs 1.47 chooses for the same options; `tests/it/geometry.rs` compares. Where it gives
//! up on an image of one group with fewer than 50 blocks to spare, this goes on as long as everything fits.

use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;

use ext2dax_format::RawSuperblock;
use ext2dax_format::features::{Compat, Features, Incompat, RoCompat};
use ext2dax_format::geometry::MAX_BLOCKS_PER_GROUP;
use ext2dax_format::{FsBlock, Geometry, GroupNr, RawGroupDesc};
use zerocopy::little_endian::{U16, U32};

use self::bad::Tables;
use self::first::superblock;
use self::shape::{find_shape, needed_kib};
use crate::options::{Options, Refusal, allowed_features};

mod bad;
pub(crate) mod first;
mod shape;

#[cfg(feature = "std")]
pub(crate) use self::shape::lost_found_blocks;
#[cfg(not(feature = "std"))]
use self::shape::lost_found_blocks;

/// An image, decided. `Plan::write` (in `write.rs`) carries it out.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) options: Options,
    pub(crate) geometry: Geometry,
    pub(crate) superblock: RawSuperblock,
    /// Blocks of the files that every image has.
    pub(crate) files: Files,
    /// Everything that files take.
    pub(crate) usage: Usage,
    /// Tables that are not in the usual place, by group.
    moved: Vec<(u32, Tables)>,
    /// Blocks at the end that form no group of their own.
    left_off: u32,
    /// About what an empty image takes.
    needed_kib: u64,
}

/// What files take of blocks and inodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    /// Blocks `start..end`, ascending, none of them of tables.
    pub(crate) taken: Vec<(u32, u32)>,
    /// Inodes in use: those up to this number.
    pub(crate) inodes: u32,
    /// Directories by group, ascending; groups without any are left out.
    pub(crate) directories: Vec<(u32, u16)>,
}

impl Usage {
    /// What of `start..end` is taken.
    pub(crate) fn within(&self, start: u32, end: u32) -> impl Iterator<Item = (u32, u32)> {
        let first = self.taken.partition_point(|taken| taken.1 <= start);
        self.taken[first..]
            .iter()
            .take_while(move |taken| taken.0 < end)
            .map(move |taken| (taken.0.max(start), taken.1.min(end)))
    }
}

/// Blocks of the files that every new image has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// The root directory's one block.
    pub(crate) root: u32,
    /// `lost+found`, in order.
    pub(crate) lost_found: Vec<u32>,
    /// The double indirect block of the resize inode.
    pub(crate) resize: Option<u32>,
    /// Indirect blocks of the file of bad blocks.
    pub(crate) bad: Vec<u32>,
}

impl Files {
    pub(crate) fn blocks(&self) -> impl Iterator<Item = u32> + '_ {
        [self.root]
            .into_iter()
            .chain(self.lost_found.iter().copied())
            .chain(self.resize)
            .chain(self.bad.iter().copied())
    }
}

impl Plan {
    /// Plans an empty image of at most `len` bytes.
    ///
    /// # Errors
    /// [`Refusal`]: what is wrong with the options, or how much room they need.
    pub fn new(options: &Options, len: u64) -> Result<Self, Refusal> {
        let mut plan = Self::shaped(options, len, 0)?;
        let files = place_files(&plan);
        plan.files = files.ok_or(Refusal::TooSmall {
            needed_kib: plan.needed_kib,
            has_kib: len / 1024,
        })?;
        let lost_found = plan.group_of(plan.geometry.first_ino());
        let directories = if lost_found == 0 {
            vec![(0, 2)]
        } else {
            vec![(0, 1), (lost_found, 1)]
        };
        let mut taken: Vec<_> = plan
            .files
            .blocks()
            .chain(plan.bad_blocks().iter().copied())
            .map(|block| (block, block + 1))
            .collect();
        taken.sort_unstable();
        plan.occupy(Usage {
            taken,
            inodes: plan.geometry.first_ino(),
            directories,
        });
        Ok(plan)
    }

    /// Decides about blocks, groups and inodes, at least so many of them; files come after.
    pub(crate) fn shaped(options: &Options, len: u64, inodes: u32) -> Result<Self, Refusal> {
        check(options)?;
        let mut options = options.clone();
        if options.revision == 0 {
            options.inode_size = 128;
            options.features = Features::default();
        }
        let blocks = len / u64::from(options.block_size);
        let blocks = u32::try_from(blocks).map_err(|_| Refusal::TooManyBlocks(blocks))?;
        let shape = find_shape(&options, blocks, inodes)?;
        let superblock = superblock(&options, &shape);
        let needed_kib = needed_kib(&options, &shape);
        // The door that every reader goes through is the last check of the plan.
        let geometry = Geometry::new(&superblock, len).map_err(|_| Refusal::TooSmall {
            needed_kib,
            has_kib: len / 1024,
        })?;
        let mut plan = Self {
            options,
            geometry,
            superblock,
            files: Files::default(),
            usage: Usage::default(),
            moved: Vec::new(),
            left_off: blocks - shape.blocks,
            needed_kib,
        };
        if !plan.options.bad_blocks.is_empty() {
            plan.avoid_bad_blocks()?;
        }
        Ok(plan)
    }

    /// Checks options alone.
    #[cfg(feature = "std")]
    pub(crate) fn check(options: &Options) -> Result<(), Refusal> {
        check(options)
    }

    /// The group of an inode.
    pub(crate) fn group_of(&self, ino: u32) -> u32 {
        (ino - 1) / self.geometry.inodes_per_group()
    }

    /// Counts what files take.
    pub(crate) fn occupy(&mut self, usage: Usage) {
        self.usage = usage;
        self.count();
    }

    /// Free counts and overhead, from the layout.
    fn count(&mut self) {
        let geometry = &self.geometry;
        let overhead: u32 = geometry
            .all_groups()
            .map(|group| geometry.group_overhead(group))
            .sum();
        let free: u32 = geometry
            .all_groups()
            .map(|group| self.group_free(group))
            .sum();
        self.superblock.s_overhead_clusters = U32::new(overhead + geometry.first_data_block());
        self.superblock.s_free_blocks_count = U32::new(free);
        self.superblock.s_free_inodes_count = U32::new(geometry.inodes_count() - self.usage.inodes);
    }

    /// The shape of the image.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The options, with what was left open decided.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The primary superblock as it will stand.
    #[must_use]
    pub fn superblock(&self) -> &RawSuperblock {
        &self.superblock
    }

    /// Length of the image in bytes: whole blocks, at most what was given.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.geometry.len_bytes()
    }

    /// Blocks at the end that are too few for a group of their own and stay unused.
    #[must_use]
    pub fn left_off(&self) -> u32 {
        self.left_off
    }

    /// Block of the root directory.
    ///
    /// # Panics
    /// Never: the plan was checked.
    #[must_use]
    pub fn root_block(&self) -> FsBlock {
        self.geometry
            .fs_block(self.files.root)
            .expect("placed inside a group")
    }

    /// Blocks that hold backups of the superblock.
    #[must_use]
    pub fn backups(&self) -> Vec<u32> {
        let geometry = &self.geometry;
        let groups = geometry
            .all_groups()
            .skip(1)
            .filter(|&group| geometry.group_has_super(group));
        groups
            .map(|group| geometry.group_first_block(group).get())
            .collect()
    }

    /// Where the tables of a group lie, in the order in which mke2fs puts them.
    pub(crate) fn desc(&self, group: GroupNr) -> RawGroupDesc {
        let geometry = &self.geometry;
        let tables = self.tables(group);
        let first_free = (group.get() * geometry.inodes_per_group()).max(self.usage.inodes);
        let end = (group.get() + 1) * geometry.inodes_per_group();
        let directories = &self.usage.directories;
        let dirs = directories.binary_search_by_key(&group.get(), |of| of.0);
        let dirs = dirs.map_or(0, |nr| directories[nr].1);
        RawGroupDesc {
            bg_block_bitmap: U32::new(tables.block_bitmap),
            bg_inode_bitmap: U32::new(tables.inode_bitmap),
            bg_inode_table: U32::new(tables.inode_table),
            bg_free_blocks_count: count16(self.group_free(group)),
            bg_free_inodes_count: count16(end.saturating_sub(first_free)),
            bg_used_dirs_count: U16::new(dirs),
            ..RawGroupDesc::default()
        }
    }

    fn group_free(&self, group: GroupNr) -> u32 {
        let all = self.geometry.group_run(group);
        let taken = self.usage.within(all.start.get(), all.end());
        let taken: u32 = taken.map(|(start, end)| end - start).sum();
        all.len - self.geometry.group_overhead(group) - taken
    }
}

fn count16(count: u32) -> U16 {
    U16::new(u16::try_from(count).expect("groups have at most 65,528 blocks and inodes"))
}

fn check(options: &Options) -> Result<(), Refusal> {
    let block_size = options.block_size;
    if !block_size.is_power_of_two() || !(1024..=65_536).contains(&block_size) {
        return Err(Refusal::BlockSize(u64::from(block_size)));
    }
    if options.revision > 1 {
        return Err(Refusal::Revision(options.revision));
    }
    let found = options.inode_size;
    // s_inode_size has 16 bits.
    let max = block_size.min(32_768);
    if !found.is_power_of_two() || found < 128 || found > max {
        return Err(Refusal::InodeSize { found, max });
    }
    let max = (block_size * 8).min(MAX_BLOCKS_PER_GROUP);
    if let Some(found) = options.blocks_per_group
        && (!found.is_multiple_of(8) || !(256..=max).contains(&found))
    {
        return Err(Refusal::BlocksPerGroup { found, max });
    }
    if options.reserved_share > 5000 {
        return Err(Refusal::ReservedShare(options.reserved_share));
    }
    if let Some(pair) = options
        .bad_blocks
        .windows(2)
        .find(|pair| pair[0] >= pair[1])
    {
        return Err(Refusal::BadBlock(pair[1]));
    }
    if options.label.len() > 16 {
        return Err(Refusal::TooLong {
            what: "the label",
            max: 16,
        });
    }
    if options.last_mounted.len() > 63 {
        return Err(Refusal::TooLong {
            what: "the last mounted directory",
            max: 63,
        });
    }
    check_features(options)
}

fn check_features(options: &Options) -> Result<(), Refusal> {
    let Features {
        compat,
        incompat,
        ro_compat,
    } = options.features;
    let allowed = allowed_features();
    let foreign = Features {
        compat: compat.difference(allowed.compat),
        incompat: incompat.difference(allowed.incompat),
        ro_compat: ro_compat.difference(allowed.ro_compat),
    };
    if foreign != Features::default() {
        return Err(Refusal::Feature {
            name: foreign.names(",").to_string(),
            known: true,
        });
    }
    if options.revision == 0 {
        return Ok(());
    }
    if compat.contains(Compat::RESIZE_INODE) {
        if incompat.contains(Incompat::META_BG) {
            return Err(Refusal::Together(
                "-O meta_bg excludes resize_inode: add ^resize_inode",
            ));
        }
        if !ro_compat.contains(RoCompat::SPARSE_SUPER) && !compat.contains(Compat::SPARSE_SUPER2) {
            return Err(Refusal::Together(
                "-O resize_inode needs sparse_super or sparse_super2: add ^resize_inode",
            ));
        }
    } else if options.resize_to.is_some() {
        return Err(Refusal::Together(
            "-E resize needs the resize_inode feature",
        ));
    }
    if ro_compat.contains(RoCompat::EXTRA_ISIZE) && options.inode_size == 128 {
        return Err(Refusal::Together(
            "-O extra_isize needs inodes of more than 128 bytes: see -I",
        ));
    }
    Ok(())
}

/// Finds blocks for root, `lost+found`, the resize inode and the file of bad blocks: the first free ones. `None` if there are not enough.
fn place_files(plan: &Plan) -> Option<Files> {
    let (options, geometry) = (&plan.options, &plan.geometry);
    let mut free = plan.free_space().flat_map(|(start, end)| start..end);
    let root = free.next()?;
    let count = lost_found_blocks(geometry.block_size()) as usize;
    let lost_found: Vec<u32> = free.by_ref().take(count).collect();
    if lost_found.len() < count {
        return None;
    }
    let wants_resize =
        options.revision > 0 && geometry.features().compat.contains(Compat::RESIZE_INODE);
    let resize = if wants_resize {
        Some(free.next()?)
    } else {
        None
    };
    let indirect = plan.bad_indirect() as usize;
    let bad: Vec<u32> = free.take(indirect).collect();
    (bad.len() == indirect).then_some(Files {
        root,
        lost_found,
        resize,
        bad,
    })
}
