//! Work spread over a few threads that live only as long as the call.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Calls `work` for every number below `count` on up to `threads` threads, the caller's one included. The answers come
/// back in the order of the numbers.
pub(crate) fn map<T: Send>(count: u32, threads: usize, work: impl Fn(u32) -> T + Sync) -> Vec<T> {
    map_with(count, threads, |_| (), |(), item| work(item)).0
}

/// As [`map`], with buffers that `make` makes once for each thread, told its number. They come back, too, in any order.
pub(crate) fn map_with<B: Send, T: Send>(
    count: u32,
    threads: usize,
    make: impl Fn(usize) -> B + Sync,
    work: impl Fn(&mut B, u32) -> T + Sync,
) -> (Vec<T>, Vec<B>) {
    if threads <= 1 || count <= 1 {
        let mut buffers = make(0);
        let answers = (0..count).map(|item| work(&mut buffers, item)).collect();
        return (answers, vec![buffers]);
    }
    let next = AtomicU32::new(0);
    let run = |thread: usize| {
        let mut buffers = make(thread);
        let mut done = Vec::new();
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count {
                return (done, buffers);
            }
            done.push((item, work(&mut buffers, item)));
        }
    };
    let run = &run;
    let (mut all, buffers) = thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        let (mut all, mine) = run(0);
        let mut buffers = vec![mine];
        for helper in helpers {
            match helper.join() {
                Ok((mut done, theirs)) => {
                    all.append(&mut done);
                    buffers.push(theirs);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        (all, buffers)
    });
    all.sort_unstable_by_key(|(item, _)| *item);
    (all.into_iter().map(|(_, answer)| answer).collect(), buffers)
}

/// As [`map_with`], for each of `parts` with its number; each is taken by one thread.
pub(crate) fn map_parts<B: Send, P: Send, T: Send>(
    parts: Vec<P>,
    threads: usize,
    make: impl Fn(usize) -> B + Sync,
    work: impl Fn(&mut B, u32, P) -> T + Sync,
) -> Vec<T> {
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let parts: Vec<Mutex<Option<P>>> = parts.into_iter().map(|p| Mutex::new(Some(p))).collect();
    let answers = map_with(count, threads, make, |buffers, item| {
        let part = parts.get(item as usize)?.lock().ok()?.take()?;
        Some(work(buffers, item, part))
    });
    answers.0.into_iter().flatten().collect()
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

    #[test]
    fn each_part_is_worked_on_once_and_every_thread_gives_its_buffers_back() {
        for threads in 1..5 {
            let mut bytes = vec![0_u8; 1000];
            let parts: Vec<&mut [u8]> = bytes.chunks_mut(7).collect();
            let lens = super::map_parts(
                parts,
                threads,
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
            let (_, sums) = super::map_with(1000, threads, |_| 0, |sum, n| *sum += n);
            assert_eq!(sums.len(), threads);
            assert_eq!(sums.into_iter().sum::<u32>(), 999 * 500);
        }
    }
}
