//! Inodes: modes, sizes, fields, attributes, deletion, the orphan list.

use super::{Class, SIZES, class};
use crate::lab::Lab;

fn attribute_block(lab: &mut Lab, users: &[&str]) {
    let block = lab.get(lab.at("/plain") + 104, 4);
    let sectors = (lab.target.block_size / 512) as u64;
    for path in users {
        let old = lab.get(lab.at(path) + 28, 4) as u64;
        lab.inode(path, 104, 4, block as u64);
        lab.inode(path, 28, 4, old + sectors);
    }
    lab.put(block * lab.target.block_size + 4, 4, 1 + users.len() as u64);
}

/// Puts files on the orphan list, in this order.
fn orphans(lab: &mut Lab, paths: &[&str]) {
    let numbers: Vec<u64> = paths.iter().map(|path| lab.ino(path)).collect();
    lab.sb(232, 4, numbers[0]);
    for (i, path) in paths.iter().enumerate() {
        lab.inode(path, 20, 4, numbers.get(i + 1).copied().unwrap_or(0));
    }
}

/// Takes the name of a file away and its links, as an unlink does while it is open.
fn unlinked(lab: &mut Lab, name: &str) {
    lab.put(lab.entry("/", name), 4, 0);
    let path = format!("/{name}");
    lab.inode(&path, 26, 2, 0);
}

#[rustfmt::skip]
pub(crate) const CLASSES: &[Class] = &[
    class("bad modes, devices and links", SIZES, &["p1.mode.invalid", "p1.special.size", "p1.symlink.invalid"], |lab| {
        lab.inode("/plain", 0, 2, 0o110_444);
        lab.inode("/big", 0, 2, 0o060_644);
        lab.inode("/sparse", 0, 2, 0o020_644);
        lab.inode("/empty", 0, 2, 0o120_777);
        lab.inode("/a/b/c/deep", 0, 2, 0o140_755);
    }),
    class("fields that are for other systems", SIZES, &["p1.inode.faddr", "p1.inode.file-acl-high", "p1.inode.blocks-high"], |lab| {
        lab.inode("/plain", 112, 4, 23);
        lab.inode("/big", 118, 2, 12);
        lab.inode("/empty", 116, 2, 4);
        lab.inode("/a", 108, 4, 12);
    }),
    class("attribute pointers", SIZES, &["p1.xattr.out-of-range"], |lab| {
        lab.inode("/empty", 104, 4, 39_000);
        lab.inode("/big", 104, 4, 0xFFFF_FFFF);
        lab.inode("/a", 104, 4, 1);
    }),
    class("attribute pointer into the inode table", SIZES, &["p1.xattr."], |lab| lab.inode("/empty", 104, 4, lab.desc_get(0, 8) as u64)),
    class("attribute block is a block of a file", SIZES, &["p1.xattr.magic"], |lab| { let block = lab.get(lab.at("/big") + 40, 4); lab.inode("/empty", 104, 4, block as u64); }),
    class("deleted, but linked and named", SIZES, &["p1.inode.dtime-set"], |lab| {
        ["/plain", "/empty", "/a", "/pipe"].into_iter().for_each(|path| lab.inode(path, 20, 4, 0x3000_0000));
    }),
    class("deleted, but linked and without a name", SIZES, &["p1.inode.dtime-set", "p4.inode.nameless"], |lab| {
        lab.put(lab.entry("/", "big"), 4, 0);
        lab.inode("/big", 20, 4, 0x3000_0000);
        let bit = usize::try_from(lab.ino("/big")).unwrap() - 1;
        lab.flip(4, bit);
    }),
    class("links without a live inode", SIZES, &["p1.inode.zero-dtime", "p2.entry.dead-inode"], |lab| { lab.inode("/plain", 26, 2, 0); lab.inode("/a/b/c/deep", 26, 2, 0); }),
    class("no deletion time", SIZES, &["p1.inode.zero-dtime"], |lab| unlinked(lab, "big")),
    class("root with a deletion time", SIZES, &["p1.root.dtime"], |lab| { lab.inode("/", 20, 4, 0x3000_0000); lab.inode("/lost+found", 20, 4, 0x3000_0000); }),
    class("orphans to delete and to truncate", SIZES, &["p0.orphan.listed"], |lab| {
        unlinked(lab, "big");
        lab.inode("/sparse", 4, 4, 5000);
        orphans(lab, &["/big", "/sparse", "/a/b/c/deep"]);
    }),
    class("orphan directory", SIZES, &["p0.orphan.listed"], |lab| {
        unlinked(lab, "many");
        orphans(lab, &["/many"]);
    }),
    class("orphan with attributes of its own", SIZES, &["p0.orphan.listed"], |lab| {
        unlinked(lab, "plain");
        lab.put(lab.entry("/", "second-name"), 4, 0);
        orphans(lab, &["/plain"]);
    }),
    class("orphan with attributes that others use", &["1k-128"], &["p0.orphan.listed"], |lab| {
        attribute_block(lab, &["/big"]);
        unlinked(lab, "big");
        orphans(lab, &["/big"]);
    }),
    class("orphan links, fifos and devices", SIZES, &["p0.orphan.listed"], |lab| {
        ["short-link", "long-link", "pipe", "null"].into_iter().for_each(|name| unlinked(lab, name));
        orphans(lab, &["/short-link", "/long-link", "/pipe", "/null"]);
    }),
    class("orphan list that leaves the inodes", SIZES, &["p0.orphan."], |lab| {
        unlinked(lab, "big");
        orphans(lab, &["/big"]);
        lab.inode("/big", 20, 4, 0xFF_FFFF);
    }),
    class("orphan list in a circle", SIZES, &["p0.orphan."], |lab| {
        unlinked(lab, "big");
        unlinked(lab, "sparse");
        orphans(lab, &["/big", "/sparse"]);
        lab.inode("/sparse", 20, 4, lab.ino("/big"));
    }),
    class("orphan list begins nowhere", SIZES, &["p0.orphan.head"], |lab| lab.sb(232, 4, 0xFFFF_FFFF)),
    class("orphan list begins at a free inode", SIZES, &[], |lab| lab.sb(232, 4, lab.free_inode())),
    class("orphan list begins at the root", SIZES, &["p0.orphan."], |lab| lab.sb(232, 4, 2)),
    class("orphan with blocks out of range", SIZES, &["p0.orphan.listed"], |lab| {
        unlinked(lab, "big");
        lab.inode("/big", 48, 4, 0xFFF_FFFF);
        lab.inode("/big", 92, 4, 0xFFF_FFFE);
        orphans(lab, &["/big"]);
    }),
    class("members of a list that is gone", SIZES, &["p1.inode.low-dtime"], |lab| {
        ["big", "sparse"].into_iter().for_each(|name| unlinked(lab, name));
        lab.inode("/big", 20, 4, lab.ino("/sparse"));
        lab.inode("/sparse", 20, 4, 17);
        lab.inode("/plain", 20, 4, 30);
    }),
    class("sizes that are wrong", SIZES, &["p1.inode.size", "p1.dir.size"], |lab| {
        lab.inode("/plain", 108, 4, 0x8000_0000);
        lab.inode("/a", 4, 4, 7);
        lab.inode("/big", 4, 4, 2048);
        lab.inode("/pipe", 4, 4, 99);
        lab.inode("/long-link", 4, 4, 99);
    }),
    class("flags of other file systems", SIZES, &["p1.flag."], |lab| {
        lab.flag("/plain", 0x2000);
        lab.flag("/big", 0x8_0000);
        lab.flag("/empty", 0x1000_0000);
        lab.flag("/sparse", 0x800);
        lab.flag("/a", 0x4000_0000);
        lab.flag("/null", 0x30);
    }),
    class("compression flags", SIZES, &[], |lab| { lab.flag("/big", 0x4); lab.flag("/plain", 0x200); lab.flag("/a", 0x4); }),
    class("attributes on special files and short links", &["1k-128"], &[], |lab| attribute_block(lab, &["/pipe", "/null", "/short-link", "/long-link", "/a"])),
    class("attributes on special files, count wrong", &["1k-128"], &["p1.xattr.refcount"], |lab| { attribute_block(lab, &["/pipe", "/null", "/short-link"]); lab.put(lab.block("/plain", 104) + 4, 4, 1); }),
    class("attribute block of zeros with many users", &["1k-128"], &["p1.xattr.magic"], |lab| {
        attribute_block(lab, &["/pipe", "/big", "/a", "/long-link"]);
        lab.fill((lab.block("/plain", 104) / lab.target.block_size) as u64, 0);
    }),
    class("attribute entries run into values", &["1k-128"], &["p1.xattr.entry"], |lab| { let at = lab.block("/plain", 104) + 32; lab.put(at + 2, 2, 40); }),
    class("attribute name without end", &["1k-128"], &["p1.xattr.entry"], |lab| { let at = lab.block("/plain", 104) + 32; lab.put(at, 1, 255); }),
    class("attribute hash wrong", &["1k-128"], &[], |lab| { let at = lab.block("/plain", 104) + 32; lab.put(at + 12, 4, 0x1234_5678); }),
    class("attributes inside without order", &["1k", "4k"], &[], |lab| { let at = lab.at("/plain") + 128; let extra = lab.get(at, 2); lab.put(at + extra + 4 + 1, 1, 6); }),
    class("attributes inside, extra size odd", &["1k", "4k"], &["p1.inode.extra-isize"], |lab| lab.inode("/plain", 128, 2, 30)),
    class("attributes inside, extra size too large", &["1k", "4k"], &["p1.inode.extra-isize"], |lab| lab.inode("/plain", 128, 2, 250)),
    class("attributes inside, value out of range", &["1k", "4k"], &["p1.xattr.in-inode"], |lab| { let at = lab.at("/plain") + 128; let extra = lab.get(at, 2); lab.put(at + extra + 4 + 2, 2, 0x7000); }),
    class("attributes inside, value too long", &["1k", "4k"], &["p1.xattr.in-inode"], |lab| { let at = lab.at("/plain") + 128; let extra = lab.get(at, 2); lab.put(at + extra + 4 + 8, 4, 0x7000); }),
    class("reserved inodes in use", SIZES, &["p1.reserved.mode"], |lab| { lab.numbered(5, 0, 2, 0o100_644); lab.numbered(9, 0, 2, 0o060_000); lab.numbered(10, 26, 2, 1); }),
    class("times of a directory's inode from noise", SIZES, &[], |lab| { lab.inode("/a", 8, 4, 0xDEAD_BEEF); lab.inode("/a", 12, 4, 0xFFFF_FFFF); lab.inode("/a", 100, 4, 0x1111); }),
];
