//! Event loops that follow the program that they serve to its processor.
//!
//! To wake a thread on another processor that sleeps takes several times as long as most requests do, and a request wakes
//! twice: the event loop, and then whoever asked. A program that waits for its answer leaves its processor to others
//! meanwhile. So while one program asks one thing after the other, one event loop serves it, and runs where it runs: a
//! request is two switches on one processor. The others wait, or the kernel would wake one of them for each request, too.
//!
//! That event loop is in the class of those who run when nobody else would. Otherwise the system would see two who want
//! one processor, and send the program to another with each answer. It must not stay in that class when others need the
//! processor. So nobody is followed while more threads want to run than there are processors; and after a moment without
//! a request, whether nobody asks or somebody keeps the event loop from running, or when several programs ask at the same
//! time, all event loops read requests and run wherever the system puts them, like anybody else.

use std::cell::Cell;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use ext2dax::fault::host::{Class, set_class};
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};

/// Requests no further apart than this follow each other closely.
const CLOSELY: Duration = Duration::from_micros(200);

/// As many close requests of one asker are a row, and worth following.
const ROW: u32 = 16;

/// Once in so many requests it is looked up where the asker runs now.
const REVIEW: u32 = 64;

/// Who has not asked for two of these is not followed any more.
const MOMENT: Duration = Duration::from_millis(1);

/// So long nobody is followed where following did not work, because the event loop would not get to run or the asker did
/// not stay: the shorter time at first, twice as long each time that follows, and half as long behind each review that
/// found all well.
const ALONE: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(256));

/// Each change of the asker counts as `CHANGE` requests without one, up to `MOST`; from `CROWD` on there are several.
const CHANGE: u32 = 8;
const CROWD: u32 = 32;
const MOST: u32 = 96;

/// Each move of the asker counts as `MOVE` reviews that found it where it was; `RESTLESS` is too many.
const MOVE: u32 = 4;
const RESTLESS: u32 = 32;

/// Behind a move the next review comes after so many requests.
const SOON: u32 = 8;

/// Where event loops run: the number of a processor in the low half, or `ANYWHERE`; above it the number of the decision.
type Place = u64;
const ANYWHERE: Place = 0xffff_ffff;
const DECISION: Place = 1 << 32;

thread_local! {
    /// The decision that this event loop has heard of.
    static HEARD: Cell<Place> = const { Cell::new(ANYWHERE) };
}

/// What event loops and the thread that lets them go share. Counts are for guesses: a race loses one of them.
#[derive(Debug)]
struct Shared {
    started: Instant,
    /// When the last request came, in nanoseconds from `started`.
    last: AtomicU64,
    /// Who asked last.
    asker: AtomicU32,
    /// How many requests it has made in a row.
    row: AtomicU32,
    crowd: AtomicU32,
    moves: AtomicU32,
    /// Nobody is followed before, in nanoseconds from `started`.
    alone_until: AtomicU64,
    /// For how many nanoseconds the next time.
    alone: AtomicU64,
    /// Changes under `bound`.
    place: AtomicU64,
    /// Event loops that run at `place` only, and when nobody else would.
    bound: Mutex<Vec<Pid>>,
    /// Nobody is followed any more.
    free: Condvar,
    /// Event loops that read requests, or are about to.
    reading: AtomicUsize,
    /// Where the process may run.
    everywhere: CpuSet,
    /// As many threads as may want to run at the same time.
    room: u32,
    /// Sleeps while nobody is followed.
    watcher: OnceLock<Thread>,
    ended: AtomicBool,
}

/// A field of proc_pid_stat(5) from the third on. `None` if the system does not tell.
fn stat(path: &str, field: usize) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    // The second field, the name of the program, may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(field - 3).map(str::to_owned)
}

const PROCESSOR: usize = 39;
const POLICY: usize = 41;

/// Whether this process may change its threads' class, and change it back.
fn can_change_class() -> bool {
    let there_and_back = || set_class(0, Class::Idle).and_then(|()| set_class(0, Class::Other));
    stat("/proc/self/stat", POLICY).as_deref() == Some("0")
        && thread::Builder::new()
            .spawn(there_and_back)
            .is_ok_and(|thread| matches!(thread.join(), Ok(Ok(()))))
}

/// How many threads of the system want to run now, this one among them.
fn runnable() -> Option<u32> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let (running, _) = text.split_whitespace().nth(3)?.split_once('/')?;
    running.parse().ok()
}

fn processor(place: Place) -> Option<usize> {
    match place & ANYWHERE {
        ANYWHERE => None,
        low => usize::try_from(low).ok(),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Shared {
    fn bound(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        nanos(self.started.elapsed())
    }

    fn is_following(&self) -> bool {
        processor(self.place.load(Ordering::Acquire)).is_some()
    }

    /// Event loops hear of a new place with their next request; until then those that were bound are not any more.
    fn decide(&self, low: Place) {
        let mut bound = self.bound();
        let old = self.place.load(Ordering::Relaxed);
        if old & ANYWHERE == low {
            return;
        }
        let decision = (old & !ANYWHERE).wrapping_add(DECISION);
        self.place.store(decision | low, Ordering::Release);
        for thread in bound.drain(..) {
            // It may have ended. Only speed is lost if the system refuses.
            let _ = set_class(thread.as_raw_pid(), Class::Other);
            let _ = sched_setaffinity(Some(thread), &self.everywhere);
        }
        if low == ANYWHERE {
            self.free.notify_all();
        } else if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }

    /// Following does not work now.
    fn leave_alone(&self) {
        let alone = self.alone.load(Ordering::Relaxed);
        let longer = (2 * alone).min(nanos(ALONE.1));
        self.alone.store(longer, Ordering::Relaxed);
        let until = self.now().saturating_add(alone);
        self.alone_until.store(until, Ordering::Relaxed);
        self.decide(ANYWHERE);
    }

    /// The calling event loop goes where it was decided to go.
    fn obey(&self) {
        let mut bound = self.bound();
        let place = self.place.load(Ordering::Relaxed);
        HEARD.set(place);
        let Some(processor) = processor(place) else {
            return;
        };
        let mut only = CpuSet::new();
        only.set(processor);
        if sched_setaffinity(None, &only).is_ok() {
            bound.push(gettid());
            let _ = set_class(0, Class::Idle);
        }
    }

    /// Whether an event loop that comes after everybody else would come too late.
    fn is_crowded(&self) -> bool {
        runnable().is_none_or(|threads| threads > self.room)
    }

    /// Looks where the asker runs, and decides.
    fn review(&self, asker: u32) {
        if self.now() < self.alone_until.load(Ordering::Relaxed) {
            return;
        }
        if self.is_crowded() {
            return self.leave_alone();
        }
        let found = stat(&format!("/proc/{asker}/stat"), PROCESSOR)
            .and_then(|number| number.parse().ok())
            .filter(|&number| number < CpuSet::MAX_CPU && self.everywhere.is_set(number));
        let Some(found) = found else {
            return self.decide(ANYWHERE);
        };
        let moves = self.moves.load(Ordering::Relaxed);
        let moves = match processor(self.place.load(Ordering::Acquire)) {
            Some(old) if old != found => {
                // Whether it stays there is worth another look soon.
                self.row.store(ROW - SOON, Ordering::Relaxed);
                moves + MOVE
            }
            _ => {
                let alone = self.alone.load(Ordering::Relaxed);
                let shorter = (alone / 2).max(nanos(ALONE.0));
                self.alone.store(shorter, Ordering::Relaxed);
                moves.saturating_sub(1)
            }
        };
        if moves > RESTLESS {
            self.moves.store(0, Ordering::Relaxed);
            return self.leave_alone();
        }
        self.moves.store(moves, Ordering::Relaxed);
        self.decide(found as Place);
    }

    /// Counts one more request and answers how many the asker has made in a row: none while there are several.
    fn count(&self, asker: u32, closely: bool) -> u32 {
        let same = self.asker.swap(asker, Ordering::Relaxed) == asker;
        let crowd = self.crowd.load(Ordering::Relaxed);
        let crowd = if same {
            crowd.saturating_sub(1)
        } else {
            (crowd + CHANGE).min(MOST)
        };
        self.crowd.store(crowd, Ordering::Relaxed);
        let row = if same && closely && crowd < CROWD {
            self.row.load(Ordering::Relaxed).saturating_add(1)
        } else {
            0
        };
        self.row.store(row, Ordering::Relaxed);
        row
    }

    /// A request of `asker` has come.
    fn note(&self, asker: u32) {
        let now = self.now();
        let last = self.last.swap(now, Ordering::Relaxed);
        // The kernel's own requests say nothing about who asks.
        if asker != 0 {
            let closely = now.saturating_sub(last) <= nanos(CLOSELY);
            let row = self.count(asker, closely);
            if row % REVIEW == ROW {
                self.review(asker);
            } else if row == 0 && self.is_following() {
                self.interrupted();
            }
        }
        if HEARD.get() != self.place.load(Ordering::Acquire) {
            self.obey();
        }
    }

    /// The asker is followed, and this request is not the next in its row.
    fn interrupted(&self) {
        let several = self.crowd.load(Ordering::Relaxed) >= CROWD;
        if !several && self.is_crowded() {
            // It may have asked long ago.
            self.leave_alone();
        } else {
            self.decide(ANYWHERE);
        }
    }

    /// Most often there is nothing to decide.
    fn decide_anywhere(&self) {
        if self.is_following() {
            self.decide(ANYWHERE);
        }
    }

    /// The calling event loop is about to read the next request, or waits until it is needed for that.
    fn read_on(&self) {
        let alone = || {
            self.reading
                .compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        if self.is_following() {
            if alone() {
                return;
            }
            let mut bound = self.bound();
            while self.is_following() {
                if alone() {
                    return;
                }
                bound = self
                    .free
                    .wait(bound)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        self.reading.fetch_add(1, Ordering::Relaxed);
    }

    /// For how many nanoseconds event loops that are bound could run and did not get to.
    fn kept_waiting(&self) -> u64 {
        let bound = self.bound();
        let of = |thread: &Pid| -> Option<u64> {
            let path = format!("/proc/self/task/{}/schedstat", thread.as_raw_pid());
            let text = fs::read_to_string(path).ok()?;
            text.split_whitespace().nth(1)?.parse().ok()
        };
        bound.iter().filter_map(of).sum()
    }

    /// Ends the following whenever two moments have passed without a request.
    fn watch(&self) {
        while !self.ended.load(Ordering::Acquire) {
            if !self.is_following() {
                thread::park();
                continue;
            }
            let before = self.last.load(Ordering::Relaxed);
            let is_silent = || {
                thread::park_timeout(MOMENT);
                self.last.load(Ordering::Relaxed) == before
            };
            if !is_silent() {
                continue;
            }
            let waited = self.kept_waiting();
            if is_silent() {
                if self.kept_waiting().saturating_sub(waited) > nanos(MOMENT / 2) {
                    self.leave_alone();
                }
                self.decide_anywhere();
            }
        }
        self.decide_anywhere();
    }
}

/// Notes requests, and has event loops follow whoever makes them.
#[derive(Debug)]
pub(crate) struct Follow {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

/// A request that is being served.
#[derive(Debug)]
pub(crate) struct Turn<'f>(&'f Shared);

impl Follow {
    /// For so many event loops, all of which read requests.
    ///
    /// # Errors
    /// No right to change how threads are scheduled, or no thread to be had.
    pub(crate) fn new(loops: usize) -> io::Result<Self> {
        Self::start(loops, sched_getaffinity(None)?.count())
    }

    fn start(loops: usize, room: u32) -> io::Result<Self> {
        if !can_change_class() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let shared = Arc::new(Shared {
            started: Instant::now(),
            last: AtomicU64::new(0),
            asker: AtomicU32::new(0),
            row: AtomicU32::new(0),
            crowd: AtomicU32::new(0),
            moves: AtomicU32::new(0),
            alone_until: AtomicU64::new(0),
            alone: AtomicU64::new(nanos(ALONE.0)),
            place: AtomicU64::new(ANYWHERE),
            bound: Mutex::new(Vec::new()),
            free: Condvar::new(),
            reading: AtomicUsize::new(loops),
            everywhere: sched_getaffinity(None)?,
            room,
            watcher: OnceLock::new(),
            ended: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shared);
        let watcher = thread::Builder::new()
            .name("ext2dax-follow".to_owned())
            .spawn(move || watched.watch())?;
        // Before the first request: each decision to follow wakes it.
        let _ = shared.watcher.set(watcher.thread().clone());
        Ok(Self {
            shared,
            watcher: Some(watcher),
        })
    }

    /// The calling event loop has got a request of the thread `asker`, 0 for the kernel's own, and has answered it when
    /// the turn is dropped.
    pub(crate) fn turn(&self, asker: u32) -> Turn<'_> {
        self.shared.reading.fetch_sub(1, Ordering::Relaxed);
        self.shared.note(asker);
        Turn(&self.shared)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // An event loop that panics reads no more.
        if !thread::panicking() {
            self.0.read_on();
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(watcher) = self.watcher.take() {
            watcher.thread().unpark();
            // It does not panic.
            let _ = watcher.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program that asks one thing after the other has its event loop do.
    fn ask(follow: &Follow, asker: u32, requests: u32) {
        for _ in 0..requests {
            drop(follow.turn(asker));
        }
    }

    /// Waits, with a limit, for what another thread brings about.
    fn comes_about(what: impl Fn() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while !what() {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn policy_of_this_thread() -> String {
        stat("/proc/thread-self/stat", POLICY).expect("Linux tells")
    }

    /// `None`, said aloud, where this process may not change how it is scheduled, or has one processor.
    fn follow(loops: usize) -> Option<Follow> {
        // However busy the machine is.
        match Follow::start(loops, u32::MAX) {
            Ok(follow) => Some(follow),
            Err(error) => {
                eprintln!("skipped: {error}");
                assert!(std::env::var_os("CI").is_none(), "in CI it must run");
                None
            }
        }
    }

    #[test]
    fn an_event_loop_follows_an_asker_and_is_let_go_when_it_is_silent() {
        let Some(follow) = follow(1) else { return };
        let me = u32::try_from(gettid().as_raw_pid()).expect("positive");
        let everywhere = sched_getaffinity(None).expect("Linux tells");
        for _ in 0..3 {
            ask(&follow, me, 1);
            assert_eq!(policy_of_this_thread(), "0", "one request alone");
            // On a busy machine requests in a row are further apart now and then.
            let end = Instant::now() + Duration::from_secs(10);
            while policy_of_this_thread() != "5" {
                assert!(Instant::now() < end, "requests in a row");
                ask(&follow, me, 2 * ROW);
            }
            assert!(comes_about(|| policy_of_this_thread() == "0"));
            let now = sched_getaffinity(None).expect("Linux tells");
            assert_eq!(now, everywhere, "it may run everywhere again");
        }
        drop(follow);
        assert_eq!(policy_of_this_thread(), "0");
    }

    #[test]
    fn nobody_is_followed_while_two_ask_in_turns() {
        let Some(follow) = follow(1) else { return };
        let me = u32::try_from(gettid().as_raw_pid()).expect("positive");
        for _ in 0..1_000 {
            ask(&follow, me, 1);
            ask(&follow, me + 1, 1);
            assert!(!follow.shared.is_following());
        }
    }

    #[test]
    fn one_event_loop_reads_for_one_asker_and_all_do_afterwards() {
        let Some(follow) = follow(3) else { return };
        let asker = u32::try_from(gettid().as_raw_pid()).expect("positive");
        let reading = || follow.shared.reading.load(Ordering::Relaxed);
        let stop = AtomicBool::new(false);
        let one_reads = thread::scope(|scope| {
            for _ in 0..3 {
                // Each thread is an event loop: whoever need not read stays in its request.
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        ask(&follow, asker, 1);
                    }
                });
            }
            let one_reads = comes_about(|| reading() <= 1 && follow.shared.is_following());
            stop.store(true, Ordering::Relaxed);
            one_reads
        });
        assert!(one_reads, "requests in a row");
        // Whoever waited was let go when the one who read was silent.
        assert!(comes_about(|| !follow.shared.is_following()));
        assert_eq!(reading(), 3);
    }
}
