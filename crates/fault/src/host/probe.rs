//! Which mode this process can have: found out by doing each thing once on a page of the real kind.
//!
//! Feature bits only say that the kernel knows a name. What decides is a shadow page that could be registered and a
//! zero window that could be protected and moved.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::sys::uffd::{
    FEATURE_EVENT_REMAP, FEATURE_MISSING_SHMEM, FEATURE_THREAD_ID, FEATURE_WP,
    FEATURE_WP_UNPOPULATED, Reach, Uffd, Watch,
};
use super::sys::{self, Rights, Stage};

/// How page faults reach the library, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// userfaultfd that serves instructions and system calls. Needs `CAP_SYS_PTRACE`, or
    /// `vm.unprivileged_userfaultfd=1`, or access to `/dev/userfaultfd`.
    Userfault,
    /// userfaultfd that serves instructions only: a system call on a page that is not mapped yet gives EFAULT.
    UserfaultUserOnly,
    /// SIGSEGV and SIGBUS handlers in the faulting thread. System calls as in `UserfaultUserOnly`.
    Signals,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Userfault => "userfault",
            Mode::UserfaultUserOnly => "userfault-user-only",
            Mode::Signals => "signals",
        })
    }
}

/// Which mode the caller wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// The best that works; signal handlers as the last resort.
    #[default]
    Auto,
    /// The best that works without signal handlers.
    AutoWithoutSignals,
    /// This one or an error.
    Only(Mode),
}

/// How a hole is kept readable and its first store noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZeroWindow {
    /// Protection of pages that do not exist (Linux 6.4): no memory, hardly any time.
    Markers,
    /// Zero pages first, then protection.
    Populated,
}

/// The mode that was chosen, and why not a better one.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) mode: Mode,
    pub(super) why: String,
    pub(super) uffd: Option<Uffd>,
    pub(super) zero_window: ZeroWindow,
}

/// Chooses.
///
/// # Errors
/// `Unsupported`, naming each failing call, when nothing that the caller accepts works.
pub(super) fn choose(want: Want) -> io::Result<Choice> {
    let mut refusals = String::new();
    for (mode, reach) in [
        (Mode::Userfault, Reach::All),
        (Mode::UserfaultUserOnly, Reach::UserOnly),
    ] {
        if matches!(want, Want::Only(only) if only != mode) {
            continue;
        }
        match open(reach) {
            Ok((uffd, zero_window)) => {
                let why = format!("{refusals}{mode} works");
                return Ok(Choice {
                    mode,
                    why,
                    uffd: Some(uffd),
                    zero_window,
                });
            }
            Err((call, error)) => {
                refusals += &format!("{mode}: {call}: {error}{}; ", remedy(mode, &error));
            }
        }
    }
    match want {
        Want::Auto | Want::Only(Mode::Signals) => {
            let why = format!("{refusals}signal handlers in the faulting thread");
            Ok(Choice {
                mode: Mode::Signals,
                why,
                uffd: None,
                zero_window: ZeroWindow::Populated,
            })
        }
        Want::AutoWithoutSignals | Want::Only(_) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("no way to serve page faults: {refusals}"),
        )),
    }
}

fn remedy(mode: Mode, error: &io::Error) -> &'static str {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    match mode {
        Mode::Userfault if denied => {
            " (allow it with sysctl vm.unprivileged_userfaultfd=1, or chmod a+rw /dev/userfaultfd)"
        }
        _ => "",
    }
}

/// A descriptor that has been tried on a shadow page and on a zero window.
fn open(reach: Reach) -> Result<(Uffd, ZeroWindow), (&'static str, io::Error)> {
    // Not EVENT_UNMAP, EVENT_REMOVE: our own calls would wait for ourselves. Not EVENT_FORK, SIGBUS, WP_ASYNC: they
    // hold for the whole context.
    let wanted = FEATURE_WP
        | FEATURE_EVENT_REMAP
        | FEATURE_THREAD_ID
        | FEATURE_MISSING_SHMEM
        | FEATURE_WP_UNPOPULATED;
    let uffd = Uffd::open(reach, wanted)?;
    let missing = |name| Err((name, io::ErrorKind::Unsupported.into()));
    if !uffd.has(FEATURE_EVENT_REMAP) {
        return missing("UFFD_FEATURE_EVENT_REMAP");
    }
    if !uffd.has(FEATURE_WP) {
        return missing("UFFD_FEATURE_PAGEFAULT_FLAG_WP");
    }
    if !uffd.has(FEATURE_MISSING_SHMEM) {
        return missing("UFFD_FEATURE_MISSING_SHMEM");
    }
    let page = sys::page_size();
    let shadow =
        sys::memory_file("ext2dax-probe", page as u64).map_err(|error| ("memfd_create", error))?;
    let stage =
        Stage::file(shadow.as_fd(), 0, page).map_err(|error| ("mmap of a shadow", error))?;
    uffd.register(stage.span(), Watch::Missing)
        .map_err(|error| ("UFFDIO_REGISTER of a shadow", error))?;
    let style = if uffd.has(FEATURE_WP_UNPOPULATED) {
        ZeroWindow::Markers
    } else {
        ZeroWindow::Populated
    };
    // Not moved: nobody reads this descriptor's events yet, and a move would wait for that.
    zero_stage(&uffd, style, page)
        .map_err(|error| ("UFFDIO_WRITEPROTECT of a zero window", error))?;
    Ok((uffd, style))
}

/// A window of zeroes whose first store is a fault, ready to be moved over a view.
pub(super) fn zero_stage(uffd: &Uffd, style: ZeroWindow, len: usize) -> io::Result<Stage> {
    let stage = Stage::anonymous(len)?;
    sys::no_huge_pages(stage.span());
    if style == ZeroWindow::Populated {
        sys::protect(stage.span(), Rights::ReadWrite)?;
        sys::populate_read(stage.span())?;
    }
    uffd.register(stage.span(), Watch::WriteProtected)?;
    uffd.write_protect(stage.span())?;
    // Rights come last: under mlockall(MCL_FUTURE) a mapping with rights is populated at once.
    if style == ZeroWindow::Markers {
        sys::protect(stage.span(), Rights::ReadWrite)?;
    }
    Ok(stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_can_always_be_had_and_the_reason_is_said() {
        let choice = choose(Want::Only(Mode::Signals)).unwrap();
        assert_eq!(choice.mode, Mode::Signals);
        assert!(choice.why.contains("signal handlers"));
    }

    #[test]
    fn the_automatic_choice_is_explained() {
        let choice = choose(Want::Auto).unwrap();
        assert!(!choice.why.is_empty());
        assert_eq!(choice.mode == Mode::Signals, choice.uffd.is_none());
        println!("chosen: {} ({})", choice.mode, choice.why);
    }
}
