//! Files, devices and memory as regions.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::ignore;
use ext2dax_pmem::{Access, AnonRegion, FileRegion, Medium, Off, OpenError, Persist, Pmem};
use rustix::fs::FallocateFlags;
use zerocopy::little_endian::U32;

fn image(dir: &Path, len: u64) -> PathBuf {
    let path = dir.join("image");
    File::create(&path).unwrap().set_len(len).unwrap();
    path
}

/// A folder on a file system in memory, and one that is not, if the machine has both.
fn folders() -> Vec<(tempfile::TempDir, Medium)> {
    let mut folders = Vec::new();
    for parent in ["/dev/shm", "/var/tmp"] {
        let Ok(dir) = tempfile::tempdir_in(parent) else {
            continue;
        };
        let path = image(dir.path(), 4096);
        let medium = FileRegion::open(&path, Access::ReadWrite).unwrap().medium();
        folders.push((dir, medium));
    }
    folders
}

#[test]
fn stores_through_a_region_are_the_files_bytes() {
    for (dir, medium) in folders() {
        let path = image(dir.path(), 70_000);
        let pmem = Pmem::new(FileRegion::open(&path, Access::ReadWrite).unwrap());
        assert_eq!((pmem.len(), pmem.writable()), (70_000, true));
        pmem.publish(Off::new(1024), U32::new(0x1234_5678));
        pmem.write_flushed(60_000, &[9; 1000]);
        pmem.fence();
        pmem.sync(0..pmem.len()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[1024..1028], [0x78, 0x56, 0x34, 0x12], "{medium:?}");
        assert_eq!(bytes[60_000..61_000], [9; 1000], "{medium:?}");
    }
}

#[test]
fn the_medium_decides_how_stores_become_durable() {
    for (dir, medium) in folders() {
        let path = image(dir.path(), 8192);
        let pmem = Pmem::new(FileRegion::open(&path, Access::ReadWrite).unwrap());
        let expected = match medium {
            Medium::MemoryFile => Persist::Volatile,
            Medium::DaxFile | Medium::DaxDevice => Persist::FlushLines,
            Medium::File | Medium::BlockDevice => Persist::PageCache,
        };
        assert_eq!(pmem.persist(), expected, "{medium:?}");
    }
    if let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
        let region = FileRegion::open(image(dir.path(), 8192), Access::ReadOnly).unwrap();
        assert_eq!(region.medium(), Medium::MemoryFile);
    }
    assert_eq!(
        Pmem::new(AnonRegion::new(1).unwrap()).persist(),
        Persist::Volatile
    );
}

/// Flushes must be legal instructions on this processor, at the very first and last byte, too.
#[test]
fn flushing_lines_works_on_this_processor() {
    let pmem = Pmem::new(AnonRegion::with_persist(8192, Persist::FlushLines).unwrap());
    pmem.publish(Off::new(8188), U32::new(7));
    pmem.flush(0, 8192);
    pmem.flush(8191, 1);
    pmem.flush(8192, 0);
    let data: Vec<u8> = (0..8192u32).map(|i| i.to_le_bytes()[0]).collect();
    for (at, len) in [
        (0, 8192),
        (1, 8000),
        (63, 700),
        (64, 256),
        (65, 319),
        (100, 20),
    ] {
        pmem.zero_flushed(0, 8192);
        pmem.write_flushed(at, &data[..len]);
        pmem.fence();
        let mut all = vec![0; 8192];
        pmem.read(0, &mut all);
        let start = usize::try_from(at).unwrap();
        assert_eq!(all[start..start + len], data[..len]);
        assert!(
            all[..start]
                .iter()
                .chain(&all[start + len..])
                .all(|b| *b == 0),
            "{len} bytes at {at}"
        );
    }
}

#[test]
fn an_image_inside_a_larger_file_touches_nothing_outside() {
    for (dir, medium) in folders() {
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![0xee; 40_960]).unwrap();
        // Byte 512 is not a page's first.
        for offset in [512u64, 4096, 8192] {
            let region =
                FileRegion::open_at(&path, Access::ReadWrite, offset, Some(16_384)).unwrap();
            assert_eq!(region.offset(), offset);
            let pmem = Pmem::new(region);
            assert_eq!(pmem.len(), 16_384);
            assert_eq!(pmem.huge_phase().is_some(), offset >= 4096);
            pmem.zero(0, 16_384);
            pmem.store(Off::new(0), U32::new(1));
            pmem.sync(0..16_384).unwrap();
            drop(pmem);
            let bytes = std::fs::read(&path).unwrap();
            let (start, end) = (
                usize::try_from(offset).unwrap(),
                usize::try_from(offset + 16_384).unwrap(),
            );
            assert!(
                bytes[..start]
                    .iter()
                    .chain(&bytes[end..])
                    .all(|b| *b == 0xee),
                "{medium:?} at {offset}"
            );
            assert_eq!(bytes[start..start + 8], [1, 0, 0, 0, 0, 0, 0, 0]);
            std::fs::write(&path, vec![0xee; 40_960]).unwrap();
        }
    }
}

#[test]
fn pieces_outside_the_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 8192);
    for (offset, len) in [
        (8193, None),
        (8192, None),
        (0, Some(8193)),
        (4096, Some(4097)),
        (100, None),
        (0, Some(0)),
    ] {
        let error = FileRegion::open_at(&path, Access::ReadOnly, offset, len).unwrap_err();
        assert!(
            matches!(error, OpenError::OutOfRange { len: 8192, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_writer_keeps_everybody_out_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 8192);
    let writer = FileRegion::open(&path, Access::ReadWrite).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let error = FileRegion::open(&path, access).unwrap_err();
        let OpenError::InUse { holders, .. } = &error else {
            panic!("{error}")
        };
        if holders.is_empty() {
            println!("skipped: /proc/locks does not name the holder here");
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "the holder must be named"
            );
        } else {
            assert_eq!(*holders, [std::process::id()], "{error}");
            assert!(
                error
                    .to_string()
                    .ends_with(&format!("in use by process {}", std::process::id())),
                "{error}"
            );
        }
    }
    let torn = Pmem::new(FileRegion::open(&path, Access::ReadOnlyForced).unwrap());
    assert!(!torn.writable());
    // The lock lives as long as the last handle to the region.
    let pmem = Pmem::new(writer);
    let clone = pmem.slice(4096, 4096);
    drop(pmem);
    assert!(FileRegion::open(&path, Access::ReadWrite).is_err());
    drop(clone);
    drop(FileRegion::open(&path, Access::ReadWrite).unwrap());
}

#[test]
fn readers_share_and_keep_a_writer_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 8192);
    let (a, b) = (
        FileRegion::open(&path, Access::ReadOnly).unwrap(),
        FileRegion::open(&path, Access::ReadOnly).unwrap(),
    );
    assert!(matches!(
        FileRegion::open(&path, Access::ReadWrite),
        Err(OpenError::InUse { .. })
    ));
    drop((a, b));
    drop(FileRegion::open(&path, Access::ReadWrite).unwrap());
}

#[test]
fn a_store_through_a_reader_is_a_bug_that_panics() {
    let dir = tempfile::tempdir().unwrap();
    let pmem = Pmem::new(FileRegion::open(image(dir.path(), 8192), Access::ReadOnly).unwrap());
    for wrong in [
        Box::new(|pmem: &Pmem| pmem.store(Off::new(0), 1u8)) as Box<dyn Fn(&Pmem)>,
        Box::new(|pmem| pmem.write(0, &[1])),
        Box::new(|pmem| pmem.zero(0, 1)),
        Box::new(|pmem| pmem.zero_flushed(0, 1)),
        Box::new(|pmem| ignore(pmem.or_word(Off::new(0), 1))),
        Box::new(|pmem| ignore(pmem.copy_in_flushed(0, (&[1u8]).into()))),
    ] {
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wrong(&pmem))).is_err());
    }
    assert_eq!(pmem.load(Off::<u8>::new(0)), 0);
}

#[test]
fn what_is_not_an_image_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let reason = |path: &Path| {
        FileRegion::open(path, Access::ReadOnly)
            .unwrap_err()
            .to_string()
    };
    assert!(reason(Path::new("/dev/null")).contains("a character device other than dax"));
    assert!(reason(dir.path()).contains("a directory"));
    assert!(reason(&dir.path().join("absent")).contains("open"));
    assert!(matches!(
        FileRegion::open(image(dir.path(), 0), Access::ReadOnly),
        Err(OpenError::OutOfRange { .. })
    ));
}

/// What is read past the mapping is what was stored through it, at every offset, and a hole stays a hole.
#[test]
fn bytes_read_once_are_those_of_the_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 1 << 20);
    for offset in [0, 4096, 512] {
        let region = FileRegion::open_at(&path, Access::ReadWrite, offset, Some(64 << 10)).unwrap();
        let pmem = Pmem::new(region);
        let bytes: Vec<u8> = (0..1000_u32)
            .map(|i| u8::try_from(i % 251).unwrap())
            .collect();
        pmem.write(5000, &bytes);
        let part = pmem.slice(4096, 8192);
        let mut seen = vec![0; 1000];
        part.read_once(904, &mut seen);
        assert!(seen == bytes, "at {offset}");
    }
    let past = std::panic::catch_unwind(|| {
        let pmem = Pmem::new(AnonRegion::new(4096).unwrap());
        pmem.read_once(4000, &mut [0; 97]);
    });
    assert!(past.is_err(), "a read past the end must panic");
}

/// A tmpfs with large pages, for as long as the value lives.
struct Tmpfs(tempfile::TempDir);

/// Says aloud what cannot be tested here. Where it must be (`CI=true`), that is a failure.
#[expect(clippy::print_stdout, reason = "a skip has to be visible")]
fn skip(why: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{why}"
    );
    println!("skipped: {why}");
}

impl Tmpfs {
    /// `None`: mounting takes root, and the kernel may know no large pages.
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            skip(&format!("no tmpfs with {options} can be mounted here"));
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// A number in KiB that /proc/self/smaps has for the mapping of a file.
fn mapped_kib(path: &Path, field: &str) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps
        .lines()
        .skip_while(|line| !line.ends_with(path.to_str().unwrap()));
    let value = lines.find_map(|line| line.strip_prefix(field)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Where the pages are large, what is read once comes through the mapping, and elsewhere by a call. A hole takes no memory
/// either way.
#[test]
fn bytes_read_once_come_through_the_mapping_where_pages_are_large() {
    let Some(large) = Tmpfs::mount("huge=always,size=64m") else {
        return;
    };
    let small = tempfile::tempdir_in("/dev/shm").unwrap();
    for (dir, whole_kib) in [(large.0.path(), 2048), (small.path(), 0)] {
        for offset in [0, 512] {
            // The kernel's daemon may make a large page of a piece with a hole meanwhile.
            let tries = (0..20).map(|_| {
                let collapsed = pages_collapsed();
                let figures = read_once(dir, offset);
                (figures, pages_collapsed() == collapsed)
            });
            let undisturbed = tries
                .filter(|(_, quiet)| *quiet)
                .map(|(figures, _)| figures);
            let (taken, pmd_kib) = undisturbed.into_iter().next().expect("a quiet moment");
            assert_eq!(taken, 0, "a hole took memory");
            assert_eq!(
                pmd_kib,
                2 * whole_kib,
                "two pieces are whole in {}",
                dir.display()
            );
        }
    }
}

/// Large pages that the kernel's daemon has made; 0 where there is no such daemon.
fn pages_collapsed() -> u64 {
    let counter = "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed";
    std::fs::read_to_string(counter).map_or(0, |text| text.trim().parse().unwrap())
}

/// Reads a file of data, a hole, half data, data and a hole at the end, once. Answers what its holes took meanwhile, in
/// blocks of 512 bytes, and how many KiB of it large entries map.
fn read_once(dir: &Path, offset: u64) -> (u64, u64) {
    const PIECE: u64 = 2 << 20;
    let path = image(dir, 4 * PIECE + 5000);
    let bytes: Vec<u8> = (0..PIECE).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    for at in [0, 2 * PIECE, 3 * PIECE] {
        file.write_all_at(&bytes, at).unwrap();
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 2 * PIECE, PIECE / 2).unwrap();
    let blocks = file.metadata().unwrap().blocks();
    let whole = std::fs::read(&path).unwrap();
    let pmem = Pmem::new(FileRegion::open_at(&path, Access::ReadOnly, offset, None).unwrap());
    let mut seen = vec![0; 100_000];
    for at in (0..pmem.len()).step_by(seen.len()) {
        let len = seen.len().min(usize::try_from(pmem.len() - at).unwrap());
        pmem.read_once(at, &mut seen[..len]);
        let from = usize::try_from(at + offset).unwrap();
        assert!(
            seen[..len] == whole[from..from + len],
            "{len} bytes at {at}"
        );
    }
    let taken = file.metadata().unwrap().blocks().saturating_sub(blocks);
    let pmd_kib = mapped_kib(&path, "ShmemPmdMapped:");
    drop(pmem);
    std::fs::remove_file(path).unwrap();
    (taken, pmd_kib)
}

/// A tmpfs gives out pages of 4 KiB, one by one, and an image on it could never be mapped 2 MiB at a time.
#[test]
fn a_file_in_memory_gets_large_pages_that_one_entry_maps() {
    use std::os::unix::fs::MetadataExt as _;
    const HUGE: u64 = 2 << 20;
    for (dir, medium) in folders() {
        let path = image(dir.path(), 4 * HUGE + 8192);
        std::fs::write(&path, b"before").unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(4 * HUGE + 8192)
            .unwrap();
        // Where the region starts must not matter: large pages are those of the file.
        let region = FileRegion::open_at(&path, Access::ReadWrite, 4096, None).unwrap();
        let pmem = Pmem::new(region);
        let first = HUGE - 4096;
        assert!(!pmem.populate_huge(0..HUGE), "not where a page starts");
        assert!(!pmem.populate_huge(first..first + 4096), "no whole page");
        pmem.write(first + 7, b"a store");
        if medium != Medium::MemoryFile {
            assert!(!pmem.populate_huge(first..first + HUGE), "{medium:?}");
            continue;
        }
        assert_eq!(pmem.huge_phase(), Some(1));
        if !pmem.populate_huge(first..first + 2 * HUGE) {
            skip("this kernel gives no large pages of tmpfs");
            continue;
        }
        assert_eq!(mapped_kib(&path, "ShmemPmdMapped:"), (2 * HUGE) >> 10);
        let blocks = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert_eq!(blocks, 2 * HUGE + 4096, "the rest stays a hole");
        pmem.write(first + HUGE + 9, b"another");
        let bytes = std::fs::read(&path).unwrap();
        let at = |at: u64, text: &[u8]| bytes[at as usize..].starts_with(text);
        assert!(at(0, b"before\0") && at(HUGE + 7, b"a store\0"));
        assert!(at(2 * HUGE + 9, b"another\0"));
        let stored = bytes.iter().filter(|&&byte| byte != 0).count();
        assert_eq!(stored, 6 + 7 + 7, "everything else is zero");
    }
}

/// Asking a full file system is an answer, not a signal in the one who asks.
#[test]
fn large_pages_that_do_not_fit_are_refused() {
    const HUGE: u64 = 2 << 20;
    let Some(full) = Tmpfs::mount("size=3m") else {
        return;
    };
    let path = image(full.0.path(), 4 * HUGE);
    let pmem = Pmem::new(FileRegion::open(&path, Access::ReadWrite).unwrap());
    let answers: Vec<bool> = (0..4)
        .map(|nr| pmem.populate_huge(nr * HUGE..(nr + 1) * HUGE))
        .collect();
    assert!(!answers[1..].contains(&true), "{answers:?}");
}
