//! What e2fsck finds on a damaged image we find, too: the same class of problem, at the same object.

use std::collections::BTreeSet;

use ext2dax_fsck::Finding;

use crate::judge::{e2fsck, have, ours};
use crate::shared_images;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// The inode whose number follows the word "inode".
    Inode,
    /// The group whose number follows the word "group".
    Group,
    /// The name in quotation marks.
    Name,
    /// The file system.
    All,
}

use About::{All, Group, Inode, Name};

/// Part of a message of e2fsck 1.47, the codes of which one has to be among our findings, and what it is about.
const MESSAGES: &[(&str, &[&str], About)] = &[
    (
        "Bad block inode has illegal block",
        &["p1.block.", "p1.bad-blocks."],
        All,
    ),
    (
        "Reserved inode",
        &["p1.reserved.mode", "p1.block.too-many-bad"],
        Inode,
    ),
    ("has filetype set", &["p2.entry.unexpected-type"], Name),
    ("Group descriptors look bad", &["p0.group."], All),
    (
        "Corrupt group descriptor: bad block for inode table",
        &["p0.group."],
        All,
    ),
    (
        "Corrupt group descriptor: bad block for block bitmap",
        &["p0.group."],
        All,
    ),
    (
        "Corrupt group descriptor: bad block for inode bitmap",
        &["p0.group."],
        All,
    ),
    (
        "Inode table for group",
        &["p0.group.inode-table", "p0.group.from-backup"],
        All,
    ),
    ("Inode bitmap for group", &["p0.group.inode-bitmap"], Group),
    ("inode bitmap is bad", &["p0.group.inode-bitmap"], Group),
    ("Bad magic number in super-block", &["p0.super.magic"], All),
    (
        "Superblock invalid",
        &["p0.super.", "p0.group.from-backup"],
        All,
    ),
    ("has_journal flag is clear", &["p0.journal.unexpected"], All),
    (
        "was part of the orphaned inode list",
        &["p0.orphan.", "p1.inode.low-dtime"],
        Inode,
    ),
    (
        "Inodes that were part of a corrupted orphan",
        &["p0.orphan.", "p1.inode.low-dtime"],
        All,
    ),
    ("Illegal block #", &["p1.block."], Inode),
    (
        "Too many illegal blocks in inode",
        &["p1.block.too-many-bad"],
        Inode,
    ),
    ("has illegal block(s)", &["p1.block."], Inode),
    ("i_blocks is", &["p1.inode.i-blocks"], Inode),
    (
        "i_size is",
        &["p1.inode.size", "p1.block.past-size", "p1.dir.size"],
        Inode,
    ),
    (
        "is too big.",
        &["p1.block.too-far", "p1.symlink.invalid"],
        Inode,
    ),
    (
        "to be too big",
        &[
            "p1.block.too-far",
            "p1.symlink.invalid",
            "p1.block.too-many-bad",
        ],
        All,
    ),
    ("has immutable", &["p1.flag.special"], Inode),
    (
        "i_file_acl_hi for inode",
        &["p1.inode.file-acl-high"],
        Inode,
    ),
    ("i_file_acl for inode", &["p1.xattr."], Inode),
    ("i_faddr for inode", &["p1.inode.faddr"], Inode),
    ("i_blocks_hi for inode", &["p1.inode.blocks-high"], Inode),
    (
        "Multiply-claimed block(s) in inode",
        &["p1b.block.shared"],
        Inode,
    ),
    ("Extended attribute block for inode", &["p1.xattr."], Inode),
    ("has the casefold flag set", &["p1.flag.casefold"], Inode),
    ("has the casefold flag, but the", &["p1.flag.casefold"], All),
    ("has imagic flag set", &["p1.flag.imagic"], Inode),
    ("has encrypt flag", &["p1.flag.encrypt"], Inode),
    ("has INLINE_DATA_FL", &["p1.flag.inline-data"], Inode),
    ("has EXTENTS_FL", &["p1.flag.extents"], Inode),
    ("has invalid mode", &["p1.mode.invalid"], Inode),
    (
        "bad block inode looks invalid",
        &["p1.bad-blocks.fields", "p1.flag.extents"],
        All,
    ),
    (
        "on the bad block list",
        &["p1.bad-blocks.metadata", "p1.bad-blocks.group"],
        All,
    ),
    (
        "is invalid.",
        &[
            "p1.symlink.invalid",
            "p1.htree.not-a-directory",
            "p1.block.",
        ],
        Inode,
    ),
    ("has non-zero size", &["p1.special.size"], Inode),
    ("is in use, but has dtime", &["p1.inode.dtime-set"], Inode),
    ("zero-length directory", &["p1.dir.empty"], Inode),
    (
        "looks like it is really a directory",
        &["p1.mode.directory"],
        Inode,
    ),
    (
        "is an illegal",
        &[
            "p1.special.invalid",
            "p1.inode.i-blocks",
            "p1.htree.not-a-directory",
        ],
        Inode,
    ),
    (
        "block bitmap at",
        &["p0.group.block-bitmap", "p0.super."],
        Group,
    ),
    (
        "inode bitmap at",
        &["p0.group.inode-bitmap", "p0.super."],
        Group,
    ),
    (
        "inode table at",
        &["p0.group.inode-table", "p0.super."],
        Group,
    ),
    ("Block bitmap for group", &["p0.group.block-bitmap"], Group),
    ("block bitmap is bad", &["p0.group.block-bitmap"], Group),
    ("Corruption found in superblock", &["p0.super."], All),
    ("Inode count in superblock", &["p0.super.inodes-count"], All),
    ("Journal superblock", &["p0.journal."], All),
    (
        "Journal version not supported",
        &["p0.journal.unknown"],
        All,
    ),
    ("has an invalid journal", &["p0.journal.missing"], All),
    ("Resize_inode and meta_bg", &["p0.resize.meta-bg"], All),
    (
        "Resize inode not valid",
        &["p0.resize.", "p0.super.reserved-blocks"],
        All,
    ),
    ("Resize_inode not enabled", &["p0.resize."], All),
    (
        "used as bad block inode indirect block",
        &["p1.bad-blocks.own"],
        All,
    ),
    ("Illegal indirect block", &["p1.block."], Inode),
    ("Illegal double indirect block", &["p1.block."], Inode),
    ("Illegal triple indirect block", &["p1.block."], Inode),
    (
        "conflicts with critical metadata",
        &["p1.block.indirect-metadata", "p1b.block.shared"],
        Inode,
    ),
    ("i_size_high for inode", &["p1.inode.dir-size-high"], Inode),
    ("an invalid root node", &["p1.htree."], Inode),
    ("unsupported hash version", &["p1.htree.root"], Inode),
    ("incompatible htree root node", &["p1.htree.root"], Inode),
    ("which is too big", &["p1.htree.root"], Inode),
    ("marked uninitialized without", &["p0.group.flags"], Group),
    ("UNINIT is set", &["p0.group.flags"], Group),
    ("located in a bad block", &["p1.bad-blocks.group"], All),
    ("seems to contain garbage", &["p1."], Inode),
    ("has a bad extended attribute block", &["p1.xattr."], Inode),
    ("has h_blocks > 1", &["p1.xattr."], All),
    ("lacks LARGE_FILE", &["p1.super.large-file"], All),
    (
        "'..' directory entry in directory inode",
        &["p2.dotdot.not-terminated"],
        Inode,
    ),
    (
        "'.' directory entry in directory inode",
        &["p2.dot.not-terminated"],
        Inode,
    ),
    ("Invalid inode number for '.'", &["p2.dot."], Inode),
    ("is a link to '.'", &["p2.entry.self"], Name),
    ("has an incorrect filetype", &["p2.entry.type"], Name),
    ("directory corrupted", &["p2.entry.corrupt"], Inode),
    ("Missing '..'", &["p2.dotdot.missing"], Inode),
    ("Missing '.'", &["p2.dot.missing"], Inode),
    ("Second entry", &["p2.dotdot.wrong-name"], All),
    ("First entry", &["p2.dot.wrong-name"], All),
    ("is a link to the root inode", &["p2.entry.root"], Name),
    (
        "is a link to directory",
        &["p2.entry.second-parent", "p2.entry.root", "p2.entry.self"],
        Name,
    ),
    ("non-unique filename", &["p2.entry.duplicate"], Name),
    ("Duplicate entry '.' found", &["p2.entry.second-dot"], All),
    ("Duplicate entry", &["p2.entry.duplicate"], Name),
    ("is duplicate '..' entry", &["p2.entry.second-dotdot"], All),
    ("is duplicate '.' entry", &["p2.entry.second-dot"], All),
    ("is big.", &["p2.dot.big"], All),
    ("illegal characters", &["p2.entry.characters"], Name),
    ("has invalid inode #", &["p2.entry.inode-range"], Name),
    ("has deleted/unused inode", &["p2.entry.dead-inode"], Name),
    ("Problem in HTREE directory", &["p2.htree.index"], Inode),
    (
        "Invalid HTREE directory",
        &["p2.htree.index", "p1.htree."],
        Inode,
    ),
    ("Root inode not allocated", &["p3.root.missing"], All),
    (
        "Unconnected directory inode",
        &["p3.dir.unconnected"],
        Inode,
    ),
    (
        "'..' in",
        &["p3.dotdot.parent", "p3.dir.unconnected", "p2.dotdot."],
        All,
    ),
    ("ref count is", &["p4.links."], Inode),
    ("Unattached inode", &["p4.inode.nameless"], Inode),
    (
        "Free blocks count wrong for group",
        &["p5.count.group-free-blocks"],
        Group,
    ),
    (
        "Free inodes count wrong for group",
        &["p5.count.group-free-inodes"],
        Group,
    ),
    (
        "Directories count wrong for group",
        &["p5.count.group-directories"],
        Group,
    ),
    ("Free blocks count wrong (", &["p5.count.free-blocks"], All),
    ("Free inodes count wrong (", &["p5.count.free-inodes"], All),
    ("Block bitmap differences", &["p5.block."], All),
    ("Inode bitmap differences", &["p5.inode."], All),
    ("end of inode bitmap", &["p5.inode.padding"], All),
    ("end of block bitmap", &["p5.block.padding"], All),
];

/// Lines that announce, ask, or say the same once more.
const TALK: &[&str] = &[
    "Warning: Group",
    "The superblock could not be read",
    "If the device is valid and it really",
    "filesystem (and not swap",
    "e2fsck -b ",
    "Can't find external journal",
    "Clear journal?",
    "Run journal anyway?",
    "FILE SYSTEM WAS MODIFIED",
    "Continue? no",
    "Abort? no",
    "aborted",
    "aborting",
    "e2fsck -b N",
    "Trying to load superblock despite errors",
    "This doesn't bode well",
    "while reading bad blocks inode",
    "The ext2 superblock is corrupt",
    "not compatible. Resize inode should",
    "should stop now and run",
    "in the filesystem.",
    "skipping journal recovery",
    "Error while iterating over blocks",
    "Error while scanning inodes",
    "Error reading directory block",
    "Resize inode (re)creation failed",
    "Superblock last write time",
    "Superblock last mount time",
    "is in the future.",
    "e2fsck 1.",
    "Pass ",
    "Relocate?",
    "Fix?",
    "Clear?",
    "Salvage?",
    "Split?",
    "Suppress",
    "Connect to",
    "Delete file?",
    "Clone multiply",
    "Clear inode?",
    "Clear flag?",
    "Rename to",
    "or append-only flag",
    "WARNING: SEVERE",
    "Restarting",
    "Relocating",
    "Running additional",
    "has N multiply",
    "(There are",
    "File ",
    "<The bad blocks",
    "Error writing",
    "multiply-claimed block(s), shared",
    "casefold feature",
    "that the block is",
    "You can remove",
    "If the block is really",
    "the backup block group",
    "running e2fsck",
    "of the inode table require",
    "may lie only",
    "Note: if several",
    "files (",
    "still has errors",
    "Clear HTree",
    "The primary superblock is on",
    "<The",
    "Create?",
    "Allocate?",
    "has ",
    "Ignore error",
    "(inode #",
    "to be rebuilt",
    "<filesystem metadata>",
    "Cannot proceed",
];

/// Where e2fsck says something and we rightly do not: image, part of the message, why.
const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "clear_xattr",
        "has an incorrect filetype (was 7, should be 0)",
        "e2fsck -n leaves the bad attribute block and takes the link for invalid; without the block it is a link",
    ),
    (
        "illibitmap",
        "Inode bitmap differences",
        "the bitmap has no place; what is to stand in it is written when it has one",
    ),
    (
        "illibitmap",
        "Free inodes count wrong",
        "e2fsck -n counts from a bitmap that it could not read; the counts of the image are right",
    ),
    (
        "illibitmap",
        "Directories count wrong",
        "e2fsck -n counts from a bitmap that it could not read; the counts of the image are right",
    ),
];

fn number_after(line: &str, word: &str) -> Option<u32> {
    let lower = line.to_ascii_lowercase();
    let mut rest = lower.as_str();
    while let Some(at) = rest.find(word) {
        rest = &rest[at + word.len()..];
        let digits: String = rest
            .trim_start_matches([' ', '#', '='])
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        if let Ok(number) = digits.parse() {
            return Some(number);
        }
    }
    None
}

/// An inode that a repair clears or turns into a directory: what else is wrong with it as it stands goes with it.
fn is_covered(line: &str, findings: &[Finding]) -> bool {
    let Some(ino) = number_after(line, "inode") else {
        return false;
    };
    findings.iter().any(|finding| {
        finding.ino == ino
            && finding.code.word().starts_with("p1.")
            && ["clear the inode", "make it a directory"].contains(&finding.action())
    })
}

fn is_found(line: &str, codes: &[&str], about: About, findings: &[Finding]) -> bool {
    findings.iter().any(|finding| {
        let class = codes
            .iter()
            .any(|code| finding.code.word().starts_with(code));
        class
            && match about {
                All => true,
                Inode => number_after(line, "inode").is_none_or(|ino| ino == finding.ino),
                Group => {
                    number_after(line, "group").is_none_or(|group| Some(group) == finding.group)
                }
                Name => line
                    .split('\'')
                    .nth(1)
                    .is_none_or(|name| name.as_bytes() == finding.name),
            }
    })
}

/// The messages in what e2fsck printed that have no finding of their class at the same object, and how many there were.
pub(crate) fn unmatched(text: &str, findings: &[Finding]) -> (usize, Vec<String>) {
    let (mut compared, mut wrong) = (0, Vec::new());
    for line in text.lines().map(str::trim).filter(|line| line.len() > 2) {
        let Some((_, codes, about)) = MESSAGES.iter().find(|(part, ..)| line.contains(part)) else {
            if !TALK.iter().any(|part| line.contains(part)) {
                wrong.push(format!("a message that the table does not know: {line}"));
            }
            continue;
        };
        compared += 1;
        if !is_found(line, codes, *about, findings) && !is_covered(line, findings) {
            wrong.push(line.to_owned());
        }
    }
    (compared, wrong)
}

#[test]
fn every_message_of_e2fsck_has_its_finding() {
    if !have("e2fsck") {
        return;
    }
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<usize> = (0..EXPLAINED.len()).collect();
    let mut compared = 0;
    shared_images::for_each(|name, image| {
        let (_, text) = e2fsck(&image);
        let findings = ours(&image).unwrap().findings;
        let (count, lines) = unmatched(&text, &findings);
        compared += count;
        for line in lines {
            match EXPLAINED
                .iter()
                .position(|(image, part, _)| *image == name && line.contains(part))
            {
                Some(nr) => _ = unused.remove(&nr),
                None => wrong.push(format!("{name}: {line}")),
            }
        }
    });
    println!("{compared} messages of e2fsck compared");
    assert!(
        compared == 0 || unused.is_empty(),
        "exceptions that are none any more: {unused:?}"
    );
    assert!(
        wrong.is_empty(),
        "{} not found\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
