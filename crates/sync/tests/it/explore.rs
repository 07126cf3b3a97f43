//! What the explorer finds, and that it finds all of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex as Plain};

use ext2dax_sync::atomic::{AtomicU64, Ordering};
use ext2dax_sync::explore::{self, Config};
use ext2dax_sync::{Condvar, Gate, Mutex, RwLock, mutant, rank, relax, thread};

const SC: Ordering = Ordering::SeqCst;

fn two(a: impl FnOnce() + Send + 'static, b: impl FnOnce() + Send + 'static) {
    let (a, b) = (thread::spawn(a), thread::spawn(b));
    a.join().unwrap();
    b.join().unwrap();
}

/// Load, then store: the classic lost update. It takes one preemption to lose it.
fn lossy_counter() {
    let word = Arc::new(AtomicU64::new(0));
    let bump = |word: Arc<AtomicU64>| move || word.store(word.load(SC) + 1, SC);
    two(bump(Arc::clone(&word)), bump(Arc::clone(&word)));
    assert_eq!(word.load(SC), 2, "an update was lost");
}

#[test]
fn a_lost_update_needs_one_preemption_and_is_found_with_one() {
    assert!(explore::run(&Config::exhaustive(0), lossy_counter).complete);
    let failure = explore::search(&Config::exhaustive(1), lossy_counter).unwrap_err();
    assert!(failure.message.contains("an update was lost"), "{failure}");
    for config in [Config::pct(2, 1000, 7), Config::random(1000, 7)] {
        assert!(explore::search(&config, lossy_counter).is_err());
    }
}

#[test]
fn a_printed_schedule_fails_again() {
    let failure = explore::search(&Config::exhaustive(1), lossy_counter).unwrap_err();
    let text = failure.to_string();
    let schedule = text.split('"').nth(1).unwrap();
    let again = explore::search(&Config::replay(schedule), lossy_counter).unwrap_err();
    assert!(again.message.contains("an update was lost"), "{again}");
    assert_eq!(again.schedule, failure.schedule);
}

/// With enough preemptions allowed, every order of two threads' steps is seen: of three steps each, C(6, 3) = 20.
#[test]
fn the_search_is_exhaustive() {
    let orders = Arc::new(Plain::new(BTreeSet::new()));
    let seen = Arc::clone(&orders);
    let stats = explore::run(&Config::exhaustive(10), move || {
        let order = Arc::new(Plain::new(String::new()));
        let steps = |name: char, order: Arc<Plain<String>>| {
            move || {
                for _ in 0..3 {
                    ext2dax_sync::point();
                    order.lock().unwrap().push(name);
                }
            }
        };
        two(
            steps('a', Arc::clone(&order)),
            steps('b', Arc::clone(&order)),
        );
        seen.lock().unwrap().insert(order.lock().unwrap().clone());
    });
    assert!(stats.complete);
    assert_eq!(orders.lock().unwrap().len(), 20);
}

#[test]
fn an_oracle_sees_every_state_between_two_steps() {
    let failure = explore::search(&Config::exhaustive(2), || {
        let (a, b) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (pa, pb) = (Arc::clone(&a), Arc::clone(&b));
        explore::on_step(move || match (explore::peek(&pa), explore::peek(&pb)) {
            (1, 1) => Err("both at once".to_string()),
            _ => Ok(()),
        });
        let visit = |word: Arc<AtomicU64>| {
            move || {
                word.store(1, SC);
                word.store(0, SC);
            }
        };
        two(visit(a), visit(b));
    })
    .unwrap_err();
    assert_eq!(failure.message, "both at once");
}

#[test]
fn a_mistake_is_made_only_when_asked_for() {
    let scenario = || {
        let lock = Arc::new(Mutex::new(rank::TREE, ()));
        let word = Arc::new(AtomicU64::new(0));
        let bump = |lock: Arc<Mutex<()>>, word: Arc<AtomicU64>| {
            move || {
                let _guard = (!mutant("no-lock")).then(|| lock.lock());
                word.store(word.load(SC) + 1, SC);
            }
        };
        two(
            bump(Arc::clone(&lock), Arc::clone(&word)),
            bump(lock, Arc::clone(&word)),
        );
        assert_eq!(word.load(SC), 2, "an update was lost");
    };
    assert!(explore::run(&Config::exhaustive(3), scenario).complete);
    assert!(explore::search(&Config::exhaustive(3).with_mutant("no-lock"), scenario).is_err());
    assert!(explore::run(&Config::exhaustive(3).with_mutant("another"), scenario).complete);
}

/// Two locks of one rank, each with the other's order, taken through the calls that leave the order to the caller.
#[test]
fn a_deadlock_is_found() {
    let failure = explore::search(&Config::exhaustive(1), || {
        let locks = Arc::new((Mutex::new(rank::INODE, ()), Mutex::new(rank::INODE, ())));
        let other = Arc::clone(&locks);
        two(
            move || {
                let _a = locks.0.lock();
                let _b = locks.1.lock_nested();
            },
            move || {
                let _b = other.1.lock();
                let _a = other.0.lock_nested();
            },
        );
    })
    .unwrap_err();
    assert!(failure.message.contains("deadlock"), "{failure}");
}

#[test]
fn a_wrong_rank_order_is_found_in_any_schedule() {
    let failure = explore::search(&Config::exhaustive(0), || {
        let (tree, inode) = (Mutex::new(rank::TREE, ()), Mutex::new(rank::INODE, ()));
        let _tree = tree.lock();
        let _inode = inode.lock();
    })
    .unwrap_err();
    assert!(
        failure.message.contains("lock order: INODE (40)"),
        "{failure}"
    );
}

#[test]
fn a_loop_that_yields_ends_and_one_that_waits_for_nobody_is_reported() {
    let wait_for = |value: u64| {
        move || {
            let word = Arc::new(AtomicU64::new(0));
            let waited = Arc::clone(&word);
            two(
                move || {
                    while waited.load(SC) < value {
                        relax();
                    }
                },
                move || word.store(1, SC),
            );
        }
    };
    assert!(explore::run(&Config::exhaustive(2), wait_for(1)).complete);
    let failure = explore::search(
        &Config {
            max_steps: 500,
            ..Config::exhaustive(2)
        },
        wait_for(2),
    )
    .unwrap_err();
    assert!(
        failure.message.contains("no end after 500 steps"),
        "{failure}"
    );
}

#[test]
fn readers_queue_behind_a_waiting_writer() {
    // A reader that came first holds the lock; the writer waits; another reader must come after the writer.
    let stats = explore::run(&Config::exhaustive(2), || {
        let lock = Arc::new(RwLock::new(rank::INVALIDATE, 0u64));
        let order = Arc::new(Plain::new(Vec::new()));
        let first = lock.read();
        let (writer_lock, writer_order) = (Arc::clone(&lock), Arc::clone(&order));
        let announced = Arc::new(AtomicU64::new(0));
        let writer_announces = Arc::clone(&announced);
        let writer = thread::spawn(move || {
            writer_announces.store(1, SC);
            *writer_lock.write() += 1;
            writer_order.lock().unwrap().push("writer");
        });
        while announced.load(SC) == 0 || lock.try_read().is_some() {
            relax();
        }
        let (reader_lock, reader_order) = (Arc::clone(&lock), Arc::clone(&order));
        let reader = thread::spawn(move || {
            let value = *reader_lock.read();
            reader_order.lock().unwrap().push("reader");
            assert_eq!(value, 1, "a reader overtook a waiting writer");
        });
        drop(first);
        writer.join().unwrap();
        reader.join().unwrap();
    });
    assert!(stats.complete);
}

#[test]
fn a_drained_gate_is_empty_and_nobody_sleeps_for_ever() {
    let stats = explore::run(&Config::exhaustive(3), || {
        let gate = Arc::new(Gate::new(rank::GATE_WRITE));
        let inside = Arc::new(AtomicU64::new(0));
        let (gate2, inside2) = (Arc::clone(&gate), Arc::clone(&inside));
        two(
            move || {
                let _guard = gate2.enter();
                inside2.fetch_add(1, SC);
                inside2.fetch_sub(1, SC);
            },
            move || {
                assert!(gate.close());
                gate.drain();
                assert_eq!(inside.load(SC), 0, "somebody is inside a drained gate");
                assert!(gate.try_enter().is_none());
                gate.open();
            },
        );
    });
    assert!(stats.complete);
}

#[test]
fn a_notification_is_never_lost() {
    let stats = explore::run(&Config::exhaustive(3), || {
        let pair = Arc::new((Mutex::new(rank::SUPER, false), Condvar::new()));
        let other = Arc::clone(&pair);
        two(
            move || drop(pair.1.wait_until(pair.0.lock(), |ready| *ready)),
            move || {
                *other.0.lock() = true;
                other.1.notify_one();
            },
        );
    });
    assert!(stats.complete);
}
