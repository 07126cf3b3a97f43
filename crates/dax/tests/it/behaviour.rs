//! What single operations promise.

use ext2dax_dax::{LastView, ViewSpec};
use ext2dax_format::Error;
use ext2dax_pmem::Persist;

use crate::support::{BLOCK_BITS, Bench, Call, JUNK, attach, read, write};

#[test]
fn write_that_runs_out_of_space_keeps_what_it_stored_and_no_block_more() {
    for bits in BLOCK_BITS {
        let bench = Bench::new(bits, 4);
        let file = bench.file(0);
        let bytes = vec![7; usize::try_from(bench.block * 6).unwrap()];
        assert_eq!(write(&file, 0, &bytes), Ok(bytes.len() / 6 * 4));
        assert_eq!(file.size(), bench.block * 4);
        assert_eq!(write(&file, file.size(), &[1]), Err(Error::NoSpace));
        assert_eq!(
            (file.size(), file.map().media_size()),
            (bench.block * 4, bench.block * 4)
        );
        file.punch(0..bench.block).unwrap();
        assert_eq!(write(&file, file.size(), &[1]), Ok(1));
    }
}

#[test]
fn block_left_past_the_end_by_a_crash_is_zeroed_before_it_becomes_content() {
    for bits in BLOCK_BITS {
        let bench = Bench::new(bits, 8);
        // Written into: the bytes around the new ones are zero.
        let file = bench.file(0);
        file.map().attach_raw(1).unwrap();
        write(&file, bench.block + 3, &[5]).unwrap();
        assert_eq!(read(&file, bench.block..bench.block + 9), [0, 0, 0, 5]);
        // Skipped by a write, and by a truncation: detached.
        let file = bench.file(0);
        file.map().attach_raw(1).unwrap();
        write(&file, bench.block * 2, &[5]).unwrap();
        assert_eq!(file.map().block(1), None);
        let file = bench.file(0);
        file.map().attach_raw(1).unwrap();
        file.truncate(bench.block + 9).unwrap();
        assert_eq!(read(&file, bench.block..bench.block + 9), [0; 9]);
    }
}

#[test]
fn bytes_past_the_end_never_become_content() {
    for bits in BLOCK_BITS {
        let bench = Bench::new(bits, 8);
        let file = bench.file(10);
        let block = file.map().attach_raw(0).unwrap();
        // As a store through a mapping, or another driver, may leave them.
        assert_eq!(read(&file, 0..99), [JUNK; 10]);
        file.truncate(20).unwrap();
        assert_eq!(read(&file, 10..99), [0; 10]);
        bench
            .store
            .pmem()
            .write(block * bench.block + 20, &[JUNK; 30]);
        write(&file, 30, &[1]).unwrap();
        assert_eq!(read(&file, 20..99), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        file.truncate(5).unwrap();
        let mut tail = [0xaa; 40];
        bench
            .store
            .pmem()
            .read(block * bench.block + 5, &mut tail[..26]);
        assert!(
            tail[..26].iter().all(|byte| *byte == 0),
            "a shrink zeroes the rest of the block on the medium"
        );
    }
}

#[test]
fn largest_size_is_refused_before_anything_happens() {
    let bench = Bench::new(12, 4);
    let file = bench.file(0);
    let max = 1 << 40;
    assert_eq!(write(&file, max, &[1]), Err(Error::FileTooLarge));
    assert_eq!(file.truncate(max + 1), Err(Error::FileTooLarge));
    assert_eq!(write(&file, max - 1, &[1, 2]), Ok(1));
    assert_eq!(file.size(), max);
}

#[test]
fn shared_views_need_blocks_of_a_page_and_a_medium_that_keeps_stores() {
    for bits in BLOCK_BITS {
        let bench = Bench::new(bits, 4);
        let file = bench.file(10);
        let table = std::sync::Arc::new(crate::support::Notes::default());
        let spec = ViewSpec {
            table,
            pages: 0..1,
            writable: true,
            shared: true,
            sync: false,
        };
        assert_eq!(
            file.attach(spec).is_ok(),
            bits >= 12,
            "blocks of {} bytes",
            bench.block
        );
        assert_eq!(
            file.pin(0..1, ext2dax_dax::PinMode::Read).is_ok(),
            bits >= 12
        );
    }
    let bench = Bench::with_persist(12, 4, Persist::PageCache);
    let table = std::sync::Arc::new(crate::support::Notes::default());
    let spec = ViewSpec {
        table,
        pages: 0..1,
        writable: true,
        shared: true,
        sync: true,
    };
    assert_eq!(
        bench.file(10).attach(spec).err(),
        Some(Error::NotSupported),
        "MAP_SYNC over a page cache"
    );
}

#[test]
fn truncation_tells_the_views_the_size_before_it_unmaps_and_rounds_outward() {
    for bits in [12, 14] {
        let bench = Bench::new(bits, 8);
        let pages = bench.block / 4096;
        let file = bench.file(0);
        write(
            &file,
            0,
            &vec![1; usize::try_from(bench.block * 3).unwrap()],
        )
        .unwrap();
        let (_view, table) = attach(&file, 0..3 * pages);
        file.truncate(bench.block + 1).unwrap();
        assert_eq!(
            table.take(),
            [
                Call::Resized(bench.block + 1),
                Call::Unmap(pages..3 * pages, true)
            ]
        );
        file.punch(1..bench.block - 1).unwrap();
        assert_eq!(
            table.take(),
            [Call::Unmap(0..pages, false)],
            "an edge is unmapped whole"
        );
        file.truncate(bench.block * 2).unwrap();
        assert_eq!(
            table.take(),
            [
                Call::Unmap(pages..2 * pages, false),
                Call::Resized(bench.block * 2)
            ],
            "an extension unmaps the old tail and tells the size last"
        );
    }
}

#[test]
fn last_writable_view_asks_for_the_tail_and_gets_it_zeroed() {
    let bench = Bench::new(12, 4);
    let file = bench.file(0);
    write(&file, 0, &[1; 100]).unwrap();
    let (first, _) = attach(&file, 0..1);
    let (second, table) = attach(&file, 0..1);
    let off = file.map().block(0).unwrap() * 4096;
    bench.store.pmem().write(off + 100, &[9; 50]);
    assert_eq!(file.detach(&first), LastView::Others);
    assert_eq!(file.detach(&second), LastView::ZeroTail);
    assert_eq!(
        table.take(),
        [Call::Unmap(0..1, true)],
        "nothing is called after this"
    );
    file.zero_tail().unwrap();
    let mut tail = [1; 50];
    bench.store.pmem().read(off + 100, &mut tail);
    assert_eq!(tail, [0; 50]);
    file.truncate(0).unwrap();
    assert_eq!(table.take(), []);
    assert!(!file.has_views());
}

#[test]
fn page_cache_below_makes_write_a_duty_for_sync() {
    let bench = Bench::with_persist(12, 8, Persist::PageCache);
    let file = bench.file(0);
    assert!(!file.has_dirty());
    write(&file, 5000, &[1; 9000]).unwrap();
    assert!(file.has_dirty());
    file.sync(0..u64::MAX).unwrap();
    assert!(!file.has_dirty());
    let durable = Bench::new(12, 8);
    let file = durable.file(0);
    write(&file, 0, &[1]).unwrap();
    assert!(
        !file.has_dirty(),
        "write is durable by itself where lines can be flushed"
    );
}

#[test]
fn a_long_write_that_starts_inside_a_block_keeps_every_byte() {
    for bits in BLOCK_BITS {
        let bench = Bench::new(bits, (4 << 20) >> bits);
        let file = bench.file(0);
        let bytes: Vec<u8> = (0..3_u32 << 20).map(|n| (n / 7 % 251) as u8).collect();
        assert_eq!(write(&file, 100, &bytes), Ok(bytes.len()));
        assert!(read(&file, 100..100 + (3 << 20)) == bytes, "{bits}");
    }
}
