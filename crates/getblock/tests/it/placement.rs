//! Where blocks go: aligned 2 MiB, page clusters, small files packed, indirect blocks apart.

use ext2dax_format::{FileBlock, Run};
use ext2dax_getblock::BlockTree;

use crate::image::{ALLOCATE, Image, judges};

const HUGE: u64 = 2 << 20;

fn grow(tree: &BlockTree, from: u32, to: u32, step: u32) {
    let mut guard = tree.lock();
    let mut at = from;
    while at < to {
        let mapping = tree.get_blocks(&mut guard, FileBlock(at), step.min(to - at), ALLOCATE);
        at += mapping.expect("space").len();
    }
}

fn run_at(tree: &BlockTree, at: u32, max: u32) -> Run {
    let found = tree.lookup(FileBlock(at), max).expect("a sound tree");
    found.run().expect("mapped")
}

/// Every 2 MiB of the file that lie in one aligned run of the image, as a huge translation needs them.
fn huge_chunks(image: &Image, tree: &BlockTree, blocks: u32) -> u32 {
    let bits = image.volume.geometry().block_bits();
    let phase = u64::from(image.volume.pmem().huge_phase().unwrap_or(0)) * 4096;
    let step = u32::try_from(HUGE >> bits).expect("a number of blocks");
    let starts = (0..blocks / step).map(|chunk| run_at(tree, chunk * step, step));
    let aligned = |run: &Run| {
        let at = image.volume.geometry().offset(run.start) + phase;
        run.len == step && at.is_multiple_of(HUGE)
    };
    u32::try_from(starts.filter(aligned).count()).expect("few")
}

#[test]
fn a_file_written_in_large_pieces_lies_in_aligned_2_mib_runs() {
    if !judges() {
        return;
    }
    for size in [1024_u32, 2048, 4096, 16384, 65536] {
        for piece in [64 << 10, 1 << 20, 8 << 20] {
            let image = Image::new(&["-b", &size.to_string()], 128 * 1024);
            let tree = image.file();
            let blocks = (8 << 20) / size;
            grow(&tree, 0, blocks, piece / size);
            assert_eq!(
                huge_chunks(&image, &tree, blocks),
                4,
                "block size {size}, pieces of {piece}"
            );
        }
    }
}

/// Linux ends a run at every indirect block, so at best every second 2 MiB of a file can be huge.
#[test]
fn a_run_goes_on_across_indirect_blocks() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "4096"], 64 * 1024);
    let tree = image.file();
    grow(&tree, 0, 4096, 4096);
    // 12 direct, 1,024 single, the rest below double: four leaves in one look-up.
    let run = run_at(&tree, 0, 4096);
    assert!(run.len > 12 + 1024, "{run:?}");
}

#[test]
fn a_mapped_file_filled_backwards_or_at_random_still_ends_in_huge_runs() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "4096"], 64 * 1024);
    for stride in [511, 37, 257] {
        let tree = image.file();
        // Chunk 0 is small until it is not; the second 2 MiB are large by their offset.
        let mut at = 0;
        for _ in 0..512 {
            grow(&tree, 512 + at, 512 + at + 1, 1);
            at = (at + stride) % 512;
        }
        let run = run_at(&tree, 512, 512);
        assert_eq!(run.len, 512, "stride {stride}");
    }
}

#[test]
fn small_files_are_packed_and_leave_aligned_runs_alone() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "4096"], 32 * 1024);
    let mut highest = 0;
    for _ in 0..100 {
        let tree = image.file();
        grow(&tree, 0, 3, 3);
        highest = highest.max(run_at(&tree, 0, 3).end());
    }
    let used = image.volume.geometry().blocks_count()
        - u32::try_from(image.volume.counts().free_blocks).expect("small");
    assert!(
        highest <= used + 64,
        "300 blocks end at {highest}, {used} are in use"
    );
}

/// A block smaller than a page: the blocks of one page of a file lie in one page of the image, in place.
#[test]
fn pages_of_small_block_files_are_aligned_clusters_however_they_are_filled() {
    if !judges() {
        return;
    }
    for size in [1024_u32, 2048] {
        let cluster = 4096 / size;
        let image = Image::new(&["-b", &size.to_string()], 16 * 1024);
        let files: Vec<_> = (0..6).map(|_| image.file()).collect();
        // Interleaved appends of single blocks, as several small writers make them; and one file from the back.
        for at in 0..40 {
            for tree in &files[..5] {
                grow(tree, at, at + 1, 1);
            }
            grow(&files[5], 39 - at, 40 - at, 1);
        }
        for (nr, tree) in files.iter().enumerate() {
            for at in 0..40 {
                let block = run_at(tree, at, 1).start.get();
                let in_place = block % cluster == at % cluster;
                let together =
                    run_at(tree, at - at % cluster, 1).start.get() == block - at % cluster;
                assert!(
                    in_place && together,
                    "block size {size}, file {nr}, block {at} at {block}"
                );
            }
        }
    }
}

#[test]
fn a_goal_is_taken_if_it_is_free() {
    if !judges() {
        return;
    }
    let image = Image::new(&["-b", "4096"], 16 * 1024);
    let goal = image.volume.geometry().fs_block(3000).expect("inside");
    let got = image
        .volume
        .allocate_block(Some(goal), false)
        .expect("space");
    assert_eq!(got.run().start, goal);
    let next = image
        .volume
        .allocate_block(Some(goal), false)
        .expect("space");
    assert_ne!(next.run().start, goal);
    image.volume.free(got.abandon().merge(next.abandon()));
    let cluster = image.volume.allocate_cluster(None, false).expect("space");
    assert_eq!(cluster.run().len, 1);
    image.volume.free(cluster.abandon());
}
