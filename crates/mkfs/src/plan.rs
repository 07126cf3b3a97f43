//! The plan: every number of the image, decided and checked before the first byte is written.
//!
//! The numbers are those that mke2fs 1.47 chooses for the same options; `tests/it/geometry.rs` compares. Where it gives
//! up on an image of one group with fewer than 50 blocks to spare, this goes on as long as everything fits.

use ext2dax_format::RawSuperblock;
use ext2dax_format::features::{Compat, Features, Incompat, RoCompat};
use ext2dax_format::geometry::MAX_BLOCKS_PER_GROUP;
use ext2dax_format::{FsBlock, Geometry, GroupNr, RawGroupDesc, Run};
use zerocopy::little_endian::{U16, U32};

use self::first::superblock;
use self::shape::{find_shape, lost_found_blocks, needed_kib};
use crate::options::{Options, Refusal, allowed_features};

mod first;
mod shape;

/// An image, decided. `Plan::write` (in `write.rs`) carries it out.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) options: Options,
    pub(crate) geometry: Geometry,
    pub(crate) superblock: RawSuperblock,
    /// Blocks of group 0 and perhaps later ones that files take: see [`Files`].
    pub(crate) files: Files,
    /// Blocks at the end that form no group of their own.
    left_off: u32,
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
}

impl Files {
    pub(crate) fn blocks(&self) -> impl Iterator<Item = u32> + '_ {
        [self.root]
            .into_iter()
            .chain(self.lost_found.iter().copied())
            .chain(self.resize)
    }
}

impl Plan {
    /// Plans an image of at most `len` bytes.
    ///
    /// # Errors
    /// [`Refusal`]: what is wrong with the options, or how much room they need.
    pub fn new(options: &Options, len: u64) -> Result<Self, Refusal> {
        check(options)?;
        let mut options = options.clone();
        if options.revision == 0 {
            options.inode_size = 128;
            options.features = Features::default();
        }
        let blocks = len / u64::from(options.block_size);
        let blocks = u32::try_from(blocks).map_err(|_| Refusal::TooManyBlocks(blocks))?;
        let shape = find_shape(&options, blocks)?;
        let left_off = blocks - shape.blocks;
        let superblock = superblock(&options, &shape);
        let too_small = || Refusal::TooSmall {
            needed_kib: needed_kib(&options, &shape),
            has_kib: len / 1024,
        };
        // The door that every reader goes through is the last check of the plan.
        let geometry = Geometry::new(&superblock, len).map_err(|_| too_small())?;
        let files = place_files(&options, &geometry).ok_or_else(too_small)?;
        let mut plan = Self {
            options,
            geometry,
            superblock,
            files,
            left_off,
        };
        plan.count();
        Ok(plan)
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
        self.superblock.s_free_inodes_count =
            U32::new(geometry.inodes_count() - geometry.first_ino());
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
        let block_bitmap =
            geometry.group_first_block(group).get() + geometry.group_super_blocks(group);
        let first_free = (group.get() * geometry.inodes_per_group()).max(geometry.first_ino());
        let end = (group.get() + 1) * geometry.inodes_per_group();
        // lost+found is inode `first_ino`, and the root directory the only other one.
        let dirs = u16::from(group == GroupNr::FIRST) + u16::from(self.lost_found_group() == group);
        RawGroupDesc {
            bg_block_bitmap: U32::new(block_bitmap),
            bg_inode_bitmap: U32::new(block_bitmap + 1),
            bg_inode_table: U32::new(block_bitmap + 2),
            bg_free_blocks_count: count16(self.group_free(group)),
            bg_free_inodes_count: count16(end.saturating_sub(first_free)),
            bg_used_dirs_count: U16::new(dirs),
            ..RawGroupDesc::default()
        }
    }

    fn lost_found_group(&self) -> GroupNr {
        let ino = self
            .geometry
            .ino(self.geometry.first_ino())
            .expect("checked by Geometry");
        self.geometry.locate_ino(ino).0
    }

    fn group_free(&self, group: GroupNr) -> u32 {
        let all = self.geometry.group_run(group);
        let of_files = self
            .files
            .blocks()
            .filter(|&block| block >= all.start.get() && block < all.end())
            .count();
        let of_files = u32::try_from(of_files).expect("a dozen blocks");
        all.len - self.geometry.group_overhead(group) - of_files
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

/// Finds blocks for root, `lost+found` and the resize inode: the first free ones. `None` if there are not enough.
fn place_files(options: &Options, geometry: &Geometry) -> Option<Files> {
    let mut free = geometry.all_groups().flat_map(|group| {
        let overhead = geometry.group_overhead(group);
        let run: Run = geometry.group_run(group).split(overhead).1;
        run.iter().map(|block| block.get())
    });
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
    Some(Files {
        root,
        lost_found,
        resize,
    })
}
