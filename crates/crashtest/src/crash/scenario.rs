//! One operation, recorded: the image before, the log, and the trees before and after.

use anyhow::{Context, Result};
use ext2dax::{FileSystem, MountOptions};
use ext2dax_format::slot::{AREA_BYTES, HIDDEN_INO};
use ext2dax_format::superblock::RawSuperblock;
use ext2dax_format::{Geometry, GroupNr, RawGroupDesc, RawInode};
use ext2dax_mkfs::{Inodes, Options, Plan};
use ext2dax_pmem::{AnonRegion, Event, Off, Persist, Pmem, Recorder};

use super::Place;
use super::shown::{self, Tree};

/// What every byte holds that no file has been given yet: whoever shows one of these shows somebody else's data. No
/// file of a scenario contains it.
pub const SECRET: u8 = 0xee;

/// What lies in a boot block that is in use.
pub const BOOT_LOADER: [u8; AREA_BYTES] = [0xeb; AREA_BYTES];

/// The shape of an image.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes in a block.
    pub block_size: u32,
    /// Bytes of an inode.
    pub inode_size: u32,
    /// Bytes of the image.
    pub len: u64,
    /// The boot block is in use, so that records lie in a hidden file.
    pub boot_loader: bool,
}

impl Shape {
    /// A small image: as many blocks as the tables, a tree of ours and an operation need.
    pub const fn small(block_size: u32, inode_size: u32) -> Self {
        Shape {
            block_size,
            inode_size,
            len: 192 * block_size as u64,
            boot_loader: false,
        }
    }

    /// The same with something in its boot block.
    pub const fn with_boot_loader(self) -> Self {
        Shape {
            boot_loader: true,
            ..self
        }
    }

    /// An image of this shape, in memory that is treated as persistent: every flush and fence is executed.
    ///
    /// # Errors
    /// No memory, or a shape that cannot be.
    pub fn make(self) -> Result<Pmem> {
        let mut options = Options::with_block_size(self.block_size);
        options.inode_size = self.inode_size;
        // Room for a directory of seven full blocks.
        options.inodes = Inodes::Count(32 + self.block_size / 264 * 8);
        let plan = Plan::new(&options, self.len)?;
        let region = AnonRegion::with_persist(plan.len_bytes(), Persist::FlushLines)?;
        let pmem = Pmem::new(region);
        pmem.write(0, &vec![SECRET; usize::try_from(pmem.len())?]);
        plan.write(&pmem)?;
        if self.boot_loader {
            pmem.write(0, &BOOT_LOADER);
        }
        Ok(pmem)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}-byte blocks, {}-byte inodes{}",
            self.block_size,
            self.inode_size,
            if self.boot_loader {
                ", boot loader"
            } else {
                ""
            }
        )
    }
}

/// What a crash in the middle may show. Our recovery makes every operation on names atomic; the other promises are what
/// e2fsck may make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The tree before or the tree after, for everybody.
    Atomic,
    /// Each name as before or as after, and a hidden name in lost+found besides: renames that no single store can do.
    /// A name that is there before and after is never missing.
    EachName,
    /// As `EachName`, but the name of an empty directory that is replaced may go first: it dies before the other takes
    /// its name.
    EmptyTargetMayGo,
    /// Names and kinds as before or after; contents of regular files in any mixture, but nobody else's: writes to
    /// blocks that the file has already, and operations that go block by block. For our recovery, too.
    Contents,
}

/// An operation on a prepared tree.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called in messages.
    pub name: &'static str,
    /// Makes the tree that the operation finds.
    pub prepare: fn(&FileSystem) -> ext2dax::Result<()>,
    /// What a crash may show.
    pub promise: Promise,
    /// Fences until it returns, at most.
    pub fences: usize,
    /// The operation. Exactly one call of the file system.
    pub operation: fn(&FileSystem) -> ext2dax::Result<()>,
}

/// What is known of a scenario after it has run once.
pub struct Recording {
    /// The medium before the operation, everything durable.
    pub base: Vec<u8>,
    /// The log of the operation, between the remarks "begin" and "end".
    pub events: Vec<Event>,
    /// What the file system showed before.
    pub before: Tree,
    /// What it showed after.
    pub after: Tree,
    /// What a crash may show.
    pub promise: Promise,
    /// Which lines of the image are fixed metadata.
    pub places: Places,
}

impl Recording {
    /// Fences that the operation waited for.
    pub fn fences(&self) -> usize {
        self.events
            .iter()
            .filter(|event| event.kind == ext2dax_pmem::EventKind::Fence)
            .count()
    }
}

impl Scenario {
    /// Prepares an image of the shape, runs the operation under the recorder and leaves the mount as a crash would.
    ///
    /// # Errors
    /// Whatever the file system answered where it should not.
    pub fn record(&self, shape: Shape) -> Result<Recording> {
        self.record_planted(shape, |_, _| Ok(()))
    }

    /// The same with something on the medium that this library does not write: `plant` stores it there behind the mount's
    /// back, after the tree has been prepared.
    ///
    /// # Errors
    /// As [`Scenario::record`].
    pub fn record_planted(
        &self,
        shape: Shape,
        plant: impl FnOnce(&FileSystem, &Pmem) -> Result<()>,
    ) -> Result<Recording> {
        let recorder = Recorder::new();
        recorder.pause(true);
        let pmem = shape.make()?;
        let fs = FileSystem::mount_pmem(
            pmem.clone().observed_by(recorder.observer()),
            &MountOptions::new(),
        )
        .context("mount")?;
        let places = Places::of(&pmem)?;
        (self.prepare)(&fs).context("prepare")?;
        // The first change of a mount marks the image as in use; that is not the operation's.
        fs.create("/settled").context("settle")?;
        plant(&fs, &pmem).context("plant")?;
        let before = shown::read(&fs).context("read the tree before")?;
        fs.sync().context("sync")?;
        let base = contents(&pmem);
        recorder.pause(false);
        recorder.mark("begin");
        (self.operation)(&fs).context("the operation")?;
        recorder.mark("end");
        let events = recorder.take();
        recorder.pause(true);
        let after = shown::read(&fs).context("read the tree after")?;
        fs.abandon();
        Ok(Recording {
            base,
            events,
            before,
            after,
            promise: self.promise,
            places,
        })
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording")
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

/// All bytes behind a handle.
///
/// # Panics
/// If there are more than fit in memory.
pub fn contents(pmem: &Pmem) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(pmem.len()).expect("an image in memory")];
    pmem.read(0, &mut all);
    all
}

/// A region that holds a copy of these bytes.
///
/// # Errors
/// No memory.
pub fn medium(image: &[u8]) -> Result<Pmem> {
    let pmem = Pmem::new(AnonRegion::new(image.len() as u64)?);
    pmem.write(0, image);
    Ok(pmem)
}

/// Which blocks of an image are read by every checker whatever leads there, and where records lie.
#[derive(Clone, Debug)]
pub struct Places {
    block_size: u64,
    fixed: Vec<bool>,
    records: usize,
}

impl Places {
    /// Looks at superblock and descriptors of the image, which has been mounted.
    ///
    /// # Errors
    /// The image is no file system.
    pub fn of(pmem: &Pmem) -> Result<Self> {
        let superblock: RawSuperblock = pmem.read_value(Off::new(1024));
        let geometry = Geometry::new(&superblock, pmem.len())?;
        let mut fixed = vec![false; geometry.blocks_count() as usize];
        let mut mark = |first: u32, len: u32| {
            (first..first + len).for_each(|block| fixed[block as usize] = true)
        };
        mark(0, geometry.first_data_block() + 1);
        for group in geometry.all_groups() {
            let first = geometry.group_first_block(group).get();
            mark(first, geometry.group_super_blocks(group));
            let raw: RawGroupDesc = pmem.read_value(Off::new(geometry.desc_offset(group)));
            let desc = geometry.group_desc(&raw, group)?;
            for run in geometry.group_tables(&desc, group) {
                mark(run.start.get(), run.len);
            }
        }
        Ok(Places {
            block_size: u64::from(geometry.block_size()),
            fixed,
            records: records(pmem, &geometry)?,
        })
    }

    /// The bytes in which records lie.
    pub fn records(&self) -> std::ops::Range<usize> {
        self.records..self.records + AREA_BYTES
    }

    /// What the byte at `offset` belongs to.
    ///
    /// # Panics
    /// If the offset lies outside the image.
    pub fn place(&self, offset: u64) -> Place {
        if usize::try_from(offset).is_ok_and(|offset| self.records().contains(&offset)) {
            return Place::Record;
        }
        let block = offset / self.block_size;
        let fixed = self.fixed[usize::try_from(block).expect("inside the image")];
        if fixed {
            Place::Fixed
        } else {
            Place::Block(block)
        }
    }
}

/// Where the records of a mounted image begin: in the hidden file if it has one.
fn records(pmem: &Pmem, geometry: &Geometry) -> Result<usize> {
    let raw: RawGroupDesc = pmem.read_value(Off::new(geometry.desc_offset(GroupNr::FIRST)));
    let table = geometry.group_desc(&raw, GroupNr::FIRST)?.inode_table;
    let index = u64::from((HIDDEN_INO - 1) * geometry.inode_size());
    let inode: RawInode = pmem.read_value(Off::new(geometry.offset(table) + index));
    if inode.i_mode.get() == 0 {
        return Ok(0);
    }
    let block = geometry.fs_block(inode.i_block[0].get())?;
    Ok(usize::try_from(geometry.offset(block))?)
}
