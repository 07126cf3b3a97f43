//! The last blocks: exact, undone when they do not suffice, shared by threads.

use ext2dax_format::{Error, FileBlock, RawSuperblock};
use ext2dax_getblock::{BlockTree, Hints, Intent};
use ext2dax_pmem::field;

use crate::image::{ALLOCATE, BLOCK_SIZES, Image, judges, kib};

const PRIVILEGED: Intent = Intent::Allocate(Hints {
    goal: None,
    privileged: true,
});

/// Grows the file until there is nothing left; its number of blocks.
fn fill(tree: &BlockTree, intent: Intent) -> u32 {
    let mut guard = tree.lock();
    let mut at = 0;
    loop {
        match tree.get_blocks(&mut guard, FileBlock(at), 100, intent) {
            Ok(mapping) => at += mapping.len(),
            Err(error) => {
                assert_eq!(error, Error::NoSpace);
                return at;
            }
        }
    }
}

#[test]
fn the_last_block_can_be_had_and_the_reserve_only_by_the_privileged() {
    if !judges() {
        return;
    }
    for size in BLOCK_SIZES {
        let image = Image::new(&["-b", &size.to_string(), "-m", "10"], kib(size) / 2);
        let tree = image.file();
        fill(&tree, ALLOCATE);
        let counts = image.volume.counts();
        // One block may be left that needs an indirect block as company.
        assert!(
            counts.available_blocks <= 3,
            "block size {size}: {counts:?}"
        );
        assert!(counts.free_blocks >= u64::from(image.volume.geometry().reserved_blocks()));
        let len = fill(&tree, PRIVILEGED);
        assert!(image.volume.counts().free_blocks <= 3, "block size {size}");
        let small = image.file();
        for at in 0..image.volume.counts().free_blocks {
            let at = FileBlock(u32::try_from(at).expect("few"));
            let got = small.get_blocks(&mut small.lock(), at, 1, PRIVILEGED);
            got.expect("a direct block needs no company");
        }
        let before = image.volume.counts();
        assert_eq!(before.free_blocks, 0);
        let refused = small.get_blocks(&mut small.lock(), FileBlock(11), 1, PRIVILEGED);
        assert_eq!(refused, Err(Error::NoSpace));
        image.set_size(&tree, u64::from(len));
        image.set_size(&small, 12);
        image.check(&[tree.ino(), small.ino()]);
    }
}

/// With one block left, a block behind a missing indirect block cannot be had: the one that was taken comes back.
#[test]
fn a_failed_fill_changes_neither_bits_nor_counters_nor_the_tree() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "1024", "-m", "0"], 2048);
    let full = image.file();
    let len = fill(&full, ALLOCATE);
    let mut guard = full.lock();
    for keep in 1..4_u32 {
        let detached = full.detach(&mut guard, FileBlock(len - keep), FileBlock(len));
        image.volume.free(detached.expect("a sound tree"));
        while image.volume.counts().free_blocks > u64::from(keep) {
            let _ = image
                .volume
                .allocate_block(None, true)
                .expect("counted")
                .assume_written();
        }
        let tree = image.file();
        let before = image.volume.counts();
        let at = FileBlock(12 + 256 + 65536);
        let refused = tree.get_blocks(&mut tree.lock(), at, 9, ALLOCATE);
        assert_eq!(refused, Err(Error::NoSpace), "{keep} blocks, 4 needed");
        assert_eq!(image.volume.counts(), before);
        assert_eq!(tree.sectors(), 0);
        // The same blocks are enough where fewer indirect blocks are needed.
        if keep >= 2 {
            let got = tree.get_blocks(&mut tree.lock(), FileBlock(12), 9, ALLOCATE);
            assert_eq!(got.map(|got| got.len()), Ok(keep - 1));
            let detached = tree.detach(&mut tree.lock(), FileBlock(0), FileBlock(99));
            image.volume.free(detached.expect("a sound tree"));
        }
    }
}

/// Open files reserve 2 MiB at a time; a file system full of reservations is not a full file system.
#[test]
fn reservations_of_others_are_not_lost_space() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "4096", "-m", "0"], 32 * 1024);
    let many: Vec<_> = (0..16).map(|_| image.file()).collect();
    for tree in &many {
        let got = tree.get_blocks(&mut tree.lock(), FileBlock(0), 16, ALLOCATE);
        got.expect("space");
    }
    let last = image.file();
    let len = fill(&last, ALLOCATE);
    assert!(
        image.volume.counts().free_blocks <= 1,
        "{:?}",
        image.volume.counts()
    );
    image.set_size(&last, u64::from(len));
    let mut inos = vec![last.ino()];
    for tree in &many {
        image.set_size(tree, 16);
        inos.push(tree.ino());
    }
    image.check(&inos);
}

#[test]
fn counters_that_lie_are_counted_again_after_an_unclean_end() {
    if !judges() {
        return;
    }
    let mut image = Image::new(&["-b", "1024"], 40 * 1024);
    let honest = image.volume.counts();
    let pmem = image.volume.pmem();
    pmem.store(
        field!(
            image.volume.superblock(),
            RawSuperblock,
            s_free_blocks_count
        ),
        7.into(),
    );
    pmem.store(
        field!(
            image.volume.superblock(),
            RawSuperblock,
            s_free_inodes_count
        ),
        9.into(),
    );
    image.reopen(false);
    assert_eq!(image.volume.counts(), honest);
    image.check(&[]);
}

#[test]
fn threads_on_different_files_share_no_block() {
    if !judges() {
        return;
    }
    for size in [1024, 4096, 65536] {
        let image = Image::new(&["-b", &size.to_string(), "-m", "0"], kib(size));
        let trees: Vec<_> = (0..4).map(|_| image.file()).collect();
        std::thread::scope(|scope| {
            for tree in &trees {
                scope.spawn(|| {
                    for round in 0..3 {
                        let len = fill(tree, ALLOCATE);
                        let mut guard = tree.lock();
                        let from = if round == 2 { len } else { len / 3 };
                        let detached =
                            tree.detach(&mut guard, FileBlock(from), FileBlock(u32::MAX));
                        image.volume.free(detached.expect("a sound tree"));
                        image.set_size(tree, u64::from(from));
                    }
                });
            }
        });
        let inos: Vec<_> = trees.iter().map(BlockTree::ino).collect();
        image.check(&inos);
    }
}
