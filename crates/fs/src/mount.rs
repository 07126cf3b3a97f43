//! Mounting and unmounting.
//!
//! [`Core`] is what every part of the file system needs and owns no inodes; [`Mount`] owns those, and everything else that
//! is alive while the file system is mounted. [`FileSystem`] is the caller's handle to it.
//!
//! Each inode in core refers to the one, each handle to the other, and both come and go by the million. A reference counts
//! in a word, and one word for all threads would be what they wait for. So there is a `Core` and a `Mount` for each
//! [lane](ext2dax_sync::lane) beside the first ones, all with the same parts: whoever keeps a reference asks for the one
//! `near` him.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use ext2dax_dax::Gates;
use ext2dax_format::slot::{MountRecord, Stamp};
use ext2dax_format::superblock::{RawSuperblock, STATE_ERROR, STATE_VALID};
use ext2dax_format::{Error, Features, Geometry, Ino, Result, Timestamp};
use ext2dax_getblock::Volume;
use ext2dax_pmem::{Pmem, PmemRegion};
use ext2dax_sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ext2dax_sync::lane::{LANES, lane};
use ext2dax_sync::{Mutex, rank};

use crate::clock::Clock;
#[cfg(not(feature = "std"))]
use crate::clock::FixedClock;
use crate::inode::{Inode, Inodes, Node, Versions, lifetime};
use crate::ops::Temporaries;
use crate::options::{MountOptions, StatfsStyle};
use crate::orphan::OrphanList;
use crate::path::ways::Ways;
use crate::reclaim;
use crate::recovery;
use crate::reserve::{self, Reserve};
use crate::scrub;
use crate::slots::Slots;
use crate::state::{SUPERBLOCK, State};

/// Bytes of an inode that hold all its fields: what lies behind them are attributes.
const INODE_LINES: usize = 192;

/// What every part of a mounted file system needs.
pub(crate) struct Core {
    pub(crate) volume: Volume,
    pub(crate) pmem: Pmem,
    pub(crate) geometry: Geometry,
    parts: Arc<CoreParts>,
    /// One for each lane; none of these has more.
    lanes: Box<[Arc<Core>]>,
}

/// What the lanes of a [`Core`] have in common.
pub(crate) struct CoreParts {
    pub(crate) gates: Arc<Gates>,
    pub(crate) orphans: OrphanList,
    pub(crate) state: State,
    pub(crate) slots: Slots,
    pub(crate) options: MountOptions,
    pub(crate) versions: Versions,
    /// Held while the count of an attribute block with several users is read and lowered.
    pub(crate) shared_attributes: Mutex<()>,
    reserve: Reserve,
    privileged: bool,
    clock: Arc<dyn Clock>,
    /// 0 until somebody asks.
    overhead: AtomicU64,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("geometry", &self.geometry)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Deref for Core {
    type Target = CoreParts;

    #[inline]
    fn deref(&self) -> &CoreParts {
        &self.parts
    }
}

impl Core {
    fn new(volume: &Volume, pmem: &Pmem, geometry: Geometry, parts: CoreParts) -> Arc<Self> {
        let parts = Arc::new(parts);
        let with = |lanes| {
            Arc::new(Self {
                volume: volume.apart(),
                pmem: pmem.clone(),
                geometry,
                parts: Arc::clone(&parts),
                lanes,
            })
        };
        with((0..LANES).map(|_| with(Box::default())).collect())
    }

    /// A reference to keep, counted in the calling thread's lane.
    pub(crate) fn near(self: &Arc<Self>) -> Arc<Self> {
        Arc::clone(self.lanes.get(lane()).unwrap_or(self))
    }

    /// # Errors
    /// `ReadOnlyFs` if the file system may not be written, or no longer.
    pub(crate) fn writable(&self) -> Result<()> {
        self.state.writable()
    }

    /// See [`State::require_large_file`].
    pub(crate) fn require_large_file(&self) -> Result<()> {
        self.state.require_large_file()
    }

    /// See [`State::require_ext_attr`].
    pub(crate) fn require_ext_attr(&self) -> Result<()> {
        self.state.require_ext_attr()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Asks for the lines of an inode that will be looked at soon. A number that no inode has does no harm.
    pub(crate) fn prefetch_inode(&self, ino: u32) {
        let at = self
            .geometry
            .ino(ino)
            .map(|ino| self.volume.inode_offset(ino));
        if let Ok(Ok(at)) = at {
            self.pmem.prefetch(at.at(), INODE_LINES);
        }
    }

    /// Blocks of superblocks, descriptors, bitmaps and inode tables. Counted once: a large image has many groups.
    fn overhead(&self) -> u64 {
        let known = self.overhead.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        let first = u64::from(self.geometry.first_data_block());
        let counted = self.geometry.all_groups().fold(first, |sum, group| {
            sum + u64::from(self.geometry.group_overhead(group))
        });
        self.overhead.store(counted, Ordering::Relaxed);
        counted
    }

    /// Whether reserved blocks may be used: by the user for whom the calling thread acts, else by the one for whom the mount
    /// does.
    pub(crate) fn is_privileged(&self) -> bool {
        reserve::of_this_thread().unwrap_or(self.privileged)
    }

    /// Notes damage: see [`State::report`].
    pub(crate) fn report(&self, error: Error) {
        self.state.report(error);
    }
}

/// A mounted file system. See the module's documentation.
pub(crate) struct Mount {
    parts: Arc<MountParts>,
    /// One for each lane, kept here and found through `doors`; none of these has more.
    _lanes: Vec<Arc<Mount>>,
}

/// What the lanes of a [`Mount`] have in common. The mount ends with it.
pub(crate) struct MountParts {
    pub(crate) core: Arc<Core>,
    pub(crate) inodes: Inodes,
    /// The root, which every path begins at; `None` if it is no live directory. Declared behind the cache, which does not
    /// let go of it meanwhile.
    pub(crate) root: Option<Arc<Node>>,
    /// The lanes, to be found by those who are in another one.
    doors: Vec<Weak<Mount>>,
    /// Held while a name moves between directories: the tree above a directory cannot change meanwhile.
    pub(crate) rename: Mutex<()>,
    pub(crate) temporaries: Temporaries,
    /// Declared behind the cache, like `root`.
    pub(crate) ways: Ways,
    ended: AtomicBool,
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount")
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

impl Deref for Mount {
    type Target = MountParts;

    #[inline]
    fn deref(&self) -> &MountParts {
        &self.parts
    }
}

impl Mount {
    /// The only one, without lanes.
    fn alone(parts: MountParts) -> Self {
        Self {
            parts: Arc::new(parts),
            _lanes: Vec::new(),
        }
    }

    /// The parts again, of one that nobody else has seen.
    fn into_parts(self) -> MountParts {
        Arc::into_inner(self.parts).expect("it has no lanes yet")
    }

    /// The first one, with its lanes.
    fn with_lanes(mut parts: MountParts) -> Arc<Self> {
        let mut lanes = Vec::with_capacity(LANES);
        let parts = Self::open_lanes(&mut lanes, Vec::with_capacity(LANES), |doors| {
            parts.doors = doors;
            Arc::new(parts)
        });
        Arc::new(Self {
            parts,
            _lanes: lanes,
        })
    }

    /// Each lane begins before the parts that it will have, because these know the doors of all lanes: one within the
    /// other, and the parts innermost.
    fn open_lanes(
        lanes: &mut Vec<Arc<Self>>,
        mut doors: Vec<Weak<Self>>,
        finish: impl FnOnce(Vec<Weak<Self>>) -> Arc<MountParts>,
    ) -> Arc<MountParts> {
        if doors.len() == LANES {
            return finish(doors);
        }
        let mut parts = None;
        let finish: Box<dyn FnOnce(Vec<Weak<Self>>) -> Arc<MountParts>> = Box::new(finish);
        let lane = Arc::new_cyclic(|door| {
            doors.push(Weak::clone(door));
            let found = Self::open_lanes(lanes, doors, finish);
            parts = Some(Arc::clone(&found));
            Self {
                parts: found,
                _lanes: Vec::new(),
            }
        });
        lanes.push(lane);
        parts.expect("found while the lane was made")
    }

    /// A reference to keep, counted in the calling thread's lane.
    pub(crate) fn near(self: &Arc<Self>) -> Arc<Self> {
        // The lanes go with the first of their kind, whatever handles remain: these share what they have then.
        let door = self.doors.get(lane()).and_then(Weak::upgrade);
        door.unwrap_or_else(|| Arc::clone(self))
    }

    /// Whether both are lanes of one mount.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
    }

    /// Takes an image over for writing: what the last user left is completed, and it is marked as in use.
    fn take_over(&self, last: LastUse) -> Result<()> {
        let core = &self.core;
        if last.foreign {
            core.state.set_foreign();
        }
        let mut recovered = !last.foreign;
        if let Some(stamp) = last.interrupted {
            let listed = core.orphans.on_medium(&core.geometry)?;
            for intent in core.slots.in_flight(stamp) {
                if let Err(error) = recovery::recover(core, &listed, &intent) {
                    core.report(error);
                    recovered = false;
                }
            }
            // EPOCH: nothing is in flight any more.
            core.pmem.fence();
        }
        let orphans = core.orphans.load(&core.geometry)?;
        core.slots.clear_intents();
        let now = core.now();
        let record = MountRecord {
            stamp: core.state.stamp_of_begin(now),
            ended: false,
            foreign: last.foreign,
        };
        core.slots.announce(record);
        core.state.begin(now);
        core.slots.settle_in(&core.volume)?;
        core.slots.forget_others(record);
        for ino in orphans {
            lifetime::recover(self, ino)?;
        }
        if last.unknown {
            scrub::scrub(self)?;
        }
        if core.options.reclaim && recovered && !core.state.is_sound() {
            match reclaim::reclaim(core) {
                Ok(true) => core.state.vouch(),
                Ok(false) => {}
                Err(error) => core.report(error),
            }
        }
        Ok(())
    }
}

impl MountParts {
    /// Makes everything durable, as far as the region can.
    fn sync(&self) -> Result<()> {
        let core = &self.core;
        if core.writable().is_ok() {
            lifetime::sync_all(self)?;
            core.volume.write_back_counters();
            core.pmem.fence();
        }
        core.pmem.sync(0..core.pmem.len()).map_err(|_| Error::Io)
    }

    /// Ends a mount: counts, then the valid bit. Once.
    fn end(&self) -> Result<()> {
        if self.ended.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.sync()?;
        if self.core.writable().is_ok() {
            self.sign_off();
            self.core
                .pmem
                .sync(0..self.core.pmem.len())
                .map_err(|_| Error::Io)?;
        }
        Ok(())
    }

    /// Everything is durable. An image that was clean is clean again; one that was not says who used it last.
    fn sign_off(&self) {
        let (state, slots) = (&self.core.state, &self.core.slots);
        let now = self.core.now();
        if state.is_sound() {
            state.end(now);
            slots.clear_all();
        } else {
            slots.announce(MountRecord {
                stamp: state.stamp_of_end(now),
                ended: true,
                foreign: state.is_foreign(),
            });
            state.end(now);
        }
    }
}

impl Drop for MountParts {
    /// A file system that nobody unmounted ends like one that somebody did, unless a panic is under way: then what is in
    /// memory cannot be trusted, and the image stays marked as in use.
    fn drop(&mut self) {
        #[cfg(feature = "std")]
        if std::thread::panicking() {
            return;
        }
        // There is nobody to tell; whoever wants to know calls `unmount`.
        let _ = self.end();
    }
}

/// How the last use of an image ended.
#[derive(Clone, Copy, Debug, Default)]
struct LastUse {
    /// At its end: nothing is to be done.
    clean: bool,
    /// In the middle, by the mount with this stamp: what was in flight is written down.
    interrupted: Option<Stamp>,
    /// Nobody knows how: everything must be looked at.
    unknown: bool,
    /// So it was once, and no checker has run since.
    foreign: bool,
}

/// A mounted file system. Clones are handles to the same mount; it ends when the last of them, and the last open file,
/// is gone.
///
/// Every operation takes `&self` and may run on any thread.
#[derive(Clone, Debug)]
pub struct FileSystem {
    pub(crate) mount: Arc<Mount>,
}

impl FileSystem {
    /// Mounts the image in a region.
    ///
    /// For writing, the image is marked as in use (valid bit, mount count, times), and orphans that an earlier user left
    /// are processed before anything else. For reading only, nothing on the medium changes.
    ///
    /// # Errors
    /// `NotExt2`, `TooShort`, `Corrupt`: this is no file system, or not one that can be opened. `Unsupported`: every
    /// feature that forbids it. `NeedsFsck`: for writing, the image must be checked first (`e2fsck -p` or
    /// `fsck.ext2dax -p`), because somebody else did not unmount it cleanly or it is marked as damaged; reading works. `ReadOnlyFs`: the
    /// region cannot be written. `Io`. Nothing has changed then.
    pub fn mount(region: impl PmemRegion + 'static, options: &MountOptions) -> Result<Self> {
        Self::mount_pmem(Pmem::new(region), options)
    }

    /// Mounts the image behind a handle, as [`FileSystem::mount`] does: for regions with an observer, and for an image
    /// inside a larger region.
    ///
    /// # Errors
    /// As [`FileSystem::mount`].
    pub fn mount_pmem(pmem: Pmem, options: &MountOptions) -> Result<Self> {
        if pmem.len() < SUPERBLOCK.at() + 1024 {
            return Err(Error::TooShort { len: pmem.len() });
        }
        let superblock: RawSuperblock = pmem.read_value(SUPERBLOCK);
        let geometry = Geometry::new(&superblock, pmem.len())?;
        let trust_counters = superblock.s_state.get() & STATE_VALID != 0;
        let volume_options = ext2dax_getblock::Options { trust_counters };
        let volume = Volume::open(pmem.clone(), geometry, volume_options)?;
        let slots = Slots::find(&volume);
        let last = check(&superblock, &pmem, &slots, options)?;
        let slots = if !options.read_only && last.clean {
            slots.with_place(&volume)
        } else {
            slots
        };
        let reserve = Reserve::of(&superblock, options);
        let parts = CoreParts {
            orphans: OrphanList::new(volume.clone()),
            state: State::new(
                pmem.clone(),
                &superblock,
                options.read_only,
                options.on_error,
            ),
            slots,
            gates: Arc::new(Gates::new()),
            clock: options.clock.clone().unwrap_or_else(default_clock),
            reserve,
            privileged: reserve.is_open_to(options.uid, |group| group == options.gid),
            overhead: AtomicU64::new(0),
            options: options.clone(),
            versions: Versions::new(),
            shared_attributes: Mutex::new(rank::TABLE, ()),
        };
        let mount = Mount::alone(MountParts {
            inodes: Inodes::new(options.inode_cache),
            root: None,
            core: Core::new(&volume, &pmem, geometry, parts),
            doors: Vec::new(),
            rename: Mutex::new(rank::RENAME, ()),
            temporaries: Temporaries::new(),
            ways: Ways::new(),
            ended: AtomicBool::new(true),
        });
        if !options.read_only {
            let taken = mount.take_over(last);
            // A take-over that failed on an unclean image must not be signed off: there is more to do than was done.
            let signs_off = taken.is_ok() || mount.core.state.is_sound();
            mount.ended.store(!signs_off, Ordering::Release);
            taken?;
        }
        let mut parts = mount.into_parts();
        parts.root = parts.inodes.get(&parts.core, Ino::ROOT).ok();
        Ok(Self {
            mount: Mount::with_lanes(parts),
        })
    }

    /// Ends the mount: makes everything durable and marks the image as clean, if it was clean before.
    ///
    /// # Errors
    /// `Busy` if files are open or other handles to this mount exist; the mount goes on, and the image is marked clean when
    /// the last of them goes. `Io` if the region could not be made durable; the image stays marked as in use.
    pub fn unmount(self) -> Result<()> {
        if self.mount.inodes.any_open() {
            return Err(Error::Busy);
        }
        // Its lanes go with the first mount, unless somebody in one of them keeps the parts.
        let parts = Arc::into_inner(self.mount).map(|mount| mount.parts);
        parts.and_then(Arc::into_inner).ok_or(Error::Busy)?.end()
    }

    /// Makes everything durable that was stored, metadata and contents, as far as the region can: for a file on a disk
    /// this is what protects against a power failure.
    ///
    /// # Errors
    /// `Io`.
    pub fn sync(&self) -> Result<()> {
        self.mount.sync()
    }

    /// Leaves the image as a crash would: nothing is completed, and it stays marked as in use. For tests, and for programs
    /// that hand the image over to a checker.
    pub fn abandon(self) {
        self.mount.ended.store(true, Ordering::Release);
    }

    /// The file that a handle from an earlier time names, as NFS keeps them: number and generation.
    ///
    /// # Errors
    /// `Stale` if the file is gone, or the number is another file's by now.
    pub fn inode_by_handle(&self, ino: u32, generation: u32) -> Result<Inode> {
        let inode = self.inode_by_number(ino)?;
        if inode.generation() == generation {
            Ok(inode)
        } else {
            Err(Error::Stale)
        }
    }

    /// The file that has this inode number now: for callers that compare the generation themselves.
    ///
    /// # Errors
    /// `Stale` if there is none, and for the inodes that belong to the file system; `Corrupt`.
    pub fn inode_by_number(&self, ino: u32) -> Result<Inode> {
        let core = &self.mount.core;
        let number = core.geometry.ino(ino).map_err(|_| Error::Stale)?;
        if number != Ino::ROOT && ino < core.geometry.first_ino() {
            return Err(Error::Stale);
        }
        let node = self.mount.inodes.find(core, number)?;
        // It may have died between the look into the table and this.
        Inode::open(&self.mount, &node).map_err(|error| match error {
            Error::NotFound => Error::Stale,
            other => other,
        })
    }

    /// Sizes and counts.
    #[must_use]
    pub fn statfs(&self) -> StatFs {
        let core = &self.mount.core;
        let geometry = &core.geometry;
        let overhead = match core.options.statfs {
            StatfsStyle::Minix => 0,
            StatfsStyle::Bsd => core.overhead(),
        };
        let counts = core.volume.counts();
        StatFs {
            block_size: geometry.block_size(),
            blocks: u64::from(geometry.blocks_count()) - overhead,
            blocks_free: counts.free_blocks,
            blocks_available: counts.available_blocks,
            inodes: geometry.inodes_count(),
            inodes_free: counts.free_inodes,
            name_max: 255,
            uuid: core.pmem.read_value(SUPERBLOCK).s_uuid,
        }
    }

    /// Who may use the reserved blocks.
    #[must_use]
    pub fn reserve(&self) -> Reserve {
        self.mount.core.reserve
    }

    /// Whether the file system may be written: not if it was mounted for reading only, nor after damage was found on an
    /// image whose `s_errors` says so.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.mount.core.state.is_read_only()
    }

    /// The numbers of the file system's layout.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.mount.core.geometry
    }
}

/// What `statfs` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes of a block; all counts of blocks are in this unit.
    pub block_size: u32,
    /// Blocks, without those of the file system's tables unless asked for otherwise.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for those who may not use the reserve.
    pub blocks_available: u64,
    /// Inodes.
    pub inodes: u32,
    /// Free inodes.
    pub inodes_free: u64,
    /// The longest name in bytes.
    pub name_max: u32,
    /// The file system's UUID.
    pub uuid: [u8; 16],
}

/// Whether the image may be opened the way the caller asks, and how it was left.
fn check(
    superblock: &RawSuperblock,
    pmem: &Pmem,
    slots: &Slots,
    options: &MountOptions,
) -> Result<LastUse> {
    let features = Features::of(superblock);
    if options.read_only {
        if options.no_recovery {
            features.check_layout()?;
        } else {
            features.check_open()?;
        }
        return Ok(LastUse::default());
    }
    features.check_open()?;
    features.check_write()?;
    if !pmem.writable() {
        return Err(Error::ReadOnlyFs);
    }
    let state = superblock.s_state.get();
    let (clean, damaged) = (state & STATE_VALID != 0, state & STATE_ERROR != 0);
    let record = slots.last_mount().filter(|_| !clean);
    let unknown = damaged || !clean && record.is_none();
    if unknown && !options.accept_unclean {
        return Err(Error::NeedsFsck);
    }
    let interrupted = record.filter(|record| !record.ended);
    Ok(LastUse {
        clean: clean && !damaged,
        interrupted: interrupted.map(|record| record.stamp),
        unknown,
        foreign: unknown || record.is_some_and(|record| record.foreign),
    })
}

fn default_clock() -> Arc<dyn Clock> {
    #[cfg(feature = "std")]
    return Arc::new(crate::clock::SystemClock);
    #[cfg(not(feature = "std"))]
    return Arc::new(FixedClock(Timestamp::from_secs(0)));
}
