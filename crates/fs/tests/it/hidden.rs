//! Images whose boot block is in use: the records of a mount lie in a hidden file.

use std::os::unix::fs::FileExt;

use ext2dax::{Error, MountOptions};
use ext2dax_format::slot::HIDDEN_INO;

use crate::image::{Image, run};
use crate::state::{NEW, debugfs, mount, names};

/// Puts something into the boot block.
fn boot_loader(image: &Image) {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&image.path)
        .expect("the image");
    file.write_all_at(&[0xeb; 1024], 0).expect("a boot loader");
}

fn boot_block(image: &Image) -> Vec<u8> {
    std::fs::read(&image.path).expect("the image")[..1024].to_vec()
}

/// What debugfs shows of the inode; empty without debugfs.
fn shown(image: &Image) -> String {
    let request = format!("stat <{HIDDEN_INO}>");
    run("debugfs", &["-R", &request, image.name()]).map_or_else(String::new, |output| {
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
}

fn free_blocks(image: &Image) -> u64 {
    let fs = image.mount_with(&MountOptions::new().read_only(true));
    fs.statfs().blocks_free
}

#[test]
fn an_image_with_a_boot_loader_is_recovered_from_a_hidden_file() {
    for shape in [
        "-b 1024",
        "-b 4096 -I 256",
        "-b 2048 -r 0 -I 128",
        "-b 65536",
    ] {
        let Some(image) = Image::new(shape, 64) else {
            return;
        };
        boot_loader(&image);
        let free = free_blocks(&image);
        image.mount().unmount().expect("nothing is open");
        image.assert_clean("with a hidden file");
        assert_eq!(free_blocks(&image), free - 1, "{shape}: one block for it");
        let made = shown(&image);
        assert!(made.is_empty() || made.contains("Type: regular"), "{made}");
        for name in [b"a", b"b"] {
            let fs = image.mount();
            let root = fs.root().expect("the root");
            root.create(name, &NEW).expect("create");
            drop(root);
            fs.abandon();
        }
        let fs = image.mount();
        assert_eq!(names(&fs).len(), 5, "{shape}: two files were made");
        assert_eq!(fs.inode_by_number(HIDDEN_INO).map(drop), Err(Error::Stale));
        fs.unmount().expect("nothing is open");
        assert!(image.preen() <= 1, "e2fsck -p");
        image.assert_clean("after e2fsck -p");
        image.mount().unmount().expect("nothing is open");
        image.assert_clean("after another mount");
        assert_eq!(
            free_blocks(&image),
            free - 1,
            "{shape}: and no more than one"
        );
        assert_eq!(shown(&image), made, "{shape}: it has stayed");
        assert!(boot_block(&image).iter().all(|&byte| byte == 0xeb));
    }
}

#[test]
fn only_a_mount_for_writing_that_needs_it_makes_the_hidden_file() {
    let Some(image) = Image::new("-b 4096", 16) else {
        return;
    };
    image.mount().unmount().expect("nothing is open");
    let shown_unused = shown(&image);
    assert!(!shown_unused.contains("Type: regular"), "{shown_unused}");
    boot_loader(&image);
    let before = std::fs::read(&image.path).expect("the image");
    drop(image.mount_with(&MountOptions::new().read_only(true)));
    assert!(before == std::fs::read(&image.path).expect("the image"));
    // What somebody else left in use is checked first, and not changed for records.
    if !debugfs(&image, &["ssv state 0".into()]) {
        return;
    }
    image
        .mount_with(&MountOptions::new().accept_unclean(true))
        .abandon();
    assert_eq!(shown(&image), shown_unused);
    assert_eq!(
        mount(&image, &MountOptions::new()).map(drop),
        Err(Error::NeedsFsck)
    );
}

#[test]
fn the_inode_of_a_boot_loader_stays_what_it_is() {
    let Some(image) = Image::new("-b 1024", 16) else {
        return;
    };
    boot_loader(&image);
    // The very shape of ours, but it holds something else.
    let requests = [
        "sif <5> mode 0100600",
        "sif <5> links_count 1",
        "sif <5> size 1024",
        "sif <5> blocks 2",
        "sif <5> block[0] 9000",
        "setb 9000",
        "ssv free_blocks_count 1",
    ];
    if !debugfs(&image, &requests.map(String::from)) {
        return;
    }
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&image.path)
        .expect("the image");
    file.write_all_at(&[0xb0; 1024], 9000 * 1024)
        .expect("a second stage");
    drop(file);
    assert!(image.preen() <= 1, "e2fsck -p");
    let before = shown(&image);
    image.mount().abandon();
    assert_eq!(shown(&image), before);
    let bytes = std::fs::read(&image.path).expect("the image");
    assert!(
        bytes[9000 * 1024..9001 * 1024]
            .iter()
            .all(|&byte| byte == 0xb0)
    );
    assert_eq!(
        mount(&image, &MountOptions::new()).map(drop),
        Err(Error::NeedsFsck)
    );
    assert!(image.preen() <= 1, "e2fsck -p");
    image.mount().unmount().expect("nothing is open");
    image.assert_clean("without a place for records");
}

#[test]
fn a_full_image_has_no_place_for_records() {
    let Some(image) = Image::new("-b 1024 -N 64", 2) else {
        return;
    };
    let fs = image.mount();
    let root = fs.root().expect("the root");
    let file = root.create(b"all", &NEW).expect("create");
    let bytes = vec![7; 65_536];
    let mut size = 0;
    while let Ok(more @ 1..) = file.write_at(size, bytes.as_slice()) {
        size += more as u64;
    }
    assert_eq!(fs.statfs().blocks_free, 0);
    drop((root, file));
    fs.unmount().expect("nothing is open");
    boot_loader(&image);
    let fs = image.mount();
    let root = fs.root().expect("the root");
    root.rename(b"all", &root, b"every").expect("rename");
    drop(root);
    fs.abandon();
    assert_eq!(
        mount(&image, &MountOptions::new()).map(drop),
        Err(Error::NeedsFsck)
    );
    assert!(image.preen() <= 1, "e2fsck -p");
    image.assert_clean("after e2fsck -p");
}

/// The boot loader went while the image was in use, and the records did not.
#[test]
fn records_are_found_where_the_last_mount_put_them() {
    let Some(image) = Image::new("-b 4096", 16) else {
        return;
    };
    boot_loader(&image);
    image.mount().abandon();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&image.path)
        .expect("the image");
    file.write_all_at(&[0; 1024], 0).expect("no boot loader");
    drop(file);
    image.mount().unmount().expect("nothing is open");
    assert!(boot_block(&image).iter().all(|&byte| byte == 0));
    assert!(image.preen() <= 1, "e2fsck -p");
    image.assert_clean("after e2fsck -p");
}
