//! Faults that serve their neighbours: three pages in one run of blocks, two views, every fault for all of them.
//!
//! A fault that owns entries which others have mapped, dirtied or are cleaning must leave them as it found them, or
//! better: what is checked after each step is F-1 and F-4 for each page, at the end F-10 and F-14.

use std::sync::{Arc, Mutex};

use ext2dax_dax::vecmap::{Owner, Store, VecMap};
use ext2dax_dax::{DaxFile, Frame, Gates, ViewSpec};
use ext2dax_fault::soft_mmu::{Cpu, Faulting, Machine, Mapping, SoftTable, Target};
use ext2dax_fault::{Bus, Fault, Outcome, handle};
use ext2dax_pmem::{AnonRegion, Persist, Pmem, UserSlice};
use ext2dax_sync::explore::{self, Config, Failure, Stats, search};
use ext2dax_sync::{RwLock, rank, thread};

use crate::world::{ME, OTHER, PAGE};

const PAGES: u64 = 3;
const COUNT: usize = 3;

/// What a thread does; the number is a page.
#[derive(Clone, Copy, Debug)]
enum Act {
    Load(u64),
    Store(u64),
    Fsync,
    Punch(u64),
    Write(u64),
    OtherAlloc,
}

use Act::{Fsync, Load, OtherAlloc, Punch, Store as Put, Write};

/// Name, pages stored to through the first view before the threads start, threads (the first one has the first view),
/// and the mistakes that it exists for.
struct Case {
    name: &'static str,
    dirty: &'static [u64],
    threads: &'static [&'static [Act]],
    killers: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "N-1 load around a dirty page x fsync",
        dirty: &[1],
        threads: &[&[Put(1)], &[Load(0)], &[Fsync]],
        killers: &["neighbours forget that they are dirty"],
    },
    Case {
        name: "N-2 store, store to its neighbour x fsync",
        dirty: &[],
        threads: &[&[Put(0), Put(1)], &[Fsync]],
        killers: &["neighbours mapped writable and not dirty"],
    },
    Case {
        name: "N-3 store forwards x store backwards x fsync",
        dirty: &[1],
        threads: &[&[Put(0)], &[Put(2)], &[Fsync]],
        killers: &["fsync without write-protect"],
    },
    Case {
        name: "N-4 store around x punch of a neighbour x realloc",
        dirty: &[1],
        threads: &[&[Put(0)], &[Punch(1)], &[OtherAlloc]],
        killers: &["fault without INVALIDATE"],
    },
    Case {
        name: "N-5 punch, write(2) x loads around",
        dirty: &[],
        threads: &[&[Load(0), Load(2)], &[Punch(1), Write(1)], &[Load(1)]],
        killers: &["write(2) leaves the zero page"],
    },
];

/// A mapping whose faults ask for everything.
struct Wide<'a>(&'a Mapping<VecMap>);

impl Faulting for Wide<'_> {
    fn table(&self) -> &SoftTable {
        &self.0.table
    }
    fn fault(&self, fault: &Fault) -> Outcome {
        let fault = Fault {
            around: 0..PAGES,
            ..fault.clone()
        };
        handle(&self.0.file, &self.0.view, &fault)
    }
}

struct Trio {
    store: Arc<Store>,
    gates: Arc<Gates>,
    machine: Arc<Machine>,
    file: Arc<DaxFile<VecMap>>,
    inode: RwLock<()>,
    views: [Mapping<VecMap>; 2],
    /// The last value stored or written to each page; none once a punch came.
    wanted: Mutex<[Option<u8>; COUNT]>,
}

fn medium() -> Pmem {
    thread_local! {
        static MEDIUM: Pmem = Pmem::new(
            AnonRegion::with_persist((PAGES + 1) * PAGE, Persist::FlushLines).expect("four pages"),
        );
    }
    MEDIUM.with(Clone::clone)
}

fn nr(page: u64) -> usize {
    usize::try_from(page).expect("three pages")
}

impl Trio {
    fn new(dirty: &[u64]) -> Trio {
        let pmem = medium();
        let store = Store::new(pmem.clone(), 12);
        let gates = Arc::new(Gates::new());
        let map = VecMap::new(&store, ME);
        for page in 0..PAGES {
            assert_eq!(map.attach_raw(page), Ok(page), "one run");
            pmem.zero(page * PAGE, PAGE);
        }
        let file = DaxFile::new(map, pmem.clone(), gates.clone(), PAGES * PAGE);
        let file = Arc::new(file);
        let machine = Machine::new(pmem, 3);
        let views = [(); 2].map(|()| {
            let table = machine.table();
            let spec = ViewSpec {
                table: table.clone(),
                pages: 0..PAGES,
                writable: true,
                shared: true,
                sync: false,
            };
            let view = file.attach(spec).expect("pages of an ordinary file");
            let file = file.clone();
            Mapping { file, view, table }
        });
        let trio = Trio {
            store,
            gates,
            machine,
            file,
            inode: RwLock::new(rank::INODE, ()),
            views,
            wanted: Mutex::new([Some(0); COUNT]),
        };
        let cpu = Cpu::new(&trio.machine, 0);
        for &page in dirty {
            cpu.store(&trio.views[0], page * PAGE, &[1])
                .expect("inside the file");
            trio.note(page, Some(1));
        }
        trio
    }

    fn note(&self, page: u64, value: Option<u8>) {
        let mut wanted = self.wanted.lock().expect("no panic inside");
        wanted[nr(page)] = wanted[nr(page)].and(value);
    }

    fn run(&self, thread: usize, act: Act) {
        let cpu = Cpu::new(&self.machine, thread);
        let mapping = Wide(&self.views[thread.min(1)]);
        let value = u8::try_from(thread).expect("three threads") + 2;
        match act {
            Load(page) => {
                let mut byte = [0];
                cpu.load(&mapping, page * PAGE, &mut byte)
                    .expect("inside the file");
                assert!(byte[0] < 8, "F-2: a foreign byte");
            }
            Put(page) => match cpu.store(&mapping, page * PAGE, &[value]) {
                Ok(()) => self.note(page, Some(value)),
                Err(outcome) => assert_eq!(outcome, Outcome::Bus(Bus::NoSpace)),
            },
            Fsync => self.file.sync(0..u64::MAX).expect("a good medium"),
            Punch(page) => {
                let _gate = self.gates.write.enter();
                let _inode = self.inode.write();
                self.note(page, None);
                let punched = self.file.punch(page * PAGE..(page + 1) * PAGE);
                punched.expect("a good medium");
            }
            Write(page) => {
                let _gate = self.gates.write.enter();
                let _inode = self.inode.write();
                let written = self.file.write_at(page * PAGE, UserSlice::from(&[value]));
                assert_eq!(written, Ok(1));
                drop(_inode);
                let mut byte = [0];
                // What a view shows after the write has returned is what was written.
                cpu.load(&self.views[1], page * PAGE, &mut byte)
                    .expect("inside the file");
                assert_eq!(byte[0], value, "F-3: a stale page after write(2)");
            }
            OtherAlloc => {
                if let Ok((block, _)) = self.store.take(Owner::File(OTHER), 1) {
                    medium().write(block * PAGE, &[9]);
                }
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        for (page, translation) in self.machine.translations() {
            let Target::Frame(Frame::Media(off)) = translation.target else {
                continue;
            };
            let owner = self.store.owner(off / PAGE);
            if owner != Owner::File(ME) {
                return Err(format!("F-1: page {page} leads to a block of {owner:?}"));
            }
            let entry = self.file.space().observe(page);
            if translation.writable && entry.dirty() == 0 && !entry.is_locked() {
                return Err(format!("F-4: page {page} is writable, its entry {entry:?}"));
            }
        }
        Ok(())
    }

    fn check_end(&self) {
        for page in 0..PAGES {
            let entry = self.file.space().observe(page);
            assert!(!entry.is_locked(), "F-14: entry {page} was left locked");
            let wanted = self.wanted.lock().expect("no panic inside")[nr(page)];
            if let (Some(value), Some(block)) = (wanted, self.file.map().block(page)) {
                let mut byte = [0];
                medium().read(block * PAGE, &mut byte);
                assert_eq!(byte[0] > 0, value > 0, "F-10: page {page} lost its store");
            }
        }
    }
}

fn attempt(case: &'static Case, config: &Config) -> Result<Stats, Box<Failure>> {
    search(config, move || {
        let trio = Arc::new(Trio::new(case.dirty));
        let seen = trio.clone();
        explore::on_step(move || seen.check());
        let threads: Vec<_> = (0..case.threads.len())
            .map(|number| {
                let trio = trio.clone();
                thread::spawn(move || {
                    for &act in case.threads[number] {
                        trio.run(number, act);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("a thread of the case");
        }
        trio.check_end();
    })
}

#[test]
fn neighbours_of_a_fault_hold_under_every_schedule_tried() {
    for case in CASES {
        let mut runs = 0;
        for config in crate::configs(&crate::effort()) {
            match attempt(case, &config) {
                Ok(stats) => runs += stats.runs,
                Err(failure) => panic!("{}: {failure}", case.name),
            }
        }
        println!("{:<60} {runs:>8} schedules", case.name);
    }
}

#[test]
fn every_mistake_about_neighbours_is_noticed() {
    let quiet = crate::keep_panics_quiet();
    let mut survivors = Vec::new();
    for case in CASES {
        for &mutant in case.killers {
            let caught = crate::configs(&crate::effort())
                .into_iter()
                .find_map(|config| attempt(case, &config.with_mutant(mutant)).err());
            match caught {
                Some(failure) => println!(
                    "{mutant:<60} {} schedule {}: {}",
                    &case.name[..3],
                    failure.stats.runs,
                    failure.message.lines().next().unwrap_or_default()
                ),
                None => survivors.push((mutant, case.name)),
            }
        }
    }
    drop(quiet);
    assert!(survivors.is_empty(), "nobody noticed: {survivors:#?}");
}
