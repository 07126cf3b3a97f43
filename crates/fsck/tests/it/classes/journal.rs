//! Journals of ext3: images that have one that is no good, one that should not be there, one elsewhere, one to replay.

use super::{Class, class};
use crate::lab::Lab;

const JOURNAL: &[&str] = &["journal"];

fn journal_word(lab: &mut Lab, offset: usize, value: u64) {
    let block = lab.get(lab.target.inode(8) + 40, 4);
    lab.put(block * lab.target.block_size + offset, 4, value);
}

/// Puts the right checksum over a journal's superblock, stored as every word there with the highest byte first.
fn seal(lab: &mut Lab) {
    journal_word(lab, 252, 0);
    let at = lab.get(lab.target.inode(8) + 40, 4) * lab.target.block_size;
    let sum = lab.target.bytes[at..at + 1024]
        .iter()
        .fold(u32::MAX, |sum, &byte| {
            (0..8).fold(sum ^ u32::from(byte), |sum, _| {
                (sum >> 1) ^ ((sum & 1) * 0x82F6_3B78)
            })
        });
    journal_word(lab, 252, sum.swap_bytes().into());
}

/// A journal with these features (`s_feature_compat`, `s_feature_incompat`), this type of checksum, and a checksum that is right.
fn sealed(lab: &mut Lab, compat: u32, incompat: u32, kind: u64) {
    journal_word(lab, 36, compat.swap_bytes().into());
    journal_word(lab, 40, incompat.swap_bytes().into());
    journal_word(lab, 80, kind);
    seal(lab);
}

#[rustfmt::skip]
pub(crate) const CLASSES: &[Class] = &[
    class("journal whose blocks are out of range", JOURNAL, &["p0.journal.missing"], |lab| lab.numbered(8, 40, 4, 0xFFF_FFFF)),
    class("journal whose tenth block is out of range", JOURNAL, &["p0.journal.missing"], |lab| lab.numbered(8, 80, 4, 0xFFF_FFFF)),
    class("journal whose indirect block is out of range", JOURNAL, &["p0.journal.missing"], |lab| lab.numbered(8, 88, 4, 0xFFF_FFFF)),
    class("journal whose double indirect block is out of range", JOURNAL, &["p0.journal.missing"], |lab| lab.numbered(8, 92, 4, 0xFFF_FFFF)),
    class("journal inode cleared", JOURNAL, &["p0.journal.missing"], |lab| { let at = lab.target.inode(8); lab.target.bytes[at..at + 128].fill(0); }),
    class("journal inode without links", JOURNAL, &["p0.journal.missing"], |lab| lab.numbered(8, 26, 2, 0)),
    class("journal inode is a directory", JOURNAL, &["p1.journal.mode"], |lab| lab.numbered(8, 0, 2, 0o040_755)),
    class("journal without magic", JOURNAL, &["p0.journal.missing"], |lab| journal_word(lab, 0, 0)),
    class("journal of zeros", JOURNAL, &["p0.journal.missing"], |lab| { let block = lab.get(lab.target.inode(8) + 40, 4) as u64; lab.fill(block, 0); }),
    class("journal with a strange block type", JOURNAL, &[], |lab| journal_word(lab, 4, 0x0900_0000)),
    class("journal with another block size", JOURNAL, &[], |lab| journal_word(lab, 12, 0x0010_0000)),
    class("journal longer than its inode", JOURNAL, &[], |lab| journal_word(lab, 16, 0xFFFF_0000)),
    class("journal shorter than its inode", JOURNAL, &[], |lab| journal_word(lab, 16, 0x0001_0000)),
    class("journal with features unknown", JOURNAL, &[], |lab| journal_word(lab, 40, 0x0000_0080)),
    class("journal with a checksum", JOURNAL, &[], |lab| sealed(lab, 0, 8, 4)),
    class("journal with a checksum of the third way", JOURNAL, &[], |lab| sealed(lab, 0, 0x10, 4)),
    class("journal with a wrong checksum", JOURNAL, &["p0.journal.superblock"], |lab| { sealed(lab, 0, 8, 4); journal_word(lab, 252, 9); }),
    class("journal with a wrong checksum of the third way", JOURNAL, &["p0.journal.superblock"], |lab| journal_word(lab, 40, 0x1000_0000)),
    class("journal with a checksum in two ways", JOURNAL, &["p0.journal.superblock"], |lab| sealed(lab, 0, 0x18, 4)),
    class("journal with an old checksum and a new one", JOURNAL, &["p0.journal.superblock"], |lab| sealed(lab, 1, 8, 4)),
    class("journal with a checksum of another type", JOURNAL, &["p0.journal.superblock"], |lab| sealed(lab, 0, 8, 1)),
    class("journal with a checksum and an error number", JOURNAL, &["p0.journal.superblock"], |lab| { journal_word(lab, 32, 0x0500_0000); sealed(lab, 0, 8, 4); }),
    class("journal without room for fast commits", JOURNAL, &["p0.journal.superblock"], |lab| journal_word(lab, 40, 0x2000_0000)),
    class("journal with one block for fast commits too many", JOURNAL, &["p0.journal.superblock"], |lab| { journal_word(lab, 40, 0x2000_0000); journal_word(lab, 84, 0x0100_0000); }),
    class("journal of many file systems", JOURNAL, &["p0.journal.superblock"], |lab| journal_word(lab, 64, 0x0200_0000)),
    class("journal of many file systems with features unknown", JOURNAL, &["p0.journal.superblock"], |lab| { journal_word(lab, 64, 0x0200_0000); journal_word(lab, 40, 0x0000_0080); }),
    class("journal of many file systems, to replay", JOURNAL, &["p0.journal.superblock"], |lab| { journal_word(lab, 64, 0x0200_0000); lab.sb(96, 4, lab.sb_get(96, 4) | 4); }),
    class("journal without room for fast commits, to replay", JOURNAL, &["p0.journal.superblock"], |lab| { journal_word(lab, 40, 0x2000_0000); lab.sb(96, 4, lab.sb_get(96, 4) | 4); }),
    class("journal with an error number", JOURNAL, &[], |lab| journal_word(lab, 32, 0x0500_0000)),
    class("journal number of another inode", JOURNAL, &["p0.journal.missing"], |lab| lab.sb(224, 4, lab.ino("/big"))),
    class("journal without the feature", JOURNAL, &["p0.journal.unexpected"], |lab| lab.sb(92, 4, lab.sb_get(92, 4) & !4)),
    class("journal to replay without the feature", JOURNAL, &["p0.journal.unexpected"], |lab| { lab.sb(92, 4, lab.sb_get(92, 4) & !4); lab.sb(96, 4, lab.sb_get(96, 4) | 4); }),
    class("journal inode without feature and number", JOURNAL, &["p1.journal.not-clear"], |lab| { lab.sb(92, 4, lab.sb_get(92, 4) & !4); lab.sb(224, 4, 0); }),
    class("feature without number", JOURNAL, &["p0.journal.missing"], |lab| lab.sb(224, 4, 0)),
    class("journal elsewhere, no feature", &["1k"], &["p0.journal.unexpected"], |lab| lab.sb(228, 4, 0x0801)),
    class("journal elsewhere", &["1k"], &[], |lab| { lab.sb(92, 4, lab.sb_get(92, 4) | 4); lab.sb(228, 4, 0x0801); lab.sb(208, 4, 0x1234_5678); }),
    class("journal here and elsewhere", JOURNAL, &[], |lab| { lab.sb(228, 4, 0x0801); lab.sb(208, 4, 0x1234_5678); }),
    class("journal to replay, empty", JOURNAL, &[], |lab| lab.sb(96, 4, lab.sb_get(96, 4) | 4)),
    class("journal to replay, of noise", JOURNAL, &[], |lab| { lab.sb(96, 4, lab.sb_get(96, 4) | 4); journal_word(lab, 24, 0x0100_0000); journal_word(lab, 28, 0x0100_0000); }),
    class("journal with something in it, flag clear", JOURNAL, &[], |lab| journal_word(lab, 28, 0x0100_0000)),
    class("journal to replay whose superblock is corrupt", JOURNAL, &["p0.journal.superblock"], |lab| { lab.sb(96, 4, lab.sb_get(96, 4) | 4); journal_word(lab, 12, 0x0010_0000); }),
    class("journal to replay that is gone", JOURNAL, &["p0.journal.missing"], |lab| { lab.sb(96, 4, lab.sb_get(96, 4) | 4); lab.numbered(8, 40, 4, 0xFFF_FFFF); }),
    class("journal as a file with a name", JOURNAL, &[], |lab| {
        let (from, to) = (lab.target.inode(8), lab.at("/empty"));
        lab.target.bytes.copy_within(from..from + 128, to);
        lab.target.bytes[from..from + 128].fill(0);
        lab.sb(224, 4, lab.ino("/empty"));
    }),
    class("journal blocks of a file", JOURNAL, &["p1b.block.shared"], |lab| { let block = lab.get(lab.target.inode(8) + 44, 4); lab.inode("/big", 40, 4, block as u64); }),
    class("journal not marked in the bitmap", JOURNAL, &["p5.block.unmarked"], |lab| { let block = lab.get(lab.target.inode(8) + 44, 4); lab.flip(0, block - 1); }),
];
