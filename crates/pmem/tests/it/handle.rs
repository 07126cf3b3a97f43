//! Loads, stores and copies through the handle.

use crate::ignore;
use ext2dax_pmem::{
    AnonRegion, EventKind, Off, Pmem, Recorder, Route, UserSlice, UserSliceMut, field,
};
use zerocopy::little_endian::{U16, U32, U64};

fn memory(len: u64) -> Pmem {
    Pmem::new(AnonRegion::new(len).unwrap())
}

#[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
#[repr(C)]
struct Pair {
    low: U16,
    high: U16,
    word: U32,
}

#[test]
fn words_of_every_width_are_little_endian_in_memory() {
    let pmem = memory(4096);
    pmem.store(Off::<u8>::new(1), 0xab);
    pmem.store(Off::<U16>::new(2), U16::new(0x0102));
    pmem.store(Off::<U32>::new(4), U32::new(0x0304_0506));
    pmem.store(Off::<U64>::new(8), U64::new(0x0708_090a_0b0c_0d0e));
    let mut bytes = [0; 16];
    pmem.read(0, &mut bytes);
    assert_eq!(
        bytes,
        [0, 0xab, 2, 1, 6, 5, 4, 3, 0xe, 0xd, 0xc, 0xb, 0xa, 9, 8, 7]
    );
    assert_eq!(pmem.load(Off::<U64>::new(8)).get(), 0x0708_090a_0b0c_0d0e);
    let pair = Off::<Pair>::new(0);
    assert_eq!(pmem.load(field!(pair, Pair, high)).get(), 0x0102);
    assert_eq!(pmem.read_value(pair).word.get(), 0x0304_0506);
}

#[test]
fn copies_of_every_length_and_alignment_arrive_and_touch_nothing_else() {
    let pmem = memory(8192);
    let source: Vec<u8> = (0..4000u32).map(|i| (i * 7 + i / 256) as u8 | 1).collect();
    for len in (0..200).chain([255, 256, 511, 512, 513, 1024, 2047, 2048, 2049, 3000]) {
        for at in [0u64, 1, 7, 8, 63, 64, 65] {
            pmem.zero(0, 8192);
            pmem.write(at, &source[..len]);
            let mut all = vec![0; 8192];
            pmem.read(0, &mut all);
            let end = at as usize + len;
            assert_eq!(all[at as usize..end], source[..len], "{len} bytes at {at}");
            assert!(
                all[..at as usize]
                    .iter()
                    .chain(&all[end..])
                    .all(|b| *b == 0),
                "{len} bytes at {at}"
            );
        }
    }
}

#[test]
fn a_word_is_never_torn() {
    let pmem = memory(4096);
    let (old, new) = (U64::new(0), U64::new(u64::MAX));
    let at = Off::<U64>::new(64);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        let writer = pmem.clone();
        s.spawn(|| {
            let writer = writer;
            for i in 0..200_000 {
                writer.store(at, if i % 2 == 0 { new } else { old });
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let seen = pmem.load(at);
            assert!(seen == old || seen == new, "{seen:x?}");
        }
    });
}

/// Two threads set and clear bits of one word: none may be lost, which a load and a store would do.
#[test]
fn bits_of_one_word_are_changed_by_two_threads_without_loss() {
    let pmem = memory(4096);
    let at = Off::<U64>::new(8);
    std::thread::scope(|s| {
        for thread in 0..2 {
            let pmem = &pmem;
            s.spawn(move || {
                let mine = 0x5555_5555_5555_5555u64 << thread;
                for bit in (0..64)
                    .filter(|bit| mine & 1 << bit != 0)
                    .cycle()
                    .take(64_000)
                {
                    assert_eq!(pmem.or_word(at, 1 << bit) & 1 << bit, 0);
                    assert_ne!(pmem.and_word(at, !(1 << bit)) & 1 << bit, 0);
                }
                pmem.or_word(at, mine);
            });
        }
    });
    assert_eq!(pmem.load(at).get(), u64::MAX);
}

#[test]
fn copies_inside_the_region_may_overlap() {
    for (from, to, len) in [
        (0u64, 100u64, 3000u64),
        (100, 0, 3000),
        (0, 1, 5000),
        (1, 0, 5000),
        (5, 5, 100),
        (0, 4096, 4000),
    ] {
        let pmem = memory(16384);
        let before: Vec<u8> = (0..16384u32).map(|i| (i % 253).to_le_bytes()[0]).collect();
        pmem.write(0, &before);
        pmem.copy_within(from, to, len);
        let mut expected = before;
        expected.copy_within(from as usize..(from + len) as usize, to as usize);
        let mut now = vec![0; 16384];
        pmem.read(0, &mut now);
        assert!(now == expected, "{len} bytes from {from} to {to}");
    }
}

#[test]
fn user_memory_is_copied_both_ways_and_in_parts() {
    let pmem = memory(4096);
    let source = *b"abcdefgh";
    let (head, tail) = UserSlice::from(&source).split_at(3);
    assert_eq!(pmem.copy_in(10, head) + pmem.copy_in_flushed(13, tail), 8);
    let mut target = [0; 10];
    let mut slice = UserSliceMut::from(&mut target);
    assert_eq!(pmem.copy_out(10, slice.reborrow().split_at(8).0), 8);
    slice.advance(8);
    assert_eq!((slice.len(), slice.copy_from(b"xyz")), (2, 2));
    assert_eq!(target, *b"abcdefghxy");
    assert_eq!(UserSliceMut::from(&mut target[2..4]).zero(), 2);
    assert_eq!(target, *b"ab\0\0efghxy");
    let mut short = [0; 4];
    assert_eq!(
        (UserSlice::from(&source).copy_to(&mut short), short),
        (4, *b"abcd")
    );
}

#[test]
fn what_leaves_the_region_or_is_misaligned_panics_and_changes_nothing() {
    let recorder = Recorder::new();
    for pmem in [memory(4096), memory(4096).observed_by(recorder.observer())] {
        let pmem = pmem.slice(1024, 2048);
        let panics = |wrong: &dyn Fn()| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(wrong)).is_err()
        };
        assert!(panics(&|| pmem.store(Off::new(2048), 1u8)));
        assert!(panics(&|| pmem.store(Off::new(2046), U32::new(1))));
        assert!(panics(&|| pmem.store(Off::new(2), U32::new(1))));
        assert!(panics(&|| pmem.store(Off::new(u64::MAX - 3), U32::new(1))));
        assert!(panics(&|| ignore(pmem.load(Off::<U16>::new(3)))));
        assert!(panics(&|| pmem.write(2047, &[1, 1])));
        assert!(panics(&|| pmem.write(u64::MAX, &[1, 1])));
        assert!(panics(&|| pmem.zero(0, 2049)));
        assert!(panics(&|| pmem.zero_flushed(1, 2048)));
        assert!(panics(&|| pmem.flush(2048, 1)));
        assert!(panics(&|| ignore(pmem.copy_in(2040, (&[1u8; 9]).into()))));
        assert!(panics(&|| ignore(
            pmem.copy_in_flushed(2040, (&[1u8; 9]).into())
        )));
        assert!(panics(&|| ignore(
            pmem.copy_out(2040, (&mut [1u8; 9]).into())
        )));
        assert!(panics(&|| ignore(pmem.slice(0, 2049))));
        assert!(panics(&|| ignore(pmem.slice(8, 64))));
        assert!(panics(&|| ignore(pmem.sync(0..2049))));
        let mut all = vec![1; 2048];
        pmem.read(0, &mut all);
        assert_eq!(all, [0; 2048]);
    }
    assert_eq!(recorder.events(), []);
}

#[test]
fn publish_reports_store_flush_and_fence() {
    let recorder = Recorder::new();
    let pmem = memory(4096)
        .observed_by(recorder.observer())
        .slice(1024, 1024);
    pmem.publish(Off::<U16>::new(26), U16::new(1));
    let kinds: Vec<EventKind> = recorder
        .take()
        .into_iter()
        .map(|event| event.kind)
        .collect();
    let store = EventKind::Store {
        at: 1050,
        bytes: vec![1, 0],
        route: Route::Ordered,
    };
    assert_eq!(
        kinds,
        [store, EventKind::Flush(1050..1052), EventKind::Fence]
    );
}
