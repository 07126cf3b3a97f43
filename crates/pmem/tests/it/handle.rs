//! Loads, stores and copies through the handle.

use ext2dax_pmem::{AnonRegion, Off, Pmem, Recorder, field};
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
    assert_eq!(bytes, [0, 0xab, 2, 1, 6, 5, 4, 3, 0xe, 0xd, 0xc, 0xb, 0xa, 9, 8, 7]);
    assert_eq!(pmem.load(Off::<U64>::new(8)).get(), 0x0708_090a_0b0c_0d0e);
    let pair = Off::<Pair>::new(0);
    assert_eq!(pmem.load(field!(pair, Pair, high)).get(), 0x0102);
    assert_eq!(pmem.read_value(pair).word.get(), 0x0304_0506);
}

#[test]
fn copies_of_every_length_and_alignment_arrive_and_touch_nothing_else() {
    let pmem = memory(8192);
    let source: Vec<u8> = (0..4000u32).map(|i| (i * 7 + i / 256) as u8 | 1).collect();
    for len in (0..200).chain([255, 256, 511, 512, 513, 1024, 3000]) {
        for at in [0u64, 1, 7, 8, 63, 64, 65] {
            pmem.zero(0, 8192);
            pmem.write(at, &source[..len]);
            let mut all = vec![0; 8192];
            pmem.read(0, &mut all);
            let end = at as usize + len;
            assert_eq!(all[at as usize..end], source[..len], "{len} bytes at {at}");
            assert!(all[..at as usize].iter().chain(&all[end..]).all(|b| *b == 0), "{len} bytes at {at}");
        }
    }
}

#[test]
fn publish_reports_store_flush_and_fence() {
    let recorder = Recorder::new();
    let pmem = memory(4096).observed_by(recorder.observer());
    pmem.publish(Off::<U16>::new(26), U16::new(1));
    assert_eq!(recorder.events().len(), 3);
    assert_eq!(recorder.fences(), 1);
}
