//! Small images with something of everything, made by e2fsprogs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::judge::run;

/// Shapes of images that the campaigns damage: name, size in KiB, options of mke2fs.
pub(crate) const SHAPES: &[(&str, u32, &[&str])] = &[
    ("1k", 2048, &["-t", "ext2", "-b", "1024", "-N", "256"]),
    (
        "1k-128",
        2048,
        &["-t", "ext2", "-b", "1024", "-I", "128", "-N", "128"],
    ),
    ("4k", 8192, &["-t", "ext2", "-b", "4096", "-N", "256"]),
    (
        "groups",
        4096,
        &["-t", "ext2", "-b", "1024", "-g", "1024", "-N", "512"],
    ),
    (
        "plain",
        2048,
        &["-t", "ext2", "-b", "1024", "-O", "none", "-N", "128"],
    ),
    ("rev0", 2048, &["-r", "0", "-b", "1024", "-N", "128"]),
    (
        "meta-bg",
        4096,
        &[
            "-t",
            "ext2",
            "-b",
            "1024",
            "-g",
            "1024",
            "-N",
            "512",
            "-O",
            "meta_bg,^resize_inode",
        ],
    ),
    ("64k", 16384, &["-t", "ext2", "-b", "65536", "-N", "256"]),
];

/// Makes an image of one of the shapes, filled with files of every type. Indexed directories come from `e2fsck -D`.
pub(crate) fn make(image: &Path, size_kib: u32, options: &[&str]) {
    let tree = tempfile::tempdir().unwrap();
    fill(tree.path());
    fs::File::create(image)
        .unwrap()
        .set_len(u64::from(size_kib) * 1024)
        .unwrap();
    let image = image.to_str().unwrap();
    let mut args = vec!["-q", "-F", "-d", tree.path().to_str().unwrap()];
    args.extend(options);
    args.push(image);
    let made = run("mke2fs", &args);
    assert!(
        made.status.success(),
        "mke2fs {args:?}: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    for script in [
        "mknod pipe p",
        "mknod null c 1 3",
        "mknod disk b 8 1",
        "ea_set plain user.note remember",
        "ea_set big user.large -f /etc/passwd",
    ] {
        run("debugfs", &["-w", "-R", script, image]);
    }
    // Exit status 1: it has rebuilt the directories.
    run("e2fsck", &["-fyD", image]);
    let check = run("e2fsck", &["-fn", image]);
    assert_eq!(
        check.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
}

fn fill(tree: &Path) {
    fs::write(tree.join("plain"), b"plain text\n").unwrap();
    fs::write(tree.join("empty"), b"").unwrap();
    fs::write(tree.join("big"), vec![0x5A; 300 * 1024]).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"far away", 9 << 20).unwrap();
    symlink("plain", tree.join("short-link")).unwrap();
    symlink("x".repeat(100), tree.join("long-link")).unwrap();
    fs::hard_link(tree.join("plain"), tree.join("second-name")).unwrap();
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::write(tree.join("a/b/c/deep"), vec![7; 5000]).unwrap();
    let many = tree.join("many");
    fs::create_dir(&many).unwrap();
    let first = many.join("entry-000-with-a-long-name-so-that-blocks-fill");
    fs::write(&first, b"").unwrap();
    for i in 1..160 {
        fs::hard_link(
            &first,
            many.join(format!("entry-{i:03}-with-a-long-name-so-that-blocks-fill")),
        )
        .unwrap();
    }
}
