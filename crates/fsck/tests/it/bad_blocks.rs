//! Lists of bad blocks: what is stored, who makes room, and what e2fsck makes of it.

use std::fs;
use std::path::Path;

use ext2dax_fsck::{BadBlocks, CheckOptions, list_bad_blocks, repair};
use ext2dax_pmem::{AnonRegion, EventKind, Pmem, Recorder};

use crate::judge::{e2fsck, have, run, scratch};
use crate::lab::Lab;
use crate::program::{fsck, text};
use crate::samples::{SHAPES, make};
use crate::tree::tree;

/// The list as e2fsprogs read it.
fn listed(image: &str) -> Vec<usize> {
    let output = run("dumpe2fs", &["-b", image]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn write_list(at: &Path, blocks: &[usize]) -> String {
    let lines: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    fs::write(at, lines.join("\n") + "\n").unwrap();
    at.to_str().unwrap().to_owned()
}

/// Paths with what a user sees of them; block numbers are none of his business.
fn seen(image: &Path) -> Vec<(Vec<u8>, u64, u64)> {
    let nodes = tree(fs::read(image).unwrap()).into_iter();
    nodes
        .map(|(path, node)| (path, node.size, node.contents))
        .collect()
}

#[test]
fn whatever_lies_on_a_bad_block_moves_away_and_nothing_is_lost() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") || !have("dumpe2fs") {
        return;
    }
    let dir = scratch();
    for &(name, size, options) in SHAPES {
        let path = dir.path().join(name);
        make(&path, size, options);
        let image = path.to_str().unwrap();
        let lab = Lab::new(fs::read(&path).unwrap());
        let block_size = lab.target.block_size;
        let data = |path: &str, field: usize| lab.block(path, field) / block_size;
        let free: Vec<usize> = (0..40)
            .map(|nth| usize::try_from(lab.free_block(nth)).unwrap())
            .collect();
        let bitmaps = [lab.desc_get(0, 0), lab.desc_get(0, 4)];
        let mut bad = vec![data("/big", 40), data("/big", 88), data("/many", 40)];
        bad.extend(bitmaps);
        bad.push(lab.desc_get(0, 8));
        bad.extend(&free);
        // The superblock cannot move, and what is not there cannot be bad.
        let superblock = usize::from(block_size == 1024);
        let before = seen(&path);
        let mut all = bad.clone();
        all.extend([superblock, 0xFF_FFFF]);
        let list = write_list(&dir.path().join("list"), &all);
        let output = fsck(&["-fy", "-l", &list, image]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output));
        assert!(
            text(&output).contains("16777215 is not in"),
            "{name}: {}",
            text(&output)
        );
        bad.retain(|&block| block != 0);
        bad.sort_unstable();
        assert_eq!(listed(image), bad, "{name}");
        assert!(before == seen(&path), "{name}: files have changed");
        let (status, said) = e2fsck(&path);
        assert_eq!(status, 0, "{name}: {said}");
        let again = fsck(&["-fy", "-l", &list, image]);
        assert!(again.status.code() <= Some(1), "{name}: {}", text(&again));
        assert_eq!(listed(image), bad, "{name}");
        // A shorter list gives the others back.
        let rest = write_list(&dir.path().join("list"), &free[..2]);
        let output = fsck(&["-fy", "-L", &rest, image]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output));
        let mut rest = free[..2].to_vec();
        rest.sort_unstable();
        assert_eq!(listed(image), rest, "{name}");
        assert_eq!(e2fsck(&path).0, 0, "{name}");
        assert!(before == seen(&path), "{name}: files have changed");
    }
}

fn region(bytes: &[u8]) -> Pmem {
    let pmem = Pmem::new(AnonRegion::new(bytes.len() as u64).unwrap());
    pmem.write(0, bytes);
    pmem
}

/// Long lists need indirect blocks of two levels; a kill anywhere leaves what a repair can finish.
#[test]
fn a_long_list_is_written_in_full_or_repaired_after_a_kill() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") || !have("dumpe2fs") {
        return;
    }
    let dir = scratch();
    let path = dir.path().join("1k");
    let (_, size, shape) = SHAPES[0];
    make(&path, size, shape);
    let bytes = fs::read(&path).unwrap();
    let lab = Lab::new(bytes.clone());
    let list = BadBlocks {
        blocks: (0..400).map(|nth| lab.free_block(nth)).collect(),
        replace: false,
    };
    let recorder = Recorder::new();
    let pmem = region(&bytes).observed_by(recorder.observer());
    let options = CheckOptions {
        threads: 1,
        ..CheckOptions::default()
    };
    let done = list_bad_blocks(&pmem, &options, &list).unwrap();
    assert_eq!((done.before, done.after), (0, 400));
    let mut end = vec![0; bytes.len()];
    pmem.read(0, &mut end);
    fs::write(&path, &end).unwrap();
    assert_eq!(listed(path.to_str().unwrap()).len(), 400);
    let stores: Vec<_> = recorder
        .take()
        .into_iter()
        .filter_map(|event| match event.kind {
            EventKind::Store { at, bytes, .. } => Some((usize::try_from(at).unwrap(), bytes)),
            _ => None,
        })
        .collect();
    assert!(stores.len() > 400, "{} stores", stores.len());
    let mut image = bytes;
    let step = stores.len() / 12;
    let last = stores.len() - 1;
    for (nr, (at, new)) in stores.iter().enumerate() {
        image[*at..*at + new.len()].copy_from_slice(new);
        if nr % step != 0 && nr + 30 < last {
            continue;
        }
        let pmem = region(&image);
        let repaired = repair(&pmem, &options, &mut |_| true).unwrap();
        assert!(repaired.report.is_clean(), "killed after store {nr}");
        let mut end = vec![0; image.len()];
        pmem.read(0, &mut end);
        fs::write(&path, &end).unwrap();
        let (status, text) = e2fsck(&path);
        assert_eq!(status, 0, "killed after store {nr}: {text}");
    }
}

#[test]
fn lists_that_cannot_be_read_or_stored_change_nothing() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let dir = scratch();
    let path = dir.path().join("1k");
    let (_, size, shape) = SHAPES[0];
    make(&path, size, shape);
    let before = fs::read(&path).unwrap();
    let image = path.to_str().unwrap();
    let list = dir.path().join("list");
    let name = list.to_str().unwrap();
    fs::write(&list, "# from badblocks\n700\n\nseven\n").unwrap();
    let output = fsck(&["-fy", "-l", name, image]);
    assert_eq!(output.status.code(), Some(8), "{}", text(&output));
    assert!(text(&output).contains("line 4"), "{}", text(&output));
    for (args, status) in [
        (&["-fy", "-l", "/no/such/list", image][..], 8),
        (&["-fn", "-l", name, image], 16),
        (&["-fy", "-l", name, "-L", name, image], 16),
    ] {
        let output = fsck(args);
        assert_eq!(output.status.code(), Some(status), "{}", text(&output));
    }
    assert!(before == fs::read(&path).unwrap(), "something was stored");
}
