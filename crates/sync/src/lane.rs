//! Lanes: a small number in which threads that run side by side differ.
//!
//! What many threads change and few look at (who is inside a gate, who refers to a mount) is kept once a lane. Then each
//! thread changes a line that its processor owns, and whoever looks adds the lanes up. Two threads may share a lane; that
//! costs time only.

/// How many lanes there are: a power of two. More processors than that share them.
pub const LANES: usize = if cfg!(shuttle) { 2 } else { 16 };

/// The lane of the calling thread, below [`LANES`]. Usable in signal handlers.
#[cfg(all(feature = "std", not(shuttle)))]
#[inline]
pub fn lane() -> usize {
    use core::cell::Cell;
    use core::sync::atomic::{AtomicUsize, Ordering};

    // A plain number, so that reading it allocates nothing and nothing is left to be dropped.
    std::thread_local! {
        static LANE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    LANE.with(|lane| {
        if lane.get() == usize::MAX {
            lane.set(NEXT.fetch_add(1, Ordering::Relaxed) % LANES);
        }
        lane.get()
    })
}

/// The lane of the calling thread, below [`LANES`]: told by where its stack lies.
#[cfg(not(any(feature = "std", shuttle)))]
#[inline]
pub fn lane() -> usize {
    let here = 0_u8;
    // Stacks lie at least 64 KiB apart on every platform with more than one thread that we know.
    let place = (&raw const here).addr() >> 16;
    (place ^ place >> 4) % LANES
}

/// The lane of the calling thread, below [`LANES`].
#[cfg(shuttle)]
pub fn lane() -> usize {
    usize::from(shuttle::thread::current().id()) % LANES
}
