//! Names through the mount.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};

use super::Mount;

#[test]
fn files_directories_and_links_come_and_go() {
    let Some(mount) = Mount::new("") else { return };
    fs::create_dir(mount.path("dir")).expect("made");
    fs::write(mount.path("dir/file"), "contents").expect("written");
    symlink("dir/file", mount.path("link")).expect("made");
    fs::hard_link(mount.path("dir/file"), mount.path("other")).expect("linked");
    assert_eq!(fs::read(mount.path("link")).expect("read"), b"contents");
    let stat = fs::metadata(mount.path("other")).expect("there");
    assert_eq!((stat.nlink(), stat.len()), (2, 8));
    fs::rename(mount.path("other"), mount.path("dir/moved")).expect("moved");
    fs::remove_file(mount.path("dir/file")).expect("removed");
    assert!(fs::metadata(mount.path("link")).is_err());
    assert_eq!(
        fs::metadata(mount.path("dir/moved"))
            .expect("there")
            .nlink(),
        1
    );
    let error = fs::remove_dir(mount.path("dir")).expect_err("not empty");
    assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty);
    let mut names: Vec<_> = fs::read_dir(mount.root())
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["dir", "link", "lost+found"]);
    let again = Mount::again(mount.end(), "ro");
    assert_eq!(
        fs::read(again.path("dir/moved")).expect("read"),
        b"contents"
    );
    assert_eq!(
        fs::read_link(again.path("link")).expect("a link"),
        std::path::Path::new("dir/file")
    );
    again.end();
}

#[test]
fn every_type_of_node_can_be_made() {
    let Some(mount) = Mount::new("dev") else {
        return;
    };
    let make = |name: &str, kind, mode: u32, device| {
        let at = fs::File::open(mount.root()).expect("opened");
        rustix::fs::mknodat(
            &at,
            name,
            kind,
            rustix::fs::Mode::from_raw_mode(mode),
            device,
        )
        .expect("made");
        fs::symlink_metadata(mount.path(name)).expect("there")
    };
    let device = rustix::fs::makedev(300, 0x1_2345);
    let character = make("char", rustix::fs::FileType::CharacterDevice, 0o620, device);
    assert!(character.file_type().is_char_device());
    assert_eq!(character.rdev(), device);
    let old = rustix::fs::makedev(8, 1);
    let block = make("block", rustix::fs::FileType::BlockDevice, 0o660, old);
    assert!(block.file_type().is_block_device() && block.rdev() == old);
    assert!(
        make("fifo", rustix::fs::FileType::Fifo, 0o600, 0)
            .file_type()
            .is_fifo()
    );
    assert!(
        make("socket", rustix::fs::FileType::Socket, 0o600, 0)
            .file_type()
            .is_socket()
    );
    let regular = make("regular", rustix::fs::FileType::RegularFile, 0o640, 0);
    assert!(regular.is_file() && regular.permissions().mode() & 0o7777 == 0o640);
    mount.end();
}

#[test]
fn a_file_without_a_name_lives_while_it_is_open() {
    let Some(mount) = Mount::new("") else { return };
    let path = mount.path("file");
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .expect("made");
    file.write_all(b"before").expect("written");
    fs::remove_file(&path).expect("removed");
    file.write_all(b", after").expect("written");
    let mut text = String::new();
    std::io::Seek::rewind(&mut file).expect("at the start");
    file.read_to_string(&mut text).expect("read");
    assert_eq!(text, "before, after");
    assert_eq!(file.metadata().expect("there").nlink(), 0);
    drop(file);
    mount.end();
}

/// The number of a removed directory that was still open went to the next file, and the kernel took one for the other.
#[test]
fn a_directory_without_a_name_is_empty_and_keeps_its_number_while_it_is_open() {
    let Some(mount) = Mount::new("") else { return };
    let old = mount.path("old");
    let over = mount.path("over");
    fs::create_dir(&old).expect("made");
    fs::create_dir(&over).expect("made");
    let handles = [&old, &over].map(|path| fs::File::open(path).expect("opened"));
    let numbers = handles
        .each_ref()
        .map(|handle| handle.metadata().expect("there").ino());
    fs::remove_dir(&old).expect("removed");
    fs::create_dir(mount.path("new")).expect("made");
    fs::rename(mount.path("new"), &over).expect("moved over the other");
    for name in ["a", "b", "c"] {
        fs::create_dir(mount.path(name)).expect("made");
        let stat = fs::metadata(mount.path(name)).expect("there");
        assert!(
            !numbers.contains(&stat.ino()),
            "{name} has the number of one that is open"
        );
        fs::set_permissions(mount.path(name), fs::Permissions::from_mode(0o700)).expect("set");
    }
    for handle in &handles {
        assert_eq!(handle.metadata().expect("still there").nlink(), 0);
        let made = rustix::fs::mkdirat(handle, "x", rustix::fs::Mode::RWXU);
        assert_eq!(made, Err(rustix::io::Errno::NOENT));
    }
    drop(handles);
    mount.end();
}

/// fuser 0.18 does not know the request; the kernel then says what programs expect, and they make a name and remove it.
#[test]
fn files_without_a_name_from_the_beginning_are_refused() {
    let Some(mount) = Mount::new("") else { return };
    let at = fs::File::open(mount.root()).expect("opened");
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
    let made = rustix::fs::openat(&at, ".", flags, rustix::fs::Mode::RWXU);
    assert_eq!(made.err(), Some(rustix::io::Errno::OPNOTSUPP));
    drop(at);
    mount.end();
}
