//! The three feature words: which bits are known, what this project does with each, and their names.
//!
//! The names are those that e2fsprogs prints. A bit without a name prints as `FEATURE_C15`, `FEATURE_I23` or
//! `FEATURE_R20`: word and bit number.

use core::fmt;

use bitflags::bitflags;

use crate::{Error, RawSuperblock, Result};

bitflags! {
    /// `s_feature_compat`: safe to read and write without knowing them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Compat: u32 {
        /// Blocks are set aside for growing directories.
        const DIR_PREALLOC = 0x0001;
        /// AFS server inodes.
        const IMAGIC_INODES = 0x0002;
        /// A journal exists; clean, it is ignored and left alone.
        const HAS_JOURNAL = 0x0004;
        /// Extended attributes may exist.
        const EXT_ATTR = 0x0008;
        /// Inode 7 owns descriptor blocks reserved for growing.
        const RESIZE_INODE = 0x0010;
        /// Directories may carry a hash index.
        const DIR_INDEX = 0x0020;
        /// Uninitialised block groups of old.
        const LAZY_BG = 0x0040;
        /// Snapshots of old.
        const EXCLUDE_BITMAP = 0x0100;
        /// At most two backup superblocks, in the groups of `s_backup_bgs`.
        const SPARSE_SUPER2 = 0x0200;
        /// Fast commits of the journal.
        const FAST_COMMIT = 0x0400;
        /// Inode numbers and the UUID must not change.
        const STABLE_INODES = 0x0800;
        /// Orphans are listed in a file.
        const ORPHAN_FILE = 0x1000;
        /// Unknown bits are kept.
        const _ = !0;
    }

    /// `s_feature_incompat`: whoever does not know one of these must not open the file system.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Incompat: u32 {
        /// Compressed files.
        const COMPRESSION = 0x0001;
        /// Directory entries carry the type of their inode.
        const FILETYPE = 0x0002;
        /// The journal must be replayed first.
        const RECOVER = 0x0004;
        /// This is a journal, not a file system.
        const JOURNAL_DEV = 0x0008;
        /// Descriptor blocks lie in the groups that they describe, from group block `s_first_meta_bg` on.
        const META_BG = 0x0010;
        /// Extents instead of indirect blocks.
        const EXTENTS = 0x0040;
        /// 64-bit block numbers, longer descriptors.
        const BIT64 = 0x0080;
        /// Multiple mount protection.
        const MMP = 0x0100;
        /// A group's tables may lie in another group.
        const FLEX_BG = 0x0200;
        /// Attribute values in inodes of their own.
        const EA_INODE = 0x0400;
        /// More than a type behind a name.
        const DIRDATA = 0x1000;
        /// Seed of checksums in the superblock.
        const CSUM_SEED = 0x2000;
        /// Three levels of directory index.
        const LARGEDIR = 0x4000;
        /// Contents in the inode.
        const INLINE_DATA = 0x8000;
        /// Encrypted files.
        const ENCRYPT = 0x1_0000;
        /// Case-insensitive directories.
        const CASEFOLD = 0x2_0000;
        /// Unknown bits are kept.
        const _ = !0;
    }

    /// `s_feature_ro_compat`: whoever does not know one of these may read and must not write.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RoCompat: u32 {
        /// Backups only in groups 0, 1 and powers of 3, 5 and 7.
        const SPARSE_SUPER = 0x0001;
        /// A file of 2 GiB or more exists.
        const LARGE_FILE = 0x0002;
        /// Never used; accepted as the Linux ext2 driver does.
        const BTREE_DIR = 0x0004;
        /// `i_blocks` may count blocks and have 48 bits.
        const HUGE_FILE = 0x0008;
        /// Descriptors carry checksums, tables may be uninitialised.
        const GDT_CSUM = 0x0010;
        /// A directory's link count of 1 means "not counted".
        const DIR_NLINK = 0x0020;
        /// Every inode has `s_min_extra_isize` bytes beyond 128.
        const EXTRA_ISIZE = 0x0040;
        /// Snapshots of old.
        const HAS_SNAPSHOT = 0x0080;
        /// Quota files are kept up to date.
        const QUOTA = 0x0100;
        /// Bitmaps count clusters of blocks.
        const BIGALLOC = 0x0200;
        /// Everything carries a checksum.
        const METADATA_CSUM = 0x0400;
        /// Replicas of old.
        const REPLICA = 0x0800;
        /// Never to be written again.
        const READONLY = 0x1000;
        /// Project quotas.
        const PROJECT = 0x2000;
        /// Blocks belong to several files.
        const SHARED_BLOCKS = 0x4000;
        /// Files with a hash tree.
        const VERITY = 0x8000;
        /// The orphan file is not empty.
        const ORPHAN_PRESENT = 0x1_0000;
        /// Unknown bits are kept.
        const _ = !0;
    }
}

/// Features that change the layout in ways this project knows. `RECOVER` does not change the layout: it is refused
/// when opening, not when computing the geometry.
pub const INCOMPAT_LAYOUT: Incompat = Incompat::FILETYPE
    .union(Incompat::META_BG)
    .union(Incompat::RECOVER);

/// Features under which this project writes.
pub const RO_COMPAT_WRITE: RoCompat = RoCompat::SPARSE_SUPER
    .union(RoCompat::LARGE_FILE)
    .union(RoCompat::BTREE_DIR)
    .union(RoCompat::DIR_NLINK)
    .union(RoCompat::EXTRA_ISIZE);

/// Compat features whose blocks a checker can account for; any other may own blocks that look leaked.
pub const COMPAT_KNOWN: Compat = Compat::DIR_PREALLOC
    .union(Compat::IMAGIC_INODES)
    .union(Compat::HAS_JOURNAL)
    .union(Compat::EXT_ATTR)
    .union(Compat::RESIZE_INODE)
    .union(Compat::DIR_INDEX)
    .union(Compat::SPARSE_SUPER2)
    .union(Compat::FAST_COMMIT)
    .union(Compat::STABLE_INODES)
    .union(Compat::ORPHAN_FILE);

type Names = [(u32, &'static str)];

const COMPAT_NAMES: [(u32, &str); 12] = [
    (0x0001, "dir_prealloc"),
    (0x0002, "imagic_inodes"),
    (0x0004, "has_journal"),
    (0x0008, "ext_attr"),
    (0x0010, "resize_inode"),
    (0x0020, "dir_index"),
    (0x0040, "lazy_bg"),
    (0x0100, "snapshot_bitmap"),
    (0x0200, "sparse_super2"),
    (0x0400, "fast_commit"),
    (0x0800, "stable_inodes"),
    (0x1000, "orphan_file"),
];

const INCOMPAT_NAMES: [(u32, &str); 16] = [
    (0x0001, "compression"),
    (0x0002, "filetype"),
    (0x0004, "needs_recovery"),
    (0x0008, "journal_dev"),
    (0x0010, "meta_bg"),
    (0x0040, "extent"),
    (0x0080, "64bit"),
    (0x0100, "mmp"),
    (0x0200, "flex_bg"),
    (0x0400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x2000, "metadata_csum_seed"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];

const RO_COMPAT_NAMES: [(u32, &str); 16] = [
    (0x0001, "sparse_super"),
    (0x0002, "large_file"),
    (0x0008, "huge_file"),
    (0x0010, "uninit_bg"),
    (0x0020, "dir_nlink"),
    (0x0040, "extra_isize"),
    (0x0080, "snapshot"),
    (0x0100, "quota"),
    (0x0200, "bigalloc"),
    (0x0400, "metadata_csum"),
    (0x0800, "replica"),
    (0x1000, "read-only"),
    (0x2000, "project"),
    (0x4000, "shared_blocks"),
    (0x8000, "verity"),
    (0x1_0000, "orphan_present"),
];

/// The three feature words of a superblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// Safe to ignore.
    pub compat: Compat,
    /// Must be known to open.
    pub incompat: Incompat,
    /// Must be known to write.
    pub ro_compat: RoCompat,
}

impl Features {
    /// The words as they stand, at revision 0 too: old kernels set them there.
    #[must_use]
    pub fn of(superblock: &RawSuperblock) -> Self {
        Self {
            compat: Compat::from_bits_retain(superblock.s_feature_compat.get()),
            incompat: Incompat::from_bits_retain(superblock.s_feature_incompat.get()),
            ro_compat: RoCompat::from_bits_retain(superblock.s_feature_ro_compat.get()),
        }
    }

    /// Whether the layout is one that [`Geometry`](crate::Geometry) can compute. A journal that wants replay is no
    /// obstacle: this is what a read-only open with `norecovery` asks.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with every offending bit.
    pub fn check_layout(self) -> Result<()> {
        refuse(self.incompat.difference(INCOMPAT_LAYOUT), RoCompat::empty())
    }

    /// Whether the file system may be opened for reading.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with every offending bit.
    pub fn check_open(self) -> Result<()> {
        refuse(
            self.incompat
                .difference(INCOMPAT_LAYOUT.difference(Incompat::RECOVER)),
            RoCompat::empty(),
        )
    }

    /// Whether the file system may be opened for writing.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with every offending bit of both words.
    pub fn check_write(self) -> Result<()> {
        refuse(
            self.incompat
                .difference(INCOMPAT_LAYOUT.difference(Incompat::RECOVER)),
            self.ro_compat.difference(RO_COMPAT_WRITE),
        )
    }

    /// The compat bits that a checker does not know: they may own blocks that look leaked, so nothing is repaired.
    #[must_use]
    pub fn unknown_compat(self) -> Compat {
        self.compat.difference(COMPAT_KNOWN)
    }

    /// The feature that e2fsprogs calls `name`, in the word where it belongs. `extents` is `extent`, as there.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let find = |names: &[(u32, &str)], name: &str| {
            names
                .iter()
                .find(|&&(_, known)| known == name)
                .map(|&(bit, _)| bit)
        };
        let name = match name {
            "extents" => "extent",
            other => other,
        };
        let mut found = Self::default();
        if let Some(bit) = find(&COMPAT_NAMES, name) {
            found.compat = Compat::from_bits_retain(bit);
        } else if let Some(bit) = find(&INCOMPAT_NAMES, name) {
            found.incompat = Incompat::from_bits_retain(bit);
        } else if let Some(bit) = find(&RO_COMPAT_NAMES, name) {
            found.ro_compat = RoCompat::from_bits_retain(bit);
        } else {
            return None;
        }
        Some(found)
    }

    /// Names of all features set, separated by `separator`: compat, then incompat, then ro_compat.
    #[must_use]
    pub const fn names(self, separator: &'static str) -> FeatureNames {
        FeatureNames {
            words: self,
            separator,
        }
    }
}

fn refuse(incompat: Incompat, ro_compat: RoCompat) -> Result<()> {
    if incompat.is_empty() && ro_compat.is_empty() {
        Ok(())
    } else {
        Err(Error::Unsupported {
            incompat: incompat.bits(),
            ro_compat: ro_compat.bits(),
        })
    }
}

/// Displays the names of features; see [`Features::names`].
#[derive(Clone, Copy, Debug)]
pub struct FeatureNames {
    words: Features,
    separator: &'static str,
}

impl fmt::Display for FeatureNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: [(u32, char, &Names); 3] = [
            (self.words.compat.bits(), 'C', &COMPAT_NAMES),
            (self.words.incompat.bits(), 'I', &INCOMPAT_NAMES),
            (self.words.ro_compat.bits(), 'R', &RO_COMPAT_NAMES),
        ];
        let mut separator = "";
        for (word, letter, names) in words {
            for nr in 0..32_u32 {
                let bit = 1_u32 << nr;
                if word & bit == 0 {
                    continue;
                }
                f.write_str(separator)?;
                separator = self.separator;
                match names.iter().find(|&&(known, _)| known == bit) {
                    Some((_, name)) => f.write_str(name)?,
                    None => write!(f, "FEATURE_{letter}{nr}")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offending_bit_is_named_at_once() {
        let features = Features {
            compat: Compat::from_bits_retain(1 << 15),
            incompat: Incompat::EXTENTS | Incompat::FILETYPE | Incompat::from_bits_retain(1 << 23),
            ro_compat: RoCompat::METADATA_CSUM
                | RoCompat::LARGE_FILE
                | RoCompat::from_bits_retain(1 << 20),
        };
        let open = features.check_open().unwrap_err().to_string();
        assert_eq!(
            open,
            "cannot be opened: unsupported features extent, FEATURE_I23"
        );
        let write = features.check_write().unwrap_err().to_string();
        assert_eq!(
            write,
            "cannot be opened: unsupported features extent, FEATURE_I23, metadata_csum, FEATURE_R20"
        );
        let readable = Features {
            incompat: Incompat::FILETYPE,
            ..features
        };
        assert_eq!(readable.check_open(), Ok(()));
        let write = readable.check_write().unwrap_err().to_string();
        assert_eq!(
            write,
            "cannot be opened for writing: unsupported features metadata_csum, FEATURE_R20 (read-only works)"
        );
        assert_eq!(
            features.names(",").to_string().split(',').next(),
            Some("FEATURE_C15")
        );
        assert_eq!(features.unknown_compat().bits(), 1 << 15);
    }

    #[test]
    fn a_journal_to_replay_refuses_opening_but_has_a_layout() {
        let features = Features {
            incompat: Incompat::RECOVER,
            ..Features::default()
        };
        assert_eq!(features.check_layout(), Ok(()));
        assert_eq!(
            features.check_open(),
            Err(Error::Unsupported {
                incompat: 4,
                ro_compat: 0
            })
        );
    }

    #[test]
    fn names_lead_back_to_bits() {
        for (names, word) in [
            (&COMPAT_NAMES[..], 0),
            (&INCOMPAT_NAMES[..], 1),
            (&RO_COMPAT_NAMES[..], 2),
        ] {
            for &(bit, name) in names {
                let found = Features::by_name(name).unwrap();
                let words = [
                    found.compat.bits(),
                    found.incompat.bits(),
                    found.ro_compat.bits(),
                ];
                assert_eq!(words[word], bit, "{name}");
                assert_eq!(found.names(",").to_string(), name);
            }
        }
        assert_eq!(Features::by_name("extents"), Features::by_name("extent"));
        assert_eq!(Features::by_name("nonsense"), None);
    }
}
