//! What one thread does, as the layer above would do it: gates and INODE here, the rest in the code under test.

use std::sync::{Arc, PoisonError};

use ext2dax_dax::vecmap::{Owner, VecMap};
use ext2dax_dax::{LastView, PinGuard, PinMode};
use ext2dax_fault::Bus;
use ext2dax_fault::Outcome;
use ext2dax_fault::soft_mmu::{Cpu, Mapping};
use ext2dax_pmem::{UserSlice, UserSliceMut};
use ext2dax_sync::mutant;

use crate::world::{CELLS, HALF, OTHER, PAGE, World};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// Of the first cell. `..Tail`: of the second, in the half of the page behind the end in `MidPage`.
    Load,
    LoadTail,
    Store(u8),
    StoreTail(u8),
    /// A store to a private view.
    Cow,
    Pin,
    PinStore(u8),
    Unpin,
    Write(u8),
    /// write(2) of the first half whose source is a mapping of the page: it faults in the middle of the copy.
    WriteFromView(u8),
    /// write(2) of the second cell, past the end in `MidPage`.
    WriteTail(u8),
    Read,
    /// read(2) whose destination is a mapping of the page.
    ReadIntoView(u8),
    Truncate0,
    Shrink,
    Extend,
    Punch,
    /// Both views go, and the bytes past the end are zeroed.
    LastUnmap,
    Fsync,
    Freeze,
    /// Holds the page still and looks at it twice.
    Stable,
    /// Another file takes a free block and fills it.
    OtherAlloc,
}

/// One thread of a scenario.
pub(crate) struct Actor<'a> {
    world: &'a Arc<World>,
    number: usize,
    cpu: Cpu,
    mapping: &'a Mapping<VecMap>,
    pin: Option<(PinGuard<'a, VecMap>, u64)>,
}

impl<'a> Actor<'a> {
    pub(crate) fn new(world: &'a Arc<World>, number: usize) -> Actor<'a> {
        // The first thread has a view of its own, the others share one.
        let mapping = &world.views[number.min(1)];
        Actor {
            world,
            number,
            cpu: Cpu::new(&world.machine, number),
            mapping,
            pin: None,
        }
    }

    pub(crate) fn run(&mut self, op: Op) {
        let world = self.world;
        match op {
            Op::Load => self.load(0),
            Op::LoadTail => self.load(1),
            Op::Store(value) => self.store(0, value),
            Op::StoreTail(value) => self.store(1, value),
            Op::Cow => self.copy_on_write(),
            Op::Pin => {
                if let Ok(guard) = world.file.pin(0..HALF, PinMode::Write) {
                    let block = guard.segments()[0].off / PAGE;
                    world.facts().pinned.push(block);
                    self.pin = Some((guard, block));
                }
            }
            Op::PinStore(value) => {
                if let Some((guard, _)) = &self.pin {
                    world.point();
                    assert_eq!(guard.write(CELLS[0], &[value]), 1);
                }
            }
            Op::Unpin => {
                if let Some((guard, block)) = self.pin.take() {
                    let mut facts = world.facts();
                    let at = facts
                        .pinned
                        .iter()
                        .position(|pinned| *pinned == block)
                        .expect("noted when it was taken");
                    facts.pinned.remove(at);
                    drop(facts);
                    drop(guard);
                }
            }
            Op::Write(value) => self.write(CELLS[0], &[value]),
            Op::WriteTail(value) => self.write(CELLS[1], &[value]),
            Op::WriteFromView(value) => self.write_from_view(value),
            Op::Read => {
                let _inode = world.inode.read();
                self.read();
            }
            Op::ReadIntoView(value) => {
                // The bytes go to memory of the test; the store stands for the fault of the copy, with INODE held.
                let _inode = world.inode.read();
                self.read();
                self.store(1, value);
            }
            Op::Truncate0 => self.change(|| world.file.truncate(0)),
            Op::Shrink => self.change(|| world.file.truncate(HALF)),
            Op::Extend => self.change(|| world.file.truncate(PAGE)),
            Op::Punch => self.change(|| world.file.punch(0..PAGE)),
            Op::LastUnmap => self.last_unmap(),
            Op::Fsync => world
                .file
                .sync(0..u64::MAX)
                .expect("the medium does not fail"),
            Op::Freeze => self.freeze(),
            Op::Stable => self.hold_still(),
            Op::OtherAlloc => {
                world.point();
                if let Ok((block, _)) = world.store.take(Owner::File(OTHER), 1) {
                    world.fill(block, 9);
                }
            }
        }
    }

    fn load(&self, cell: usize) {
        let whole_before = self.world.file.size() >= PAGE;
        let mut byte = [0];
        match self.cpu.load(self.mapping, CELLS[cell], &mut byte) {
            Ok(()) => {
                assert!(
                    byte[0] < 8 || cell == 1,
                    "F-2: a load saw {}, a foreign or stale byte",
                    byte[0]
                );
                assert!(
                    !(cell == 1 && whole_before && byte[0] == 5),
                    "F-6: a load saw a byte from past the old end"
                );
            }
            Err(Outcome::Bus(Bus::PastEof) | Outcome::Segv) => {}
            Err(other) => panic!("a load got {other:?}"),
        }
    }

    fn store(&self, cell: usize, value: u8) {
        match self.cpu.store(self.mapping, CELLS[cell], &[value]) {
            Ok(()) | Err(Outcome::Bus(Bus::PastEof | Bus::NoSpace) | Outcome::Segv) => {}
            Err(other) => panic!("a store got {other:?}"),
        }
    }

    fn copy_on_write(&self) {
        let private = self
            .world
            .private
            .as_ref()
            .expect("made for scenarios that use it");
        if self.cpu.store(private, CELLS[0], &[1]).is_ok() {
            let mut byte = [0];
            if self.cpu.load(private, CELLS[1], &mut byte).is_ok() {
                assert!(
                    byte[0] < 8,
                    "F-2: a private copy holds {}, a foreign or stale byte",
                    byte[0]
                );
            }
        }
    }

    /// As every operation of the layer above that changes a file.
    fn change(&self, operation: impl FnOnce() -> Result<(), ext2dax_format::Error>) {
        let _gate = self.world.gates.write.enter();
        let _inode = self.world.inode.write();
        let _busy = self.world.busy();
        operation().expect("the medium does not fail");
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let world = self.world;
        let _gate = world.gates.write.enter();
        let _inode = (!mutant("write(2) without INODE")).then(|| world.inode.write());
        if world.file.size() == 0 {
            return;
        }
        let _busy = world.busy();
        match world.file.write_at(at, UserSlice::from(bytes)) {
            Ok(written) => assert_eq!(written, bytes.len(), "F-11: a short copy"),
            Err(error) => assert_eq!(error, ext2dax_format::Error::NoSpace),
        }
    }

    fn write_from_view(&self, value: u8) {
        let (world, number) = (Arc::clone(self.world), self.number);
        self.world
            .tracker
            .arm(Box::new(move || Actor::new(&world, number).load(1)));
        self.write(0, &[value; HALF as usize]);
        self.world.tracker.disarm();
    }

    fn read(&self) {
        let mut page = [0; PAGE as usize];
        let read = self
            .world
            .file
            .read_at(0, UserSliceMut::from(&mut page))
            .expect("mapped memory");
        let seen = |cell: usize| page[usize::try_from(CELLS[cell]).expect("small")];
        for cell in (0..2).filter(|cell| CELLS[*cell] < read as u64) {
            assert!(
                seen(cell) < 8,
                "F-2: read(2) saw {}, a foreign or stale byte",
                seen(cell)
            );
        }
    }

    fn last_unmap(&self) {
        let world = self.world;
        let mut tail = false;
        for (number, mapping) in world.views.iter().enumerate() {
            tail |= world.file.detach(&mapping.view) == LastView::ZeroTail;
            world.facts().detached[number] = true;
        }
        if tail {
            // A closed gate means that the freezer does the work.
            if let Some(_gate) = world.gates.write.try_enter() {
                let _inode = (!mutant("tail zeroed without INODE")).then(|| world.inode.write());
                let _busy = world.busy();
                world.file.zero_tail().expect("the medium does not fail");
            }
        }
    }

    /// A write pin in the page refuses it.
    fn hold_still(&self) {
        let world = self.world;
        let _gate = world.gates.write.enter();
        let _inode = world.inode.write();
        let Ok(stable) = world.file.stable(0..PAGE) else {
            return;
        };
        let mut looks = [[0; PAGE as usize]; 2];
        for look in &mut looks {
            world.point();
            stable.read(0, look).expect("a good tree");
        }
        assert!(
            looks[0] == looks[1],
            "F-9: a byte changed while the page was held still"
        );
    }

    fn freeze(&self) {
        let world = self.world;
        let frozen = world.gates.freeze().expect("nobody else freezes");
        {
            let _inode = mutant("freeze takes INODE").then(|| world.inode.write());
            let _busy = world.busy();
            world.file.settle().expect("the medium does not fail");
        }
        world.facts().frozen = Some(world.content());
        world.point();
        world.point();
        world.facts().frozen = None;
        drop(frozen);
    }
}

impl World {
    pub(crate) fn facts(&self) -> std::sync::MutexGuard<'_, crate::oracle::Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
