//! Everything at once: threads store unique values while others punch, truncate, extend, evict, write and run out of
//! space. What was stored while nothing else happened to its page is in the image and in the view.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ext2dax_fault::host::{Mode, View};

use super::{Host, PAGE, Random, Watchdog, in_each_mode, options, smaps_kib};

const PAGES: usize = 512;
const STORING: usize = 4;
/// Operations of each storing thread; more in a soak.
fn rounds() -> u64 {
    if std::env::var_os("EXT2DAX_SOAK").is_some() {
        400_000
    } else {
        4_000
    }
}
/// How often the others must have interfered before a storm may end.
const DISTURBANCES: u64 = 300;

/// How many operations on a page have begun (low half) and ended (high half), so that a storing thread can tell whether
/// its page was left alone.
struct Book {
    pages: Vec<AtomicU64>,
    space: AtomicU64,
}

impl Book {
    fn begin(&self, pages: std::ops::Range<usize>) {
        for page in &self.pages[pages] {
            page.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn end(&self, pages: std::ops::Range<usize>) {
        for page in &self.pages[pages] {
            page.fetch_add(1 << 32, Ordering::SeqCst);
        }
    }

    fn look(&self, page: usize) -> (u64, u64) {
        (
            self.pages[page].load(Ordering::SeqCst),
            self.space.load(Ordering::SeqCst),
        )
    }

    fn quiet_since(&self, page: usize, before: (u64, u64)) -> bool {
        let at_rest = |word: u64| word >> 32 == word & 0xffff_ffff;
        self.look(page) == before && at_rest(before.0) && at_rest(before.1)
    }
}

#[derive(Debug, Default)]
struct Tally {
    checked: AtomicU64,
    lost: AtomicU64,
    foreign: AtomicU64,
    bus: AtomicU64,
    spurious: AtomicU64,
    fault: AtomicU64,
    punches: AtomicU64,
    resizes: AtomicU64,
    evictions: AtomicU64,
    writes: AtomicU64,
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

struct Storm {
    host: Host,
    view: View,
    other: View,
    book: Book,
    tally: Tally,
    stop: AtomicBool,
    disturbed: AtomicU64,
    progress: Arc<AtomicU64>,
    seed: u64,
}

impl Storm {
    fn new(mode: Mode, seed: u64) -> Storm {
        let host = Host::new(
            &options(mode),
            12,
            u32::try_from(PAGES).expect("few pages") + 64,
            (PAGES * PAGE) as u64,
        );
        let (view, other) = (host.view(PAGES), host.view(PAGES));
        let book = Book {
            pages: (0..PAGES).map(|_| AtomicU64::new(0)).collect(),
            space: AtomicU64::new(0),
        };
        let (tally, stop, progress) = (
            Tally::default(),
            AtomicBool::new(false),
            Arc::new(AtomicU64::new(0)),
        );
        Storm {
            host,
            view,
            other,
            book,
            tally,
            stop,
            disturbed: AtomicU64::new(0),
            progress,
            seed,
        }
    }

    /// Each thread owns eight bytes of every page, 64 bytes apart from the next thread's.
    fn store(&self, thread: usize, mode: Mode) {
        let mut random = Random(self.seed + 7919 * (thread as u64 + 1));
        let by_system_call = mode == Mode::Userfault && thread % 2 == 1;
        let buffer = tempfile::tempfile().expect("a buffer");
        for round in 0_u64.. {
            if round >= rounds() && self.disturbed.load(Ordering::Relaxed) >= DISTURBANCES {
                return;
            }
            self.progress.fetch_add(1, Ordering::Relaxed);
            let page = random.below(PAGES);
            let at = page * PAGE + thread * 64;
            let value = (thread as u64 + 1) << 48 | (round + 1);
            let before = self.book.look(page);
            let stored = if by_system_call {
                std::os::unix::fs::FileExt::write_at(&buffer, &value.to_le_bytes(), 0)
                    .expect("written");
                std::io::Seek::rewind(&mut &buffer).expect("rewound");
                matches!(self.view.read_from(&buffer, at..at + 8), Ok(8))
            } else {
                self.view.store(at, value).is_ok()
            };
            let loaded = self.view.load(at);
            if !stored || loaded.is_err() {
                bump(if by_system_call && !stored {
                    &self.tally.fault
                } else {
                    &self.tally.bus
                });
                if self.book.quiet_since(page, before) {
                    bump(&self.tally.spurious);
                }
                continue;
            }
            let in_image = self.host.in_image(at);
            let through_other = self.other.load(at);
            if self.book.quiet_since(page, before) {
                bump(&self.tally.checked);
                if (loaded, in_image, through_other) != (Ok(value), value, Ok(value)) {
                    bump(&self.tally.lost);
                    println!(
                        "page {page}: {value:#x} became {loaded:x?}, {in_image:#x} in the image, {through_other:x?}"
                    );
                }
            } else if loaded != Ok(value) && loaded != Ok(0) {
                bump(&self.tally.foreign);
            }
            // Nobody stores here, in any file.
            if !matches!(
                self.view.load(random.below(PAGES) * PAGE + 4000),
                Ok(0) | Err(_)
            ) {
                bump(&self.tally.foreign);
            }
        }
    }

    fn until_stopped(&self, mut each: impl FnMut()) {
        while !self.stop.load(Ordering::Relaxed) {
            each();
            self.disturbed.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
    }

    fn punch(&self) {
        let mut random = Random(self.seed + 1);
        self.until_stopped(|| {
            let len = 1 + random.below(24);
            let start = random.below(PAGES - len);
            self.book.begin(start..start + len);
            self.host.file.punch(start..start + len);
            self.book.end(start..start + len);
            bump(&self.tally.punches);
        });
    }

    fn resize(&self) {
        let mut random = Random(self.seed + 2);
        self.until_stopped(|| {
            let cut = random.below(PAGES);
            let ragged = random.below(2) * random.below(PAGE) / 8 * 8;
            self.book.begin(cut..PAGES);
            self.host.file.truncate((cut * PAGE + ragged) as u64);
            assert_eq!(
                self.host.file.map().attached_from(cut as u64 + 1),
                0,
                "blocks past the end"
            );
            self.host.file.truncate((PAGES * PAGE) as u64);
            self.book.end(cut..PAGES);
            bump(&self.tally.resizes);
            std::thread::sleep(std::time::Duration::from_micros(500));
        });
    }

    fn evict(&self) {
        let mut random = Random(self.seed + 3);
        self.until_stopped(|| {
            let start = random.below(PAGES / 16) as u64 * 16;
            self.host.file.evict(start..start + 16);
            bump(&self.tally.evictions);
        });
    }

    /// write(2) to bytes of its own in every page, also into holes that views show as zeroes.
    fn write(&self) {
        let mut random = Random(self.seed + 4);
        self.until_stopped(|| {
            let page = random.below(PAGES);
            let value = 0xFF << 48 | random.below(1 << 40) as u64;
            self.book.begin(page..page + 1);
            self.host
                .file
                .write_inside((page * PAGE + 3000) as u64, &value.to_le_bytes());
            self.book.end(page..page + 1);
            bump(&self.tally.writes);
        });
    }

    fn run_out_of_space(&self) {
        self.until_stopped(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.book.space.fetch_add(1, Ordering::SeqCst);
            self.host.file.map().set_full(true);
            std::thread::sleep(std::time::Duration::from_millis(2));
            self.host.file.map().set_full(false);
            // What was refused is an error page for a while; it is quiet again when they are gone.
            self.host.file.evict(0..PAGES as u64);
            self.book.space.fetch_add(1 << 32, Ordering::SeqCst);
        });
    }
}

fn storm(mode: Mode, seed: u64, disturb: &[fn(&Storm)]) {
    println!("seed {seed}");
    let storm = Storm::new(mode, seed);
    let _watchdog = Watchdog::new(
        &format!("storm in mode {mode}, seed {seed}"),
        &storm.progress,
    );
    std::thread::scope(|scope| {
        let disturbing: Vec<_> = disturb
            .iter()
            .map(|each| scope.spawn(|| each(&storm)))
            .collect();
        let storing: Vec<_> = (0..STORING)
            .map(|thread| {
                scope.spawn({
                    let storm = &storm;
                    move || storm.store(thread, mode)
                })
            })
            .collect();
        let stored: Vec<_> = storing
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        storm.stop.store(true, Ordering::Relaxed);
        for thread in disturbing {
            thread.join().expect("no disturbing thread panics");
        }
        stored
            .into_iter()
            .for_each(|thread| thread.expect("no storing thread panics"));
    });
    let (tally, stats) = (&storm.tally, storm.host.mmu.stats());
    println!("{tally:?} {stats:?}");
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(
        (
            count(&tally.lost),
            count(&tally.foreign),
            count(&tally.spurious)
        ),
        (0, 0, 0),
        "lost, foreign, spurious"
    );
    assert_eq!(
        storm.host.file.map().stored_after_free(),
        0,
        "stores to free blocks"
    );
    assert!(
        count(&tally.checked) > rounds() / 10,
        "the storm left nothing to check"
    );
    // At rest: the view is the image, nothing is stranded outside it.
    for page in 0..PAGES {
        for thread in 0..STORING {
            let at = page * PAGE + thread * 64;
            assert_eq!(
                storm.view.load(at),
                Ok(storm.host.in_image(at)),
                "page {page}, thread {thread}"
            );
        }
    }
    assert_eq!(
        smaps_kib(&storm.view, "Anonymous"),
        0,
        "stores stranded in zero windows"
    );
    let attached = storm.host.file.map().attached_from(0);
    storm.host.file.truncate(0);
    assert_eq!(
        storm.host.file.map().free_count(),
        PAGES + 63,
        "{attached} blocks were attached: none leaks"
    );
}

#[test]
fn stores_against_punches_lose_nothing() {
    in_each_mode(|mode| storm(mode, 11, &[Storm::punch]));
}

#[test]
fn stores_against_truncation_lose_nothing() {
    in_each_mode(|mode| storm(mode, 12, &[Storm::resize]));
}

#[test]
fn stores_against_eviction_lose_nothing() {
    in_each_mode(|mode| storm(mode, 13, &[Storm::evict]));
}

#[test]
fn stores_against_everything_lose_nothing() {
    in_each_mode(|mode| {
        storm(
            mode,
            14,
            &[
                Storm::punch,
                Storm::resize,
                Storm::evict,
                Storm::write,
                Storm::run_out_of_space,
            ],
        );
    });
}
