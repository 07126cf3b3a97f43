//! Trees at every block size.

use ext2dax_format::FileBlock;
use ext2dax_getblock::{Hints, Intent, Mapping};

use crate::image::{BLOCK_SIZES, Image, edges, judges};

const ALLOCATE: Intent = Intent::Allocate(Hints {
    goal: None,
    privileged: false,
});

/// 64 KiB blocks want an image of some size for a group with anything in it.
fn kib(block_size: u32) -> u32 {
    16 * 1024 * (block_size / 1024).max(2) / 2
}

#[test]
fn blocks_at_every_edge_come_and_go_and_e2fsck_agrees() {
    if !judges() {
        return;
    }
    for size in BLOCK_SIZES {
        let image = Image::new(&["-b", &size.to_string()], kib(size));
        let before = image.volume.counts();
        let tree = image.file();
        let mut guard = tree.lock();
        let bits = image.volume.geometry().block_bits();
        let limit = image.volume.geometry().max_file_size() >> bits;
        let mut top = 0;
        for at in edges(bits).into_iter().filter(|at| u64::from(at.0) < limit) {
            let mapping = tree.get_blocks(&mut guard, at, 3, ALLOCATE).expect("space");
            let found = tree.lookup(at, 1).expect("a mapping");
            assert_eq!(
                found.run().map(|run| run.start),
                mapping.run().map(|run| run.start),
                "block size {size}, {at}"
            );
            top = top.max(at.0 + mapping.len());
        }
        image.set_size(&tree, u64::from(top));
        drop(guard);
        image.check(&[tree.ino()]);
        let mut guard = tree.lock();
        let detached = tree
            .detach(&mut guard, FileBlock(0), FileBlock(u32::MAX))
            .expect("a sound tree");
        image.volume.free(detached);
        assert_eq!(tree.sectors(), 0, "block size {size}");
        assert!(matches!(
            tree.lookup(FileBlock(0), u32::MAX),
            Ok(Mapping::Hole(_))
        ));
        assert_eq!(
            image.volume.counts().free_blocks,
            before.free_blocks,
            "block size {size}"
        );
        image.set_size(&tree, 0);
        drop(guard);
        image.check(&[]);
    }
}
