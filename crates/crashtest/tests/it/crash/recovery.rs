//! Crashes in the middle of a recovery, and crashes behind an operation whose intent nobody has waited to see void.

use ext2dax::pmem::Recorder;
use ext2dax::{FileSystem, MountOptions, Result};
use ext2dax_crashtest::crash::oracle;
use ext2dax_crashtest::crash::scenario::{
    Places, Promise, Recording, Scenario, Shape, contents, medium,
};
use ext2dax_crashtest::crash::{Enumeration, Limits, shown};
use ext2dax_crashtest::judge::soak;

use super::scenarios;

const SHAPE: Shape = Shape::small(1024, 128);

fn limits(product: usize) -> Limits {
    Limits { product, seed: 1 }
}

/// A recovery is made of the same epochs as everything else: whatever of it a crash leaves, the next one ends where it
/// would have ended.
#[test]
fn a_recovery_that_crashes_is_completed_by_the_next() {
    let all = scenarios::NAMES
        .iter()
        .chain(scenarios::CONTENTS)
        .chain(scenarios::EXCEPTIONS);
    let states = recoveries_that_crash(SHAPE, all);
    assert!(states > 1000, "only {states} states");
}

/// How many crash states of recoveries there are, all of them good.
pub(super) fn recoveries_that_crash<'a>(
    shape: Shape,
    scenarios: impl Iterator<Item = &'a Scenario>,
) -> usize {
    let mut failed = Vec::new();
    let mut states = 0;
    for scenario in scenarios {
        let recording = scenario.record(shape).unwrap();
        let place = |offset| recording.places.place(offset);
        let mut crashes = Vec::new();
        Enumeration::new(recording.base.clone(), &place, limits(48))
            .run(&recording.events, &mut |state| {
                crashes.push((state.image.to_vec(), state.marks.len()))
            });
        let step = if soak() {
            1
        } else {
            crashes.len().div_ceil(10)
        };
        for (number, (image, marks)) in crashes.iter().enumerate().step_by(step) {
            match recover_in_pieces(&recording, image, *marks) {
                Ok(more) => states += more,
                Err(error) => failed.push(format!("{}: state {number}: {error}", scenario.name)),
            }
        }
    }
    println!("{states} crash states of recoveries");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    states
}

/// Every crash state of the recovery of `image`, recovered again.
fn recover_in_pieces(recording: &Recording, image: &[u8], marks: usize) -> anyhow::Result<usize> {
    let recorder = Recorder::new();
    // What had returned before the crash has returned.
    (0..marks).for_each(|_| recorder.mark("before"));
    let pmem = medium(image)?.observed_by(recorder.observer());
    FileSystem::mount_pmem(pmem, &MountOptions::new())?.abandon();
    let events = recorder.take();
    let place = |offset| recording.places.place(offset);
    let mut complaint = None;
    let report = Enumeration::new(image.to_vec(), &place, limits(32)).run(&events, &mut |state| {
        if complaint.is_none() && state.marks.len() == marks {
            complaint = oracle::before_or_after(recording, state)
                .err()
                .map(|error| format!("after {} events of the recovery: {error:#}", state.at));
        }
    });
    complaint.map_or(Ok(report.states), |text| Err(anyhow::anyhow!(text)))
}

type Step = (&'static str, fn(&FileSystem) -> Result<()>);

/// Operations that meet at the same files and directories.
const STEPS: &[Step] = &[
    ("link a n", |fs| fs.hard_link("/a", "/n")),
    ("unlink l", |fs| fs.remove_file("/l")),
    ("unlink a", |fs| fs.remove_file("/a")),
    ("rename a c", |fs| fs.rename("/a", "/c")),
    ("rename a d/c", |fs| fs.rename("/a", "/d/c")),
    ("rename a over b", |fs| fs.rename("/a", "/b")),
    ("rename b over l", |fs| fs.rename("/b", "/l")),
    ("rename d/a over a", |fs| fs.rename("/d/a", "/a")),
    ("exchange b and d/a", |fs| {
        let (root, d) = (fs.root()?, fs.inode("/d")?);
        root.rename_with(b"b", &d, b"a", ext2dax::RenameFlags::Exchange)
    }),
    ("create n", |fs| fs.create("/n").map(drop)),
    ("mkdir m", |fs| fs.create_dir("/m")),
    ("rmdir e", |fs| fs.remove_dir("/e")),
    ("rename e d/e", |fs| fs.rename("/e", "/d/e")),
    ("rename e over f", |fs| fs.rename("/e", "/f")),
    ("chmod a", |fs| {
        fs.set_permissions("/a", ext2dax::Permissions::from_mode(0o600))
    }),
    ("chown a", |fs| fs.set_owner("/a", Some(0x12_0001), None)),
];

fn prepare(fs: &FileSystem) -> Result<()> {
    for path in ["/a", "/b"] {
        fs.write(path, [path.as_bytes()[1]; 700])?;
    }
    fs.hard_link("/a", "/l")?;
    for path in ["/d", "/e", "/f"] {
        fs.create_dir(path)?;
    }
    fs.write("/d/a", [3; 300])
}

/// Two operations of two threads, one behind the other, so that the second finds the first one's intent void but not
/// durably so: whatever the second one does, a crash must not bring the first one back.
#[test]
fn an_operation_that_has_ended_is_not_recovered_behind_a_later_one() {
    let mut failed = Vec::new();
    let (mut pairs, mut states) = (0, 0);
    for first in STEPS {
        for second in STEPS {
            match pair(first, second) {
                Ok(None) => {}
                Ok(Some(more)) => {
                    pairs += 1;
                    states += more;
                }
                Err(error) => failed.push(format!("{}, {}: {error:#}", first.0, second.0)),
            }
        }
    }
    println!("{pairs} pairs, {states} states");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(pairs > 120, "only {pairs} pairs fit");
}

/// The states of the second step; `None` if the two do not fit.
fn pair(first: &Step, second: &Step) -> anyhow::Result<Option<usize>> {
    let recorder = Recorder::new();
    recorder.pause(true);
    let pmem = SHAPE.make()?;
    let fs = FileSystem::mount_pmem(
        pmem.clone().observed_by(recorder.observer()),
        &MountOptions::new(),
    )?;
    let places = Places::of(&pmem)?;
    prepare(&fs)?;
    // The temporary links are there before.
    fs.write("/t", [1; 10])?;
    fs.write("/u", [1; 10])?;
    fs.rename("/t", "/u")?;
    fs.sync()?;
    let base = contents(&pmem);
    recorder.pause(false);
    if (first.1)(&fs).is_err() {
        return Ok(None);
    }
    recorder.pause(true);
    let before = shown::read(&fs)?;
    recorder.pause(false);
    recorder.mark("begin");
    let result = std::thread::scope(|s| s.spawn(|| (second.1)(&fs)).join().expect("no panic"));
    recorder.mark("end");
    if result.is_err() {
        return Ok(None);
    }
    let events = recorder.take();
    recorder.pause(true);
    let after = shown::read(&fs)?;
    fs.abandon();
    let recording = Recording {
        base,
        events,
        before,
        after,
        promise: Promise::Atomic,
        places,
    };
    let place = |offset| recording.places.place(offset);
    let mut complaint = None;
    let report = Enumeration::new(recording.base.clone(), &place, limits(48)).run(
        &recording.events,
        &mut |state| {
            if complaint.is_none() && !state.marks.is_empty() {
                complaint = oracle::before_or_after(&recording, state)
                    .err()
                    .map(|error| format!("after {} events: {error:#}", state.at));
            }
        },
    );
    complaint.map_or(Ok(Some(report.states)), |text| Err(anyhow::anyhow!(text)))
}

/// What a mount has to do after a crash does not grow with the image: not with the directories in it, not with the files.
#[test]
fn a_recovery_does_as_much_on_a_full_image_as_on_an_empty_one() {
    let events = |names: u32| {
        let shape = Shape {
            block_size: 1024,
            inode_size: 128,
            len: 8 << 20,
            boot_loader: false,
        };
        let scenario = Scenario {
            name: "create",
            promise: Promise::Atomic,
            fences: 2,
            prepare: |_| Ok(()),
            operation: |fs| fs.create("/new").map(drop),
        };
        let pmem = shape.make()?;
        let fs = FileSystem::mount_pmem(pmem.clone(), &MountOptions::new())?;
        fs.create("/file")?;
        for folder in 0..names / 100 {
            fs.create_dir(format!("/{folder}"))?;
            for name in 0..100 {
                fs.hard_link("/file", format!("/{folder}/{name:0>50}"))?;
            }
        }
        (scenario.operation)(&fs)?;
        fs.abandon();
        let recorder = Recorder::new();
        let observed = medium(&contents(&pmem))?.observed_by(recorder.observer());
        FileSystem::mount_pmem(observed, &MountOptions::new())?.abandon();
        anyhow::Ok(recorder.take().len())
    };
    assert_eq!(events(0).unwrap(), events(1000).unwrap());
}
