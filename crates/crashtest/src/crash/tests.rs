//! The enumerator against the model, on logs small enough to count by hand.

use std::collections::BTreeSet;

use ext2dax_pmem::{AnonRegion, Off, Pmem, Recorder};
use zerocopy::little_endian::{U32, U64};

use super::*;

const LEN: u64 = 4096;

/// The states of a recorded scenario, each as the bytes at `watch`.
fn states(scenario: impl Fn(&Pmem), watch: &[u64]) -> (BTreeSet<Vec<u8>>, Report) {
    states_in(Place::Fixed, scenario, watch)
}

fn states_in(place: Place, scenario: impl Fn(&Pmem), watch: &[u64]) -> (BTreeSet<Vec<u8>>, Report) {
    let recorder = Recorder::new();
    let pmem = Pmem::with_observer(AnonRegion::new(LEN).unwrap(), recorder.observer());
    scenario(&pmem);
    let mut found = BTreeSet::new();
    let base = vec![0; usize::try_from(LEN).unwrap()];
    let report =
        Enumeration::new(base, &|_| place, Limits::default()).run(&recorder.take(), &mut |state| {
            assert_eq!(
                state.content,
                hash_image(state.image),
                "the hash follows the image"
            );
            found.insert(
                watch
                    .iter()
                    .map(|at| state.image[usize::try_from(*at).unwrap()])
                    .collect(),
            );
        });
    (found, report)
}

fn set(states: &[&[u8]]) -> BTreeSet<Vec<u8>> {
    states.iter().map(|state| state.to_vec()).collect()
}

#[test]
fn ordered_stores_to_one_line_survive_as_a_prefix() {
    let stores = |pmem: &Pmem| (0..3).for_each(|i| pmem.store(Off::new(i), 1u8));
    let (found, report) = states(stores, &[0, 1, 2]);
    assert_eq!(
        found,
        set(&[&[0, 0, 0], &[1, 0, 0], &[1, 1, 0], &[1, 1, 1]])
    );
    assert_eq!((report.states, report.sampled), (4, 0));
}

#[test]
fn lines_are_independent_without_a_fence_even_when_flushed() {
    let stores = |pmem: &Pmem| {
        pmem.store(Off::new(0), 1u8);
        pmem.flush(0, 1);
        pmem.store(Off::new(64), 1u8);
        pmem.flush(64, 1);
        pmem.fence();
    };
    assert_eq!(
        states(stores, &[0, 64]).0,
        set(&[&[0, 0], &[1, 0], &[0, 1], &[1, 1]])
    );
}

#[test]
fn a_flush_and_a_fence_decide_a_line_for_good() {
    let stores = |pmem: &Pmem| {
        pmem.publish(Off::new(0), 1u8);
        pmem.store(Off::new(64), 1u8);
    };
    assert_eq!(
        states(stores, &[0, 64]).0,
        set(&[&[0, 0], &[1, 0], &[1, 1]])
    );
}

#[test]
fn a_store_that_nobody_flushed_stays_undecided_across_fences() {
    let stores = |pmem: &Pmem| {
        pmem.store(Off::new(0), 1u8);
        pmem.fence();
        pmem.publish(Off::new(64), 1u8);
    };
    assert_eq!(
        states(stores, &[0, 64]).0,
        set(&[&[0, 0], &[1, 0], &[0, 1], &[1, 1]])
    );
}

#[test]
fn a_store_after_the_flush_is_not_covered_by_it() {
    let stores = |pmem: &Pmem| {
        pmem.store(Off::new(0), 1u8);
        pmem.flush(0, 1);
        pmem.store(Off::new(1), 1u8);
        pmem.fence();
        pmem.publish(Off::new(64), 1u8);
    };
    let (found, _) = states(stores, &[0, 1, 64]);
    assert!(
        found.contains(&vec![1, 0, 1]),
        "the later store may be missing when the publication is there"
    );
    assert!(!found.contains(&vec![0, 0, 1]));
}

#[test]
fn the_fence_of_another_thread_proves_nothing() {
    let stores = |pmem: &Pmem| {
        std::thread::scope(|s| {
            s.spawn(|| {
                pmem.store(Off::new(0), 1u8);
                pmem.flush(0, 1);
            });
        });
        pmem.publish(Off::new(64), 1u8);
    };
    assert!(states(stores, &[0, 64]).0.contains(&vec![0, 1]));
}

#[test]
fn words_are_never_torn_and_bulk_writes_are() {
    let word = |pmem: &Pmem| pmem.store(Off::new(0), U64::new(u64::MAX));
    assert_eq!(states(word, &[0, 7]).0, set(&[&[0, 0], &[255, 255]]));
    let bulk = |pmem: &Pmem| pmem.write(0, &[255; 16]);
    assert_eq!(
        states(bulk, &[0, 7, 8, 15]).0,
        set(&[&[0; 4], &[255, 255, 0, 0], &[0, 0, 255, 255], &[255; 4]])
    );
}

#[test]
fn bulk_writes_to_a_data_block_are_old_poison_or_new_as_a_whole() {
    let bulk = |pmem: &Pmem| pmem.write(0, &[255; 200]);
    let (found, report) = states_in(Place::Block(0), bulk, &[0, 100, 199, 200]);
    assert_eq!(report.states, 3);
    assert!(found.contains(&vec![0; 4]) && found.contains(&vec![255, 255, 255, 0]));
    assert!(
        found.iter().all(|state| state[3] == 0),
        "poison stays inside the write"
    );
}

#[test]
fn remarks_split_states_by_what_had_returned() {
    let recorder = Recorder::new();
    let pmem = Pmem::with_observer(AnonRegion::new(LEN).unwrap(), recorder.observer());
    recorder.mark("begin");
    pmem.publish(Off::new(0), U32::new(1));
    recorder.mark("end");
    let mut seen = Vec::new();
    Enumeration::new(vec![0; 4096], &|_| Place::Fixed, Limits::default())
        .run(&recorder.take(), &mut |state| {
            seen.push((state.marks.len(), state.image[0]))
        });
    assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (2, 1)]);
}

#[test]
fn what_is_beyond_the_limit_is_sampled_and_reported() {
    let recorder = Recorder::new();
    let pmem = Pmem::with_observer(AnonRegion::new(LEN).unwrap(), recorder.observer());
    (0..20).for_each(|line| pmem.store(Off::new(line * 64), 1u8));
    let limits = Limits {
        product: 100,
        seed: 3,
    };
    let mut singles = 0;
    let report = Enumeration::new(vec![0; 4096], &|_| Place::Fixed, limits).run(
        &recorder.take(),
        &mut |state| {
            let new = (0..20).filter(|line| state.image[line * 64] == 1).count();
            singles += usize::from(new == 1 || new == 19);
        },
    );
    assert_eq!(report.sampled, 1);
    assert_eq!(singles, 40, "every line alone, against all old and all new");
    assert!(report.states > 60 && report.states <= 142, "{report:?}");
}
