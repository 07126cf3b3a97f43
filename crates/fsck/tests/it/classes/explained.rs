//! Where e2fsck and ours differ on a class of damage, and why that is right. A line that is not needed any more fails the test.

/// What differs and why that is right: class, start of the line that says so, reason.
#[rustfmt::skip]
pub(super) const EXPLAINED: &[(&str, &str, &str)] = &[
    ("journal with something in it, flag clear", "-p: e2fsck 4, ours 0", "Linux drops such a log without asking, and so nothing is wrong"),
    ("", "-p: e2fsck 8, ours 4", "e2fsck -p looks for no backup and gives up; we have found one, and leave the decision to a person"),
    ("orphan", "-p: e2fsck 0, ours 1", "e2fsck completes the orphan list before it counts changes; for us it is a repair like others"),
    ("orphan", "-y: e2fsck 0, ours 1", "the same with -y"),
    ("orphan list begins", "-n: e2fsck 0, ours", "e2fsck -n does not look at the orphan list"),
    ("attribute ", "-p: e2fsck 1, ours 4", "attributes would be lost: that is for a person to decide"),
    ("attribute pointers", "not found: ", "e2fsck -n takes the attribute block for one of the directory's"),
    ("bad block list out of range", "after e2fsck -y ours 4", BAD_TABLE),
    ("inode table on the bad block list", "after e2fsck -y ours 4", BAD_TABLE),
    ("inode table on the bad block list", "-p: e2fsck 1, ours 4", BAD_TABLE),
    ("inode table on the bad block list", "saved: ", BAD_TABLE),
    ("block bitmap missing", "-p: e2fsck 1, ours 4", NUMBER_0),
    ("inode bitmap missing", "-p: e2fsck 1, ours 4", NUMBER_0),
    ("full image, block bitmap without a place", "-p: e2fsck 1, ours 4", NUMBER_0),
    ("block count larger than the image", "-", "what is missing cannot be checked: an image cut short is refused, with both numbers"),
    ("directories in a circle", "after e2fsck -y ours 4", "e2fsck does not see a circle in which every dotdot fits"),
    ("directories in a circle", "saved: /lost+found: ", "so it does not bring it back; we do"),
    ("dot takes the whole block", "-p: e2fsck 4, ours 1", "whose directory it is and where it leads the other entries say"),
    ("first meta group", "-n: e2fsck 0", "where a backup is good, e2fsck -n uses it without a word"),
    ("group marked uninitialised", "-", "e2fsck says so and does not count it as a change"),
    ("index: ", "-p: e2fsck 4, ours 1", STALE_INDEX),
    ("two names exchanged between leaves", "-p: e2fsck 4, ours 1", STALE_INDEX),
    ("inode table of noise", "after e2fsck -y ours 4", "e2fsck notes the bad attribute block of a reserved inode and never comes back to it"),
    ("inode table of zeros", "-p: e2fsck 4, ours 1", "every inode that is gone is gone: its names lead nowhere, and nothing else is lost with them"),
    ("inode table of zeros", "saved: /", NOTHING_LOST),
    ("no lost+found and nothing lost", "saved: /", NOTHING_LOST),
    ("inode table missing", "saved: /: ", "e2fsck makes a new table of zeros; ours finds the old one where it is, and all files with it"),
    ("inode table outside", "saved: /: ", "e2fsck makes a new table of zeros; ours finds the old one where it is, and all files with it"),
    ("as many reserved descriptors as can be", "saved: ", "e2fsck moves the table, which costs it the root; we correct the number"),
    ("one reserved descriptor more", "after e2fsck -y ours 4", "e2fsck looks at a quarter of the reserved blocks"),
    ("file on blocks reserved for descriptors", "saved: /big: ", "the copy holds what stood in the blocks when it was made"),
    ("indirect block in the inode table", "saved: /big: ", NOT_POINTERS),
    ("triple indirect block in the inode table", "saved: /a/b/c/deep: ", NOT_POINTERS),
    ("journal elsewhere, no feature", "-", "e2fsck overlooks the device number"),
    ("journal elsewhere, no feature", "after e2fsck -y ours 4", "e2fsck overlooks the device number"),
    ("journal elsewhere", "-", "a journal that is not in the image is not looked at"),
    ("journal here and elsewhere", "-", "a journal that is not in the image is not looked at"),
    ("journal elsewhere", "after ours e2fsck 12", "e2fsck wants the device with the journal"),
    ("journal here and elsewhere", "after ours e2fsck 12", "e2fsck wants the device with the journal"),
    ("journal inode without links", "-n: e2fsck 0", "e2fsck -n asks, and exits with 0"),
    ("journal without the feature", "-n: e2fsck 0", "e2fsck -n asks, and exits with 0"),
    ("journal to replay without the feature", "-n: e2fsck 0", "e2fsck -n asks, and exits with 0"),
    ("journal number of another inode", "saved: /big: ", "e2fsck makes the file the journal; ours keeps it"),
    ("journal to replay", "-", "a journal is not replayed here: refused, and said who does it"),
    ("journal of many file systems", "-y: e2fsck 0, ours 1", "e2fsck clears the fields and does not count that"),
    ("journal of many file systems", "-p: e2fsck 0, ours 1", "e2fsck clears the fields and does not count that"),
    ("journal of many file systems, to replay", "-", "a journal is not replayed here: refused, and said who does it"),
    ("journal with a checksum and an error number", "-", "e2fsck clears it and does not count that"),
    ("journal with an error number", "-", "e2fsck clears it and does not count that"),
    ("meta_bg beside the resize inode", "-n: e2fsck 0", "e2fsck -n asks, and exits with 0"),
    ("resize inode beside meta_bg", "-n: e2fsck 0", "e2fsck -n asks, and exits with 0"),
    ("more blocks free than there are", "-n: e2fsck 0", "e2fsck takes the total from the groups when it opens the image"),
    ("names that lead to directories of others", "not found: ", OWN_PARENT),
    ("names that lead to directories of others", "saved: ", OWN_PARENT),
    ("not unmounted, errors seen", "-", "e2fsck counts the error bit, which goes when all is well"),
    ("root cleared, many files", "saved: /", ROOT_KEPT),
    ("root is a file", "saved: /", ROOT_KEPT),
    ("short link with a sector count", "-p: e2fsck 4, ours 1", "the text fits the size: only the count is wrong"),
    ("short link with a sector count", "not found: ", "e2fsck takes the text for block numbers"),
];

const BAD_TABLE: &str = "e2fsck lives with a bad block in the inode table and drops the inodes there; ours moves the table";
const NUMBER_0: &str = "with blocks of more than 1 KiB e2fsck takes the number 0 for one that was never set, and makes the bitmap without asking";
const STALE_INDEX: &str =
    "every name is there without the index, so preen clears a stale one instead of stopping a boot";
const NOTHING_LOST: &str = "e2fsck makes a lost+found although nothing is lost";
const NOT_POINTERS: &str =
    "e2fsck takes what the table holds for block numbers, and the blocks from those that own them";
const OWN_PARENT: &str = "e2fsck keeps the name that it meets first, ours the one in the directory to which dotdot leads";
const ROOT_KEPT: &str = "only the mode of the root is wrong: its names are still there, and stay";

/// What e2fsck -n says because it goes on with what it has not repaired: part of its message, starts of codes one of which we
/// have found, why.
#[rustfmt::skip]
pub(super) const CONSEQUENCES: &[(&str, &[&str], &str)] = &[
    ("Inode 8", &["p0.journal.missing"], CLEARED),
    ("Free blocks count wrong", &["p0.group.", "p5.block."], COUNTED),
    ("Free inodes count wrong", &["p0.group.", "p5.inode."], COUNTED),
    ("Directories count wrong", &["p0.group.", "p5.inode."], COUNTED),
    ("bitmap differences", &["p0.group.", "p0.super.", "p1.bad-blocks."], BITMAP),
    ("Padding at end of", &["p0.group."], BITMAP),
    ("is <The NULL inode>", &["p2.dir.hole", "p1.dir.empty", "p2.dot.big"], NO_DOTS),
    ("in inode 8.", &["p0.journal.missing"], CLEARED),
    ("conflicts with", &["p0.super."], RESERVED),
    ("Corrupt group descriptor", &["p0.super.", "p0.group."], RESERVED),
    ("Group descriptors look bad", &["p0.super."], RESERVED),
    ("Directories count wrong", &["p1.bad-blocks.group"], "e2fsck drops inodes that lie on a bad block"),
    ("Problem in HTREE", &["p2.dir.hole", "p1.htree."], NO_INDEX),
    ("has an incorrect filetype", &["p2.entry.dead-inode", "p1.", "p2.entry.", "p3.root"], GONE),
    ("is in use, but has dtime", &["p0.orphan.", "p1.inode.low-dtime", "p1.root.dtime"], "the same time under another name"),
    ("in inode 7:", &["p0.resize.", "p1b."], "what the resize inode owns is metadata for us"),
    ("Multiply-claimed", &["p0.super.", "p1.block.indirect-metadata"], "e2fsck takes metadata for what it is not"),
    ("i_size is", &["p1.block.indirect-metadata"], "e2fsck takes metadata for what it is not"),
    ("ref count is", &["p1.bad-blocks.group", "p2.entry.self", "p2.entry.root"], "e2fsck -n counts the name that it has not cleared"),
    ("directory corrupted", &["p1.journal.mode"], "the journal is no directory, whatever its mode"),
    ("non-unique filename", &["p2.entry.second-dotdot"], "two dotdots are of one name"),
    ("Duplicate entry '..'", &["p2.entry.second-dotdot"], "two dotdots are of one name"),
    ("illegal characters", &["p2.entry.characters"], "the program's way to show NUL"),
];

const RESERVED: &str = "one number of the superblock is wrong, not the places of all that it meets";
const CLEARED: &str = "the journal's inode is cleared as a whole";
const COUNTED: &str = "e2fsck -n counts from a bitmap that it has not repaired";
const BITMAP: &str = "what is to stand in a bitmap is written when it has a place";
const NO_DOTS: &str = "the directory gets its dots with its block, and its parent with them";
const NO_INDEX: &str = "there is no index to check";
const GONE: &str = "the inode is cleared, and its type with it";
