//! What one run of a program costs: processor time of all its threads, time on the wall, peak of its own memory.
//!
//! Pages of a mapped image are the image's, not the program's: only anonymous memory counts, for both contenders.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// The cost of one run.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Nanoseconds of processor time, in user mode and in the kernel, of all threads.
    pub cpu_ns: u64,
    /// Nanoseconds from start to end.
    pub wall_ns: u64,
    /// Exit status; -1 for a signal.
    pub status: i32,
}

/// Runs `command` to its end and says what it cost. Clock ticks of 10 ms are too coarse for us: the scheduler's own count
/// is still there while the process waits to be collected, but only that of its first thread; a program with more threads
/// says itself what it used, as a number on the last line of its standard error.
///
/// # Errors
/// When the program cannot be run.
pub fn run(command: &mut Command) -> Result<Cost> {
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = pid(&child)?;
    waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )?;
    let wall_ns = nanos(start.elapsed());
    let schedstat = std::fs::read_to_string(format!("/proc/{}/schedstat", child.id()))?;
    let first_thread: u64 = schedstat
        .split(' ')
        .next()
        .and_then(|ns| ns.parse().ok())
        .context("schedstat")?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let own = said.lines().last().and_then(|line| line.parse().ok());
    Ok(Cost {
        cpu_ns: own.unwrap_or(first_thread),
        wall_ns,
        status: output.status.code().unwrap_or(-1),
    })
}

/// Runs `command` once more and watches its anonymous memory; answers the highest value seen, in KiB. The watcher costs
/// processor time, so this is a run of its own.
///
/// # Errors
/// When the program cannot be run.
pub fn peak_kib(command: &mut Command) -> Result<u64> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        if let Ok(text) = std::fs::read_to_string(Path::new(&status)) {
            let anon = text
                .lines()
                .find_map(|line| line.strip_prefix("RssAnon:"))
                .and_then(|rest| rest.trim().strip_suffix(" kB"))
                .and_then(|kib| kib.parse().ok())
                .unwrap_or(0);
            peak = peak.max(anon);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(peak)
}

/// Processor time of this process so far.
#[must_use]
pub fn own_cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn pid(child: &Child) -> Result<Pid> {
    let raw = i32::try_from(child.id())?;
    Pid::from_raw(raw).context("the process has a number")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
