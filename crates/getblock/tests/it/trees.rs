//! Trees at every block size and in every layout of groups.

use ext2dax_format::{Error, FileBlock, RawInode};
use ext2dax_getblock::{Mapping, Options, Volume};
use ext2dax_pmem::{AnonRegion, Pmem, field};
use zerocopy::little_endian::U32;

use crate::image::{ALLOCATE, BLOCK_SIZES, Image, edges, judges, kib};

/// Allocates around every edge of the tree, lets e2fsck look, takes it all away, lets e2fsck look again.
fn edges_come_and_go(options: &[&str], kib: u32) {
    let image = Image::new(options, kib);
    let before = image.volume.counts();
    let tree = image.file();
    let mut guard = tree.lock();
    let bits = image.volume.geometry().block_bits();
    let geometry = image.volume.geometry();
    // Revision 0 has no flag for files from 2 GiB on.
    let largest = if geometry.revision() == 0 {
        (2 << 30) - 1
    } else {
        geometry.max_file_size()
    };
    let limit = (largest >> bits).saturating_sub(3);
    let mut top = 0;
    for at in edges(bits).into_iter().filter(|at| u64::from(at.0) < limit) {
        let mapping = tree.get_blocks(&mut guard, at, 3, ALLOCATE).expect("space");
        let found = tree.lookup(at, 1).expect("a mapping");
        assert_eq!(
            found.run().map(|run| run.start),
            mapping.run().map(|run| run.start),
            "{options:?}, {at}"
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
    assert_eq!(tree.sectors(), 0, "{options:?}");
    assert!(matches!(
        tree.lookup(FileBlock(0), u32::MAX),
        Ok(Mapping::Hole(_))
    ));
    assert_eq!(
        image.volume.counts().free_blocks,
        before.free_blocks,
        "{options:?}"
    );
    image.set_size(&tree, 0);
    drop(guard);
    image.check(&[]);
}

#[test]
fn blocks_at_every_edge_come_and_go_at_every_block_size() {
    if !judges() {
        return;
    }
    for size in BLOCK_SIZES {
        edges_come_and_go(&["-b", &size.to_string()], kib(size));
    }
}

#[test]
fn blocks_at_every_edge_come_and_go_in_every_layout() {
    if !judges() {
        return;
    }
    let layouts: [&[&str]; 6] = [
        &["-b", "1024", "-r", "0"],
        &["-b", "4096", "-r", "0"],
        &["-b", "1024", "-O", "meta_bg,^resize_inode"],
        &["-b", "2048", "-O", "sparse_super2", "-E", "num_backup_sb=1"],
        &["-b", "1024", "-I", "128", "-g", "1024"],
        &[
            "-b",
            "4096",
            "-I",
            "1024",
            "-O",
            "^sparse_super,^resize_inode",
        ],
    ];
    for options in layouts {
        edges_come_and_go(options, 20 * 1024 + 300);
    }
}

#[test]
fn the_last_block_of_the_largest_file_can_be_had_and_the_next_cannot() {
    if !judges() {
        return;
    }
    for size in BLOCK_SIZES {
        let image = Image::new(&["-b", &size.to_string()], kib(size));
        let geometry = image.volume.geometry();
        let blocks = geometry.max_file_size() >> geometry.block_bits();
        let last = FileBlock(u32::try_from(blocks - 1).expect("file blocks are 32 bits"));
        let tree = image.file();
        let mut guard = tree.lock();
        let mapping = tree.get_blocks(&mut guard, last, 9, ALLOCATE);
        assert_eq!(
            mapping.expect("the last block").len(),
            1,
            "block size {size}"
        );
        assert_eq!(tree.lookup(last, 1).expect("it is there").len(), 1);
        if let Some(past) = last.0.checked_add(1) {
            let past = tree.get_blocks(&mut guard, FileBlock(past), 1, ALLOCATE);
            assert_eq!(past, Err(Error::FileTooLarge), "block size {size}");
        }
        image.set_size(&tree, blocks);
        drop(guard);
        image.check(&[tree.ino()]);
    }
}

/// `i_blocks` is 32 bits of 512-byte sectors: a sparse file can be refused a block far below its largest size.
#[test]
fn a_full_sector_count_refuses_more_blocks_and_changes_nothing() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "4096"], kib(4096));
    let tree = image.file();
    let before = image.volume.counts();
    let at = field!(tree.offset(), RawInode, i_blocks);
    image.volume.pmem().store(at, U32::new(u32::MAX - 8));
    let mut guard = tree.lock();
    // One block is still countable, a block with its indirect block is not.
    let refused = tree.get_blocks(&mut guard, FileBlock(12), 1, ALLOCATE);
    assert_eq!(refused, Err(Error::FileTooLarge));
    assert_eq!(image.volume.counts(), before);
    assert_eq!(tree.lookup(FileBlock(12), 1), Ok(Mapping::Hole(1)));
    let taken = tree.get_blocks(&mut guard, FileBlock(0), 1, ALLOCATE);
    assert_eq!(taken.map(|taken| taken.len()), Ok(1));
}

/// The medium here is just long enough for the superblock: a look at anything else would panic.
#[test]
fn opening_sixteen_tebibytes_looks_at_the_superblock_only() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "4096"], kib(4096));
    let mut raw: ext2dax_format::RawSuperblock =
        image.volume.pmem().read_value(image.volume.superblock());
    raw.s_blocks_count = U32::new(u32::MAX);
    let groups = u32::MAX.div_ceil(raw.s_blocks_per_group.get());
    raw.s_inodes_count = U32::new(raw.s_inodes_per_group.get() * groups);
    raw.s_reserved_gdt_blocks = 0.into();
    raw.s_feature_compat = U32::new(0);
    let geometry = ext2dax_format::Geometry::new(&raw, u64::MAX).expect("a geometry");
    let pmem = Pmem::new(AnonRegion::new(4096).expect("a page"));
    let volume = Volume::open(pmem, geometry, Options::default()).expect("a volume");
    assert_eq!(volume.geometry().groups(), 131_072);
    assert_eq!(
        volume.counts().free_blocks,
        0,
        "what the empty superblock says"
    );
}

#[test]
fn a_replaced_run_keeps_its_place_in_the_file_and_frees_the_old_blocks() {
    if !judges() {
        return;
    }
    for size in BLOCK_SIZES {
        let image = Image::new(&["-b", &size.to_string()], kib(size));
        let tree = image.file();
        let mut guard = tree.lock();
        // Straddles direct and indirect slots, with a hole in it: what moving a page's blocks meets.
        for at in [10, 13] {
            let got = tree.get_blocks(&mut guard, FileBlock(at), 1, ALLOCATE);
            got.expect("space");
        }
        let before = image.volume.counts().free_blocks;
        for at in 10..14 {
            let fresh = image.volume.allocate_block(None, false).expect("space");
            let new = fresh.run().start;
            let pmem = image.volume.pmem();
            let zeroed = ext2dax_getblock::Epoch::new(pmem).fence(fresh.zero(&image.volume));
            let old = tree
                .replace(&mut guard, FileBlock(at), zeroed, crate::image::HINTS)
                .expect("space");
            let old = ext2dax_getblock::Epoch::new(pmem).fence(old);
            assert_eq!(old.count(), u64::from(at == 10 || at == 13));
            image.volume.free(old);
            let found = tree.lookup(FileBlock(at), 1).expect("a mapping");
            assert_eq!(found.run().map(|run| run.start), Some(new));
        }
        assert_eq!(image.volume.counts().free_blocks, before - 2);
        image.set_size(&tree, 14);
        drop(guard);
        image.check(&[tree.ino()]);
    }
}

#[test]
fn two_blocks_swing_by_one_store_where_their_pointers_share_a_word() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "1024"], kib(1024));
    let tree = image.file();
    let mut guard = tree.lock();
    tree.get_blocks(&mut guard, FileBlock(0), 4, ALLOCATE)
        .expect("space");
    assert!(tree.pair_swappable(FileBlock(2), FileBlock(3)));
    assert!(!tree.pair_swappable(FileBlock(1), FileBlock(2)));
    let pmem = image.volume.pmem();
    let fresh = || {
        let fresh = image.volume.allocate_block(None, false).expect("space");
        ext2dax_getblock::Epoch::new(pmem).fence(fresh.zero(&image.volume))
    };
    let (a, b) = (fresh(), fresh());
    let wanted = (a.run().start, b.run().start);
    let old = tree
        .swing_pair(&mut guard, (FileBlock(3), a), (FileBlock(2), b))
        .expect("a pair");
    image
        .volume
        .free(ext2dax_getblock::Epoch::new(pmem).fence(old));
    let at = |block| {
        tree.lookup(FileBlock(block), 1)
            .expect("mapped")
            .run()
            .expect("a run")
            .start
    };
    assert_eq!((at(3), at(2)), wanted);
    image.set_size(&tree, 4);
    drop(guard);
    image.check(&[tree.ino()]);
}
