//! How a file system is mounted.

use alloc::sync::Arc;
use core::fmt;

use ext2dax_format::superblock::OnError;

use crate::clock::Clock;

/// When access times are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Atime {
    /// Never: reading changes nothing on the medium.
    Never,
    /// When the access time is older than the last change or older than a day, as Linux does by default.
    #[default]
    Relative,
}

/// How `statfs` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatfsStyle {
    /// Blocks for the file system's own tables are no blocks of the file system.
    #[default]
    Bsd,
    /// Every block counts.
    Minix,
}

/// How a file system is mounted: for reading and writing unless something else is asked for.
///
/// ```
/// use ext2dax::MountOptions;
/// let options = MountOptions::new().read_only(true);
/// ```
#[derive(Clone)]
pub struct MountOptions {
    pub(crate) read_only: bool,
    pub(crate) no_recovery: bool,
    pub(crate) accept_unclean: bool,
    pub(crate) reclaim: bool,
    pub(crate) on_error: Option<OnError>,
    pub(crate) atime: Atime,
    pub(crate) statfs: StatfsStyle,
    pub(crate) inode_cache: usize,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) group_inherits: bool,
    pub(crate) acl: bool,
    pub(crate) reserved_uid: Option<u32>,
    pub(crate) reserved_gid: Option<u32>,
    pub(crate) clock: Option<Arc<dyn Clock>>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            no_recovery: false,
            accept_unclean: false,
            reclaim: false,
            on_error: None,
            atime: Atime::default(),
            statfs: StatfsStyle::default(),
            inode_cache: 1 << 16,
            uid: 0,
            gid: 0,
            group_inherits: false,
            acl: true,
            reserved_uid: None,
            reserved_gid: None,
            clock: None,
        }
    }
}

impl fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountOptions")
            .field("read_only", &self.read_only)
            .field("no_recovery", &self.no_recovery)
            .field("accept_unclean", &self.accept_unclean)
            .field("on_error", &self.on_error)
            .finish_non_exhaustive()
    }
}

impl MountOptions {
    /// Reading and writing, everything else as the superblock says.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Mounts for reading only: nothing on the medium changes.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Opens a file system whose journal has not been replayed, as it stands. For reading only.
    #[must_use]
    pub fn no_recovery(mut self, no_recovery: bool) -> Self {
        self.no_recovery = no_recovery;
        self
    }

    /// Mounts for writing although the image is marked as damaged, or was left by something else than this library, or was
    /// left by it with no place for its records. (What it left itself it recovers without being asked.) Orphans are
    /// processed; every directory is read once, and what an interrupted operation of this library may have left there is
    /// repaired: names of dead inodes, link counts that are too high, temporary links. Blocks and inodes may stay leaked,
    /// so the image stays marked for a checker. What another driver left may need more than that.
    #[must_use]
    pub fn accept_unclean(mut self, accept: bool) -> Self {
        self.accept_unclean = accept;
        self
    }

    /// Gives back at the mount what a crash of this library has leaked, so that the image is clean again when it is
    /// unmounted, without a checker. Each inode and each indirect block in use is looked at once.
    /// Without it, recovery takes no longer on a large image than on a small one, blocks and inodes may stay
    /// leaked, and the image stays marked for a checker. Does nothing to a clean image, nor to one that somebody else left.
    #[must_use]
    pub fn reclaim(mut self, reclaim: bool) -> Self {
        self.reclaim = reclaim;
        self
    }

    /// What to do when damage is found, instead of what `s_errors` says.
    #[must_use]
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = Some(on_error);
        self
    }

    /// When access times are written.
    #[must_use]
    pub fn atime(mut self, atime: Atime) -> Self {
        self.atime = atime;
        self
    }

    /// How `statfs` counts.
    #[must_use]
    pub fn statfs(mut self, style: StatfsStyle) -> Self {
        self.statfs = style;
        self
    }

    /// How many unused inodes are kept in memory, 65,536 unless told otherwise; about a KiB each.
    #[must_use]
    pub fn inode_cache(mut self, inodes: usize) -> Self {
        self.inode_cache = inodes;
        self
    }

    /// The user and group for whom the mount acts, root unless told otherwise: owner of new files that are created
    /// without one, and who is asked when only reserved blocks are left.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.uid = uid;
        self.gid = gid;
        self
    }

    /// New files take the group of their directory even without its set-group-id bit (`grpid`).
    #[must_use]
    pub fn group_inherits(mut self, inherits: bool) -> Self {
        self.group_inherits = inherits;
        self
    }

    /// Whether access control lists are served, inherited and kept in step with modes. Without, they stay on the medium as
    /// they are.
    #[must_use]
    pub fn acl(mut self, acl: bool) -> Self {
        self.acl = acl;
        self
    }

    /// Who may use the reserved blocks besides root, instead of what the superblock says.
    #[must_use]
    pub fn reserved_for(mut self, uid: Option<u32>, gid: Option<u32>) -> Self {
        self.reserved_uid = uid;
        self.reserved_gid = gid;
        self
    }

    /// Where times come from. Programs have the system clock unless they say otherwise; without `std` the default clock
    /// stands still at 0.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }
}
