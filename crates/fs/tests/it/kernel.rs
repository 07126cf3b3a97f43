//! Images that the kernel's drivers made, and images that they read afterwards.

use std::collections::BTreeSet;
use std::path::Path;

use ext2dax::{Error, Inode, New};
use ext2dax_format::InodeFlags;
use tempfile::TempDir;

use crate::image::{Image, run};

/// An image mounted by the kernel through a loop device; unmounted when dropped.
struct Mounted(TempDir);

impl Mounted {
    /// `None`, and said so, where this process may not mount or the kernel does not know the driver or the block size.
    fn new(image: &Image, driver: &str) -> Option<Self> {
        let dir = TempDir::new().expect("a place to mount");
        let at = dir.path().to_str().expect("an ASCII path");
        let output = run(
            "mount",
            &["-t", driver, "-o", "loop,noatime", image.name(), at],
        )?;
        if output.status.success() {
            return Some(Self(dir));
        }
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "no kernel mount"
        );
        eprintln!(
            "skipped: kernel mount: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let at = self.0.path().to_str().expect("an ASCII path");
        // A program that another test has just forked holds our files until its exec: then again.
        for _ in 0..500 {
            let output = run("umount", &[at]).expect("umount is where mount is");
            if output.status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{at} stays in use");
    }
}

fn file_name(number: usize) -> String {
    format!("{number:06}-{}", "x".repeat(number % 40))
}

fn names_of(dir: &Inode) -> BTreeSet<Vec<u8>> {
    let mut names = BTreeSet::new();
    let mut cookie = 0;
    loop {
        // In small pieces, so that cookies are used.
        let batch = dir.read_dir(cookie, 100).expect("a listing");
        let Some(last) = batch.last() else {
            return names;
        };
        cookie = last.next;
        for entry in batch {
            assert!(names.insert(entry.name.to_vec()), "a name twice");
        }
    }
}

fn kernel_names(dir: &Path) -> BTreeSet<Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").file_name().into_encoded_bytes())
        .collect()
}

/// A large directory with a hash tree, made by the ext4 driver: read whole, then changed, whereupon the tree is given up
/// and e2fsck and the kernel still find every name.
fn large_indexed_directory(shape: &str) {
    const COUNT: usize = 20_000;
    let Some(image) = Image::new(shape, 128) else {
        return;
    };
    let Some(mounted) = Mounted::new(&image, "ext4") else {
        return;
    };
    let large = mounted.path().join("large");
    std::fs::create_dir(&large).expect("mkdir");
    std::fs::write(large.join(file_name(0)), b"").expect("a file");
    for number in 1..COUNT {
        // Half of the names are links to one file.
        if number % 2 == 0 {
            std::fs::hard_link(large.join(file_name(0)), large.join(file_name(number)))
                .expect("a link");
        } else {
            std::fs::write(large.join(file_name(number)), b"").expect("a file");
        }
    }
    drop(mounted);

    let fs = image.mount();
    let dir = fs
        .root()
        .expect("the root")
        .lookup(b"large")
        .expect("large");
    assert!(
        dir.attributes()
            .expect("attributes")
            .flags
            .contains(InodeFlags::INDEX),
        "{shape}: no hash tree"
    );
    let mut wanted: BTreeSet<Vec<u8>> = (0..COUNT)
        .map(|number| file_name(number).into_bytes())
        .collect();
    wanted.extend([b".".to_vec(), b"..".to_vec()]);
    assert_eq!(names_of(&dir), wanted);
    for number in (0..COUNT).step_by(7) {
        dir.lookup(file_name(number).as_bytes())
            .expect("a name of the kernel's");
    }
    assert_eq!(dir.lookup(b"no such name").map(drop), Err(Error::NotFound));
    for number in (0..COUNT).step_by(3) {
        dir.unlink(file_name(number).as_bytes()).expect("unlink");
        wanted.remove(file_name(number).as_bytes());
    }
    for number in 0..3000 {
        let name = format!("ours-{number}").into_bytes();
        dir.create(
            &name,
            &New {
                mode: 0o644,
                ..New::default()
            },
        )
        .expect("create");
        wanted.insert(name);
    }
    assert!(
        !dir.attributes()
            .expect("attributes")
            .flags
            .contains(InodeFlags::INDEX)
    );
    drop(dir);
    fs.unmount().expect("nothing is open");
    image.assert_clean(shape);

    for driver in ["ext2", "ext4"] {
        let Some(mounted) = Mounted::new(&image, driver) else {
            return;
        };
        let large = mounted.path().join("large");
        let mut seen = kernel_names(&large);
        seen.extend([b".".to_vec(), b"..".to_vec()]);
        assert_eq!(seen, wanted, "{shape}, {driver}");
        std::fs::write(large.join(format!("kernel-{driver}")), b"")
            .expect("the kernel adds a name");
        wanted.insert(format!("kernel-{driver}").into_bytes());
    }
    image.assert_clean(shape);
    let fs = image.mount();
    let dir = fs
        .root()
        .expect("the root")
        .lookup(b"large")
        .expect("large");
    assert_eq!(names_of(&dir), wanted);
}

#[test]
fn a_large_directory_with_a_hash_tree_is_read_whole_and_changed() {
    for shape in [
        "-b 4096 -O dir_index -N 40000",
        "-b 1024 -O dir_index -I 128 -N 40000",
    ] {
        large_indexed_directory(shape);
    }
}
