//! One way to provoke each code: a field of a good image is changed, our check reports that code, e2fsck agrees that
//! something is wrong, and a repair leaves an image that both call clean.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ext2dax_fsck::{CheckOptions, Code, check, repair};
use ext2dax_pmem::{AnonRegion, Pmem};

use crate::judge::{e2fsck, have, scratch};
use crate::lab::Lab;
use crate::samples;

/// What e2fsck -fn makes of it.
#[derive(Clone, Copy, Debug)]
enum Judge {
    /// It exits with something else than 0.
    Finds,
    /// It exits with 0, and why that is.
    Silent(&'static str),
    /// Nobody repairs it, and why.
    Left(&'static str),
}

use Judge::{Finds, Left, Silent};

struct Row {
    code: &'static str,
    shape: &'static str,
    /// Starts of codes that come along.
    with: &'static [&'static str],
    judge: Judge,
    patch: fn(&mut Lab),
}

const fn row(
    code: &'static str,
    shape: &'static str,
    with: &'static [&'static str],
    judge: Judge,
    patch: fn(&mut Lab),
) -> Row {
    Row {
        code,
        shape,
        with,
        judge,
        patch,
    }
}

const ASKS: &str = "e2fsck -n says so and exits with 0";
const NOT_WITH_N: &str = "e2fsck -n does not look at the orphan list";

const DIR: u64 = 2;
/// What follows when a whole directory or file is out of its place.
const TREE: &[&str] = &["p2.", "p3.", "p4.", "p5."];
const SPACE: &[&str] = &[
    "p1.inode.i-blocks",
    "p1.inode.size",
    "p1.block.past-size",
    "p5.",
];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("p0.super.magic", "groups", &["p5.count."], Finds, |lab| lab.sb(56, 2, 0)),
    row("p0.super.field", "groups", &["p5.count."], Finds, |lab| lab.sb(28, 4, 3)),
    row("p0.super.inodes-count", "1k", &[], Finds, |lab| lab.sb(0, 4, lab.sb_get(0, 4) + 8)),
    row("p0.super.inodes-per-group", "1k", &[], Finds, |lab| lab.sb(40, 4, lab.sb_get(40, 4) + 64)),
    row("p0.super.first-meta-bg", "meta-bg", &[], Finds, |lab| { lab.lose_backups(); lab.sb(260, 4, 9); }),
    row("p0.super.reserved-blocks", "1k", &[], Finds, |lab| lab.sb(206, 2, lab.sb_get(206, 2) + 9)),
    row("p0.group.from-backup", "groups", &["p5.count."], Finds, |lab| lab.desc(0, 0, 4, 0)),
    row("p0.group.block-bitmap", "1k", &["p5."], Finds, |lab| lab.desc(0, 0, 4, 1)),
    row("p0.group.inode-bitmap", "1k", &["p5."], Finds, |lab| lab.desc(0, 4, 4, 1)),
    row("p0.group.inode-table", "1k", &["p1.", "p2.", "p3.", "p4.", "p5.", "p0.resize.invalid"], Finds, |lab| lab.desc(0, 8, 4, 1)),
    row("p0.group.flags", "1k", &[], Finds, |lab| lab.desc(0, 18, 2, 1)),
    row("p0.journal.unexpected", "1k", &["p1.journal.mode"], Finds, |lab| lab.sb(224, 4, 8)),
    row("p0.journal.missing", "1k", &["p1.journal.mode"], Finds, |lab| { lab.sb(92, 4, lab.sb_get(92, 4) | 4); lab.sb(224, 4, 8); }),
    row("p0.journal.superblock", "journal", &[], Finds, |lab| { let at = lab.get(lab.target.inode(8) + 40, 4) * 1024; lab.put(at + 12, 4, 0x0010_0000); }),
    row("p0.journal.unknown", "journal", &[], Left("e2fsck gives up, too"), |lab| { let at = lab.get(lab.target.inode(8) + 40, 4) * 1024; lab.put(at + 40, 4, 0x0000_0080); }),
    row("p0.quota.unexpected", "1k", &[], Finds, |lab| lab.sb(576, 4, lab.ino("/empty"))),
    row("p0.resize.reserved-blocks", "1k", &["p0.resize.not-clear", "p5."], Silent(ASKS), |lab| lab.sb(92, 4, lab.sb_get(92, 4) & !0x10)),
    row("p0.resize.meta-bg", "meta-bg", &["p5."], Silent(ASKS), |lab| lab.sb(92, 4, lab.sb_get(92, 4) | 0x10)),
    row("p0.resize.not-clear", "plain", &["p1.", "p5."], Silent(ASKS), |lab| lab.numbered(7, 92, 4, lab.free_block(0))),
    row("p0.resize.invalid", "1k", &["p1.inode.i-blocks"], Finds, |lab| lab.numbered(7, 40, 4, 5)),
    row("p0.orphan.head", "1k", &[], Silent(NOT_WITH_N), |lab| lab.sb(232, 4, 5)),
    row("p0.orphan.link", "1k", &["p0.orphan.listed"], Finds, |lab| { lab.sb(232, 4, lab.ino("/plain")); lab.inode("/plain", 20, 4, 5); }),
    row("p0.orphan.listed", "1k", &[], Silent(NOT_WITH_N), |lab| lab.sb(232, 4, lab.ino("/plain"))),

    row("p1.inode.low-dtime", "1k", &[], Finds, |lab| lab.inode("/plain", 20, 4, 20)),
    row("p1.inode.zero-dtime", "1k", &[], Finds, |lab| lab.numbered(usize::try_from(lab.free_inode()).unwrap(), 0, 2, 0o100_644)),
    row("p1.inode.dtime-set", "1k", &[], Finds, |lab| lab.inode("/plain", 20, 4, 1_000_000_000)),
    row("p1.root.not-a-directory", "1k", TREE, Finds, |lab| lab.inode("/", 0, 2, 0o100_755)),
    row("p1.root.dtime", "1k", &[], Finds, |lab| lab.inode("/", 20, 4, 1_000_000_000)),
    row("p1.bad-blocks.fields", "1k", &[], Finds, |lab| lab.numbered(1, 0, 2, 0o100_000)),
    row("p1.bad-blocks.metadata", "1k", &[], Finds, |lab| lab.numbered(1, 40, 4, 1)),
    row("p1.bad-blocks.group", "1k", &["p5."], Finds, |lab| lab.numbered(1, 40, 4, lab.desc_get(0, 4) as u64)),
    row("p1.bad-blocks.own", "1k", &["p5."], Finds, |lab| {
        let block = lab.free_block(0);
        lab.fill(block, 0);
        lab.put(usize::try_from(block).unwrap() * lab.target.block_size, 4, block);
        lab.numbered(1, 88, 4, block);
    }),
    row("p1.reserved.mode", "1k", &[], Finds, |lab| lab.numbered(6, 0, 2, 0o100_000)),
    row("p1.journal.mode", "journal", &[], Finds, |lab| lab.numbered(8, 0, 2, 0o040_000)),
    row("p1.journal.not-clear", "1k", &[], Finds, |lab| lab.numbered(8, 28, 4, 2)),
    row("p1.quota.not-clear", "1k", &[], Finds, |lab| lab.numbered(3, 28, 4, 2)),
    row("p1.flag.extents", "1k", &["p2.", "p5."], Finds, |lab| lab.flag("/plain", 0x8_0000)),
    row("p1.flag.inline-data", "1k", &["p2.", "p5."], Finds, |lab| lab.flag("/plain", 0x1000_0000)),
    row("p1.flag.casefold", "1k", &[], Finds, |lab| lab.flag("/plain", 0x4000_0000)),
    row("p1.flag.encrypt", "1k", &[], Finds, |lab| lab.flag("/plain", 0x800)),
    row("p1.flag.imagic", "1k", &[], Finds, |lab| lab.flag("/plain", 0x2000)),
    row("p1.flag.special", "1k", &[], Silent(ASKS), |lab| lab.flag("/pipe", 0x10)),
    row("p1.special.size", "1k", &[], Finds, |lab| lab.inode("/pipe", 4, 4, 5)),
    row("p1.mode.directory", "1k", &["p1.inode.i-blocks", "p2.", "p3.", "p4.", "p5."], Finds, |lab| lab.inode("/a", 0, 2, 0o140_755)),
    row("p1.mode.invalid", "1k", &["p1.", "p2.", "p5."], Finds, |lab| lab.inode("/plain", 0, 2, 0o030_644)),
    row("p1.special.invalid", "1k", &["p1.flag.special", "p2.", "p5."], Finds, |lab| { lab.inode("/pipe", 60, 4, 77); lab.flag("/pipe", 0x10); }),
    row("p1.symlink.invalid", "1k", &["p2."], Finds, |lab| lab.inode("/short-link", 4, 4, 30)),
    row("p1.inode.faddr", "1k", &[], Finds, |lab| lab.inode("/plain", 112, 4, 1)),
    row("p1.inode.fragment", "1k", &[], Finds, |lab| { lab.sb(72, 4, 1); lab.inode("/plain", 116, 2, 1); }),
    row("p1.inode.file-acl-high", "1k", &[], Finds, |lab| lab.inode("/plain", 118, 2, 1)),
    row("p1.inode.blocks-high", "1k", &[], Finds, |lab| lab.inode("/plain", 116, 2, 1)),
    row("p1.inode.dir-size-high", "1k", &["p1.dir.size"], Finds, |lab| lab.inode("/a", 108, 4, 1)),
    row("p1.xattr.no-feature", "1k-128", SPACE, Finds, |lab| lab.sb(92, 4, lab.sb_get(92, 4) & !8)),
    row("p1.xattr.out-of-range", "1k", &[], Finds, |lab| lab.inode("/empty", 104, 4, 0xFF_FFFF)),
    row("p1.inode.extra-isize", "1k", &[], Finds, |lab| lab.inode("/empty", 128, 2, 3)),
    row("p1.inode.time-epoch", "1k", &[], Silent(ASKS), |lab| { lab.inode("/empty", 12, 4, 0x8000_0000); lab.inode("/empty", 132, 4, 3); }),
    row("p1.xattr.in-inode", "1k", &[], Finds, |lab| { let size = lab.get(lab.at("/plain") + 128, 2); lab.inode("/plain", 128 + size + 16, 4, 77); }),
    row("p1.xattr.magic", "1k-128", SPACE, Finds, |lab| lab.put(lab.block("/plain", 104), 4, 77)),
    row("p1.xattr.blocks", "1k-128", SPACE, Finds, |lab| lab.put(lab.block("/plain", 104) + 8, 4, 2)),
    row("p1.xattr.entry", "1k-128", SPACE, Finds, |lab| lab.put(lab.block("/plain", 104) + 32 + 12, 4, 77)),
    row("p1.xattr.refcount", "1k-128", &[], Finds, |lab| lab.put(lab.block("/plain", 104) + 4, 4, 5)),
    row("p1.block.out-of-range", "1k", SPACE, Finds, |lab| lab.inode("/plain", 40, 4, 0xFFF_FFFF)),
    row("p1.block.too-many-bad", "1k", &["p1.block.", "p1.inode.", "p2.", "p5."], Finds, |lab| (0..12).for_each(|i| lab.inode("/big", 40 + i * 4, 4, 0xFFF_FFFF))),
    row("p1.block.indirect-metadata", "1k", SPACE, Finds, |lab| lab.inode("/big", 88, 4, lab.desc_get(0, 8) as u64)),
    row("p1.block.too-far", "1k", &["p1.", "p2.", "p4.", "p5."], Finds, |lab| {
        let blocks: Vec<u64> = (0..4).map(|i| lab.free_block(i)).collect();
        let size = lab.target.block_size;
        for &block in &blocks {
            let at = usize::try_from(block).unwrap() * size;
            lab.target.bytes[at..at + size].fill(0);
        }
        let at = |block: u64| usize::try_from(block).unwrap() * size;
        lab.inode("/a", 96, 4, blocks[0]);
        lab.put(at(blocks[0]) + 40 * 4, 4, blocks[1]);
        lab.put(at(blocks[1]), 4, blocks[2]);
        lab.put(at(blocks[2]), 4, blocks[3]);
    }),
    row("p1.dir.empty", "1k", &["p1.", "p2.", "p3.", "p4.", "p5."], Finds, |lab| lab.inode("/a", 40, 4, 0)),
    row("p1.dir.size", "1k", &[], Finds, |lab| lab.inode("/a", 4, 4, 3000)),
    row("p1.block.past-size", "1k", &[], Finds, |lab| lab.inode("/big", 4, 4, 1024)),
    row("p1.inode.size", "1k", &[], Finds, |lab| lab.inode("/plain", 108, 4, 0x7FFF)),
    row("p1.inode.i-blocks", "1k", &[], Finds, |lab| lab.inode("/plain", 28, 4, 7)),
    row("p1.super.large-file", "plain", &[], Finds, |lab| lab.inode("/plain", 4, 4, 0x8000_0000)),
    row("p1.htree.not-a-directory", "1k", &[], Finds, |lab| lab.flag("/plain", 0x1000)),
    row("p1.htree.no-feature", "plain", &[], Finds, |lab| lab.flag("/a", 0x1000)),
    row("p1.htree.root", "1k", &[], Finds, |lab| lab.put(lab.block("/many", 40) + 28, 1, 77)),
    row("p1b.block.shared", "1k", &["p5."], Finds, |lab| { let block = lab.get(lab.at("/big") + 40, 4); lab.inode("/plain", 40, 4, block as u64); }),

    row("p2.dir.hole", "1k", &["p1.", "p2.", "p4.", "p5."], Finds, |lab| lab.inode("/many", 44, 4, 0)),
    row("p2.entry.corrupt", "1k", TREE, Finds, |lab| lab.put(lab.entry("/a", "b") + 4, 2, 3)),
    row("p2.dot.missing", "1k", &["p4."], Finds, |lab| lab.put(lab.entry("/a", "."), 4, 0)),
    row("p2.dot.wrong-name", "1k", &[], Finds, |lab| lab.put(lab.entry("/a", ".") + 8, 1, b'x'.into())),
    row("p2.dot.not-terminated", "1k", &[], Finds, |lab| lab.put(lab.entry("/a", ".") + 9, 1, 1)),
    row("p2.dot.inode", "1k", &["p4."], Finds, |lab| lab.put(lab.entry("/a", "."), 4, DIR)),
    row("p2.dot.big", "1k", &["p3.", "p4."], Finds, |lab| lab.put(lab.entry("/lost+found", ".") + 4, 2, 1024)),
    row("p2.dotdot.missing", "1k", &["p3.", "p4."], Finds, |lab| lab.put(lab.entry("/a", ".."), 4, 0)),
    row("p2.dotdot.wrong-name", "1k", &["p3.", "p4."], Finds, |lab| lab.put(lab.entry("/a", "..") + 9, 1, b'x'.into())),
    row("p2.dotdot.not-terminated", "1k", &[], Finds, |lab| lab.put(lab.entry("/a", "..") + 10, 1, 1)),
    row("p2.entry.self", "1k", TREE, Finds, |lab| lab.put(lab.entry("/a", "b"), 4, lab.ino("/a"))),
    row("p2.entry.inode-range", "1k", &["p4."], Finds, |lab| lab.put(lab.entry("/", "empty"), 4, 0xFF_FFFF)),
    row("p2.entry.second-dot", "1k", &["p4."], Finds, |lab| { let at = lab.entry("/", "empty"); lab.put(at + 6, 1, 1); lab.put(at + 8, 1, b'.'.into()); }),
    row("p2.entry.second-dotdot", "1k", &["p4."], Finds, |lab| { let at = lab.entry("/", "empty"); lab.put(at + 6, 1, 2); lab.put(at + 8, 2, 0x2E2E); }),
    row("p2.entry.root", "1k", TREE, Finds, |lab| lab.put(lab.entry("/a", "b"), 4, DIR)),
    row("p2.entry.no-name", "1k", &["p4."], Finds, |lab| lab.put(lab.entry("/", "empty") + 6, 1, 0)),
    row("p2.entry.dead-inode", "1k", &["p4."], Finds, |lab| lab.put(lab.entry("/", "empty"), 4, lab.free_inode())),
    row("p2.entry.characters", "1k", &[], Finds, |lab| lab.put(lab.entry("/", "empty") + 9, 1, b'/'.into())),
    row("p2.entry.type", "1k", &[], Finds, |lab| lab.put(lab.entry("/", "empty") + 7, 1, 2)),
    row("p2.entry.no-type", "1k", &[], Silent(ASKS), |lab| lab.put(lab.entry("/", "empty") + 7, 1, 0)),
    row("p2.entry.unexpected-type", "plain", &[], Finds, |lab| lab.put(lab.entry("/", "empty") + 7, 1, 1)),
    row("p2.entry.second-parent", "1k", &["p3.dotdot.parent", "p4."], Finds, |lab| { let at = lab.entry("/", "empty"); lab.put(at, 4, lab.ino("/a/b")); lab.put(at + 7, 1, DIR); }),
    row("p2.entry.duplicate", "1k", &[], Finds, |lab| { let at = lab.entry("/", "empty"); lab.target.bytes[at + 8..at + 13].copy_from_slice(b"plain"); }),
    row("p2.htree.index", "1k", &[], Finds, |lab| lab.put(lab.block("/many", 40) + 32 + 8 + 4, 4, 1000)),

    row("p3.root.missing", "1k", TREE, Finds, |lab| { lab.inode("/", 0, 2, 0); lab.inode("/", 26, 2, 0); }),
    row("p3.dir.unconnected", "1k", &["p4."], Finds, |lab| lab.put(lab.entry("/", "a"), 4, 0)),
    row("p3.dir.loop", "1k", &["p3.", "p4."], Finds, |lab| {
        lab.put(lab.entry("/", "a"), 4, 0);
        let at = lab.entry("/a/b/c", "deep");
        lab.put(at, 4, lab.ino("/a"));
        lab.put(at + 7, 1, DIR);
    }),
    row("p3.dotdot.parent", "1k", &["p4."], Finds, |lab| lab.put(lab.entry("/a/b", ".."), 4, DIR)),

    row("p4.inode.nameless-empty", "1k", &[], Finds, |lab| lab.put(lab.entry("/", "empty"), 4, 0)),
    row("p4.inode.nameless", "1k", &[], Finds, |lab| lab.put(lab.entry("/a/b/c", "deep"), 4, 0)),
    row("p4.links.too-high", "1k", &[], Finds, |lab| lab.inode("/plain", 26, 2, 9)),
    row("p4.links.too-low", "1k", &[], Finds, |lab| lab.inode("/plain", 26, 2, 1)),

    row("p5.block.leaked", "1k", &[], Finds, |lab| { let bit = usize::try_from(lab.free_block(0)).unwrap() - 1; lab.flip(0, bit); }),
    row("p5.block.unmarked", "1k", &[], Finds, |lab| { let bit = lab.block("/plain", 40) / 1024 - 1; lab.flip(0, bit); }),
    row("p5.block.padding", "1k", &[], Finds, |lab| lab.flip(0, 5000)),
    row("p5.inode.leaked", "1k", &[], Finds, |lab| { let bit = usize::try_from(lab.free_inode()).unwrap() - 1; lab.flip(4, bit); }),
    row("p5.inode.unmarked", "1k", &[], Finds, |lab| { let bit = usize::try_from(lab.ino("/plain")).unwrap() - 1; lab.flip(4, bit); }),
    row("p5.inode.padding", "1k", &[], Finds, |lab| lab.flip(4, 5000)),
    row("p5.count.group-free-blocks", "groups", &[], Finds, |lab| lab.desc(1, 12, 2, 3)),
    row("p5.count.group-free-inodes", "groups", &[], Finds, |lab| lab.desc(1, 14, 2, 3)),
    row("p5.count.group-directories", "groups", &[], Finds, |lab| lab.desc(1, 16, 2, 33)),
    row("p5.count.free-blocks", "1k", &[], Silent("e2fsck takes the total from the groups when it opens the image"), |lab| lab.sb(12, 4, 3)),
    row("p5.count.free-inodes", "1k", &[], Silent("e2fsck takes the total from the groups when it opens the image"), |lab| lab.sb(16, 4, 3)),
];

fn region(bytes: &[u8]) -> Pmem {
    let pmem = Pmem::new(AnonRegion::new(bytes.len() as u64).unwrap());
    pmem.write(0, bytes);
    pmem
}

/// The good images that the rows change.
fn labs() -> BTreeMap<&'static str, Lab> {
    let dir = scratch();
    let mut labs = BTreeMap::new();
    let journal: (&str, u32, &[&str]) = (
        "journal",
        4096,
        &["-t", "ext3", "-b", "1024", "-N", "256", "-J", "size=1"],
    );
    for (name, size, options) in samples::SHAPES.iter().copied().chain([journal]) {
        if ROWS.iter().any(|row| row.shape == name) {
            let image = dir.path().join(name);
            samples::make(&image, size, options);
            labs.insert(name, Lab::new(fs::read(&image).unwrap()));
        }
    }
    labs
}

#[test]
fn each_code_is_provoked_judged_and_repaired() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let labs = labs();
    let dir = scratch();
    let file = dir.path().join("image");
    let options = CheckOptions {
        threads: 1,
        ..CheckOptions::default()
    };
    let mut wrong = Vec::new();
    for row in ROWS {
        let mut lab = labs[row.shape].clone();
        (row.patch)(&mut lab);
        let pmem = region(&lab.target.bytes);
        let report = check(&pmem, &options).unwrap();
        let found: BTreeSet<&str> = report
            .findings
            .iter()
            .map(|finding| finding.code.word())
            .collect();
        let strange: Vec<&&str> = found
            .iter()
            .filter(|code| {
                **code != row.code && !row.with.iter().any(|start| code.starts_with(start))
            })
            .collect();
        if !found.contains(row.code) || !strange.is_empty() {
            wrong.push(format!("{}: we find {found:?}", row.code));
        }
        fs::write(&file, &lab.target.bytes).unwrap();
        let (status, text) = e2fsck(&file);
        match row.judge {
            Finds | Left(_) if status == 0 => {
                wrong.push(format!("{}: e2fsck finds nothing", row.code))
            }
            Silent(why) if status != 0 => {
                wrong.push(format!(
                    "{}: e2fsck exits {status}, not silent: {why}\n{text}",
                    row.code
                ));
            }
            _ => {}
        }
        let repaired = repair(&pmem, &options, &mut |_| true).unwrap();
        if let Left(why) = row.judge {
            assert!(!repaired.report.is_clean(), "{}: not left: {why}", row.code);
            continue;
        }
        let left: Vec<String> = repaired
            .report
            .findings
            .iter()
            .map(|finding| finding.text())
            .collect();
        let mut after = vec![0; lab.target.bytes.len()];
        pmem.read(0, &mut after);
        fs::write(&file, &after).unwrap();
        let (status, text) = e2fsck(&file);
        if !left.is_empty() || status != 0 {
            wrong.push(format!(
                "{}: repaired: left {left:?}, e2fsck exits {status}\n{text}",
                row.code
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows\n{}",
        wrong.len(),
        ROWS.len(),
        wrong.join("\n")
    );
}

#[test]
fn no_code_is_without_a_row() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.code).collect();
    let codes: BTreeSet<&str> = Code::ALL.iter().map(|code| code.word()).collect();
    assert_eq!(rows.len(), ROWS.len(), "a code has two rows");
    let page = include_str!("../../../../docs/FINDINGS.md");
    let named: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(named, codes, "docs/FINDINGS.md");
    assert_eq!(rows, codes);
}
