//! Page faults as signals: SIGSEGV and SIGBUS in the thread that made them, served there.
//!
//! A fault is a store or load of a page without rights (missing), of read-only zeroes (a hole) or of a read-only piece;
//! the handler decides it as the fault thread would, except that it may wait: each thread serves only itself, and touches
//! no user memory while it holds a lock (`faults.md` L-1 in the design: nothing of rank INVALIDATE or above).
//!
//! Everything here is async-signal-safe: no heap, no locks of std, no panics that unwind.
//!
//! # Globals
//! [`VIEWS`] and [`PREVIOUS`] are the only ones of the workspace: a signal handler is handed an address and nothing else.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use ext2dax_sync::shield::{self, Shield};

use super::record::Page;
use super::registry::Registry;
use super::stats::bump;
use super::{Mapped, Wait};
use crate::Outcome;

/// Every view whose faults come as signals.
pub(super) static VIEWS: Registry = Registry::new();

/// The actions that were in force before ours, for SIGSEGV and SIGBUS; never freed.
static PREVIOUS: [AtomicPtr<libc::sigaction>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];
const HANDLED: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Attempts before a fault without memory for its mapping becomes the program's own signal.
const MEMORY_ATTEMPTS: u32 = 100;

/// Puts our handlers in front of the program's, unless they are there.
///
/// Called when an MMU in Signals mode is made. A program that installs a handler for SIGSEGV or SIGBUS afterwards calls
/// it again; the handlers found then are called for faults that are not ours.
///
/// # Errors
/// That of `sigaction`.
pub fn reinstall() -> io::Result<()> {
    // A handler of the program that touches a view must not run on top of a lock that its fault needs.
    shield::install(Shield { raise, lower });
    HANDLED.into_iter().try_for_each(install)
}

thread_local! {
    /// Locks held behind the shield, and the mask to go back to when there is none left.
    static SHIELDED: Cell<u32> = const { Cell::new(0) };
    static MASK: Cell<Option<libc::sigset_t>> = const { Cell::new(None) };
}

fn raise() {
    if SHIELDED.get() == 0 {
        // The mask is in place before the count says so: a handler in between finds a count of zero and nests.
        let before = set_mask(&asynchronous_signals());
        MASK.set(Some(before));
    }
    SHIELDED.set(SHIELDED.get() + 1);
}

fn lower() {
    SHIELDED.set(SHIELDED.get() - 1);
    if SHIELDED.get() == 0
        && let Some(mask) = MASK.take()
    {
        set_mask(&mask);
    }
}

/// All but those that an instruction causes: blocked, they would end the process without a word.
fn asynchronous_signals() -> libc::sigset_t {
    let mut set = every_signal();
    for signal in [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGTRAP,
        libc::SIGABRT,
    ] {
        // SAFETY: the set is valid and exclusively ours.
        unsafe { libc::sigdelset(&raw mut set, signal) };
    }
    set
}

/// From now on an access by [`super::View::load`] and its relatives that would be SIGBUS is an error instead.
///
/// Puts our handler for SIGBUS in front of the program's, which still gets every signal that is not ours.
///
/// # Errors
/// That of `sigaction`.
pub fn survive_bus() -> io::Result<()> {
    install(libc::SIGBUS)
}

fn install(signal: libc::c_int) -> io::Result<()> {
    let slot = if signal == libc::SIGSEGV {
        &PREVIOUS[0]
    } else {
        &PREVIOUS[1]
    };
    {
        let current = action(signal, None)?;
        let ours = on_fault as *const () as libc::sighandler_t;
        if current.sa_sigaction == ours {
            return Ok(());
        }
        slot.store(Box::into_raw(Box::new(current)), Ordering::SeqCst);
        // SAFETY: a sigaction is plain data, for which zeroes are a valid value.
        let mut action_of_ours: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action_of_ours.sa_sigaction = ours;
        // On the thread's own stack: filling a hole takes more than the few KiB of the alternative stacks that std gives
        // its threads. The price: a stack overflow ends the process without std's message.
        action_of_ours.sa_flags = libc::SA_SIGINFO;
        // No handler of the program may run, and fault, on top of ours.
        action_of_ours.sa_mask = every_signal();
        action(signal, Some(&action_of_ours))?;
    }
    Ok(())
}

fn action(signal: libc::c_int, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut old = MaybeUninit::zeroed();
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `new` is null or valid, `old` is writable; our handler is async-signal-safe.
    if unsafe { libc::sigaction(signal, new, old.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroes are a valid value, and the kernel has filled it in.
    Ok(unsafe { old.assume_init() })
}

fn every_signal() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is writable and sigfillset initialises all of it.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: initialised above.
    unsafe { set.assume_init() }
}

fn set_mask(mask: &libc::sigset_t) -> libc::sigset_t {
    let mut old = MaybeUninit::zeroed();
    // SAFETY: both sets are valid; the call changes this thread's mask only.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, old.as_mut_ptr()) };
    // SAFETY: zeroes are a valid set, and the call has filled it in.
    unsafe { old.assume_init() }
}

/// No handler of the program runs on this thread from now on.
pub(super) fn block_all() {
    set_mask(&every_signal());
}

extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: glibc and musl both give each thread its own errno, valid for its life.
    let errno_at = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let errno = unsafe { *errno_at };
    // SAFETY: the kernel called us with these arguments for an action that asked for SA_SIGINFO.
    let served = unsafe { on_signal(signal, info, context) };
    // SAFETY: as above.
    if !served && !unsafe { land(signal, info, context) } {
        pass_on(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *errno_at = errno };
}

/// Serves a SIGSEGV or SIGBUS if it is a page fault of a view; false if it is the program's own.
///
/// For programs that keep their own handlers: they call this first. The signal must be delivered with every other signal
/// blocked (a full `sa_mask`).
///
/// # Safety
/// The three arguments are those of a handler installed with `SA_SIGINFO`.
#[must_use]
pub unsafe fn on_signal(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) -> bool {
    // SAFETY: the caller's promise.
    let sent_by_kernel = unsafe { (*info).si_code } > 0;
    if !sent_by_kernel {
        return false;
    }
    // SAFETY: the caller's promise.
    let va = unsafe { address(info) };
    let Some(view) = VIEWS.find(va) else {
        return false;
    };
    // SAFETY: the caller's promise.
    let write = unsafe { is_store(context) };
    serve(&view, view.table.idx(va), signal, write)
}

/// The address that could not be accessed.
///
/// # Safety
/// The second argument of a handler with `SA_SIGINFO`, for SIGSEGV or SIGBUS.
unsafe fn address(info: *mut libc::siginfo_t) -> usize {
    // SAFETY: the caller's promise.
    let info = unsafe { &*info };
    // SAFETY: the kernel fills the address in for these signals.
    unsafe { info.si_addr() }.addr()
}

/// Lets one of our own routines end with the address that failed.
///
/// # Safety
/// The arguments of a signal handler with `SA_SIGINFO`.
unsafe fn land(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if signal == libc::SIGBUS {
        // SAFETY: the caller's promise; the handler may change the registers that the thread goes on with.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let [pc, result] =
            [libc::REG_RIP, libc::REG_RAX].map(|at| usize::try_from(at).expect("a small index"));
        let at = usize::try_from(registers[pc]).unwrap_or(0);
        if let Some(resume) = ext2dax_pmem::resume_after_fault(at) {
            // A copy of the library from or to user memory: it ends early and says how far it came.
            registers[pc] = libc::greg_t::try_from(resume).expect("an address of user space");
            return true;
        }
        let Some(landing) = super::access::landing(at) else {
            return false;
        };
        // SAFETY: the caller's promise.
        let va = unsafe { address(info) };
        registers[pc] = libc::greg_t::try_from(landing).expect("an address of user space");
        registers[result] = libc::greg_t::try_from(va).expect("an address of user space");
        return true;
    }
    let _ = (signal, info, context);
    false
}

/// Whether the access was a store, if this processor says so.
///
/// # Safety
/// `context` is the third argument of a signal handler.
unsafe fn is_store(context: *mut libc::c_void) -> Option<bool> {
    #[cfg(target_arch = "x86_64")]
    {
        const STORE: libc::greg_t = 2;
        let context = context.cast::<libc::ucontext_t>();
        let register = usize::try_from(libc::REG_ERR).ok()?;
        // SAFETY: the caller's promise; the page-fault error code is saved there.
        Some(unsafe { (*context).uc_mcontext.gregs[register] } & STORE != 0)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = context;
        None
    }
}

fn serve(view: &Mapped, idx: u64, signal: libc::c_int, write: Option<bool>) -> bool {
    let core = &view.core;
    bump(&core.stats.faults);
    for _ in 0..MEMORY_ATTEMPTS {
        let write = match (view.table.page(idx), signal) {
            // The kernel could not read the image: truncated by somebody, or an I/O error. Nothing here can help.
            (Page::Block { .. }, libc::SIGBUS) => return false,
            (Page::Block { writable: true, .. }, _) => {
                bump(&core.stats.spurious);
                return true;
            }
            // Readable: only a store faults. Without the right to store it is the program's own mistake.
            (Page::Block { .. } | Page::Zero, _) if !view.table.may_store() => {
                return write == Some(false);
            }
            (Page::Block { .. } | Page::Zero, _) => write.unwrap_or(true),
            (Page::Missing | Page::Bus, _) => write.unwrap_or(false),
        };
        let around = core.around(view, idx);
        match view.server.fault(idx, write, around, Wait::Allowed) {
            Outcome::Installed | Outcome::Retry | Outcome::FallbackToPage | Outcome::CutShort => {
                if core.over_budget() {
                    core.keep_budget();
                }
                return true;
            }
            Outcome::Bus(bus) => {
                view.note_error(core, idx, bus);
                // The EOF file lies there now and answers with the exact address; then the signal is the program's.
                return signal == libc::SIGSEGV;
            }
            Outcome::Segv => return false,
            Outcome::NoMemory | Outcome::WouldBlock => {
                core.keep_budget();
                std::thread::yield_now();
            }
        }
    }
    false
}

/// Hands a signal that is not ours to whoever had it before.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let slot = if signal == libc::SIGSEGV {
        &PREVIOUS[0]
    } else {
        &PREVIOUS[1]
    };
    // SAFETY: null, or a leaked box.
    let previous = unsafe { slot.load(Ordering::SeqCst).as_ref() };
    let Some(previous) =
        previous.filter(|p| !matches!(p.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN))
    else {
        // SAFETY: a sigaction is plain data, for which zeroes are a valid value: SIG_DFL.
        let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        // The access faults again and the kernel ends the process as if we were not there.
        let _ = action(signal, Some(&default));
        return;
    };
    let ours = set_mask(&mask_for(previous, signal, context));
    if previous.sa_flags & libc::SA_SIGINFO != 0 {
        type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: an action with SA_SIGINFO holds a function of this type.
        let handler =
            unsafe { std::mem::transmute::<libc::sighandler_t, WithInfo>(previous.sa_sigaction) };
        handler(signal, info, context);
    } else {
        // SAFETY: an action without SA_SIGINFO that is neither default nor ignore holds a function of this type.
        let handler = unsafe {
            std::mem::transmute::<libc::sighandler_t, extern "C" fn(libc::c_int)>(
                previous.sa_sigaction,
            )
        };
        handler(signal);
    }
    set_mask(&ours);
}

/// The mask that an action runs under: the interrupted thread's, its own, and the signal unless it said otherwise.
fn mask_for(
    action: &libc::sigaction,
    signal: libc::c_int,
    context: *mut libc::c_void,
) -> libc::sigset_t {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the third argument of a handler with SA_SIGINFO.
    let mut mask = unsafe { (*context).uc_sigmask };
    for other in 1..=64 {
        // SAFETY: the set is valid; a number that is no signal gives an error, which reads as "not in it".
        if unsafe { libc::sigismember(&raw const action.sa_mask, other) } == 1 {
            // SAFETY: the set is valid and exclusively ours.
            unsafe { libc::sigaddset(&raw mut mask, other) };
        }
    }
    if action.sa_flags & libc::SA_NODEFER == 0 {
        // SAFETY: the set is valid and exclusively ours.
        unsafe { libc::sigaddset(&raw mut mask, signal) };
    }
    mask
}

#[cfg(test)]
mod tests;
