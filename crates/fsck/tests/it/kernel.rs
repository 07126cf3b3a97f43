//! Images that a kernel has written to: indexes, attributes, sparse and removed files.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use crate::judge::{e2fsck, have, ours, run, scratch};

/// Mounts `image` with one of the kernel's drivers, works on it, unmounts. False if this machine does not mount.
fn with_mount(image: &Path, driver: &str, work: impl FnOnce(&Path)) -> bool {
    let at = tempfile::tempdir().unwrap();
    let mounted = run(
        "mount",
        &[
            "-o",
            "loop",
            "-t",
            driver,
            image.to_str().unwrap(),
            at.path().to_str().unwrap(),
        ],
    );
    if !mounted.status.success() {
        println!(
            "skipped: mount -t {driver}: {}",
            String::from_utf8_lossy(&mounted.stderr).trim()
        );
        return false;
    }
    work(at.path());
    // A program that another test has just forked holds our files until its exec: then again.
    for _ in 0..100 {
        let unmounted = run("umount", &[at.path().to_str().unwrap()]);
        if unmounted.status.success() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{} stays busy", at.path().display());
}

fn work(root: &Path) {
    let many = root.join("many");
    fs::create_dir(&many).unwrap();
    for i in 0..6000 {
        fs::write(
            many.join(format!("a name that is long enough for an index {i}")),
            b"",
        )
        .unwrap();
    }
    for i in (0..6000).step_by(3) {
        fs::remove_file(many.join(format!("a name that is long enough for an index {i}"))).unwrap();
    }
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for i in 0..20 {
        sparse.write_at(b"island", i * 777_777).unwrap();
    }
    fs::write(root.join("big"), vec![1; 3 << 20]).unwrap();
    fs::write(root.join("gone"), vec![1; 1 << 20]).unwrap();
    fs::remove_file(root.join("gone")).unwrap();
    symlink("y".repeat(300), root.join("long")).unwrap();
    symlink("short", root.join("short")).unwrap();
    for i in 0..30 {
        let path = root.join(format!("attributed-{i}"));
        fs::write(&path, b"x").unwrap();
        let path = path.to_str().unwrap();
        if have("setfattr") {
            run(
                "setfattr",
                &[
                    "-n",
                    "user.note",
                    "-v",
                    "the same in all of them, so that a block is shared",
                    path,
                ],
            );
            run(
                "setfattr",
                &["-n", "trusted.bin", "-v", &"z".repeat(i * 7), path],
            );
        }
        if have("setfacl") {
            run("setfacl", &["-m", "u:1000:rw,g:100:r", path]);
        }
    }
    fs::rename(root.join("big"), many.join("big")).unwrap();
}

#[test]
fn images_that_a_kernel_wrote_to_are_clean_for_both() {
    if !have("mke2fs") || !have("e2fsck") || !have("mount") {
        return;
    }
    let dir = scratch();
    for driver in ["ext2", "ext4"] {
        for options in [
            "-b 1024",
            "-b 4096",
            "-b 1024 -I 128",
            "-b 2048 -O ^filetype",
            "-b 1024 -O sparse_super2",
        ] {
            let image = dir.path().join("kernel.img");
            fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
            let mut args = vec!["-q", "-F", "-t", "ext2", "-N", "20000"];
            args.extend(options.split(' '));
            args.push(image.to_str().unwrap());
            assert!(run("mke2fs", &args).status.success(), "{options}");
            if !with_mount(&image, driver, work) {
                continue;
            }
            let (status, text) = e2fsck(&image);
            assert_eq!(status, 0, "{driver} {options}: {text}");
            let report = ours(&image).unwrap();
            let texts: Vec<String> = report
                .findings
                .iter()
                .map(|finding| finding.text())
                .collect();
            assert!(report.is_clean(), "{driver} {options}: {texts:?}");
            fs::remove_file(&image).unwrap();
        }
    }
}
