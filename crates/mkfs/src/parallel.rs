//! Work spread over a few threads that live only as long as the call.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Calls `work` for every number below `count` on up to `threads` threads, the caller's one included. The answers come
/// back in the order of the numbers. Each thread has a state of its own, such as buffers.
///
/// # Errors
/// The error of the lowest number that failed; numbers not begun by then are left out.
pub(crate) fn try_map<S, T: Send, E: Send>(
    count: usize,
    threads: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    if threads <= 1 || count <= 1 {
        let mut state = state();
        return (0..count).map(|item| work(&mut state, item)).collect();
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        let mut state = state();
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count {
                break;
            }
            let answer = work(&mut state, item);
            if answer.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            done.push((item, answer));
        }
        done
    };
    let mut all = thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(run)).collect();
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
    use super::try_map;

    #[test]
    fn answers_come_back_in_order_for_any_number_of_threads() {
        for threads in 1..5 {
            let squares = try_map(1000, threads, || (), |(), n| Ok::<_, ()>(n * n)).unwrap();
            assert!((0..1000).zip(squares).all(|(n, square)| square == n * n));
            let error = try_map(
                1000,
                threads,
                || (),
                |(), n| if n < 300 { Ok(()) } else { Err(n) },
            );
            assert_eq!(error.unwrap_err(), 300, "{threads} threads");
        }
    }
}
