//! Work spread over a few threads that live only as long as a check.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use rayon_core::{ThreadPool, ThreadPoolBuilder};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// How long the start of a helper is waited for; usually it takes a tenth of that.
const PATIENCE: Duration = Duration::from_millis(1);

/// The threads of one check. They are started once and not for every pass: a new thread is often put on the processor of
/// the one that starts it, although others are idle, and stays there for some milliseconds, in which a pass is half over.
/// So each leaves that processor when it starts.
#[derive(Debug)]
pub(crate) struct Team {
    helpers: Option<ThreadPool>,
    threads: usize,
}

impl Team {
    /// `threads` threads, the caller's one included; fewer if the system has no more.
    pub(crate) fn new(threads: usize) -> Self {
        let helpers = match threads {
            0 | 1 => None,
            _ => Self::start(threads - 1),
        };
        let threads = helpers.as_ref().map_or(1, |_| threads);
        Self { helpers, threads }
    }

    /// Starts helpers and waits for each to be on its way, since where a helper and the caller share a processor it only
    /// begins when the caller stops. One that nobody lets run is not waited for.
    fn start(helpers: usize) -> Option<ThreadPool> {
        let callers = sched_getcpu();
        let (started, all) = mpsc::channel();
        let pool = ThreadPoolBuilder::new()
            .num_threads(helpers)
            .start_handler(move |_| {
                leave(callers);
                let _ = started.send(());
            })
            .build()
            .ok()?;
        for _ in 0..helpers {
            if all.recv_timeout(PATIENCE).is_err() {
                break;
            }
        }
        Some(pool)
    }

    pub(crate) fn crew(&self) -> Crew<'_> {
        Crew {
            helpers: self.helpers.as_ref(),
            threads: self.threads,
        }
    }
}

/// Moves this thread away from a processor, if it may run on another one. It is free to come back: as soon as it runs
/// elsewhere the system has no reason to bring it back.
fn leave(processor: usize) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    if let Some(others) = others(&allowed, processor)
        && sched_setaffinity(None, &others).is_ok()
    {
        let _ = sched_setaffinity(None, &allowed);
    }
}

/// The processors of a set without one of them; `None` if that one is not there or no other is.
fn others(allowed: &CpuSet, processor: usize) -> Option<CpuSet> {
    let there = processor < CpuSet::MAX_CPU && allowed.is_set(processor);
    let mut others = *allowed;
    if there {
        others.unset(processor);
    }
    (there && others.count() != 0).then_some(others)
}

/// Those of a team that work on one thing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crew<'a> {
    helpers: Option<&'a ThreadPool>,
    pub(crate) threads: usize,
}

impl Crew<'_> {
    /// Some of them.
    pub(crate) fn at_most(self, threads: usize) -> Self {
        Self {
            threads: self.threads.min(threads),
            ..self
        }
    }

    /// Calls `work` for every number below `count`. The answers come back in the order of the numbers.
    pub(crate) fn map<T: Send>(self, count: u32, work: impl Fn(u32) -> T + Sync) -> Vec<T> {
        self.map_with(count, |_| (), |(), item| work(item)).0
    }

    /// As [`Crew::map`], with buffers that `make` makes once for each thread, told its number. They come back, too, in any
    /// order.
    pub(crate) fn map_with<B: Send, T: Send>(
        self,
        count: u32,
        make: impl Fn(usize) -> B + Sync,
        work: impl Fn(&mut B, u32) -> T + Sync,
    ) -> (Vec<T>, Vec<B>) {
        let next = AtomicU32::new(0);
        let all = Mutex::new((Vec::new(), Vec::new()));
        let run = |thread: usize| {
            let mut buffers = make(thread);
            let mut done = Vec::new();
            loop {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item >= count {
                    break;
                }
                done.push((item, work(&mut buffers, item)));
            }
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.0.append(&mut done);
            all.1.push(buffers);
        };
        let run = &run;
        match self.helpers {
            Some(helpers) if self.threads > 1 && count > 1 => helpers.in_place_scope(|scope| {
                for thread in 1..self.threads {
                    scope.spawn(move |_| run(thread));
                }
                run(0);
            }),
            _ => run(0),
        }
        let (mut answers, buffers) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        answers.sort_unstable_by_key(|(item, _)| *item);
        let answers = answers.into_iter().map(|(_, answer)| answer);
        (answers.collect(), buffers)
    }

    /// As [`Crew::map_with`], for each of `parts` with its number; each is taken by one thread.
    pub(crate) fn map_parts<B: Send, P: Send, T: Send>(
        self,
        parts: Vec<P>,
        make: impl Fn(usize) -> B + Sync,
        work: impl Fn(&mut B, u32, P) -> T + Sync,
    ) -> Vec<T> {
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let parts: Vec<Mutex<Option<P>>> = parts.into_iter().map(|p| Mutex::new(Some(p))).collect();
        let answers = self.map_with(count, make, |buffers, item| {
            let part = parts.get(item as usize)?.lock().ok()?.take()?;
            Some(work(buffers, item, part))
        });
        answers.0.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CpuSet, sched_getaffinity};

    use super::{Team, others};

    #[test]
    fn a_processor_is_left_only_for_another_one() {
        let set = |processors: &[usize]| {
            let mut set = CpuSet::new();
            processors.iter().for_each(|&nr| set.set(nr));
            set
        };
        assert_eq!(others(&set(&[1, 3, 5]), 3), Some(set(&[1, 5])));
        assert_eq!(others(&set(&[3]), 3), None, "the only one");
        assert_eq!(others(&set(&[1, 5]), 3), None, "one that is not allowed");
        assert_eq!(others(&set(&[1, 5]), usize::MAX), None);
    }

    #[test]
    fn a_helper_may_run_where_the_caller_may() {
        let allowed = sched_getaffinity(None).expect("an affinity");
        let team = Team::new(3);
        let seen = team
            .crew()
            .map_with(1000, |_| sched_getaffinity(None), |_, _| ());
        assert!(seen.1.into_iter().all(|set| set == Ok(allowed)));
    }

    #[test]
    fn answers_come_back_in_order_for_any_number_of_threads() {
        for threads in 1..5 {
            let team = Team::new(threads);
            let squares = team.crew().map(1000, |n| n * n);
            assert!(
                (0..1000).zip(squares).all(|(n, square)| square == n * n),
                "{threads} threads"
            );
        }
    }

    #[test]
    fn each_part_is_worked_on_once_and_every_thread_gives_its_buffers_back() {
        for threads in 1..5 {
            let mut bytes = vec![0_u8; 1000];
            let parts: Vec<&mut [u8]> = bytes.chunks_mut(7).collect();
            let team = Team::new(threads);
            let lens = team.crew().map_parts(
                parts,
                |_| (),
                |(), item, part| {
                    part.fill((item % 200).try_into().expect("a small number"));
                    part.len()
                },
            );
            assert_eq!(lens.iter().sum::<usize>(), 1000);
            assert!(
                (0..)
                    .zip(&bytes)
                    .all(|(at, &byte)| usize::from(byte) == at / 7 % 200)
            );
            let (_, sums) = team.crew().map_with(1000, |_| 0, |sum, n| *sum += n);
            assert_eq!(sums.len(), threads);
            assert_eq!(sums.into_iter().sum::<u32>(), 999 * 500);
        }
    }

    #[test]
    fn a_panic_of_any_thread_reaches_the_caller() {
        for threads in 1..5 {
            let panics = std::panic::catch_unwind(|| {
                let team = Team::new(threads);
                team.crew()
                    .map(1000, |n| assert_ne!(n, 999, "the last one"));
            });
            assert!(panics.is_err(), "{threads} threads");
        }
    }
}
