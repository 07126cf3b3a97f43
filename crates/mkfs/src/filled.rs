//! Images with contents: the tree and the options decide everything before the first byte is written.
//!
//! The metadata of the source is read once, and so are its small files, which are kept; the bytes of the others are read
//! twice: to see which blocks are zero, and to copy them. Between the two the whole image is computed: inode numbers,
//! directories, the place of every block. So the smallest size is known exactly, one that is too small is refused before
//! anything happens, and copying is all that is left: in parallel, each byte once.

use std::fmt;

use ext2dax_format::{Compat, Geometry, indirect};

use crate::digest;
use crate::layout::space::Grid;
use crate::layout::{Coverage, HUGE, Layout, Needs};
use crate::options::{Inodes, Options, Refusal};
use crate::plan::first::derived_seed;
use crate::plan::{Plan, Usage};
use crate::source::SourceError;
use crate::source::scan::{self, Holes, Look};
use crate::tree::{Body, Numbered, Tree};

mod fill;
mod huge;
mod inodes;
mod out;

pub use out::Medium;

/// Bytes of free space for which one inode is added, where the size is computed.
const FREE_PER_INODE: u64 = 16 << 10;

/// How large the image should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// As small as the contents and the free space allow, to the block.
    #[default]
    Smallest,
    /// At most so many bytes.
    Bytes(u64),
}

/// Space that must be free in the finished image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Free {
    /// Whatever is left.
    #[default]
    Any,
    /// So many bytes.
    Bytes(u64),
    /// A share of all blocks, in hundredths of a percent.
    Share(u32),
}

/// Where large files start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// On multiples of 2 MiB of the device, on which the image starts at this byte.
    Huge {
        /// The image's first byte on its device.
        base: u64,
    },
    /// Anywhere.
    None,
}

impl Default for Align {
    fn default() -> Self {
        Self::Huge { base: 0 }
    }
}

/// How to make an image from a tree.
#[derive(Clone, Debug, Default)]
pub struct Filling {
    /// What shapes the image. Without a UUID it gets one that follows from the contents.
    pub options: Options,
    /// How large.
    pub size: Size,
    /// How much must be free.
    pub free: Free,
    /// Inodes that must be free; by default one for 16 KiB of the space asked for.
    pub free_inodes: Option<u32>,
    /// Where large files start.
    pub align: Align,
    /// What becomes a hole.
    pub holes: Holes,
    /// Times of files are lowered to this one, in seconds.
    pub latest: Option<i64>,
    /// Whether files with equal attributes outside their inodes have them in one block.
    pub share_attributes: bool,
    /// Large files of which no sample has a block of zeroes are taken to have none: their bytes are read once, when they are
    /// copied, and not before that, too. If it was wrong [`FilledPlan::write`] answers [`FillError::Zeroes`], and the smallest
    /// image is smaller than the plan says. If it was right the image is the same.
    pub hopeful: bool,
    /// Threads that read and copy; 0 stands for 1.
    pub threads: usize,
}

/// Why there is no image.
#[derive(Debug)]
#[non_exhaustive]
pub enum FillError {
    /// The image cannot be as asked.
    Refusal(Refusal),
    /// A file cannot go into it.
    Source(SourceError),
    /// The target cannot be written.
    Target(std::io::Error),
    /// A file has a block of zeroes that no sample showed: see [`Filling::hopeful`].
    Zeroes,
}

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(refusal) => refusal.fmt(f),
            Self::Source(error) => error.fmt(f),
            Self::Target(error) => error.fmt(f),
            Self::Zeroes => f.write_str("a block of zeroes in a file of which samples had none"),
        }
    }
}

impl std::error::Error for FillError {}

impl From<Refusal> for FillError {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl From<SourceError> for FillError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

/// An image with contents, decided to the last block.
#[derive(Debug)]
pub struct FilledPlan {
    plan: Plan,
    tree: Tree,
    numbered: Numbered,
    needs: Needs,
    layout: Layout,
    /// Digest of the tree, if the UUID is to follow from it.
    content: Option<u128>,
    /// Digest of the tree and the bytes of its files, once they have been read.
    digest: Option<u128>,
    latest: Option<i64>,
    threads: usize,
}

impl Filling {
    /// Reads what must be known of the files, and decides everything.
    ///
    /// # Errors
    /// A file that cannot be read or does not fit into ext2; options that exclude each other; a size that is too small,
    /// with what is needed.
    pub fn plan(&self, mut tree: Tree) -> Result<FilledPlan, FillError> {
        Plan::check(&self.options)?;
        let mut options = self.options.clone();
        if options.revision == 0 {
            options.inode_size = 128;
            options.features = Default::default();
        }
        let threads = self.threads.max(1);
        let look = if self.hopeful {
            Look::Samples
        } else {
            Look::All
        };
        tree.settle_root(&options);
        let numbered = Numbered::new(&mut tree, &options)?;
        scan::run(
            &mut tree,
            &numbered.order,
            options.block_size,
            (self.holes, look),
            threads,
        )?;
        let from_contents = options.uuid.is_none();
        let content = digest::of_tree(&tree, &numbered);
        let seed = match (options.hash_seed, options.uuid) {
            (Some(seed), _) => seed,
            (None, Some(uuid)) => derived_seed(uuid),
            (None, None) => digest::seed(content),
        };
        options.hash_seed = Some(seed);
        let indexed = options.features.compat.contains(Compat::DIR_INDEX);
        let seed = indexed.then(|| digest::seed_words(seed));
        let needs = Needs::new(&tree, &numbered, &options, seed, self.share_attributes)?;
        check_block_counts(&tree, &numbered, &needs, &options)?;
        let search = Search {
            filling: self,
            options,
            tree: &tree,
            numbered: &numbered,
            needs: &needs,
        };
        let (plan, layout) = search.run()?;
        Ok(FilledPlan {
            plan,
            numbered,
            needs,
            layout,
            content: from_contents.then_some(content),
            digest: None,
            latest: self.latest,
            threads,
            tree,
        })
    }
}

/// `i_blocks` counts data and indirect blocks in 32 bits: sizes were checked, holes only make that less.
fn check_block_counts(
    tree: &Tree,
    numbered: &Numbered,
    needs: &Needs,
    options: &Options,
) -> Result<(), FillError> {
    let sectors = options.block_size / 512;
    for (&id, need) in numbered.order.iter().zip(&needs.all) {
        if u64::from(need.total()) * u64::from(sectors) > u64::from(u32::MAX) {
            let size = match &tree.node(id).body {
                Body::Regular(contents) => contents.size,
                _ => 0,
            };
            let max = indirect::max_file_size(options.block_size.trailing_zeros());
            let why = crate::source::Why::FileTooLarge(size, max);
            return Err(SourceError::new(&numbered.path(tree, id), why).into());
        }
    }
    Ok(())
}

/// The search for a size: upwards, by no more than what is certainly missing, so that the first size that fits is the
/// smallest.
struct Search<'a> {
    filling: &'a Filling,
    options: Options,
    tree: &'a Tree,
    numbered: &'a Numbered,
    needs: &'a Needs,
}

/// One size, tried.
enum Tried {
    Fits(Box<(Plan, Layout)>),
    /// At least so many blocks are needed.
    Needs(u64),
}

impl Search<'_> {
    fn run(&self) -> Result<(Plan, Layout), FillError> {
        let block_size = u64::from(self.options.block_size);
        let Size::Bytes(len) = self.filling.size else {
            return Ok(self.smallest(self.least())?);
        };
        let blocks = len / block_size;
        match self.attempt(blocks)? {
            Tried::Fits(found) => Ok(*found),
            Tried::Needs(more) => {
                let (plan, layout) = self.smallest(more.max(blocks + 1))?;
                let data = layout
                    .taken
                    .iter()
                    .map(|taken| u64::from(taken.1 - taken.0));
                Err(FillError::Refusal(Refusal::ContentsTooLarge {
                    needed_kib: plan.len_bytes() / 1024,
                    data_kib: data.sum::<u64>() * block_size / 1024,
                    inodes: plan.usage.inodes,
                    has_kib: len / 1024,
                }))
            }
        }
    }

    /// Fewer blocks than this are certainly too few.
    fn least(&self) -> u64 {
        let inodes = u64::from(self.inodes()) * u64::from(self.options.inode_size);
        let tables = inodes.div_ceil(u64::from(self.options.block_size));
        self.needs.total() + tables + 4
    }

    fn smallest(&self, from: u64) -> Result<(Plan, Layout), Refusal> {
        let mut blocks = from;
        loop {
            match self.attempt(blocks)? {
                Tried::Fits(found) => return Ok(*found),
                Tried::Needs(more) => blocks = more.max(blocks + 1),
            }
        }
    }

    /// Reserved inodes, `lost+found` and the files.
    fn inodes(&self) -> u32 {
        let reserved = ext2dax_format::geometry::GOOD_OLD_FIRST_INO;
        reserved + self.numbered.count() - 2
    }

    fn free_bytes(&self, blocks: u64) -> u64 {
        let bytes = blocks * u64::from(self.options.block_size);
        match self.filling.free {
            Free::Any => 0,
            Free::Bytes(free) => free,
            Free::Share(share) => (bytes / 10_000)
                .saturating_mul(u64::from(share))
                .saturating_add((bytes % 10_000 * u64::from(share)).div_ceil(10_000)),
        }
    }

    fn attempt(&self, blocks: u64) -> Result<Tried, Refusal> {
        let block_size = u64::from(self.options.block_size);
        u32::try_from(blocks).map_err(|_| Refusal::TooManyBlocks(blocks))?;
        let free = self.free_bytes(blocks);
        let free_inodes = u64::from(self.filling.free_inodes.unwrap_or(0));
        let by_space = match self.filling.free_inodes {
            None => free / FREE_PER_INODE,
            Some(_) => 0,
        };
        let inodes = u64::from(self.inodes()) + free_inodes + by_space;
        let inodes = u32::try_from(inodes).unwrap_or(u32::MAX);
        let mut options = self.options.clone();
        if self.filling.size == Size::Smallest && options.inodes == Inodes::BySize {
            options.inodes = Inodes::Count(inodes);
        }
        let mut plan = match Plan::shaped(&options, blocks * block_size, inodes) {
            Ok(plan) => plan,
            Err(Refusal::TooSmall { .. } | Refusal::Inodes { .. }) => {
                return Ok(Tried::Needs(blocks + 1));
            }
            Err(refusal) => return Err(refusal),
        };
        let left_off = plan.left_off() > 0;
        if left_off && self.filling.size == Size::Smallest {
            return Ok(Tried::Needs(blocks + 1));
        }
        let geometry = plan.geometry();
        let grid = self.grid(geometry);
        let resize = plan.options().revision > 0
            && geometry.features().compat.contains(Compat::RESIZE_INODE);
        let placed = Layout::new(self.tree, self.numbered, self.needs, &plan, grid, resize);
        let has = u64::from(geometry.blocks_count());
        let layout = match placed {
            Ok(layout) if u64::from(layout.end) <= has => layout,
            Ok(layout) if left_off => {
                return Ok(Tried::Needs(u64::from(layout.end).max(blocks + 1)));
            }
            Ok(layout) => return Ok(Tried::Needs(layout.end.into())),
            Err(missing) => {
                // Not even with a whole last group.
                let all = u64::from(geometry.first_data_block())
                    + u64::from(geometry.groups()) * u64::from(geometry.blocks_per_group());
                return Ok(Tried::Needs((has + missing).max(all + 1)));
            }
        };
        plan.occupy(usage(self.tree, self.numbered, &plan, &layout));
        let is_free = u64::from(plan.superblock().s_free_blocks_count.get());
        let wanted = free.div_ceil(block_size);
        if is_free < wanted {
            return Ok(Tried::Needs(blocks + wanted - is_free));
        }
        Ok(Tried::Fits(Box::new((plan, layout))))
    }

    fn grid(&self, geometry: &Geometry) -> Grid {
        let block_size = u64::from(self.options.block_size);
        let small = |count: u64| u32::try_from(count).unwrap_or(1);
        let base = match self.filling.align {
            Align::Huge { base } if base.is_multiple_of(block_size) => Some(base),
            _ => None,
        };
        // A group without a backup surely has a whole step, or steps are of no use.
        let tables = 2 + geometry.inode_table_blocks();
        let room = geometry.blocks_per_group().saturating_sub(tables);
        let unit = base.map(|_| small(HUGE / block_size));
        Grid {
            unit: unit.filter(|unit| room >= 2 * unit - 1),
            page: base.map_or(1, |_| small((4096 / block_size).max(1))),
            phase: base.map_or(0, |base| small(base % HUGE / block_size)),
        }
    }
}

/// What the files of a layout take, and where their directories are.
fn usage(tree: &Tree, numbered: &Numbered, plan: &Plan, layout: &Layout) -> Usage {
    let first_ino = plan.geometry().first_ino();
    let mut directories: Vec<(u32, u16)> = Vec::new();
    for (place, &id) in (0..).zip(&numbered.order) {
        if matches!(tree.node(id).body, Body::Directory(_)) {
            let group = plan.group_of(Numbered::ino(place, first_ino));
            match directories.last_mut() {
                Some(last) if last.0 == group => last.1 += 1,
                _ => directories.push((group, 1)),
            }
        }
    }
    let mut taken = layout.taken.clone();
    let bad = plan.bad_blocks().iter().map(|&block| (block, block + 1));
    taken.extend(bad);
    if taken.len() > layout.taken.len() {
        taken.sort_unstable();
    }
    Usage {
        taken,
        inodes: first_ino + numbered.count() - 2,
        directories,
    }
}

impl FilledPlan {
    /// Shape, superblock and counts. A UUID that follows from the contents is known after writing only.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Length of the image in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.plan.len_bytes()
    }

    /// How much of the large files can be mapped 2 MiB at a time.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.layout.coverage
    }

    /// Files, directories and links, each counted once; the root and `lost+found` are among them.
    #[must_use]
    pub fn files(&self) -> u32 {
        self.numbered.count()
    }

    /// Bytes of blocks that contents, directories and indirect blocks take.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        let taken = self.layout.taken.iter();
        let blocks: u64 = taken.map(|taken| u64::from(taken.1 - taken.0)).sum();
        blocks << self.plan.geometry().block_bits()
    }

    /// A digest of the contents as they are laid out: equal for equal contents in equal blocks, whatever the label and
    /// the like. XXH3 of 128 bits, which tells contents apart and proves nothing to an adversary. It is known after
    /// writing, and only where the UUID follows from the contents.
    #[must_use]
    pub fn content_digest(&self) -> Option<u128> {
        self.digest
    }

    /// Files whose time was lowered to the latest one that is allowed.
    #[must_use]
    pub fn clamped_times(&self) -> u64 {
        let latest = self.latest.unwrap_or(i64::MAX);
        let times = self.numbered.order.iter();
        let times = times.filter_map(|&id| self.tree.node(id).meta.time);
        let later = |time: &ext2dax_format::Timestamp| {
            time.secs > latest || time.secs == latest && time.nanos > 0
        };
        times.filter(later).count() as u64
    }

    /// Whether the UUID is still to follow from the contents.
    #[must_use]
    pub fn uuid_follows(&self) -> bool {
        self.content.is_some()
    }
}
