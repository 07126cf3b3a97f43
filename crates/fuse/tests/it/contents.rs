//! Contents of files through the mount.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::Mount;
use super::mounted::{pattern, skipped_without};

fn open(path: std::path::PathBuf) -> File {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .expect("opened")
}

#[test]
fn every_block_size_holds_files_of_every_shape() {
    for block_size in [1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        let plan = ext2dax_mkfs::Options {
            block_size,
            ..ext2dax_mkfs::Options::default()
        };
        let Some(mount) = Mount::with_image("", &plan, 64 << 20) else {
            return;
        };
        let sizes = [0, 1, 1023, 4096, 4097, 65_536, 300_000, 3_000_000];
        for size in sizes {
            fs::write(mount.path(format!("f{size}")), pattern(size)).expect("written");
        }
        let sparse = open(mount.path("sparse"));
        for at in [0, 1 << 20, 40_000_000] {
            sparse.write_all_at(b"island", at).expect("written");
        }
        drop(sparse);
        let many = mount.path("many");
        fs::create_dir(&many).expect("made");
        for i in 0..300 {
            fs::write(many.join(format!("a-name-of-some-length-{i}")), [0; 10]).expect("written");
        }
        let again = Mount::again(mount.end(), "");
        for size in sizes {
            let read = fs::read(again.path(format!("f{size}"))).expect("read");
            assert!(read == pattern(size), "{block_size}: {size} bytes differ");
        }
        let sparse = fs::metadata(again.path("sparse")).expect("there");
        assert_eq!(sparse.len(), 40_000_006);
        assert!(sparse.blocks() * 512 < 3 << 20, "{}", sparse.blocks());
        assert_eq!(
            fs::read_dir(again.path("many")).expect("listed").count(),
            300
        );
        fs::remove_dir_all(again.path("many")).expect("removed");
        again.end();
    }
}

#[test]
fn appends_of_two_handles_do_not_overwrite_each_other() {
    let Some(mount) = Mount::new("threads=4") else {
        return;
    };
    let path = mount.path("log");
    std::thread::scope(|scope| {
        for letter in [b'a', b'b'] {
            let path = &path;
            scope.spawn(move || {
                let mut file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .expect("opened");
                for _ in 0..200 {
                    file.write_all(&[letter; 100]).expect("written");
                }
            });
        }
    });
    let text = fs::read(&path).expect("read");
    assert_eq!(text.len(), 40_000);
    assert!(
        text.chunks(100)
            .all(|piece| piece.iter().all(|letter| *letter == piece[0]))
    );
    mount.end();
}

#[test]
fn opening_with_truncation_empties_the_file_and_moves_its_times() {
    let Some(mount) = Mount::new("") else { return };
    let path = mount.path("file");
    for contents in [pattern(100_000), Vec::new()] {
        fs::write(&path, contents).expect("written");
        let before = fs::metadata(&path).expect("there");
        std::thread::sleep(std::time::Duration::from_millis(20));
        drop(File::create(&path).expect("truncated"));
        let after = fs::metadata(&path).expect("there");
        assert_eq!((after.len(), after.blocks()), (0, 0));
        let times = |stat: &fs::Metadata| {
            (
                stat.mtime(),
                stat.mtime_nsec(),
                stat.ctime(),
                stat.ctime_nsec(),
            )
        };
        assert!(times(&after) > times(&before));
    }
    mount.end();
}

#[test]
fn seeking_sees_the_holes_that_reading_sees() {
    let Some(mount) = Mount::new("") else { return };
    let mut file = open(mount.path("sparse"));
    file.write_all_at(&pattern(8192), 1 << 20).expect("written");
    file.set_len(4 << 20).expect("extended");
    let seek = |whence: fn(u64) -> rustix::fs::SeekFrom, pos| rustix::fs::seek(&file, whence(pos));
    assert_eq!(seek(rustix::fs::SeekFrom::Data, 0), Ok(1 << 20));
    assert_eq!(
        seek(rustix::fs::SeekFrom::Hole, 1 << 20),
        Ok((1 << 20) + 8192)
    );
    assert_eq!(seek(rustix::fs::SeekFrom::Hole, 0), Ok(0));
    assert_eq!(seek(rustix::fs::SeekFrom::Data, 2 << 20), Err(Errno::NXIO));
    assert_eq!(seek(rustix::fs::SeekFrom::Hole, 4 << 20), Err(Errno::NXIO));
    assert_eq!(seek(rustix::fs::SeekFrom::Hole, 3 << 20), Ok(3 << 20));
    file.seek(SeekFrom::Start((1 << 20) - 1)).expect("there");
    let mut two = [9; 2];
    file.read_exact(&mut two).expect("read");
    assert_eq!(two, [0, pattern(8192)[0]]);
    drop(file);
    mount.end();
}

#[test]
fn fallocate_does_what_ext2_can_and_refuses_the_rest() {
    let Some(mount) = Mount::new("") else { return };
    let file = open(mount.path("file"));
    let stat = || file.metadata().expect("there");
    fallocate(&file, FallocateFlags::empty(), 0, 100_000).expect("allocated");
    assert_eq!(stat().len(), 100_000);
    assert!(stat().blocks() * 512 >= 100_000);
    file.write_all_at(&pattern(100_000), 0).expect("written");
    let keep = FallocateFlags::KEEP_SIZE;
    fallocate(&file, FallocateFlags::PUNCH_HOLE | keep, 4096, 8192).expect("punched");
    fallocate(&file, FallocateFlags::ZERO_RANGE, 50_000, 100_000).expect("zeroed");
    assert_eq!(stat().len(), 150_000);
    fallocate(&file, keep, 0, 150_000).expect("inside the file");
    let mut want = pattern(100_000);
    want[4096..12_288].fill(0);
    want.resize(150_000, 0);
    want[50_000..].fill(0);
    let mut read = vec![1; 150_000];
    file.read_exact_at(&mut read, 0).expect("read");
    assert!(read == want);
    for (flags, at, len) in [
        (keep, 0, 1 << 20),
        (FallocateFlags::ZERO_RANGE | keep, 0, 1 << 20),
        (FallocateFlags::COLLAPSE_RANGE, 0, 4096),
        (FallocateFlags::INSERT_RANGE, 0, 4096),
    ] {
        let before = stat();
        assert_eq!(
            fallocate(&file, flags, at, len),
            Err(Errno::OPNOTSUPP),
            "{flags:?}"
        );
        assert_eq!(
            (stat().len(), stat().blocks()),
            (before.len(), before.blocks())
        );
    }
    drop(file);
    mount.end();
}

#[test]
fn copies_inside_the_mount_are_made_by_the_server_and_keep_holes() {
    let Some(mount) = Mount::new("") else { return };
    let from = open(mount.path("from"));
    from.write_all_at(&pattern(3 << 20), 8 << 20)
        .expect("written");
    let to = open(mount.path("to"));
    let (mut at, mut to_at) = (0, 0);
    loop {
        let copied =
            rustix::fs::copy_file_range(&from, Some(&mut at), &to, Some(&mut to_at), 16 << 20);
        if copied.expect("copied") == 0 {
            break;
        }
    }
    let stat = to.metadata().expect("there");
    assert_eq!(stat.len(), 11 << 20);
    assert!(stat.blocks() * 512 < 4 << 20, "{} sectors", stat.blocks());
    let mut read = vec![0; 3 << 20];
    to.read_exact_at(&mut read, 8 << 20).expect("read");
    assert!(read == pattern(3 << 20));
    drop((from, to));
    mount.end();
}

#[test]
fn a_full_image_says_so_and_serves_on() {
    let plan = ext2dax_mkfs::Options::default();
    let Some(mount) = Mount::with_image("", &plan, 4 << 20) else {
        return;
    };
    let error = fs::write(mount.path("large"), pattern(8 << 20)).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    fs::remove_file(mount.path("large")).expect("removed");
    // The kernel forgets the file behind the answer to the unlink, but before the next request.
    fs::write(mount.path("small"), pattern(2 << 20)).expect("there is room again");
    assert!(fs::read(mount.path("small")).expect("read") == pattern(2 << 20));
    mount.end();
}

#[test]
fn fsync_reaches_the_server_for_files_and_directories() {
    let Some(mount) = Mount::new("") else { return };
    let mut file = open(mount.path("file"));
    file.write_all(b"durable").expect("written");
    file.sync_data().expect("synced");
    file.sync_all().expect("synced");
    File::open(mount.root())
        .expect("opened")
        .sync_all()
        .expect("synced");
    drop(file);
    mount.end();
}

#[test]
fn other_programs_read_what_is_mapped_and_written() {
    if skipped_without("cmp") {
        return;
    }
    let Some(mount) = Mount::new("") else { return };
    fs::write(mount.path("a"), pattern(2_000_000)).expect("written");
    fs::copy(mount.path("a"), mount.path("b")).expect("copied");
    // cmp reads one and maps nothing; equal files of two names pass through the page cache twice.
    let output = std::process::Command::new("cmp")
        .args([mount.path("a"), mount.path("b")])
        .output()
        .expect("run");
    assert!(output.status.success());
    mount.end();
}
