//! Views of a file: of the soft MMU, and of this process.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use ext2dax::fault::soft_mmu::{Cpu, Faulting, Machine, SoftTable};
use ext2dax::fault::{Bus, Fault, Outcome};
use ext2dax::pmem::{UserSlice, UserSliceMut};
use ext2dax::{File, Map, MappedFile, Window};
use ext2dax_fault::host::{Access, HostMmu};

/// The page of every machine here.
pub(super) const PAGE: u64 = 4096;
/// The window of a fault, as platforms choose it.
const AROUND: u64 = 512;
const FILL: u64 = 16;

/// Why an access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The page lies wholly past the end.
    PastEnd,
    /// A store to a hole, and no block is free.
    NoSpace,
}

/// A mapping of the soft MMU.
pub(super) struct Soft {
    map: Map,
    table: Arc<SoftTable>,
    cpus: [Cpu; 2],
    /// Whether faults ask for their neighbours.
    wide: bool,
}

impl Faulting for Soft {
    fn table(&self) -> &SoftTable {
        &self.table
    }

    fn fault(&self, fault: &Fault) -> Outcome {
        let around = |pages: u64| {
            let start = fault.idx / pages * pages;
            start..start + pages
        };
        let mut fault = fault.clone();
        if self.wide {
            (fault.around, fault.fill) = (around(AROUND), around(FILL));
        }
        self.map.fault(&fault)
    }
}

/// One view.
pub(super) enum Shown {
    Soft(Soft),
    Host { view: MappedFile, start: u64 },
}

impl Shown {
    pub(super) fn soft(
        machine: &Arc<Machine>,
        file: &File,
        pages: Range<u64>,
        wide: bool,
    ) -> Result<Self> {
        let table = machine.table();
        let window = Window {
            pages,
            writable: true,
            shared: true,
            sync: false,
        };
        Ok(Self::Soft(Soft {
            map: file.inode().map(table.clone(), window)?,
            table,
            cpus: [0, 1].map(|number| Cpu::new(machine, number)),
            wide,
        }))
    }

    pub(super) fn host(mmu: &HostMmu, file: &File, pages: &Range<u64>) -> Result<Self> {
        let bytes = pages.start * PAGE..pages.end * PAGE;
        Ok(Self::Host {
            view: file.map(mmu, bytes, Access::ReadWrite)?,
            start: pages.start * PAGE,
        })
    }

    /// Bytes from byte `at` of the file on as memory, at most `len`; a CPU in memory has no addresses.
    pub(super) fn source(&self, at: u64, len: u64) -> Option<UserSlice<'_>> {
        let (view, range) = self.range(at, len)?;
        Some(view.source(range))
    }

    /// The same to be stored to.
    pub(super) fn target(&self, at: u64, len: u64) -> Option<UserSliceMut<'_>> {
        let (view, range) = self.range(at, len)?;
        Some(view.target(range))
    }

    fn range(&self, at: u64, len: u64) -> Option<(&MappedFile, Range<usize>)> {
        match self {
            Self::Soft(_) => None,
            Self::Host { view, start } => {
                let from = (at - start) as usize;
                Some((view, from..(from + len as usize).min(view.len())))
            }
        }
    }

    /// Loads bytes of one page.
    pub(super) fn load(&self, at: u64, to: &mut [u8]) -> Result<Result<(), Trouble>> {
        match self {
            Self::Soft(soft) => trouble(soft.cpus[(at / PAGE % 2) as usize].load(soft, at, to)),
            Self::Host { view, start } => match view.read((at - start) as usize, to) {
                Ok(()) => Ok(Ok(())),
                Err(_) => reason(view, at),
            },
        }
    }

    /// Stores bytes to one page. What a failed store has changed is nothing.
    pub(super) fn store(&self, at: u64, from: &[u8]) -> Result<Result<(), Trouble>> {
        match self {
            Self::Soft(soft) => {
                trouble(soft.cpus[(at / PAGE % 3 % 2) as usize].store(soft, at, from))
            }
            Self::Host { view, start } => match view.write((at - start) as usize, from) {
                Ok(()) => Ok(Ok(())),
                Err(_) => reason(view, at),
            },
        }
    }
}

fn trouble(done: Result<(), Outcome>) -> Result<Result<(), Trouble>> {
    match done {
        Ok(()) => Ok(Ok(())),
        Err(Outcome::Bus(Bus::PastEof)) => Ok(Err(Trouble::PastEnd)),
        Err(Outcome::Bus(Bus::NoSpace)) => Ok(Err(Trouble::NoSpace)),
        Err(outcome) => Err(anyhow!("an access got {outcome:?}")),
    }
}

fn reason(view: &MappedFile, at: u64) -> Result<Result<(), Trouble>> {
    let size = view.inode().attributes()?.size;
    if at / PAGE * PAGE >= size {
        return Ok(Err(Trouble::PastEnd));
    }
    let (_, bus) = view.last_fault_error().context("SIGBUS without a reason")?;
    match bus {
        Bus::NoSpace => Ok(Err(Trouble::NoSpace)),
        bus => Err(anyhow!("an access got SIGBUS: {bus:?}")),
    }
}
