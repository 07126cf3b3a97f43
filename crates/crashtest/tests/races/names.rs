//! Names that move, come and go at one moment: the protocols that take several locks.
//!
//! Rename takes RENAME where a name changes its directory, then both directories, parent before child and else by number,
//! then the files; and every call looks again under the lock it has waited for. Each of these is taken away in turn, and
//! some schedule must show it.

use std::cell::RefCell;
use std::sync::Arc;

use ext2dax::{Error, FileSystem, Inode, New, RenameFlags, Result};
use ext2dax_fsck::CheckOptions;
use ext2dax_mkfs::{Inodes, Options, Plan};
use ext2dax_pmem::Pmem;
use ext2dax_sync::explore::{Config, search};
use ext2dax_sync::thread;

use crate::{LEN, medium, options};

thread_local! {
    static TEMPLATE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// `/d/x` and `/d/s/`, `/e/y`, and `/a`, which is empty.
struct World {
    pmem: Pmem,
    fs: FileSystem,
    root: Inode,
    d: Inode,
    e: Inode,
    s: Inode,
}

fn make_template() {
    let pmem = medium();
    let plan = Options {
        inodes: Inodes::Count(32),
        ..Options::with_block_size(1024)
    };
    pmem.zero(0, LEN);
    Plan::new(&plan, LEN).unwrap().write(&pmem).unwrap();
    let fs = FileSystem::mount_pmem(pmem.clone(), &options()).unwrap();
    let root = fs.root().unwrap();
    let d = root.mkdir(b"d", &New::default()).unwrap();
    let e = root.mkdir(b"e", &New::default()).unwrap();
    d.mkdir(b"s", &New::default()).unwrap();
    for (dir, name) in [(&d, b"x"), (&e, b"y")] {
        let file = dir.create(name, &New::default()).unwrap();
        file.write_at(0, &name[..]).unwrap();
    }
    root.create(b"a", &New::default()).unwrap();
    // The links that keep counts honest are there: setting them up is no part of the scenarios.
    root.create(b"b", &New::default()).unwrap();
    root.create(b"c", &New::default()).unwrap();
    root.rename(b"b", &root, b"c").unwrap();
    root.unlink(b"c").unwrap();
    drop((root, d, e));
    fs.unmount().unwrap();
    let mut bytes = vec![0; usize::try_from(LEN).unwrap()];
    pmem.read(0, &mut bytes);
    TEMPLATE.set(bytes);
}

impl World {
    fn new() -> Arc<World> {
        let pmem = medium();
        TEMPLATE.with_borrow(|bytes| pmem.write(0, bytes));
        let fs = FileSystem::mount_pmem(pmem.clone(), &options()).unwrap();
        let root = fs.root().unwrap();
        let (d, e) = (root.lookup(b"d").unwrap(), root.lookup(b"e").unwrap());
        let s = d.lookup(b"s").unwrap();
        Arc::new(World {
            pmem,
            fs,
            root,
            d,
            e,
            s,
        })
    }

    fn finish(self: Arc<Self>) {
        let World {
            pmem,
            fs,
            root,
            d,
            e,
            s,
        } = Arc::into_inner(self).expect("no thread has it any more");
        drop((root, d, e, s));
        fs.unmount().unwrap();
        let report = ext2dax_fsck::check(&pmem, &CheckOptions::default()).unwrap();
        assert!(
            report.is_clean(),
            "the image is damaged: {:?}",
            report.findings
        );
    }
}

/// One thread's call; the answers of all are judged together.
type Act = fn(&World) -> Result<()>;

fn run(acts: &'static [Act], end: fn(&World, &[Result<()>])) {
    let world = World::new();
    let threads: Vec<_> = acts
        .iter()
        .map(|act| {
            let world = world.clone();
            thread::spawn(move || act(&world))
        })
        .collect();
    let answers: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("a thread of the scenario"))
        .collect();
    end(&world, &answers);
    world.finish();
}

fn configs() -> [Config; 2] {
    let soak = std::env::var_os("EXT2DAX_SOAK").is_some();
    let (most, sampled) = if soak {
        (200_000, 50_000)
    } else {
        (1_000, 500)
    };
    let exhaustive = Config {
        max_runs: most,
        ..Config::exhaustive(2)
    };
    [exhaustive, Config::pct(3, sampled, 20_150_114)]
}

fn explore(name: &str, acts: &'static [Act], end: fn(&World, &[Result<()>])) {
    search(&Config::exhaustive(0), make_template).unwrap();
    for config in configs() {
        match search(&config, move || run(acts, end)) {
            Ok(stats) => println!(
                "{name:<45} {:>7} schedules, {:>5} steps each",
                stats.runs,
                stats.steps / stats.runs
            ),
            Err(failure) => panic!("{name}: {failure}"),
        }
    }
}

fn notice(mutant: &'static str, acts: &'static [Act], end: fn(&World, &[Result<()>])) {
    search(&Config::exhaustive(0), make_template).unwrap();
    let more = [Config::pct(3, 5_000, 20_150_115), Config::random(2_000, 7)];
    let failure = configs()
        .into_iter()
        .chain(more)
        .find_map(|config| search(&config.with_mutant(mutant), move || run(acts, end)).err());
    let failure = failure.unwrap_or_else(|| panic!("nobody noticed: {mutant}"));
    println!("{mutant:<45} schedule {}", failure.stats.runs);
}

fn has(dir: &Inode, name: &[u8]) -> bool {
    match dir.lookup(name) {
        Ok(_) => true,
        Err(Error::NotFound) => false,
        Err(other) => panic!("{other}"),
    }
}

fn text(dir: &Inode, name: &[u8]) -> Option<u8> {
    let mut byte = [0];
    let file = match dir.lookup(name) {
        Ok(file) => file,
        Err(Error::NotFound) => return None,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(file.read_at(0, &mut byte[..]), Ok(1));
    Some(byte[0])
}

/// Between two directories, in both directions at once.
const CROSSING: &[Act] = &[
    |world| world.d.rename(b"x", &world.e, b"x2"),
    |world| world.e.rename(b"y", &world.d, b"y2"),
];

fn both_crossed(world: &World, answers: &[Result<()>]) {
    assert_eq!(answers, [Ok(()), Ok(())]);
    assert_eq!(text(&world.e, b"x2"), Some(b'x'));
    assert_eq!(text(&world.d, b"y2"), Some(b'y'));
    assert!(!has(&world.d, b"x") && !has(&world.e, b"y"));
}

/// Two directories, each into the other.
const SWALLOWING: &[Act] = &[
    |world| world.root.rename(b"d", &world.e, b"d2"),
    |world| world.root.rename(b"e", &world.d, b"e2"),
];

fn one_swallowed(world: &World, answers: &[Result<()>]) {
    let (d, e) = (has(&world.root, b"d"), has(&world.root, b"e"));
    assert!(d != e, "one of the two is in the other: {answers:?}");
    assert_eq!(
        answers,
        if e {
            [Ok(()), Err(Error::InvalidArgument)]
        } else {
            [Err(Error::InvalidArgument), Ok(())]
        }
    );
}

/// A directory goes while others put names into it.
const REMOVING: &[Act] = &[
    |world| world.d.rmdir(b"s"),
    |world| world.s.create(b"new", &New::default()).map(drop),
    |world| world.e.rename(b"y", &world.s, b"y2"),
];

fn gone_or_filled(world: &World, answers: &[Result<()>]) {
    if answers[0] == Ok(()) {
        assert_eq!(answers[1..], [Err(Error::NotFound), Err(Error::NotFound)]);
        assert!(!has(&world.d, b"s"));
        assert_eq!(text(&world.e, b"y"), Some(b'y'));
    } else {
        assert_eq!(answers[0], Err(Error::DirectoryNotEmpty));
        assert!(answers[1..].contains(&Ok(())));
        assert_eq!(has(&world.s, b"new"), answers[1] == Ok(()));
        assert_eq!(has(&world.s, b"y2"), answers[2] == Ok(()));
    }
}

/// The last handle of a file and its last name.
const PARTING: &[Act] = &[
    |world| world.e.unlink(b"y"),
    |world| {
        match world.e.lookup(b"y") {
            Ok(file) => assert_eq!(file.read_at(0, &mut [0][..]), Ok(1), "open, so it lives"),
            Err(error) => assert_eq!(error, Error::NotFound),
        }
        Ok(())
    },
];

fn parted(world: &World, answers: &[Result<()>]) {
    assert_eq!(answers, [Ok(()), Ok(())]);
    assert!(!has(&world.e, b"y"));
}

/// One name goes while another one comes, in another directory.
const LINKING: &[Act] = &[
    |world| world.e.unlink(b"y"),
    |world| {
        let file = world.e.lookup(b"y")?;
        world.d.link(b"y2", &file)
    },
];

fn linked_or_gone(world: &World, answers: &[Result<()>]) {
    assert_eq!(answers[0], Ok(()));
    assert!(!has(&world.e, b"y"));
    match answers[1] {
        Ok(()) => {
            let links = world.d.lookup(b"y2").unwrap().attributes().unwrap().links;
            assert_eq!((text(&world.d, b"y2"), links), (Some(b'y'), 1));
        }
        Err(error) => {
            assert_eq!(error, Error::NotFound);
            assert!(!has(&world.d, b"y2"));
        }
    }
}

#[test]
fn mistakes_in_the_protocols_of_names_show() {
    notice("renames without RENAME", SWALLOWING, one_swallowed);
    notice("directories locked as they are named", LOCKING, any_answer);
    notice(
        "a lock is not followed by another look",
        REMOVING,
        gone_or_filled,
    );
    notice("a name goes without a look for handles", PARTING, parted);
    notice(
        "a name goes without the file's lock",
        LINKING,
        linked_or_gone,
    );
    for mistake in [
        "a way outlives its directory's name",
        "a way counts from its end",
    ] {
        notice(mistake, WALKING, led_on);
    }
}

/// A directory moves while somebody walks through it, who remembers the way: the third thread and the judge share a lane.
const WALKING: &[Act] = &[
    |world| {
        world.root.rename(b"d", &world.e, b"d2")?;
        assert_eq!(world.fs.metadata("/d/x").map(drop), Err(Error::NotFound));
        world.fs.metadata("/e/d2/x").map(drop)
    },
    |world| world.fs.metadata("/d/x").map(drop),
];

fn led_on(world: &World, answers: &[Result<()>]) {
    assert_eq!(answers[0], Ok(()));
    assert!(matches!(answers[1], Ok(()) | Err(Error::NotFound)));
    for path in ["/d/x", "/d/s/none"] {
        assert_eq!(world.fs.metadata(path).map(drop), Err(Error::NotFound));
    }
    assert!(world.fs.metadata("/e/d2/x").is_ok());
    world.root.mkdir(b"d", &New::default()).unwrap();
    world.d.rename(b"x", &world.d, b"z").unwrap();
    assert!(world.fs.metadata("/d").is_ok() && world.fs.metadata("/e/d2/z").is_ok());
}

#[test]
fn a_way_that_is_remembered_ends_with_the_name_of_a_directory_on_it() {
    explore("rename of a directory x walk through it", WALKING, led_on);
}

/// A child and its parent, from both sides: the order of the locks is what keeps the three from waiting for each other.
const LOCKING: &[Act] = &[
    |world| world.d.rename(b"x", &world.s, b"x2"),
    |world| world.s.rename(b"x2", &world.d, b"x3"),
    |world| world.d.rmdir(b"s"),
];

fn any_answer(world: &World, _answers: &[Result<()>]) {
    let homes = [
        text(&world.d, b"x"),
        text(&world.d, b"x3"),
        has(&world.d, b"s").then(|| text(&world.s, b"x2")).flatten(),
    ];
    let found: Vec<u8> = homes.into_iter().flatten().collect();
    assert_eq!(found, [b'x'], "the file has one name");
}

#[test]
fn renames_between_two_directories_cross() {
    explore("rename d to e x rename e to d", CROSSING, both_crossed);
}

#[test]
fn two_directories_never_swallow_each_other() {
    explore("rename d into e x e into d", SWALLOWING, one_swallowed);
}

#[test]
fn a_directory_that_goes_takes_no_new_name() {
    explore(
        "rmdir x create in it x rename into it",
        REMOVING,
        gone_or_filled,
    );
}

#[test]
fn a_parent_and_its_child_are_locked_in_one_order() {
    explore("rename down x rename up x rmdir", LOCKING, any_answer);
}

#[test]
fn a_file_ends_with_the_last_of_name_and_handle() {
    explore("unlink x open, read, close", PARTING, parted);
}

#[test]
fn a_link_and_an_unlink_agree_about_the_count() {
    explore("unlink x link elsewhere", LINKING, linked_or_gone);
}

/// The target of a rename has its name at every moment, whoever replaces or removes it.
#[test]
fn a_target_is_replaced_removed_and_opened_at_once() {
    explore(
        "rename over x unlink of the target x open",
        &[
            |world| world.d.rename(b"x", &world.e, b"y"),
            |world| world.e.unlink(b"y"),
            |world| {
                let seen = text(&world.e, b"y");
                assert!(matches!(seen, None | Some(b'x' | b'y')), "{seen:?}");
                Ok(())
            },
        ],
        |world, answers| {
            assert_eq!(answers[0], Ok(()));
            assert!(!has(&world.d, b"x"));
            let left = text(&world.e, b"y");
            // The removal came before the rename, or after it.
            assert!(matches!(left, None | Some(b'x')), "{left:?}");
        },
    );
}

#[test]
fn an_exchange_and_a_rename_of_one_of_the_two() {
    explore(
        "exchange x rename of one x unlink of the other",
        &[
            |world| {
                world
                    .d
                    .rename_with(b"x", &world.e, b"y", RenameFlags::Exchange)
            },
            |world| world.d.rename(b"x", &world.d, b"z"),
            |world| world.root.unlink(b"a"),
        ],
        |world, answers| {
            assert_eq!(answers[2], Ok(()));
            assert_eq!(answers[1], Ok(()));
            let files = (text(&world.d, b"z"), text(&world.e, b"y"));
            let exchanged = answers[0] == Ok(());
            let wanted = if exchanged {
                (b'y', b'x')
            } else {
                (b'x', b'y')
            };
            assert_eq!(files, (Some(wanted.0), Some(wanted.1)), "{answers:?}");
        },
    );
}

#[test]
fn one_of_two_creations_makes_the_name() {
    explore(
        "create x create x mkdir, one name",
        &[
            |world| world.d.create(b"new", &New::default()).map(drop),
            |world| world.d.create(b"new", &New::default()).map(drop),
            |world| world.d.mkdir(b"new", &New::default()).map(drop),
        ],
        |world, answers| {
            let made = answers.iter().filter(|answer| answer.is_ok()).count();
            let late = |answer: &&Result<()>| **answer == Err(Error::AlreadyExists);
            assert_eq!((made, answers.iter().filter(late).count()), (1, 2));
            assert!(has(&world.d, b"new"));
        },
    );
}
