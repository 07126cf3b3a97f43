//! Trees that no honest program wrote: an error, never a panic, never a block of somebody else's tables.

use ext2dax_format::{CorruptKind, Error, FileBlock, RawInode};
use ext2dax_getblock::{BlockTree, Mapping};
use ext2dax_pmem::{Off, field};
use zerocopy::little_endian::U32;

use crate::image::{ALLOCATE, Image, judges, kib};

fn slot(tree: &BlockTree, index: u64) -> Off<U32> {
    field!(tree.offset(), RawInode, i_block)
        .cast::<U32>()
        .index(index)
}

fn image() -> Image {
    Image::new(&["-b", "1024", "-O", "^resize_inode"], kib(1024))
}

#[test]
fn a_pointer_into_the_tables_of_any_group_is_refused() {
    if !judges() {
        return;
    }
    let image = image();
    let tree = image.file();
    let pmem = image.volume.pmem();
    let geometry = image.volume.geometry();
    let mut tables = 0;
    for group in geometry.all_groups() {
        for block in geometry.group_run(group).iter().take(300) {
            pmem.store(slot(&tree, 0), U32::new(block.get()));
            let metadata = image.volume.is_metadata(ext2dax_format::Run::single(block));
            let found = tree.lookup(FileBlock(0), 4);
            if metadata.expect("sound descriptors") {
                tables += 1;
                let kind = CorruptKind::PointerIntoMetadata {
                    inode: tree.ino().get(),
                    block: block.get(),
                };
                assert_eq!(found, Err(Error::Corrupt(kind)));
            } else {
                assert_eq!(found.map(|found| found.len()), Ok(1), "block {block}");
            }
        }
    }
    assert!(tables > 100, "{tables} blocks of tables");
}

/// The first pointer was good, and the run was merged by comparing numbers only.
#[test]
fn a_run_that_grows_into_the_tables_of_the_next_group_stops_before_them() {
    if !judges() {
        return;
    }
    let image = image();
    let tree = image.file();
    let geometry = image.volume.geometry();
    let next = geometry.group_first_block(geometry.group(1).expect("two groups"));
    for index in 0..8_u32 {
        let block = next.get() - 4 + index;
        image
            .volume
            .pmem()
            .store(slot(&tree, u64::from(index)), U32::new(block));
    }
    let found = tree.lookup(FileBlock(0), 8).expect("the first is fine");
    assert_eq!(found.len(), 4);
    assert!(matches!(
        tree.lookup(FileBlock(4), 4),
        Err(Error::Corrupt(_))
    ));
    let mut guard = tree.lock();
    let detached = tree.detach(&mut guard, FileBlock(0), FileBlock(u32::MAX));
    assert!(
        matches!(detached, Err(Error::Corrupt(_))),
        "nothing may be freed"
    );
    assert_ne!(
        image.volume.pmem().load(slot(&tree, 0)).get(),
        0,
        "nothing was cleared"
    );
}

#[test]
fn a_pointer_out_of_the_file_system_is_refused_on_every_level() {
    if !judges() {
        return;
    }
    let image = image();
    let tree = image.file();
    let end = image.volume.geometry().blocks_count();
    let starts = [0, 12, 12 + 256, 12 + 256 + 65536];
    for (index, at) in [0, 12, 13, 14].into_iter().zip(starts) {
        for raw in [end, u32::MAX] {
            image.volume.pmem().store(slot(&tree, index), U32::new(raw));
            let kind = CorruptKind::PointerOutOfRange {
                inode: tree.ino().get(),
                block: raw,
                file_block: at,
            };
            assert_eq!(tree.lookup(FileBlock(at), 1), Err(Error::Corrupt(kind)));
            let mut guard = tree.lock();
            let grown = tree.get_blocks(&mut guard, FileBlock(at), 1, ALLOCATE);
            assert_eq!(grown, Err(Error::Corrupt(kind)));
        }
        image.volume.pmem().store(slot(&tree, index), U32::new(0));
    }
}

/// A triple indirect block whose slots all lead to itself: 16 million file blocks that share one block.
#[test]
fn a_table_that_holds_itself_ends_in_an_error() {
    if !judges() {
        return;
    }
    let image = image();
    let tree = image.file();
    let block = image.volume.allocate_block(None, false).expect("space");
    let pmem = image.volume.pmem();
    for index in 0..256 {
        let at = Off::<U32>::new(block.offset()).index(index);
        pmem.store(at, U32::new(block.run().start.get()));
    }
    pmem.store(slot(&tree, 14), U32::new(block.run().start.get()));
    let at = FileBlock(12 + 256 + 65536 + 12345);
    let found = tree.lookup(at, u32::MAX).expect("each pointer is in range");
    assert_eq!(found.run().map(|run| run.start), Some(block.run().start));
    let mut guard = tree.lock();
    let detached = tree.detach(&mut guard, FileBlock(0), FileBlock(u32::MAX));
    assert!(matches!(
        detached,
        Err(Error::Corrupt(CorruptKind::BlockUsedTwice { .. }))
    ));
    let _ = block.abandon();
}

#[test]
fn scribbled_trees_never_panic_and_never_lead_into_tables() {
    if !judges() {
        return;
    }
    let image = image();
    let tree = image.file();
    let mut guard = tree.lock();
    for at in [0, 300, 12 + 256 + 65536] {
        tree.get_blocks(&mut guard, FileBlock(at), 30, ALLOCATE)
            .expect("space");
    }
    let mut seed = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        u32::try_from(seed >> 40).expect("24 bits")
    };
    let mut errors = 0;
    for _ in 0..3000 {
        let raw = match next() % 4 {
            0 => 0,
            1 => next() << 8,
            _ => next() % image.volume.geometry().blocks_count(),
        };
        image
            .volume
            .pmem()
            .store(slot(&tree, u64::from(next() % 15)), U32::new(raw));
        let at = FileBlock([next() % 12, next() % 600, next()][(next() % 3) as usize]);
        match tree.lookup(at, 1 + next() % 100) {
            Ok(Mapping::Existing(run)) => {
                assert_eq!(image.volume.is_metadata(run), Ok(false), "{run:?}");
                assert!(run.end() <= image.volume.geometry().blocks_count());
            }
            Ok(_) => {}
            Err(error) => {
                errors += 1;
                assert!(
                    matches!(error, Error::Corrupt(_) | Error::FileTooLarge),
                    "{error}"
                );
            }
        }
        // Detaching may succeed on a wrong tree; its blocks are not freed here.
        let _ = tree.detach(&mut guard, FileBlock(at.0 | 1), FileBlock(at.0 / 2 * 2 + 2));
    }
    assert!(errors > 100, "the scribbling hit {errors} times");
}

/// A bitmap that calls the inode table free would hand it out as somebody's data.
#[test]
fn a_group_whose_tables_are_marked_free_gives_nothing() {
    if !judges() {
        return;
    }
    let mut image = image();
    let geometry = *image.volume.geometry();
    image.corrupt_bitmap(0);
    image.reopen(true);
    let tree = image.file_in_group(1);
    let mut guard = tree.lock();
    let limit = geometry.blocks_count();
    let mut taken = 0;
    for at in 0..limit {
        match tree.get_blocks(&mut guard, FileBlock(at), 1, ALLOCATE) {
            Ok(mapping) => {
                let run = mapping.run().expect("a run");
                taken += run.len;
                assert_ne!(geometry.group_of_block(run.start).get(), 0, "{run:?}");
            }
            Err(error) => {
                assert_eq!(error, Error::NoSpace);
                break;
            }
        }
    }
    assert!(taken > 1000, "the other groups give {taken}");
}
