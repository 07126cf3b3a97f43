//! Pins and the quarantine.

use ext2dax_dax::vecmap::Owner;
use ext2dax_dax::{PinMode, Segment};
use ext2dax_format::Error;

use crate::support::{Bench, read, write};

#[test]
fn pin_fills_holes_with_zeroes_and_merges_neighbours() {
    for bits in [12, 13, 16] {
        let bench = Bench::new(bits, 8);
        let file = bench.file(bench.block * 3);
        let pin = file.pin(10..bench.block * 2 + 5, PinMode::Write).unwrap();
        assert_eq!(
            pin.segments(),
            [Segment {
                off: 10,
                len: bench.block * 2 - 5
            }]
        );
        assert_eq!(pin.write(bench.block - 10, &[1, 2, 3]), 3);
        let mut bytes = [9; 5];
        assert_eq!(pin.read(bench.block - 11, &mut bytes), 5);
        assert_eq!(bytes, [0, 1, 2, 3, 0]);
        assert_eq!(read(&file, bench.block..bench.block + 3), [1, 2, 3]);
        assert!(file.has_dirty(), "a write pin can store at any time");
        file.sync(0..u64::MAX).unwrap();
        assert!(file.has_dirty(), "and goes on to after a sync");
        drop(pin);
        file.sync(0..u64::MAX).unwrap();
        assert!(!file.has_dirty());
    }
}

#[test]
fn detached_blocks_stay_out_of_use_until_the_last_pin_drops() {
    let bench = Bench::new(12, 4);
    let file = bench.file(0);
    write(&file, 0, &[7; 4096 * 3]).unwrap();
    let first = file.pin(0..10, PinMode::Write).unwrap();
    let second = file.pin(0..20, PinMode::Read).unwrap();
    file.punch(0..4096).unwrap();
    assert_eq!(
        (file.quarantined(), bench.store.owner(0)),
        (1, Owner::Detached(1))
    );
    assert_eq!(
        first.write(0, &[9]),
        1,
        "the pin goes on addressing the block"
    );
    assert_eq!(second.write(0, &[8]), 0, "a read pin stores nothing");
    assert_eq!(read(&file, 0..2), [0, 0], "which is no longer the file's");
    file.truncate(0).unwrap();
    assert_eq!(
        bench.store.free_count(),
        3,
        "what nobody pins is free at once"
    );
    drop(first);
    assert_eq!(bench.store.owner(0), Owner::Detached(1));
    drop(second);
    assert_eq!((file.quarantined(), bench.store.free_count()), (0, 4));
}

#[test]
fn pin_that_fails_leaves_nothing_pinned() {
    let bench = Bench::new(12, 2);
    let file = bench.file(4096 * 3);
    assert_eq!(
        file.pin(0..4096 * 3, PinMode::Write).err(),
        Some(Error::NoSpace)
    );
    assert!(!file.is_pinned_at(0));
    assert_eq!(bench.gates.pin.count(), 0);
    assert_eq!(
        file.pin(0..4096 * 3 + 1, PinMode::Read).err(),
        Some(Error::InvalidArgument)
    );
    assert_eq!(
        file.pin(5..5, PinMode::Read).err(),
        Some(Error::InvalidArgument)
    );
}

#[test]
fn stability_is_refused_while_a_pin_can_store() {
    let bench = Bench::new(12, 4);
    let file = bench.file(0);
    write(&file, 0, &[3; 5000]).unwrap();
    let pin = file.pin(4096..4097, PinMode::Write).unwrap();
    assert_eq!(file.stable(0..u64::MAX).err(), Some(Error::Busy));
    assert!(file.stable(0..4096).is_ok(), "another page is free of it");
    drop(pin);
    let reader = file.pin(0..5000, PinMode::Read).unwrap();
    let stable = file.stable(0..u64::MAX).unwrap();
    assert_eq!(stable.bytes(), 0..5000);
    let mut bytes = [0; 6000];
    assert_eq!(stable.read(1000, &mut bytes), Ok(4000));
    assert!(bytes[..4000].iter().all(|byte| *byte == 3));
    drop(reader);
}
