//! Why an image cannot be checked at all.

use std::fmt::{self, Display};

use crate::finding::Finding;
use crate::image::Image;
use crate::layout::Unfit;

/// Why an image cannot be checked. Nothing has been written.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The region is too short for a superblock.
    TooShort {
        /// Its length in bytes.
        len: u64,
    },
    /// No superblock at the usual places.
    NotExt2 {
        /// What the first bytes look like, if they look like anything.
        looks_like: Option<&'static str>,
    },
    /// No superblock at the place asked for.
    NoSuperblock {
        /// The block asked for.
        at: u64,
    },
    /// The superblock contradicts itself, and no backup can be used.
    BadSuperblock {
        /// What is wrong with it.
        findings: Vec<Finding>,
    },
    /// The region ends before the file system.
    TooLarge {
        /// `s_blocks_count`.
        blocks: u32,
        /// Bytes of a block.
        block_size: u32,
        /// Bytes of the region.
        len: u64,
    },
    /// Features of other file systems, all of them at once.
    Unsupported {
        /// Unknown bits of `s_feature_incompat`.
        incompat: u32,
        /// Unknown bits of `s_feature_ro_compat`.
        ro_compat: u32,
    },
    /// The image is mapped without write permission, and a repair was asked for.
    ReadOnly,
    /// A repair cannot know what everything belongs to.
    NotRepaired {
        /// Unknown bits of `s_feature_compat`.
        compat: u32,
        /// The journal wants to be replayed first.
        recovery: bool,
    },
    /// The list of bad blocks cannot be stored: no room for it, or the superblock and its descriptors are those of a backup.
    BadBlocks,
    /// Somebody asked to stop.
    Cancelled,
    /// The medium did not become durable: what was repaired may be lost.
    Sync,
    /// Free blocks cannot be given back.
    Discard {
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The undo file cannot be written. Nothing has been changed that it does not hold.
    Undo {
        /// The undo file.
        path: std::path::PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// There is not enough memory for the check.
    NoMemory {
        /// Bytes that it needs.
        needed: u64,
    },
    /// A revision that nobody has defined.
    Revision {
        /// `s_rev_level`.
        revision: u32,
    },
}

impl Error {
    pub(crate) fn from_unfit(why: &Unfit, image: &Image) -> Self {
        match *why {
            Unfit::Magic => Self::NotExt2 {
                looks_like: looks_like(image),
            },
            Unfit::Fields(ref findings) => Self::BadSuperblock {
                findings: findings.clone(),
            },
            Unfit::TooLarge { blocks, block_size } => Self::TooLarge {
                blocks,
                block_size,
                len: image.len(),
            },
            Unfit::Features {
                incompat,
                ro_compat,
            } => Self::Unsupported {
                incompat,
                ro_compat,
            },
            Unfit::Revision(revision) => Self::Revision { revision },
        }
    }
}

impl std::error::Error for Error {}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { len } => {
                write!(f, "{len} bytes, too short for a superblock (needs 2,048)")
            }
            Self::NotExt2 { looks_like } => {
                write!(f, "no ext2 superblock at 1024, and no backup of one")?;
                match looks_like {
                    Some(kind) => write!(f, "; it looks like {kind}"),
                    None => Ok(()),
                }
            }
            Self::NoSuperblock { at } => write!(f, "no superblock at block {at}"),
            Self::BadSuperblock { findings } => {
                write!(f, "the superblock cannot be used:")?;
                for finding in findings {
                    write!(f, " {};", finding.text())?;
                }
                write!(f, " no backup can be used either")
            }
            Self::TooLarge {
                blocks,
                block_size,
                len,
            } => {
                let missing = (u64::from(*blocks) * u64::from(*block_size)).saturating_sub(*len);
                let missing = missing.div_ceil(u64::from(*block_size));
                write!(
                    f,
                    "s_blocks_count {blocks} x {block_size} > image {len} bytes; {missing} blocks are missing"
                )
            }
            Self::Unsupported {
                incompat,
                ro_compat,
            } => {
                write!(f, "unsupported features:")?;
                let incompat = ext2dax_format::Incompat::from_bits_retain(*incompat);
                let ro_compat = ext2dax_format::RoCompat::from_bits_retain(*ro_compat);
                write!(f, " {} (use e2fsck)", names(incompat, ro_compat))
            }
            Self::ReadOnly => write!(f, "mapped read-only: nothing can be repaired"),
            Self::NotRepaired { compat, .. } if *compat != 0 => {
                let compat = ext2dax_format::Compat::from_bits_retain(*compat);
                let features = ext2dax_format::Features {
                    compat,
                    ..Default::default()
                };
                write!(f, "not repaired: unknown features: {}", features.names(" "))
            }
            Self::NotRepaired { .. } => write!(
                f,
                "not repaired: the journal has to be replayed first (`e2fsck -E journal_only` does it)"
            ),
            Self::BadBlocks => write!(
                f,
                "the list of bad blocks cannot be stored: it needs free blocks and a sound primary superblock (repair first)"
            ),
            Self::Cancelled => write!(f, "cancelled"),
            Self::Sync => write!(f, "the repairs could not be made durable"),
            Self::Discard { source } => write!(f, "free blocks cannot be given back: {source}"),
            Self::Undo { path, source } => {
                write!(f, "undo file {}: {source}", path.display())
            }
            Self::NoMemory { needed } => write!(
                f,
                "not enough memory: the check needs {} MiB",
                needed.div_ceil(1 << 20)
            ),
            Self::Revision { revision } => write!(f, "unknown revision {revision}"),
        }
    }
}

/// What an image without a superblock is, going by its first bytes.
fn looks_like(image: &Image) -> Option<&'static str> {
    let len = usize::try_from(image.len()).unwrap_or(usize::MAX);
    let mut head = vec![0; len.min(1 << 16)];
    image.read(0, &mut head);
    let printable = |&byte: &u8| byte >= b' ' || byte.is_ascii_whitespace();
    let is_text = || {
        head.get(..256)
            .is_some_and(|start| start.iter().all(printable))
    };
    ext2dax_format::signature::looks_like(&head).or_else(|| is_text().then_some("text"))
}

fn names(incompat: ext2dax_format::Incompat, ro_compat: ext2dax_format::RoCompat) -> String {
    let features = ext2dax_format::Features {
        compat: ext2dax_format::Compat::empty(),
        incompat,
        ro_compat,
    };
    features.names(" ").to_string()
}
