//! Two threads in two directories against one thread in one: what each operation on names costs when a neighbour does the
//! same elsewhere, in another block group or in the same one. A control does it on two images, which share nothing but the
//! machine.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use ext2dax::{FileSystem, Inode, New};
use serde_json::{Value, json};

use crate::peers::name;
use crate::sample::{Cost, median};
use crate::trees::{Library, Tree};

/// Names of a round and a thread.
const NAMES: usize = 4_000;
/// How often a round looks at all of them: looking is quick, and what lasts less than a millisecond measures its beginning.
const LOOKS: usize = 8;
/// So many turns of one thread and two make a round. A turn lasts milliseconds, and what another guest of the machine does
/// meanwhile is as long: the one in the middle of few says little.
const TURNS: usize = 10;
/// Two threads do at least so many times the work of one.
const WANTED: f64 = 1.7;

const KINDS: [&str; 9] = [
    "create",
    "stat",
    "stat, no name",
    "readdir",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
];

/// Where threads wait for each other awake. One that slept would begin on a processor that slept, too, while the other is at
/// work already: what is asked is how two steady threads get on.
struct Start {
    threads: usize,
    arrived: AtomicUsize,
}

impl Start {
    fn new(threads: usize) -> Self {
        Start {
            threads,
            arrived: AtomicUsize::new(0),
        }
    }

    fn wait(&self) {
        let arrived = self.arrived.fetch_add(1, Ordering::AcqRel) + 1;
        let all = arrived.next_multiple_of(self.threads);
        while self.arrived.load(Ordering::Acquire) < all {
            std::hint::spin_loop();
        }
    }
}

/// Where one thread works.
struct Desk {
    tree: Box<dyn Tree + Send>,
    home: String,
    names: [Vec<String>; 3],
}

/// A directory by its inode, as a kernel or a FUSE server has it: paths are names in it.
struct ByInode(Inode);

impl Tree for ByInode {
    fn path(&self, name: &str) -> String {
        name.to_owned()
    }
    fn create(&self, path: &str) {
        let new = New {
            mode: 0o644,
            ..New::default()
        };
        self.0.create(path.as_bytes(), &new).expect("a new name");
    }
    fn stat(&self, path: &str) -> bool {
        self.0
            .lookup(path.as_bytes())
            .is_ok_and(|inode| inode.attributes().is_ok())
    }
    fn list(&self, _path: &str) -> usize {
        let (mut cookie, mut count) = (0, 0);
        loop {
            let entries = self.0.read_dir(cookie, 256).expect("a directory");
            let Some(last) = entries.last() else {
                return count - 2;
            };
            cookie = last.next;
            count += entries.len();
        }
    }
    fn rename(&self, from: &str, to: &str) {
        self.0
            .rename(from.as_bytes(), &self.0, to.as_bytes())
            .expect("it is there");
    }
    fn link(&self, from: &str, to: &str) {
        let target = self.0.lookup(from.as_bytes()).expect("it is there");
        self.0.link(to.as_bytes(), &target).expect("a new name");
    }
    fn unlink(&self, path: &str) {
        self.0.unlink(path.as_bytes()).expect("it is there");
    }
    fn mkdir(&self, path: &str) {
        let new = New {
            mode: 0o755,
            ..New::default()
        };
        self.0.mkdir(path.as_bytes(), &new).expect("a new name");
    }
    fn rmdir(&self, path: &str) {
        self.0.rmdir(path.as_bytes()).expect("an empty directory");
    }
    fn write_file(&self, _path: &str, _contents: &[u8]) {
        unreachable!("names only")
    }
    fn read_file(&self, _path: &str, _buffer: &mut [u8]) -> usize {
        unreachable!("names only")
    }
    fn open(&self, _path: &str) -> Box<dyn crate::trees::Contents> {
        unreachable!("names only")
    }
}

/// How a desk reaches its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By path from the root.
    Path,
    /// By the inode of the directory.
    Inode,
    /// The same with both directories in one block group: below one of the root's, which lie in groups of their own.
    Group,
}

impl Way {
    /// What the rows are called.
    const fn name(self) -> &'static str {
        match self {
            Way::Path => "by path",
            Way::Inode => "by inode",
            Way::Group => "in one group",
        }
    }

    /// The homes of the two threads.
    const fn homes(self) -> [&'static str; 2] {
        match self {
            Way::Path | Way::Inode => ["/one", "/two"],
            Way::Group => ["/group/left", "/group/right"],
        }
    }
}

impl Desk {
    fn new(fs: &FileSystem, home: &str, way: Way) -> Result<Self> {
        if !fs.exists(home) {
            fs.create_dir_all(home)?;
        }
        let names = ["a", "b", "c"].map(|kind| {
            let path = |i| match way {
                Way::Path => format!("{home}/{kind}-{}", name(i)),
                Way::Inode | Way::Group => format!("{kind}-{}", name(i)),
            };
            (0..NAMES).map(path).collect()
        });
        Ok(Desk {
            tree: match way {
                Way::Path => Box::new(Library(fs.clone())),
                Way::Inode | Way::Group => Box::new(ByInode(fs.inode(home)?)),
            },
            home: home.to_owned(),
            names,
        })
    }

    /// Every kind once, in step with others at the barrier.
    fn round(&self, barrier: &Start) -> Vec<Cost> {
        let tree = &*self.tree;
        let [a, b, c] = &self.names;
        // A thread's first milliseconds tell where the scheduler puts it.
        barrier.wait();
        a.iter().for_each(|path| tree.create(path));
        a.iter().for_each(|path| tree.unlink(path));
        let each = |act: &dyn Fn(usize)| {
            barrier.wait();
            Cost::of(NAMES, None, || (0..NAMES).for_each(act))
        };
        let looks = |act: &dyn Fn(usize)| {
            barrier.wait();
            Cost::of(LOOKS * NAMES, None, || {
                (0..LOOKS).for_each(|_| (0..NAMES).for_each(act));
            })
        };
        let costs = vec![
            each(&|i| tree.create(&a[i])),
            looks(&|i| assert!(tree.stat(&a[i]), "it is there")),
            looks(&|i| assert!(!tree.stat(&b[i]), "nobody made it")),
            {
                barrier.wait();
                Cost::of(LOOKS * NAMES, None, || {
                    (0..LOOKS).for_each(|_| assert_eq!(tree.list(&self.home), NAMES));
                })
            },
            each(&|i| tree.rename(&a[i], &b[i])),
            each(&|i| tree.link(&b[i], &c[i])),
            {
                c.iter().for_each(|path| tree.unlink(path));
                each(&|i| tree.unlink(&b[i]))
            },
            each(&|i| tree.mkdir(&a[i])),
            each(&|i| tree.rmdir(&a[i])),
        ];
        barrier.wait();
        costs
    }
}

/// One operation: nanoseconds of one thread alone, and of each of two.
#[derive(Debug)]
pub struct PairRow {
    what: String,
    one: Cost,
    two: Cost,
    /// By the clock on the wall, and on processors.
    speedup: (f64, f64),
    /// The same on two images.
    control: (f64, f64),
}

fn both(desks: &[Desk; 2]) -> Vec<Cost> {
    let barrier = Start::new(2);
    let [mut first, second] = std::thread::scope(|scope| {
        let threads = desks
            .each_ref()
            .map(|desk| scope.spawn(|| desk.round(&barrier)));
        threads.map(|thread| thread.join().expect("no operation fails"))
    });
    // The pair is as slow as its slower half on the wall, and as slow as the mean on processors.
    for (cost, other) in first.iter_mut().zip(second) {
        cost.wall = cost.wall.max(other.wall);
        cost.cpu = f64::midpoint(cost.cpu, other.cpu);
    }
    first
}

fn alone(desk: &Desk) -> Vec<Cost> {
    let barrier = Start::new(1);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| desk.round(&barrier));
        thread.join().expect("no operation fails")
    })
}

/// Runs every kind in `rounds` rounds of ten turns each: one thread, two in two directories of `fs`, and two on two images.
///
/// # Errors
/// When a directory cannot be made.
///
/// # Panics
/// When an operation fails that cannot.
pub fn pairs(fs: &FileSystem, other: &FileSystem, way: Way, rounds: usize) -> Result<Vec<PairRow>> {
    let [one, two] = way.homes();
    let desks = [Desk::new(fs, one, way)?, Desk::new(fs, two, way)?];
    let apart = [Desk::new(fs, one, way)?, Desk::new(other, two, way)?];
    let mut samples = vec![(Vec::new(), Vec::new(), Vec::new()); KINDS.len()];
    for turn in 0..=rounds * TURNS {
        let costs = [alone(&desks[0]), both(&desks), both(&apart)];
        if turn == 0 {
            continue;
        }
        for (kind, (one, two, control)) in samples.iter_mut().enumerate() {
            one.push(costs[0][kind]);
            two.push(costs[1][kind]);
            control.push(costs[2][kind]);
        }
    }
    let rows = KINDS
        .iter()
        .zip(samples)
        .map(|(kind, (one, two, control))| {
            let ratio = |two: &[Cost], of: fn(&Cost) -> f64| {
                let each = one.iter().zip(two);
                median(each.map(|(one, two)| 2.0 * of(one) / of(two)).collect())
            };
            PairRow {
                what: format!("{kind}, {}", way.name()),
                speedup: (ratio(&two, |cost| cost.wall), ratio(&two, |cost| cost.cpu)),
                control: (
                    ratio(&control, |cost| cost.wall),
                    ratio(&control, |cost| cost.cpu),
                ),
                one: Cost::median(&one),
                two: Cost::median(&two),
            }
        });
    Ok(rows.collect())
}

impl PairRow {
    fn met(&self) -> bool {
        self.speedup.0 >= WANTED
    }

    /// One line.
    pub fn text(&self) -> String {
        let duration = crate::table::duration;
        format!(
            "{:<28} one thread {:>8}, two threads {:>8} each: {:.2}x the work of one, on processors {:.2}x (two images {:.2}x, {:.2}x) {}",
            self.what,
            duration(self.one.cpu),
            duration(self.two.cpu),
            self.speedup.0,
            self.speedup.1,
            self.control.0,
            self.control.1,
            if self.met() { "met" } else { "MISSED" },
        )
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        json!({
            "schema": 2,
            "what": format!("{}, two threads", self.what),
            "one_ns_per_op": {"wall": self.one.wall, "cpu": self.one.cpu},
            "two_ns_per_op": {"wall": self.two.wall, "cpu": self.two.cpu},
            "speedup": {"wall": self.speedup.0, "cpu": self.speedup.1, "two_images_wall": self.control.0, "two_images_cpu": self.control.1},
            "targets": [{"text": format!("{:.2}x, wanted {WANTED}x", self.speedup.0), "met": self.met()}],
        })
    }
}
