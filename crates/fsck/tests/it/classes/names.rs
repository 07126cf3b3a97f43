//! Names: entries that lead nowhere, twice, or up again; link counts; what has lost its name.

use super::{Class, SIZES, class};
use crate::lab::Lab;

fn rename(lab: &mut Lab, dir: &str, from: &str, to: &[u8]) {
    let at = lab.entry(dir, from);
    assert!(to.len() <= lab.get(at + 4, 2) - 8, "no room for the name");
    lab.put(at + 6, 1, to.len() as u64);
    lab.target.bytes[at + 8..at + 8 + to.len()].copy_from_slice(to);
}

fn lead(lab: &mut Lab, dir: &str, name: &str, ino: u64) {
    let at = lab.entry(dir, name);
    lab.put(at, 4, ino);
}

/// Takes a name away and nothing else.
fn lose(lab: &mut Lab, dir: &str, name: &str) {
    lead(lab, dir, name, 0);
}

#[rustfmt::skip]
pub(crate) const CLASSES: &[Class] = &[
    class("names that lead to directories of others", SIZES, &["p2.entry.second-parent"], |lab| { lead(lab, "/", "empty", lab.ino("/a/b")); lead(lab, "/", "plain", lab.ino("/many")); }),
    class("names that lead to the root", SIZES, &["p2.entry.root"], |lab| lead(lab, "/a/b/c", "deep", 2)),
    class("names that lead to their own directory", SIZES, &["p2.entry.self"], |lab| lead(lab, "/a/b/c", "deep", lab.ino("/a/b/c"))),
    class("names that lead out of the inodes", SIZES, &["p2.entry.inode-range"], |lab| { lead(lab, "/", "empty", 0xFFFF_FFFF); lead(lab, "/", "pipe", 9); lead(lab, "/", "null", 7); }),
    class("names of free inodes", SIZES, &["p2.entry.dead-inode"], |lab| lead(lab, "/", "empty", lab.free_inode())),
    class("names with wrong types", SIZES, &["p2.entry.type"], |lab| { for (name, kind) in [("empty", 2), ("a", 1), ("pipe", 7), ("short-link", 0), ("null", 9)] { let at = lab.entry("/", name); lab.put(at + 7, 1, kind); } }),
    class("names with types although there are none", &["plain"], &["p2.entry.unexpected-type"], |lab| { for name in ["empty", "a", ".", ".."] { let at = lab.entry("/", name); lab.put(at + 7, 1, 1); } }),
    class("the same name three times", SIZES, &["p2.entry.duplicate"], |lab| { rename(lab, "/", "empty", b"plain"); rename(lab, "/", "short-link", b"plain"); }),
    class("many names twice", SIZES, &["p2.entry.duplicate"], |lab| { for i in (0..40).step_by(2) { let name = |i| format!("entry-{i:03}-with-a-long-name-so-that-blocks-fill"); let to = name(i + 1); rename(lab, "/many", &name(i), to.as_bytes()); } }),
    class("a directory and a file of one name", SIZES, &["p2.entry.duplicate"], |lab| rename(lab, "/", "big", b"a")),
    class("names with strange characters", SIZES, &["p2.entry.characters"], |lab| { rename(lab, "/", "empty", b"em/ty"); rename(lab, "/", "sparse", b"s\0arse"); rename(lab, "/a", "b", b"/"); }),
    class("names that become the same when repaired", SIZES, &["p2.entry.characters"], |lab| { rename(lab, "/", "short-link", b"em/ty"); rename(lab, "/", "empty", b"em\0ty"); }),
    class("an empty name", SIZES, &["p2.entry.no-name"], |lab| { let at = lab.entry("/", "empty"); lab.put(at + 6, 1, 0); }),
    class("second dot and dotdot", SIZES, &["p2.entry.second-dot"], |lab| { rename(lab, "/", "empty", b"."); rename(lab, "/a/b/c", "deep", b".."); }),
    class("dot and dotdot lead elsewhere", SIZES, &["p2.dot.inode", "p3.dotdot.parent"], |lab| { lead(lab, "/a", ".", 2); lead(lab, "/a/b", "..", 2); lead(lab, "/a/b/c", "..", lab.ino("/many")); }),
    class("dot and dotdot have other names", SIZES, &["p2.dot.wrong-name", "p2.dotdot.wrong-name"], |lab| { rename(lab, "/a", ".", b"x"); rename(lab, "/a/b", "..", b"xy"); }),
    class("dot and dotdot exchanged", SIZES, &["p2."], |lab| { rename(lab, "/a", ".", b".."); let at = lab.block("/a", 40) + 12; lab.put(at + 6, 1, 1); }),
    class("dot and dotdot missing", SIZES, &["p2.dot.missing"], |lab| { lead(lab, "/a/b", ".", 0); lead(lab, "/a/b/c", "..", 0); }),
    class("dot and dotdot of the root lead elsewhere", SIZES, &["p2.dot.inode"], |lab| { lead(lab, "/", "..", lab.ino("/a")); lead(lab, "/", ".", lab.ino("/many")); }),
    class("dot takes the whole block", SIZES, &["p2.dot.big"], |lab| { let at = lab.block("/lost+found", 40); let size = lab.target.block_size; lab.put(at + 4, 2, size as u64); }),
    class("directory without a name", SIZES, &["p3.dir.unconnected"], |lab| lose(lab, "/", "a")),
    class("directories in a circle", SIZES, &["p3.dir.loop"], |lab| { lose(lab, "/", "a"); lead(lab, "/a/b/c", "deep", lab.ino("/a")); lead(lab, "/a", "..", lab.ino("/a/b/c")); let at = lab.entry("/a/b/c", "deep"); lab.put(at + 7, 1, 2); }),
    class("lost directory with bad fields", SIZES, &["p3.dir.unconnected", "p1.inode.faddr"], |lab| { lose(lab, "/a", "b"); lab.inode("/a/b", 112, 4, 12); lab.inode("/a/b", 104, 4, 12_000_000); lab.inode("/a/b", 108, 4, 5); lab.inode("/a/b/c/deep", 0, 2, 0o177_777); }),
    class("lost files of every kind", SIZES, &["p4.inode.nameless"], |lab| ["big", "sparse", "short-link", "long-link", "pipe", "null", "disk", "empty"].into_iter().for_each(|name| lose(lab, "/", name))),
    class("lost file with a bad mode", SIZES, &["p1.mode.invalid"], |lab| { lose(lab, "/", "big"); lab.inode("/big", 0, 2, 0o177_777); }),
    class("lost file with blocks out of range", SIZES, &["p4.inode.nameless", "p1.block.out-of-range"], |lab| { lose(lab, "/", "big"); lab.inode("/big", 40, 4, 0xFFF_FFFF); lab.inode("/big", 112, 4, 9); }),
    class("no lost+found and nothing lost", SIZES, &[], |lab| { lose(lab, "/", "lost+found"); let at = lab.at("/lost+found"); lab.target.bytes[at..at + 128].fill(0); }),
    class("no lost+found and files lost", SIZES, &["p4.inode.nameless"], |lab| { lose(lab, "/", "lost+found"); let at = lab.at("/lost+found"); lab.target.bytes[at..at + 128].fill(0); lose(lab, "/", "big"); lose(lab, "/", "a"); }),
    class("lost+found is a file", SIZES, &["p4.inode.nameless"], |lab| { rename(lab, "/", "lost+found", b"was-before"); rename(lab, "/", "second-name", b"lost+found"); lose(lab, "/", "big"); }),
    class("lost+found is a link", SIZES, &["p4.inode.nameless"], |lab| { rename(lab, "/", "lost+found", b"was-before"); rename(lab, "/", "short-link", b"lost+found"); lose(lab, "/", "big"); }),
    class("lost+found is itself lost", SIZES, &["p3.dir.unconnected"], |lab| { lose(lab, "/", "lost+found"); lose(lab, "/", "big"); }),
    class("lost+found is an invalid inode", SIZES, &["p4.inode.nameless"], |lab| { lab.inode("/lost+found", 0, 2, 0o030_000); lose(lab, "/", "big"); }),
    class("lost+found is damaged", SIZES, &["p4.inode.nameless", "p2."], |lab| { lab.fill((lab.block("/lost+found", 40) / lab.target.block_size) as u64, 0xEE); lose(lab, "/", "big"); }),
    class("link counts wrong", SIZES, &["p4.links.too-high", "p4.links.too-low"], |lab| { lab.inode("/plain", 26, 2, 65_535); lab.inode("/a", 26, 2, 1); lab.inode("/big", 26, 2, 2); lab.inode("/many/entry-000-with-a-long-name-so-that-blocks-fill", 26, 2, 3); }),
    class("link counts of directories at their limits", &["extra-isize"], &["p4.links."], |lab| { lab.inode("/a", 26, 2, 65_000); lab.inode("/a/b", 26, 2, 65_535); lab.inode("/a/b/c", 26, 2, 1); lab.inode("/many", 26, 2, 0); }),
    class("link counts of directories at their limits, no dir_nlink", SIZES, &["p4.links."], |lab| { lab.inode("/a", 26, 2, 65_000); lab.inode("/a/b", 26, 2, 65_535); lab.inode("/many", 26, 2, 0); }),
    class("a file that looks like a directory", SIZES, &["p1.mode."], |lab| lab.inode("/a/b", 0, 2, 0o160_755)),
    class("a directory that is a fifo", SIZES, &["p1.mode.directory"], |lab| lab.inode("/a/b", 0, 2, 0o010_755)),
    class("a directory that is a file", SIZES, &["p2.entry.type"], |lab| lab.inode("/a/b", 0, 2, 0o100_755)),
    class("a file that is a directory", SIZES, &["p2."], |lab| lab.inode("/big", 0, 2, 0o040_755)),
];
