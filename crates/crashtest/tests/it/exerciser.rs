//! The exerciser over every block size. `EXT2DAX_SEED=n` repeats a run, `EXT2DAX_SOAK=1` makes it a million operations for
//! each block size, `KEEP_IMAGE=path` keeps the image of a run that failed.

use anyhow::Result;
use ext2dax_crashtest::exerciser::{self, Figures, Mapping, Mode, Options, Place};
use ext2dax_crashtest::judge;
use ext2dax_crashtest::progress::Progress;

use crate::scratch::seed;

/// Runs of one block size: every place, with and without space to spare, together `operations`.
fn runs(block_size: u32, mapping: Mapping, operations: u64, seed: u64) -> Vec<Options> {
    let mut runs = Vec::new();
    for place in Place::ALL {
        for tight in [false, true] {
            runs.push(Options {
                block_size,
                mapping,
                place,
                tight,
                operations: operations / 8,
                seed: seed + runs.len() as u64,
            });
        }
    }
    runs
}

fn exercise(runs: &[Options], progress: &Progress) -> Result<Figures> {
    let mut total = Figures::default();
    for options in runs {
        let figures = exerciser::run(options)?;
        progress.add(figures.operations);
        total += figures;
    }
    Ok(total)
}

fn say(what: &str, seed: u64, figures: &Figures) {
    println!(
        "{what}: {} operations, {} MiB compared, {} refused, {} without space, {:.1} s, EXT2DAX_SEED={seed}",
        figures.operations,
        figures.compared >> 20,
        figures.refused,
        figures.without_space,
        figures.took.as_secs_f64()
    );
}

#[test]
fn a_file_used_by_every_route_is_the_vector_of_bytes_beside_it() -> Result<()> {
    let (operations, seed) = match judge::soak() {
        true => (1_000_000, seed(16)),
        false => (20_000, seed(1)),
    };
    let progress = Progress::new("exerciser", 7 * operations);
    for bits in 10..=16 {
        let figures = exercise(&runs(1 << bits, Mapping::Soft, operations, seed), &progress)?;
        say(
            &format!("blocks of {} KiB", 1 << (bits - 10)),
            seed,
            &figures,
        );
    }
    Ok(())
}

/// The same over views of this process: every trap is a real one.
#[test]
fn a_file_mapped_into_this_process_is_the_vector_of_bytes_beside_it() -> Result<()> {
    let (operations, seed) = match judge::soak() {
        true => (40_000, seed(17)),
        false => (2_400, seed(2)),
    };
    let progress = Progress::new("exerciser, mapped", 6 * operations);
    for mode in [Mode::Userfault, Mode::Signals] {
        let mut total = Figures::default();
        for bits in [12, 14, 16] {
            let runs = runs(1 << bits, Mapping::Host(mode), operations, seed);
            match exercise(&runs, &progress) {
                Ok(figures) => total += figures,
                Err(error) if error.downcast_ref::<std::io::Error>().is_some() => {
                    judge::skipped(&format!("mode {mode}: {error:#}"));
                }
                Err(error) => return Err(error),
            }
        }
        say(&format!("mode {mode}"), seed, &total);
    }
    Ok(())
}
