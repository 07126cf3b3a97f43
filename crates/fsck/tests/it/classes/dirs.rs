//! Directories as blocks: holes, damaged entries, indexes, the root.

use super::{Class, SIZES, class};
use crate::lab::Lab;

const INDEXED: &[&str] = &["1k", "4k"];
/// With blocks of 64 KiB a length means something else.
const LENGTHS: &[&str] = &["1k-128", "1k", "4k", "64k"];

/// Lets a directory of at least 12 blocks have `blocks` of them in `i_block`, 0 for a hole.
fn holes(lab: &mut Lab, path: &str, at: &[usize]) {
    for &index in at {
        lab.inode(path, 40 + index * 4, 4, 0);
    }
}

fn index(lab: &mut Lab, offset: usize, width: usize, value: u64) {
    let at = lab.block("/many", 40) + offset;
    lab.put(at, width, value);
}

#[rustfmt::skip]
pub(crate) const CLASSES: &[Class] = &[
    class("directory with holes", SIZES, &["p2.dir.hole"], |lab| { holes(lab, "/many", &[1]); let size = lab.get(lab.at("/many") + 4, 4); let blocks = size / lab.target.block_size; holes(lab, "/many", &[blocks - 1]); }),
    class("directory with holes and a block out of range", SIZES, &["p2.dir.hole", "p1.block.out-of-range"], |lab| { holes(lab, "/lost+found", &[0, 3]); lab.inode("/lost+found", 48, 4, 200_000); }),
    class("directory without its first block", SIZES, &["p2.dir.hole"], |lab| holes(lab, "/many", &[0])),
    class("directory with nothing but its size", SIZES, &["p1.dir.empty"], |lab| (0..15).for_each(|i| lab.inode("/a/b/c", 40 + i * 4, 4, 0))),
    class("directory far larger than its blocks", SIZES, &["p1.dir.size"], |lab| lab.inode("/a", 4, 4, 12 * lab.target.block_size as u64)),
    class("directory with a block far away", SIZES, &["p2.dir.hole"], |lab| { let block = lab.free_block(0); lab.fill(block, 0); lab.inode("/a", 40 + 8 * 4, 4, block); lab.inode("/a", 4, 4, 9 * lab.target.block_size as u64); }),
    class("directory with an indirect block behind holes", SIZES, &[], |lab| {
        let (block, leaf) = (lab.free_block(0), lab.free_block(1));
        lab.fill(block, 0);
        lab.fill(leaf, 0);
        let at = usize::try_from(block).unwrap() * lab.target.block_size;
        lab.put(at + 4 * 100, 4, leaf);
        lab.inode("/a", 40 + 48, 4, block);
    }),
    class("entry longer than its block", LENGTHS, &["p2.entry.corrupt"], |lab| { let at = lab.entry("/", "empty"); lab.put(at + 4, 2, 0xFFFC); }),
    class("entry too short for its name", LENGTHS, &["p2.entry.corrupt"], |lab| { let at = lab.entry("/", "second-name"); lab.put(at + 4, 2, 12); }),
    class("entry with an odd length", LENGTHS, &["p2.entry.corrupt"], |lab| { let at = lab.entry("/", "big"); lab.put(at + 4, 2, 17); }),
    class("entry of length 0 in the middle", SIZES, &["p2.entry.corrupt"], |lab| { let at = lab.entry("/", "plain"); lab.put(at + 4, 2, 0); }),
    class("last entry ends early", LENGTHS, &["p2.entry.corrupt"], |lab| { let at = lab.block("/a", 40); let last = lab.entry("/a", "b"); let size = lab.target.block_size; lab.put(last + 4, 2, (at + size - last - 8) as u64); }),
    class("directory block of zeros", SIZES, &["p2."], |lab| lab.fill((lab.block("/many", 44) / lab.target.block_size) as u64, 0)),
    class("first directory block of zeros", SIZES, &["p2."], |lab| lab.fill((lab.block("/a", 40) / lab.target.block_size) as u64, 0)),
    class("directory block of noise", SIZES, &["p2."], |lab| lab.fill((lab.block("/a/b", 40) / lab.target.block_size) as u64, 0x5B)),
    class("root directory of zeros", SIZES, &["p2."], |lab| lab.fill((lab.block("/", 40) / lab.target.block_size) as u64, 0)),
    class("root directory of noise", SIZES, &["p2."], |lab| lab.fill((lab.block("/", 40) / lab.target.block_size) as u64, 0x5B)),
    class("root is a file", SIZES, &["p1.root.not-a-directory"], |lab| lab.inode("/", 0, 2, 0o100_755)),
    class("root is cleared", SIZES, &["p3.root.missing"], |lab| { let at = lab.at("/"); lab.target.bytes[at..at + 128].fill(0); }),
    class("root without blocks", SIZES, &[], |lab| (0..15).for_each(|i| lab.inode("/", 40 + i * 4, 4, 0))),
    class("root claims another directory's block", SIZES, &["p1b.block.shared"], |lab| { let block = lab.get(lab.at("/a") + 40, 4); lab.inode("/", 40, 4, block as u64); }),
    class("index: reserved word set", INDEXED, &["p1.htree.root"], |lab| index(lab, 24, 4, 1)),
    class("index: hash version unknown", INDEXED, &["p1.htree.root"], |lab| index(lab, 28, 1, 240)),
    class("index: info length wrong", INDEXED, &["p"], |lab| index(lab, 29, 1, 9)),
    class("index: too deep", INDEXED, &["p1.htree.root"], |lab| index(lab, 30, 1, 8)),
    class("index: flags unknown", INDEXED, &["p1.htree.root"], |lab| index(lab, 31, 1, 0xFF)),
    class("index: limit wrong", INDEXED, &["p2.htree.index"], |lab| index(lab, 32, 2, 511)),
    class("index: count wrong", INDEXED, &["p2.htree.index"], |lab| index(lab, 34, 2, 234)),
    class("index: out of order", INDEXED, &["p2.htree.index"], |lab| index(lab, 40, 4, 0xFFFF_FF00)),
    class("index: a block twice", INDEXED, &["p2.htree.index"], |lab| index(lab, 36, 4, 2)),
    class("index: a block that is not there", INDEXED, &["p2.htree.index"], |lab| index(lab, 44, 4, 5000)),
    class("index: hashes of another version", INDEXED, &["p2.htree.index"], |lab| { let version = lab.get(lab.block("/many", 40) + 28, 1); index(lab, 28, 1, if version == 1 { 2 } else { 1 }); }),
    class("index: the other signedness", INDEXED, &[], |lab| lab.sb(352, 4, 3 ^ (lab.sb_get(352, 4) & 3))),
    class("index on a directory of one block", SIZES, &["p1.htree."], |lab| lab.flag("/a", 0x1000)),
    class("index flag on all kinds of files", SIZES, &["p1.htree."], |lab| { lab.flag("/plain", 0x1000); lab.flag("/sparse", 0x1000); }),
    class("two names exchanged between leaves", INDEXED, &[], |lab| { let (a, b) = (lab.block("/many", 44), lab.block("/many", 48)); let size = lab.target.block_size; for i in 0..size { lab.target.bytes.swap(a + i, b + i); } }),
];
