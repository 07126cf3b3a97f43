//! The observer sees everything that changes a region: replaying its log gives the same bytes.

use std::sync::Arc;

use crate::ignore;
use ext2dax_pmem::{AnonRegion, Event, EventKind, Observer, Off, Pmem, Recorder, Route};
use proptest::prelude::*;
use zerocopy::little_endian::{U16, U32, U64};

const LEN: u64 = 16384;

#[derive(Clone, Debug)]
enum Step {
    Byte(u64, u8),
    Half(u64, u16),
    Word(u64, u32),
    Long(u64, u64),
    Or(u64, u64),
    And(u64, u64),
    Write(u64, Vec<u8>),
    WriteFlushed(u64, Vec<u8>),
    CopyIn(u64, Vec<u8>),
    Zero(u64, u64),
    ZeroFlushed(u64, u64),
    Within(u64, u64, u64),
    Flush(u64, u64),
    Fence,
    Publish(u64, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let at = |width: u64| (0..(LEN - 8) / width).prop_map(move |i| i * width);
    let bytes = || proptest::collection::vec(any::<u8>(), 0..3000);
    let room = 0..LEN - 3000;
    prop_oneof![
        (at(1), any::<u8>()).prop_map(|(a, v)| Step::Byte(a, v)),
        (at(2), any::<u16>()).prop_map(|(a, v)| Step::Half(a, v)),
        (at(4), any::<u32>()).prop_map(|(a, v)| Step::Word(a, v)),
        (at(8), any::<u64>()).prop_map(|(a, v)| Step::Long(a, v)),
        (at(8), any::<u64>()).prop_map(|(a, v)| Step::Or(a, v)),
        (at(8), any::<u64>()).prop_map(|(a, v)| Step::And(a, v)),
        (room.clone(), bytes()).prop_map(|(a, v)| Step::Write(a, v)),
        (room.clone(), bytes()).prop_map(|(a, v)| Step::WriteFlushed(a, v)),
        (room.clone(), bytes()).prop_map(|(a, v)| Step::CopyIn(a, v)),
        (room.clone(), 0..3000u64).prop_map(|(a, n)| Step::Zero(a, n)),
        (room.clone(), 0..3000u64).prop_map(|(a, n)| Step::ZeroFlushed(a, n)),
        (room.clone(), room.clone(), 0..3000u64).prop_map(|(a, b, n)| Step::Within(a, b, n)),
        (room, 0..3000u64).prop_map(|(a, n)| Step::Flush(a, n)),
        Just(Step::Fence),
        (at(4), any::<u32>()).prop_map(|(a, v)| Step::Publish(a, v)),
    ]
}

fn apply(pmem: &Pmem, step: &Step) {
    match step {
        Step::Byte(at, v) => pmem.store(Off::new(*at), *v),
        Step::Half(at, v) => pmem.store(Off::new(*at), U16::new(*v)),
        Step::Word(at, v) => pmem.store(Off::new(*at), U32::new(*v)),
        Step::Long(at, v) => pmem.store(Off::new(*at), U64::new(*v)),
        Step::Or(at, v) => ignore(pmem.or_word(Off::new(*at), *v)),
        Step::And(at, v) => ignore(pmem.and_word(Off::new(*at), *v)),
        Step::Write(at, v) => pmem.write(*at, v),
        Step::WriteFlushed(at, v) => pmem.write_flushed(*at, v),
        Step::CopyIn(at, v) => assert_eq!(pmem.copy_in(*at, v.as_slice().into()), v.len()),
        Step::Zero(at, n) => pmem.zero(*at, *n),
        Step::ZeroFlushed(at, n) => pmem.zero_flushed(*at, *n),
        Step::Within(from, to, n) => pmem.copy_within(*from, *to, *n),
        Step::Flush(at, n) => pmem.flush(*at, *n),
        Step::Fence => pmem.fence(),
        Step::Publish(at, v) => pmem.publish(Off::new(*at), U32::new(*v)),
    }
}

fn contents(pmem: &Pmem) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(pmem.len()).unwrap()];
    pmem.read(0, &mut all);
    all
}

fn replay(events: &[Event], len: usize) -> Vec<u8> {
    let mut image = vec![0; len];
    for event in events {
        if let EventKind::Store { at, bytes, .. } = &event.kind {
            let at = usize::try_from(*at).unwrap();
            image[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
    image
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_log_of_any_steps_rebuilds_the_region(steps in proptest::collection::vec(step(), 1..40), base in 0u64..8) {
        let recorder = Recorder::new();
        let whole = Pmem::new(AnonRegion::new(LEN + 4096).unwrap());
        let pmem = whole.clone().observed_by(recorder.observer()).slice(base * 512, LEN);
        let plain = Pmem::new(AnonRegion::new(LEN).unwrap());
        for step in &steps {
            apply(&pmem, step);
            apply(&plain, step);
        }
        let rebuilt = replay(&recorder.take(), contents(&whole).len());
        prop_assert!(rebuilt == contents(&whole), "the log misses a change");
        prop_assert!(contents(&pmem) == contents(&plain), "being observed changes what is stored");
    }
}

#[test]
fn every_route_is_reported_as_what_it_is() {
    let recorder = Recorder::new();
    let pmem = Pmem::with_observer(AnonRegion::new(LEN).unwrap(), recorder.observer());
    let routes = |steps: &[Step]| -> Vec<Option<Route>> {
        steps.iter().for_each(|step| apply(&pmem, step));
        let events = recorder.take();
        events
            .iter()
            .map(|event| match &event.kind {
                EventKind::Store { route, .. } => Some(*route),
                _ => None,
            })
            .collect()
    };
    let (ordered, bulk) = (Some(Route::Ordered), Some(Route::Bulk));
    assert_eq!(
        routes(&[Step::Byte(0, 1), Step::Or(8, 1), Step::And(8, 0)]),
        [ordered; 3]
    );
    assert_eq!(
        routes(&[
            Step::Write(0, vec![1]),
            Step::CopyIn(1, vec![1]),
            Step::Zero(0, 2)
        ]),
        [bulk; 3]
    );
    assert_eq!(
        routes(&[Step::WriteFlushed(0, vec![1]), Step::ZeroFlushed(0, 1)]),
        [bulk, None, bulk, None]
    );
    assert_eq!(routes(&[Step::Publish(0, 1)]), [ordered, None, None]);
    assert_eq!(
        routes(&[Step::Write(0, vec![]), Step::Zero(0, 0), Step::Flush(0, 0)]),
        []
    );
}

#[test]
fn threads_are_told_apart_and_their_stores_are_logged_in_the_order_of_memory() {
    let recorder = Recorder::new();
    let pmem = Pmem::with_observer(AnonRegion::new(4096).unwrap(), recorder.observer());
    std::thread::scope(|s| {
        for thread in 0..3u32 {
            let pmem = &pmem;
            s.spawn(move || {
                (0..500).for_each(|i| pmem.store(Off::new(0), U32::new(thread * 1000 + i)))
            });
        }
    });
    let events = recorder.take();
    let threads: std::collections::BTreeSet<u64> =
        events.iter().map(|event| event.thread).collect();
    assert_eq!((events.len(), threads.len()), (1500, 3));
    assert_eq!(replay(&events, 4096), contents(&pmem));
}

/// User memory may be a view whose fault stores through the same observed region.
#[test]
fn user_memory_is_not_read_while_the_observer_keeps_others_out() {
    struct Strict(std::sync::Mutex<()>, Pmem);
    impl Observer for Strict {
        fn serialize(&self, change: &mut dyn FnMut()) {
            let _turn = self.0.try_lock().expect("one change at a time");
            change();
        }
        fn store(&self, at: u64, bytes: &[u8], _: Route) {
            let mut now = vec![0; bytes.len()];
            self.1.read(at, &mut now);
            assert_eq!(now, bytes, "what is reported is what was stored");
        }
        fn flush(&self, _: std::ops::Range<u64>) {}
        fn fence(&self) {}
    }
    let pmem = Pmem::new(AnonRegion::new(LEN).unwrap());
    let observed = pmem
        .clone()
        .observed_by(Arc::new(Strict(std::sync::Mutex::new(()), pmem.clone())));
    let source = vec![7; 5000];
    assert_eq!(
        observed.copy_in_flushed(100, source.as_slice().into()),
        5000
    );
    observed.zero_flushed(0, LEN);
    assert_eq!(contents(&pmem), vec![0; usize::try_from(LEN).unwrap()]);
}
