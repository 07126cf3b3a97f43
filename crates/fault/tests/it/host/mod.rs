//! Real page faults: views of a file whose blocks lie in an image on tmpfs, in every mode that this process can have.
//!
//! Counts decide, never times; a thread that makes no progress for [`PATIENCE`] fails the test by ending the process.

mod basics;
mod blocks;
mod limits;
mod storm;
mod system_calls;

use std::fs::File;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ext2dax_dax::{DaxFile, Gates};
use ext2dax_fault::host::{Access, HostMmu, Mode, Options, View, Want, survive_bus};
use ext2dax_pmem::{FileRegion, Pmem};
use ext2dax_sync::{RwLock, rank};

use blocks::Blocks;

pub(crate) const PAGE: usize = 4096;
/// How long nothing at all may happen before a test counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// The modes to test, each by itself. One that cannot be had here is named, and is a failure under CI.
pub(crate) fn in_each_mode(test: impl Fn(Mode)) {
    for mode in [Mode::Userfault, Mode::UserfaultUserOnly, Mode::Signals] {
        let file = tempfile::tempfile().expect("a file to try on");
        match HostMmu::new(&file, 0, &options(mode)) {
            Ok(_) => {
                println!("mode {mode}");
                test(mode);
            }
            Err(error) => {
                println!("skipped: mode {mode}: {error}");
                assert!(
                    std::env::var_os("CI").is_none(),
                    "CI must have mode {mode}: {error}"
                );
            }
        }
    }
}

pub(crate) fn options(mode: Mode) -> Options {
    let mut options = Options::default();
    options.mode = Want::Only(mode);
    options
}

/// A file of `Blocks` with its locks, and an MMU whose threads run.
pub(crate) struct Host {
    pub(crate) file: Arc<LockedFile>,
    pub(crate) mmu: HostMmu,
    threads: Vec<JoinHandle<()>>,
    _image: File,
}

/// What the file system keeps beside a `DaxFile`: the lock of its inode.
pub(crate) struct LockedFile {
    inode: RwLock<()>,
    gates: Arc<Gates>,
    dax: DaxFile<Blocks>,
}

impl Deref for LockedFile {
    type Target = DaxFile<Blocks>;
    fn deref(&self) -> &DaxFile<Blocks> {
        &self.dax
    }
}

/// A handle that a view can own.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) Arc<LockedFile>);

impl Deref for Handle {
    type Target = DaxFile<Blocks>;
    fn deref(&self) -> &DaxFile<Blocks> {
        &self.0.dax
    }
}

impl LockedFile {
    pub(crate) fn truncate(&self, to: u64) {
        let _gate = self.gates.write.enter();
        let _inode = self.inode.write();
        self.dax.truncate(to).expect("truncate");
    }

    pub(crate) fn punch(&self, pages: std::ops::Range<usize>) {
        let _gate = self.gates.write.enter();
        let _inode = self.inode.write();
        self.dax
            .punch((pages.start * PAGE) as u64..(pages.end * PAGE) as u64)
            .expect("punch");
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> usize {
        let _gate = self.gates.write.enter();
        let _inode = self.inode.write();
        self.dax.write_at(at, bytes.into()).expect("write")
    }

    /// Writes only what lies inside the file and has space; the count that was written.
    pub(crate) fn write_inside(&self, at: u64, bytes: &[u8]) -> usize {
        let _gate = self.gates.write.enter();
        let _inode = self.inode.write();
        if at + bytes.len() as u64 > self.dax.size() {
            return 0;
        }
        self.dax.write_at(at, bytes.into()).unwrap_or(0)
    }

    pub(crate) fn read(&self, at: u64, bytes: &mut [u8]) -> usize {
        let _inode = self.inode.read();
        self.dax.read_at(at, bytes.into()).expect("read")
    }
}

impl Host {
    /// A file of `size` bytes, all hole, in an image of `image_blocks` blocks of `1 << block_bits` bytes.
    pub(crate) fn new(options: &Options, block_bits: u32, image_blocks: u32, size: u64) -> Host {
        survive_bus().expect("sigaction");
        let dir = if std::path::Path::new("/dev/shm").is_dir() {
            "/dev/shm".into()
        } else {
            std::env::temp_dir()
        };
        let image = tempfile::Builder::new()
            .prefix("ext2dax-host-")
            .tempfile_in(dir)
            .expect("an image");
        image
            .as_file()
            .set_len(u64::from(image_blocks) << block_bits)
            .expect("room for the image");
        let region = FileRegion::open(image.path(), ext2dax_pmem::Access::ReadWrite)
            .expect("the image opens");
        let open = region.file().try_clone().expect("a second descriptor");
        let mmu = HostMmu::new(&open, 0, options).expect("an MMU");
        let gates = Arc::new(Gates::new());
        let pmem = Pmem::new(region);
        let blocks = Blocks::new(pmem.clone(), block_bits, image_blocks, size.max(1 << 30));
        let dax = DaxFile::new(blocks, pmem, Arc::clone(&gates), size);
        let file = Arc::new(LockedFile {
            inode: RwLock::new(rank::INODE, ()),
            gates,
            dax,
        });
        let (faults, resolver) = (mmu.fault_loop(), mmu.resolver());
        let threads = vec![
            std::thread::spawn(move || faults.run()),
            std::thread::spawn(move || resolver.run()),
        ];
        Host {
            file,
            mmu,
            threads,
            _image: open,
        }
    }

    pub(crate) fn view(&self, pages: usize) -> View {
        self.mmu
            .map(
                Handle(Arc::clone(&self.file)),
                0..(pages * PAGE) as u64,
                Access::ReadWrite,
            )
            .expect("a view")
    }

    /// The word at byte `at` of the file as the image holds it; zero in a hole.
    pub(crate) fn in_image(&self, at: usize) -> u64 {
        self.file.map().word(at as u64)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.mmu.stop();
        for thread in self.threads.drain(..) {
            thread
                .join()
                .expect("the threads of the MMU end without a panic");
        }
    }
}

/// Ends the process when a count stops growing: a hang must fail the test, not the machine.
pub(crate) struct Watchdog {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(crate) fn new(what: &str, progress: &Arc<AtomicU64>) -> Watchdog {
        let done = Arc::new(AtomicBool::new(false));
        let (stop, what, progress) = (Arc::clone(&done), what.to_owned(), Arc::clone(progress));
        let thread = std::thread::spawn(move || {
            let (mut last, mut since) = (progress.load(Ordering::Relaxed), Instant::now());
            while !stop.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(200));
                let now = progress.load(Ordering::Relaxed);
                if now != last {
                    (last, since) = (now, Instant::now());
                } else if since.elapsed() > PATIENCE {
                    eprintln!("{what}: HUNG after {now} operations");
                    std::process::abort();
                }
            }
        });
        Watchdog {
            done,
            thread: Some(thread),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().expect("the watchdog does not panic");
        }
    }
}

/// A small generator: xorshift.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below the bound")
    }
}

/// The sum in KiB of one line of smaps ("Rss", "Anonymous" ...) over the mappings of a view.
pub(crate) fn smaps_kib(view: &View, key: &str) -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    let (start, end) = (view.as_ptr().addr(), view.as_ptr().addr() + view.len());
    let (mut inside, mut sum) = (false, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((from, to)) = first.split_once('-') {
            let parse = |text| usize::from_str_radix(text, 16);
            if let (Ok(from), Ok(to)) = (parse(from), parse(to)) {
                inside = from < end && to > start;
                continue;
            }
        }
        if inside && first.strip_suffix(':') == Some(key) {
            sum += words
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    sum
}
