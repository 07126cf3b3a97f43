//! The same random operations on the library, on a FUSE mount and on the kernel's mount of like images: the same answers,
//! error for error, and in the end the same trees with attributes, and times where an operation has set them. Several
//! threads, each in a directory of its own, work on the same mounts.
//!
//! `EXT2DAX_SEED=n` repeats a run; `EXT2DAX_SOAK=1` makes it long, `EXT2DAX_OPERATIONS=n` as long as wanted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ext2dax::{FileSystem, OpenOptions};
use ext2dax_crashtest::differential::{DIFFERENCES, Systems, Tally};
use ext2dax_crashtest::drive::{self, Kernel, Limits, Ours, Random};
use ext2dax_crashtest::judge;
use ext2dax_crashtest::kernel::{Mode, Mounted};
use ext2dax_crashtest::model::Model;
use ext2dax_crashtest::progress::Progress;
use ext2dax_crashtest::served::{SHARED, Served};
use ext2dax_crashtest::tree::{self, Compare, Tree};

use crate::scratch;

/// A kind of image.
#[derive(Clone, Copy, Debug)]
struct Shape {
    block_size: u32,
    inode_size: u32,
    options: &'static [&'static str],
}

const fn shape(block_size: u32, inode_size: u32) -> Shape {
    Shape {
        block_size,
        inode_size,
        options: &[],
    }
}

const SHAPES: [Shape; 10] = [
    shape(1024, 256),
    Shape {
        options: &["-O", "^dir_index,^resize_inode"],
        ..shape(1024, 128)
    },
    shape(2048, 256),
    shape(4096, 256),
    Shape {
        options: &["-O", "dir_index"],
        ..shape(4096, 128)
    },
    Shape {
        options: &["-O", "meta_bg,^resize_inode"],
        ..shape(4096, 1024)
    },
    shape(8192, 256),
    shape(16_384, 256),
    shape(32_768, 256),
    shape(65_536, 256),
];

/// How long a count may lag behind.
const PATIENCE: Duration = Duration::from_secs(5);

/// Each works in a directory of its own.
const THREADS: u64 = 2;

impl Shape {
    fn make(&self, image: &Path) -> Result<bool> {
        let (block_size, inode_size) = (self.block_size.to_string(), self.inode_size.to_string());
        let mut args = vec!["-b", &block_size, "-I", &inode_size, "-N", "4000"];
        args.extend(self.options);
        judge::mke2fs(image, 256, &args)
    }

    /// The kernel's driver wants blocks of at most a page.
    fn has_kernel(&self) -> bool {
        self.block_size <= 4096
    }

    fn limits(&self) -> Limits {
        Limits {
            max_size: if self.has_kernel() { 9 << 30 } else { 20 << 20 },
            max_write: 150_000,
            fine_times: self.inode_size > 128,
            ranges: true,
            everything: true,
            max_bytes: 20 << 20,
            max_files: 300,
        }
    }
}

/// The three mounts of one round.
struct Mounts {
    images: [PathBuf; 3],
    fs: FileSystem,
    served: Option<Served>,
    kernel: Option<Mounted>,
}

impl Mounts {
    /// `None` without mke2fs.
    fn new(shape: &Shape, dir: &Path) -> Result<Option<Self>> {
        let images = ["library", "fuse", "kernel"].map(|name| dir.join(name));
        for image in &images {
            if !shape.make(image)? {
                return Ok(None);
            }
        }
        let options = format!("{SHARED},noatime,acl");
        let mounts = Self {
            fs: scratch::mount(&images[0])?,
            served: Served::new(scratch::tool(), &images[1], &options)?,
            kernel: match shape.has_kernel() {
                true => Mounted::new(&images[2], Mode::Write)?,
                false => None,
            },
            images,
        };
        for thread in 0..THREADS {
            let name = format!("t{thread}");
            let away = Kernel::away(Path::new(&name));
            for name in [Path::new(&name), &away] {
                mounts.fs.create_dir(name)?;
                for root in mounts.roots() {
                    std::fs::create_dir(root.join(name))?;
                    rustix::fs::chmod(root.join(name), 0o755.into())?;
                }
            }
        }
        Ok(Some(mounts))
    }

    /// Where the host sees mounts.
    fn roots(&self) -> impl Iterator<Item = &Path> {
        let served = self.served.as_ref().map(Served::path);
        served
            .into_iter()
            .chain(self.kernel.as_ref().map(Mounted::path))
    }

    fn systems(&self, thread: u64) -> Systems {
        let below = |root: &Path| Kernel::new(&root.join(format!("t{thread}")));
        Systems::new(
            Ours::below(self.fs.clone(), format!("/t{thread}").as_bytes()),
            self.served.as_ref().map(|served| below(served.path())),
            self.kernel.as_ref().map(|kernel| below(kernel.path())),
        )
    }

    /// The trees of all sides against each other and, for times, against the models.
    fn compare(&self, models: &[Model]) -> Result<()> {
        let library = tree::ours(&self.fs)?;
        for root in self.roots() {
            let other = tree::host(root)?;
            for (thread, model) in models.iter().enumerate() {
                let dir = format!("t{thread}");
                let wanted = tree::below(&library, dir.as_bytes());
                let found = tree::below(&other, dir.as_bytes());
                same(&dir, &found, &wanted, false)?;
                same(&dir, &found, &model.tree(), true)?;
            }
        }
        for (thread, model) in models.iter().enumerate() {
            let dir = format!("t{thread}");
            same(
                &dir,
                &tree::below(&library, dir.as_bytes()),
                &model.tree(),
                true,
            )?;
        }
        Ok(())
    }

    /// What statfs says: sizes, limits and inodes in use are the same on all sides.
    fn compare_counts(&self) -> Result<()> {
        let ours = self.fs.statfs();
        let wanted = Counts {
            block_size: ours.block_size.into(),
            blocks: ours.blocks,
            inodes: ours.inodes.into(),
            inodes_used: u64::from(ours.inodes) - ours.inodes_free,
            name_max: ours.name_max.into(),
        };
        for root in self.roots() {
            let start = Instant::now();
            // The last file without a name goes when the kernel says that it has forgotten it.
            while Counts::of(root)? != wanted && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
            let found = Counts::of(root)?;
            ensure!(
                found == wanted,
                "{}: {found:?}, the library {wanted:?}",
                root.display()
            );
        }
        Ok(())
    }

    fn unmount(self) -> Result<()> {
        self.fs.unmount().context("the library")?;
        judge::clean(&self.images[0]).context("the library's image")?;
        if let Some(served) = self.served {
            served.unmount()?;
            judge::clean(&self.images[1]).context("the FUSE mount's image")?;
        }
        if let Some(kernel) = self.kernel {
            kernel.unmount()?;
        }
        Ok(())
    }
}

/// What statfs says of a file system.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    block_size: u64,
    blocks: u64,
    inodes: u64,
    inodes_used: u64,
    name_max: u64,
}

impl Counts {
    fn of(root: &Path) -> Result<Self> {
        let found = rustix::fs::statvfs(root)?;
        Ok(Self {
            block_size: found.f_bsize,
            blocks: found.f_blocks,
            inodes: found.f_files,
            inodes_used: found.f_files - found.f_ffree,
            name_max: found.f_namemax,
        })
    }
}

fn same(what: &str, found: &Tree, wanted: &Tree, times: bool) -> Result<()> {
    let compare = Compare {
        times,
        ..Compare::default()
    };
    let differences = tree::differences(found, wanted, compare);
    ensure!(
        differences.is_empty(),
        "trees below {what} differ:\n{differences}"
    );
    Ok(())
}

/// One thread's share.
fn work(
    mounts: &Mounts,
    thread: u64,
    limits: &Limits,
    seed: u64,
    count: u64,
    progress: &Progress,
) -> Result<(Model, Tally)> {
    let mut systems = mounts.systems(thread);
    let mut random = Random(seed.wrapping_mul(1_000_003) + thread);
    let mut model = Model::new();
    for number in 0..count {
        let op = drive::random_op(&mut random, &model, limits);
        systems
            .apply(&op, &mut model)
            .with_context(|| format!("thread {thread}, operation {number}"))?;
        progress.add(1);
    }
    systems.close_all(&mut model)?;
    Ok((model, systems.tally))
}

/// `count` operations on one kind of image.
fn round(shape: &Shape, seed: u64, count: u64, progress: &Progress) -> Result<Tally> {
    let scratch = scratch::dir()?;
    let Some(mounts) = Mounts::new(shape, scratch.path())? else {
        return Ok(Tally::new());
    };
    let limits = shape.limits();
    let done = std::thread::scope(|scope| -> Result<Vec<(Model, Tally)>> {
        let started: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (mounts, limits) = (&mounts, &limits);
                scope.spawn(move || work(mounts, thread, limits, seed, count / THREADS, progress))
            })
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })?;
    let (models, tallies): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    mounts.compare(&models)?;
    mounts.compare_counts()?;
    mounts.unmount()?;
    let mut tally = Tally::new();
    for (what, times) in tallies.into_iter().flatten() {
        *tally.entry(what).or_default() += times;
    }
    Ok(tally)
}

fn operations() -> u64 {
    std::env::var("EXT2DAX_OPERATIONS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(if judge::soak() { 10_000_000 } else { 100_000 })
}

#[test]
fn library_mount_and_kernel_answer_alike() {
    /// Longer rounds would meet nothing new: the trees are kept at a size.
    const ROUND: u64 = 10_000;
    let first = scratch::seed(20_261_121);
    let mut tally = Tally::new();
    let rounds = operations().div_ceil(ROUND);
    let progress = Progress::new("differential", rounds * ROUND);
    for number in 0..rounds {
        let shape = &SHAPES[usize::try_from(number).unwrap() % SHAPES.len()];
        let seed = first + number / SHAPES.len() as u64;
        match round(shape, seed, ROUND, &progress) {
            Ok(met) => {
                for (what, times) in met {
                    *tally.entry(what).or_default() += times;
                }
            }
            Err(error) => panic!("EXT2DAX_SEED={seed} {shape:?}: {error:?}"),
        }
    }
    println!(
        "{} operations from seed {first} on in {} s; met: {tally:?}",
        progress.done(),
        progress.elapsed().as_secs()
    );
    // A difference that is no more has to leave the list.
    for known in &DIFFERENCES {
        let met = tally.get(known.what).copied().unwrap_or(0);
        println!("{met:>8} times: {}: {}", known.what, known.why);
        assert!(met > 0 || rounds < 10, "never met: {}", known.what);
    }
}

#[test]
fn open_options_of_the_library_are_those_of_the_host() -> Result<()> {
    let scratch = scratch::dir()?;
    let image = scratch.path().join("image");
    if !SHAPES[3].make(&image)? {
        return Ok(());
    }
    let fs = scratch::mount(&image)?;
    let host = tempfile::tempdir()?;
    for bits in 0_u32..64 {
        let on = |bit: u32| bits & (1 << bit) != 0;
        for there in [false, true] {
            let name = format!("f{bits}{there}");
            if there {
                fs.write(&name, b"old")?;
                std::fs::write(host.path().join(&name), b"old")?;
            }
            let ours = OpenOptions::new()
                .read(on(0))
                .write(on(1))
                .append(on(2))
                .truncate(on(3))
                .create(on(4))
                .create_new(on(5))
                .open(&fs, &name);
            let theirs = std::fs::OpenOptions::new()
                .read(on(0))
                .write(on(1))
                .append(on(2))
                .truncate(on(3))
                .create(on(4))
                .create_new(on(5))
                .open(host.path().join(&name));
            let ours = ours.map(drop).map_err(|error| Some(error.errno()));
            let theirs = theirs.map(drop).map_err(|error| error.raw_os_error());
            let left = fs.read(&name).ok();
            assert_eq!(left, std::fs::read(host.path().join(&name)).ok(), "{name}");
            match (ours, theirs) {
                // std refuses some combinations itself, and then there is no number.
                (Err(_), Err(None)) => {}
                (ours, theirs) => assert_eq!(ours, theirs, "{name}"),
            }
        }
    }
    fs.unmount()?;
    judge::clean(&image)
}
