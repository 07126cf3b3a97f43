//! Where each thread takes inode numbers from, so that threads in one group do not take neighbours.
//!
//! Were the lowest free number of a group the next one for every thread, what two of them make side by side would lie in
//! turns in the inode table, in one line of the bitmap and in one shard of whoever keeps inodes in core, and they would
//! meet at each. So a [lane](ext2dax_sync::lane) has a line of the bitmap, its desk, that other lanes leave alone as
//! long as there are others with room. A thread alone takes the lowest number.

// Plain atomics also under the schedule explorer: all of this is advice.
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ext2dax_format::GroupNr;
use ext2dax_sync::lane::{LANES, lane};

use crate::bitmap::Bitmap;
use crate::groups::LINE;

/// A desk is nobody's any more when so many others have been taken since: who works moves on with every line.
const LASTS: u32 = 32;

/// The desk of each lane: see [`word`].
///
/// All on the same lines of memory, since they are looked at far more often than one of them changes.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Desks {
    lanes: [AtomicU64; LANES],
    /// How many desks have been taken, and [`LASTS`]: in the beginning there are none.
    moves: AtomicU32,
}

impl Default for Desks {
    fn default() -> Self {
        Self {
            lanes: Default::default(),
            moves: AtomicU32::new(LASTS),
        }
    }
}

/// The line that holds bit `nr` of a group's bitmap, as the upper half of a desk's word; the lower one says when it was
/// taken. 0 is no desk. Inode bitmaps have at most 2^19 bits; past 2^22 groups two lines may have one word, which costs
/// time only.
fn line(group: GroupNr, nr: u32) -> u32 {
    let first = group.get().wrapping_mul(1024);
    first.wrapping_add(nr / LINE).wrapping_add(1)
}

fn word(line: u32, now: u32) -> u64 {
    u64::from(line) << 32 | u64::from(now)
}

fn halves(word: u64) -> (u32, u32) {
    let half = |word: u64| u32::try_from(word & 0xFFFF_FFFF).expect("masked to 32 bits");
    (half(word >> 32), half(word))
}

impl Desks {
    /// A free number of the group for the calling thread; `lowest` is the lowest one. The caller holds the group's lock.
    pub(crate) fn choose(&self, bitmap: &Bitmap<'_>, group: GroupNr, lowest: u32) -> u32 {
        let own = &self.lanes[lane()];
        let (desk, _) = halves(own.load(Ordering::Relaxed));
        if desk == line(group, lowest) {
            return lowest;
        }
        let now = self.moves.load(Ordering::Relaxed);
        let is_anothers = |nr: u32| {
            let wanted = line(group, nr);
            desk != wanted
                && self.lanes.iter().any(|other| {
                    let (line, since) = halves(other.load(Ordering::Relaxed));
                    line == wanted && now.wrapping_sub(since) < LASTS
                })
        };
        let free_in_line = |first: u32| bitmap.find_clear(first, bitmap.len().min(first + LINE));
        let nr = if is_anothers(lowest) {
            let lines = || {
                (lowest - lowest % LINE..bitmap.len())
                    .step_by(LINE as usize)
                    .skip(1)
            };
            // Where this thread is already, else at the next line that is nobody's.
            lines()
                .find(|&first| desk == line(group, first))
                .and_then(free_in_line)
                .or_else(|| {
                    lines().find_map(|first| free_in_line(first).filter(|_| !is_anothers(first)))
                })
                .unwrap_or(lowest)
        } else {
            lowest
        };
        if desk != line(group, nr) {
            self.moves.fetch_add(1, Ordering::Relaxed);
            own.store(word(line(group, nr), now), Ordering::Relaxed);
        }
        nr
    }
}
