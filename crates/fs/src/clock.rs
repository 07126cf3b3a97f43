//! Where the file system gets its times from.

use core::fmt;

use ext2dax_format::Timestamp;

/// A source of the current time. Programs have [`SystemClock`]; a kernel brings its own; tests bring a [`FixedClock`] so
/// that the same operations give the same bytes.
///
/// The time goes into inodes (`ctime`, `mtime`, deletion time) and into the superblock. Nothing depends on it being
/// right or steadily growing: liveness marks are kept away from small values by the writer, not by the clock.
pub trait Clock: Send + Sync {
    /// The current time in UTC. May be coarse; called once an operation.
    fn now(&self) -> Timestamp;
}

/// The clock of the host. On Linux the coarse one, as the kernel's own file systems use: it moves with the timer tick,
/// and reading it costs a fifth of the exact one.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[cfg(all(feature = "std", target_os = "linux"))]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Timestamp {
            secs: now.tv_sec,
            nanos: u32::try_from(now.tv_nsec).unwrap_or(0),
        }
    }
}

#[cfg(all(feature = "std", not(target_os = "linux")))]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        use std::time::{SystemTime, UNIX_EPOCH};
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp {
                secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nanos: since.subsec_nanos(),
            },
            // A host whose clock stands before 1970 has not set it yet.
            Err(_) => Timestamp { secs: 0, nanos: 0 },
        }
    }
}

/// A clock that always shows the same time.
#[derive(Clone, Copy)]
pub struct FixedClock(pub Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.0
    }
}

impl fmt::Debug for FixedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedClock({}.{:09})", self.0.secs, self.0.nanos)
    }
}
