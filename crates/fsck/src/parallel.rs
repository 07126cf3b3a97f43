//! Work spread over a few threads that live only as long as the call.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Calls `work` for every number below `count` on up to `threads` threads, the caller's one included. The answers come
/// back in the order of the numbers.
pub(crate) fn map<T: Send>(count: u32, threads: usize, work: impl Fn(u32) -> T + Sync) -> Vec<T> {
    map_with(count, threads, || (), |(), item| work(item))
}

/// As [`map`], with buffers that `make` makes once for each thread.
pub(crate) fn map_with<B, T: Send>(
    count: u32,
    threads: usize,
    make: impl Fn() -> B + Sync,
    work: impl Fn(&mut B, u32) -> T + Sync,
) -> Vec<T> {
    if threads <= 1 || count <= 1 {
        let mut buffers = make();
        return (0..count).map(|item| work(&mut buffers, item)).collect();
    }
    let next = AtomicU32::new(0);
    let run = || {
        let mut buffers = make();
        let mut done = Vec::new();
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count {
                return done;
            }
            done.push((item, work(&mut buffers, item)));
        }
    };
    let mut all = thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut all = run();
        for helper in helpers {
            match helper.join() {
                Ok(mut done) => all.append(&mut done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_unstable_by_key(|(item, _)| *item);
    all.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn answers_come_back_in_order_for_any_number_of_threads() {
        for threads in 1..5 {
            let squares = super::map(1000, threads, |n| n * n);
            assert!(
                (0..1000).zip(squares).all(|(n, square)| square == n * n),
                "{threads} threads"
            );
        }
    }
}
