//! The spinning locks under real threads: the build with std does not use them otherwise.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// Spinning waits go to the operating system here, or two cores would spin for each other's time slices.
fn yielding() {
    set_relax(std::thread::yield_now);
}

#[test]
fn a_mutex_excludes() {
    yielding();
    let lock = Mutex::new(0u64);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| (0..5_000).for_each(|_| *lock.lock() += 1));
        }
    });
    assert_eq!(lock.into_inner(), 20_000);
}

#[test]
fn the_relax_hook_is_set_once() {
    yielding();
    assert!(!set_relax(|| unreachable!("the first hook stays")));
    relax();
}

#[test]
fn readers_share_and_a_writer_excludes() {
    let lock = RwLock::new(1u64);
    let (a, b) = (lock.read(), lock.read());
    assert_eq!(*a + *b, 2);
    assert!(lock.try_write().is_none());
    drop((a, b));
    let mut writer = lock.try_write().expect("nobody reads any more");
    *writer = 2;
    assert!(lock.try_read().is_none());
    drop(writer);
    assert_eq!(*lock.read(), 2);
}

/// The lock below lets readers in while one is inside; with readers that overlap all the time no writer ever got in.
#[test]
fn a_writer_gets_in_between_readers_that_overlap() {
    yielding();
    let lock = RwLock::new(());
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _guard = lock.read();
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
        }
        let start = Instant::now();
        for _ in 0..20 {
            drop(lock.write());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "a writer waited for {:?}",
            start.elapsed()
        );
    });
}

#[test]
fn a_notification_under_the_mutex_is_not_missed() {
    yielding();
    let (lock, changed) = (Mutex::new(0u64), Condvar::new());
    let turns = AtomicU64::new(0);
    let play = |first: u64| {
        for turn in (first..400).step_by(2) {
            let mut value = lock.lock();
            while *value != turn {
                value = changed.wait(value);
            }
            *value += 1;
            turns.fetch_add(1, Ordering::Relaxed);
            changed.notify_one();
        }
    };
    std::thread::scope(|s| {
        s.spawn(|| play(1));
        play(0);
    });
    assert_eq!(turns.into_inner(), 400);
}
