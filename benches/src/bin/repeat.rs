//! `repeat`: one operation of the library over and over, for profilers.
//!
//! ```text
//! repeat create|stat|miss|list|rename|link|unlink|mkdir|rmdir ROUNDS
//! valgrind --tool=callgrind --toggle-collect='*measured*' target/release/repeat mkdir 1
//! ```
//! A round is 1,000 names. What prepares and cleans up a round is not in `measured`, and its time is not in the figure.
#![expect(clippy::print_stdout, reason = "the figure goes to standard output")]

use anyhow::{Context, Result, bail};
use ext2dax_benches::ours;
use ext2dax_benches::sample::{Cost, median};
use ext2dax_benches::trees::{Library, Tree};

const NAMES: usize = 1_000;

#[inline(never)]
fn measured(count: usize, mut act: impl FnMut(usize)) -> f64 {
    Cost::of(NAMES, None, || (0..count).for_each(&mut act)).cpu
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let what = words.next().context("repeat OPERATION ROUNDS")?;
    let rounds: usize = words.next().context("repeat OPERATION ROUNDS")?.parse()?;
    let fs = ours::in_memory(256, 60_000)?;
    let tree = Library(fs);
    tree.mkdir("/home");
    let paths = |kind: &str| -> Vec<String> {
        (0..NAMES).map(|i| format!("/home/{kind}-{i:07}")).collect()
    };
    let (a, b) = (paths("a"), paths("b"));
    let make = || a.iter().for_each(|path| tree.create(path));
    let clear = |paths: &[String]| paths.iter().for_each(|path| tree.unlink(path));
    let mut times = Vec::new();
    for _ in 0..rounds {
        times.push(match what.as_str() {
            "create" => {
                let ns = measured(NAMES, |i| tree.create(&a[i]));
                clear(&a);
                ns
            }
            "stat" | "miss" => {
                make();
                let asked = if what == "stat" { &a } else { &b };
                let ns = measured(NAMES, |i| {
                    std::hint::black_box(tree.stat(&asked[i * 7 % NAMES]));
                });
                clear(&a);
                ns
            }
            "list" => {
                make();
                let ns = measured(1, |_| assert_eq!(tree.list("/home"), NAMES));
                clear(&a);
                ns
            }
            "rename" => {
                make();
                let ns = measured(NAMES, |i| tree.rename(&a[i], &b[i]));
                clear(&b);
                ns
            }
            "link" => {
                make();
                let ns = measured(NAMES, |i| tree.link(&a[i], &b[i]));
                clear(&a);
                clear(&b);
                ns
            }
            "unlink" => {
                make();
                measured(NAMES, |i| tree.unlink(&a[i]))
            }
            "mkdir" => {
                let ns = measured(NAMES, |i| tree.mkdir(&a[i]));
                a.iter().for_each(|path| tree.rmdir(path));
                ns
            }
            "rmdir" => {
                a.iter().for_each(|path| tree.mkdir(path));
                measured(NAMES, |i| tree.rmdir(&a[i]))
            }
            other => bail!("no operation {other}"),
        });
    }
    println!(
        "{what}: {:.0} ns, median of {rounds} rounds of {NAMES}",
        median(times)
    );
    Ok(())
}
