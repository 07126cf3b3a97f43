//! What is durable: sees every store, flush and fence, and the middle of a user copy.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use ext2dax_dax::vecmap::{Owner, Store};

use ext2dax_pmem::{Observer, Pmem, Route};

use crate::world::{BLOCKS, CELLS, OTHER, PAGE};

/// The two cells of every block.
pub(crate) type Content = [[u8; 2]; BLOCKS];

#[derive(Default)]
struct Durable {
    flushed: Content,
    fenced: Content,
}

/// Runs once, in the thread that copies, after the first piece of a copy.
pub(crate) type Hook = Box<dyn FnOnce() + Send>;

pub(crate) struct Tracker {
    pmem: Pmem,
    durable: Mutex<Durable>,
    hook: Mutex<Option<Hook>>,
    store: OnceLock<Weak<Store>>,
    /// The first block that was stored to without being the file's.
    stray: Mutex<Option<u64>>,
}

impl Tracker {
    pub(crate) fn new(pmem: Pmem) -> Tracker {
        Tracker {
            pmem,
            durable: Mutex::default(),
            hook: Mutex::new(None),
            store: OnceLock::new(),
            stray: Mutex::new(None),
        }
    }

    /// The cells as loads see them now.
    pub(crate) fn now(&self) -> Content {
        let mut content = Content::default();
        for (block, cells) in content.iter_mut().enumerate() {
            for (cell, byte) in cells.iter_mut().enumerate() {
                let mut one = [0];
                self.pmem.read(block as u64 * PAGE + CELLS[cell], &mut one);
                *byte = one[0];
            }
        }
        content
    }

    /// The cells as a crash would leave them.
    pub(crate) fn media(&self) -> Content {
        self.durable().fenced
    }

    /// From here on everything counts as durable.
    pub(crate) fn settle(&self) {
        let now = self.now();
        *self.durable() = Durable {
            flushed: now,
            fenced: now,
        };
    }

    /// From here on the content of one block counts as durable.
    pub(crate) fn settle_block(&self, block: usize) {
        let now = self.now()[block];
        let mut durable = self.durable();
        durable.flushed[block] = now;
        durable.fenced[block] = now;
    }

    /// From here on a store to a block that is not the file's is noted.
    pub(crate) fn watch(&self, store: &Arc<Store>) {
        self.store.get_or_init(|| Arc::downgrade(store));
    }

    /// The first such block.
    pub(crate) fn stray(&self) -> Option<u64> {
        *self.stray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn arm(&self, hook: Hook) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }

    pub(crate) fn disarm(&self) {
        self.hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Tracker {
    fn serialize(&self, change: &mut dyn FnMut()) {
        change();
    }

    fn store(&self, at: u64, bytes: &[u8], _route: Route) {
        let owner = self
            .store
            .get()
            .and_then(Weak::upgrade)
            .map(|store| store.owner(at / PAGE));
        if let Some(Owner::Free | Owner::File(OTHER)) = owner {
            self.stray
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(at / PAGE);
        }
        // Only the user copy of the scenario stores other bytes than zero and more than one at a time.
        if bytes.len() > 1 && bytes[0] != 0 {
            let hook = self
                .hook
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(hook) = hook {
                hook();
            }
        }
    }

    fn flush(&self, range: Range<u64>) {
        let now = self.now();
        let mut durable = self.durable();
        for (block, cells) in now.iter().enumerate() {
            for (cell, byte) in cells.iter().enumerate() {
                if range.contains(&(block as u64 * PAGE + CELLS[cell])) {
                    durable.flushed[block][cell] = *byte;
                }
            }
        }
    }

    fn fence(&self) {
        let mut durable = self.durable();
        durable.fenced = durable.flushed;
    }
}
