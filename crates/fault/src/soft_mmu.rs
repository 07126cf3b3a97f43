//! An MMU in memory: page tables, and CPUs whose TLBs keep what they have seen until they are flushed.
//!
//! A program of loads and stores runs on a [`Cpu`] each thread. An access is one atomic step, as an instruction is; each
//! part of an unmapping (the tables first, then the TLBs) is another, and between them other CPUs go on with what their
//! TLB still holds. Under the schedule explorer every step is a schedule point.

use core::ops::Range;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use ext2dax_dax::{
    BlockMap, DaxFile, Frame, MapError, PAGE_BITS, PAGE_SIZE, PageTable, Prot, View,
};
use ext2dax_pmem::Pmem;
use ext2dax_sync::atomic::{AtomicU64, Ordering};
use ext2dax_sync::mutant;

use crate::handle::handle;
use crate::outcome::{Fault, Outcome};

/// What a translation leads to on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The medium or the zero page.
    Frame(Frame),
    /// A page that a private view has made its own.
    Own,
}

/// One translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Where it leads.
    pub target: Target,
    /// Whether stores are allowed.
    pub writable: bool,
}

#[derive(Default)]
struct State {
    /// By table and page of the file.
    tables: BTreeMap<(usize, u64), Translation>,
    /// One for each CPU.
    tlbs: Vec<BTreeMap<(usize, u64), Translation>>,
    own: BTreeMap<(usize, u64), Box<[u8]>>,
}

impl State {
    fn keep(
        &mut self,
        table: usize,
        pages: &Range<u64>,
        private_too: bool,
        which: impl Fn(&mut State) -> Vec<&mut Tlb>,
    ) {
        let gone = |at: &(usize, u64), translation: &Translation| {
            at.0 == table
                && pages.contains(&at.1)
                && (private_too || translation.target != Target::Own)
        };
        for map in which(self) {
            map.retain(|at, translation| !gone(at, translation));
        }
    }
}

type Tlb = BTreeMap<(usize, u64), Translation>;

/// Page tables, TLBs and the medium behind them.
pub struct Machine {
    pmem: Pmem,
    state: spin::Mutex<State>,
    tables: AtomicU64,
    point: AtomicU64,
}

impl Machine {
    /// A machine with `cpus` CPUs and nothing mapped.
    #[must_use]
    pub fn new(pmem: Pmem, cpus: usize) -> Arc<Machine> {
        let state = State {
            tlbs: vec![Tlb::new(); cpus],
            ..State::default()
        };
        Arc::new(Machine {
            pmem,
            state: spin::Mutex::new(state),
            tables: AtomicU64::new(0),
            point: AtomicU64::new(0),
        })
    }

    /// An empty page table, for one view.
    ///
    /// # Panics
    /// After more tables than memory could hold.
    #[must_use]
    pub fn table(self: &Arc<Self>) -> Arc<SoftTable> {
        let id = usize::try_from(self.tables.fetch_add(1, Ordering::Relaxed)).expect("few views");
        Arc::new(SoftTable {
            machine: self.clone(),
            id,
        })
    }

    /// Every live translation: of the tables, and of the TLBs of all CPUs.
    #[must_use]
    pub fn translations(&self) -> Vec<(u64, Translation)> {
        let state = self.state.lock();
        let cached = state.tlbs.iter().flatten();
        state
            .tables
            .iter()
            .chain(cached)
            .map(|((_, page), translation)| (*page, *translation))
            .collect()
    }

    /// A schedule point. The step that follows runs under the machine's lock, which is never held at such a point.
    fn point(&self) {
        self.point.load(Ordering::Relaxed);
    }
}

impl core::fmt::Debug for Machine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

/// The translations of one view.
#[derive(Debug)]
pub struct SoftTable {
    machine: Arc<Machine>,
    id: usize,
}

impl SoftTable {
    /// Whether neither the table nor any TLB holds a translation of the view.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let state = self.machine.state.lock();
        let mut all = state
            .tables
            .keys()
            .chain(state.tlbs.iter().flat_map(Tlb::keys));
        all.all(|(table, _)| *table != self.id)
    }
}

impl PageTable for SoftTable {
    fn map(&self, idx: u64, frame: Frame, pages: u32, prot: Prot) -> Result<(), MapError> {
        self.machine.point();
        let mut state = self.machine.state.lock();
        let wanted = |page: u64| match frame {
            Frame::Media(off) => Target::Frame(Frame::Media(off + (page - idx) * PAGE_SIZE)),
            Frame::Zero => Target::Frame(Frame::Zero),
        };
        let range = idx..idx + u64::from(pages);
        let clash = |page: u64| {
            state
                .tables
                .get(&(self.id, page))
                .is_some_and(|there| there.target != wanted(page))
        };
        if range.clone().any(clash) {
            return Err(MapError::Present);
        }
        for page in range {
            let there = state.tables.entry((self.id, page)).or_insert(Translation {
                target: wanted(page),
                writable: false,
            });
            there.writable |= prot == Prot::ReadWrite;
        }
        Ok(())
    }

    fn map_private(&self, idx: u64, source: Frame) -> Result<(), MapError> {
        self.machine.point();
        let mut page = vec![0; usize::try_from(PAGE_SIZE).expect("a page fits")].into_boxed_slice();
        if let Frame::Media(off) = source {
            self.machine.pmem.read(off, &mut page);
        }
        // One frame for another: break before make, as for any replacement.
        self.unmap(idx..idx + 1, false);
        let mut state = self.machine.state.lock();
        let at = (self.id, idx);
        if state
            .tables
            .get(&at)
            .is_some_and(|there| there.target == Target::Own)
        {
            return Ok(());
        }
        state.own.insert(at, page);
        state.tables.insert(
            at,
            Translation {
                target: Target::Own,
                writable: true,
            },
        );
        Ok(())
    }

    fn unmap(&self, pages: Range<u64>, private_too: bool) {
        self.machine.point();
        self.machine
            .state
            .lock()
            .keep(self.id, &pages, private_too, |state| {
                vec![&mut state.tables]
            });
        self.machine.point();
        if !mutant("unmap without TLB shoot-down") {
            self.machine
                .state
                .lock()
                .keep(self.id, &pages, private_too, |state| {
                    state.tlbs.iter_mut().collect()
                });
        }
    }

    fn write_protect(&self, pages: Range<u64>) {
        let ours = |at: &(usize, u64)| at.0 == self.id && pages.contains(&at.1);
        self.machine.point();
        for (at, translation) in &mut self.machine.state.lock().tables {
            translation.writable &= !ours(at) || translation.target == Target::Own;
        }
        self.machine.point();
        for tlb in &mut self.machine.state.lock().tlbs {
            tlb.retain(|at, translation| {
                !(ours(at) && translation.writable && translation.target != Target::Own)
            });
        }
    }
}

/// One CPU: its TLB, and the thread that runs on it.
#[derive(Debug)]
pub struct Cpu {
    machine: Arc<Machine>,
    number: usize,
}

/// What a CPU needs of a mapping: its table, and the handler that a fault goes to.
pub trait Faulting {
    /// The table behind the view.
    fn table(&self) -> &SoftTable;
    /// Handles a fault, waiting for locks and gates.
    fn fault(&self, fault: &Fault) -> Outcome;
}

/// A mapping as a program sees it: file, view, and the table behind the view.
pub struct Mapping<M: BlockMap> {
    /// The file.
    pub file: Arc<DaxFile<M>>,
    /// The view.
    pub view: Arc<View>,
    /// Its table.
    pub table: Arc<SoftTable>,
}

impl<M: BlockMap> core::fmt::Debug for Mapping<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mapping")
            .field("view", &self.view)
            .field("table", &self.table.id)
            .finish_non_exhaustive()
    }
}

impl<M: BlockMap> Faulting for Mapping<M> {
    fn table(&self) -> &SoftTable {
        &self.table
    }

    fn fault(&self, fault: &Fault) -> Outcome {
        match handle(&self.file, &self.view, fault) {
            // Nothing is mapped there any more: the program gets what it deserves.
            Outcome::Retry if !self.view.is_alive() => Outcome::Segv,
            outcome => outcome,
        }
    }
}

impl Cpu {
    /// CPU `number` of the machine.
    #[must_use]
    pub fn new(machine: &Arc<Machine>, number: usize) -> Cpu {
        Cpu {
            machine: machine.clone(),
            number,
        }
    }

    /// Loads bytes at an offset of the file, all in one page, with faults as they come.
    ///
    /// # Errors
    /// What the program gets instead: `Bus`, `Segv`, `NoMemory`.
    pub fn load(&self, mapping: &impl Faulting, at: u64, to: &mut [u8]) -> Result<(), Outcome> {
        self.access(
            mapping,
            at,
            false,
            |machine, state, translation, within, page| match translation.target {
                Target::Frame(Frame::Media(off)) => machine.pmem.read(off + within as u64, to),
                Target::Frame(Frame::Zero) => to.fill(0),
                Target::Own => to.copy_from_slice(&state.own[&page][within..within + to.len()]),
            },
        )
    }

    /// Stores bytes at an offset of the file, all in one page, with faults as they come.
    ///
    /// # Errors
    /// What the program gets instead: `Bus`, `Segv`, `NoMemory`.
    pub fn store(&self, mapping: &impl Faulting, at: u64, from: &[u8]) -> Result<(), Outcome> {
        self.access(
            mapping,
            at,
            true,
            |machine, state, translation, within, page| match translation.target {
                Target::Frame(Frame::Media(off)) => machine.pmem.write(off + within as u64, from),
                Target::Frame(Frame::Zero) => {
                    unreachable!("the zero page is never mapped writable")
                }
                Target::Own => {
                    if let Some(own) = state.own.get_mut(&page) {
                        own[within..within + from.len()].copy_from_slice(from);
                    }
                }
            },
        )
    }

    fn access(
        &self,
        mapping: &impl Faulting,
        at: u64,
        write: bool,
        mut run: impl FnMut(&Machine, &mut State, Translation, usize, (usize, u64)),
    ) -> Result<(), Outcome> {
        let page = (mapping.table().id, at >> PAGE_BITS);
        let within = usize::try_from(at % PAGE_SIZE).expect("less than a page");
        loop {
            self.machine.point();
            {
                let mut state = self.machine.state.lock();
                if let Some(translation) = self.translate(&mut state, page, write) {
                    run(&self.machine, &mut state, translation, within, page);
                    return Ok(());
                }
            }
            match mapping.fault(&Fault::at(page.1, write)) {
                Outcome::Installed | Outcome::Retry => {}
                outcome => return Err(outcome),
            }
        }
    }

    /// The TLB first, then the table, whose answer is kept.
    fn translate(&self, state: &mut State, page: (usize, u64), write: bool) -> Option<Translation> {
        let permits = |translation: &Translation| !write || translation.writable;
        let cached = state.tlbs[self.number].get(&page).copied().filter(permits);
        let found = cached.or_else(|| state.tables.get(&page).copied().filter(permits))?;
        state.tlbs[self.number].insert(page, found);
        Some(found)
    }
}
