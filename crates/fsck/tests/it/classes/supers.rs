//! Superblocks: what is wrong with them, and what they say of features that do not go together.

use super::{Class, SIZES, class};

#[rustfmt::skip]
pub(crate) const CLASSES: &[Class] = &[
    class("inode size 0, backup good", &["groups"], &["p0.super.field"], |lab| lab.sb(88, 2, 0)),
    class("superblock of zeros, backup good", &["groups"], &["p0.super.magic"], |lab| lab.target.bytes[1024..2048].fill(0)),
    class("superblock of zeros, no backup", SIZES, &[], |lab| lab.target.bytes[1024..2048].fill(0)),
    class("superblock says nonsense, no backup", SIZES, &[], |lab| { lab.sb(32, 4, 0); lab.sb(40, 4, 0); }),
    class("log block size out of range, no backup", SIZES, &[], |lab| lab.sb(24, 4, 99)),
    class("first meta group too far", &["meta-bg"], &[], |lab| lab.sb(260, 4, 1000)),
    class("first meta group too far, no backup", &["meta-bg"], &["p0.super.first-meta-bg"], |lab| { lab.lose_backups(); lab.sb(260, 4, 1000); }),
    class("first meta group where there is one", &["meta-bg"], &[], |lab| lab.sb(260, 4, 1)),
    class("resize inode beside meta_bg", &["meta-bg"], &[], |lab| lab.sb(92, 4, lab.sb_get(92, 4) | 0x10)),
    class("meta_bg beside the resize inode", &["groups"], &[], |lab| lab.sb(96, 4, lab.sb_get(96, 4) | 0x10)),
    class("meta_bg beside the resize inode, no backup", SIZES, &[], |lab| lab.sb(96, 4, lab.sb_get(96, 4) | 0x10)),
    class("no reserved descriptors", SIZES, &[], |lab| lab.sb(206, 2, 0)),
    class("one reserved descriptor less", SIZES, &[], |lab| lab.sb(206, 2, lab.sb_get(206, 2).saturating_sub(1))),
    class("one reserved descriptor more", SIZES, &[], |lab| lab.sb(206, 2, lab.sb_get(206, 2) + 1)),
    class("very many reserved descriptors", SIZES, &[], |lab| lab.sb(206, 2, 0xFFFF)),
    class("as many reserved descriptors as can be", SIZES, &[], |lab| lab.sb(206, 2, lab.target.block_size as u64 / 4)),
    class("many reserved descriptors, backup good", &["groups"], &[], |lab| lab.sb(206, 2, 0x3FFF)),
    class("descriptor size of 64 bytes", SIZES, &[], |lab| lab.sb(254, 2, 64)),
    class("descriptor size of 48 bytes", &["1k", "groups"], &[], |lab| lab.sb(254, 2, 48)),
    class("no UUID", SIZES, &[], |lab| lab.target.bytes[1024 + 104..1024 + 120].fill(0)),
    class("more blocks reserved than there are", SIZES, &[], |lab| lab.sb(8, 4, 0xFF_FFFF)),
    class("more blocks free than there are", SIZES, &[], |lab| { lab.sb(12, 4, 0xFF_FFFF); lab.sb(16, 4, 0xFF_FFFF); }),
    class("times in the future", SIZES, &[], |lab| { lab.sb(44, 4, 0xF000_0000); lab.sb(48, 4, 0xF000_0000); }),
    class("first inode inside the reserved ones", &["1k", "groups"], &[], |lab| lab.sb(84, 4, 5)),
    class("inode count off by a group", SIZES, &[], |lab| lab.sb(0, 4, lab.sb_get(0, 4) * 2)),
    class("block count larger than the image", SIZES, &[], |lab| lab.sb(4, 4, lab.sb_get(4, 4) + 8)),
    class("block count smaller than the image", SIZES, &[], |lab| lab.sb(4, 4, lab.sb_get(4, 4) - 8)),
    class("not unmounted, errors seen", SIZES, &[], |lab| lab.sb(58, 2, 2)),
    class("imagic file system", SIZES, &[], |lab| { lab.sb(92, 4, lab.sb_get(92, 4) | 2); lab.flag("/plain", 0x2000); lab.flag("/a", 0x2000); }),
];
