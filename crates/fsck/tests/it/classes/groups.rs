//! Group descriptors, bitmaps, inode tables, and the list of bad blocks that may hold them.

use super::{Class, SIZES, class};
use crate::lab::Lab;

/// Stores a place into the descriptor of a group and all its backups.
fn place(lab: &mut Lab, group: usize, field: usize, block: u64) {
    lab.desc(group, field, 4, block);
    lab.in_backups(group, field, 4, block);
}

fn bad_list(lab: &mut Lab, blocks: &[u64]) {
    for (i, &block) in blocks.iter().enumerate() {
        lab.numbered(1, 40 + i * 4, 4, block);
    }
    let sectors = (lab.target.block_size / 512 * blocks.len()) as u64;
    lab.numbered(1, 28, 4, sectors);
    lab.numbered(1, 4, 4, sectors * 512);
}

#[rustfmt::skip]
pub(crate) const CLASSES: &[Class] = &[
    class("block bitmap outside", SIZES, &["p0.group.block-bitmap"], |lab| place(lab, 0, 0, 409_600)),
    class("block bitmap outside its group", &["groups"], &["p0.group.block-bitmap"], |lab| place(lab, 1, 0, 3000)),
    class("inode bitmap outside its group", &["groups"], &["p0.group.inode-bitmap"], |lab| place(lab, 2, 4, 30)),
    class("inode table outside", SIZES, &["p0.group.inode-table"], |lab| place(lab, 0, 8, 40_000)),
    class("inode table of another group outside", &["groups"], &["p0.group.inode-table"], |lab| place(lab, 2, 8, 40_000)),
    class("all places of a group zero", &["groups"], &["p0.group."], |lab| [0, 4, 8].into_iter().for_each(|field| place(lab, 1, field, 0))),
    class("block bitmap missing", SIZES, &["p0.group.block-bitmap"], |lab| place(lab, 0, 0, 0)),
    class("inode bitmap missing", SIZES, &["p0.group.inode-bitmap"], |lab| place(lab, 0, 4, 0)),
    class("inode table missing", SIZES, &["p0.group.inode-table"], |lab| place(lab, 0, 8, 0)),
    class("inode bitmap on the descriptors", SIZES, &["p0.group.inode-bitmap"], |lab| place(lab, 0, 4, lab.target.first as u64 + 1)),
    class("inode bitmap in the inode table", SIZES, &["p0.group.inode-bitmap"], |lab| place(lab, 0, 4, lab.desc_get(0, 8) as u64 + 1)),
    class("inode bitmap on the block bitmap", SIZES, &["p0.group.inode-bitmap"], |lab| place(lab, 0, 4, lab.desc_get(0, 0) as u64)),
    class("bitmaps on blocks of files", SIZES, &[], |lab| { let block = lab.block("/big", 40) / lab.target.block_size; place(lab, 0, 0, block as u64); }),
    class("inode bitmap on a block of a file", SIZES, &[], |lab| { let block = lab.block("/big", 44) / lab.target.block_size; place(lab, 0, 4, block as u64); }),
    class("bitmaps exchanged", SIZES, &[], |lab| { let (blocks, inodes) = (lab.desc_get(0, 0), lab.desc_get(0, 4)); place(lab, 0, 0, inodes as u64); place(lab, 0, 4, blocks as u64); }),
    class("descriptors of zeros, backup good", &["groups"], &["p0.group.from-backup"], |lab| { let at = lab.target.desc(0); lab.target.bytes[at..at + 128].fill(0); }),
    class("bitmaps on the bad block list", SIZES, &["p1.bad-blocks.group"], |lab| bad_list(lab, &[lab.desc_get(0, 0) as u64, lab.desc_get(0, 4) as u64])),
    class("inode table on the bad block list", SIZES, &["p1.bad-blocks.group"], |lab| bad_list(lab, &[lab.desc_get(0, 8) as u64 + 1])),
    class("superblock and descriptors on the bad block list", SIZES, &["p1.bad-blocks.metadata"], |lab| bad_list(lab, &[lab.target.first as u64, lab.target.first as u64 + 1])),
    class("backups on the bad block list", &["groups"], &[], |lab| bad_list(lab, &[1025, 1026])),
    class("bad block list out of range", SIZES, &["p1.block.out-of-range"], |lab| bad_list(lab, &[50, 100_001, 100_003, 234_523])),
    class("bad block list with an indirect block out of range", SIZES, &["p1.block.out-of-range"], |lab| { bad_list(lab, &[100_001, lab.free_block(0)]); lab.numbered(1, 40 + 48, 4, 200_000); }),
    class("block of a file on the bad block list", SIZES, &["p1b.block.shared"], |lab| { let block = lab.block("/big", 40) / lab.target.block_size; bad_list(lab, &[block as u64]); }),
    class("directory on the bad block list", SIZES, &["p1b.block.shared"], |lab| { let block = lab.block("/many", 40) / lab.target.block_size; bad_list(lab, &[block as u64]); }),
    class("the list's own indirect block on the list", SIZES, &[], |lab| {
        let block = lab.free_block(0);
        let at = usize::try_from(block).unwrap() * lab.target.block_size;
        let size = lab.target.block_size;
        lab.target.bytes[at..at + size].fill(0);
        lab.put(at, 4, block);
        lab.numbered(1, 40 + 48, 4, block);
        lab.numbered(1, 28, 4, (size / 512) as u64);
    }),
    class("bits wrong in both bitmaps", SIZES, &["p5.block.leaked", "p5.block.unmarked", "p5.inode.leaked", "p5.inode.unmarked"], |lab| {
        let first = lab.target.first;
        let free = usize::try_from(lab.free_block(3)).unwrap() - first;
        let used = lab.block("/plain", 40) / lab.target.block_size - first;
        let (dead, alive) = (usize::try_from(lab.free_inode()).unwrap() - 1, usize::try_from(lab.ino("/a")).unwrap() - 1);
        lab.flip(0, free);
        lab.flip(0, used);
        lab.flip(4, dead);
        lab.flip(4, alive);
    }),
    class("bitmaps of zeros", SIZES, &["p5.block.unmarked", "p5.inode.unmarked"], |lab| [0, 4].into_iter().for_each(|field| lab.fill(lab.desc_get(0, field) as u64, 0))),
    class("bitmaps of ones", SIZES, &["p5.block.leaked", "p5.inode.leaked"], |lab| [0, 4].into_iter().for_each(|field| lab.fill(lab.desc_get(0, field) as u64, 0xFF))),
    class("padding of the bitmaps clear", SIZES, &["p5.inode.padding"], |lab| { let bits = lab.target.block_size * 8; lab.flip(4, bits - 1); lab.flip(4, bits - 9); }),
    class("counts of a group wrong", SIZES, &["p5.count."], |lab| { lab.desc(0, 12, 2, 0xFFFF); lab.desc(0, 14, 2, 0); lab.desc(0, 16, 2, 77); }),
    class("group marked uninitialised", SIZES, &["p0.group.flags"], |lab| lab.desc(0, 18, 2, 7)),
    class("inode table of zeros", SIZES, &[], |lab| { let table = lab.desc_get(0, 8) as u64; (1..4).for_each(|i| lab.fill(table + i, 0)); }),
    class("inode table of noise", SIZES, &[], |lab| { let table = lab.desc_get(0, 8) as u64; lab.fill(table + 2, 0xA5); }),
];
