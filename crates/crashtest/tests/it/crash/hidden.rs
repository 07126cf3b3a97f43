//! Images whose boot block is in use: the records lie in a hidden file, which the first mount makes.

use ext2dax::pmem::Recorder;
use ext2dax::{FileSystem, MountOptions};
use ext2dax_crashtest::crash::preen::E2fsck;
use ext2dax_crashtest::crash::scenario::{BOOT_LOADER, Places, Scenario, Shape, contents, medium};
use ext2dax_crashtest::crash::{Enumeration, Limits, Place, oracle};
use ext2dax_crashtest::judge::soak;

use super::{recovery, scenarios};

const SHAPE: Shape = Shape::small(1024, 128).with_boot_loader();

/// Some of all operations, all of them in the long rounds.
fn some(every: usize) -> impl Iterator<Item = &'static Scenario> {
    let all = scenarios::NAMES
        .iter()
        .chain(scenarios::CONTENTS)
        .step_by(if soak() { 1 } else { every });
    all.chain(&scenarios::EXCEPTIONS[..1])
}

/// The same oracles and the same budgets of fences as with the boot block.
#[test]
fn records_in_a_hidden_file_serve_as_well() {
    let mut shapes = vec![SHAPE];
    if soak() {
        shapes.push(Shape::small(4096, 256).with_boot_loader());
        shapes.push(Shape::small(65536, 256).with_boot_loader());
    }
    // The exception is judged elsewhere.
    let some: Vec<_> = some(5).filter(|one| !is_exception(one)).collect();
    super::every_state_of_shapes(&shapes, &some);
}

fn is_exception(scenario: &Scenario) -> bool {
    let exceptions = scenarios::EXCEPTIONS;
    exceptions.iter().any(|one| one.name == scenario.name)
}

#[test]
fn a_missing_flush_or_fence_is_noticed_with_a_hidden_file() {
    let some: Vec<_> = some(8).collect();
    let noticed = super::noticed_mistakes(SHAPE, &some);
    assert!(noticed >= 20, "only {noticed} mistakes are noticed");
}

#[test]
fn a_recovery_that_crashes_is_completed_from_a_hidden_file() {
    let states = recovery::recoveries_that_crash(SHAPE, some(8));
    assert!(states > 150, "only {states} states");
}

/// Wherever a crash ends the mount that makes the file, checkers find nothing that they would ask about, the next mount
/// needs no checker, and what it leaves is as good.
#[test]
fn the_mount_that_makes_the_hidden_file_may_crash_anywhere() {
    let e2fsck = E2fsck::find();
    let mut shapes = vec![SHAPE];
    if soak() {
        shapes.push(Shape::small(4096, 256).with_boot_loader());
    }
    let limits = Limits {
        product: if soak() { 4000 } else { 60 },
        seed: 1,
    };
    for shape in shapes {
        let recorder = Recorder::new();
        let pmem = shape.make().unwrap();
        let base = contents(&pmem);
        let observed = pmem.clone().observed_by(recorder.observer());
        FileSystem::mount_pmem(observed, &MountOptions::new())
            .unwrap()
            .abandon();
        let events = recorder.take();
        let places = Places::of(&pmem).unwrap();
        assert_ne!(places.records().start, 0, "no hidden file");
        let place = |offset| places.place(offset);
        let (mut complaints, mut completed) = (Vec::new(), 0);
        let mut number = 0;
        let report = Enumeration::new(base, &place, limits).run(&events, &mut |state| {
            number += 1;
            let judge = e2fsck.as_ref().filter(|_| soak() || number % 3 == 0);
            match crashed_in_the_first_mount(state.image, &places, judge) {
                Ok(unfinished) => completed += usize::from(unfinished),
                Err(error) => complaints.push(format!("after {} events: {error:#}", state.at)),
            }
        });
        println!("{shape}: {} states, {completed} completed", report.states);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        assert!(completed > 0, "no crash came in between");
    }
}

/// Whether the file was not there yet, and the mount completed it.
fn crashed_in_the_first_mount(
    image: &[u8],
    places: &Places,
    e2fsck: Option<&E2fsck>,
) -> anyhow::Result<bool> {
    oracle::residue_only(image)?;
    if let Some(e2fsck) = e2fsck {
        let verdict = e2fsck.preen(image)?;
        anyhow::ensure!(verdict.is_good(), "{verdict}");
    }
    let before = medium(image)?;
    let in_use = image[1024 + 58] & 1 == 0;
    let unfinished = in_use && Places::of(&before)?.records().start == 0;
    let fs = FileSystem::mount_pmem(before.clone(), &MountOptions::new())?;
    fs.write("/file", [1; 3000])?;
    fs.unmount()?;
    let after = contents(&before);
    anyhow::ensure!(after[..1024] == BOOT_LOADER, "the boot block has changed");
    anyhow::ensure!(
        Places::of(&before)?.place(places.records().start as u64) == Place::Record,
        "the file is elsewhere"
    );
    oracle::residue_only(&after)?;
    if let Some(e2fsck) = e2fsck {
        let verdict = e2fsck.preen(&after)?;
        anyhow::ensure!(verdict.is_good(), "{verdict}");
    }
    Ok(unfinished)
}
