//! Being told of everything that changes a region or orders the changes.

use core::ops::Range;

/// How bytes reached the region, which decides what a crash may leave of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// A store of exact width: whole or not at all, in order within its line.
    Ordered,
    /// A copy: any subset of its 8-byte words, in any order, until flushed and fenced.
    Bulk,
}

/// Sees every store, flush and fence of the handles that carry it, from every thread.
///
/// Offsets count from the start of the whole region, for slices of it, too.
pub trait Observer: Send + Sync {
    /// Runs `change`, which stores to the region and then reports itself by [`Observer::store`], while no other change
    /// runs: so the order of the reports is the order of the stores. `change` touches no user memory and cannot fault
    /// into the library.
    fn serialize(&self, change: &mut dyn FnMut());

    /// `bytes` now stand at `at`.
    fn store(&self, at: u64, bytes: &[u8], route: Route);

    /// The lines that meet `range` were flushed by this thread.
    fn flush(&self, range: Range<u64>);

    /// This thread has fenced: what it flushed before is durable.
    fn fence(&self);
}
