//! Block trees: numbers out of range, on metadata, claimed twice; files with holes and sizes beyond everything.

use super::{Class, SIZES, class};
use crate::lab::Lab;

fn pointer(lab: &Lab, path: &str, index: usize) -> u64 {
    lab.get(lab.at(path) + 40 + index * 4, 4) as u64
}

/// Lets one file claim a block of another.
fn claim(lab: &mut Lab, path: &str, index: usize, from: &str, other: usize) {
    let block = pointer(lab, from, other);
    lab.inode(path, 40 + index * 4, 4, block);
}

#[rustfmt::skip]
pub(crate) const CLASSES: &[Class] = &[
    class("blocks out of range", SIZES, &["p1.block.out-of-range"], |lab| { lab.inode("/big", 40, 4, 0xFFF_FFFF); lab.inode("/big", 52, 4, 0); lab.inode("/plain", 40, 4, 0x7FFF_FFFF); }),
    class("too many blocks out of range", SIZES, &["p1.block.too-many-bad"], |lab| (0..15).for_each(|i| lab.inode("/big", 40 + i * 4, 4, 0xFFFF_0000 + i as u64))),
    class("indirect block of noise", SIZES, &["p1.block."], |lab| lab.fill(pointer(lab, "/big", 12), 0xE7)),
    class("indirect block in the inode table", SIZES, &["p1.block.indirect-metadata"], |lab| lab.inode("/big", 88, 4, lab.desc_get(0, 8) as u64 + 1)),
    class("triple indirect block in the inode table", SIZES, &["p1.block.indirect-metadata"], |lab| lab.inode("/big", 96, 4, lab.desc_get(0, 8) as u64)),
    class("indirect blocks that lead to themselves", SIZES, &[], |lab| { let block = pointer(lab, "/big", 12); lab.inode("/big", 96, 4, block); let at = usize::try_from(block).unwrap() * lab.target.block_size; lab.put(at + 40, 4, block); }),
    class("directory blocks on metadata", SIZES, &["p1b.block.shared"], |lab| {
        let first = lab.target.first as u64;
        lab.inode("/a", 44, 4, first + 1);
        lab.inode("/a", 48, 4, lab.desc_get(0, 0) as u64);
        lab.inode("/a", 52, 4, lab.desc_get(0, 8) as u64);
        lab.inode("/a", 4, 4, 4 * lab.target.block_size as u64);
    }),
    class("file on superblock, descriptors and bitmaps", SIZES, &["p1b.block.shared"], |lab| {
        let first = lab.target.first as u64;
        lab.inode("/plain", 40, 4, first);
        lab.inode("/big", 40, 4, first + 1);
        lab.inode("/big", 44, 4, lab.desc_get(0, 4) as u64);
    }),
    class("file on blocks reserved for descriptors", &["1k", "4k"], &["p1b.block.shared"], |lab| (0..4).for_each(|i| lab.inode("/big", 40 + i * 4, 4, lab.target.first as u64 + 2 + i as u64))),
    class("file on blocks reserved for descriptors, groups", &["groups"], &[], |lab| (0..4).for_each(|i| lab.inode("/big", 40 + i * 4, 4, lab.target.first as u64 + 2 + i as u64))),
    class("file on the resize inode's double block", SIZES, &[], |lab| { let block = lab.get(lab.target.inode(7) + 92, 4) as u64; if block != 0 { lab.inode("/plain", 40, 4, block); } else { claim(lab, "/plain", 0, "/big", 0); } }),
    class("two files, one block", SIZES, &["p1b.block.shared"], |lab| claim(lab, "/plain", 0, "/big", 3)),
    class("three files in a chain", SIZES, &["p1b.block.shared"], |lab| {
        claim(lab, "/plain", 0, "/big", 1);
        claim(lab, "/big", 2, "/a/b/c/deep", 0);
        claim(lab, "/big", 3, "/a/b/c/deep", 1);
    }),
    class("one file, the same block often", SIZES, &["p1b.block.shared"], |lab| (1..6).for_each(|i| claim(lab, "/big", i, "/big", 0))),
    class("file and directory, one block", SIZES, &["p1b.block.shared"], |lab| claim(lab, "/big", 5, "/a", 0)),
    class("two directories, one block", SIZES, &["p1b.block.shared"], |lab| claim(lab, "/a/b/c", 0, "/a/b", 0)),
    class("file's block is another's indirect block", SIZES, &["p1b.block.shared"], |lab| claim(lab, "/plain", 0, "/big", 12)),
    class("two files, one indirect block", SIZES, &["p1b.block.shared"], |lab| { claim(lab, "/plain", 12, "/big", 12); lab.inode("/plain", 4, 4, 20 * lab.target.block_size as u64); }),
    class("file's block is an attribute block", &["1k-128"], &["p1b.block.shared"], |lab| { let block = lab.get(lab.at("/plain") + 104, 4); lab.inode("/big", 48, 4, block as u64); }),
    class("link and file, one block", SIZES, &["p1b.block.shared"], |lab| claim(lab, "/big", 4, "/long-link", 0)),
    class("blocks past the end", SIZES, &["p1.block.past-size"], |lab| lab.inode("/big", 4, 4, 2048)),
    class("a block or two past the end", SIZES, &[], |lab| { let size = lab.get(lab.at("/a/b/c/deep") + 4, 4); lab.inode("/a/b/c/deep", 4, 4, size.saturating_sub(lab.target.block_size) as u64); }),
    class("file as large as can be", SIZES, &[], |lab| { lab.inode("/sparse", 4, 4, 0); lab.inode("/sparse", 108, 4, 3); }),
    class("file larger than can be", SIZES, &["p1.inode.size"], |lab| { lab.inode("/sparse", 4, 4, 0); lab.inode("/sparse", 108, 4, 0x0100_0000); }),
    class("sector counts wrong", SIZES, &["p1.inode.i-blocks"], |lab| { lab.inode("/plain", 28, 4, 0xFFFF_FFFF); lab.inode("/empty", 28, 4, 2); lab.inode("/a", 28, 4, 0); }),
    class("links with broken bodies", SIZES, &["p1.symlink.invalid"], |lab| { lab.inode("/long-link", 40, 4, 0xFFF_FFFF); lab.inode("/short-link", 4, 4, 59); }),
    class("link without its block", SIZES, &["p1.symlink.invalid"], |lab| lab.inode("/long-link", 40, 4, 0)),
    class("link on metadata", SIZES, &["p1.symlink.invalid"], |lab| lab.inode("/long-link", 40, 4, lab.desc_get(0, 8) as u64)),
    class("link with a second block", SIZES, &["p1.block.too-far"], |lab| lab.inode("/long-link", 44, 4, lab.free_block(0))),
    class("link with a NUL inside", SIZES, &["p1.symlink.invalid"], |lab| { let at = lab.block("/long-link", 40); lab.put(at + 10, 1, 0); }),
    class("link of size 0", SIZES, &["p1.symlink.invalid"], |lab| { lab.inode("/long-link", 4, 4, 0); lab.inode("/short-link", 4, 4, 0); }),
    class("link longer than a block", SIZES, &["p1.symlink.invalid"], |lab| { let at = lab.block("/long-link", 40); let size = lab.target.block_size; lab.target.bytes[at..at + size].fill(b'x'); lab.inode("/long-link", 4, 4, size as u64); }),
    class("link with flags of extents and index", SIZES, &["p1."], |lab| { lab.flag("/long-link", 0x8_0000); lab.flag("/short-link", 0x1000); }),
    class("short link with a sector count", SIZES, &[], |lab| lab.inode("/short-link", 28, 4, 2)),
];
