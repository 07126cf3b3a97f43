//! Signals on top of everything: what only a handler, or a child, of this process can show.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use ext2dax_dax::{Allocated, BlockMap, DaxFile, Extent, Gates};
use ext2dax_format::Error;
use ext2dax_pmem::{FileRegion, Pmem};
use ext2dax_sync::{Mutex, RwLock, rank};

use super::super::{Access, HostMmu, Mode, Options, View, Want};

const PAGES: usize = 64;
const PAGE: usize = 4096;

/// Block `n` of the file is block `n` of the image, if its bit is set: no heap, so that a handler may use it.
struct Straight {
    present: Mutex<u64>,
    copy: AtomicU64,
    pmem: Pmem,
}

impl Straight {
    fn run(&self, bits: u64, at: u64, max: u64) -> Extent {
        let is_there = |block: u64| bits & 1 << block != 0;
        let first = is_there(at);
        let len = (at..(at + max).min(PAGES as u64))
            .take_while(|&block| is_there(block) == first)
            .count() as u64;
        if first {
            Extent::Data { off: at << 12, len }
        } else {
            Extent::Hole { len: len.max(1) }
        }
    }
}

impl BlockMap for Straight {
    type Detached = u64;

    fn block_bits(&self) -> u32 {
        12
    }
    fn max_size(&self) -> u64 {
        (PAGES * PAGE) as u64
    }
    fn lookup(&self, at: u64, max: u64) -> Result<Extent, Error> {
        Ok(self.run(self.copy.load(Ordering::Acquire), at, max))
    }
    fn allocate(&self, at: u64, max: u64) -> Result<Allocated, Error> {
        let mut present = self.present.lock();
        let (off, len, new) = match self.run(*present, at, max) {
            Extent::Data { off, len } => (off, len, false),
            Extent::Hole { len } => (at << 12, len, true),
        };
        if new {
            self.pmem.zero(off, len << 12);
            *present |= (at..at + len).fold(0, |bits, block| bits | 1 << block);
            self.copy.store(*present, Ordering::Release);
        }
        Ok(Allocated { off, len, new })
    }
    fn detach(&self, blocks: Range<u64>) -> Result<u64, Error> {
        let mut present = self.present.lock();
        let gone = (blocks.start..blocks.end.min(PAGES as u64))
            .fold(0, |bits, block| bits | 1 << block)
            & *present;
        *present &= !gone;
        self.copy.store(*present, Ordering::Release);
        Ok(gone)
    }
    fn runs(&self, detached: &u64, each: &mut dyn FnMut(u64, u64)) {
        (0..PAGES as u64)
            .filter(|block| detached & 1 << block != 0)
            .for_each(|block| each(block << 12, 1));
    }
    fn free(&self, _detached: u64) {}
    fn commit_size(&self, _from: u64, _to: u64) -> Result<(), Error> {
        Ok(())
    }
    fn finish_shrink(&self) -> Result<(), Error> {
        Ok(())
    }
    fn touch(&self) {}
    fn report_corrupt(&self, _error: Error) {}
}

struct Fixture {
    file: Arc<DaxFile<Straight>>,
    gates: Arc<Gates>,
    inode: RwLock<()>,
    mmu: HostMmu,
    _image: tempfile::NamedTempFile,
}

impl Fixture {
    fn new() -> Fixture {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len((PAGES * PAGE) as u64).unwrap();
        let region = FileRegion::open(image.path(), ext2dax_pmem::Access::ReadWrite).unwrap();
        let options = Options {
            mode: Want::Only(Mode::Signals),
            hole_fill_pages: 1,
            max_mappings: None,
        };
        let mmu = HostMmu::new(region.file(), 0, &options).unwrap();
        let (pmem, gates) = (Pmem::new(region), Arc::new(Gates::new()));
        let map = Straight {
            present: Mutex::new(rank::TREE, 0),
            copy: AtomicU64::new(0),
            pmem: pmem.clone(),
        };
        let file = Arc::new(DaxFile::new(
            map,
            pmem,
            Arc::clone(&gates),
            (PAGES * PAGE) as u64,
        ));
        Fixture {
            file,
            gates,
            inode: RwLock::new(rank::INODE, ()),
            mmu,
            _image: image,
        }
    }

    fn view(&self) -> View {
        self.mmu
            .map(
                Arc::clone(&self.file),
                0..(PAGES * PAGE) as u64,
                Access::ReadWrite,
            )
            .unwrap()
    }

    fn punch(&self, pages: Range<u64>) {
        let _gate = self.gates.write.enter();
        let _inode = self.inode.write();
        self.file.punch(pages.start << 12..pages.end << 12).unwrap();
    }
}

/// Where the alarm handler stores, and how often it has.
static TARGET: AtomicPtr<View> = AtomicPtr::new(std::ptr::null_mut());
static ALARMS: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_alarm(_signal: libc::c_int) {
    // SAFETY: the test takes the alarm away before the view.
    if let Some(view) = unsafe { TARGET.load(Ordering::SeqCst).as_ref() } {
        let alarm = ALARMS.fetch_add(1, Ordering::SeqCst);
        let page = usize::try_from(alarm % PAGES as u64).unwrap_or(0);
        // Nothing to assert with in a handler: a store that is refused shows as a hang or a missing word below.
        let _ = view.store(page * PAGE + 8, alarm);
    }
}

fn every_half_millisecond(on: bool) {
    let period = libc::timeval {
        tv_sec: 0,
        tv_usec: if on { 500 } else { 0 },
    };
    let timer = libc::itimerval {
        it_interval: period,
        it_value: period,
    };
    // SAFETY: the timer is valid; the handler is installed before and stays.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    assert_eq!(set, 0);
}

/// An alarm that stores to a view arrived while its thread held the lock that the store's fault needed (RF-16 of the
/// design): the thread waited for itself for ever. Locks from INVALIDATE up are behind a shield now.
#[test]
fn an_alarm_handler_that_stores_to_a_view_never_waits_for_its_own_thread() {
    let fixture = Fixture::new();
    let view = fixture.view();
    let action_of_alarm = libc::sigaction {
        sa_sigaction: on_alarm as *const () as libc::sighandler_t,
        sa_mask: super::every_signal(),
        sa_flags: libc::SA_RESTART,
        sa_restorer: None,
    };
    // The faults of its own store must come through.
    let mut action_of_alarm = action_of_alarm;
    for signal in super::HANDLED {
        // SAFETY: the set is valid and ours.
        unsafe { libc::sigdelset(&raw mut action_of_alarm.sa_mask, signal) };
    }
    let before = super::action(libc::SIGALRM, Some(&action_of_alarm)).unwrap();
    TARGET.store(std::ptr::from_ref(&view).cast_mut(), Ordering::SeqCst);

    let done = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&done);
    let watchdog = std::thread::spawn(move || {
        // The watchdog itself takes no alarm.
        super::block_all();
        let mut last = 0;
        while !watched.load(Ordering::Relaxed) {
            std::thread::park_timeout(std::time::Duration::from_secs(20));
            let now = ALARMS.load(Ordering::SeqCst);
            if now == last && !watched.load(Ordering::Relaxed) {
                super::super::die("HUNG: an alarm waits for its own thread");
            }
            last = now;
        }
    });
    every_half_millisecond(true);
    let mut round = 0_u64;
    while ALARMS.load(Ordering::SeqCst) < 1500 {
        let page = round % PAGES as u64;
        fixture.punch(page..(page + 9).min(PAGES as u64));
        view.store(usize::try_from(page).unwrap() * PAGE, round)
            .unwrap();
        assert_eq!(
            view.load(usize::try_from(page).unwrap() * PAGE),
            Ok(round),
            "only this thread punches"
        );
        fixture.file.evict(0..PAGES as u64);
        round += 1;
    }
    every_half_millisecond(false);
    TARGET.store(std::ptr::null_mut(), Ordering::SeqCst);
    super::action(libc::SIGALRM, Some(&before)).unwrap();
    done.store(true, Ordering::Relaxed);
    watchdog.thread().unpark();
    watchdog.join().unwrap();
    println!("{round} rounds, {:?}", fixture.mmu.stats());
}

/// A child inherits no page of a view, in no state: an access there is SIGSEGV, and the parent goes on (RF-17).
#[test]
fn a_child_gets_no_page_of_a_view() {
    let fixture = Fixture::new();
    let view = fixture.view();
    view.store(0, 1).unwrap();
    assert_eq!(view.load(PAGE), Ok(0));
    for page in [0, 1, 40] {
        let at = view.as_ptr().wrapping_add(page * PAGE);
        // SAFETY: the child calls nothing but async-signal-safe functions.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: SIG_DFL is a valid action for SIGSEGV.
            unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
            // SAFETY: the access is meant to be refused by the kernel; no reference is made of it.
            let byte = unsafe { at.read_volatile() };
            // SAFETY: ends the child without running destructors of the parent's values.
            unsafe { libc::_exit(i32::from(byte)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made; `status` is writable.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV,
            "page {page}: status {status:#x}"
        );
    }
    assert_eq!(view.load(0), Ok(1));
    view.store(40 * PAGE, 2).unwrap();
}

static FOREIGN: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_foreign(
    _signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    FOREIGN.fetch_add(1, Ordering::SeqCst);
    // The access cannot be repaired: go on behind it, at the caller, with the address as the answer.
    #[cfg(target_arch = "x86_64")]
    {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the third argument of a handler with SA_SIGINFO.
        let registers = unsafe { &mut (*context).uc_mcontext.gregs };
        let pc = usize::try_from(libc::REG_RIP).unwrap_or(0);
        let at = usize::try_from(registers[pc]).unwrap_or(0);
        registers[pc] = super::super::access::landing(at)
            .map_or(0, |landing| libc::greg_t::try_from(landing).unwrap_or(0));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = context;
}

/// A fault outside every view is the business of whoever had the signal before.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_foreign_fault_reaches_the_handler_that_was_there_before() {
    let fixture = Fixture::new();
    let view = fixture.view();
    let nowhere = super::super::sys::Reservation::new(PAGE, 0).unwrap();
    // Our handlers are in place; the program's is put behind them, as if it had been there first.
    let foreign = libc::sigaction {
        sa_sigaction: on_foreign as *const () as libc::sighandler_t,
        sa_mask: super::every_signal(),
        sa_flags: libc::SA_SIGINFO,
        sa_restorer: None,
    };
    let before = super::PREVIOUS[0].swap(Box::into_raw(Box::new(foreign)), Ordering::SeqCst);
    super::super::access::touch(nowhere.span().va());
    assert_eq!(FOREIGN.load(Ordering::SeqCst), 1);
    super::PREVIOUS[0].store(before, Ordering::SeqCst);
    view.store(0, 1).unwrap();
    assert_eq!(view.load(0), Ok(1), "ours are still served");
}
