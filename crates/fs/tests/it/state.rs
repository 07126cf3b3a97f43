//! What mounting and unmounting do to the superblock, and what they do about an image that was not unmounted.

use std::sync::Arc;

use ext2dax::clock::FixedClock;
use ext2dax::{Error, FileSystem, MountOptions, New, Timestamp};
use ext2dax_format::RawSuperblock;
use ext2dax_format::superblock::{STATE_ERROR, STATE_VALID};
use zerocopy::FromBytes;

use crate::image::{Image, run};

pub(crate) const NEW: New = New {
    mode: 0o644,
    umask: 0,
    uid: 0,
    gid: 0,
    device: (0, 0),
};

fn superblock(image: &Image) -> RawSuperblock {
    let bytes = std::fs::read(&image.path).expect("the image");
    RawSuperblock::read_from_bytes(&bytes[1024..2048]).expect("1,024 bytes")
}

pub(crate) fn debugfs(image: &Image, requests: &[String]) -> bool {
    for request in requests {
        let Some(output) = run("debugfs", &["-w", "-R", request, image.name()]) else {
            return false;
        };
        assert!(output.status.success(), "debugfs {request}");
    }
    true
}

pub(crate) fn mount(image: &Image, options: &MountOptions) -> Result<FileSystem, Error> {
    FileSystem::mount(image.region(), options)
}

#[test]
fn a_mount_is_counted_dated_and_visible_until_it_ends() {
    let Some(image) = Image::new("-b 4096", 16) else {
        return;
    };
    let before = superblock(&image);
    let clock = Arc::new(FixedClock(Timestamp::from_secs(1_900_000_000)));
    let fs = image.mount_with(&MountOptions::new().clock(clock));
    let during = superblock(&image);
    assert_eq!(during.s_state.get() & STATE_VALID, 0);
    assert_eq!(during.s_mnt_count.get(), before.s_mnt_count.get() + 1);
    assert_eq!(during.s_mtime.get(), 1_900_000_000);
    assert_eq!(during.s_wtime.get(), 1_900_000_000);
    fs.unmount().expect("nothing is open");
    let after = superblock(&image);
    assert_eq!(after.s_state.get() & STATE_VALID, STATE_VALID);
    assert_eq!(after.s_last_mounted, before.s_last_mounted);
    image.assert_clean("mounted and unmounted");
}

#[test]
fn a_file_system_that_is_only_dropped_ends_clean() {
    let Some(image) = Image::new("-b 1024", 16) else {
        return;
    };
    let fs = image.mount();
    let file = fs
        .root()
        .expect("the root")
        .create(b"f", &NEW)
        .expect("create");
    drop(fs);
    assert_eq!(
        superblock(&image).s_state.get() & STATE_VALID,
        0,
        "a file is open"
    );
    drop(file);
    assert_eq!(superblock(&image).s_state.get() & STATE_VALID, STATE_VALID);
    image.assert_clean("dropped");
}

#[test]
fn unmounting_is_refused_while_a_file_is_open() {
    let Some(image) = Image::new("-b 1024", 16) else {
        return;
    };
    let fs = image.mount();
    let root = fs.root().expect("the root");
    assert_eq!(fs.clone().unmount(), Err(Error::Busy));
    drop(root);
    assert_eq!(
        fs.clone().unmount(),
        Err(Error::Busy),
        "another handle to the mount"
    );
    assert_eq!(fs.unmount(), Ok(()));
}

#[test]
fn a_read_only_mount_changes_no_byte() {
    let Some(image) = Image::new("-b 2048", 16) else {
        return;
    };
    let fs = image.mount();
    fs.root()
        .expect("the root")
        .mkdir(b"d", &NEW)
        .expect("mkdir");
    fs.unmount().expect("nothing is open");
    let before = std::fs::read(&image.path).expect("the image");
    let fs = image.mount_with(&MountOptions::new().read_only(true));
    let root = fs.root().expect("the root");
    let dir = root.lookup(b"d").expect("d");
    assert_eq!(dir.read_dir(0, 10).expect("a listing").len(), 2);
    assert_eq!(root.create(b"x", &NEW).map(drop), Err(Error::ReadOnlyFs));
    assert_eq!(root.rmdir(b"d"), Err(Error::ReadOnlyFs));
    assert_eq!(root.rename(b"d", &root, b"e"), Err(Error::ReadOnlyFs));
    drop((root, dir));
    fs.unmount().expect("nothing is open");
    assert!(
        before == std::fs::read(&image.path).expect("the image"),
        "a byte changed"
    );
}

#[test]
fn an_image_that_we_left_in_use_is_recovered_by_the_next_mount() {
    for shape in ["-b 1024", "-b 4096", "-b 2048 -r 0 -I 128"] {
        let Some(image) = Image::new(shape, 16) else {
            return;
        };
        for name in [b"a", b"b", b"c"] {
            let fs = image.mount();
            fs.root()
                .expect("the root")
                .create(name, &NEW)
                .expect("create");
            fs.abandon();
            let fs = image.mount_with(&MountOptions::new().read_only(true));
            let root = fs.root().expect("the root");
            root.lookup(name).expect("reading works");
            drop((root, fs));
        }
        let fs = image.mount();
        assert_eq!(names(&fs).len(), 6, "{shape}: three files were made");
        fs.unmount().expect("nothing is open");
        assert_eq!(
            superblock(&image).s_state.get() & STATE_VALID,
            0,
            "a checker must still look"
        );
        let fs = image.mount();
        fs.root().expect("the root").unlink(b"a").expect("unlink");
        fs.unmount().expect("nothing is open");
        assert!(image.preen() <= 1, "e2fsck -p");
        image.assert_clean("after e2fsck -p");
        image.mount().unmount().expect("nothing is open");
        let bytes = std::fs::read(&image.path).expect("the image");
        assert!(
            bytes[..1024].iter().all(|&byte| byte == 0),
            "a clean image has its boot block back as it was"
        );
    }
}

pub(crate) fn names(fs: &FileSystem) -> Vec<Vec<u8>> {
    let root = fs.root().expect("the root");
    let entries = root.read_dir(0, 100).expect("a listing");
    entries.into_iter().map(|e| e.name.into_vec()).collect()
}

/// Whoever else has written last, nobody knows what it left.
#[test]
fn an_image_left_in_use_by_somebody_else_is_written_only_after_a_check_or_when_asked_for() {
    let Some(image) = Image::new("-b 4096", 16) else {
        return;
    };
    let fields = [
        ("mtime", 44),
        ("wtime", 48),
        ("mnt_count", 52),
        ("lastcheck", 64),
    ];
    for (field, offset) in fields {
        image
            .mount_with(&MountOptions::new().accept_unclean(true))
            .abandon();
        let mut bytes = std::fs::read(&image.path).expect("the image");
        bytes[1024 + offset] ^= 0x10;
        std::fs::write(&image.path, bytes).expect("the image");
        assert_eq!(
            mount(&image, &MountOptions::new()).map(drop),
            Err(Error::NeedsFsck),
            "{field}"
        );
        drop(image.mount_with(&MountOptions::new().read_only(true)));
    }
    let fs = image.mount_with(&MountOptions::new().accept_unclean(true));
    fs.root()
        .expect("the root")
        .create(b"g", &NEW)
        .expect("create");
    fs.unmount().expect("nothing is open");
    assert!(image.preen() <= 1, "e2fsck -p");
    image.assert_clean("after e2fsck -p");
    image.mount().unmount().expect("nothing is open");
}

#[test]
fn an_image_marked_as_damaged_is_not_written() {
    let Some(image) = Image::new("-b 4096", 16) else {
        return;
    };
    if !debugfs(
        &image,
        &[format!("ssv state {}", STATE_VALID | STATE_ERROR)],
    ) {
        return;
    }
    assert_eq!(
        mount(&image, &MountOptions::new()).map(drop),
        Err(Error::NeedsFsck)
    );
    drop(image.mount_with(&MountOptions::new().read_only(true)));
}

/// A file is unlinked while open, and the machine stops: the file is on the orphan list, e2fsck frees it, and so does the
/// next mount. Several of them, closed out of order before that, leave the list right.
#[test]
fn files_that_were_open_when_their_last_name_went_are_freed_after_a_crash() {
    for shape in ["-b 1024", "-b 4096 -r 0", "-b 65536"] {
        let Some(image) = Image::new(shape, 32) else {
            return;
        };
        let fs = image.mount();
        let root = fs.root().expect("the root");
        let free = fs.statfs();
        let mut open = Vec::new();
        for number in 0..6_u8 {
            let name = [b'a' + number];
            let file = root.create(&name, &NEW).expect("create");
            file.write_at(0, vec![number; 100_000].as_slice())
                .expect("write");
            root.unlink(&name).expect("unlink");
            open.push(Some(file));
        }
        for closed in [1, 3, 5] {
            open[closed] = None;
        }
        let copy = image.copy();
        assert!(copy.preen() <= 1, "{shape}: e2fsck -p");
        copy.assert_clean(shape);

        let crashed = image.copy();
        drop(open);
        drop(root);
        assert_eq!(
            fs.statfs(),
            free,
            "{shape}: the last closes gave everything back"
        );
        fs.unmount().expect("nothing is open");
        image.assert_clean(shape);

        let fs = crashed.mount_with(&MountOptions::new().accept_unclean(true));
        assert_eq!(fs.statfs(), free, "{shape}: the mount gave everything back");
        fs.unmount().expect("nothing is open");
        crashed.assert_clean(shape);
    }
}

/// An orphan list as ext4 leaves it: one file to be freed, one to be cut to its size. The image is marked clean, so the
/// list is completed by an ordinary mount.
#[test]
fn an_orphan_list_of_another_driver_is_completed_by_the_mount() {
    let Some(image) = Image::new("-b 1024", 16) else {
        return;
    };
    let fs = image.mount();
    let root = fs.root().expect("the root");
    let mut numbers = Vec::new();
    for name in [b"gone".as_slice(), b"cut"] {
        let file = root.create(name, &NEW).expect("create");
        file.write_at(0, [7; 50_000].as_slice()).expect("write");
        numbers.push(file.number());
    }
    drop(root);
    fs.unmount().expect("nothing is open");
    let (gone, cut) = (numbers[0], numbers[1]);
    let requests = [
        "unlink gone".to_owned(),
        format!("sif <{gone}> links_count 0"),
        format!("sif <{gone}> dtime 0"),
        format!("sif <{cut}> size 5000"),
        format!("sif <{cut}> dtime {gone}"),
        format!("ssv last_orphan {cut}"),
    ];
    if !debugfs(&image, &requests) {
        return;
    }
    let fs = image.mount();
    let root = fs.root().expect("the root");
    let file = root.lookup(b"cut").expect("cut");
    assert_eq!(file.attributes().expect("attributes").size, 5000);
    assert_eq!(file.attributes().expect("attributes").sectors, 2 * 5);
    assert_eq!(root.lookup(b"gone").map(drop), Err(Error::NotFound));
    drop((root, file));
    fs.unmount().expect("nothing is open");
    assert_eq!(superblock(&image).s_last_orphan.get(), 0);
    image.assert_clean("the list is completed");
}

#[test]
fn an_orphan_list_that_loops_is_refused() {
    let Some(image) = Image::new("-b 1024", 16) else {
        return;
    };
    let fs = image.mount();
    let number = fs
        .root()
        .expect("the root")
        .create(b"f", &NEW)
        .expect("create")
        .number();
    fs.unmount().expect("nothing is open");
    let requests = [
        format!("sif <{number}> dtime {number}"),
        format!("ssv last_orphan {number}"),
    ];
    if !debugfs(&image, &requests) {
        return;
    }
    let refused = mount(&image, &MountOptions::new()).map(drop);
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    assert_eq!(
        superblock(&image).s_state.get() & STATE_VALID,
        STATE_VALID,
        "nothing has changed"
    );
}
