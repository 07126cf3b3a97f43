//! The number of mappings, inheritance, and the end of a process.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ext2dax_fault::host::Mode;

use super::{Host, PAGE, Random, Watchdog, in_each_mode, options};

/// Every page is a mapping of its own: without eviction the views would take 4,000 of them.
#[test]
fn scattered_pages_stay_within_the_budget_and_keep_their_bytes() {
    in_each_mode(|mode| {
        let mut options = options(mode);
        options.max_mappings = Some(600);
        options.hole_fill_pages = 1;
        let pages = 4000;
        let host = Host::new(&options, 12, 8192, (pages * PAGE) as u64);
        host.file.map().scatter();
        let view = host.view(pages);
        let progress = Arc::new(AtomicU64::new(0));
        let _watchdog = Watchdog::new("budget", &progress);
        for page in 0..pages {
            view.store(page * PAGE, page as u64 + 1).unwrap();
            progress.fetch_add(1, Ordering::Relaxed);
        }
        let mut random = Random(99);
        for _ in 0..20_000 {
            let page = random.below(pages);
            assert_eq!(view.load(page * PAGE), Ok(page as u64 + 1));
            progress.fetch_add(1, Ordering::Relaxed);
        }
        // The last eviction may still be under way.
        while view.mappings() > 600 + 512 {
            std::thread::yield_now();
        }
        assert!(host.mmu.stats().evictions > 0, "{:?}", host.mmu.stats());
        for page in 0..pages {
            assert_eq!(host.in_image(page * PAGE), page as u64 + 1);
        }
    });
}

/// An unresolved page would read as silent zeroes in a child, so no child gets any.
#[test]
fn no_mapping_of_a_view_is_inherited() {
    in_each_mode(|mode| {
        let host = Host::new(&options(mode), 12, 256, 128 * PAGE as u64);
        let view = host.view(256);
        for page in (0..128).step_by(3) {
            view.store(page * PAGE, 1).unwrap();
            view.load((page + 40) % 128 * PAGE).unwrap();
        }
        host.file.punch(20..40);
        host.file.truncate(100 * PAGE as u64);
        host.file.truncate(120 * PAGE as u64);
        host.file.map().set_full(true);
        view.store(119 * PAGE, 1).unwrap_err();
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let (start, end) = (view.as_ptr().addr(), view.as_ptr().addr() + view.len());
        let (mut inside, mut seen) = (false, 0);
        for line in smaps.lines() {
            if let Some((from, to)) = line
                .split_whitespace()
                .next()
                .and_then(|word| word.split_once('-'))
            {
                let parse = |text| usize::from_str_radix(text, 16).ok();
                inside = parse(from).is_some_and(|from| from < end)
                    && parse(to).is_some_and(|to| to > start);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                assert!(
                    flags.split_whitespace().any(|flag| flag == "dc"),
                    "not MADV_DONTFORK: {flags}"
                );
                seen += 1;
            }
        }
        assert!(seen > 3, "the view is made of several mappings");
    });
}

/// The child of the tests below: does what its environment says, and dies of it.
#[test]
fn child_that_dies() {
    let Ok(what) = std::env::var("EXT2DAX_CHILD") else {
        return;
    };
    let mode = match std::env::var("EXT2DAX_MODE").as_deref() {
        Ok("userfault") => Mode::Userfault,
        Ok("userfault-user-only") => Mode::UserfaultUserOnly,
        _ => Mode::Signals,
    };
    let host = Host::new(&options(mode), 12, 64, 48 * PAGE as u64);
    let view = host.view(64);
    view.store(0, 1).unwrap();
    match what.as_str() {
        "closed" => {
            // The store waits for the gate; the view goes meanwhile.
            let frozen = host.file.gates().freeze().expect("frozen");
            std::thread::scope(|scope| {
                let (view_of_thread, faults) = (&view, host.mmu.stats().faults);
                let store = scope.spawn(move || view_of_thread.store(40 * PAGE, 1));
                while host.mmu.stats().faults == faults {
                    std::thread::yield_now();
                }
                assert!(!store.is_finished());
                drop(frozen);
                store
                    .join()
                    .expect("the store is served after the thaw")
                    .expect("there is space");
            });
            println!("thawed");
            let at = view.as_ptr();
            let _ = view.close();
            // Nothing is there any more: the kernel says so as a signal, or EFAULT here.
            let null = std::fs::File::open("/proc/self/mem").expect("our own memory");
            let result = std::os::unix::fs::FileExt::read_at(&null, &mut [0; 8], at.addr() as u64);
            assert!(result.is_err(), "a closed view can be read: {result:?}");
            println!("closed");
        }
        other => unreachable!("{other}"),
    }
}

fn child(mode: Mode, what: &str) -> std::process::Output {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "host::limits::child_that_dies", "--nocapture"])
        .env("EXT2DAX_CHILD", what)
        .env("EXT2DAX_MODE", mode.to_string())
        .output()
        .expect("the child runs")
}

#[test]
fn a_store_waits_for_a_frozen_file_system_and_a_closed_view_is_gone() {
    in_each_mode(|mode| {
        let output = child(mode, "closed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{mode}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains("thawed") && text.contains("closed"), "{text}");
    });
}

/// One run of 16 MiB is eight windows of 2 MiB, mapped for the first time or for the second.
#[test]
fn a_file_in_one_run_takes_one_fault_a_window_however_often_it_is_mapped() {
    in_each_mode(|mode| {
        let pages = (16 << 20) / PAGE;
        let host = Host::new(&options(mode), 12, 8192, (pages * PAGE) as u64);
        host.file.write(0, &vec![1; pages * PAGE]);
        let mut random = Random(7);
        let mut orders: [Vec<usize>; 3] = std::array::from_fn(|_| (0..pages).collect());
        orders[1].reverse();
        for at in (1..pages).rev() {
            orders[2].swap(at, random.below(at + 1));
        }
        let mut views = Vec::new();
        for order in orders {
            for write in [true, false] {
                let view = host.view(pages);
                let before = host.mmu.stats().faults;
                for &page in &order {
                    if write {
                        view.store(page * PAGE, page as u64).unwrap();
                    } else {
                        assert_eq!(view.load(page * PAGE), Ok(page as u64));
                    }
                }
                let faults = host.mmu.stats().faults - before;
                // A load in Signals mode maps for reading; nothing of that is stored to here.
                assert!(faults <= 8, "{mode:?}: {faults} faults, write: {write}");
                views.push(view);
            }
        }
    });
}

/// Entries are made when a view is, for the file as it is then; what is further on is made when it is asked for.
#[test]
fn pages_far_behind_the_size_that_a_view_began_with_are_served() {
    in_each_mode(|mode| {
        let progress = Arc::new(AtomicU64::new(0));
        let _watchdog = Watchdog::new("far pages", &progress);
        let host = Host::new(&options(mode), 12, 256, PAGE as u64);
        let view = host.view((1 << 30) / PAGE);
        view.store(0, 1).unwrap();
        host.file.truncate(1 << 30);
        for (n, at) in [5 << 20, 512 << 20, (1 << 30) - PAGE]
            .into_iter()
            .enumerate()
        {
            assert_eq!(view.load(at), Ok(0));
            view.store(at, n as u64 + 2).unwrap();
            assert_eq!(host.in_image(at), n as u64 + 2);
            progress.fetch_add(1, Ordering::Relaxed);
        }
    });
}
