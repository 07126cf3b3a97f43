//! Who goes on: the searches.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::{Config, Search};

/// Chooses a schedule, one step after the other, run after run. Tasks are numbers.
pub(super) trait Strategy {
    /// Starts the next run; `false`: there is no other schedule.
    fn begin(&mut self) -> bool;

    /// One of `runnable`, which is ascending and not empty. `yielding`: `current` asks for others to go first.
    fn choose(&mut self, runnable: &[usize], current: Option<usize>, yielding: bool) -> usize;
}

pub(super) fn of(config: &Config) -> Box<dyn Strategy> {
    match &config.search {
        Search::Exhaustive { preemptions } => Box::new(Bounded::new(*preemptions)),
        Search::Pct { depth, runs } => Box::new(Pct::new(config.seed, *depth, *runs)),
        Search::Random { runs } => Box::new(Random {
            rng: Rng(config.seed),
            left: *runs,
        }),
        Search::Replay(schedule) => Box::new(Replay {
            schedule: schedule.clone(),
            at: 0,
            done: false,
        }),
    }
}

/// Who may go on after yields: a task that yielded waits until every task that could run then has had a step or can run
/// no more.
#[derive(Default)]
struct Turns {
    waits_for: BTreeMap<usize, Vec<usize>>,
}

impl Turns {
    /// The tasks of `runnable` that may be chosen now.
    fn eligible(
        &mut self,
        runnable: &[usize],
        current: Option<usize>,
        yielding: bool,
    ) -> Vec<usize> {
        if let Some(current) = current
            && yielding
        {
            self.waits_for.insert(
                current,
                runnable
                    .iter()
                    .copied()
                    .filter(|task| *task != current)
                    .collect(),
            );
        }
        for others in self.waits_for.values_mut() {
            others.retain(|task| runnable.contains(task));
        }
        self.waits_for.retain(|_, others| !others.is_empty());
        let free: Vec<usize> = runnable
            .iter()
            .copied()
            .filter(|task| !self.waits_for.contains_key(task))
            .collect();
        if free.is_empty() {
            // They wait for each other: the yields cancel out.
            self.waits_for.clear();
            return runnable.to_vec();
        }
        free
    }

    fn chosen(&mut self, task: usize) {
        for others in self.waits_for.values_mut() {
            others.retain(|other| *other != task);
        }
    }
}

/// A decision that had alternatives.
struct Decision {
    options: Vec<usize>,
    taken: usize,
}

/// Depth first through all schedules with at most `bound` preemptions, for bounds from 0 to `limit`.
struct Bounded {
    limit: usize,
    bound: usize,
    path: Vec<Decision>,
    /// The next decision of this run, in `path`.
    depth: usize,
    preemptions: usize,
    /// Whether the bound kept some alternative out, so that a larger one has more to show.
    cut: bool,
    turns: Turns,
    started: bool,
}

impl Bounded {
    fn new(limit: usize) -> Self {
        Bounded {
            limit,
            bound: 0,
            path: Vec::new(),
            depth: 0,
            preemptions: 0,
            cut: false,
            turns: Turns::default(),
            started: false,
        }
    }

    /// Moves to the next path in depth-first order; `false`: that was the last one of this bound.
    fn advance(&mut self) -> bool {
        while let Some(last) = self.path.last_mut() {
            last.taken += 1;
            if last.taken < last.options.len() {
                return true;
            }
            self.path.pop();
        }
        false
    }
}

impl Strategy for Bounded {
    fn begin(&mut self) -> bool {
        if self.started && !self.advance() {
            if self.bound == self.limit || !self.cut {
                return false;
            }
            self.bound += 1;
            self.cut = false;
        }
        self.started = true;
        self.depth = 0;
        self.preemptions = 0;
        self.turns = Turns::default();
        true
    }

    fn choose(&mut self, runnable: &[usize], current: Option<usize>, yielding: bool) -> usize {
        let eligible = self.turns.eligible(runnable, current, yielding);
        let going_on = current.filter(|task| eligible.contains(task));
        let options = match going_on {
            // Whoever runs goes on first; taking the processor away from him costs a preemption.
            Some(task) if self.preemptions < self.bound => {
                let others = eligible.iter().copied().filter(|other| *other != task);
                std::iter::once(task).chain(others).collect()
            }
            Some(task) => {
                self.cut |= eligible.len() > 1;
                std::vec![task]
            }
            None => eligible,
        };
        let chosen = if options.len() == 1 {
            options[0]
        } else {
            if self.depth == self.path.len() {
                self.path.push(Decision { options, taken: 0 });
            } else {
                assert_eq!(
                    self.path[self.depth].options, options,
                    "the scenario does not do the same under the same schedule"
                );
            }
            let decision = &self.path[self.depth];
            self.depth += 1;
            decision.options[decision.taken]
        };
        if going_on.is_some_and(|task| task != chosen) {
            self.preemptions += 1;
        }
        self.turns.chosen(chosen);
        chosen
    }
}

/// Priorities at random; at some steps at random the running task falls to the end.
struct Pct {
    rng: Rng,
    depth: usize,
    left: u64,
    priorities: BTreeMap<usize, u64>,
    changes: Vec<u64>,
    step: u64,
    longest: u64,
    lowest: u64,
}

impl Pct {
    fn new(seed: u64, depth: usize, runs: u64) -> Self {
        Pct {
            rng: Rng(seed),
            depth,
            left: runs,
            priorities: BTreeMap::new(),
            changes: Vec::new(),
            step: 0,
            longest: 64,
            lowest: 0,
        }
    }
}

impl Strategy for Pct {
    fn begin(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.longest = self.longest.max(self.step);
        self.step = 0;
        self.lowest = 1 << 32;
        self.priorities.clear();
        self.changes = (1..self.depth)
            .map(|_| self.rng.below(self.longest))
            .collect();
        true
    }

    fn choose(&mut self, runnable: &[usize], current: Option<usize>, yielding: bool) -> usize {
        for task in runnable {
            if !self.priorities.contains_key(task) {
                // Higher is better; the fallen ones are below 2^32.
                let priority = (1 << 32) + self.rng.below(1 << 31);
                self.priorities.insert(*task, priority);
            }
        }
        if runnable.len() > 1 {
            if let Some(current) = current
                && (yielding || self.changes.contains(&self.step))
            {
                self.lowest -= 1;
                self.priorities.insert(current, self.lowest);
            }
            self.step += 1;
        }
        let best = runnable.iter().max_by_key(|task| self.priorities.get(task));
        *best.expect("somebody can run")
    }
}

/// Any of them, every time; whoever yields lets others go first.
struct Random {
    rng: Rng,
    left: u64,
}

impl Strategy for Random {
    fn begin(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }

    fn choose(&mut self, runnable: &[usize], current: Option<usize>, yielding: bool) -> usize {
        let others: Vec<usize> = runnable
            .iter()
            .copied()
            .filter(|task| !(yielding && Some(*task) == current))
            .collect();
        let from = if others.is_empty() { runnable } else { &others };
        from[usize::try_from(self.rng.below(from.len() as u64)).expect("below a length")]
    }
}

/// Exactly this schedule; after its end whoever runs goes on.
struct Replay {
    schedule: Vec<usize>,
    at: usize,
    done: bool,
}

impl Strategy for Replay {
    fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.done, true)
    }

    fn choose(&mut self, runnable: &[usize], current: Option<usize>, _yielding: bool) -> usize {
        let wanted = self.schedule.get(self.at).copied();
        self.at += 1;
        let Some(wanted) = wanted else {
            return current
                .filter(|task| runnable.contains(task))
                .unwrap_or(runnable[0]);
        };
        assert!(
            runnable.contains(&wanted),
            "step {} of the schedule wants task {wanted}, who cannot run",
            self.at
        );
        wanted
    }
}

/// Marsaglia's xorshift64*, good enough to choose schedules and the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        let mut x = self.0.max(1);
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0 = x;
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}
