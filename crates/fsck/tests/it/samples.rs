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

/// A shape of image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    size_kib: u32,
    options: &'static [&'static str],
    /// With a directory whose index has two levels, a list of bad blocks and an attribute block that two files share.
    deep: bool,
}

/// All shapes, those of long campaigns as well.
pub(crate) fn all() -> impl Iterator<Item = Shape> {
    let plain = SHAPES.iter().map(|shape| (shape, false));
    let more = MORE.iter().map(|shape| (shape, true));
    plain
        .chain(more)
        .map(|(&(name, size_kib, options), more)| Shape {
            name,
            size_kib,
            options,
            deep: more && name.starts_with("deep"),
        })
}

impl Shape {
    pub(crate) fn make(&self, image: &Path) {
        make(image, self.size_kib, self.options);
        if self.deep {
            deepen(image);
        }
    }
}

/// Shapes that are damaged in campaigns, too, but not in every test.
const MORE: &[(&str, u32, &[&str])] = &[
    ("2k", 4096, &["-t", "ext2", "-b", "2048", "-N", "256"]),
    ("8k", 8192, &["-t", "ext2", "-b", "8192", "-N", "256"]),
    ("16k", 8192, &["-t", "ext2", "-b", "16384", "-N", "256"]),
    ("32k", 12288, &["-t", "ext2", "-b", "32768", "-N", "256"]),
    ("deep", 4096, &["-t", "ext2", "-b", "1024", "-N", "256"]),
    (
        "deep-128",
        6144,
        &["-t", "ext2", "-b", "2048", "-I", "128", "-N", "128"],
    ),
    (
        "meta-groups",
        12288,
        &[
            "-t",
            "ext2",
            "-b",
            "1024",
            "-g",
            "256",
            "-N",
            "768",
            "-O",
            "meta_bg,^resize_inode",
        ],
    ),
    (
        "sparse-super2",
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
            "sparse_super2,^resize_inode",
        ],
    ),
    (
        "all-super",
        4096,
        &[
            "-t",
            "ext2",
            "-b",
            "1024",
            "-g",
            "512",
            "-N",
            "512",
            "-O",
            "^sparse_super,^resize_inode",
        ],
    ),
    (
        "journal",
        4096,
        &["-t", "ext3", "-b", "1024", "-N", "256", "-J", "size=1"],
    ),
    (
        "inode-1k",
        4096,
        &["-t", "ext2", "-b", "4096", "-I", "1024", "-N", "128"],
    ),
    (
        "extra-isize",
        2048,
        &[
            "-t",
            "ext2",
            "-b",
            "1024",
            "-N",
            "256",
            "-O",
            "extra_isize,dir_nlink",
        ],
    ),
    (
        "no-types",
        2048,
        &[
            "-t",
            "ext2",
            "-b",
            "1024",
            "-N",
            "256",
            "-O",
            "^filetype,^ext_attr",
        ],
    ),
    (
        "hurd",
        4096,
        &[
            "-t", "ext2", "-o", "hurd", "-b", "4096", "-N", "128", "-I", "128",
        ],
    ),
];

fn deepen(image: &Path) {
    let name = image.to_str().unwrap();
    let list = tempfile::NamedTempFile::new().unwrap();
    let first = fs::metadata(image).unwrap().len() / 4096;
    let blocks: Vec<String> = (0..20).map(|i| (first + i * 2).to_string()).collect();
    fs::write(list.path(), blocks.join("\n")).unwrap();
    run(
        "e2fsck",
        &["-fy", "-L", list.path().to_str().unwrap(), name],
    );
    // One attribute block for two files.
    let mut lab = crate::lab::Lab::new(fs::read(image).unwrap());
    let (big, empty) = (lab.at("/plain"), lab.at("/empty"));
    let block = lab.get(big + 104, 4) as u64;
    if block != 0 {
        let sectors = (lab.target.block_size / 512) as u64;
        lab.put(empty + 104, 4, block);
        lab.put(empty + 28, 4, sectors);
        let at = usize::try_from(block).unwrap() * lab.target.block_size;
        lab.put(at + 4, 4, 2);
        fs::write(image, &lab.target.bytes).unwrap();
    }
    let check = run("e2fsck", &["-fn", name]);
    assert_eq!(
        check.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
}

/// Makes an image of one of the shapes, filled with files of every type. Indexed directories come from `e2fsck -D`.
pub(crate) fn make(image: &Path, size_kib: u32, options: &[&str]) {
    let tree = tempfile::tempdir().unwrap();
    fill(tree.path());
    let block = options.iter().skip_while(|option| **option != "-b").nth(1);
    let block: u64 = block.map_or(1024, |size| size.parse().unwrap());
    if image
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"deep"))
    {
        fill_deep(tree.path(), block);
    }
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

/// A file with blocks of three levels, and a directory of so many blocks that its index has two.
fn fill_deep(tree: &Path, block: u64) {
    let far = fs::File::create(tree.join("far")).unwrap();
    let pointers = block / 4;
    let triple = 12 + pointers + pointers * pointers;
    for lblk in [
        triple,
        triple + pointers + 1,
        triple + pointers * pointers + 5,
    ] {
        std::os::unix::fs::FileExt::write_at(&far, b"very far", lblk * block).unwrap();
    }
    let wide = tree.join("wide");
    fs::create_dir(&wide).unwrap();
    let name = |i: u64| wide.join(format!("{i:05}-{}", "w".repeat(240)));
    fs::write(name(0), b"").unwrap();
    for i in 1..block * 42 / 100 {
        fs::hard_link(name(0), name(i)).unwrap();
    }
}
