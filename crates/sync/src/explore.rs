//! The schedule explorer: runs a scenario under many schedules, with oracles between any two steps.
//!
//! A scenario is a closure that builds its state, spawns threads ([`crate::thread::spawn`]) and joins them. Every
//! operation of a lock, gate, condition variable or atomic of this crate is a schedule point; the explorer decides who
//! goes on. With a bound on preemptions the search is exhaustive: *every* schedule that preempts at most so many times
//! is run, fewest first, so that a failure comes with about its simplest schedule (iterative context bounding, Musuvathi
//! and Qadeer, PLDI 2007). A thread that yields in a loop is not taken again before the others had a turn, so loops that
//! wait are no endless schedules (Musuvathi and Qadeer, PLDI 2008). Larger scenarios are sampled: probabilistic
//! concurrency testing (Burckhardt et al., ASPLOS 2010) or uniform choice.
//!
//! Memory is sequentially consistent here. Weak memory is not explored.

use std::any::Any;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

mod strategy;

use strategy::Strategy;

/// How schedules are chosen.
#[derive(Clone, Debug)]
pub enum Search {
    /// Every schedule with at most this many preemptions.
    Exhaustive {
        /// The largest number of preemptions.
        preemptions: usize,
    },
    /// Random priorities with `depth - 1` changes a run: finds any bug that needs `depth` ordered steps with a known
    /// probability.
    Pct {
        /// Ordered steps that a bug needs.
        depth: usize,
        /// Number of runs.
        runs: u64,
    },
    /// A uniform choice at every step.
    Random {
        /// Number of runs.
        runs: u64,
    },
    /// One schedule, as a failure printed it.
    Replay(Vec<usize>),
}

/// What to run a scenario with.
#[derive(Clone, Debug)]
pub struct Config {
    /// How schedules are chosen.
    pub search: Search,
    /// Seed of the random searches.
    pub seed: u64,
    /// Steps after which one run counts as endless.
    pub max_steps: usize,
    /// Runs after which the search ends, complete or not.
    pub max_runs: u64,
    /// The one mistake that [`mutant`] answers `true` for.
    pub mutant: Option<&'static str>,
    /// Bytes of stack for each thread of the scenario.
    pub stack: usize,
}

impl Config {
    /// Every schedule with at most `preemptions` preemptions, no mistake made.
    pub fn exhaustive(preemptions: usize) -> Self {
        Config {
            search: Search::Exhaustive { preemptions },
            seed: 1,
            max_steps: 20_000,
            max_runs: u64::MAX,
            mutant: None,
            stack: 256 * 1024,
        }
    }

    /// `runs` schedules by random priorities.
    pub fn pct(depth: usize, runs: u64, seed: u64) -> Self {
        Config {
            search: Search::Pct { depth, runs },
            seed,
            ..Self::exhaustive(0)
        }
    }

    /// `runs` schedules by uniform choice.
    pub fn random(runs: u64, seed: u64) -> Self {
        Config {
            search: Search::Random { runs },
            seed,
            ..Self::exhaustive(0)
        }
    }

    /// One schedule, as a failure printed it: task numbers with repetition counts, `0 1*3 2`.
    ///
    /// # Panics
    /// If the text is no schedule.
    pub fn replay(schedule: &str) -> Self {
        Config {
            search: Search::Replay(parse_schedule(schedule)),
            ..Self::exhaustive(0)
        }
    }

    /// The same search with a mistake made in the code.
    #[must_use]
    pub fn with_mutant(self, name: &'static str) -> Self {
        Config {
            mutant: Some(name),
            ..self
        }
    }
}

/// What a search did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Schedules run.
    pub runs: u64,
    /// Steps of all of them.
    pub steps: u64,
    /// Whether the search space was exhausted, and not cut by `max_runs`.
    pub complete: bool,
}

/// A schedule that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The panic's or oracle's message.
    pub message: String,
    /// The task chosen at each step.
    pub schedule: Vec<usize>,
    /// What had been done until then.
    pub stats: Stats,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (schedule {} of the search)",
            self.message, self.stats.runs
        )?;
        write!(
            f,
            "\nrepeat it with Config::replay(\"{}\")",
            print_schedule(&self.schedule)
        )
    }
}

impl std::error::Error for Failure {}

type Oracle = Box<dyn FnMut() -> Result<(), String>>;

std::thread_local! {
    static MUTANT: Cell<Option<&'static str>> = const { Cell::new(None) };
    static ORACLE: RefCell<Option<Oracle>> = const { RefCell::new(None) };
}

/// Whether the code under test runs with the named mistake; see [`Config::mutant`].
pub fn mutant(name: &str) -> bool {
    MUTANT.get() == Some(name)
}

/// Called by the scenario once its state exists: `oracle` runs between any two steps of this run.
///
/// It sees the state as a debugger would: no thread of the scenario is running, locks may be held. It must not use
/// locks or atomics of this crate, except through [`peek`]; plain ones are fine.
pub fn on_step(oracle: impl FnMut() -> Result<(), String> + 'static) {
    ORACLE.set(Some(Box::new(oracle)));
}

/// The value of an atomic of this crate without a schedule point, for oracles.
///
/// # Panics
/// If `word` is not an integer.
pub fn peek(word: &impl fmt::Debug) -> u64 {
    // The explorer's atomics print their value without being a step; there is no other safe way to it.
    let text = std::format!("{word:?}");
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is not an unsigned integer"))
}

/// Runs the scenario under every schedule of the search.
///
/// # Panics
/// With the failing schedule, if a thread panics, an oracle objects, nobody can go on, or a run does not end.
#[track_caller]
pub fn run(config: &Config, scenario: impl Fn() + Send + Sync + 'static) -> Stats {
    match search(config, scenario) {
        Ok(stats) => stats,
        Err(failure) => panic!("{failure}"),
    }
}

/// As [`run`], with the failure as a value: a test of a mistake wants one.
///
/// # Errors
/// The first failing schedule.
pub fn search(
    config: &Config,
    scenario: impl Fn() + Send + Sync + 'static,
) -> Result<Stats, Box<Failure>> {
    let shared = Rc::new(RefCell::new(Progress::new(config)));
    let driver = Driver(Rc::clone(&shared));
    let mut machine = shuttle::Config::new();
    machine.stack_size = config.stack;
    machine.failure_persistence = shuttle::FailurePersistence::None;
    machine.max_steps = shuttle::MaxSteps::None;
    machine.silence_warnings = true;
    MUTANT.set(config.mutant);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        shuttle::Runner::new(driver, machine).run(scenario)
    }));
    MUTANT.set(None);
    ORACLE.set(None);
    crate::rank::forget_all();
    let progress = shared.borrow();
    let message = match (outcome, &progress.objection) {
        (_, Some(objection)) => objection.clone(),
        (Err(payload), None) => panic_message(&*payload),
        (Ok(_), None) => return Ok(progress.stats()),
    };
    Err(Box::new(Failure {
        message,
        schedule: progress.schedule.clone(),
        stats: progress.stats(),
    }))
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a thread panicked".to_string())
}

/// The number of the scenario's thread that runs, for the order checks.
pub(crate) fn current_task() -> usize {
    shuttle::current::try_get_current_task().map_or(usize::MAX, usize::from)
}

struct Progress {
    strategy: Box<dyn Strategy>,
    max_steps: usize,
    max_runs: u64,
    runs: u64,
    steps: u64,
    complete: bool,
    schedule: Vec<usize>,
    objection: Option<String>,
}

impl Progress {
    fn new(config: &Config) -> Self {
        Progress {
            strategy: strategy::of(config),
            max_steps: config.max_steps,
            max_runs: config.max_runs,
            runs: 0,
            steps: 0,
            complete: false,
            schedule: Vec::new(),
            objection: None,
        }
    }

    fn stats(&self) -> Stats {
        Stats {
            runs: self.runs,
            steps: self.steps,
            complete: self.complete,
        }
    }

    fn begin(&mut self) -> Option<Schedule> {
        if self.objection.is_some() || self.runs == self.max_runs {
            return None;
        }
        if !self.strategy.begin() {
            self.complete = true;
            return None;
        }
        self.runs += 1;
        self.schedule.clear();
        Some(Schedule::new(0))
    }

    fn next(
        &mut self,
        runnable: &[usize],
        current: Option<usize>,
        yielding: bool,
    ) -> Option<usize> {
        let objection = ORACLE.with(|oracle| {
            oracle
                .borrow_mut()
                .as_mut()
                .map_or(Ok(()), |oracle| oracle())
        });
        if let Err(objection) = objection {
            self.objection = Some(objection);
            return None;
        }
        if self.schedule.len() >= self.max_steps {
            self.objection = Some(std::format!(
                "no end after {} steps: a loop that waits for nobody",
                self.max_steps
            ));
            return None;
        }
        let chosen = self.strategy.choose(runnable, current, yielding);
        self.schedule.push(chosen);
        self.steps += 1;
        Some(chosen)
    }
}

struct Driver(Rc<RefCell<Progress>>);

impl Scheduler for Driver {
    fn new_execution(&mut self) -> Option<Schedule> {
        ORACLE.set(None);
        crate::rank::forget_all();
        self.0.borrow_mut().begin()
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let runnable: Vec<usize> = runnable.iter().map(|task| usize::from(task.id())).collect();
        self.0
            .borrow_mut()
            .next(&runnable, current.map(usize::from), is_yielding)
            .map(TaskId::from)
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}

/// `0 1*3 2`: task numbers, with a count where one ran several steps in a row.
fn print_schedule(schedule: &[usize]) -> String {
    let mut words = Vec::new();
    for run in schedule.chunk_by(|a, b| a == b) {
        words.push(if run.len() == 1 {
            run[0].to_string()
        } else {
            std::format!("{}*{}", run[0], run.len())
        });
    }
    words.join(" ")
}

fn parse_schedule(text: &str) -> Vec<usize> {
    let number = |text: &str| {
        text.parse::<usize>()
            .unwrap_or_else(|_| panic!("{text:?} in a schedule"))
    };
    let mut schedule = Vec::new();
    for word in text.split_whitespace() {
        let (task, count) = word
            .split_once('*')
            .map_or((word, 1), |(task, count)| (task, number(count)));
        schedule.extend(std::iter::repeat_n(number(task), count));
    }
    schedule
}
