//! Clean images of all shapes are clean for both.

use crate::judge::{e2fsck, have, ours, run, scratch};
use crate::samples;

#[test]
fn fresh_images_of_every_block_size_and_feature_are_clean() {
    if !have("mke2fs") || !have("e2fsck") {
        return;
    }
    let dir = scratch();
    let mut shapes: Vec<(String, u64, Vec<String>)> = Vec::new();
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for log in 0..7 {
        let size = 1024 << log;
        for inode in ["128", "256"] {
            shapes.push((
                format!("{size}/{inode}"),
                64 << 20,
                words(&format!("-t ext2 -b {size} -I {inode}")),
            ));
        }
    }
    for (name, mib, options) in [
        ("rev0", 16, "-r 0 -b 1024"),
        ("rev0-4k", 64, "-r 0 -b 4096"),
        ("none", 64, "-t ext2 -O none -b 1024"),
        ("sparse_super2", 64, "-t ext2 -O sparse_super2 -b 1024"),
        (
            "one backup",
            64,
            "-t ext2 -O sparse_super2 -E num_backup_sb=1 -b 1024",
        ),
        ("meta_bg", 300, "-t ext2 -O meta_bg,^resize_inode -b 1024"),
        (
            "meta_bg 4k",
            1024,
            "-t ext2 -O meta_bg,^resize_inode -b 4096 -g 8192",
        ),
        (
            "no sparse_super",
            100,
            "-t ext2 -O ^sparse_super,^resize_inode -b 1024",
        ),
        ("no filetype", 32, "-t ext2 -O ^filetype -b 1024"),
        ("1k inodes", 32, "-t ext2 -I 1024 -b 1024"),
        ("small groups", 32, "-t ext2 -b 1024 -g 256"),
        ("no resize inode", 32, "-t ext2 -O ^resize_inode -b 1024"),
        ("journal", 64, "-t ext3 -b 1024"),
        ("extra_isize", 64, "-t ext2 -O extra_isize -b 1024"),
        ("hurd", 16, "-t ext2 -o hurd -b 1024"),
        ("20 GiB", 20 << 10, "-t ext2 -b 4096"),
    ] {
        shapes.push((name.to_owned(), mib << 20, words(options)));
    }
    for (name, size, options) in shapes {
        let image = dir.path().join("fresh.img");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(size)
            .unwrap();
        let mut args = vec!["-q", "-F"];
        args.extend(options.iter().map(String::as_str));
        args.push(image.to_str().unwrap());
        let made = run("mke2fs", &args);
        assert!(
            made.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let (status, text) = e2fsck(&image);
        assert_eq!(status, 0, "{name}: {text}");
        let report = ours(&image).unwrap();
        assert!(
            report.is_clean(),
            "{name}: {:?}",
            report.findings.first().map(|f| f.text())
        );
        std::fs::remove_file(&image).unwrap();
    }
}

#[test]
fn filled_images_are_clean() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let dir = scratch();
    for (name, size, options) in samples::SHAPES {
        let image = dir.path().join(name);
        samples::make(&image, *size, options);
        let report = ours(&image).unwrap();
        let texts: Vec<String> = report.findings.iter().map(|f| f.text()).collect();
        assert!(report.is_clean(), "{name}: {texts:?}");
        assert!(
            report.summary.counts.kinds[7] == 2 && report.summary.counts.kinds[3] == 1,
            "{:?}",
            report.summary
        );
    }
}
