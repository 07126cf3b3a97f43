//! What the threads do, and from where.

use crate::op::Op::{self, *};

/// The state before the threads start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// No block, nothing mapped.
    Hole,
    /// A block, nothing mapped.
    Unmapped,
    /// A block, mapped writable in the first view, dirty.
    Mapped,
    /// No block, the zero page mapped in both views.
    Zero,
    /// As `Mapped`, and the file ends in the middle of the page, with bytes stored past its end.
    MidPage,
}

/// One scenario of the design's list, by its number.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) starts: &'static [Start],
    pub(crate) threads: &'static [&'static [Op]],
    /// What the two cells must hold at the end, where the order of the threads does not matter.
    pub(crate) last: Option<[u8; 2]>,
}

use Start::{Hole, Mapped, MidPage, Unmapped, Zero};

const ALL: &[Start] = &[Hole, Unmapped, Mapped, Zero];
const MOST: &[Start] = &[Hole, Unmapped, Mapped, Zero, MidPage];
const HOLES: &[Start] = &[Hole, Zero];
const EOF: &[Start] = &[MidPage];

macro_rules! scenario {
    ($name:literal, $starts:expr, [$($op:expr),*] $(, [$($other:expr),*])* $(; $last:expr)?) => {
        Scenario {
            name: $name,
            starts: $starts,
            threads: &[&[$($op),*] $(, &[$($other),*])*],
            last: [$($last,)?].first().copied(),
        }
    };
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "MC-01 load x punch x realloc",
            ALL,
            [Load, Load],
            [Punch],
            [OtherAlloc]
        ),
        scenario!(
            "MC-03 store x truncate 0 x realloc",
            ALL,
            [Store(3), Store(4)],
            [Truncate0],
            [OtherAlloc]
        ),
        scenario!(
            "MC-05 store x load, two views",
            ALL,
            [Store(3)],
            [Load, Load]
        ),
        scenario!("MC-06 store x store in one hole", ALL, [Store(3)], [StoreTail(4)]; [3, 4]),
        scenario!("MC-07 store x fsync", ALL, [Store(3), Store(4)], [Fsync]),
        scenario!("MC-09 load x write(2)", ALL, [Load, Load], [Write(5)]),
        scenario!("MC-10 store x write(2)", ALL, [Store(3)], [Write(5)]),
        scenario!(
            "MC-11 punch x write(2) x realloc",
            ALL,
            [Punch],
            [Write(5)],
            [OtherAlloc]
        ),
        scenario!(
            "MC-12 COW x punch x realloc",
            ALL,
            [Cow],
            [Punch],
            [OtherAlloc]
        ),
        scenario!(
            "MC-14 pin x punch x realloc",
            ALL,
            [Pin, PinStore(3), Unpin],
            [Punch],
            [OtherAlloc]
        ),
        scenario!("MC-17 store x freeze", ALL, [Store(3), Store(4)], [Freeze]),
        scenario!(
            "MC-18 pin and mapped store x freeze",
            ALL,
            [Pin, PinStore(3), Store(4), Unpin],
            [Freeze]
        ),
        scenario!(
            "MC-20 tail store x extend",
            EOF,
            [StoreTail(6), StoreTail(8)],
            [Extend]
        ),
        scenario!(
            "MC-21 tail store x shrink, extend",
            &[Mapped],
            [StoreTail(6), StoreTail(8)],
            [Shrink, Extend]
        ),
        scenario!("MC-27 tail store x write(2)", HOLES, [StoreTail(4)], [Write(5)]; [5, 4]),
        scenario!("MC-29 store x read(2)", ALL, [Store(3)], [Read]),
        scenario!(
            "MC-30 store x no space",
            ALL,
            [Store(3)],
            [OtherAlloc],
            [OtherAlloc]
        ),
        scenario!(
            "MC-31 tail load x extend",
            EOF,
            [LoadTail, LoadTail],
            [Extend]
        ),
        scenario!("MC-32 pin x store x fsync", ALL, [Pin, PinStore(3), Unpin], [StoreTail(4)], [Fsync]; [3, 4]),
        scenario!(
            "MC-33 write(2) from own mapping x fsync",
            ALL,
            [WriteFromView(5)],
            [Fsync]
        ),
        scenario!("MC-34 write(2) from own mapping x store x freeze", ALL, [WriteFromView(5)], [StoreTail(4)], [Freeze]; [5, 4]),
        scenario!(
            "MC-35 write(2) from own mapping x punch x realloc",
            ALL,
            [WriteFromView(5)],
            [Punch],
            [OtherAlloc]
        ),
        scenario!(
            "MC-37 pin, then punch by the same thread",
            ALL,
            [Pin, Punch, PinStore(4), Unpin],
            [OtherAlloc]
        ),
        scenario!(
            "MC-38 pin, then write(2) and punch by the same thread x freeze",
            ALL,
            [Pin, Write(5), Punch, Unpin],
            [Freeze]
        ),
        scenario!("MC-39 extending write(2) x last unmap", EOF, [WriteTail(6)], [LastUnmap]; [7, 6]),
        scenario!(
            "MC-59 read(2) into a mapping x freeze",
            MOST,
            [ReadIntoView(3)],
            [Freeze]
        ),
        scenario!(
            "MC-45 load, store x last unmap x punch",
            ALL,
            [Load, Store(3)],
            [LastUnmap],
            [Punch]
        ),
        scenario!(
            "MC-52 stable x store, store",
            ALL,
            [Store(3), Store(4)],
            [Stable]
        ),
        scenario!(
            "MC-52p stable x pin, store",
            ALL,
            [Pin, PinStore(3), Unpin],
            [Stable]
        ),
    ]
}
