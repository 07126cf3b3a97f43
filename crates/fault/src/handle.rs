//! Fault and mkwrite, in one: steps P0 to P12.
//!
//! ```text
//! P0  the view shows the page and allows the access        P6  look up
//! P1  stores through shared views: the FAULT gate          P7  decide
//! P2  INVALIDATE shared                                     P8  hole and store: allocate, zero, publish
//! P3  the size                                              P9  the zero page goes, from all views
//! P4  the entry, locked                                     P10 entry := block, dirty   P11 map   P12 let go
//! ```
//!
//! # Locking
//! In the order of the steps; let go in reverse. With INVALIDATE held shared nobody takes blocks away, with the entry
//! held nobody else decides on the page. Entries of neighbours are added without waiting. Nothing is allocated from the
//! heap between P1 and P12, except blocks of the file.

use core::ops::Range;

use ext2dax_dax::{
    BlockMap, DaxFile, EntryGuard, Extent, Frame, Kind, MapError, NotLocked, PAGE_SIZE, Prot, View,
};
use ext2dax_format::Error;
use ext2dax_sync::mutant;

use crate::outcome::{Bus, Fault, Outcome};

/// What the access needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// A load, through a shared view or of a private view's shared page.
    Read,
    /// A store that goes to the file.
    SharedWrite,
    /// A store that gives a private view its own page.
    Cow,
}

/// Why a fault ends early.
enum Stop {
    /// With this answer.
    With(Outcome),
    /// The leaf for the entry must be made, with nothing held.
    NoLeaf,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::With(match error {
            Error::NoMemory => Outcome::NoMemory,
            error => Outcome::Bus(Bus::from(error)),
        })
    }
}

/// Serves one fault of `view`, a view of `file`.
///
/// In the waiting form the caller holds nothing; in the trying form (`fault.nowait`) what it holds is not waited for.
/// On `Bus` no block, bit, counter or entry has changed.
///
/// # Locking
/// Takes GATE_FAULT (stores through shared views), INVALIDATE shared, ENTRY, and what the block map takes.
pub fn handle<M: BlockMap>(file: &DaxFile<M>, view: &View, fault: &Fault) -> Outcome {
    if !view.pages().contains(&fault.idx) || (fault.write && !view.writable()) {
        return cut_short(fault, Outcome::Segv);
    }
    if fault.huge {
        return Outcome::FallbackToPage;
    }
    loop {
        match attempt(file, view, fault) {
            Ok(()) => return Outcome::Installed,
            Err(Stop::With(outcome)) => return cut_short(fault, outcome),
            Err(Stop::NoLeaf) if fault.nowait => return Outcome::WouldBlock,
            Err(Stop::NoLeaf) => {
                let unit = file.space().unit_of(fault.idx);
                file.space().ensure(unit..unit + 1);
            }
        }
    }
}

fn cut_short(fault: &Fault, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Bus(_) | Outcome::Segv | Outcome::NoMemory if fault.in_copy => Outcome::CutShort,
        outcome => outcome,
    }
}

/// P1 to P12, once.
fn attempt<M: BlockMap>(file: &DaxFile<M>, view: &View, fault: &Fault) -> Result<(), Stop> {
    let space = file.space();
    // Where the platform cannot notice a first store, a load has to count as one.
    let access = match (fault.write, view.may_write()) {
        (true, false) => Access::Cow,
        (true, true) => Access::SharedWrite,
        (false, true) if !view.table().write_notice() => Access::SharedWrite,
        (false, _) => Access::Read,
    };
    let _gate = match access {
        Access::SharedWrite if mutant("write fault ignores the FAULT gate") => None,
        Access::SharedWrite if fault.nowait => {
            Some(file.gates().fault.try_enter().ok_or(WOULD_BLOCK)?)
        }
        Access::SharedWrite => Some(file.gates().fault.enter()),
        Access::Read | Access::Cow => None,
    };
    let unprotected = mutant("fault without INVALIDATE")
        || mutant("fault without INVALIDATE, size checked again at the install")
        || (access == Access::Cow && mutant("COW without INVALIDATE"));
    let _invalidate = match unprotected {
        true => None,
        false if fault.nowait => Some(space.try_invalidate_shared().ok_or(WOULD_BLOCK)?),
        false => Some(space.invalidate_shared()),
    };
    if !view.is_alive() && !mutant("fault into a dead view") {
        return Err(Stop::With(Outcome::Retry));
    }
    // P3, under INVALIDATE: the size cannot shrink before the install.
    let end = file.size().div_ceil(PAGE_SIZE).min(view.pages().end);
    if fault.idx >= end {
        return Err(Stop::With(Outcome::Bus(Bus::PastEof)));
    }
    let unit = space.unit_of(fault.idx);
    let entry = if fault.nowait {
        space.try_lock(unit)
    } else {
        space.lock(unit)
    };
    let mut entry = entry.map_err(|why| match why {
        NotLocked::Busy => WOULD_BLOCK,
        NotLocked::NoLeaf => Stop::NoLeaf,
    })?;
    let around = if fault.around.contains(&fault.idx) {
        fault.around.start.max(view.pages().start)..fault.around.end.min(end)
    } else {
        fault.idx..fault.idx + 1
    };
    let served = Service {
        file,
        view,
        fault,
        access,
        around,
    }
    .serve(&mut entry);
    if let Err(Stop::With(Outcome::Bus(_))) = served {
        view.table().map_bus(fault.idx);
    }
    served
}

const WOULD_BLOCK: Stop = Stop::With(Outcome::WouldBlock);

/// P6 to P11, the entry locked.
struct Service<'a, M: BlockMap> {
    file: &'a DaxFile<M>,
    view: &'a View,
    fault: &'a Fault,
    access: Access,
    /// Pages that may be mapped, all inside view and file.
    around: Range<u64>,
}

impl<M: BlockMap> Service<'_, M> {
    fn serve(&self, entry: &mut EntryGuard<'_>) -> Result<(), Stop> {
        let wanted = self.units_to(entry.unit(), self.around.end);
        let extent = self
            .file
            .map()
            .lookup(entry.unit(), wanted)
            .inspect_err(|error| self.report(*error))?;
        if mutant("fault without INVALIDATE, size checked again at the install")
            && self.fault.idx * PAGE_SIZE >= self.file.size()
        {
            return Err(Stop::With(Outcome::Bus(Bus::PastEof)));
        }
        match (self.access, extent) {
            (Access::Cow, _) => self.copy_on_write(extent),
            (Access::SharedWrite, Extent::Hole { .. }) if self.fault.write => {
                self.file.map().writable()?;
                self.break_zero_is_possible(entry)?;
                let fill = match self.fault.fill.contains(&self.fault.idx) {
                    true => self.units_to(entry.unit(), self.fault.fill.end.min(self.around.end)),
                    false => 1,
                };
                entry.grow(fill.min(extent.len()));
                let run = self
                    .file
                    .map()
                    .allocate(entry.unit(), entry.count())
                    .inspect_err(|error| {
                        entry.restore();
                        self.report(*error);
                    })?;
                entry.shrink(run.len);
                if run.new {
                    self.file.note_filled_by_fault(run.len);
                }
                self.map_block(entry, run.off)
            }
            (Access::Read | Access::SharedWrite, Extent::Hole { len }) => {
                entry.grow(wanted.min(len));
                self.map_zero(entry)
            }
            (Access::Read | Access::SharedWrite, Extent::Data { off, len }) => {
                if self.access == Access::SharedWrite {
                    self.file.map().writable()?;
                }
                self.break_zero_is_possible(entry)?;
                // The rest of the run comes along, be it vacant or mapped elsewhere already.
                entry.grow_over(
                    off >> self.file.space().unit_bits(),
                    self.run_before(entry.unit(), off),
                    wanted.min(len),
                );
                self.map_block(entry, off)
            }
        }
    }

    /// Units from `unit` on that hold pages before `end`.
    fn units_to(&self, unit: u64, end: u64) -> u64 {
        self.file.space().unit_of(end - 1) - unit + 1
    }

    /// How many units right before `unit`, whose block lies at `off`, may be served too and lie right before it on the
    /// medium. In a file of many pieces the search ends early.
    fn run_before(&self, unit: u64, off: u64) -> u64 {
        const PIECES: usize = 8;
        let space = self.file.space();
        let mut at = space.unit_of(self.around.start);
        for _ in 0..PIECES {
            if at >= unit {
                break;
            }
            match self.file.map().lookup(at, unit - at) {
                Ok(Extent::Data { off: start, len }) if at + len == unit => {
                    let joins = start + (len << space.unit_bits()) == off;
                    return if joins { len } else { 0 };
                }
                Ok(extent) => at += extent.len(),
                // The business of whoever asks for that block.
                Err(_) => break,
            }
        }
        0
    }

    /// Before anything changes: some threads of a platform cannot take the zero page out of other views.
    fn break_zero_is_possible(&self, entry: &EntryGuard<'_>) -> Result<(), Stop> {
        let other_views = entry.kind() == Kind::Zero && self.file.space().view_count() > 1;
        if other_views && !self.view.table().may_unmap() {
            Err(WOULD_BLOCK)
        } else {
            Ok(())
        }
    }

    /// P9 to P11, for blocks from `off` on under all units of the entry.
    fn map_block(&self, entry: &mut EntryGuard<'_>, off: u64) -> Result<(), Stop> {
        let space = self.file.space();
        if entry.kind() == Kind::Zero {
            space.break_zero(
                &space.pages_of(entry.unit()..entry.unit() + 1),
                Some(self.view),
            );
        }
        let pages = self.pages(entry);
        let unit_start = space.pages_of(entry.unit()..entry.unit()).start;
        let (prot, dirty) = if self.access == Access::SharedWrite {
            self.file.map().touch();
            (
                Prot::ReadWrite,
                dirty_bits(&pages, unit_start, space.pages_per_unit()),
            )
        } else {
            (Prot::Read, 0)
        };
        // P10: dirty before the translation exists. The entry is owned, so nobody sees it before it is let go.
        entry.set_block(off >> space.unit_bits(), dirty);
        let frame = |page: u64| Frame::Media((off + page * PAGE_SIZE) - unit_start * PAGE_SIZE);
        let idx = self.fault.idx;
        match self
            .view
            .table()
            .map(pages.start, frame(pages.start), count_of(&pages), prot)
        {
            // A neighbour shows something else: a page that a private view has made its own.
            Err(MapError::Present) if count_of(&pages) > 1 => {
                self.map(&(idx..idx + 1), frame(idx), prot)
            }
            mapped => mapped.map_err(|error| self.refused(error)),
        }
    }

    /// P9z.
    fn map_zero(&self, entry: &mut EntryGuard<'_>) -> Result<(), Stop> {
        entry.set_zero();
        self.map(&self.pages(entry), Frame::Zero, Prot::Read)
            .inspect_err(|_| entry.restore())
    }

    /// The page is copied, or found to be zero, under INVALIDATE and ENTRY: nobody can give its block away meanwhile.
    fn copy_on_write(&self, extent: Extent) -> Result<(), Stop> {
        let space = self.file.space();
        let within = (self.fault.idx % space.pages_per_unit()) * PAGE_SIZE;
        let source = match extent {
            Extent::Data { off, .. } => Frame::Media(off + within),
            Extent::Hole { .. } => Frame::Zero,
        };
        self.view
            .table()
            .map_private(self.fault.idx, source)
            .map_err(|error| self.refused(error))
    }

    fn map(&self, pages: &Range<u64>, frame: Frame, prot: Prot) -> Result<(), Stop> {
        self.view
            .table()
            .map(pages.start, frame, count_of(pages), prot)
            .map_err(|error| self.refused(error))
    }

    fn refused(&self, error: MapError) -> Stop {
        Stop::With(match error {
            MapError::Present => Outcome::Retry,
            MapError::NoMemory => Outcome::NoMemory,
            MapError::Busy if self.fault.nowait => Outcome::WouldBlock,
            MapError::Busy => Outcome::Retry,
        })
    }

    /// What of the entry's units is mapped by this fault.
    fn pages(&self, entry: &EntryGuard<'_>) -> Range<u64> {
        let all = self.file.space().pages_of(entry.units());
        all.start.max(self.around.start)..all.end.min(self.around.end)
    }

    fn report(&self, error: Error) {
        if matches!(error, Error::Corrupt(_)) {
            self.file.map().report_corrupt(error);
        }
    }
}

fn count_of(pages: &Range<u64>) -> u32 {
    u32::try_from(pages.end - pages.start).expect("at most a leaf of units")
}

/// Dirty bits of the unit that begins at page `unit_start` for stores to `pages`.
fn dirty_bits(pages: &Range<u64>, unit_start: u64, pages_per_unit: u64) -> u16 {
    let bit = |page: u64| page.saturating_sub(unit_start).min(pages_per_unit);
    let below = |n: u64| if n >= 16 { u16::MAX } else { (1 << n) - 1 };
    below(bit(pages.end)) & !below(bit(pages.start))
}
