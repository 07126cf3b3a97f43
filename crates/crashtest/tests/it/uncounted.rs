//! Directories with more subdirectories than link counts reach: the ext4 driver stops counting (`dir_nlink`).

use std::os::unix::fs::MetadataExt;

use ext2dax::Error;
use ext2dax_crashtest::judge::soak;

use crate::scratch;
use crate::turns::{clean, kernel, made, ours};

/// More than are counted: 65,000 less the name and `.`, and some.
const MANY: u32 = 65_020;

/// The kernel makes a directory whose count is 1; we change it, keep the count as long as nobody else could tell it, and
/// give it its count again when it can be told; the kernel goes on from there.
#[test]
fn a_directory_that_is_not_counted_is_counted_again_when_it_can_be() {
    let mut shapes = vec![("1024", "128", 90)];
    if soak() {
        shapes.extend([("2048", "128", 160), ("4096", "256", 320)]);
    }
    for (block_size, inode_size, mebibytes) in shapes {
        let dir = scratch::dir().unwrap();
        let path = dir.path().join("image");
        let options = [
            "-t",
            "ext2",
            "-O",
            "dir_nlink,dir_index",
            "-N",
            "66000",
            "-m",
            "0",
            "-b",
            block_size,
            "-I",
            inode_size,
        ];
        if !made(&path, &options, mebibytes << 20) {
            return;
        }
        let there = kernel(&path, "ext4", |root| {
            let many = root.join("many");
            std::fs::create_dir(&many).unwrap();
            for i in 0..MANY {
                std::fs::create_dir(many.join(i.to_string())).unwrap();
            }
            assert_eq!(std::fs::metadata(&many).unwrap().nlink(), 1, "not counted");
        });
        if !there {
            return;
        }
        clean(&path, "the kernel's");
        we_change_it(&path);
        let counted = std::cell::Cell::new(0);
        kernel(&path, "ext4", |root| {
            let many = root.join("many");
            counted.set(std::fs::metadata(&many).unwrap().nlink());
            std::fs::create_dir(many.join("theirs")).unwrap();
            std::fs::remove_dir(many.join("100")).unwrap();
            std::fs::remove_dir(many.join("101")).unwrap();
        });
        assert_eq!(counted.get(), 64_999, "as we left it");
        clean(&path, "the kernel's again");
        let fs = ours(&path);
        assert_eq!(fs.metadata("/many").unwrap().nlink(), 64_998);
        fs.remove_dir("/many/theirs").unwrap();
        fs.unmount().unwrap();
        clean(&path, "ours again");
        println!("blocks of {block_size}: counted again");
    }
}

fn we_change_it(path: &std::path::Path) {
    let links = |fs: &ext2dax::FileSystem| fs.metadata("/many").unwrap().nlink();
    let fs = ours(path);
    assert_eq!(links(&fs), 1);
    assert_eq!(fs.read_dir("/many").unwrap().count(), MANY as usize);
    fs.create_dir("/many/ours").unwrap();
    fs.write("/many/file", [1; 10]).unwrap();
    fs.rename("/many/0", "/many/renamed").unwrap();
    assert_eq!(links(&fs), 1, "one more is no more to be counted");
    fs.unmount().unwrap();
    clean(path, "changed, not counted");
    let fs = ours(path);
    // MANY and one, less 23: 64,998, which the count can tell, and one less.
    for i in 1..23 {
        fs.remove_dir(format!("/many/{i}")).unwrap();
        assert_eq!(links(&fs), 1, "{i} are gone");
    }
    fs.remove_dir("/many/23").unwrap();
    assert_eq!(links(&fs), 65_000, "counted");
    fs.rename("/many/24", "/elsewhere").unwrap();
    assert_eq!(links(&fs), 64_999);
    assert_eq!(fs.create_dir("/many/more"), Err(Error::TooManyLinks));
    fs.unmount().unwrap();
    clean(path, "counted again");
}
