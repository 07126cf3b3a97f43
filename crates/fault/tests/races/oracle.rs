//! What must hold between any two steps, and at the end.

use ext2dax_dax::vecmap::Owner;
use ext2dax_dax::{Frame, Kind};
use ext2dax_fault::soft_mmu::Target;

use crate::tracker::Content;
use crate::world::{BLOCKS, HALF, ME, OTHER, PAGE, World};

/// What the threads say about themselves.
#[derive(Default)]
pub(crate) struct Facts {
    /// Blocks that a pin holds.
    pub(crate) pinned: Vec<u64>,
    /// Operations under way that change bytes of the medium themselves.
    pub(crate) busy: usize,
    /// While frozen: the content when that began.
    pub(crate) frozen: Option<Content>,
    /// Views that have been detached.
    pub(crate) detached: [bool; 2],
    /// The size at the last step.
    pub(crate) size: u64,
}

impl World {
    /// Between two steps. No thread runs; locks may be held.
    pub(crate) fn check(&self) -> Result<(), String> {
        let entry = self.file.space().observe(0);
        let size = self.file.observe_size();
        let block = self.file.map().block(0);
        let now = self.tracker.now();
        let mut facts = self.facts();
        let mut writable = false;
        let mut zero = false;
        for (_, translation) in self.machine.translations() {
            match translation.target {
                Target::Frame(Frame::Media(off)) => {
                    let owner = self.store.owner(off / PAGE);
                    if owner != Owner::File(ME) {
                        return Err(format!(
                            "F-1: a live translation of block {} of {owner:?}",
                            off / PAGE
                        ));
                    }
                    writable |= translation.writable;
                }
                Target::Frame(Frame::Zero) => zero = true,
                Target::Own => {}
            }
        }
        if let Some(pinned) = facts
            .pinned
            .iter()
            .find(|block| matches!(self.store.owner(**block), Owner::Free | Owner::File(OTHER)))
        {
            return Err(format!("F-1: block {pinned} is pinned and was freed"));
        }
        let dead = self
            .views
            .iter()
            .zip(facts.detached)
            .find(|(view, dead)| *dead && !view.table.is_empty());
        if dead.is_some() {
            return Err("F-1: a translation in a view that was detached".into());
        }
        if let Some(block) = self.tracker.stray() {
            return Err(format!(
                "F-1: a store to block {block}, which is not the file's"
            ));
        }
        let quiet = !entry.is_locked() && facts.busy == 0;
        if zero && block.is_some() && quiet {
            return Err("F-3: the zero page is mapped over a block".into());
        }
        if writable && entry.dirty() == 0 && !entry.is_locked() {
            return Err(format!(
                "F-4: a writable translation, and the entry is {entry:?}"
            ));
        }
        if let Kind::Block(block) = entry.kind()
            && quiet
            && entry.dirty() == 0
            && self.store.owner(block) == Owner::File(ME)
        {
            let block = usize::try_from(block).expect("small");
            if now[block] != self.tracker.media()[block] {
                return Err(format!(
                    "F-4: clean, but the medium has {:?} and not {:?}",
                    self.tracker.media()[block],
                    now[block]
                ));
            }
        }
        self.check_size(&mut facts, size, block, &now)?;
        self.check_frozen(&facts, writable, size, block, &now)
    }

    fn check_size(
        &self,
        facts: &mut Facts,
        size: u64,
        block: Option<u64>,
        now: &Content,
    ) -> Result<(), String> {
        let grown = size > facts.size;
        facts.size = size;
        match block {
            Some(block)
                if grown
                    && self.grows_empty
                    && now[usize::try_from(block).expect("small")][1] != 0 =>
            {
                Err("F-6: the new size uncovers a byte from past the old end".into())
            }
            _ => Ok(()),
        }
    }

    fn check_frozen(
        &self,
        facts: &Facts,
        writable: bool,
        size: u64,
        block: Option<u64>,
        now: &Content,
    ) -> Result<(), String> {
        let Some(then) = &facts.frozen else {
            return Ok(());
        };
        if writable {
            return Err("F-9: a writable translation while frozen".into());
        }
        if let Some(block) = block.map(|block| usize::try_from(block).expect("small")) {
            if now[block] != then[block] {
                return Err(format!(
                    "F-9: {:?} became {:?} while frozen",
                    then[block], now[block]
                ));
            }
            if size == HALF && self.tracker.media()[block][1] != 0 {
                return Err("F-9: frozen with bytes past the end of the file".into());
            }
        }
        Ok(())
    }

    /// All threads have ended.
    pub(crate) fn check_end(&self, last: Option<[u8; 2]>) {
        let block = self.file.map().block(0);
        for (number, gate) in [&self.gates.pin, &self.gates.write, &self.gates.fault]
            .into_iter()
            .enumerate()
        {
            assert!(
                gate.count() == 0 && !gate.is_closed(),
                "F-14: gate {number} was left held or closed"
            );
        }
        assert!(
            !self.file.space().observe(0).is_locked(),
            "F-14: an entry was left locked"
        );
        for number in (0..BLOCKS as u64).filter(|number| Some(*number) != block) {
            let owner = self.store.owner(number);
            assert!(
                matches!(owner, Owner::Free | Owner::File(OTHER)),
                "F-8: block {number} leaked: {owner:?}"
            );
        }
        assert!(
            self.file.size() > 0 || block.is_none(),
            "F-7: a block past the end of the file"
        );
        if let Some(last) = last {
            let block = usize::try_from(block.expect("F-10: the block is gone")).expect("small");
            assert_eq!(self.tracker.now()[block], last, "F-10: an update was lost");
        }
    }
}
