//! Real page faults on a real file system: what threads store through mappings is what outsiders read from the image.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use ext2dax::fault::Bus;
use ext2dax::fault::host::{Access, HostMmu, Mode, Options, Trap, Want, survive_bus};
use ext2dax::{File, FileSystem, MappedFile, MountOptions, OpenOptions};
use ext2dax_crashtest::judge::{self, skipped};
use ext2dax_crashtest::kernel::{self, Mounted};
use ext2dax_pmem::FileRegion;

const PAGE: usize = 4096;
const MIB: u64 = 1 << 20;
/// How long nothing may happen before a test counts as hung.
const PATIENCE: Duration = Duration::from_secs(90);

/// A mounted image with an MMU whose threads run.
pub(crate) struct Host {
    fs: Option<FileSystem>,
    pub(crate) mmu: HostMmu,
    threads: Vec<JoinHandle<()>>,
    image: tempfile::NamedTempFile,
}

impl Host {
    pub(crate) fn new(mode: Mode, mib: u64, mkfs: &ext2dax_mkfs::Options) -> Result<Host> {
        survive_bus()?;
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        };
        let image = tempfile::Builder::new()
            .prefix("ext2dax-real-")
            .tempfile_in(dir)?;
        ext2dax_mkfs::make_file(image.path(), mkfs, mib * MIB)?;
        let region = FileRegion::open(image.path(), ext2dax_pmem::Access::ReadWrite)?;
        let mut options = Options::default();
        options.mode = Want::Only(mode);
        let mmu = HostMmu::new(region.file(), region.offset(), &options)?;
        let fs = FileSystem::mount(region, &MountOptions::default())?;
        let (faults, resolver) = (mmu.fault_loop(), mmu.resolver());
        let threads = vec![
            std::thread::spawn(move || faults.run()),
            std::thread::spawn(move || resolver.run()),
        ];
        Ok(Host {
            fs: Some(fs),
            mmu,
            threads,
            image,
        })
    }

    pub(crate) fn fs(&self) -> &FileSystem {
        self.fs.as_ref().expect("mounted until the end")
    }

    pub(crate) fn file(&self, name: &str, size: u64) -> Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .open(self.fs(), name)?;
        file.set_len(size)?;
        Ok(file)
    }

    /// Ends the mount and lets both checkers look.
    pub(crate) fn unmount(mut self) -> Result<tempfile::NamedTempFile> {
        self.mmu.stop();
        for thread in self.threads.drain(..) {
            thread
                .join()
                .expect("the threads of the MMU end without a panic");
        }
        self.fs.take().expect("mounted until now").unmount()?;
        // The MMU shares the image's open file, and with it the lock that keeps others out.
        drop(self.mmu);
        judge::clean(self.image.path())?;
        Ok(self.image)
    }
}

pub(crate) fn in_each_mode(test: impl Fn(Mode) -> Result<()>) -> Result<()> {
    for mode in [Mode::Userfault, Mode::UserfaultUserOnly, Mode::Signals] {
        let file = tempfile::tempfile()?;
        let mut options = Options::default();
        options.mode = Want::Only(mode);
        match HostMmu::new(&file, 0, &options) {
            Ok(_) => test(mode).map_err(|error| error.context(format!("mode {mode}")))?,
            Err(error) => skipped(&format!("mode {mode}: {error}")),
        }
    }
    Ok(())
}

fn word(thread: usize, step: usize) -> u64 {
    (thread as u64 + 1) << 32 | (step as u64 + 1)
}

/// A file of 1 GiB in an image of 64 MiB: what four threads stored, and nothing else, is what the kernel reads.
#[test]
fn stores_of_several_threads_to_a_sparse_file_are_what_the_kernel_reads() -> Result<()> {
    const THREADS: usize = 4;
    const STORES: usize = 400;
    let pages = (1 << 30) / PAGE;
    // Pages far apart, each of one thread alone.
    let place = |thread: usize, step: usize| {
        ((step * THREADS + thread) * 149 % pages) * PAGE + step % 512 * 8
    };
    in_each_mode(|mode| {
        let host = Host::new(mode, 64, &ext2dax_mkfs::Options::default())?;
        let file = host.file("/sparse", 1 << 30)?;
        let mapped = file.map(&host.mmu, 0..1 << 30, Access::ReadWrite)?;
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let mapped = &mapped;
                scope.spawn(move || {
                    for step in 0..STORES {
                        mapped
                            .store(place(thread, step), word(thread, step))
                            .expect("there is space");
                        assert_eq!(mapped.load(place(thread, step)), Ok(word(thread, step)));
                    }
                });
            }
        });
        drop((mapped, file));
        let image = host.unmount()?;
        let Some(mounted) = Mounted::new(image.path(), kernel::Mode::Read)? else {
            return Ok(());
        };
        let seen = std::fs::File::open(mounted.join("sparse"))?;
        let mut bytes = [0; 8];
        for thread in 0..THREADS {
            for step in 0..STORES {
                std::os::unix::fs::FileExt::read_exact_at(
                    &seen,
                    &mut bytes,
                    place(thread, step) as u64,
                )?;
                assert_eq!(
                    u64::from_le_bytes(bytes),
                    word(thread, step),
                    "thread {thread}, step {step}"
                );
            }
        }
        drop(seen);
        mounted.unmount()
    })
}

/// The thread that stores behind the new end gets its error at the exact byte; the one that stores before it, nothing.
#[test]
fn only_the_thread_behind_the_end_gets_sigbus() -> Result<()> {
    in_each_mode(|mode| {
        let host = Host::new(mode, 16, &ext2dax_mkfs::Options::default())?;
        let file = host.file("/file", 256 * PAGE as u64)?;
        let mapped = file.map(&host.mmu, 0..256 * PAGE as u64, Access::ReadWrite)?;
        mapped
            .prefault(0..256 * PAGE, true)
            .expect("there is space");
        let free = host.fs().statfs().blocks_free;
        let (stop, before) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let step = before.fetch_add(1, Ordering::Relaxed);
                    let at = usize::try_from(step).expect("few") % 100 * PAGE;
                    assert_eq!(mapped.store(at, step), Ok(()), "inside the size all along");
                }
            });
            for size in [200 * PAGE + 1, 150 * PAGE, 100 * PAGE + 4095] {
                file.set_len(size as u64).expect("truncated");
                let end = size.div_ceil(PAGE) * PAGE;
                for at in [end, end + 8, 255 * PAGE + 4088] {
                    assert_eq!(mapped.store(at, 1), Err(Trap { at }), "size {size}");
                }
            }
            while before.load(Ordering::Relaxed) < 1000 {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            inside.join().expect("no error inside");
        });
        assert_eq!(host.fs().statfs().blocks_free, free + 155);
        drop((mapped, file));
        host.unmount().map(drop)
    })
}

/// A full file system: the fault fails, no counter moves, and after a removal it succeeds.
#[test]
fn a_store_without_space_changes_nothing_and_works_after_a_removal() -> Result<()> {
    in_each_mode(|mode| {
        let host = Host::new(mode, 8, &ext2dax_mkfs::Options::default())?;
        let file = host.file("/mapped", 64 * MIB)?;
        let mapped = file.map(&host.mmu, 0..64 * MIB, Access::ReadWrite)?;
        mapped.store(0, 1).expect("there is space");
        // Everything that is left, by mapped stores: the last ones find no space.
        let ballast = host.file("/ballast", MIB)?;
        ballast.allocate(0..MIB)?;
        let mut refused = 0;
        for page in 1..4096 {
            refused += usize::from(mapped.store(page * PAGE, 7).is_err());
        }
        assert!(refused > 1000, "{refused} stores found no space");
        assert!(matches!(mapped.last_fault_error(), Some((_, Bus::NoSpace))));
        let full = host.fs().statfs();
        assert_eq!(
            mapped.store(5000 * PAGE + 16, 9),
            Err(Trap {
                at: 5000 * PAGE + 16
            })
        );
        assert_eq!(
            mapped.load(5001 * PAGE),
            Ok(0),
            "a hole beside it still reads"
        );
        assert_eq!(host.fs().statfs(), full, "no counter moved");
        drop(ballast);
        host.fs().remove_file("/ballast")?;
        let since = Instant::now();
        while mapped.store(5000 * PAGE + 16, 9).is_err() {
            assert!(since.elapsed() < PATIENCE, "the error sticks");
            std::thread::yield_now();
        }
        assert_eq!(mapped.load(5000 * PAGE + 16), Ok(9));
        drop((mapped, file));
        host.unmount().map(drop)
    })
}

/// What stays of a file that lost its last name while it was mapped: everything, until the mapping goes.
#[test]
fn a_mapping_keeps_a_removed_file_and_its_blocks() -> Result<()> {
    in_each_mode(|mode| {
        let host = Host::new(mode, 16, &ext2dax_mkfs::Options::default())?;
        let free = host.fs().statfs().blocks_free;
        let file = host.file("/gone", 64 * PAGE as u64)?;
        let mapped = file.map(&host.mmu, 0..64 * PAGE as u64, Access::ReadWrite)?;
        drop(file);
        mapped.store(0, 1).expect("there is space");
        host.fs().remove_file("/gone")?;
        mapped.store(32 * PAGE, 2).expect("there is space");
        assert_eq!((mapped.load(0), mapped.load(32 * PAGE)), (Ok(1), Ok(2)));
        assert!(host.fs().statfs().blocks_free < free);
        drop(mapped);
        assert_eq!(
            host.fs().statfs().blocks_free,
            free,
            "every block came back"
        );
        host.unmount().map(drop)
    })
}

/// Threads store unique words while others truncate, punch and rewrite. Each word is checked where nothing interfered,
/// and both checkers and the kernel see the same bytes as the last view.
#[test]
fn a_storm_on_a_file_system_leaves_it_clean_and_the_same_to_all() -> Result<()> {
    const PAGES: usize = 600;
    in_each_mode(|mode| {
        let host = Host::new(mode, 16, &ext2dax_mkfs::Options::default())?;
        let file = host.file("/storm", (PAGES * PAGE) as u64)?;
        let mapped = file.map(&host.mmu, 0..(PAGES * PAGE) as u64, Access::ReadWrite)?;
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let (checked, bus, disturbed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| watch(mode, &stop, &done));
            scope.spawn(|| disturb(&file, PAGES, &stop, &disturbed));
            let storing: Vec<_> = (0..3)
                .map(|thread| {
                    let (mapped, done, checked, bus, disturbed) =
                        (&mapped, &done, &checked, &bus, &disturbed);
                    scope.spawn(move || {
                        store_until(mapped, thread, PAGES, done, checked, bus, disturbed)
                    })
                })
                .collect();
            let ended: Vec<_> = storing
                .into_iter()
                .map(std::thread::ScopedJoinHandle::join)
                .collect();
            stop.store(true, Ordering::Relaxed);
            ended
                .into_iter()
                .for_each(|thread| thread.expect("no storing thread panics"));
        });
        println!(
            "{mode}: {checked:?} checked, {bus:?} SIGBUS, {disturbed:?} disturbances, {:?}",
            host.mmu.stats()
        );
        assert!(checked.load(Ordering::Relaxed) > 1000);
        file.set_len((PAGES * PAGE) as u64)?;
        let mut last = vec![0; PAGES * PAGE];
        mapped.read(0, &mut last).expect("all inside");
        let mut by_read = vec![0; PAGES * PAGE];
        file.read_exact_at(&mut by_read, 0)?;
        assert!(last == by_read, "the view and read(2) differ");
        drop((mapped, file));
        let image = host.unmount()?;
        if let Some(mounted) = Mounted::new(image.path(), kernel::Mode::Read)? {
            assert!(
                std::fs::read(mounted.join("storm"))? == last,
                "the kernel reads other bytes"
            );
            mounted.unmount()?;
        }
        Ok(())
    })
}

/// Pages below this are never cut off or punched, so a store there must always be found.
const CALM: usize = 64;

fn store_until(
    mapped: &MappedFile,
    thread: usize,
    pages: usize,
    done: &AtomicU64,
    checked: &AtomicU64,
    bus: &AtomicU64,
    disturbed: &AtomicU64,
) {
    let mut step = 0;
    while step < 4000 || disturbed.load(Ordering::Relaxed) < 100 {
        done.fetch_add(1, Ordering::Relaxed);
        let page = (step * 7919 + thread * 31) % pages;
        let at = page * PAGE + thread * 64;
        let stored = mapped.store(at, word(thread, step));
        let loaded = mapped.load(at);
        if page < CALM {
            assert_eq!(
                (stored, loaded),
                (Ok(()), Ok(word(thread, step))),
                "page {page} is left alone"
            );
            checked.fetch_add(1, Ordering::Relaxed);
        } else if stored.is_err() || loaded.is_err() {
            bus.fetch_add(1, Ordering::Relaxed);
        } else if loaded != Ok(0) {
            // Own words only: never a neighbour's, never an older file's.
            assert_eq!(
                loaded.map(|word| word >> 32),
                Ok(thread as u64 + 1),
                "page {page}"
            );
        }
        step += 1;
    }
}

fn disturb(file: &File, pages: usize, stop: &AtomicBool, disturbed: &AtomicU64) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let at = CALM + round * 37 % (pages - CALM - 40);
        match round % 3 {
            0 => {
                file.set_len((at * PAGE + round % PAGE) as u64)
                    .expect("shrunk");
                file.set_len((pages * PAGE) as u64).expect("grown");
            }
            1 => file
                .punch_hole((at * PAGE) as u64..((at + 24) * PAGE) as u64)
                .expect("punched"),
            _ => file
                .allocate((at * PAGE) as u64..((at + 8) * PAGE) as u64)
                .expect("there is space"),
        }
        disturbed.fetch_add(1, Ordering::Relaxed);
    }
}

fn watch(mode: Mode, stop: &AtomicBool, done: &AtomicU64) {
    let (mut last, mut since) = (0, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        let now = done.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE {
            eprintln!("{mode}: HUNG after {now} operations");
            std::process::abort();
        }
    }
}
