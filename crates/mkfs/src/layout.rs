//! Which block holds what: computed from the tree and the geometry alone, lowest blocks first, before anything is
//! written. The same tree in the same geometry is always laid out the same way, and a longer image changes nothing, so
//! the end of the last block in use is the smallest size.

use std::collections::HashMap;

use ext2dax_format::htree::Seed;

use crate::attributes::{self, Split};
use crate::few::Few;
use crate::options::Options;
use crate::plan::{Plan, lost_found_blocks};
use crate::source::{Blocks, SourceError};
use crate::tree::{Body, NodeId, Numbered, Tree};

pub(crate) mod branch;
pub(crate) mod names;
pub(crate) mod space;

pub(crate) use branch::Branches;
use names::Packing;
use space::{Gap, Grid, LargeSpace};

/// The most files that use one attribute block: Linux makes no more, and checkers accept no more.
const MAX_USERS: u32 = 1024;
/// Bytes that one entry of a page table can map.
pub(crate) const HUGE: u64 = 2 << 20;

/// What a file takes, whatever the geometry.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    /// Of a directory, how its names are packed.
    pub(crate) packing: Option<Packing>,
    /// Where its attributes go.
    pub(crate) attributes: Split,
    /// The place of the file whose attribute block it uses, too.
    pub(crate) shares: Option<u32>,
    /// Files that use its attribute block.
    pub(crate) users: u32,
    /// Indirect blocks.
    indirect: u32,
    /// Blocks of contents.
    blocks: u32,
}

/// What all files take, in the order of their inodes.
#[derive(Debug)]
pub(crate) struct Needs {
    pub(crate) all: Vec<Need>,
    block_size: u32,
    /// Blocks of everything together.
    total: u64,
}

impl Need {
    /// Blocks of contents.
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// All blocks, as `i_blocks` counts them.
    pub(crate) fn total(&self) -> u32 {
        self.blocks + self.indirect + u32::from(self.attributes.block)
    }
}

impl Needs {
    /// Needs blocks known of every file. With a seed, large directories get an index.
    ///
    /// # Errors
    /// The first file whose attributes do not fit.
    pub(crate) fn new(
        tree: &Tree,
        numbered: &Numbered,
        options: &Options,
        seed: Option<Seed>,
        share: bool,
    ) -> Result<Self, SourceError> {
        let mut shared = HashMap::new();
        let addr_bits = options.block_size.trailing_zeros() - 2;
        let mut all = Vec::with_capacity(numbered.order.len());
        let mut total = 0;
        for (place, &id) in (0..).zip(&numbered.order) {
            let node = tree.node(id);
            let split = attributes::split(&node.attributes, options.inode_size, options.block_size);
            let split = split.map_err(|why| SourceError::new(&numbered.path(tree, id), why))?;
            let mut need = Need {
                packing: None,
                attributes: split,
                shares: None,
                users: 1,
                indirect: 0,
                blocks: 0,
            };
            match &node.body {
                Body::Directory(names) => {
                    // fsck puts files into lost+found when it may not allocate, so that has room and no index.
                    let is_lost_found = place == 1;
                    let seed = seed.filter(|_| !is_lost_found);
                    let names = names.keys().map(|name| &name[..]);
                    let packing = Packing::new(names, options.block_size, seed);
                    need.blocks = packing.blocks();
                    if is_lost_found {
                        need.blocks = need.blocks.max(lost_found_blocks(options.block_size));
                    }
                    need.packing = Some(packing);
                }
                Body::Regular(contents) => {
                    need.blocks = contents.blocks.iter().map(|blocks| blocks.len).sum();
                }
                Body::Symlink(target) => {
                    need.blocks = u32::from(target.len() > ext2dax_format::inode::FAST_SYMLINK_MAX);
                }
                Body::Device(..) | Body::Fifo | Body::Socket => {}
            }
            let runs = runs_of(tree, id, &need);
            need.indirect = Branches::new(runs.as_ref(), addr_bits).count();
            if share && let Some(key) = split.block_key(&node.attributes) {
                need.shares = share_block(&mut all, &mut shared, key, place);
            }
            total += u64::from(need.total()) - u64::from(need.shares.is_some());
            all.push(need);
        }
        Ok(Self {
            all,
            block_size: options.block_size,
            total,
        })
    }

    /// Blocks that everything takes together.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

/// The file that has an attribute block with these contents already, if it can have another user; else the file at
/// `place` is the one for those after it.
fn share_block(
    all: &mut [Need],
    shared: &mut HashMap<Vec<u8>, u32>,
    key: Vec<u8>,
    place: u32,
) -> Option<u32> {
    let first = *shared.entry(key.clone()).or_insert(place);
    match all.get_mut(first as usize) {
        Some(need) if need.users < MAX_USERS => {
            need.users += 1;
            Some(first)
        }
        Some(_) => {
            shared.insert(key, place);
            None
        }
        // It is this file itself.
        None => None,
    }
}

/// The blocks of a file that are no holes.
pub(crate) fn runs_of<'a>(tree: &'a Tree, id: NodeId, need: &Need) -> Runs<'a> {
    match &tree.node(id).body {
        Body::Regular(contents) => Runs::Many(&contents.blocks),
        _ => Runs::One([Blocks {
            start: 0,
            len: need.blocks,
        }]),
    }
}

/// Blocks of a file, borrowed or the one run of a directory.
pub(crate) enum Runs<'a> {
    Many(&'a [Blocks]),
    One([Blocks; 1]),
}

impl AsRef<[Blocks]> for Runs<'_> {
    fn as_ref(&self) -> &[Blocks] {
        match self {
            Self::Many(blocks) => blocks,
            Self::One([Blocks { len: 0, .. }]) => &[],
            Self::One(blocks) => blocks,
        }
    }
}

/// A run of a file on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First block of the file.
    pub(crate) logical: u32,
    /// First block of the image.
    pub(crate) physical: u32,
    pub(crate) len: u32,
}

impl Extent {
    /// The file block behind the last one.
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.logical) + u64::from(self.len)
    }
}

/// Where a file lies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placed {
    /// Ascending file blocks.
    pub(crate) extents: Few<Extent>,
    /// Indirect blocks, in the order of [`Branches`].
    pub(crate) indirect: Vec<u32>,
    /// The attribute block, or 0.
    pub(crate) attributes: u32,
}

/// How much of the large files lies so that 2 MiB can be mapped at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Files of 2 MiB and more.
    pub large_files: u64,
    /// Bytes in their blocks.
    pub large_bytes: u64,
    /// How many of those lie in whole aligned steps of 2 MiB.
    pub aligned_bytes: u64,
}

/// Where everything lies.
#[derive(Debug)]
pub(crate) struct Layout {
    /// In the order of inodes.
    pub(crate) files: Vec<Placed>,
    /// The double indirect block of the resize inode.
    pub(crate) resize: Option<u32>,
    /// Indirect blocks of the file of bad blocks.
    pub(crate) bad: Vec<u32>,
    /// Blocks in use by files, ascending.
    pub(crate) taken: Vec<Gap>,
    /// The block behind the last one in use.
    pub(crate) end: u32,
    pub(crate) coverage: Coverage,
}

impl Layout {
    /// Places all files in what the tables leave of a shape, as if the last group were as long as the others.
    ///
    /// # Errors
    /// Blocks that found no place.
    pub(crate) fn new(
        tree: &Tree,
        numbered: &Numbered,
        needs: &Needs,
        plan: &Plan,
        grid: Grid,
        resize: bool,
    ) -> Result<Self, u64> {
        let gaps = plan.free_space_of_whole_groups();
        let mut placing = Placing {
            tree,
            numbered,
            needs,
            files: vec![Placed::default(); needs.all.len()],
            coverage: Coverage::default(),
            missing: 0,
        };
        let mut large = LargeSpace::new(&gaps, grid);
        if let Some(unit) = grid.unit {
            placing.large(&mut large, unit);
        }
        let mut space = large.finish();
        placing.small(&mut space, 0..2);
        // Behind lost+found, where mke2fs has it, too.
        let resize = if resize { space.take_one() } else { None };
        let bad: Vec<u32> = (0..plan.bad_indirect())
            .map_while(|_| space.take_one())
            .collect();
        placing.missing += u64::from(plan.bad_indirect()) - bad.len() as u64;
        placing.small(&mut space, 2..needs.all.len());
        let Placing {
            files,
            coverage,
            missing,
            ..
        } = placing;
        if missing > 0 {
            return Err(missing);
        }
        let taken = complement(&gaps, &space.free());
        Ok(Self {
            files,
            resize,
            bad,
            end: taken.last().map_or(0, |gap| gap.1),
            taken,
            coverage,
        })
    }
}

/// What of `all` is not in `free`; both ascending, each of `free` inside one of `all`.
fn complement(all: &[Gap], free: &[Gap]) -> Vec<Gap> {
    let mut free = free.iter().peekable();
    let mut taken: Vec<Gap> = Vec::new();
    for &(start, end) in all {
        let mut at = start;
        let mut take = |from: u32, to: u32| {
            if from < to {
                taken.push((from, to));
            }
        };
        while let Some(&&(from, to)) = free.peek()
            && from < end
        {
            take(at, from);
            at = to;
            free.next();
        }
        take(at, end);
    }
    taken
}

struct Placing<'a> {
    tree: &'a Tree,
    numbered: &'a Numbered,
    needs: &'a Needs,
    files: Vec<Placed>,
    coverage: Coverage,
    missing: u64,
}

impl Placing<'_> {
    /// Whole steps of 2 MiB of large files, each with what follows it up to the next hole or the end.
    fn large(&mut self, space: &mut LargeSpace<'_>, unit: u32) {
        let block_size = u64::from(self.needs.block_size);
        for (placed, &id) in self.files.iter_mut().zip(&self.numbered.order) {
            let Body::Regular(contents) = &self.tree.node(id).body else {
                continue;
            };
            if contents.size < HUGE {
                continue;
            }
            self.coverage.large_files += 1;
            for blocks in &contents.blocks {
                self.coverage.large_bytes += u64::from(blocks.len) * block_size;
                let Some((start, end)) = whole_steps(*blocks, unit) else {
                    continue;
                };
                let steps = u64::from((end - start) / unit * unit);
                self.coverage.aligned_bytes += steps * block_size;
                let mut logical = start;
                let taken = space.take(end - start, unit, |(from, to)| {
                    placed.extents.push(Extent {
                        logical,
                        physical: from,
                        len: to - from,
                    });
                    logical += to - from;
                });
                self.missing += u64::from(taken.err().unwrap_or(0));
            }
        }
    }

    /// Everything else of some files.
    fn small(&mut self, space: &mut space::Space, which: std::ops::Range<usize>) {
        for nr in which {
            let (id, need) = (self.numbered.order[nr], &self.needs.all[nr]);
            let shared = need
                .shares
                .map(|first| self.files[first as usize].attributes);
            let placed = &mut self.files[nr];
            let mut missing = 0;
            let mut one = |space: &mut space::Space| {
                space.take_one().unwrap_or_else(|| {
                    missing += 1;
                    0
                })
            };
            if need.attributes.block {
                placed.attributes = shared.unwrap_or_else(|| one(space));
            }
            let steps = std::mem::take(&mut placed.extents);
            let mut rest = 0;
            for_rest(
                runs_of(self.tree, id, need).as_ref(),
                &steps,
                |start, len| {
                    let mut logical = start;
                    let taken = space.take(len, start, |(from, to)| {
                        placed.extents.push(Extent {
                            logical,
                            physical: from,
                            len: to - from,
                        });
                        logical += to - from;
                    });
                    rest += u64::from(taken.err().unwrap_or(0));
                },
            );
            if !steps.is_empty() {
                placed.extents.extend(steps.iter().copied());
                placed.extents.sort_unstable_by_key(|extent| extent.logical);
            }
            placed.indirect = (0..need.indirect).map(|_| one(space)).collect();
            self.missing += missing + rest;
        }
    }
}

/// From the first whole step of 2 MiB to the end of a run, if there is a whole step.
fn whole_steps(blocks: Blocks, unit: u32) -> Option<(u32, u32)> {
    let start = u64::from(blocks.start).next_multiple_of(u64::from(unit));
    let end = blocks.end();
    if start + u64::from(unit) > end {
        return None;
    }
    Some((u32::try_from(start).ok()?, u32::try_from(end).ok()?))
}

/// The parts of runs that are not in `placed`, whose extents each end with a run.
fn for_rest(runs: &[Blocks], placed: &[Extent], mut each: impl FnMut(u32, u32)) {
    let mut placed = placed.iter().peekable();
    for run in runs {
        let mut len = run.len;
        if let Some(first) = placed.next_if(|extent| u64::from(extent.logical) < run.end()) {
            len = first.logical - run.start;
            while placed
                .next_if(|extent| u64::from(extent.logical) < run.end())
                .is_some()
            {}
        }
        if len > 0 {
            each(run.start, len);
        }
    }
}
