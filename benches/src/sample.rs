//! Interleaved timing: rounds of every contender in turn, medians per operation.

use std::time::Instant;

/// A contender: a name and what it does in one round, which answers the nanoseconds per operation.
pub struct Contender<'a> {
    /// As it stands in the table.
    pub name: &'a str,
    /// One round; answers nanoseconds per operation.
    pub round: Box<dyn FnMut() -> f64 + 'a>,
}

impl std::fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contender")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'a> Contender<'a> {
    /// A contender called `name` whose round is `round`.
    pub fn new(name: &'a str, round: impl FnMut() -> f64 + 'a) -> Self {
        Contender {
            name,
            round: Box::new(round),
        }
    }
}

/// Nanoseconds that this thread has run, in user mode and in the kernel.
fn thread_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Nanoseconds per operation of `count` operations done by `work`, in time that this thread ran: nothing here waits for a
/// device, and on a shared machine the clock on the wall mostly measures the neighbours.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and durations of a bench are far below 2^52"
)]
pub fn per_op(count: usize, work: impl FnOnce()) -> f64 {
    let start = thread_ns();
    work();
    (thread_ns() - start) as f64 / count as f64
}

/// The same by the clock on the wall: for work on several threads.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and durations of a bench are far below 2^52"
)]
pub fn per_op_elapsed(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / count as f64
}

/// What operations took, each: nanoseconds that threads ran, and nanoseconds by the clock on the wall.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// On a processor: the caller's thread, and the threads of the process that serves it.
    pub cpu: f64,
    /// On the wall.
    pub wall: f64,
    /// Of `cpu`, what the serving process took: 0 where there is none, and where the kernel answered for it.
    pub served: f64,
}

impl Cost {
    /// The cost of each of `count` operations done by `work`, of which `server` does a part.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts and durations of a bench are far below 2^52"
    )]
    pub fn of(count: usize, server: Option<u32>, work: impl FnOnce()) -> Self {
        let server_ns = || server.map_or(0, crate::fusemount::process_ns);
        let (served, cpu, start) = (server_ns(), thread_ns(), Instant::now());
        work();
        let wall = start.elapsed().as_nanos() as f64 / count as f64;
        let own = (thread_ns() - cpu) as f64 / count as f64;
        let served = (server_ns() - served) as f64 / count as f64;
        Cost {
            cpu: own + served,
            wall,
            served,
        }
    }

    /// The median of each figure.
    pub fn median(costs: &[Cost]) -> Self {
        let of = |figure: fn(&Cost) -> f64| median(costs.iter().map(figure).collect());
        Cost {
            cpu: of(|cost| cost.cpu),
            wall: of(|cost| cost.wall),
            served: of(|cost| cost.served),
        }
    }
}

/// The value in the middle; not a number if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs `rounds` rounds of all contenders, interleaved, after one unmeasured round each, and answers the median of each.
pub fn medians(rounds: usize, mut contenders: Vec<Contender<'_>>) -> Vec<(String, f64)> {
    for contender in &mut contenders {
        (contender.round)();
    }
    let mut samples = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds {
        for (contender, samples) in contenders.iter_mut().zip(&mut samples) {
            samples.push((contender.round)());
        }
    }
    contenders
        .iter()
        .zip(samples)
        .map(|(contender, mut samples)| {
            samples.sort_by(f64::total_cmp);
            (contender.name.to_owned(), samples[samples.len() / 2])
        })
        .collect()
}

/// A small generator of repeatable numbers (xorshift), so that all contenders see the same offsets.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Numbers(seed | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
