//! Two threads store into a mapped file while one cuts and regrows it and one punches holes.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ext2dax::fault::host::{Access, HostMmu};
use ext2dax::{File, FileSystem, MappedFile};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Expected, PAGE, open, say};

const PAGES: usize = (4 << 20) / PAGE;
/// Pages that nobody cuts off or punches: every store there must be found.
const CALM: usize = 256;

#[derive(Default)]
struct Tally {
    stores: AtomicU64,
    checked: AtomicU64,
    lost: AtomicU64,
    foreign: AtomicU64,
    sigbus: AtomicU64,
    cuts: AtomicU64,
    holes: AtomicU64,
    stop: AtomicBool,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Runs for `time`, then answers what the file holds.
pub(super) fn run(fs: &FileSystem, mmu: &HostMmu, time: Duration) -> Result<Expected> {
    println!("\nStorm");
    let len = PAGES * PAGE;
    let file = open(fs, "/storm", len as u64)?;
    let view = file.map(mmu, 0..len as u64, Access::ReadWrite)?;
    let (tally, before) = (Tally::default(), mmu.stats());
    let ended: Result<()> = std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| store(&view, 0, &tally)),
            scope.spawn(|| store(&view, 1, &tally)),
            scope.spawn(|| cut(&file, &tally)),
            scope.spawn(|| punch(&file, &tally)),
        ];
        show(&tally, time);
        tally.stop.store(true, Ordering::Relaxed);
        // All of them end before the first complaint is passed on.
        let results = threads.map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
        });
        results.into_iter().collect()
    });
    ended?;

    let stats = mmu.stats();
    say(
        "stores",
        &format!(
            "{}, {} of them checked in place",
            get(&tally.stores),
            get(&tally.checked)
        ),
    );
    say(
        "against them",
        &format!(
            "{} truncations, {} holes punched",
            get(&tally.cuts),
            get(&tally.holes)
        ),
    );
    say(
        "page faults",
        &format!(
            "{} served, {} blocks allocated by them, {} pieces mapped, {} moved",
            stats.faults - before.faults,
            view.blocks_filled_by_faults(),
            stats.pieces - before.pieces,
            stats.moves - before.moves
        ),
    );
    say(
        "SIGBUS",
        &format!(
            "{} accesses behind the end, each to the thread that made it",
            get(&tally.sigbus)
        ),
    );
    say(
        "lost",
        &format!(
            "{} stores, {} foreign bytes",
            get(&tally.lost),
            get(&tally.foreign)
        ),
    );
    ensure!(
        get(&tally.lost) == 0 && get(&tally.foreign) == 0,
        "the storm lost stores or showed foreign bytes"
    );

    file.set_len(len as u64)?;
    let mut bytes = vec![0; len];
    view.read(0, &mut bytes)?;
    let mut by_call = vec![0; len];
    file.read_exact_at(&mut by_call, 0)?;
    ensure!(
        bytes == by_call,
        "the view and read(2) differ after the storm"
    );
    Ok(Expected {
        path: "storm",
        bytes,
    })
}

/// Each thread owns eight bytes of every page, 64 bytes from the other's.
fn store(view: &MappedFile, thread: usize, tally: &Tally) -> Result<()> {
    let mut step = 0_u64;
    while !tally.stop.load(Ordering::Relaxed) {
        step += 1;
        let page = usize::try_from(step * 7919 % PAGES as u64)?;
        let at = page * PAGE + thread * 64;
        let word = (thread as u64 + 1) << 48 | step;
        let stored = view.store(at, word);
        let loaded = view.load(at);
        add(&tally.stores);
        for _ in [stored.err(), loaded.err()].into_iter().flatten() {
            add(&tally.sigbus);
        }
        if page < CALM {
            add(&tally.checked);
            if (stored, loaded) != (Ok(()), Ok(word)) {
                add(&tally.lost);
            }
        } else if loaded.is_ok_and(|loaded| loaded != 0 && loaded >> 48 != thread as u64 + 1) {
            add(&tally.foreign);
        }
    }
    Ok(())
}

fn cut(file: &File, tally: &Tally) -> Result<()> {
    let mut round = 0;
    while !tally.stop.load(Ordering::Relaxed) {
        round += 1;
        let pages = CALM + 1 + round * 61 % (PAGES - CALM - 1);
        file.set_len((pages * PAGE - round * 8 % PAGE) as u64)?;
        std::thread::sleep(Duration::from_micros(300));
        file.set_len((PAGES * PAGE) as u64)?;
        std::thread::sleep(Duration::from_micros(700));
        add(&tally.cuts);
    }
    Ok(())
}

fn punch(file: &File, tally: &Tally) -> Result<()> {
    let mut round = 0;
    while !tally.stop.load(Ordering::Relaxed) {
        round += 1;
        let start = CALM + round * 37 % (PAGES - CALM - 32);
        file.punch_hole((start * PAGE) as u64..((start + 1 + round % 31) * PAGE) as u64)?;
        std::thread::sleep(Duration::from_micros(500));
        add(&tally.holes);
    }
    Ok(())
}

/// A bar on a terminal, a line a second else.
fn show(tally: &Tally, time: Duration) {
    let start = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal {
        ProgressBar::new(1000)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("  {bar:40} {msg}") {
        bar.set_style(style);
    }
    let mut told = Duration::ZERO;
    while start.elapsed() < time {
        std::thread::sleep(Duration::from_millis(100).min(time));
        let elapsed = start.elapsed();
        let state = format!(
            "{} stores, {} SIGBUS, {} cuts, {} holes",
            get(&tally.stores),
            get(&tally.sigbus),
            get(&tally.cuts),
            get(&tally.holes)
        );
        let thousandths = elapsed.as_millis() * 1000 / time.as_millis().max(1);
        bar.set_position(u64::try_from(thousandths).unwrap_or(1000));
        bar.set_message(state.clone());
        if !terminal && elapsed - told >= Duration::from_secs(1) {
            told = elapsed;
            println!("    {state}");
        }
    }
    bar.finish_and_clear();
}
