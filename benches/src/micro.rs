//! Micro loops over the library, our FUSE mount, fuse2fs, the kernel's ext2 and tmpfs, in one run.

use anyhow::Result;
use ext2dax_pmem::Buffer;
use serde_json::{Map, Value, json};

use crate::peers::name;
use crate::sample::{Cost, Numbers};
use crate::trees::Tree;

/// Names made, asked for, renamed and removed in a round.
const NAMES: usize = 1_000;
/// Bytes of a large access, and how many of them a round does.
const LARGE: usize = 1 << 20;
const LARGES: usize = 32;
/// Bytes of a small access, and how many of them at random in a file of `LARGES` MiB a round does.
const SMALL: usize = 4096;
const SMALLS: usize = 2_000;
/// A server that ran no longer than this for an operation, or for a twentieth of it, has not been asked: what is left is
/// the odd wake-up, and the odd question whether what the kernel remembers still holds.
const NOT_SERVED: f64 = 300.0;

/// The loops, in the order in which a round does them.
const KINDS: [Kind; 16] = [
    Kind::new("create", Some(10.0), Some(4.0)),
    Kind::new("stat, name is there", None, None),
    Kind::new("stat, no such name", None, None),
    Kind::new("readdir, each name", None, None),
    Kind::new("rename", Some(10.0), Some(4.0)),
    Kind::new("link", None, None),
    Kind::new("mkdir", Some(10.0), Some(4.0)),
    Kind::new("make a file of 4 KiB", None, None),
    Kind::new("read a file of 4 KiB", None, None),
    Kind::new("append 1 MiB", None, None),
    Kind::new("overwrite 1 MiB", None, None),
    Kind::new("read 1 MiB", None, None),
    Kind::new("write 4 KiB at random", None, None),
    Kind::new("read 4 KiB at random", None, None),
    Kind::new("unlink", Some(10.0), Some(4.0)),
    Kind::new("rmdir", None, None),
];

/// How many of the kinds come before the removals.
const MADE: usize = 14;

/// One loop, and what is asked of the library: so many times as fast as the kernel's ext2 and as tmpfs.
#[derive(Clone, Copy, Debug)]
struct Kind {
    what: &'static str,
    kernel: Option<f64>,
    tmpfs: Option<f64>,
}

impl Kind {
    const fn new(what: &'static str, kernel: Option<f64>, tmpfs: Option<f64>) -> Self {
        Kind {
            what,
            kernel,
            tmpfs,
        }
    }
}

/// A contender: who it is, and which process serves it.
pub struct Runner<'t> {
    /// `library`, `FUSE`, `fuse2fs`, `kernel` or `tmpfs`: what targets are found by.
    pub name: &'static str,
    /// What it works in.
    pub tree: Box<dyn Tree + 't>,
    /// The process that does the work, if another does.
    pub server: Option<u32>,
}

impl std::fmt::Debug for Runner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The figures of one loop, a contender each.
#[derive(Debug)]
pub struct MicroRow {
    what: &'static str,
    costs: Vec<(&'static str, Cost)>,
    targets: Vec<(String, bool)>,
}

/// Runs every loop `rounds` times, contenders taking turns, after a round that does not count.
///
/// # Errors
/// When there is nobody to run.
///
/// # Panics
/// When an operation fails that cannot.
pub fn micro(runners: &[Runner<'_>], rounds: usize) -> Result<Vec<MicroRow>> {
    let mut samples = vec![vec![Vec::new(); runners.len()]; KINDS.len()];
    // What is made is removed when everything has been made: the kernel's driver gives no number away that was freed a
    // moment ago and looks at each of them in vain, which would be the time of its creations then.
    for (first, stage) in [(0, making as Stage), (MADE, removing)] {
        for round in 0..=rounds {
            for (at, runner) in runners.iter().enumerate() {
                let costs = stage(runner, round);
                if round > 0 {
                    for (kind, cost) in (first..).zip(costs) {
                        samples[kind][at].push(cost);
                    }
                }
            }
        }
    }
    let rows = KINDS.into_iter().zip(samples).map(|(kind, samples)| {
        let names = runners.iter().map(|runner| runner.name);
        let costs = names
            .zip(samples.iter().map(|costs| Cost::median(costs)))
            .collect();
        MicroRow::new(kind, costs)
    });
    Ok(rows.collect())
}

/// The first kinds or the rest, in the directory of one round.
type Stage = fn(&Runner<'_>, usize) -> Vec<Cost>;

/// The paths of one kind of file of one round.
fn paths(tree: &dyn Tree, round: usize, kind: &str) -> Vec<String> {
    let path = |i| tree.path(&format!("round-{round}/{kind}-{}", name(i)));
    (0..NAMES).map(path).collect()
}

fn each(runner: &Runner<'_>, paths: &[String], act: &dyn Fn(&str)) -> Cost {
    Cost::of(paths.len(), runner.server, || {
        paths.iter().for_each(|path| act(path));
    })
}

fn making(runner: &Runner<'_>, round: usize) -> Vec<Cost> {
    let tree = &*runner.tree;
    let home = tree.path(&format!("round-{round}"));
    tree.mkdir(&home);
    let paths = |kind| paths(tree, round, kind);
    let (names, others, links, missing) = (paths("a"), paths("b"), paths("c"), paths("none"));
    let mut numbers = Numbers::new(round as u64 + 1);
    let asked: Vec<String> = (0..NAMES)
        .map(|_| usize::try_from(numbers.below(NAMES as u64)).expect("below a usize"))
        .map(|i| names[i].clone())
        .collect();
    let each = |paths: &[String], act: &dyn Fn(&str)| each(runner, paths, act);
    let pairs = |from: &[String], to: &[String], act: &dyn Fn(&str, &str)| {
        Cost::of(NAMES, runner.server, || {
            from.iter().zip(to).for_each(|(from, to)| act(from, to));
        })
    };
    let mut costs = vec![
        each(&names, &|path| tree.create(path)),
        each(&asked, &|path| assert!(tree.stat(path), "it is there")),
        each(&missing, &|path| {
            assert!(!tree.stat(path), "nobody made it")
        }),
        Cost::of(NAMES, runner.server, || {
            assert_eq!(tree.list(&home), NAMES);
        }),
        pairs(&names, &others, &|from, to| tree.rename(from, to)),
        pairs(&others, &links, &|from, to| tree.link(from, to)),
        each(&paths("dir"), &|path| tree.mkdir(path)),
    ];
    let ats: Vec<u64> = (0..SMALLS)
        .map(|_| numbers.below((LARGES * LARGE / SMALL) as u64) * SMALL as u64)
        .collect();
    let large = tree.path(&format!("round-{round}/large"));
    costs.extend(contents(runner, &paths("file"), &large, &ats));
    tree.unlink(&large);
    costs
}

fn removing(runner: &Runner<'_>, round: usize) -> Vec<Cost> {
    let tree = &*runner.tree;
    let paths = |kind| paths(tree, round, kind);
    for path in paths("c").iter().chain(&paths("file")) {
        tree.unlink(path);
    }
    // The round's own directory stays: fuse2fs may still have a file in it that was open, under another name.
    vec![
        each(runner, &paths("b"), &|path| tree.unlink(path)),
        each(runner, &paths("dir"), &|path| tree.rmdir(path)),
    ]
}

fn contents(runner: &Runner<'_>, files: &[String], large: &str, ats: &[u64]) -> [Cost; 7] {
    let tree = &*runner.tree;
    let small = [0x5a_u8; SMALL];
    let mut small_buffer = [0_u8; SMALL];
    // On a line of the cache: what copies cost must not depend on where the allocator puts them.
    let (mut chunk, mut buffer) = (Buffer::new(LARGE), Buffer::new(LARGE));
    chunk.fill(0xa5);
    let made = Cost::of(files.len(), runner.server, || {
        files.iter().for_each(|path| tree.write_file(path, &small));
    });
    let read = Cost::of(files.len(), runner.server, || {
        for path in files {
            assert_eq!(tree.read_file(path, &mut small_buffer), SMALL);
        }
    });
    let file = tree.open(large);
    let all = || (0..LARGES as u64).map(|i| i * LARGE as u64);
    let sweep =
        |act: &mut dyn FnMut(u64)| Cost::of(LARGES, runner.server, || all().for_each(&mut *act));
    let at_random = |act: &mut dyn FnMut(u64)| {
        Cost::of(ats.len(), runner.server, || {
            ats.iter().for_each(|&at| act(at));
        })
    };
    [
        made,
        read,
        sweep(&mut |at| file.write(&chunk, at)),
        sweep(&mut |at| file.write(&chunk, at)),
        sweep(&mut |at| file.read(&mut buffer, at)),
        at_random(&mut |at| file.write(&small, at)),
        at_random(&mut |at| file.read(&mut small_buffer, at)),
    ]
}

impl MicroRow {
    fn new(kind: Kind, costs: Vec<(&'static str, Cost)>) -> Self {
        let mut row = MicroRow {
            what: kind.what,
            costs,
            targets: Vec::new(),
        };
        let cpu = |name| row.of(name).map(|cost| cost.cpu);
        let mut targets = Vec::new();
        let mut ask = |who: &str, ours: Option<f64>, peer: Option<f64>, of: &str, wanted: f64| {
            if let (Some(ours), Some(peer)) = (ours, peer) {
                let ratio = peer / ours;
                targets.push((
                    format!("{who}: {ratio:.1}x as fast as {of}, wanted {wanted}x"),
                    ratio >= wanted,
                ));
            }
        };
        for (peer, wanted) in [("kernel", kind.kernel), ("tmpfs", kind.tmpfs)] {
            if let Some(wanted) = wanted {
                ask("library", cpu("library"), cpu(peer), peer, wanted);
            }
        }
        if let (Some(ours), Some(peer)) = (row.of("FUSE"), row.of("fuse2fs")) {
            // Where the kernel answers from what it remembers of both, neither server can be faster.
            let reaches = peer.served > NOT_SERVED && peer.served > peer.wall / 20.0;
            let wanted = if reaches { 2.0 } else { 0.9 };
            let of = if reaches {
                "fuse2fs"
            } else {
                "fuse2fs, answered by the kernel"
            };
            ask("FUSE", Some(ours.wall), Some(peer.wall), of, wanted);
        }
        row.targets = targets;
        row
    }

    fn of(&self, name: &str) -> Option<Cost> {
        self.costs
            .iter()
            .find(|(other, _)| *other == name)
            .map(|&(_, cost)| cost)
    }

    /// The line above the rows.
    pub fn heading(&self) -> String {
        let mut line = format!("{:<24}", "");
        for (name, _) in &self.costs {
            line += &format!("{name:>20}");
        }
        line
    }

    /// One line, and one more for each target. Served contenders by the clock on the wall, the others on a processor; in
    /// brackets how often the library would be done meanwhile.
    pub fn text(&self) -> String {
        let mut line = format!("{:<24}", self.what);
        let shown = |cost: &Cost, name: &str| match name {
            "FUSE" | "fuse2fs" => cost.wall,
            _ => cost.cpu,
        };
        let first = self.costs.first().map_or(f64::NAN, |(_, cost)| cost.cpu);
        for (name, cost) in &self.costs {
            let ns = shown(cost, name);
            let cell = format!("{} ({:.1}x)", crate::table::duration(ns), ns / first);
            line += &format!("{cell:>20}");
        }
        for (text, met) in &self.targets {
            line += &format!("\n    {} {text}", if *met { "met   " } else { "MISSED" });
        }
        line
    }

    /// One JSON object: nanoseconds of one operation, on a processor (server included) and on the wall.
    pub fn json(&self) -> Value {
        let figures = |of: fn(&Cost) -> f64| -> Map<String, Value> {
            let pairs = self.costs.iter();
            pairs
                .map(|(name, cost)| ((*name).to_owned(), of(cost).into()))
                .collect()
        };
        json!({
            "schema": 2,
            "what": self.what,
            "cpu_ns_per_op": figures(|cost| cost.cpu),
            "wall_ns_per_op": figures(|cost| cost.wall),
            "server_ns_per_op": figures(|cost| cost.served),
            "targets": self.targets.iter().map(|(t, met)| json!({"text": t, "met": met})).collect::<Vec<_>>(),
        })
    }
}
