//! One page of one file, two blocks, two views, three CPUs.

use std::sync::{Arc, Mutex};

use ext2dax_dax::vecmap::{Store, VecMap};
use ext2dax_dax::{DaxFile, Gates, ViewSpec};
use ext2dax_fault::soft_mmu::{Cpu, Machine, Mapping};
use ext2dax_pmem::{AnonRegion, Persist, Pmem};
use ext2dax_sync::atomic::{AtomicU64, Ordering};
use ext2dax_sync::{RwLock, explore, rank, thread};

use crate::op::{Actor, Op};
use crate::oracle::Facts;
use crate::scenario::{Scenario, Start};
use crate::tracker::{Content, Tracker};

pub(crate) const PAGE: u64 = 4096;
pub(crate) const HALF: u64 = PAGE / 2;
pub(crate) const BLOCKS: usize = 2;
/// The bytes that stand for the two halves of a page: the last of each, so that a copy in pieces reaches them last.
pub(crate) const CELLS: [u64; 2] = [HALF - 1, PAGE - 1];
pub(crate) const ME: u32 = 1;
pub(crate) const OTHER: u32 = 2;
const CPUS: usize = 3;

pub(crate) struct World {
    pub(crate) store: Arc<Store>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) machine: Arc<Machine>,
    pub(crate) file: Arc<DaxFile<VecMap>>,
    pub(crate) inode: RwLock<()>,
    pub(crate) views: [Mapping<VecMap>; 2],
    /// A private view, for scenarios that store to one.
    pub(crate) private: Option<Mapping<VecMap>>,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) facts: Mutex<Facts>,
    /// Whether growing writes no bytes of its own, so that what it uncovers must be zero.
    pub(crate) grows_empty: bool,
    plain: Pmem,
    point: AtomicU64,
}

/// An operation that changes bytes itself is under way while this lives.
pub(crate) struct Busy<'a>(&'a World);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.facts().busy -= 1;
    }
}

/// Runs the scenario once, under whatever schedule the explorer has chosen.
pub(crate) fn run(scenario: &Scenario, start: Start) {
    let world = Arc::new(World::new(scenario, start));
    let seen = world.clone();
    explore::on_step(move || seen.check());
    let threads: Vec<_> = scenario
        .threads
        .iter()
        .enumerate()
        .map(|(number, ops)| {
            let (world, ops) = (world.clone(), *ops);
            thread::spawn(move || {
                let mut actor = Actor::new(&world, number);
                ops.iter().for_each(|op| actor.run(*op));
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a thread of the scenario");
    }
    world.check_end(scenario.last);
}

/// The medium is the same for all runs of a test; its content is not. The explorer's threads are coroutines of the test's.
fn medium() -> Pmem {
    thread_local! {
        static MEDIUM: Pmem = Pmem::new(
            AnonRegion::with_persist(BLOCKS as u64 * PAGE, Persist::FlushLines).expect("two pages of memory"),
        );
    }
    MEDIUM.with(Clone::clone)
}

impl World {
    fn new(scenario: &Scenario, start: Start) -> World {
        let plain = medium();
        let tracker = Arc::new(Tracker::new(plain.clone()));
        let pmem = plain.clone().observed_by(tracker.clone());
        let store = Store::new(pmem.clone(), 12);
        tracker.watch(&store);
        let gates = Arc::new(Gates::new());
        let size = if start == Start::MidPage { HALF } else { PAGE };
        let file = Arc::new(DaxFile::new(
            VecMap::new(&store, ME),
            pmem.clone(),
            gates.clone(),
            size,
        ));
        let machine = Machine::new(pmem, CPUS);
        let attach = |shared| {
            let table = machine.table();
            let spec = ViewSpec {
                table: table.clone(),
                pages: 0..1,
                writable: true,
                shared,
                sync: false,
            };
            let view = file.attach(spec).expect("a page of an ordinary file");
            Mapping {
                file: file.clone(),
                view,
                table,
            }
        };
        let views = [(); 2].map(|()| attach(true));
        let does = |wanted: fn(&Op) -> bool| scenario.threads.iter().copied().flatten().any(wanted);
        let private = does(|op| matches!(op, Op::Cow)).then(|| attach(false));
        let world = World {
            store,
            gates,
            machine,
            file,
            inode: RwLock::new(rank::INODE, ()),
            views,
            private,
            tracker,
            facts: Mutex::new(Facts {
                size,
                ..Facts::default()
            }),
            grows_empty: !does(|op| matches!(op, Op::WriteTail(_))),
            plain,
            point: AtomicU64::new(0),
        };
        // What a freed block leaves behind.
        (0..BLOCKS as u64).for_each(|block| world.fill(block, 8));
        world.prepare(start);
        world
    }

    fn prepare(&self, start: Start) {
        let cpus = [0, 1].map(|number| Cpu::new(&self.machine, number));
        match start {
            Start::Hole => {}
            Start::Zero => {
                for (cpu, mapping) in cpus.iter().zip(&self.views) {
                    cpu.load(mapping, 0, &mut [0]).expect("inside the file");
                }
            }
            Start::Unmapped | Start::Mapped | Start::MidPage => {
                let block = self.file.map().attach_raw(0).expect("two free blocks");
                self.fill(block, 0);
                self.plain.write(block * PAGE + CELLS[0], &[7]);
                if start != Start::Unmapped {
                    cpus[0]
                        .store(&self.views[0], CELLS[0], &[7])
                        .expect("inside the file");
                }
                if start == Start::MidPage {
                    cpus[0]
                        .store(&self.views[0], CELLS[1], &[5])
                        .expect("in the last page");
                }
                self.tracker.settle();
            }
        }
    }

    /// Fills a block without being seen, as something that happened long ago or in another file.
    pub(crate) fn fill(&self, block: u64, value: u8) {
        self.plain.write(block * PAGE, &[value; PAGE as usize]);
        self.tracker
            .settle_block(usize::try_from(block).expect("small"));
    }

    pub(crate) fn content(&self) -> Content {
        self.tracker.now()
    }

    pub(crate) fn busy(&self) -> Busy<'_> {
        self.facts().busy += 1;
        Busy(self)
    }

    /// A schedule point.
    pub(crate) fn point(&self) {
        self.point.load(Ordering::Relaxed);
    }
}
