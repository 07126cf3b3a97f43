//! How threads are scheduled, by a system call that has no safe form elsewhere.

use std::io;

/// What the system goes by when threads want the same processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// They share it.
    Other,
    /// It runs when nobody else would, and to the system its processor counts as idle.
    Idle,
}

/// Has a thread of this process, by its number, scheduled as `class` says; 0: the calling one.
///
/// # Errors
/// There is no such thread; back from `Idle`: no right to.
pub fn set_class(thread: i32, class: Class) -> io::Result<()> {
    let policy = match class {
        Class::Other => libc::SCHED_OTHER,
        Class::Idle => libc::SCHED_IDLE,
    };
    let param: libc::c_int = 0;
    // SAFETY: the call reads one `sched_param`, which is an int for the kernel, and touches no memory else. Not through
    // the C library: some refuse it, since it means a thread and not a process.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            thread,
            policy,
            &raw const param,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
