//! The machine's own threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ext2dax_sync::{Condvar, Gate, Mutex, RwLock, rank};

const THREADS: u64 = 4;
const ROUNDS: u64 = 5_000;

#[test]
fn a_mutex_excludes() {
    let lock = Mutex::new(rank::GROUP, 0u64);
    std::thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| (0..ROUNDS).for_each(|_| *lock.lock() += 1));
        }
    });
    assert_eq!(lock.into_inner(), THREADS * ROUNDS);
}

/// Readers that overlap all the time once kept a writer of a spinning lock out for ever.
#[test]
fn a_writer_gets_in_between_readers_that_overlap() {
    let lock = RwLock::new(rank::INVALIDATE, ());
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
fn a_reader_behind_a_waiting_writer_is_refused_and_a_second_read_by_one_thread_panics() {
    let lock = Arc::new(RwLock::new(rank::INVALIDATE, ()));
    let first = lock.read();
    if cfg!(debug_assertions) {
        let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(lock.read())));
        assert!(
            again.is_err(),
            "a second shared acquisition by one thread is a deadlock with a writer in between"
        );
    }
    let writer = std::thread::spawn({
        let lock = Arc::clone(&lock);
        move || drop(lock.write())
    });
    let end = Instant::now() + Duration::from_secs(10);
    while lock.try_read().is_some() {
        assert!(
            Instant::now() < end,
            "a reader still overtakes the waiting writer"
        );
        std::thread::yield_now();
    }
    drop(first);
    writer.join().unwrap();
}

#[test]
fn a_drained_gate_is_empty_and_opens_again() {
    let gate = Gate::new(rank::GATE_WRITE);
    let (inside, visits) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    let _guard = gate.enter();
                    inside.fetch_add(1, Ordering::SeqCst);
                    visits.fetch_add(1, Ordering::SeqCst);
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..100 {
            assert!(gate.close());
            gate.drain();
            assert_eq!(inside.load(Ordering::SeqCst), 0);
            assert_eq!(gate.count(), 0);
            gate.open();
        }
    });
    assert_eq!(visits.into_inner(), THREADS * ROUNDS);
}

#[test]
fn a_pass_keeps_the_gate_occupied_from_another_thread() {
    let gate = Gate::new(rank::GATE_PIN);
    let pass = gate.enter().into_pass();
    let inode = Mutex::new(rank::INODE, ());
    drop(inode.lock());
    assert_eq!(gate.count(), 1);
    std::thread::scope(|s| {
        s.spawn(move || drop(pass));
    });
    assert!(gate.close());
    gate.drain();
    assert!(gate.try_enter().is_none());
}

#[test]
fn a_condition_variable_hands_over() {
    let (lock, changed) = (Mutex::new(rank::SUPER, 0u64), Condvar::new());
    std::thread::scope(|s| {
        s.spawn(|| {
            for turn in (1..200).step_by(2) {
                let mut value = changed.wait_until(lock.lock(), |value| *value == turn);
                *value += 1;
                changed.notify_all();
            }
        });
        for turn in (0..200).step_by(2) {
            let mut value = changed.wait_until(lock.lock(), |value| *value == turn);
            *value += 1;
            changed.notify_all();
        }
    });
    assert_eq!(lock.into_inner(), 200);
}

#[cfg(debug_assertions)]
mod order {
    use super::*;

    fn message_of(wrong: impl FnOnce()) -> String {
        let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(wrong))
            .expect_err("a wrong order passed");
        payload
            .downcast_ref::<String>()
            .cloned()
            .unwrap_or_default()
    }

    #[test]
    fn a_lower_rank_after_a_higher_one_panics_and_names_both() {
        let (tree, inode) = (Mutex::new(rank::TREE, ()), RwLock::new(rank::INODE, ()));
        let guard = tree.lock();
        let message = message_of(|| drop(inode.read()));
        assert!(
            message.contains("INODE (40)") && message.contains("TREE (90)"),
            "{message}"
        );
        assert!(message.contains("hosted.rs"), "{message}");
        drop(guard);
        drop((inode.read(), tree.lock()));
    }

    #[test]
    fn one_rank_is_taken_in_ascending_order_only() {
        let group = |nr| Mutex::with_order(rank::GROUP, nr, ());
        let (one, two) = (group(1), group(2));
        drop((one.lock(), two.lock()));
        let guard = two.lock();
        message_of(|| drop(one.lock()));
        message_of(|| drop(two.lock_nested_is_not_reentrant()));
        drop(one.lock_nested());
        drop(guard);
    }

    trait Reentrant {
        fn lock_nested_is_not_reentrant(&self) -> ext2dax_sync::MutexGuard<'_, ()>;
    }

    impl Reentrant for Mutex<()> {
        /// The strict call, on a lock that is held already.
        fn lock_nested_is_not_reentrant(&self) -> ext2dax_sync::MutexGuard<'_, ()> {
            self.lock()
        }
    }

    #[test]
    fn try_lock_may_go_against_the_order_and_still_counts_as_held() {
        let (tree, inode) = (Mutex::new(rank::TREE, ()), Mutex::new(rank::INODE, ()));
        let (_tree, _inode) = (tree.lock(), inode.try_lock().unwrap());
        assert!(rank::is_held(rank::INODE));
        message_of(|| rank::assert_below(rank::INODE));
    }

    #[test]
    fn lock_bits_are_ranked_by_tokens() {
        let token = rank::enter(rank::ENTRY, 7);
        message_of(|| drop(rank::enter(rank::ENTRY, 7)));
        drop(rank::enter(rank::ENTRY, 8));
        message_of(|| drop(Mutex::new(rank::INVALIDATE, ()).lock()));
        drop(token);
        rank::assert_below(rank::GATE_PIN);
    }

    #[test]
    fn waiting_with_something_above_the_mutex_held_panics() {
        let (outer, inner, condvar) = (
            Mutex::new(rank::SUPER, ()),
            Mutex::new(rank::TABLE, ()),
            Condvar::new(),
        );
        let guard = outer.lock();
        let _inner = inner.lock();
        let message = message_of(|| drop(condvar.wait(guard)));
        assert!(message.contains("TABLE (115)"), "{message}");
    }

    #[test]
    fn entering_a_gate_twice_panics() {
        let gate = Gate::new(rank::GATE_WRITE);
        let _guard = gate.enter();
        message_of(|| drop(gate.enter()));
        message_of(|| gate.drain());
    }
}
