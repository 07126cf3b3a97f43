//! Paths: resolution, opening, and the calls that take one.

use std::io::{Read, Write};

use ext2dax::{
    DirBuilder, Error, File, FileSystem, FileTimes, OpenOptions, Permissions, SeekFrom, Timestamp,
};

use crate::image::Image;

/// A fresh file system on 1 KiB blocks, and its image, which must outlive it.
fn fresh() -> Option<(Image, FileSystem)> {
    let image = Image::new("-b 1024 -I 256", 8)?;
    let fs = image.mount();
    Some((image, fs))
}

fn done(image: &Image, fs: FileSystem) {
    fs.unmount().expect("nothing is open");
    image.assert_clean("at the end");
}

#[test]
fn slashes_dots_and_the_parent_of_the_root_resolve_as_posix_says() {
    let Some((image, fs)) = fresh() else { return };
    fs.create_dir_all("/a/b").unwrap();
    fs.write("/a/b/file", b"here").unwrap();
    for path in [
        "a/b/file",
        "//a///b//file",
        "/../../a/b/file",
        "/a/./b/../b/file",
        "/a/b/../../a/b/file",
    ] {
        assert_eq!(fs.read(path).unwrap(), b"here", "{path}");
    }
    assert_eq!(fs.metadata("/a/b/file/").unwrap_err(), Error::NotADirectory);
    assert_eq!(
        fs.metadata("/a/b/file/.").unwrap_err(),
        Error::NotADirectory
    );
    assert_eq!(
        fs.metadata("/a/b/file/..").unwrap_err(),
        Error::NotADirectory
    );
    assert_eq!(fs.metadata("").unwrap_err(), Error::NotFound);
    assert_eq!(fs.metadata("/a/none/..").unwrap_err(), Error::NotFound);
    assert_eq!(fs.metadata("/").unwrap().ino(), 2);
    assert_eq!(fs.metadata("/..").unwrap().ino(), 2);
    assert_eq!(fs.metadata([b'n'; 256]).unwrap_err(), Error::NameTooLong);
    assert_eq!(
        fs.metadata([&b"/a/"[..], &[b'n'; 255]].concat())
            .unwrap_err(),
        Error::NotFound
    );
    done(&image, fs);
}

/// The way to a directory is remembered, so every change of a name on it must be noticed: by each call that takes a path.
#[test]
fn a_path_leads_where_its_directories_lie_now() {
    let Some((image, fs)) = fresh() else { return };
    let read = |path: &str| fs.read(path).map_err(|error| (path.to_owned(), error));
    let missing = |path: &str| {
        assert_eq!(fs.metadata(path).unwrap_err(), Error::NotFound, "{path}");
        assert_eq!(fs.open(path).unwrap_err(), Error::NotFound, "{path}");
    };
    fs.create_dir_all("/a/b/c").unwrap();
    fs.write("/a/b/c/file", b"first").unwrap();
    assert_eq!(read("/a/b/c/file").unwrap(), b"first");
    // Moved, with everything below it.
    fs.rename("/a", "/moved").unwrap();
    missing("/a/b/c/file");
    assert_eq!(read("/moved/b/c/file").unwrap(), b"first");
    // Another one of the same name.
    fs.create_dir_all("/a/b/c").unwrap();
    missing("/a/b/c/file");
    fs.write("/a/b/c/file", b"second").unwrap();
    assert_eq!(read("/a/b/c/file").unwrap(), b"second");
    // Exchanged, by their inodes.
    let root = fs.root().unwrap();
    root.rename_with(b"a", &root, b"moved", ext2dax::RenameFlags::Exchange)
        .unwrap();
    drop(root);
    assert_eq!(read("/a/b/c/file").unwrap(), b"first");
    assert_eq!(read("/moved/b/c/file").unwrap(), b"second");
    // Replaced by a rename over it, removed, made again, and hidden behind a symlink.
    fs.create_dir_all("/over/b").unwrap();
    missing("/over/b/file");
    fs.create_dir("/empty").unwrap();
    missing("/empty/file");
    fs.rename("/over", "/empty").unwrap();
    missing("/over/b/file");
    fs.write("/empty/b/file", b"third").unwrap();
    assert_eq!(read("/empty/b/file").unwrap(), b"third");
    fs.remove_dir_all("/empty").unwrap();
    missing("/empty/b/file");
    fs.symlink("moved", "/empty").unwrap();
    missing("/empty/b/file");
    fs.create_dir("/moved/d").unwrap();
    fs.write("/empty/d/file", b"fourth").unwrap();
    assert_eq!(read("/moved/d/file").unwrap(), b"fourth");
    fs.remove_file("/empty").unwrap();
    missing("/empty/d/file");
    done(&image, fs);
}

#[test]
fn symlinks_are_followed_forty_times_and_no_more() {
    let Some((image, fs)) = fresh() else { return };
    fs.write("/l0", b"end").unwrap();
    for number in 1..=41 {
        fs.symlink(format!("l{}", number - 1), format!("/l{number}"))
            .unwrap();
    }
    assert_eq!(fs.read("/l40").unwrap(), b"end");
    assert_eq!(fs.read("/l41").unwrap_err(), Error::TooManySymlinks);
    assert!(fs.symlink_metadata("/l41").unwrap().is_symlink());
    fs.symlink("loop", "/loop").unwrap();
    assert_eq!(fs.metadata("/loop").unwrap_err(), Error::TooManySymlinks);
    assert_eq!(fs.metadata("/loop/x").unwrap_err(), Error::TooManySymlinks);
    done(&image, fs);
}

#[test]
fn a_symlink_leads_from_its_own_directory_or_from_the_root() {
    let Some((image, fs)) = fresh() else { return };
    fs.create_dir_all("/a/b").unwrap();
    fs.write("/a/target", b"near").unwrap();
    fs.write("/target", b"root").unwrap();
    fs.symlink("../target", "/a/b/relative").unwrap();
    fs.symlink("/target", "/a/b/absolute").unwrap();
    fs.symlink("b", "/a/dir").unwrap();
    assert_eq!(fs.read("/a/b/relative").unwrap(), b"near");
    assert_eq!(fs.read("/a/b/absolute").unwrap(), b"root");
    assert_eq!(fs.read("/a/dir/relative").unwrap(), b"near");
    assert_eq!(fs.read_link("/a/dir").unwrap(), b"b");
    // A slash asks for what the symlink leads to.
    assert!(fs.symlink_metadata("/a/dir").unwrap().is_symlink());
    assert!(fs.symlink_metadata("/a/dir/").unwrap().is_dir());
    assert_eq!(fs.read_link("/target").unwrap_err(), Error::InvalidArgument);
    done(&image, fs);
}

#[test]
fn a_file_is_made_where_a_dangling_symlink_leads() {
    let Some((image, fs)) = fresh() else { return };
    fs.create_dir("/d").unwrap();
    fs.symlink("d/new", "/link").unwrap();
    let exclusive = OpenOptions::new().write(true).create_new(true);
    assert_eq!(
        exclusive.open(&fs, "/link").unwrap_err(),
        Error::AlreadyExists
    );
    fs.write("/link", b"through").unwrap();
    assert_eq!(fs.read("/d/new").unwrap(), b"through");
    let nofollow = OpenOptions::new().read(true).nofollow(true);
    assert_eq!(
        nofollow.open(&fs, "/link").unwrap_err(),
        Error::TooManySymlinks
    );
    assert_eq!(fs.create("/d/").unwrap_err(), Error::IsADirectory);
    assert_eq!(fs.create("/none/").unwrap_err(), Error::IsADirectory);
    assert_eq!(fs.create("/d").unwrap_err(), Error::IsADirectory);
    let directory = OpenOptions::new().read(true).directory(true);
    assert_eq!(
        directory.open(&fs, "/d/new").unwrap_err(),
        Error::NotADirectory
    );
    assert_eq!(
        directory
            .open(&fs, "/d")
            .unwrap()
            .read(&mut [0; 4][..])
            .unwrap_err(),
        Error::IsADirectory
    );
    done(&image, fs);
}

#[test]
fn options_that_make_no_sense_together_are_refused_before_anything_happens() {
    let Some((image, fs)) = fresh() else { return };
    fs.write("/f", b"kept").unwrap();
    let new = OpenOptions::new;
    for options in [
        new(),
        new().read(true).truncate(true),
        new().read(true).create(true),
        new().read(true).create_new(true),
        new().append(true).truncate(true),
        new().write(true).create(true).directory(true),
    ] {
        assert_eq!(
            options.open(&fs, "/f").unwrap_err(),
            Error::InvalidArgument,
            "{options:?}"
        );
    }
    assert_eq!(fs.read("/f").unwrap(), b"kept");
    let file = new().append(true).open(&fs, "/f").unwrap();
    assert_eq!(file.read(&mut [0][..]).unwrap_err(), Error::NotOpenForRead);
    assert_eq!(
        fs.open("/f").unwrap().write(&b"x"[..]).unwrap_err(),
        Error::NotOpenForWrite
    );
    drop(file);
    done(&image, fs);
}

#[test]
fn an_open_file_reads_writes_and_seeks_like_the_one_of_std() {
    let Some((image, fs)) = fresh() else { return };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .open(&fs, "/f")
        .unwrap();
    file.write_all(b"hello, world").unwrap();
    assert_eq!(file.seek(std::io::SeekFrom::Start(7)).unwrap(), 7);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "world");
    assert_eq!(File::seek(&file, SeekFrom::End(-5)).unwrap(), 7);
    assert_eq!(
        File::seek(&file, SeekFrom::Current(-8)).unwrap_err(),
        Error::InvalidArgument
    );
    file.write_all_at(b"W", 7).unwrap();
    assert_eq!(File::seek(&file, SeekFrom::Current(0)).unwrap(), 7);
    // Past the end: a hole comes in between.
    File::seek(&file, SeekFrom::Start(5000)).unwrap();
    file.write_all(b"!").unwrap();
    assert_eq!(file.len().unwrap(), 5001);
    let contents = fs.read("/f").unwrap();
    assert_eq!(&contents[..12], b"hello, World");
    assert!(contents[12..5000].iter().all(|&byte| byte == 0));
    let appended = OpenOptions::new().append(true).open(&fs, "/f").unwrap();
    appended.write_at(&b"end"[..], 0).unwrap();
    assert_eq!(&fs.read("/f").unwrap()[5000..], b"!end");
    let other = file.share();
    File::seek(&other, SeekFrom::Start(1)).unwrap();
    assert_eq!(File::seek(&file, SeekFrom::Current(0)).unwrap(), 1);
    drop((file, other, appended));
    done(&image, fs);
}

#[test]
fn trees_are_made_listed_copied_and_removed() {
    let Some((image, fs)) = fresh() else { return };
    fs.create_dir_all("/t/a/b/c").unwrap();
    fs.create_dir_all("/t/a").unwrap();
    assert_eq!(fs.create_dir("/t/a").unwrap_err(), Error::AlreadyExists);
    fs.write("/file", b"x").unwrap();
    assert_eq!(
        fs.create_dir_all("/file/x").unwrap_err(),
        Error::NotADirectory
    );
    assert_eq!(
        fs.create_dir_all("/file").unwrap_err(),
        Error::AlreadyExists
    );
    DirBuilder::new()
        .mode(0o700)
        .create(&fs, "/t/private/")
        .unwrap();
    assert_eq!(fs.metadata("/t/private").unwrap().mode(), 0o040_700);
    for number in 0..300 {
        fs.write(format!("/t/a/b/file {number}"), vec![1; number])
            .unwrap();
    }
    fs.symlink("/file", "/t/a/outside").unwrap();
    let mut names: Vec<_> = fs
        .read_dir("/t/a/b")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_vec())
        .collect();
    assert_eq!(names.len(), 301);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 301);
    let entry = fs
        .read_dir("/t/a/b")
        .unwrap()
        .map(Result::unwrap)
        .find(|entry| entry.file_name() == b"c")
        .unwrap();
    assert_eq!(entry.path(), b"/t/a/b/c");
    assert!(entry.metadata().unwrap().is_dir());
    drop(entry);
    let sparse = fs.create("/sparse").unwrap();
    sparse.write_all_at(b"front", 0).unwrap();
    sparse.write_all_at(b"back", 3 << 20).unwrap();
    drop(sparse);
    assert_eq!(fs.copy("/sparse", "/copy").unwrap(), (3 << 20) + 4);
    assert_eq!(fs.read("/copy").unwrap(), fs.read("/sparse").unwrap());
    assert_eq!(
        fs.metadata("/copy").unwrap().blocks(),
        fs.metadata("/sparse").unwrap().blocks()
    );
    assert_eq!(fs.remove_dir("/t").unwrap_err(), Error::DirectoryNotEmpty);
    assert_eq!(fs.remove_file("/t").unwrap_err(), Error::IsADirectory);
    assert_eq!(fs.remove_file("/file/").unwrap_err(), Error::NotADirectory);
    assert_eq!(fs.remove_dir("/").unwrap_err(), Error::Busy);
    assert_eq!(fs.remove_dir("/t/.").unwrap_err(), Error::InvalidArgument);
    fs.remove_dir_all("/t").unwrap();
    assert!(!fs.exists("/t"));
    assert!(fs.exists("/file"), "a symlink was followed");
    done(&image, fs);
}

#[test]
fn attributes_survive_a_mount_to_the_nanosecond() {
    let Some((image, fs)) = fresh() else { return };
    fs.write("/f", b"x").unwrap();
    let accessed = Timestamp { secs: -5, nanos: 1 };
    let modified = Timestamp {
        secs: 10_000_000_000,
        nanos: 999_999_999,
    };
    fs.set_times(
        "/f",
        FileTimes::new()
            .set_accessed(accessed)
            .set_modified(modified),
    )
    .unwrap();
    fs.set_permissions("/f", Permissions::from_mode(0o6777))
        .unwrap();
    fs.set_owner("/f", Some(70_000), None).unwrap();
    // Whoever gets a file does not get what it may do as somebody else.
    assert_eq!(fs.metadata("/f").unwrap().mode(), 0o100_777);
    fs.set_owner("/f", None, Some(u32::MAX - 1)).unwrap();
    fs.set_permissions("/f", Permissions::from_mode(0o4751))
        .unwrap();
    let before = fs.metadata("/f").unwrap();
    fs.unmount().expect("nothing is open");
    let fs = image.mount();
    let after = fs.metadata("/f").unwrap();
    assert_eq!(before, after);
    assert_eq!((after.accessed(), after.modified()), (accessed, modified));
    assert_eq!(
        (after.mode(), after.uid(), after.gid()),
        (0o104_751, 70_000, u32::MAX - 1)
    );
    assert!(after.created().is_some());
    done(&image, fs);
}

#[test]
fn a_file_without_a_name_lives_until_it_is_closed() {
    let Some((image, fs)) = fresh() else { return };
    let free = fs.statfs();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .open(&fs, "/f")
        .unwrap();
    file.write_all_at(&[7; 300_000], 0).unwrap();
    fs.remove_file("/f").unwrap();
    assert!(!fs.exists("/f"));
    // Cutting it off must not list it a second time.
    file.set_len(100_000).unwrap();
    file.write_all_at(&[8; 50_000], 100_000).unwrap();
    let mut buf = vec![0; 150_000];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert!(
        buf[..100_000].iter().all(|&byte| byte == 7)
            && buf[100_000..].iter().all(|&byte| byte == 8)
    );
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    drop(file);
    let now = fs.statfs();
    assert_eq!(
        (now.blocks_free, now.inodes_free),
        (free.blocks_free, free.inodes_free)
    );
    done(&image, fs);
}
