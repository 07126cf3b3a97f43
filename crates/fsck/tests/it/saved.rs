//! What e2fsck saves of a damaged image we save, too, with the same bytes, under the same names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ext2dax_fsck::{CheckOptions, repair};
use ext2dax_pmem::Access;

use crate::judge::{have, open, run};
use crate::shared_images;
use crate::tree::{Node, tree};

/// Paths that differ on an image after the two repairs, and why ours is as good.
const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "bad_disconnected_inode",
        "/: ",
        "e2fsck makes a lost+found although nothing is lost; so the root has one link more",
    ),
    (
        "bad_disconnected_inode",
        "/lost+found: ",
        "e2fsck makes a lost+found although nothing is lost",
    ),
    (
        "dupsuper",
        "/termcap: ",
        "the file claims the superblock and a bitmap: its copy holds what they were when it was made",
    ),
    (
        "misstable",
        "/: ",
        "e2fsck zeroes the inode table that has no place; ours finds it where it is, and four directories more are saved",
    ),
];

fn describe(node: &Node) -> String {
    format!(
        "inode {} mode {:o} links {} size {}",
        node.ino, node.mode, node.links, node.size
    )
}

/// What e2fsck's tree has and ours has not, or has otherwise.
pub(crate) fn missing(
    theirs: &BTreeMap<Vec<u8>, Node>,
    ours: &BTreeMap<Vec<u8>, Node>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, node) in theirs {
        let name = String::from_utf8_lossy(path).into_owned();
        match ours.get(path) {
            None => wrong.push(format!("{name}: gone ({})", describe(node))),
            // A directory's size depends on where its repairer found room.
            Some(mine) if mine.is_dir() && node.is_dir() => {
                if (mine.ino, mine.mode, mine.links, mine.owner)
                    != (node.ino, node.mode, node.links, node.owner)
                {
                    wrong.push(format!(
                        "{name}: {}, e2fsck has {}",
                        describe(mine),
                        describe(node)
                    ));
                }
            }
            Some(mine) if mine != node => {
                let bytes = if mine.contents == node.contents {
                    ""
                } else {
                    ", other bytes"
                };
                wrong.push(format!(
                    "{name}: {}, e2fsck has {}{bytes}",
                    describe(mine),
                    describe(node)
                ));
            }
            Some(_) => {}
        }
    }
    wrong
}

#[test]
fn what_e2fsck_saves_we_save_with_the_same_bytes() {
    if !have("e2fsck") {
        return;
    }
    let mut wrong = Vec::new();
    let mut files = 0;
    let mut unused: BTreeSet<usize> = (0..EXPLAINED.len()).collect();
    shared_images::for_each(|name, image| {
        let copy = image.with_extension("theirs");
        fs::copy(&image, &copy).unwrap();
        run(
            "timeout",
            &["-s", "KILL", "20", "e2fsck", "-fy", copy.to_str().unwrap()],
        );
        let options = CheckOptions::default();
        let repaired = repair(&open(&image, Access::ReadWrite), &options, &mut |_| true).unwrap();
        assert!(repaired.report.is_clean(), "{name}");
        let theirs = tree(fs::read(&copy).unwrap());
        files += theirs.len();
        for line in missing(&theirs, &tree(fs::read(&image).unwrap())) {
            let explained = EXPLAINED
                .iter()
                .position(|(image, path, _)| *image == name && line.starts_with(path));
            match explained {
                Some(nr) => _ = unused.remove(&nr),
                None => wrong.push(format!("{name}: {line}")),
            }
        }
        fs::remove_file(&copy).unwrap();
    });
    println!("{files} files compared");
    assert!(
        files == 0 || unused.is_empty(),
        "exceptions that are none any more: {unused:?}"
    );
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The trees that the Linux kernel showed of the images after e2fsck's repair, written down with the images.
#[test]
fn trees_after_a_repair_are_those_that_the_kernel_showed() {
    let Some(folder) = shared_images::folder() else {
        return;
    };
    let mut wrong = Vec::new();
    shared_images::for_each(|name, image| {
        let Some(expected) = expected(&folder, name) else {
            return;
        };
        let options = CheckOptions::default();
        repair(&open(&image, Access::ReadWrite), &options, &mut |_| true).unwrap();
        let ours = tree(fs::read(&image).unwrap());
        for (path, line) in expected {
            let explained = EXPLAINED.iter().any(|(image, start, _)| {
                *image == name && format!("{}: ", String::from_utf8_lossy(&path)) == **start
            });
            let found = ours.get(&path).map(|node| {
                let (mode, size) = (node.mode & 0o7777, node.size);
                let size = if node.is_dir() { 0 } else { size };
                format!(
                    "{} {mode:o} {} {}:{} {size}",
                    node.ino, node.links, node.owner.0, node.owner.1
                )
            });
            if found.as_ref() != Some(&line) && !explained {
                wrong.push(format!(
                    "{name} {}: {found:?}, not {line}",
                    String::from_utf8_lossy(&path)
                ));
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Path and `INO MODE LINKS UID:GID SIZE` of each line; directories have size 0 here.
fn expected(folder: &Path, name: &str) -> Option<Vec<(Vec<u8>, String)>> {
    let plain = folder.join(format!("{name}.tree-after.txt"));
    let packed = folder.join(format!("{name}.tree-after.txt.zst"));
    let text = match fs::read(&plain) {
        Ok(text) => text,
        Err(_) => zstd::decode_all(fs::read(packed).ok()?.as_slice()).unwrap(),
    };
    let mut lines = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        let fields: Vec<&[u8]> = line.splitn(8, |&byte| byte == b' ').collect();
        let [ino, kind, mode, links, owner, size, _, rest] = fields.as_slice() else {
            continue;
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let end = rest
            .windows(4)
            .position(|w| w == b" -> ")
            .unwrap_or(rest.len());
        let path = rest[..end].strip_prefix(b".").unwrap_or(&rest[..end]);
        let path = if path.is_empty() {
            b"/".to_vec()
        } else {
            path.to_vec()
        };
        // Device files show their numbers where others have a size.
        let size = if *kind == b"d" {
            "0".to_owned()
        } else {
            text(size)
        };
        lines.push((
            path,
            format!(
                "{} {} {} {} {size}",
                text(ino),
                text(mode),
                text(links),
                text(owner)
            ),
        ));
    }
    Some(lines)
}
