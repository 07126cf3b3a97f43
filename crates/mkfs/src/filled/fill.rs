//! Writing what was planned: every byte's place is known, so threads share the work without asking each other.

use std::io;
use std::ops::Range;
use std::sync::Mutex;

use ext2dax_format::{FileType, GroupNr};
use zerocopy::IntoBytes as _;
use zerocopy::little_endian::U32;

use super::huge::Huge;
use super::out::{Copying, Medium, Out};
use super::{FillError, FilledPlan};
use crate::layout::branch::Branch;
use crate::layout::names::{Name, Packing, Writer};
use crate::layout::{Branches, Extent, runs_of};
use crate::source::{Contents, Open, scan};
use crate::tree::{Body, NodeId};
use crate::write::{Before, Image, Progress};
use crate::{Plan, digest, parallel, plan};

/// Files that one step of a thread writes.
const FILES: u32 = 64;
/// Inodes that one step of a thread writes.
const INODES: u32 = 512;
/// Blocks that one step of a thread copies; files with more are shared by several threads. In bytes.
const PIECE: u64 = 4 << 20;

/// A step of a thread.
enum Step {
    /// A part of a large file.
    Piece { place: u32, extent: Extent },
    /// Files with everything that belongs to them, but for the data of large ones.
    Files(Range<u32>),
    /// Inodes of a group, from one on.
    Inodes { first: u32, count: u32 },
}

impl From<io::Error> for FillError {
    fn from(error: io::Error) -> Self {
        Self::Target(error)
    }
}

impl Plan {
    /// [`Plan::write_with`] to a file, where a file system that is full is an error.
    ///
    /// # Errors
    /// As [`Plan::write_with`], and what the system says.
    pub fn write_to(
        &self,
        medium: &Medium<'_>,
        before: Before,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<(), FillError> {
        let write = |at, bytes: &[u8]| medium.write(at, bytes).map_err(FillError::Target);
        self.write_around(medium.pmem(), &write, before, &mut progress, |image, _| {
            image.write_files()?;
            Ok(None)
        })
    }
}

impl Plan {
    /// Writes superblocks and group descriptors and nothing else, and says in them that there are errors: inode tables,
    /// bitmaps and files of an old file system stay, for fsck to find.
    ///
    /// # Errors
    /// As [`Plan::write_to`].
    pub fn write_super_only(&self, medium: &Medium<'_>) -> Result<(), FillError> {
        let write = |at, bytes: &[u8]| medium.write(at, bytes).map_err(FillError::Target);
        self.write_supers(medium.pmem(), &write)
    }
}

impl FilledPlan {
    /// Writes the image. The UUID is known afterwards: see [`FilledPlan::plan`].
    ///
    /// # Errors
    /// A file that changed or cannot be read any more, a target that fails: then there is no file system. The target
    /// may have been refused before the first byte.
    pub fn write(
        &mut self,
        medium: &Medium<'_>,
        before: Before,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<(), FillError> {
        let (mut uuid, mut digest) = (None, None);
        let this = &*self;
        let write = |at, bytes: &[u8]| medium.write(at, bytes).map_err(FillError::Target);
        let written = this.plan.write_around(
            medium.pmem(),
            &write,
            before,
            &mut progress,
            |image, progress| {
                let pieces = this.fill(image, *medium, progress)?;
                digest = this.content.map(|tree| digest::of_all(tree, &pieces));
                uuid = digest.map(|digest| this.content_uuid(digest));
                Ok::<_, FillError>(uuid)
            },
        );
        written?;
        self.digest = digest;
        if let Some(uuid) = uuid {
            self.plan.superblock.s_uuid = uuid;
        }
        Ok(())
    }

    /// The UUID of what was asked for and what was read.
    fn content_uuid(&self, digest: u128) -> [u8; 16] {
        let geometry = self.plan.geometry();
        let mut what = plan::first::shaping(self.plan.options(), geometry.blocks_count());
        what.extend_from_slice(&digest.to_le_bytes());
        plan::first::named_uuid(&what)
    }

    /// All files. Returns the digests of their bytes, in the order of the files.
    fn fill(
        &self,
        image: &Image<'_, FillError>,
        medium: Medium<'_>,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Vec<u128>, FillError> {
        let steps = self.steps();
        let all = steps.len() as u64;
        let progress = Mutex::new((0, progress));
        let huge = match image.was_zero() {
            true => Huge::below(medium.pmem(), &self.written(), self.threads),
            false => Huge::default(),
        };
        let out = || Out::new(medium, &huge);
        let found = parallel::try_map(steps.len(), self.threads, out, |out, nr| {
            let mut digests = Vec::new();
            match &steps[nr] {
                Step::Piece { place, extent } => {
                    self.copy(*place, std::slice::from_ref(extent), out, &mut digests)?;
                }
                Step::Files(places) => {
                    for place in places.clone() {
                        self.file(place, out, &mut digests)?;
                    }
                }
                Step::Inodes { first, count } => self.inodes(image, *first, *count, out)?,
            }
            out.flush()?;
            if let Ok(mut progress) = progress.lock() {
                progress.0 += 1;
                let done = progress.0;
                (progress.1)(Progress { done, all });
            }
            Ok::<_, FillError>(digests)
        })?;
        if let Some(block) = self.layout.resize {
            image.write_resize_inode(block)?;
        }
        image.write_bad_blocks(&self.layout.bad)?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Bytes that will be written without a gap: contents, and tables as far as inodes are used. Ascending, apart from each other.
    fn written(&self) -> Vec<Range<u64>> {
        let geometry = self.plan.geometry();
        let mut all = self.layout.taken.clone();
        let full = self.plan.usage.inodes / geometry.inodes_per_group();
        let mut groups = geometry.all_groups();
        let first = groups.by_ref().take(full as usize);
        all.extend(first.flat_map(|group| self.plan.table_runs(group)));
        if let Some(group) = groups.next() {
            let rest = self.plan.usage.inodes % geometry.inodes_per_group();
            let bytes = u64::from(rest) * u64::from(geometry.inode_size());
            let blocks = u32::try_from(bytes >> geometry.block_bits()).expect("less than a table");
            let table = self.plan.desc(group).bg_inode_table.get();
            all.push((table, table + blocks));
        }
        all.sort_unstable();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (from, to) in all {
            let (from, to) = (self.offset(from), self.offset(to));
            match ranges.last_mut() {
                Some(last) if last.end == from => last.end = to,
                _ => ranges.push(from..to),
            }
        }
        ranges
    }

    fn is_large(&self, place: u32) -> bool {
        let need = &self.needs.all[place as usize];
        u64::from(need.blocks()) << self.plan.geometry().block_bits() > PIECE
    }

    /// The work, large pieces first.
    fn steps(&self) -> Vec<Step> {
        let geometry = self.plan.geometry();
        let piece = u32::try_from(PIECE >> geometry.block_bits()).expect("at most 4,096");
        let count = self.numbered.count();
        let mut steps = Vec::new();
        for place in (0..count).filter(|&place| self.is_large(place)) {
            if self.body(place).kind() != FileType::Regular {
                continue;
            }
            for extent in &self.layout.files[place as usize].extents {
                let end = extent.logical + extent.len;
                let mut logical = extent.logical;
                while logical < end {
                    let to = (logical - logical % piece).saturating_add(piece).min(end);
                    steps.push(Step::Piece {
                        place,
                        extent: Extent {
                            logical,
                            physical: extent.physical + logical - extent.logical,
                            len: to - logical,
                        },
                    });
                    logical = to;
                }
            }
        }
        let batches = (0..count).step_by(FILES as usize);
        steps.extend(batches.map(|first| Step::Files(first..(first + FILES).min(count))));
        let (per_group, used) = (geometry.inodes_per_group(), self.plan.usage.inodes);
        let mut first = 1;
        while first <= used {
            let group_end = (first - 1) / per_group * per_group + per_group;
            let count = INODES.min(group_end + 1 - first).min(used + 1 - first);
            steps.push(Step::Inodes { first, count });
            first += count;
        }
        steps
    }

    fn body(&self, place: u32) -> &Body {
        &self.tree.node(self.numbered.order[place as usize]).body
    }

    fn offset(&self, block: u32) -> u64 {
        u64::from(block) << self.plan.geometry().block_bits()
    }

    fn block_size(&self) -> usize {
        self.plan.geometry().block_size() as usize
    }

    /// A run of inodes of one group.
    fn inodes(
        &self,
        image: &Image<'_, FillError>,
        first: u32,
        count: u32,
        out: &mut Out<'_>,
    ) -> Result<(), FillError> {
        let geometry = self.plan.geometry();
        let size = geometry.inode_size();
        let (group, index) = geometry.locate_ino(geometry.ino(first).expect("inside the tables"));
        let at = self.table(image, group) + u64::from(index) * u64::from(size);
        for nr in 0..count {
            let Some(place) = self.place_of(first + nr) else {
                continue;
            };
            let at = at + u64::from(nr) * u64::from(size);
            self.inode(place, out.room(at, size as usize)?);
        }
        Ok(())
    }

    fn table(&self, image: &Image<'_, FillError>, group: GroupNr) -> u64 {
        image.offset(self.plan.desc(group).bg_inode_table.get())
    }

    /// Everything of a file but its inode, and but the data of a large one.
    fn file(
        &self,
        place: u32,
        out: &mut Out<'_>,
        digests: &mut Vec<u128>,
    ) -> Result<(), FillError> {
        let id = self.numbered.order[place as usize];
        let node = self.tree.node(id);
        let (need, placed) = (
            &self.needs.all[place as usize],
            &self.layout.files[place as usize],
        );
        if placed.attributes != 0 && need.shares.is_none() {
            let block = out.room(self.offset(placed.attributes), self.block_size())?;
            need.attributes
                .write_block(&node.attributes, need.users, block);
        }
        match &node.body {
            Body::Directory(_) => self.directory(place, id, out)?,
            Body::Symlink(target) => {
                if let Some(extent) = placed.extents.first() {
                    let block = out.room(self.offset(extent.physical), self.block_size())?;
                    block[..target.len()].copy_from_slice(target);
                }
            }
            Body::Regular(_) if !self.is_large(place) => {
                self.copy(place, &placed.extents, out, digests)?;
            }
            _ => {}
        }
        self.branches(place, id, out)
    }

    fn directory(&self, place: u32, id: NodeId, out: &mut Out<'_>) -> Result<(), FillError> {
        let name = |name, id| Name {
            name,
            ino: self.ino(self.numbered.place(id)),
            kind: self.tree.node(id).body.kind(),
        };
        let names: Vec<Name<'_>> = self
            .tree
            .names(id)
            .map(|(text, id)| name(text, id))
            .collect();
        let need = &self.needs.all[place as usize];
        let writer = Writer {
            geometry: self.plan.geometry(),
            dots: [name(b".", id), name(b"..", self.numbered.parent(id))],
            names: &names,
            packing: need.packing.as_ref().unwrap_or(&Packing::One),
        };
        for extent in &self.layout.files[place as usize].extents {
            for nr in 0..extent.len {
                let at = self.offset(extent.physical + nr);
                writer.block(extent.logical + nr, out.room(at, self.block_size())?);
            }
        }
        Ok(())
    }

    /// Copies extents of a file.
    fn copy(
        &self,
        place: u32,
        extents: &[Extent],
        out: &mut Out<'_>,
        digests: &mut Vec<u128>,
    ) -> Result<(), FillError> {
        let Body::Regular(contents) = self.body(place) else {
            return Ok(());
        };
        if extents.is_empty() {
            return Ok(());
        }
        let open = contents.open(&self.tree)?;
        for extent in extents {
            self.copy_extent((contents, &open), *extent, out, digests)?;
        }
        Ok(open.check_unchanged()?)
    }

    fn copy_extent(
        &self,
        (contents, open): (&Contents, &Open<'_>),
        extent: Extent,
        out: &mut Out<'_>,
        digests: &mut Vec<u128>,
    ) -> Result<(), FillError> {
        let bits = self.plan.geometry().block_bits();
        let len = u64::from(extent.len) << bits;
        let (from, to) = (
            u64::from(extent.logical) << bits,
            self.offset(extent.physical),
        );
        // What is here already goes to its place in one step.
        if let Open::Bytes(bytes) = open
            && len <= Out::MAX as u64
        {
            let inside =
                |at: u64| usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
            let bytes = &bytes[inside(from)..inside(from + len)];
            if out.store(to, bytes, len) {
                digests.extend(self.content.map(|_| digest::of_bytes(bytes)));
                return Ok(());
            }
        }
        // A digest is of bytes that were seen, and so is the answer to a guess: only sharing is worth a call then.
        let seen = self.content.is_some() || contents.sampled;
        let how = if seen { Copying::Shared } else { Copying::Any };
        let copied = out.copy_inside(open, from, to, len, how)?;
        let mut done = if seen { 0 } else { copied };
        while done < len {
            let step = usize::try_from(len - done)
                .unwrap_or(Out::MAX)
                .min(Out::MAX);
            let room = if done + step as u64 <= copied {
                out.scratch(step)?
            } else {
                out.dirty_room(to + done, step)?
            };
            open.read_at(from + done, room)?;
            if contents.sampled && scan::has_zeroes(room, self.plan.geometry().block_size()) {
                return Err(FillError::Zeroes);
            }
            if self.content.is_some() {
                let rest = contents.size.saturating_sub(from + done);
                let bytes = usize::try_from(rest).unwrap_or(step);
                digests.push(digest::of_bytes(&room[..bytes.min(step)]));
            }
            done += step as u64;
        }
        Ok(())
    }

    /// The indirect blocks of a file.
    fn branches(&self, place: u32, id: NodeId, out: &mut Out<'_>) -> Result<(), FillError> {
        let placed = &self.layout.files[place as usize];
        if placed.indirect.is_empty() {
            return Ok(());
        }
        let runs = runs_of(&self.tree, id, &self.needs.all[place as usize]);
        let branches = Branches::new(runs.as_ref(), self.plan.geometry().addr_bits());
        let mut next = placed.indirect.iter().copied();
        for top in branches.tops() {
            self.branch(&branches, top, &placed.extents, &mut next, out)?;
        }
        Ok(())
    }

    /// One indirect block and all below it; where it lies.
    fn branch(
        &self,
        branches: &Branches<'_>,
        branch: Branch,
        extents: &[Extent],
        next: &mut impl Iterator<Item = u32>,
        out: &mut Out<'_>,
    ) -> Result<u32, FillError> {
        let block = next.next().expect("as many as were counted");
        let mut slots = vec![U32::ZERO; self.block_size() / 4];
        if branch.level == 1 {
            let end = branch.first + slots.len() as u64;
            let first = extents.partition_point(|extent| extent.end() <= branch.first);
            for extent in extents[first..]
                .iter()
                .take_while(|extent| u64::from(extent.logical) < end)
            {
                let from = u64::from(extent.logical).max(branch.first);
                for logical in from..extent.end().min(end) {
                    let nr = usize::try_from(logical - branch.first).expect("inside the block");
                    let into = u32::try_from(logical - u64::from(extent.logical)).unwrap_or(0);
                    slots[nr] = U32::new(extent.physical + into);
                }
            }
        } else {
            for (slot, below) in branches.below(branch) {
                let at = self.branch(branches, below, extents, next, out)?;
                slots[slot as usize] = U32::new(at);
            }
        }
        let room = out.room(self.offset(block), self.block_size())?;
        room.copy_from_slice(slots.as_bytes());
        Ok(block)
    }
}
