//! Mistakes in a log: a flush or fence that is missing. What the enumerator finds then shows what its oracles can see.

use ext2dax_pmem::{Event, EventKind};

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The flush at this place of the log is not there.
    NoFlush(usize),
    /// The fence at this place of the log is not there.
    NoFence(usize),
}

/// Every single mistake that the log leaves room for, in order.
pub fn mistakes(events: &[Event]) -> Vec<Mistake> {
    let of = |(at, event): (usize, &Event)| match event.kind {
        EventKind::Flush(_) => Some(Mistake::NoFlush(at)),
        EventKind::Fence => Some(Mistake::NoFence(at)),
        _ => None,
    };
    events.iter().enumerate().filter_map(of).collect()
}

/// The log with that mistake made.
pub fn with_mistake(events: &[Event], mistake: Mistake) -> Vec<Event> {
    let (Mistake::NoFlush(at) | Mistake::NoFence(at)) = mistake;
    let mut events = events.to_vec();
    events.remove(at);
    events
}
