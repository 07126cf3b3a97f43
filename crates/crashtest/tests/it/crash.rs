//! Every crash state of every single operation.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail by unwrapping and tells what it did"
)]

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::mpsc;

use ext2dax::{FileSystem, MountOptions};
use ext2dax_crashtest::crash::preen::E2fsck;
use ext2dax_crashtest::crash::scenario::{Recording, Scenario, Shape, contents, medium};
use ext2dax_crashtest::crash::{CrashState, Enumeration, Limits, Report, mutation, oracle};
use ext2dax_crashtest::judge::soak;

mod attributes;
mod death;
mod hidden;
mod leaks;
mod recovery;
mod scenarios;

fn limits() -> Limits {
    Limits {
        product: if soak() { 20_000 } else { 200 },
        seed: 1,
    }
}

fn shapes() -> Vec<Shape> {
    let quick = [Shape::small(1024, 128), Shape::small(4096, 256)];
    let long = [
        Shape::small(1024, 256),
        Shape::small(2048, 128),
        Shape::small(8192, 256),
        Shape::small(65536, 256),
    ];
    if soak() {
        quick.into_iter().chain(long).collect()
    } else {
        quick.to_vec()
    }
}

/// A state on its way to the judges.
struct Suspect {
    image: Vec<u8>,
    after: usize,
    choices: Vec<(u64, usize, usize)>,
}

/// Runs the cheap oracles on every state and e2fsck on every different image; the first few complaints, and the counts.
fn judge(
    recording: &Recording,
    events: &[ext2dax_pmem::Event],
    limits: Limits,
) -> (Vec<String>, Report, usize) {
    let complaints = Mutex::new(Vec::new());
    let complain = |state: &Suspect, complaint: String| {
        let mut complaints = complaints.lock().unwrap();
        if complaints.len() < 3 {
            complaints.push(format!(
                "after {} events, lines {:x?}: {complaint}",
                state.after, state.choices
            ));
        }
    };
    let (send, receive) = mpsc::sync_channel::<Suspect>(16);
    let receive = Mutex::new(receive);
    let mut judged = HashSet::new();
    let report = std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let e2fsck = E2fsck::find();
                loop {
                    let next = receive.lock().unwrap().recv();
                    let Ok(suspect) = next else { return };
                    if let Some(e2fsck) = &e2fsck
                        && let Err(error) = oracle::preened(e2fsck, recording, &suspect.image)
                    {
                        complain(&suspect, format!("{error:#}"));
                    }
                }
            });
        }
        let place = |offset| recording.places.place(offset);
        let report =
            Enumeration::new(recording.base.clone(), &place, limits).run(events, &mut |state| {
                let suspect = Suspect {
                    image: state.image.to_vec(),
                    after: state.at,
                    choices: state.choices.clone(),
                };
                if let Err(error) = cheap(recording, state) {
                    complain(&suspect, format!("{error:#}"));
                }
                // No judge but ours looks at the records.
                if judged.insert(state.content_without(recording.places.records())) {
                    send.send(suspect).unwrap();
                }
            });
        drop(send);
        report
    });
    (complaints.into_inner().unwrap(), report, judged.len())
}

fn cheap(recording: &Recording, state: &CrashState<'_>) -> anyhow::Result<()> {
    oracle::residue_only(state.image)?;
    oracle::before_or_after(recording, state)
}

fn every_state_is_good(scenarios: &[Scenario]) {
    every_state_of_shapes(&shapes(), &scenarios.iter().collect::<Vec<_>>());
}

fn every_state_of_shapes(shapes: &[Shape], scenarios: &[&Scenario]) {
    let mut failed = Vec::new();
    for &shape in shapes {
        for scenario in scenarios {
            let recording = match scenario.record(shape) {
                Ok(recording) => recording,
                Err(error) => {
                    failed.push(format!("{} ({shape}): {error:#}", scenario.name));
                    continue;
                }
            };
            let (complaints, report, judged) = judge(&recording, &recording.events, limits());
            if recording.fences() > scenario.fences {
                let over = format!("{} fences, budget {}", recording.fences(), scenario.fences);
                failed.push(format!("{} ({shape}): {over}", scenario.name));
            }
            println!(
                "{:<40} {shape}: {} fences, {} points ({} sampled), {} states, {judged} images judged, {} complaints",
                scenario.name,
                report.fences,
                report.points,
                report.sampled,
                report.states,
                complaints.len()
            );
            failed.extend(
                complaints
                    .into_iter()
                    .map(|text| format!("{} ({shape}): {text}", scenario.name)),
            );
        }
    }
    assert!(
        failed.is_empty(),
        "{} complaints:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn names_come_and_go_in_every_crash_state() {
    every_state_is_good(scenarios::NAMES);
}

#[test]
fn files_grow_and_shrink_in_every_crash_state() {
    every_state_is_good(scenarios::CONTENTS);
}

/// What a log with one flush or one fence less shows: whether the oracles of this process can see.
///
/// Not every one can be noticed, and these are the reasons found among the survivors. The flush or fence carries only
/// times, counters, bitmaps or the unnamed rest of a removal, whose loss is Residue. Or it is made again before anything
/// depends on it (two stores to one line, two fences in a row). Or it keeps foreign bytes out of sight of e2fsck alone,
/// which rounds sizes up: that judge is asked in the long rounds. So every operation must have some that are noticed,
/// and their number may not fall: a fall means that a judge has gone blind, or that fences are wasted.
#[test]
fn a_missing_flush_or_fence_is_noticed() {
    let noticed = noticed_mistakes(
        Shape::small(1024, 128),
        &scenarios::NAMES
            .iter()
            .chain(scenarios::CONTENTS)
            .chain(attributes::ATTRIBUTES)
            .collect::<Vec<_>>(),
    );
    assert!(noticed >= 150, "only {noticed} mistakes are noticed");
}

fn noticed_mistakes(shape: Shape, scenarios: &[&Scenario]) -> usize {
    let e2fsck = soak().then(E2fsck::find).flatten();
    let (mut noticed, mut survivors) = (0, Vec::new());
    for scenario in scenarios {
        let recording = scenario.record(shape).unwrap();
        let mut here = 0;
        for mistake in mutation::mistakes(&recording.events) {
            let events = mutation::with_mistake(&recording.events, mistake);
            if first_complaint(&recording, &events, e2fsck.as_ref()).is_some() {
                here += 1;
            } else {
                survivors.push(format!(
                    "{}: {}",
                    scenario.name,
                    describe(&recording, mistake)
                ));
            }
        }
        assert!(
            here > 0,
            "{}: no missing flush or fence is noticed",
            scenario.name
        );
        noticed += here;
    }
    println!(
        "{noticed} mistakes noticed, {} not:\n{}",
        survivors.len(),
        survivors.join("\n")
    );
    noticed
}

/// The first complaint about any state of a log.
fn first_complaint(
    recording: &Recording,
    events: &[ext2dax_pmem::Event],
    e2fsck: Option<&E2fsck>,
) -> Option<String> {
    let place = |offset| recording.places.place(offset);
    let mut complaint = None;
    let limits = Limits {
        product: 64,
        seed: 1,
    };
    Enumeration::new(recording.base.clone(), &place, limits).run(events, &mut |state| {
        if complaint.is_none() {
            let judged = cheap(recording, state).and_then(|()| {
                e2fsck.map_or(Ok(()), |e2fsck| {
                    oracle::preened(e2fsck, recording, state.image)
                })
            });
            complaint = judged.err().map(|error| format!("{error:#}"));
        }
    });
    complaint
}

fn describe(recording: &Recording, mistake: mutation::Mistake) -> String {
    match mistake {
        mutation::Mistake::NoFence(at) => format!("fence, event {at}"),
        mutation::Mistake::NoFlush(at) => match &recording.events[at].kind {
            ext2dax_pmem::EventKind::Flush(range) => {
                format!(
                    "flush of {range:#x?}, event {at}, {:?}",
                    recording.places.place(range.start)
                )
            }
            other => format!("{other:?}"),
        },
    }
}

/// Work goes on after a crash without a checker in between: mounted as it was left, everything in the root removed and
/// something new made, left again as a crash would. The second crash must be as good as the first.
#[test]
fn work_after_a_crash_leaves_nothing_worse() {
    let shape = Shape::small(1024, 128);
    let Some(e2fsck) = E2fsck::find() else { return };
    let mut failed = Vec::new();
    for scenario in scenarios::NAMES
        .iter()
        .chain(scenarios::CONTENTS)
        .chain(attributes::ATTRIBUTES)
    {
        let recording = scenario.record(shape).unwrap();
        let place = |offset| recording.places.place(offset);
        let mut states = Vec::new();
        Enumeration::new(
            recording.base.clone(),
            &place,
            Limits {
                product: 64,
                seed: 1,
            },
        )
        .run(&recording.events, &mut |state| {
            states.push(state.image.to_vec())
        });
        let step = if soak() { 1 } else { states.len().div_ceil(6) };
        for (i, image) in states.iter().enumerate().step_by(step) {
            if let Err(error) = work_on(image).and_then(|image| {
                oracle::residue_only(&image)?;
                let verdict = e2fsck.preen(&image)?;
                anyhow::ensure!(verdict.is_good(), "{verdict}");
                Ok(())
            }) {
                failed.push(format!("{}: state {i}: {error:#}", scenario.name));
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} complaints:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

fn work_on(image: &[u8]) -> anyhow::Result<Vec<u8>> {
    let pmem = medium(image)?;
    let fs = FileSystem::mount_pmem(pmem.clone(), &MountOptions::new())?;
    for entry in fs.read_dir("/")? {
        let path = entry?.path();
        let Ok(metadata) = fs.symlink_metadata(&path) else {
            continue;
        };
        if path == b"/lost+found" {
            continue;
        }
        if metadata.is_dir() {
            fs.remove_dir_all(&path)?;
        } else {
            fs.remove_file(&path)?;
        }
    }
    fs.write("/afterwards", [1; 3000])?;
    fs.create_dir("/folder")?;
    fs.abandon();
    Ok(contents(&pmem))
}

/// The one exception among renames: a directory that moves to another parent, or is exchanged with something that lies
/// elsewhere, has two names or none, or a `..` that is not its parent, for a few fences, and e2fsck asks a human then (exit
/// 4). Nothing is lost: each name shows as before or as after, and our mount makes one step of it. The exception must
/// really occur, or this file claims too little.
#[test]
fn a_directory_that_moves_between_parents_is_the_one_exception() {
    let Some(e2fsck) = E2fsck::find() else { return };
    let mut failed = Vec::new();
    for shape in shapes() {
        for scenario in scenarios::EXCEPTIONS {
            if let Err(error) = exception(&e2fsck, scenario, shape) {
                failed.push(format!("{} ({shape}): {error:#}", scenario.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn exception(e2fsck: &E2fsck, scenario: &Scenario, shape: Shape) -> anyhow::Result<()> {
    let recording = scenario.record(shape)?;
    let fences = recording.fences();
    anyhow::ensure!(fences <= scenario.fences, "{fences} fences");
    let place = |offset| recording.places.place(offset);
    let (mut asks, mut complaints, mut judged) = (0, Vec::new(), HashSet::new());
    let mut look = |state: &CrashState<'_>| -> anyhow::Result<()> {
        oracle::before_or_after(&recording, state)?;
        if judged.insert((
            state.marks.len(),
            state.content_without(recording.places.records()),
        )) {
            let verdict = e2fsck.preen(state.image)?;
            let exception = verdict.preen == 4;
            asks += usize::from(exception);
            let returned = state.marks.len() == 2;
            let good = if exception {
                !returned
            } else {
                verdict.is_good()
            };
            anyhow::ensure!(good, "{verdict}");
        }
        Ok(())
    };
    Enumeration::new(recording.base.clone(), &place, limits()).run(
        &recording.events,
        &mut |state| {
            if let Err(error) = look(state) {
                complaints.push(format!("after {} events: {error:#}", state.at));
            }
        },
    );
    anyhow::ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    anyhow::ensure!(
        asks > 0,
        "e2fsck never asks: the exception is none any more"
    );
    Ok(())
}
