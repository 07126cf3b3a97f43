//! The fault scenarios over the real code, under the schedule explorer: `make races`.
//!
//! One page of one file, two blocks, two views, three threads: small enough to run every schedule with a few
//! preemptions, large enough for each race that the design names. Two tests: the code as it is survives all scenarios,
//! and each mistake that somebody could make in it is caught by the scenario that exists for it. The second is what makes
//! the first mean something.
#![cfg(shuttle)]

mod neighbours;
mod op;
mod oracle;
mod scenario;
mod tracker;
mod world;

use std::cell::Cell;

use ext2dax_sync::explore::{Config, Failure, Stats, search};

use scenario::{Scenario, Start, scenarios};

/// Preemptions of the exhaustive part, and runs of the random part, for one start of one scenario.
struct Effort {
    preemptions: usize,
    exhaustive_runs: u64,
    pct_runs: u64,
}

fn effort() -> Effort {
    if std::env::var_os("EXT2DAX_SOAK").is_some() {
        Effort {
            preemptions: 3,
            exhaustive_runs: 2_000_000,
            pct_runs: 100_000,
        }
    } else {
        Effort {
            preemptions: 2,
            exhaustive_runs: 20_000,
            pct_runs: 500,
        }
    }
}

fn attempt(config: &Config, scenario: &Scenario, start: Start) -> Result<Stats, Box<Failure>> {
    let scenario = scenario.clone();
    search(config, move || world::run(&scenario, start)).inspect(|stats| {
        assert!(stats.runs > 0, "nothing was run");
    })
}

fn configs(effort: &Effort) -> [Config; 2] {
    let exhaustive = Config {
        max_runs: effort.exhaustive_runs,
        ..Config::exhaustive(effort.preemptions)
    };
    [exhaustive, Config::pct(3, effort.pct_runs, 20_150_113)]
}

#[test]
fn every_scenario_holds_under_every_schedule_tried() {
    let mut runs = 0;
    let began = std::time::Instant::now();
    for scenario in scenarios() {
        let (mut here, mut cut) = (0, "");
        for &start in scenario.starts {
            for config in configs(&effort()) {
                match attempt(&config, &scenario, start) {
                    Ok(stats) => {
                        here += stats.runs;
                        if !stats.complete {
                            cut = "  (not all of this many preemptions)";
                        }
                    }
                    Err(failure) => panic!("{} from {start:?}: {failure}", scenario.name),
                }
            }
        }
        println!("{:<60} {here:>8} schedules{cut}", scenario.name);
        runs += here;
    }
    println!(
        "{runs} schedules without an objection in {:.1?}",
        began.elapsed()
    );
}

/// Mistakes, and the scenario that must notice each.
const MUTANTS: &[(&str, &str)] = &[
    ("fault without INVALIDATE", "MC-12"),
    (
        "fault without INVALIDATE, size checked again at the install",
        "MC-01",
    ),
    ("COW without INVALIDATE", "MC-12"),
    ("block zeroed after its pointer is published", "MC-29"),
    ("zero page left in other views", "MC-05"),
    ("unmap without TLB shoot-down", "MC-01"),
    ("blocks freed before the unmap", "MC-03"),
    ("dirty set after the entry is unlocked", "MC-03"),
    ("free ignores pins", "MC-14"),
    ("fsync without write-protect", "MC-07"),
    ("write(2) leaves the zero page", "MC-09"),
    ("write(2) without INODE", "MC-11"),
    ("tail not zeroed by an extension", "MC-20"),
    ("tail zeroed while mapped", "MC-20"),
    (
        "size raised before the tail is zeroed, outside INVALIDATE",
        "MC-31",
    ),
    ("write fault ignores the FAULT gate", "MC-17"),
    ("pins share the FAULT gate", "MC-18"),
    ("pins ignore freeze", "MC-18"),
    ("WRITE closes before PIN", "MC-38"),
    ("ENTRY held across the copy", "MC-33"),
    ("INVALIDATE held across the copy", "MC-33"),
    ("waiters woken without their mutex", "MC-06"),
    ("fault into a dead view", "MC-45"),
    ("stable without write-protect", "MC-52 "),
    ("stable ignores write pins", "MC-52p"),
    ("fsync cleans a pinned page", "MC-32"),
    ("fsync samples pins after the flush", "MC-32"),
    ("punch waits for pins holding INVALIDATE", "MC-37"),
    ("punch waits for pins, INVALIDATE dropped", "MC-37"),
    ("tail zeroed without INODE", "MC-39"),
    ("freeze takes INODE", "MC-59"),
    ("freeze leaves bytes past the end", "MC-59"),
];

/// Failures are expected by the dozen and come as values: this thread reports no panic until the answer is dropped. An
/// empty search first, because the explorer puts its own reporting in place with the first one.
fn keep_panics_quiet() -> impl Drop {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    struct Loud;
    impl Drop for Loud {
        fn drop(&mut self) {
            QUIET.set(false);
        }
    }
    search(&Config::exhaustive(0), || {}).expect("nothing can fail");
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !QUIET.get() {
            report(panic);
        }
    }));
    QUIET.set(true);
    Loud
}

#[test]
fn every_mistake_is_noticed_by_the_scenario_that_exists_for_it() {
    let quiet = keep_panics_quiet();
    let all = scenarios();
    let mut survivors = Vec::new();
    for &(mutant, killer) in MUTANTS {
        let scenario = all
            .iter()
            .find(|scenario| scenario.name.starts_with(killer))
            .expect("named in the table");
        let failure = scenario.starts.iter().find_map(|&start| {
            configs(&effort()).into_iter().find_map(|config| {
                attempt(&config.with_mutant(mutant), scenario, start)
                    .err()
                    .map(|failure| (start, failure))
            })
        });
        match failure {
            Some((start, failure)) => println!(
                "{mutant:<60} {killer} from {start:?}, schedule {}, step {}: {}",
                failure.stats.runs,
                failure.schedule.len(),
                failure.message.lines().next().unwrap_or_default()
            ),
            None => survivors.push((mutant, killer)),
        }
    }
    drop(quiet);
    assert!(survivors.is_empty(), "nobody noticed: {survivors:#?}");
}
