//! Event loops that stay awake while requests follow each other closely.
//!
//! To wake a thread that sleeps on another processor takes several times as long as most requests do. So while the kernel
//! asks one thing after the other, the device is non-blocking and the event loop that reads it asks again instead of
//! going to sleep; after a moment without a request it sleeps as ever. A request that comes alone changes nothing, and
//! one processor at most is kept busy, for a moment.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Requests no further apart than this follow each other closely.
const CLOSELY: Duration = Duration::from_micros(100);

/// What event loops and the thread that sends them to sleep share.
#[derive(Debug)]
struct Shared {
    /// The device's open file, whose flags all of its descriptors share.
    device: OwnedFd,
    started: Instant,
    /// When the last request came, in nanoseconds from `started`.
    last: AtomicU64,
    /// Changes under `changing`, together with the device.
    awake: AtomicBool,
    changing: Mutex<()>,
    ended: AtomicBool,
    moment: Duration,
}

impl Shared {
    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only speed is lost if the system refuses.
    fn set_awake(&self, awake: bool) {
        let _changing = self.changing();
        self.awake.store(awake, Ordering::Release);
        if let Ok(flags) = fcntl_getfl(&self.device) {
            let flags = if awake {
                flags | OFlags::NONBLOCK
            } else {
                flags - OFlags::NONBLOCK
            };
            let _ = fcntl_setfl(&self.device, flags);
        }
    }

    /// Sends the event loop to sleep whenever a moment has passed without a request.
    fn watch(&self) {
        while !self.ended.load(Ordering::Acquire) {
            if !self.awake.load(Ordering::Acquire) {
                thread::park();
                continue;
            }
            let before = self.last.load(Ordering::Relaxed);
            thread::park_timeout(self.moment);
            if self.last.load(Ordering::Relaxed) == before {
                self.set_awake(false);
            }
        }
        self.set_awake(false);
    }
}

/// Notes requests, and keeps an event loop awake for them.
#[derive(Debug)]
pub(crate) struct Linger {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

impl Linger {
    /// `moment` is how long the event loop that reads `device` stays awake after a request.
    ///
    /// # Errors
    /// No descriptor or thread to be had.
    pub(crate) fn new(device: impl AsFd, moment: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            device: device.as_fd().try_clone_to_owned()?,
            started: Instant::now(),
            last: AtomicU64::new(0),
            awake: AtomicBool::new(false),
            changing: Mutex::new(()),
            ended: AtomicBool::new(false),
            moment,
        });
        let watched = Arc::clone(&shared);
        let watcher = thread::Builder::new()
            .name("ext2dax-linger".to_owned())
            .spawn(move || watched.watch())?;
        Ok(Self {
            shared,
            watcher: Some(watcher),
        })
    }

    /// A request has come.
    pub(crate) fn note(&self) {
        let shared = &*self.shared;
        let elapsed = shared.started.elapsed().as_nanos();
        let now = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let last = shared.last.swap(now, Ordering::Relaxed);
        let closely = u128::from(now.saturating_sub(last)) <= CLOSELY.as_nanos();
        if closely && !shared.awake.load(Ordering::Relaxed) {
            shared.set_awake(true);
            if let Some(watcher) = &self.watcher {
                watcher.thread().unpark();
            }
        }
    }
}

impl Drop for Linger {
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

    fn is_awake(device: &OwnedFd) -> bool {
        fcntl_getfl(device)
            .expect("an open descriptor")
            .contains(OFlags::NONBLOCK)
    }

    /// Waits, with a limit, for what another thread brings about.
    fn becomes(awake: bool, device: &OwnedFd) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while is_awake(device) != awake {
            if Instant::now() > end {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    #[test]
    fn an_event_loop_stays_awake_for_requests_in_a_row_and_sleeps_afterwards() {
        let (device, _writer) = std::io::pipe().expect("a pipe");
        let device = OwnedFd::from(device);
        let linger = Linger::new(&device, Duration::from_millis(2)).expect("a thread");
        for _ in 0..3 {
            thread::sleep(2 * CLOSELY);
            linger.note();
            assert!(!is_awake(&device), "one request alone");
            let end = Instant::now() + Duration::from_secs(10);
            while !is_awake(&device) {
                assert!(Instant::now() < end, "requests in a row");
                linger.note();
            }
            assert!(becomes(false, &device), "it sleeps again");
        }
        linger.note();
        linger.note();
        drop(linger);
        assert!(!is_awake(&device), "and in the end");
    }
}
