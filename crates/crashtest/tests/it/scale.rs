//! Large images, large directories, many files: what must not grow with them does not.
//!
//! Nothing here asserts a time on the wall. Mounting is measured in bytes of the image that were touched, work in a directory in processor time per name, with a factor between the small and the large case that only a search from
//! end to end exceeds, and memory by a limit on the process that does the work.

use std::fs;
use std::path::Path;
use std::process::Command;

use ext2dax::{FileSystem, Inode, MountOptions, New};
use ext2dax_crashtest::judge;
use ext2dax_mkfs::{Inodes, Options};
use ext2dax_pmem::Access;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::scratch;

/// Set in the child.
const CHILD: &str = "EXT2DAX_SCALE_CHILD";

/// KiB of the image that this process has touched since it mapped it.
fn touched(image: &Path) -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let path = image.to_str().unwrap();
    let mapping = maps.lines().skip_while(|line| !line.ends_with(path));
    let rss = mapping.filter_map(|line| line.strip_prefix("Rss:")).next();
    let number = rss.unwrap().split_whitespace().next();
    number.unwrap().parse().unwrap()
}

/// Nanoseconds that this thread has run.
fn ran() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn mount(image: &Path, options: &MountOptions) -> FileSystem {
    let region = judge::region(image, Access::ReadWrite).unwrap();
    FileSystem::mount(region, options).unwrap()
}

/// KiB that a mount touches, and that one use touches until its end: counts, names, contents, sync.
fn touched_by_a_use(image: &Path) -> (u64, u64) {
    let fs = mount(image, &MountOptions::new());
    let by_mount = touched(image);
    let counts = fs.statfs();
    assert!(counts.blocks_free > 0 && counts.inodes_free > 0);
    let root = fs.root().unwrap();
    let dir = root.mkdir(b"dir", &New::default()).unwrap();
    let file = dir.create(b"file", &New::default()).unwrap();
    file.write_at(0, &[1; 70_000][..]).unwrap();
    assert_eq!(
        dir.lookup(b"file").unwrap().attributes().unwrap().size,
        70_000
    );
    file.set_len(0).unwrap();
    drop(file);
    dir.unlink(b"file").unwrap();
    drop(dir);
    root.rmdir(b"dir").unwrap();
    drop(root);
    fs.sync().unwrap();
    let in_all = touched(image);
    fs.unmount().unwrap();
    (by_mount, in_all)
}

/// The largest images, and a hundred groups of each block size: length in bytes, block size, inodes.
fn images() -> Vec<(u64, u32, u32)> {
    let small = (1 << 30, 4096, 8192);
    if judge::soak() {
        // 2^32 - 1 blocks, the most that the format counts.
        let most = |block_size: u32| {
            (
                u64::from(u32::MAX) * u64::from(block_size),
                block_size,
                1 << 21,
            )
        };
        vec![small, most(4096), most(1024)]
    } else {
        vec![small, (1 << 40, 4096, 1 << 17), (1 << 41, 65_536, 1 << 17)]
    }
}

/// Mounting counted every group's bits once, and a later version walked all descriptors: on an image of 16 TiB either is
/// seconds. Now a use touches what it needs.
#[test]
fn mounting_touches_no_more_of_a_large_image() {
    for (len, block_size, inodes) in images() {
        let dir = scratch::dir().unwrap();
        let image = dir.path().join("large.img");
        let options = Options {
            inodes: Inodes::Count(inodes),
            ..Options::with_block_size(block_size)
        };
        ext2dax_mkfs::make_file(&image, &options, len).unwrap();
        let (by_mount, in_all) = touched_by_a_use(&image);
        println!(
            "{:>6} GiB in blocks of {block_size}: {by_mount} KiB touched by the mount, {in_all} KiB in all",
            len >> 30
        );
        // The kernel maps 64 KiB around what is touched. A mount looks at superblock, descriptor, inode and block of the
        // root and at the orphan list; a new directory compares at most 1,024 descriptors.
        let block = u64::from(block_size) >> 10;
        assert!(by_mount <= 512 + 4 * block, "{by_mount} KiB");
        assert!(in_all <= 1536 + 32 * block, "{in_all} KiB");
        judge::fsck_clean(&image).unwrap();
        if len <= 1 << 30 || judge::soak() && block_size == 4096 {
            judge::e2fsck_clean(&image).unwrap();
        }
    }
}

/// The far end of the largest images is used like the near one: files whose blocks have numbers past 2^31, in groups
/// past the 65,536th, are written, read, found again, and freed.
#[test]
fn the_far_end_of_a_large_image_is_used() {
    let (len, block_size, inodes) = images()[1];
    let dir = scratch::dir().unwrap();
    let image = dir.path().join("far.img");
    let options = Options {
        inodes: Inodes::Count(inodes),
        ..Options::with_block_size(block_size)
    };
    ext2dax_mkfs::make_file(&image, &options, len).unwrap();
    let fs = mount(&image, &MountOptions::new());
    let free = fs.statfs();
    let root = fs.root().unwrap();
    let mut furthest = 0;
    for number in 0..64 {
        let name = format!("top-{number}").into_bytes();
        let dir = root.mkdir(&name, &New::default()).unwrap();
        let file = dir.create(b"file", &New::default()).unwrap();
        file.write_at(0, &name[..]).unwrap();
        // And one block that only a triple indirect pointer reaches.
        let far = 2_u64 << 40;
        if file.write_at(far, &name[..]).is_ok() {
            let mut back = vec![0; name.len()];
            file.read_at(far, &mut back[..]).unwrap();
            assert_eq!(back, name);
        }
        for extent in file.extents(0..u64::MAX, 10).unwrap() {
            furthest = furthest.max(extent.physical);
        }
    }
    drop(root);
    fs.unmount().unwrap();
    println!("furthest byte {furthest} of {len}");
    assert!(furthest > len / 2, "directories are spread over the image");
    judge::fsck_clean(&image).unwrap();
    let fs = mount(&image, &MountOptions::new());
    for number in 0..64 {
        fs.remove_dir_all(format!("/top-{number}")).unwrap();
    }
    assert_eq!(fs.statfs(), free);
    fs.unmount().unwrap();
    judge::fsck_clean(&image).unwrap();
}

fn nr_names() -> u32 {
    if judge::soak() { 1_000_000 } else { 60_000 }
}

fn name(number: u32) -> Vec<u8> {
    format!("name-{number:08}").into_bytes()
}

/// Processor time a name of `act` over the first and over the last tenth of all names.
fn ends(what: &str, mut act: impl FnMut(u32)) {
    let tenth = nr_names() / 10;
    let mut costs = Vec::new();
    for part in 0..10 {
        let start = ran();
        (part * tenth..(part + 1) * tenth).for_each(&mut act);
        costs.push((ran() - start) / u64::from(tenth));
    }
    let (first, last) = (costs[0].max(200), costs[9]);
    println!("    {what:<8} {first:>6} ns in the first tenth, {last:>6} ns in the last");
    // A search from end to end costs ten times as much, and a thousand times what a table costs.
    assert!(
        last <= 8 * first,
        "{what}: {last} ns a name at the end, {first} at the start"
    );
}

/// Runs `test` again in a process whose heap is limited, unless this is that process.
fn in_child(test: &str, heap: u64) -> bool {
    if std::env::var_os(CHILD).is_some() {
        let limit = Some(heap);
        let limit = Rlimit {
            current: limit,
            maximum: limit,
        };
        setrlimit(Resource::Data, limit).unwrap();
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// A million names in one directory, each a file: made, found, missed, listed, renamed, removed, in bounded memory.
#[test]
fn a_directory_of_many_names_stays_flat_and_small() {
    // The index takes 16 bytes a name, twice while it grows, and a bit for each place where an entry may begin.
    let heap = (64 << 20) + u64::from(nr_names()) * 100;
    if !in_child(
        "scale::a_directory_of_many_names_stays_flat_and_small",
        heap,
    ) {
        return;
    }
    let count = nr_names();
    let dir = scratch::dir().unwrap();
    let image = dir.path().join("names.img");
    let options = Options {
        inodes: Inodes::Count(count + 64),
        inode_size: 128,
        ..Options::with_block_size(4096)
    };
    ext2dax_mkfs::make_file(&image, &options, 128 << 20 | u64::from(count) << 9).unwrap();
    // Far fewer inodes in core than there are files.
    let mount_options = MountOptions::new().inode_cache(4096);
    let fs = mount(&image, &mount_options);
    let root = fs.root().unwrap();
    let many = root.mkdir(b"many", &New::default()).unwrap();
    println!("{count} names, heap of {} MiB", heap >> 20);
    ends("create", |i| {
        many.create(&name(i), &New::default()).unwrap();
    });
    // In an order of its own, as programs ask.
    let shuffled = |i: u32| u32::try_from(u64::from(i) * 611_953 % u64::from(count)).unwrap();
    ends("lookup", |i| {
        let found = many.lookup(&name(shuffled(i))).unwrap();
        assert_eq!(found.attributes().unwrap().links, 1);
    });
    ends("miss", |i| {
        assert!(many.lookup(&name(count + i)).is_err());
    });
    say_heap();
    drop((root, many));
    fs.unmount().unwrap();
    judge::clean(&image).unwrap();

    // The index is read from the medium this time.
    let fs = mount(&image, &mount_options);
    let many = fs.inode("/many").unwrap();
    assert_eq!(listed(&many), u64::from(count) + 2);
    ends("rename", |i| {
        let at = shuffled(i);
        many.rename(&name(at), &many, &name(count + at)).unwrap();
    });
    ends("unlink", |i| {
        many.unlink(&name(count + shuffled(i))).unwrap()
    });
    assert_eq!(listed(&many), 2);
    drop(many);
    fs.remove_dir("/many").unwrap();
    fs.unmount().unwrap();
    judge::clean(&image).unwrap();
}

/// Says how much heap this process has.
fn say_heap() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let data = status.lines().find(|line| line.starts_with("VmData:"));
    println!("    {}", data.unwrap_or_default());
}

fn listed(dir: &Inode) -> u64 {
    let (mut cookie, mut count) = (0, 0);
    loop {
        let entries = dir.read_dir(cookie, 500).unwrap();
        let Some(last) = entries.last() else {
            return count;
        };
        cookie = last.next;
        count += entries.len() as u64;
    }
}

/// A million files with contents in a thousand directories, with the cache of inodes that a mount has by itself: memory
/// is bounded by the cache, and the work for a file does not grow.
#[test]
fn many_files_in_many_directories_stay_flat_and_small() {
    // A file in core takes about a KiB with its address space, and 65,536 are kept. An index takes up to 60 bytes a name,
    // and those of directories in core stay.
    let heap = (64 << 20) + u64::from(nr_names().min(1 << 16)) * 1500 + u64::from(nr_names()) * 60;
    if !in_child(
        "scale::many_files_in_many_directories_stay_flat_and_small",
        heap,
    ) {
        return;
    }
    let count = nr_names();
    let dir = scratch::dir().unwrap();
    let image = dir.path().join("files.img");
    let options = Options {
        inodes: Inodes::Count(count + count / 500),
        inode_size: 128,
        ..Options::with_block_size(1024)
    };
    ext2dax_mkfs::make_file(&image, &options, 128 << 20 | u64::from(count) << 11).unwrap();
    let fs = mount(&image, &MountOptions::new());
    let path = |i: u32| format!("/dir-{}/{i}", i / 1000);
    println!("{count} files, heap of {} MiB", heap >> 20);
    ends("write", |i| {
        if i % 1000 == 0 {
            fs.create_dir(format!("/dir-{}", i / 1000)).unwrap();
        }
        fs.write(path(i), i.to_le_bytes()).unwrap();
    });
    ends("read", |i| {
        let at = u32::try_from(u64::from(i) * 611_953 % u64::from(count)).unwrap();
        assert_eq!(fs.read(path(at)).unwrap(), at.to_le_bytes());
    });
    say_heap();
    fs.unmount().unwrap();
    judge::clean(&image).unwrap();
}
