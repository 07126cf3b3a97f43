//! Whole file systems under the schedule explorer: mapped programs, files and names at once, each image judged by fsck.
//!
//! The races of mappings have their own test, close to the code (`ext2dax-fault`, test `races`), with every mistake made
//! on purpose. Here the same code runs below the real allocator, trees, inodes and directories, so what can fail is how
//! they are put together: INODE, gates, orphan list, a hole that a fault and a write fill at the same time.
#![cfg(shuttle)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail by unwrapping, and says what it did"
)]

mod names;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ext2dax::{Clock, FileSystem, Inode, Map, MountOptions, New, Timestamp, Window};
use ext2dax_fault::soft_mmu::{Cpu, Faulting, Machine, SoftTable};
use ext2dax_fault::{Bus, Fault, Outcome};
use ext2dax_format::Error;
use ext2dax_fsck::CheckOptions;
use ext2dax_mkfs::{Inodes, Options, Plan};
use ext2dax_pmem::{AnonRegion, Persist, Pmem};
use ext2dax_sync::explore::{Config, search};
use ext2dax_sync::thread;

const BLOCK: usize = 4096;
const LEN: u64 = 64 * BLOCK as u64;

/// One mounted image with two files in it.
struct World {
    pmem: Pmem,
    fs: FileSystem,
    machine: Arc<Machine>,
    a: Inode,
    b: Inode,
}

struct Mapping {
    map: Map,
    table: Arc<SoftTable>,
}

impl Faulting for Mapping {
    fn table(&self) -> &SoftTable {
        &self.table
    }
    fn fault(&self, fault: &Fault) -> Outcome {
        self.map.fault(fault)
    }
}

/// Another second at each look: times always change, and equal schedules see equal times.
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp {
            secs: self.0.fetch_add(1, Ordering::Relaxed),
            nanos: 0,
        }
    }
}

fn options() -> MountOptions {
    MountOptions::new().clock(Arc::new(Ticking(AtomicI64::new(1_420_000_000))))
}

fn medium() -> Pmem {
    thread_local! {
        static MEDIUM: Pmem = Pmem::new(AnonRegion::with_persist(LEN, Persist::FlushLines).unwrap());
    }
    MEDIUM.with(Clone::clone)
}

thread_local! {
    /// The image that every run starts from: the explorer's locks work only inside of it, so it is made in one run.
    static TEMPLATE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Two files, the first with a block of sevens, and a third that leaves no block free.
fn make_template() {
    let pmem = medium();
    let plan = Options {
        inodes: Inodes::Count(16),
        ..Options::with_block_size(4096)
    };
    pmem.zero(0, LEN);
    Plan::new(&plan, LEN).unwrap().write(&pmem).unwrap();
    let fs = FileSystem::mount_pmem(pmem.clone(), &options()).unwrap();
    let root = fs.root().unwrap();
    let a = root.create(b"a", &New::default()).unwrap();
    a.write_at(0, &[7; BLOCK][..]).unwrap();
    root.create(b"b", &New::default()).unwrap();
    let filler = root.create(b"filler", &New::default()).unwrap();
    while filler.append(&[8; BLOCK][..]).is_ok() {}
    drop((a, filler, root));
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
        let (a, b) = (root.lookup(b"a").unwrap(), root.lookup(b"b").unwrap());
        let machine = Machine::new(pmem.clone(), 3);
        Arc::new(World {
            pmem,
            fs,
            machine,
            a,
            b,
        })
    }

    fn map(&self, file: &Inode) -> Mapping {
        let table = self.machine.table();
        let window = Window {
            pages: 0..1,
            writable: true,
            shared: true,
            sync: false,
        };
        let map = file.map(table.clone(), window).unwrap();
        Mapping { map, table }
    }

    fn read(&self, file: &Inode) -> Vec<u8> {
        let mut bytes = vec![0xaa; BLOCK];
        let read = file.read_at(0, &mut bytes[..]).unwrap();
        bytes.truncate(read);
        bytes
    }

    /// The threads have ended.
    fn finish(self: Arc<Self>) {
        let World {
            pmem,
            fs,
            a,
            b,
            machine,
        } = Arc::into_inner(self).expect("no thread has it any more");
        assert!(
            machine.translations().is_empty(),
            "F-1: a mapping has gone and left a translation"
        );
        drop((a, b));
        fs.unmount().unwrap();
        let report = ext2dax_fsck::check(&pmem, &CheckOptions::default()).unwrap();
        assert!(
            report.is_clean(),
            "the image is damaged: {:?}",
            report.findings
        );
    }
}

fn load(cpu: &Cpu, mapping: &Mapping, at: usize) -> Option<u8> {
    let mut byte = [0];
    match cpu.load(mapping, at as u64, &mut byte) {
        Ok(()) => Some(byte[0]),
        Err(Outcome::Bus(Bus::PastEof)) => None,
        Err(other) => panic!("a load got {other:?}"),
    }
}

fn store(cpu: &Cpu, mapping: &Mapping, at: usize, value: u8) -> bool {
    match cpu.store(mapping, at as u64, &[value]) {
        Ok(()) => true,
        Err(Outcome::Bus(Bus::PastEof | Bus::NoSpace)) => false,
        Err(other) => panic!("a store got {other:?}"),
    }
}

type Act = fn(&World, usize);

/// Runs the acts in a thread each, then `end`, then the judges.
fn run(acts: &'static [Act], end: fn(&World)) {
    let world = World::new();
    let threads: Vec<_> = acts
        .iter()
        .enumerate()
        .map(|(number, act)| {
            let world = world.clone();
            thread::spawn(move || act(&world, number))
        })
        .collect();
    for thread in threads {
        thread.join().expect("a thread of the scenario");
    }
    end(&world);
    world.finish();
}

fn configs() -> [Config; 2] {
    let soak = std::env::var_os("EXT2DAX_SOAK").is_some();
    let (most, sampled) = if soak {
        (1_000_000, 100_000)
    } else {
        (6_000, 1_000)
    };
    let exhaustive = Config {
        max_runs: most,
        ..Config::exhaustive(2)
    };
    [exhaustive, Config::pct(3, sampled, 20_150_113)]
}

fn explore(name: &str, acts: &'static [Act], end: fn(&World)) {
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

/// Some schedule of the scenario must show the mistake.
fn notice(mutant: &'static str, acts: &'static [Act], end: fn(&World)) {
    search(&Config::exhaustive(0), make_template).unwrap();
    let [exhaustive, sampled] = configs();
    // Ends as soon as somebody notices, so it may go far.
    let exhaustive = Config {
        max_runs: exhaustive.max_runs.max(200_000),
        ..exhaustive
    };
    let failure = [exhaustive, sampled]
        .into_iter()
        .find_map(|config| search(&config.with_mutant(mutant), move || run(acts, end)).err());
    let failure = failure.unwrap_or_else(|| panic!("nobody noticed: {mutant}"));
    println!("{mutant:<45} schedule {}", failure.stats.runs);
}

fn touch_a(world: &World, number: usize) {
    let mapping = world.map(&world.a);
    let cpu = Cpu::new(&world.machine, number);
    for value in [3, 4] {
        store(&cpu, &mapping, 100, value);
        let seen = load(&cpu, &mapping, 200);
        assert!(
            matches!(seen, None | Some(0 | 7)),
            "F-2: a load saw {seen:?}"
        );
    }
}

fn take_the_free_block(world: &World, _number: usize) {
    match world.b.write_at(0, &[9; BLOCK][..]) {
        Ok(written) => assert_eq!(written, BLOCK),
        Err(error) => assert_eq!(error, Error::NoSpace),
    }
}

fn only_nines_in_b(world: &World) {
    assert!(
        world.read(&world.b).iter().all(|byte| *byte == 9),
        "F-1: b holds what nobody wrote to it"
    );
    let a = world.read(&world.a);
    assert!(
        a.iter().all(|byte| matches!(byte, 0 | 3 | 4 | 7)),
        "F-2: a holds what nobody wrote to it"
    );
}

const PUNCH: &[Act] = &[
    touch_a,
    |world, _| world.a.punch_hole(0..BLOCK as u64).unwrap(),
    take_the_free_block,
];
const TRUNCATE: &[Act] = &[
    touch_a,
    |world, _| world.a.set_len(0).unwrap(),
    take_the_free_block,
];

#[test]
fn mistakes_in_the_handling_of_mappings_show_in_whole_files() {
    notice("unmap without TLB shoot-down", PUNCH, only_nines_in_b);
    notice("blocks freed before the unmap", TRUNCATE, only_nines_in_b);
}

#[test]
fn block_that_a_punch_frees_is_never_seen_in_two_files() {
    explore(
        "store, load x punch x write elsewhere",
        PUNCH,
        only_nines_in_b,
    );
}

#[test]
fn block_that_a_truncation_frees_is_never_seen_in_two_files() {
    explore(
        "store, load x truncate x write elsewhere",
        TRUNCATE,
        only_nines_in_b,
    );
}

/// A write fills its blocks before it links them in; a fault that takes the hole meanwhile keeps its own block, and the
/// written bytes are copied over. Neither may be lost.
#[test]
fn fault_and_write_that_fill_one_hole_both_arrive() {
    explore(
        "store x write, one hole",
        &[
            |world, number| {
                let mapping = world.map(&world.a);
                assert!(store(&Cpu::new(&world.machine, number), &mapping, 3000, 4));
            },
            |world, _| {
                // Both need a block at the same time.
                let filler = world.fs.root().unwrap().lookup(b"filler").unwrap();
                filler.set_len(0).unwrap();
                world.a.punch_hole(0..BLOCK as u64).unwrap();
                assert_eq!(world.a.write_at(0, &[5; BLOCK / 2][..]), Ok(BLOCK / 2));
            },
        ],
        |world| {
            let a = world.read(&world.a);
            assert!(
                a[..BLOCK / 2].iter().all(|byte| *byte == 5),
                "F-10: written bytes were lost"
            );
            assert!(
                matches!(a[3000], 0 | 4),
                "a store before the punch may be gone"
            );
            assert!(a[3001..].iter().all(|byte| *byte == 0));
        },
    );
}

#[test]
fn bytes_stored_past_the_end_stay_out_of_an_extension() {
    explore(
        "store past the end x shrink, extend",
        &[
            |world, number| {
                let mapping = world.map(&world.a);
                store(&Cpu::new(&world.machine, number), &mapping, 3000, 6);
            },
            |world, _| {
                world.a.set_len(1000).unwrap();
                world.a.set_len(BLOCK as u64).unwrap();
            },
        ],
        |world| {
            let a = world.read(&world.a);
            assert_eq!(a.len(), BLOCK);
            assert!(a[..1000].iter().all(|byte| *byte == 7));
            // A store after the extension is content; one before it is not, so nothing else can be there.
            let strays = a[1000..].iter().filter(|byte| **byte != 0).count();
            assert!(
                strays <= usize::from(a[3000] == 6),
                "F-6: bytes past the old end became content"
            );
        },
    );
}

#[test]
fn file_that_loses_its_name_lives_until_its_mapping_goes() {
    explore(
        "store, load x unlink x write elsewhere",
        &[
            touch_a,
            |world, _| world.fs.root().unwrap().unlink(b"a").unwrap(),
            take_the_free_block,
        ],
        |world| {
            assert!(world.read(&world.b).iter().all(|byte| *byte == 9));
            assert_eq!(
                world.fs.root().unwrap().lookup(b"a").err(),
                Some(Error::NotFound)
            );
        },
    );
}

#[test]
fn names_that_move_and_go_leave_a_sound_directory() {
    explore(
        "rename over x unlink x create",
        &[
            |world, _| {
                let root = world.fs.root().unwrap();
                root.rename(b"a", &root, b"b").unwrap();
            },
            |world, _| {
                let gone = world.fs.root().unwrap().unlink(b"filler");
                assert_eq!(gone, Ok(()));
            },
            |world, _| {
                let root = world.fs.root().unwrap();
                root.create(b"new", &New::default()).unwrap();
                assert!(root.lookup(b"b").is_ok(), "b has a name at every moment");
            },
        ],
        |world| {
            let root = world.fs.root().unwrap();
            let number = root.lookup(b"b").map(|inode| inode.number());
            assert_eq!(number, Ok(world.a.number()), "b is what a was");
            let missing = [&b"a"[..], b"filler"].map(|name| root.lookup(name).err());
            assert_eq!(missing, [Some(Error::NotFound); 2]);
            assert!(root.lookup(b"new").is_ok());
        },
    );
}
