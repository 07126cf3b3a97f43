//! The comparisons: what is done, by whom, and what is asked for.

use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Result;
use ext2dax::{FileSystem, OpenOptions};
use ext2dax_fault::host::{Access, HostMmu, Options};

use crate::ours::{self, Image};
use crate::peers::{Directory, PAGE, RawPages, filled_file, name};
use crate::sample::{Contender, Numbers, medians, per_op, per_op_elapsed};
use crate::table::Row;

/// Bytes of the file that is read and written at random: larger than any cache in front of memory.
const FILE: usize = 256 << 20;
/// Accesses in a round.
const ACCESSES: usize = 20_000;
/// Blocks appended by one thread in a round: enough that starting the thread does not count.
const APPENDS: usize = 20_000;
/// Names made, removed and renamed in a round.
const NAMES: usize = 1_000;

/// Page-aligned offsets, the same for every contender of a row.
fn offsets(seed: u64, len: usize) -> Vec<usize> {
    let mut numbers = Numbers::new(seed);
    let pages = (len / PAGE) as u64;
    (0..ACCESSES)
        .map(|_| usize::try_from(numbers.below(pages)).expect("a page of the file") * PAGE)
        .collect()
}

/// Random 4 KiB reads and overwrites of a file without holes.
///
/// # Errors
/// When a contender cannot make its file.
///
/// # Panics
/// When an access inside a file fails.
pub fn data(image: &Image, kernel: Option<&Path>, rounds: usize) -> Result<Vec<Row>> {
    let ours = whole_file(image.fs(), "/data", FILE)?;
    let image_len = std::fs::metadata(image.path())?.len();
    let raw = RawPages::map(image.path(), usize::try_from(image_len)?)?;
    let pages = pages_of(&ours, &raw, FILE)?;
    let (mut buffer, mut raw_buffer, mut kernel_buffer) =
        ([0_u8; PAGE], [0_u8; PAGE], [0_u8; PAGE]);
    let kernel_file = kernel
        .map(|dir| filled_file(&dir.join("data"), FILE as u64))
        .transpose()?;
    let ats = offsets(1, FILE);
    let raw_ats: Vec<usize> = ats.iter().map(|&at| pages[at / PAGE]).collect();

    let mut readers = vec![
        Contender::new("ext2dax", || {
            per_op(ACCESSES, || {
                for &at in &ats {
                    ours.read_at(&mut buffer[..], at as u64).expect("inside");
                }
            })
        }),
        Contender::new("memcpy", || {
            per_op(ACCESSES, || {
                raw_ats.iter().for_each(|&at| raw.read(at, &mut raw_buffer))
            })
        }),
    ];
    if let Some(file) = &kernel_file {
        readers.push(Contender::new("pread", || {
            per_op(ACCESSES, || {
                for &at in &ats {
                    file.read_exact_at(&mut kernel_buffer, at as u64)
                        .expect("inside");
                }
            })
        }));
    }
    let read = Row::new("read 4 KiB at random", medians(rounds, readers))
        .at_most(1.3, "memcpy")
        .faster_than(1.0, "pread");

    let page = [0x5a_u8; PAGE];
    let mut writers = vec![
        Contender::new("ext2dax", || {
            per_op(ACCESSES, || {
                for &at in &ats {
                    ours.write_at(&page[..], at as u64).expect("inside");
                }
            })
        }),
        Contender::new("memcpy", || {
            per_op(ACCESSES, || {
                raw_ats.iter().for_each(|&at| raw.write(at, &page))
            })
        }),
    ];
    if let Some(file) = &kernel_file {
        writers.push(Contender::new("pwrite", || {
            per_op(ACCESSES, || {
                for &at in &ats {
                    file.write_all_at(&page, at as u64).expect("inside");
                }
            })
        }));
    }
    let write = Row::new("overwrite 4 KiB at random", medians(rounds, writers))
        .at_most(1.3, "memcpy")
        .faster_than(1.0, "pwrite");
    Ok(vec![read, write])
}

/// Where each page of the file lies in the image: every page gets a mark, and the image is searched for the marks. So the
/// raw copies go over the very same memory, found without asking the file system.
fn pages_of(file: &ext2dax::File, raw: &RawPages, len: usize) -> Result<Vec<usize>> {
    const MARK: u64 = 0xe2da_0000_5eed_0000;
    for at in (0..len).step_by(PAGE) {
        file.write_all_at(&(MARK + (at / PAGE) as u64).to_le_bytes(), at as u64)?;
    }
    let mut pages = vec![usize::MAX; len / PAGE];
    let mut word = [0_u8; 8];
    for at in (0..raw.len()).step_by(PAGE) {
        raw.read(at, &mut word);
        let page = u64::from_le_bytes(word).wrapping_sub(MARK);
        let place = usize::try_from(page)
            .ok()
            .and_then(|page| pages.get_mut(page));
        if let Some(place) = place {
            *place = at;
        }
    }
    let missing = pages.iter().filter(|&&at| at == usize::MAX).count();
    anyhow::ensure!(
        missing == 0,
        "{missing} pages of the file are not in the image"
    );
    Ok(pages)
}

fn whole_file(fs: &FileSystem, path: &str, len: usize) -> Result<ext2dax::File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .open(fs, path)?;
    let chunk = vec![0xa5_u8; 1 << 20];
    for at in (0..len).step_by(chunk.len()) {
        file.write_all_at(&chunk, at as u64)?;
    }
    Ok(file)
}

/// A directory as a contender: by path, whatever is below.
trait Names {
    fn create(&self, name: &str);
    fn unlink(&self, name: &str);
    fn rename(&self, from: &str, to: &str);
    /// The whole path of a name, so that putting it together is not part of what is timed.
    fn path(&self, name: &str) -> String;
    fn stat(&self, path: &str) -> u64;
}

impl Names for Directory {
    fn create(&self, name: &str) {
        Directory::create(self, name);
    }
    fn unlink(&self, name: &str) {
        Directory::unlink(self, name);
    }
    fn rename(&self, from: &str, to: &str) {
        Directory::rename(self, from, to);
    }
    fn path(&self, name: &str) -> String {
        Directory::path(self, name)
    }
    fn stat(&self, path: &str) -> u64 {
        std::fs::metadata(path).expect("the file is there").len()
    }
}

/// A directory of ours, with paths built as a program builds them.
struct Ours<'f> {
    fs: &'f FileSystem,
    path: String,
}

impl<'f> Ours<'f> {
    fn filled(fs: &'f FileSystem, path: &str, count: usize) -> Result<Self> {
        fs.create_dir(path)?;
        let dir = Ours {
            fs,
            path: path.to_owned(),
        };
        (0..count).for_each(|i| dir.create(&name(i)));
        Ok(dir)
    }

    fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

impl Names for Ours<'_> {
    fn create(&self, name: &str) {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(self.fs, self.join(name))
            .expect("the name is new");
    }
    fn unlink(&self, name: &str) {
        self.fs
            .remove_file(self.join(name))
            .expect("the file is there");
    }
    fn rename(&self, from: &str, to: &str) {
        self.fs
            .rename(self.join(from), self.join(to))
            .expect("the file is there");
    }
    fn path(&self, name: &str) -> String {
        self.join(name)
    }
    fn stat(&self, path: &str) -> u64 {
        self.fs.metadata(path).expect("the file is there").len()
    }
}

/// Creates, renames, asks for and removes names in a directory of `files` files.
///
/// # Errors
/// When a contender cannot make its directory.
///
/// # Panics
/// When an operation fails that cannot.
pub fn names(
    image: &Image,
    base: &Path,
    kernel: Option<&Path>,
    rounds: usize,
    files: usize,
) -> Result<Vec<Row>> {
    let flushed = ours::in_flushed_memory(256, 60_000)?;
    let mut peers: Vec<(&str, Box<dyn Names + '_>)> = vec![(
        "ext2dax",
        Box::new(Ours::filled(image.fs(), "/names", files)?),
    )];
    if let Some(dir) = kernel {
        peers.push(("kernel", Box::new(Directory::filled(dir, files)?)));
    }
    peers.push(("tmpfs", Box::new(Directory::filled(base, files)?)));
    peers.push((
        "ext2dax, flushed",
        Box::new(Ours::filled(&flushed, "/names", files)?),
    ));
    let new: Vec<String> = (0..NAMES).map(|i| format!("new-{i:05}")).collect();
    let other: Vec<String> = (0..NAMES).map(|i| format!("other-{i:05}")).collect();
    let mut numbers = Numbers::new(7);
    let there: Vec<String> = (0..NAMES)
        .map(|_| name(usize::try_from(numbers.below(files as u64)).expect("a file")))
        .collect();
    let paths: Vec<Vec<String>> = peers
        .iter()
        .map(|(_, dir)| there.iter().map(|name| dir.path(name)).collect())
        .collect();

    // A round of creates leaves names that the round of renames and then the round of unlinks takes: each kind is timed
    // alone, the others run in between.
    let kinds = ["create", "rename", "unlink", "stat"];
    let mut samples = vec![vec![Vec::new(); peers.len()]; kinds.len()];
    for round in 0..=rounds {
        for (peer, (_, dir)) in peers.iter().enumerate() {
            let times = [
                per_op(NAMES, || new.iter().for_each(|name| dir.create(name))),
                per_op(NAMES, || {
                    new.iter()
                        .zip(&other)
                        .for_each(|(from, to)| dir.rename(from, to));
                }),
                per_op(NAMES, || other.iter().for_each(|name| dir.unlink(name))),
                per_op(NAMES, || {
                    paths[peer].iter().for_each(|path| {
                        std::hint::black_box(dir.stat(path));
                    });
                }),
            ];
            if round > 0 {
                for (kind, time) in times.into_iter().enumerate() {
                    samples[kind][peer].push(time);
                }
            }
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let rows = kinds.iter().zip(samples).map(|(kind, samples)| {
        let names = peers.iter().map(|(name, _)| (*name).to_owned());
        let times = names.zip(samples.into_iter().map(median)).collect();
        let row = Row::new(&format!("{kind} among {files} files"), times);
        match *kind {
            "stat" => row.within(250.0).faster_than(1.0, "kernel"),
            _ => row.within(2_000.0).faster_than(5.0, "kernel"),
        }
    });
    Ok(rows.collect())
}

/// `stat` in directories from 10 names up to `most`: it should not depend on the number.
///
/// # Errors
/// When a contender cannot make its directory.
///
/// # Panics
/// When an operation fails that cannot.
pub fn flat_stat(
    image: &Image,
    base: &Path,
    kernel: Option<&Path>,
    rounds: usize,
    most: usize,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut count = 10;
    while count <= most {
        let ours = Ours::filled(image.fs(), &format!("/flat-{count}"), count)?;
        let tmpfs = Directory::filled(&base.join(format!("flat-{count}")), count)?;
        let mut numbers = Numbers::new(count as u64);
        let wanted: Vec<String> = (0..NAMES)
            .map(|_| name(usize::try_from(numbers.below(count as u64)).expect("a file")))
            .collect();
        let stat = |dir: &dyn Names| {
            let paths: Vec<String> = wanted.iter().map(|name| dir.path(name)).collect();
            per_op(NAMES, || {
                paths.iter().for_each(|path| {
                    std::hint::black_box(dir.stat(path));
                });
            })
        };
        // The kernel's own ext2 searches a directory from its first block on: more than a few thousand names take it
        // minutes to make.
        let kernel = kernel
            .filter(|_| count <= 10_000)
            .map(|dir| Directory::filled(&dir.join(format!("flat-{count}")), count))
            .transpose()?;
        let mut contenders = vec![
            Contender::new("ext2dax", || stat(&ours)),
            Contender::new("tmpfs", || stat(&tmpfs)),
        ];
        if let Some(kernel) = &kernel {
            contenders.push(Contender::new("kernel", || stat(kernel)));
        }
        rows.push(
            Row::new(
                &format!("stat among {count} files"),
                medians(rounds, contenders),
            )
            .within(250.0),
        );
        count *= 10;
    }
    Ok(rows)
}

/// Two threads on two files, against one thread on one.
///
/// # Errors
/// When a file cannot be made.
///
/// # Panics
/// When an operation fails that cannot.
pub fn threads(image: &Image, _base: &Path, rounds: usize) -> Result<Vec<Row>> {
    let files = [
        whole_file(image.fs(), "/one", 32 << 20)?,
        whole_file(image.fs(), "/two", 32 << 20)?,
    ];
    let ats = offsets(3, 32 << 20);
    let overwrite = |file: &ext2dax::File| {
        let page = [7_u8; PAGE];
        for &at in &ats {
            file.write_at(&page[..], at as u64).expect("inside");
        }
    };
    let append = |path: &str| {
        let file = image.fs().create(path).expect("space");
        let page = [7_u8; PAGE];
        for at in 0..APPENDS as u64 {
            file.write_at(&page[..], at * PAGE as u64).expect("space");
        }
        drop(file);
        image.fs().remove_file(path).expect("it is there");
    };
    let both = |one: &(dyn Fn() + Sync), two: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            scope.spawn(one);
            scope.spawn(two);
        });
    };
    let overwrites = medians(
        rounds,
        vec![
            Contender::new("two threads", || {
                per_op_elapsed(2 * ACCESSES, || {
                    both(&|| overwrite(&files[0]), &|| overwrite(&files[1]))
                })
            }),
            Contender::new("one thread", || {
                per_op_elapsed(ACCESSES, || overwrite(&files[0]))
            }),
        ],
    );
    let appends = medians(
        rounds,
        vec![
            Contender::new("two threads", || {
                per_op_elapsed(2 * APPENDS, || both(&|| append("/a"), &|| append("/b")))
            }),
            Contender::new("one thread", || per_op_elapsed(APPENDS, || append("/a"))),
        ],
    );
    Ok(vec![
        Row::new("overwrite 4 KiB, by two threads", overwrites),
        Row::new("append 4 KiB, by two threads", appends),
    ])
}

/// The first store to each page of a fresh mapping, in random order: where there is a block, and in a hole. By the clock on
/// the wall, since ours may be answered by another thread. The peer is the kernel's own mmap of a tmpfs file.
///
/// # Errors
/// When a file cannot be made or mapped, or this kernel gives a process no way to answer its own page faults.
///
/// # Panics
/// When an operation fails that cannot.
pub fn first_touch(image: &Image, base: &Path, rounds: usize) -> Result<Vec<Row>> {
    const LEN: usize = 16 << 20;
    let pages = LEN / PAGE;
    let mut numbers = Numbers::new(5);
    let mut order: Vec<usize> = (0..pages).collect();
    for last in (1..pages).rev() {
        let other = usize::try_from(numbers.below(last as u64 + 1)).expect("a page");
        order.swap(last, other);
    }
    let mmu = HostMmu::new(&image.open()?, 0, &Options::default())?;
    let (faults, resolver) = (mmu.fault_loop(), mmu.resolver());
    let threads = [
        std::thread::spawn(move || faults.run()),
        std::thread::spawn(move || resolver.run()),
    ];
    let file = whole_file(image.fs(), "/touched", LEN)?;
    let raw_path = base.join("touched");
    let raw_file = filled_file(&raw_path, LEN as u64)?;
    let ours = || {
        let view = file
            .map(&mmu, 0..LEN as u64, Access::ReadWrite)
            .expect("a regular file");
        per_op_elapsed(pages, || {
            for &page in &order {
                view.store(page * PAGE, 1).expect("space");
            }
        })
    };
    let native = || {
        let raw = RawPages::map(&raw_path, LEN).expect("a file of that length");
        per_op_elapsed(pages, || {
            order.iter().for_each(|&page| raw.touch(page * PAGE))
        })
    };
    let there = medians(
        rounds,
        vec![
            Contender::new("ext2dax", ours),
            Contender::new("tmpfs", native),
        ],
    );
    let holes = medians(
        rounds,
        vec![
            Contender::new("ext2dax", || {
                file.punch_hole(0..LEN as u64).expect("inside");
                ours()
            }),
            Contender::new("tmpfs", || {
                raw_file.set_len(0).expect("shorter");
                raw_file.set_len(LEN as u64).expect("longer");
                native()
            }),
        ],
    );
    let mode = format!("{:?}", mmu.mode());
    mmu.stop();
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a fault loop panicked"))?;
    }
    Ok(vec![
        Row::new(&format!("first store to a block ({mode})"), there),
        Row::new(&format!("first store to a hole ({mode})"), holes),
    ])
}
