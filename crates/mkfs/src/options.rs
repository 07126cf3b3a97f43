//! What an image should be like.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ext2dax_format::Features;
use ext2dax_format::features::{Compat, Incompat, RoCompat};

/// Block size unless asked otherwise, at every size of the image.
pub const DEFAULT_BLOCK_SIZE: u32 = 4096;
/// Inode size unless asked otherwise.
pub const DEFAULT_INODE_SIZE: u32 = 256;
/// 2000-01-01 00:00:00 UTC: the time of images that must not depend on a clock, and never in the future.
pub const FIXED_TIME: u32 = 946_684_800;

/// How many inodes there should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inodes {
    /// One for so many bytes as mke2fs takes at this size: 8 KiB below 3 MiB, 4 KiB below 512 MiB, then 16 KiB, from
    /// 4 TiB on 32 KiB, from 16 TiB on 64 KiB; never less than a block.
    #[default]
    BySize,
    /// One for so many bytes.
    Ratio(u32),
    /// So many at least; rounded up to whole blocks of the inode tables.
    Count(u32),
}

/// Everything that shapes an image. Equal options and length make equal bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Bytes in a block: 1 to 64 KiB.
    pub block_size: u32,
    /// Bytes of an inode: a power of two from 128 to the block size. Revision 0 has 128 whatever stands here.
    pub inode_size: u32,
    /// Number of inodes.
    pub inodes: Inodes,
    /// Blocks in a group, if not the most that fit: a multiple of 8 from 256 on.
    pub blocks_per_group: Option<u32>,
    /// Volume name of up to 16 bytes.
    pub label: Vec<u8>,
    /// UUID, or one derived from the other options (version 5).
    pub uuid: Option<[u8; 16]>,
    /// Seed of directory hashes, or one derived from the UUID (version 5).
    pub hash_seed: Option<[u8; 16]>,
    /// Share of the blocks that only the reserved owner may take, in hundredths of a percent: 0 to 5,000.
    pub reserved_share: u32,
    /// Revision: 0 or 1.
    pub revision: u32,
    /// Feature words; ignored at revision 0, which has none.
    pub features: Features,
    /// Backups with `sparse_super2`: 0 to 2.
    pub backup_superblocks: u32,
    /// Descriptor blocks are reserved for growing to this many blocks, else to 1,024 times the size.
    pub resize_to: Option<u32>,
    /// Owner and group of the root directory.
    pub root_owner: (u32, u32),
    /// Permissions of the root directory.
    pub root_mode: u16,
    /// `s_errors`: 1 continue, 2 read-only, 3 panic.
    pub on_error: u16,
    /// `s_creator_os`.
    pub creator_os: u32,
    /// `s_last_mounted`, up to 63 bytes.
    pub last_mounted: Vec<u8>,
    /// `s_raid_stride` and `s_raid_stripe_width`, in blocks.
    pub raid: (u16, u32),
    /// Marks the file system as one for tests of drivers.
    pub test_fs: bool,
    /// Time of everything, in seconds since the epoch.
    pub time: u32,
    /// Blocks that nobody may use, ascending, each once. Those behind the end do not count.
    pub bad_blocks: Vec<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_size: DEFAULT_BLOCK_SIZE,
            inode_size: DEFAULT_INODE_SIZE,
            inodes: Inodes::BySize,
            blocks_per_group: None,
            label: Vec::new(),
            uuid: None,
            hash_seed: None,
            reserved_share: 500,
            revision: 1,
            features: default_features(),
            backup_superblocks: 2,
            resize_to: None,
            root_owner: (0, 0),
            root_mode: 0o755,
            on_error: 1,
            creator_os: 0,
            last_mounted: Vec::new(),
            raid: (0, 0),
            test_fs: false,
            time: FIXED_TIME,
            bad_blocks: Vec::new(),
        }
    }
}

impl Options {
    /// The defaults at a block size, inodes no larger than that.
    #[must_use]
    pub fn with_block_size(block_size: u32) -> Self {
        Self {
            block_size,
            ..Self::default()
        }
    }
}

/// The features of a new image unless asked otherwise: those of mke2fs for ext2.
#[must_use]
pub fn default_features() -> Features {
    Features {
        compat: Compat::EXT_ATTR | Compat::RESIZE_INODE | Compat::DIR_INDEX,
        incompat: Incompat::FILETYPE,
        ro_compat: RoCompat::SPARSE_SUPER | RoCompat::LARGE_FILE,
    }
}

/// The features that can be asked for.
#[must_use]
pub fn allowed_features() -> Features {
    let default = default_features();
    Features {
        compat: default.compat | Compat::SPARSE_SUPER2,
        incompat: default.incompat | Incompat::META_BG,
        ro_compat: default.ro_compat | RoCompat::EXTRA_ISIZE,
    }
}

/// Changes `features` as an `-O` list says: names set, `^name` clears, `none` clears all.
///
/// # Errors
/// [`Refusal::Feature`] for a name that is unknown or not for ext2.
pub fn edit_features(features: &mut Features, list: &str) -> Result<(), Refusal> {
    for word in list.split(',').filter(|word| !word.is_empty()) {
        if word == "none" {
            *features = Features::default();
            continue;
        }
        let (name, clear) = word
            .strip_prefix('^')
            .map_or((word, false), |name| (name, true));
        let refused = |known| Refusal::Feature {
            name: name.to_owned(),
            known,
        };
        let named = Features::by_name(name).ok_or(refused(false))?;
        if clear {
            features.compat.remove(named.compat);
            features.incompat.remove(named.incompat);
            features.ro_compat.remove(named.ro_compat);
            continue;
        }
        let allowed = allowed_features();
        let fits = allowed.compat.contains(named.compat)
            && allowed.incompat.contains(named.incompat)
            && allowed.ro_compat.contains(named.ro_compat);
        if !fits {
            return Err(refused(true));
        }
        features.compat.insert(named.compat);
        features.incompat.insert(named.incompat);
        features.ro_compat.insert(named.ro_compat);
    }
    Ok(())
}

/// Why an image cannot be made as asked. Nothing has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Block size is not a power of two from 1 to 64 KiB.
    BlockSize(u64),
    /// Inode size is not a power of two from 128 to the block size.
    InodeSize {
        /// As asked.
        found: u32,
        /// The block size.
        max: u32,
    },
    /// Blocks per group: a multiple of 8 in the range.
    BlocksPerGroup {
        /// As asked.
        found: u32,
        /// The most.
        max: u32,
    },
    /// More than half of the blocks reserved.
    ReservedShare(u32),
    /// Neither 0 nor 1.
    Revision(u32),
    /// Longer than its field.
    TooLong {
        /// What it is.
        what: &'static str,
        /// Bytes that fit.
        max: usize,
    },
    /// A feature that is unknown, or known and not one of ext2.
    Feature {
        /// Its name as given.
        name: String,
        /// Whether it exists elsewhere.
        known: bool,
    },
    /// Two features that exclude each other, or one that needs another.
    Together(&'static str),
    /// No inode, or more than the blocks could hold.
    Inodes {
        /// As asked or computed.
        wanted: u64,
        /// The most for this size and inode size.
        max: u64,
    },
    /// Fewer inodes asked for than there are files.
    TooFewInodes {
        /// As asked.
        wanted: u32,
        /// Reserved ones and one for each file.
        needed: u32,
    },
    /// More blocks than ext2 can count.
    TooManyBlocks(u64),
    /// Not enough blocks for tables, root directory and `lost+found`.
    TooSmall {
        /// KiB that the smallest image with these options takes, about.
        needed_kib: u64,
        /// KiB that there are.
        has_kib: u64,
    },
    /// Not enough blocks for the contents.
    ContentsTooLarge {
        /// KiB of the smallest image with these options.
        needed_kib: u64,
        /// KiB of those that files and directories take.
        data_kib: u64,
        /// Inodes in use.
        inodes: u32,
        /// KiB that there are.
        has_kib: u64,
    },
    /// The region is shorter than the plan.
    RegionTooShort {
        /// Bytes planned.
        planned: u64,
        /// Bytes that there are.
        len: u64,
    },
    /// The region cannot be written.
    NotWritable,
    /// More reserved descriptor blocks than the resize inode can name.
    ResizeTooLarge {
        /// Blocks asked for.
        wanted: u32,
        /// The most.
        max: u64,
    },
    /// A bad block where a superblock, its descriptors, or for want of room a table must be, or a list that does not
    /// ascend.
    BadBlock(u32),
    /// The medium failed while writing.
    Io,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BlockSize(size) => write!(
                f,
                "block size {size} is not a power of two from 1024 to 65536"
            ),
            Self::InodeSize { found, max } => {
                write!(
                    f,
                    "inode size {found} is not a power of two from 128 to {max}, the most with these blocks"
                )
            }
            Self::BlocksPerGroup { found, max } => {
                write!(
                    f,
                    "{found} blocks per group: must be a multiple of 8 from 256 to {max}"
                )
            }
            Self::ReservedShare(share) => {
                write!(
                    f,
                    "{}.{:02} % reserved blocks: must be 0 to 50",
                    share / 100,
                    share % 100
                )
            }
            Self::Revision(revision) => write!(f, "revision {revision}: must be 0 or 1"),
            Self::TooLong { what, max } => write!(f, "{what} is longer than {max} bytes"),
            Self::Feature { name, known: true } => write!(f, "-O {name}: not a feature of ext2"),
            Self::Feature { name, known: false } => write!(f, "-O {name}: unknown feature"),
            Self::Together(what) => f.write_str(what),
            Self::Inodes { wanted, max } => {
                write!(
                    f,
                    "{wanted} inodes: must be 1 to {max} at this size; see -i, -N and -I"
                )
            }
            Self::TooFewInodes { wanted, needed } => {
                write!(f, "needs {needed} inodes, -N {wanted} asks for fewer")
            }
            Self::TooManyBlocks(blocks) => {
                write!(
                    f,
                    "{blocks} blocks are more than ext2 can count (4294967295): use larger blocks (-b)"
                )
            }
            Self::TooSmall {
                needed_kib,
                has_kib,
            } => write!(
                f,
                "too small: needs {needed_kib} KiB with these options, has {has_kib}; \
                 smaller blocks (-b) or fewer inodes (-N) need less"
            ),
            Self::ContentsTooLarge {
                needed_kib,
                data_kib,
                inodes,
                has_kib,
            } => write!(
                f,
                "too small: needs {needed_kib} KiB ({data_kib} of contents, {} of tables and free space; \
                 {inodes} inodes), has {has_kib}",
                needed_kib - data_kib
            ),
            Self::RegionTooShort { planned, len } => {
                write!(f, "the plan takes {planned} bytes, the target has {len}")
            }
            Self::NotWritable => f.write_str("the target is read-only"),
            Self::ResizeTooLarge { wanted, max } => {
                write!(
                    f,
                    "-E resize={wanted}: must be more than the size and at most {max} blocks"
                )
            }
            Self::BadBlock(block) => write!(
                f,
                "block {block} is bad: superblocks, descriptors and tables have no other place in its group; other groups \
                 (-g) or fewer backups (-O sparse_super2) may do"
            ),
            Self::Io => f.write_str("the medium failed: input/output error"),
        }
    }
}

impl core::error::Error for Refusal {}
