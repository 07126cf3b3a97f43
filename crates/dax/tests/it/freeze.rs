//! Freezing: gates, their order, and what a frozen file looks like.

use ext2dax_dax::PinMode;
use ext2dax_format::Error;

use crate::support::{Bench, Call, attach, write};

#[test]
fn frozen_file_is_clean_and_write_protected_with_zeroes_past_its_end() {
    let bench = Bench::new(12, 4);
    let file = bench.file(0);
    write(&file, 0, &[1; 100]).unwrap();
    let (_view, table) = attach(&file, 0..1);
    drop(file.pin(0..100, PinMode::Write).unwrap());
    let off = file.map().block(0).unwrap() * 4096;
    bench.store.pmem().write(off + 100, &[9; 50]);
    let frozen = bench.gates.freeze().unwrap();
    file.settle().unwrap();
    assert!(!file.has_dirty());
    let mut tail = [1; 50];
    bench.store.pmem().read(off + 100, &mut tail);
    assert_eq!(tail, [0; 50]);
    assert!(table.take().contains(&Call::Protect(0..1)));
    assert_eq!(
        bench.gates.freeze().err(),
        Some(Error::Busy),
        "frozen already"
    );
    assert_eq!(file.try_pin(0..1, PinMode::Write).err(), Some(Error::Busy));
    assert!(bench.gates.write.try_enter().is_none() && bench.gates.fault.try_enter().is_none());
    drop(frozen);
    assert!(file.try_pin(0..1, PinMode::Write).is_ok());
    assert!(bench.gates.write.try_enter().is_some() && bench.gates.fault.try_enter().is_some());
}

#[test]
fn freeze_with_a_limit_gives_up_on_a_pin_and_leaves_all_gates_open() {
    let bench = Bench::new(12, 4);
    let file = bench.file(10);
    let pin = file.pin(0..1, PinMode::Read).unwrap();
    let mut looks = 0;
    let refused = bench.gates.freeze_within(|| {
        looks += 1;
        looks < 3
    });
    assert_eq!((refused.err(), looks), (Some(Error::Busy), 3));
    assert!(file.try_pin(0..1, PinMode::Read).is_ok());
    drop(pin);
    assert!(bench.gates.freeze_within(|| false).is_ok());
}
