//! Contents of files: limits, flags, holes, appends, times.

use std::sync::Arc;

use ext2dax::{Atime, Clock, Error, FileSystem, InodeFlags, MountOptions, OpenOptions, Timestamp};
use ext2dax_format::RawSuperblock;
use ext2dax_pmem::{Access, FileRegion, Off, Pmem};

use crate::image::{Image, SHAPES, run};

fn done(image: &Image, fs: FileSystem) {
    fs.unmount().expect("nothing is open");
    image.assert_clean("at the end");
}

fn superblock(image: &Image) -> RawSuperblock {
    let region = FileRegion::open(&image.path, Access::ReadOnly).expect("the image opens");
    Pmem::new(region).read_value(Off::new(1024))
}

#[test]
fn bytes_behind_a_cut_never_come_back() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .open(&fs, "/f")
            .unwrap();
        for cut in [0, 1, 1000, 1024, 5000, 70_000, 199_999] {
            file.write_all_at(&[0xee; 200_000], 0).unwrap();
            file.set_len(cut).unwrap();
            file.set_len(cut + 3).unwrap();
            file.write_all_at(b"!", cut + 5000).unwrap();
            let contents = fs.read("/f").unwrap();
            let cut = usize::try_from(cut).unwrap();
            assert!(
                contents[..cut].iter().all(|&byte| byte == 0xee),
                "{shape}, {cut}"
            );
            assert!(
                contents[cut..cut + 5000].iter().all(|&byte| byte == 0),
                "{shape}, {cut}"
            );
        }
        drop(file);
        done(&image, fs);
    }
}

#[test]
fn holes_are_where_nothing_was_written_on_every_block_size() {
    for shape in SHAPES {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        let fs = image.mount();
        let block = u64::from(fs.geometry().block_size());
        let file = fs.create("/f").unwrap();
        file.write_all_at(b"x", 3 * block).unwrap();
        file.write_all_at(b"y", 20 * block).unwrap();
        file.set_len(30 * block).unwrap();
        let found: Vec<_> = [0, 3 * block, 4 * block, 20 * block + 1]
            .map(|at| (file.seek_data(at).unwrap(), file.seek_hole(at).unwrap()))
            .into();
        let wanted = [
            (3 * block, 0),
            (3 * block, 4 * block),
            (20 * block, 4 * block),
            (20 * block + 1, 21 * block),
        ];
        assert_eq!(found, wanted, "{shape}");
        assert_eq!(file.seek_data(21 * block).unwrap_err(), Error::NoSuchOffset);
        assert_eq!(file.seek_hole(30 * block).unwrap_err(), Error::NoSuchOffset);
        file.allocate(0..block).unwrap();
        assert_eq!(file.seek_data(0).unwrap(), 0);
        file.punch_hole(0..4 * block).unwrap();
        assert_eq!(file.seek_data(0).unwrap(), 20 * block);
        drop(file);
        done(&image, fs);
    }
}

#[test]
fn the_largest_offset_is_the_formats_and_the_next_byte_is_too_far() {
    let Some(image) = Image::new("-b 1024 -I 128", 8) else {
        return;
    };
    let fs = image.mount();
    let max = fs.geometry().max_file_size();
    let file = fs.create("/f").unwrap();
    // Half of it fits.
    assert_eq!(file.write_at(&b"12345678"[..], max - 4).unwrap(), 4);
    assert_eq!(file.len().unwrap(), max);
    assert_eq!(
        file.write_at(&b"x"[..], max).unwrap_err(),
        Error::FileTooLarge
    );
    assert_eq!(file.set_len(max + 1).unwrap_err(), Error::FileTooLarge);
    drop(file);
    done(&image, fs);
}

#[test]
fn a_file_of_two_gib_sets_the_feature_and_revision_0_refuses_it() {
    let large = 1_u64 << 31;
    let Some(image) = Image::new("-b 4096 -I 256 -O ^large_file,^resize_inode", 8) else {
        return;
    };
    // The resize inode is a large file, too.
    let has_feature = |image: &Image| superblock(image).s_feature_ro_compat.get() & 2 != 0;
    let fs = image.mount();
    let file = fs.create("/f").unwrap();
    file.set_len(large - 1).unwrap();
    let before = {
        drop(file);
        fs.unmount().expect("nothing is open");
        has_feature(&image)
    };
    let fs = image.mount();
    let file = OpenOptions::new().write(true).open(&fs, "/f").unwrap();
    file.set_len(large).unwrap();
    drop(file);
    done(&image, fs);
    assert_eq!((before, has_feature(&image)), (false, true));

    let Some(image) = Image::new("-b 4096 -r 0", 8) else {
        return;
    };
    let fs = image.mount();
    let file = fs.create("/f").unwrap();
    assert_eq!(file.set_len(large).unwrap_err(), Error::FileTooLarge);
    assert_eq!(
        file.write_at(&b"x"[..], large - 1).unwrap_err(),
        Error::FileTooLarge
    );
    file.set_len(large - 1).unwrap();
    drop(file);
    done(&image, fs);
    assert!(!has_feature(&image));
}

#[test]
fn sizes_on_both_sides_of_four_gib_are_kept() {
    let Some(image) = Image::new("-b 4096 -I 256", 8) else {
        return;
    };
    let fs = image.mount();
    let four = 1_u64 << 32;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .open(&fs, "/f")
        .unwrap();
    file.write_all_at(b"old", four - 5000).unwrap();
    for size in [
        four - 1,
        four,
        four + 1,
        3 * four + 7,
        four + 10,
        four - 10,
        four - 4999,
    ] {
        file.set_len(size).unwrap();
        assert_eq!(fs.metadata("/f").unwrap().len(), size);
    }
    file.set_len(four + 100).unwrap();
    let mut buf = [1; 5100];
    file.read_exact_at(&mut buf, four - 5000).unwrap();
    assert_eq!(buf[0], b'o');
    assert!(buf[1..].iter().all(|&byte| byte == 0));
    drop(file);
    done(&image, fs);
}

#[test]
fn appends_of_several_threads_stay_in_one_piece() {
    let Some(image) = Image::new("-b 1024 -I 128", 16) else {
        return;
    };
    let fs = image.mount();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let fs = &fs;
            scope.spawn(move || {
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(fs, "/log")
                    .unwrap();
                for _ in 0..200 {
                    assert_eq!(file.write(&[b'a' + thread; 777][..]).unwrap(), 777);
                }
            });
        }
    });
    let log = fs.read("/log").unwrap();
    assert_eq!(log.len(), 4 * 200 * 777);
    for record in log.chunks(777) {
        assert!(
            record.iter().all(|byte| *byte == record[0]),
            "two appends are mixed"
        );
    }
    done(&image, fs);
}

#[test]
fn immutable_and_append_only_files_bind_every_route() {
    let Some(image) = Image::new("-b 4096 -I 256", 8) else {
        return;
    };
    let fs = image.mount();
    fs.write("/f", b"fixed").unwrap();
    let open_before = OpenOptions::new().write(true).open(&fs, "/f").unwrap();
    let inode = fs.inode("/f").unwrap();
    inode.set_flags(InodeFlags::IMMUTABLE).unwrap();
    assert_eq!(
        OpenOptions::new().write(true).open(&fs, "/f").unwrap_err(),
        Error::NotPermitted
    );
    assert_eq!(
        open_before.write(&b"x"[..]).unwrap_err(),
        Error::NotPermitted
    );
    assert_eq!(open_before.set_len(0).unwrap_err(), Error::NotPermitted);
    assert_eq!(
        open_before.punch_hole(0..5).unwrap_err(),
        Error::NotPermitted
    );
    assert_eq!(fs.remove_file("/f").unwrap_err(), Error::NotPermitted);
    assert_eq!(fs.rename("/f", "/g").unwrap_err(), Error::NotPermitted);
    assert_eq!(fs.hard_link("/f", "/g").unwrap_err(), Error::NotPermitted);
    assert_eq!(
        fs.set_owner("/f", Some(1), None).unwrap_err(),
        Error::NotPermitted
    );
    assert_eq!(fs.read("/f").unwrap(), b"fixed");
    inode.set_flags(InodeFlags::APPEND).unwrap();
    assert_eq!(
        open_before.write_at(&b"x"[..], 0).unwrap_err(),
        Error::NotPermitted
    );
    assert_eq!(open_before.set_len(100).unwrap_err(), Error::NotPermitted);
    let append = OpenOptions::new().append(true).open(&fs, "/f").unwrap();
    append.write(&b"!"[..]).unwrap();
    assert_eq!(fs.read("/f").unwrap(), b"fixed!");
    assert_eq!(
        inode.set_flags(InodeFlags::EXTENTS).unwrap_err(),
        Error::NotSupported
    );
    inode.set_flags(InodeFlags::empty()).unwrap();
    fs.remove_file("/f").unwrap();
    drop((open_before, append, inode));
    done(&image, fs);
}

#[test]
fn contents_under_a_foreign_flag_are_refused_and_the_rest_goes_on() {
    let Some(image) = Image::new("-b 4096 -I 256", 8) else {
        return;
    };
    let fs = image.mount();
    fs.create_dir("/d").unwrap();
    fs.write("/d/foreign", b"extents, it says").unwrap();
    fs.write("/d/ours", b"ours").unwrap();
    fs.unmount().expect("nothing is open");
    let path = image.path.to_str().unwrap();
    if run(
        "debugfs",
        &["-w", "-R", "set_inode_field /d/foreign flags 0x80000", path],
    )
    .is_none()
    {
        return;
    }
    let fs = image.mount();
    assert!(matches!(
        fs.read("/d/foreign").unwrap_err(),
        Error::ForeignContents { flags: 0x80000, .. }
    ));
    assert!(matches!(
        fs.write("/d/foreign", b"x").unwrap_err(),
        Error::ForeignContents { flags: 0x80000, .. }
    ));
    assert!(matches!(
        fs.remove_file("/d/foreign").unwrap_err(),
        Error::ForeignContents { flags: 0x80000, .. }
    ));
    assert_eq!(Error::ForeignContents { inode: 1, flags: 1 }.errno(), 95);
    assert_eq!(fs.metadata("/d/foreign").unwrap().len(), 16);
    assert!(!fs.is_read_only(), "nothing is damaged");
    fs.rename("/d/foreign", "/d/moved").unwrap();
    assert_eq!(fs.read("/d/ours").unwrap(), b"ours");
    fs.remove_file("/d/ours").unwrap();
    fs.unmount().expect("nothing is open");
}

/// A clock that a test winds.
#[derive(Debug, Default)]
struct Wound(std::sync::atomic::AtomicI64);

impl Clock for Wound {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}

#[test]
fn access_times_move_as_relatime_says() {
    let Some(image) = Image::new("-b 1024 -I 256", 8) else {
        return;
    };
    let clock = Arc::new(Wound::default());
    let wind = |secs: i64| clock.0.store(secs, std::sync::atomic::Ordering::Relaxed);
    wind(1_000_000_000);
    let mount = |options: MountOptions| {
        let region = image.region();
        FileSystem::mount(region, &options.clock(clock.clone())).unwrap()
    };
    let fs = mount(MountOptions::new());
    fs.write("/f", b"x").unwrap();
    let accessed = |fs: &FileSystem| fs.metadata("/f").unwrap().accessed().secs - 1_000_000_000;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fs, "/f")
        .unwrap();
    let read = || file.read_at(&mut [0][..], 0).unwrap();
    wind(1_000_000_010);
    read();
    assert_eq!(accessed(&fs), 10, "the first read after a change");
    wind(1_000_000_020);
    read();
    assert_eq!(accessed(&fs), 10, "nothing changed since");
    file.write_all_at(b"y", 0).unwrap();
    wind(1_000_000_030);
    read();
    assert_eq!(accessed(&fs), 30, "a write came between");
    wind(1_000_000_030 + 86_400);
    fs.read("/f").unwrap();
    assert_eq!(accessed(&fs), 30 + 86_400, "a day old");
    drop(file);
    fs.unmount().expect("nothing is open");
    let fs = mount(MountOptions::new().atime(Atime::Never));
    wind(1_100_000_000);
    fs.read("/f").unwrap();
    assert_eq!(accessed(&fs), 30 + 86_400, "never");
    done(&image, fs);
}

/// Writes 64 KiB at a time until there is no space; answers how many blocks are left then.
fn fill(fs: &FileSystem, path: &str) -> u64 {
    let file = fs.create(path).expect("there is an inode");
    let mut end = 0;
    loop {
        match file.write_at(&[1; 65_536][..], end) {
            Ok(done) => end += done as u64,
            Err(error) => {
                assert_eq!(error, Error::NoSpace);
                return fs.statfs().blocks_free;
            }
        }
    }
}

/// The reserve is there so that root can still work on a full disk; nobody else may eat it up.
#[test]
fn the_reserve_is_for_root_and_for_whom_it_is_kept() {
    let Some(image) = Image::new(SHAPES[0], 16) else {
        return;
    };
    let reserve = u64::from(superblock(&image).s_r_blocks_count.get());
    assert!(reserve > 100, "nothing is reserved, so nothing is tested");

    let user = MountOptions::new().owner(1000, 1000);
    let fs = image.mount_with(&user);
    let left = fill(&fs, "/user");
    assert!(
        (reserve..reserve + 64).contains(&left),
        "{left} blocks left of a reserve of {reserve}"
    );
    assert_eq!(fs.create_dir("/d"), Err(Error::NoSpace));
    done(&image, fs);

    let group = MountOptions::new()
        .owner(1000, 50)
        .reserved_for(None, Some(50));
    let fs = image.mount_with(&group);
    assert!(fill(&fs, "/group") < 64);
    fs.remove_file("/group").unwrap();
    done(&image, fs);

    let fs = image.mount();
    assert!(fill(&fs, "/root") < 64);
    done(&image, fs);
}
