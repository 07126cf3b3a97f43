//! Fences: how many, and what has been flushed when they come.

use std::sync::Arc;

use ext2dax_format::{FileBlock, Geometry, RawSuperblock};
use ext2dax_getblock::{BlockTree, Epoch, Options, Volume};
use ext2dax_pmem::{Off, Pmem, Recorder};

use crate::image::{ALLOCATE, HINTS, Image, judges, kib, region};

/// The same image with a recorder in between.
fn recorded(image: &mut Image) -> Recorder {
    let recorder = Recorder::new();
    image.reopen_with(|path| {
        let pmem = Pmem::with_observer(region(path), recorder.observer());
        let raw: RawSuperblock = pmem.read_value(Off::new(1024));
        let geometry = Geometry::new(&raw, pmem.len()).expect("a geometry");
        Volume::open(pmem, geometry, Options::default()).expect("a volume")
    });
    recorder
}

fn fences<T>(recorder: &Recorder, what: impl FnOnce() -> T) -> usize {
    let before = recorder.fences();
    let _ = what();
    recorder.fences() - before
}

#[test]
fn filling_a_hole_takes_two_fences_at_any_depth_and_length() {
    if !judges() {
        return;
    }
    let mut image = Image::new(&["-b", "1024"], kib(1024));
    let recorder = recorded(&mut image);
    let tree = image.file();
    let mut guard = tree.lock();
    for (at, len) in [
        (0, 1),
        (3, 300),
        (12 + 256 + 207, 2),
        (12 + 256 + 65536 + 9, 1),
    ] {
        let count = fences(&recorder, || {
            tree.get_blocks(&mut guard, FileBlock(at), len, ALLOCATE)
        });
        assert_eq!(count, 2, "block {at}");
    }
    let count = fences(&recorder, || {
        tree.get_blocks(&mut guard, FileBlock(0), 1, ALLOCATE)
    });
    assert_eq!(count, 0, "a block that is there");
    let count = fences(&recorder, || tree.lookup(FileBlock(70_000), 1));
    assert_eq!(count, 0, "a look-up");
}

#[test]
fn detaching_takes_one_fence_and_freeing_none() {
    if !judges() {
        return;
    }
    let mut image = Image::new(&["-b", "1024"], kib(1024));
    let recorder = recorded(&mut image);
    let tree = image.file();
    let mut guard = tree.lock();
    let mut detached = None;
    assert_eq!(
        fences(&recorder, || detached =
            Some(tree.detach(&mut guard, FileBlock(0), FileBlock(9)))),
        0,
        "nothing to detach"
    );
    tree.get_blocks(&mut guard, FileBlock(0), 600, ALLOCATE)
        .expect("space");
    assert_eq!(
        fences(&recorder, || detached = Some(tree.detach(
            &mut guard,
            FileBlock(5),
            FileBlock(u32::MAX)
        ))),
        1
    );
    let detached = detached.expect("ran").expect("a sound tree");
    assert_eq!(fences(&recorder, || image.volume.free(detached)), 0);
}

#[test]
fn a_prepared_branch_fences_nothing_itself_and_says_when_it_stays_in_the_first_line() {
    if !judges() {
        return;
    }
    let mut image = Image::new(&["-b", "4096"], kib(4096));
    let recorder = recorded(&mut image);
    let tree = image.file();
    let mut guard = tree.lock();
    for (at, first_line) in [(0, true), (5, true), (6, false), (12, false)] {
        let count = fences(&recorder, || {
            let branch = tree
                .prepare(&mut guard, FileBlock(at), 1, HINTS)
                .expect("space");
            assert_eq!(branch.in_first_line(), first_line, "block {at}");
            tree.splice(&mut guard, branch);
        });
        assert_eq!(count, 0, "block {at}");
    }
    let pmem = image.volume.pmem();
    let fresh = image.volume.allocate_block(None, false).expect("space");
    let count = fences(&recorder, || {
        let zeroed = Epoch::new(pmem).fence(fresh.zero(&image.volume));
        let old = tree
            .swing(&mut guard, FileBlock(0), zeroed)
            .expect("a mapped block");
        image.volume.free(Epoch::new(pmem).fence(old));
    });
    assert_eq!(count, 2, "a copy, a fence, a swing, a fence");
}

#[test]
fn a_dropped_branch_gives_every_block_back() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "1024"], kib(1024));
    let tree = Arc::new(image.file());
    let before = image.volume.counts();
    let mut guard = tree.lock();
    for at in [0, 12, 12 + 256, 12 + 256 + 65536] {
        let branch =
            BlockTree::prepare(&tree, &mut guard, FileBlock(at), 40, HINTS).expect("space");
        drop(branch);
        assert_eq!(image.volume.counts(), before, "block {at}");
    }
    drop(guard);
    image.check(&[tree.ino()]);
}
