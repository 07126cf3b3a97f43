//! Counters that show a reader of an inode's times and size whether a writer came between.
//!
//! A table of the file system, not a field of the in-core inode: `stat` reads inodes that are not in core, and must not
//! bring them in just to see whether somebody is at them. Inodes share counters; sharing costs a reader another try.

use alloc::boxed::Box;
use core::fmt;

use ext2dax_format::Ino;
use ext2dax_sync::atomic::{AtomicU32, Ordering, fence};
use ext2dax_sync::{Mutex, rank};

/// Lines of counters, a power of two, and counters in a line.
const LINES: usize = 128;
const COUNTERS: u32 = 8;

/// Looks that a reader takes before it waits for the writer.
const TRIES: u32 = 16;

/// One counter, and the lock that its writers take turns by (rank TABLE, a leaf).
struct Counter {
    writers: Mutex<()>,
    /// Odd while a writer is at work.
    version: AtomicU32,
}

/// Neighbours share a line: they are made, and mostly used, by one thread.
#[repr(align(64))]
struct Line([Counter; COUNTERS as usize]);

/// The table.
pub(crate) struct Versions(Box<[Line]>);

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Versions")
    }
}

impl Versions {
    pub(crate) fn new() -> Self {
        let counter = |_| Counter {
            writers: Mutex::new(rank::TABLE, ()),
            version: AtomicU32::new(0),
        };
        let line = |_| Line(core::array::from_fn(counter));
        Self((0..LINES).map(line).collect())
    }

    fn of(&self, ino: Ino) -> &Counter {
        let (line, place) = (ino.get() / COUNTERS, (ino.get() % COUNTERS) as usize);
        // Spread, since directories fill the inode tables of their groups in step, and these begin at round numbers.
        let line = line.wrapping_mul(0x9e37_79b9) >> (u32::BITS - LINES.ilog2());
        &self.0[line as usize].0[place]
    }

    /// Runs `stores`, alone among the writers of this inode; readers see all of them or none.
    pub(crate) fn write<R>(&self, ino: Ino, stores: impl FnOnce() -> R) -> R {
        let counter = self.of(ino);
        let _alone = counter.writers.lock();
        // Only who has the lock changes it.
        let version = counter.version.load(Ordering::Relaxed);
        counter
            .version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        // Whoever sees a store behind this fence, and then fences, sees the mark.
        fence(Ordering::Release);
        let result = stores();
        counter
            .version
            .store(version.wrapping_add(2), Ordering::Release);
        result
    }

    /// Runs `loads` until no writer came between. Behind a writer that lost its processor between two stores a reader
    /// waits like another writer.
    pub(crate) fn read<R>(&self, ino: Ino, loads: impl Fn() -> R) -> R {
        let counter = self.of(ino);
        for _ in 0..TRIES {
            let before = counter.version.load(Ordering::Acquire);
            if before & 1 == 0 {
                let result = loads();
                fence(Ordering::Acquire);
                if counter.version.load(Ordering::Relaxed) == before {
                    return result;
                }
            }
            core::hint::spin_loop();
        }
        let _alone = counter.writers.lock();
        loads()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// Two words that a writer keeps equal.
    #[test]
    fn a_reader_never_sees_half_of_a_change() {
        let versions = Versions::new();
        let words = [AtomicU32::new(0), AtomicU32::new(0)];
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for value in 0..200_000 {
                    versions.write(Ino::ROOT, || {
                        for word in &words {
                            word.store(value, Ordering::Relaxed);
                        }
                    });
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                let (a, b) = versions.read(Ino::ROOT, || {
                    (
                        words[0].load(Ordering::Relaxed),
                        words[1].load(Ordering::Relaxed),
                    )
                });
                assert_eq!(a, b);
            }
        });
    }
}
