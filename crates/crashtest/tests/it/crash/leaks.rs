//! Blocks and inodes that crashes leak: how many, and that a mount gives them back on request.

use ext2dax_crashtest::crash::oracle::{self, Leaked};
use ext2dax_crashtest::crash::preen::E2fsck;
use ext2dax_crashtest::crash::scenario::{Scenario, Shape};
use ext2dax_crashtest::crash::{Enumeration, Limits};
use ext2dax_crashtest::judge::soak;

use super::{attributes, scenarios};

/// The largest file of a scenario has 14 blocks and a half, and one that leads to them.
const MOST_BLOCKS: u64 = 16;
/// Files that are open when a crash comes, and one that is being made.
const MOST_INODES: u64 = 2;

fn all() -> impl Iterator<Item = &'static Scenario> {
    scenarios::NAMES
        .iter()
        .chain(scenarios::CONTENTS)
        .chain(attributes::ATTRIBUTES)
        .chain(scenarios::EXCEPTIONS)
}

/// The most that one state of a scenario leaks, how many states leak, and how many there are.
fn leaks_of(scenario: &Scenario, shape: Shape, e2fsck: Option<&E2fsck>) -> (Leaked, usize, usize) {
    let recording = scenario.record(shape).unwrap();
    let place = |offset| recording.places.place(offset);
    let limits = Limits {
        product: if soak() { 2000 } else { 40 },
        seed: 1,
    };
    let (mut most, mut leaking, mut number) = (Leaked::default(), 0, 0);
    let report = Enumeration::new(recording.base.clone(), &place, limits).run(
        &recording.events,
        &mut |state| {
            number += 1;
            let judge = e2fsck.filter(|_| soak() || number % 16 == 0);
            match oracle::reclaimed(state, judge) {
                Ok(leaked) => {
                    leaking += usize::from(leaked != Leaked::default());
                    most.blocks = most.blocks.max(leaked.blocks);
                    most.inodes = most.inodes.max(leaked.inodes);
                }
                Err(error) => panic!(
                    "{} ({shape}): after {} events, {:x?}: {error:#}",
                    scenario.name, state.at, state.choices
                ),
            }
        },
    );
    (most, leaking, report.states)
}

#[test]
fn what_a_crash_leaks_is_given_back_on_request() {
    let e2fsck = E2fsck::find();
    let mut shapes = vec![Shape::small(1024, 128)];
    if soak() {
        shapes.push(Shape::small(4096, 256));
        shapes.push(Shape::small(1024, 256).with_boot_loader());
    }
    let (mut leaking, mut states) = (0, 0);
    let mut failed = Vec::new();
    for shape in shapes {
        for scenario in all() {
            let (most, some, of) = leaks_of(scenario, shape, e2fsck.as_ref());
            println!(
                "{}: {some} of {of} states leak, at most {} blocks, {} inodes",
                scenario.name, most.blocks, most.inodes
            );
            leaking += some;
            states += of;
            // An operation leaks no more than it takes, or gives back, in one epoch.
            if most.blocks > MOST_BLOCKS || most.inodes > MOST_INODES {
                failed.push(format!("{} ({shape}): {most:?}", scenario.name));
            }
        }
    }
    println!("{leaking} of {states} states leak");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(leaking > 0, "nothing leaks: this test sees nothing");
}
