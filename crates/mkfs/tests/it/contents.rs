//! Images with contents: what the kernel sees is what the source has, and the size is exact.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ext2dax_mkfs::{
    Align, FillError, FilledPlan, Filling, Free, Holes, Medium, Meta, Options, Refusal, Rules,
    Size, Tree, edit_features,
};
use ext2dax_pmem::{AnonRegion, Pmem};

use crate::judge;
use crate::tree::{assert_same, look, nasty, noise};

const BLOCK_SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

/// Whether there is time for the long forms.
pub(crate) fn soak() -> bool {
    std::env::var_os("EXT2DAX_SOAK").is_some()
}

pub(crate) fn read(path: &Path) -> Tree {
    let mut tree = Tree::new();
    tree.add_directory(path, &Rules::default(), 2).unwrap();
    tree
}

fn in_memory(filled: &mut FilledPlan) -> Pmem {
    let pmem = Pmem::new(AnonRegion::new(filled.len_bytes()).unwrap());
    filled
        .write(&Medium::memory(&pmem), ext2dax_mkfs::Before::Zeroes, |_| {})
        .unwrap();
    pmem
}

fn bytes(pmem: &Pmem) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(pmem.len()).unwrap()];
    pmem.read(0, &mut bytes);
    bytes
}

/// Calls `check` with the image mounted; whether it could be.
pub(crate) fn mounted(image: &Path, at: &Path, check: impl FnOnce(&Path)) -> bool {
    let _ = fs::create_dir(at);
    let mount = Command::new("mount")
        .args(["-t", "ext2", "-o", "loop,ro"])
        .args([image, at])
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "no kernel mount");
        eprintln!("skipped: no kernel mount");
        return false;
    }
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(at)));
    judge::unmount(at);
    if let Err(panic) = checked {
        std::panic::resume_unwind(panic);
    }
    true
}

pub(crate) fn run(dir: &Path, args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_mkfs-ext2dax"))
        .current_dir(dir)
        .args(args)
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .expect("the program runs")
}

pub(crate) fn made(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn refused(dir: &Path, args: &[&str], why: &str) {
    let output = run(dir, args);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {complaint}");
    assert!(
        complaint.contains(why) && complaint.lines().count() == 1,
        "{args:?}: {complaint}"
    );
}

#[test]
fn a_directory_arrives_whole_at_every_block_size() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    if !nasty(&source) {
        eprintln!("skipped: devices, which need root");
    }
    let expected = look(&source);
    let has_e2fsck = judge::present("e2fsck");
    for block_size in BLOCK_SIZES {
        let size = block_size.to_string();
        let image = dir.path().join("image");
        made(
            dir.path(),
            &["-q", "-F", "-b", &size, "-d", "source", "image", "auto"],
        );
        if has_e2fsck {
            judge::e2fsck_clean(&image, &size);
        }
        // The kernel's blocks are no larger than its pages.
        if block_size <= 4096 {
            mounted(&image, &dir.path().join("mnt"), |at| {
                assert_same(&expected, &look(at), &size);
            });
        }
    }
}

#[test]
fn every_form_of_tar_arrives_whole() {
    if !judge::present_as("tar", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    nasty(&source);
    // Archives have no sockets.
    let _ = fs::remove_file(source.join("socket"));
    let expected = look(&source);
    let forms: [&[&str]; 6] = [
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
        &["--format=pax", "--sparse", "--gzip"],
        &["--format=pax", "--sparse", "--zstd"],
        &["--format=pax", "--sparse", "--xz"],
    ];
    for form in forms {
        let mut tar = Command::new("tar");
        tar.current_dir(&source).args(form).args([
            "--xattrs",
            "--xattrs-include=*",
            "-cf",
            "../archive",
            ".",
        ]);
        if !tar.status().unwrap().success() {
            eprintln!("skipped: tar {form:?}");
            continue;
        }
        made(dir.path(), &["-q", "-F", "-d", "archive", "image", "auto"]);
        let what = format!("{form:?}");
        mounted(&dir.path().join("image"), &dir.path().join("mnt"), |at| {
            assert_same(&expected, &look(at), &what);
        });
        // The same through a pipe: nothing can be read twice, and yet the bytes are the same.
        let shell = "cat archive | \"$0\" -q -F -d - piped auto && cmp image piped";
        let piped = Command::new("sh")
            .current_dir(dir.path())
            .args(["-c", shell, env!("CARGO_BIN_EXE_mkfs-ext2dax")])
            .output()
            .unwrap();
        assert!(
            piped.status.success(),
            "{what}: {}",
            String::from_utf8_lossy(&piped.stderr)
        );
    }
}

/// GNU's own format has whole seconds and no attributes; names, links, contents and holes must be right all the same.
#[test]
fn the_old_form_of_gnu_tar_arrives() {
    if !judge::present_as("tar", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    nasty(&source);
    let tar = "tar -C source --format=gnu --sparse -cf archive --exclude=socket . && mkdir again && \
               tar -C again -xpf archive";
    let status = Command::new("sh")
        .current_dir(dir.path())
        .args(["-c", tar])
        .status();
    assert!(status.unwrap().success());
    made(dir.path(), &["-q", "-d", "archive", "image"]);
    mounted(&dir.path().join("image"), &dir.path().join("mnt"), |at| {
        assert_same(&look(&dir.path().join("again")), &look(at), "gnu");
    });
}

/// Small trees whose edges lie at different places.
fn fixtures() -> Vec<(&'static str, Tree)> {
    let meta = Meta::new(0o644);
    let mut all = vec![("empty", Tree::new())];
    let mut tree = Tree::new();
    for nr in 0..70 {
        tree.file(format!("f{nr}"), meta, noise(nr * 517, 1))
            .unwrap();
    }
    all.push(("files", tree));
    let mut tree = Tree::new();
    for nr in 0..400 {
        tree.directory(format!("d{}/e{nr}", nr % 7), meta).unwrap();
    }
    all.push(("directories", tree));
    let mut tree = Tree::new();
    tree.file("big", meta, noise(5_000_000, 2)).unwrap();
    tree.file("small", meta, noise(100, 2)).unwrap();
    tree.file("other", meta, noise(2_200_000, 2)).unwrap();
    all.push(("large files", tree));
    let mut tree = Tree::new();
    for nr in 0..3000 {
        tree.file(format!("{nr}"), meta, noise(1, nr)).unwrap();
    }
    tree.attribute("7", b"user.x", &[1; 500]).unwrap();
    all.push(("one block each", tree));
    all
}

/// The answer is the smallest size: what it says is enough, and one block less is refused.
#[test]
fn a_computed_size_fits_and_one_block_less_is_refused() {
    for block_size in BLOCK_SIZES {
        for (nr, (name, tree)) in fixtures().into_iter().enumerate() {
            let what = format!("{name}, {block_size}");
            let mut options = Options::with_block_size(block_size);
            edit_features(&mut options.features, "^resize_inode").unwrap();
            // So that even a few MiB are several groups.
            options.blocks_per_group = (nr % 2 == 1 && block_size < 4096).then_some(1024);
            let smallest = Filling {
                options,
                ..Filling::default()
            };
            let mut filled = smallest.plan(tree).unwrap();
            let len = filled.len_bytes();
            let pmem = in_memory(&mut filled);
            let again = || fixtures().swap_remove(nr).1;
            // With the options that were found, any size can be asked for.
            let exact = Filling {
                options: filled.plan().options().clone(),
                size: Size::Bytes(len),
                ..smallest.clone()
            };
            exact.plan(again()).unwrap();
            let less = Filling {
                size: Size::Bytes(len - u64::from(block_size)),
                ..exact
            };
            match less.plan(again()) {
                Err(FillError::Refusal(Refusal::ContentsTooLarge { needed_kib, .. })) => {
                    assert_eq!(needed_kib, len / 1024, "{what}");
                }
                other => panic!("{what}: {:?}", other.err()),
            }
            if judge::present("e2fsck") && (nr + 1) % 5 != 0 {
                let file = tempfile::NamedTempFile::new().unwrap();
                fs::write(file.path(), bytes(&pmem)).unwrap();
                judge::e2fsck_clean(file.path(), &what);
            }
        }
    }
}

#[test]
fn free_space_and_inodes_are_there_when_asked_for() {
    for free in [Free::Bytes(3 << 20), Free::Share(2500)] {
        let filling = Filling {
            free,
            ..Filling::default()
        };
        let filled = filling.plan(fixtures().swap_remove(1).1).unwrap();
        let raw = filled.plan().superblock();
        let is_free = u64::from(raw.s_free_blocks_count.get()) * 4096;
        let wanted = match free {
            Free::Bytes(bytes) => bytes,
            _ => filled.len_bytes() / 4,
        };
        assert!(
            is_free >= wanted && is_free < wanted + 65_536,
            "{free:?}: {is_free}"
        );
        assert!(u64::from(raw.s_free_inodes_count.get()) >= wanted / 16_384);
    }
    let filling = Filling {
        free_inodes: Some(1000),
        ..Filling::default()
    };
    let filled = filling.plan(Tree::new()).unwrap();
    assert!(filled.plan().superblock().s_free_inodes_count.get() >= 1000);
}

/// Equal contents make equal bytes: whatever the folder, the order in which names were made, the source's own holes,
/// the number of threads.
#[test]
fn equal_contents_make_equal_images() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, reverse: bool| -> PathBuf {
        let root = dir.path().join(name);
        fs::create_dir_all(root.join("sub")).unwrap();
        let mut names: Vec<u32> = (0..200).collect();
        if reverse {
            names.reverse();
        }
        for nr in names {
            let path = root.join(format!("sub/name-{nr}"));
            fs::write(&path, noise(nr as usize * 40, u64::from(nr))).unwrap();
        }
        let holes = fs::File::create(root.join("holes")).unwrap();
        if reverse {
            holes.set_len(300_000).unwrap();
        } else {
            fs::write(root.join("holes"), vec![0; 300_000]).unwrap();
        }
        for path in look(&root).keys() {
            use std::os::unix::ffi::OsStrExt as _;
            let path = root.join(std::ffi::OsStr::from_bytes(path));
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        }
        root
    };
    let digests = std::cell::RefCell::new(Vec::new());
    let image = |path: &Path, threads, options: Options| {
        let filling = Filling {
            threads,
            options,
            ..Filling::default()
        };
        let mut filled = filling.plan(read(path)).unwrap();
        assert_eq!(filled.content_digest(), None, "nothing was read yet");
        let image = bytes(&in_memory(&mut filled));
        digests.borrow_mut().push(filled.content_digest().unwrap());
        image
    };
    let (one, two) = (make("one", false), make("a folder of another name", true));
    let first = image(&one, 1, Options::default());
    assert!(first == image(&two, 3, Options::default()), "two folders");
    let label = Options {
        label: b"other".to_vec(),
        ..Options::default()
    };
    let uuid = |image: &[u8]| image[1024 + 104..1024 + 120].to_vec();
    assert_ne!(uuid(&first), uuid(&image(&one, 1, label)));
    // One byte of one file is another image, with another UUID.
    let path = two.join("sub/name-100");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let mut changed = fs::read(&path).unwrap();
    changed[5] ^= 1;
    fs::write(&path, changed).unwrap();
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    assert_ne!(uuid(&first), uuid(&image(&two, 2, Options::default())));
    // Two folders, another label, another byte: the contents alone decide about their digest.
    let digests = digests.into_inner();
    assert!(digests[..3].iter().all(|digest| *digest == digests[0]));
    assert_ne!(digests[0], digests[3]);
}

#[test]
fn large_files_lie_on_whole_steps_of_2_mib() {
    let tree = || fixtures().swap_remove(3).1;
    for block_size in BLOCK_SIZES {
        for base in [0, 1 << 20, 3 << 16] {
            let filling = Filling {
                options: Options::with_block_size(block_size),
                align: Align::Huge { base },
                ..Filling::default()
            };
            let filled = filling.plan(tree()).unwrap();
            let coverage = filled.coverage();
            assert_eq!(coverage.large_files, 2);
            assert_eq!(coverage.aligned_bytes, 3 * (2 << 20), "{block_size} {base}");
        }
        let packed = Filling {
            options: Options::with_block_size(block_size),
            align: Align::None,
            ..Filling::default()
        };
        let packed = packed.plan(tree()).unwrap();
        assert_eq!(packed.coverage().aligned_bytes, 0);
        assert!(
            packed.len_bytes() < (8 << 20) + 40 * u64::from(block_size),
            "{block_size}"
        );
    }
}

#[test]
fn holes_are_kept_or_filled_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("file")).unwrap();
    file.set_len(1 << 20).unwrap();
    fs::write(dir.path().join("zeroes"), vec![0; 1 << 20]).unwrap();
    let data = |holes| {
        let filling = Filling {
            holes,
            ..Filling::default()
        };
        filling.plan(read(dir.path())).unwrap().data_bytes()
    };
    let (zeroes, keep, fill) = (data(Holes::Zeroes), data(Holes::Keep), data(Holes::Fill));
    assert!(zeroes < 65_536, "{zeroes}");
    assert!(
        keep > zeroes + (1 << 20) && keep < zeroes + (2 << 20),
        "{keep}"
    );
    assert!(fill > zeroes + (2 << 20), "{fill}");
}

#[test]
fn layers_replace_and_remove() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for path in ["one/d", "one/o", "two/d", "two/o"] {
        fs::create_dir_all(at.join(path)).unwrap();
    }
    for path in [
        "one/d/kept",
        "one/d/gone",
        "one/o/old",
        "two/o/new",
        "two/o/.wh..wh..opq",
        "two/d/.wh.gone",
    ] {
        fs::write(at.join(path), path).unwrap();
    }
    fs::write(at.join("one/both"), "first").unwrap();
    fs::write(at.join("two/both"), "second").unwrap();
    made(
        at,
        &["-q", "--whiteouts", "-d", "one", "-d", "two", "image"],
    );
    mounted(&at.join("image"), &at.join("mnt"), |root| {
        let names: Vec<String> = look(root)
            .into_keys()
            .map(|name| String::from_utf8(name).unwrap())
            .collect();
        assert_eq!(names, ["both", "d", "d/kept", "o", "o/new"]);
        assert_eq!(fs::read(root.join("both")).unwrap(), b"second");
    });
}

#[test]
fn rules_change_owners_modes_and_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir_all(at.join("s/bin")).unwrap();
    for path in ["s/bin/tool", "s/skip.o", "s/plain"] {
        fs::write(at.join(path), path).unwrap();
    }
    made(
        at,
        &[
            "-q",
            "--owner=7:8",
            "--exclude=*.o",
            "--chmod",
            "/opt/bin/*=4755",
            "--chown",
            "plain=1:2",
            "--prefix=/opt",
            "-E",
            "root_owner=3:4,root_perms=711",
            "-d",
            "s",
            "image",
        ],
    );
    mounted(&at.join("image"), &at.join("mnt"), |root| {
        use std::os::unix::fs::MetadataExt as _;
        let of = |path: &str| {
            let meta = fs::symlink_metadata(root.join(path)).unwrap();
            (meta.mode() & 0o7777, meta.uid(), meta.gid())
        };
        assert_eq!(of(""), (0o711, 3, 4));
        assert_eq!(of("opt/bin/tool"), (0o4755, 7, 8));
        assert_eq!((of("opt/plain").1, of("opt/plain").2), (1, 2));
        assert!(!root.join("opt/skip.o").exists());
    });
    refused(
        at,
        &["--uid-map=5000:0:1", "-d", "s", "image2"],
        "is in no --uid-map",
    );
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    if uid.as_raw() == 0 && gid.as_raw() == 0 {
        made(
            at,
            &[
                "-q",
                "--owner-map=0:500:10",
                "--gid-map=0:7:1",
                "-d",
                "s",
                "image3",
            ],
        );
        mounted(&at.join("image3"), &at.join("mnt"), |root| {
            use std::os::unix::fs::MetadataExt as _;
            let meta = fs::metadata(root.join("plain")).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (500, 7), "the first map counts");
        });
    }
    refused(
        at,
        &["--exclude=x", "image2", "1m"],
        "--exclude: needs contents",
    );
}

/// Equal attributes outside of inodes lie in one block, as far as checkers allow it.
#[test]
fn equal_attributes_share_blocks_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let tree = || {
        let mut tree = Tree::new();
        for nr in 0..1500 {
            let path = format!("{nr}");
            tree.file(&path, Meta::new(0o600), *b"").unwrap();
            tree.attribute(&path, b"user.small", b"1").unwrap();
            tree.attribute(&path, b"trusted.large", &[7; 700]).unwrap();
        }
        tree.file("other", Meta::new(0o600), *b"x").unwrap();
        tree.attribute("other", b"trusted.large", &[8; 700])
            .unwrap();
        tree
    };
    for block_size in [1024, 4096] {
        let filling = |share_attributes| Filling {
            options: Options::with_block_size(block_size),
            share_attributes,
            threads: 2,
            ..Filling::default()
        };
        let alone = filling(false).plan(tree()).unwrap().data_bytes();
        let mut filled = filling(true).plan(tree()).unwrap();
        // 1,024 files and the other 476.
        let saved = alone - filled.data_bytes();
        assert_eq!(saved, 1498 * u64::from(block_size));
        let pmem = in_memory(&mut filled);
        let report = ext2dax_fsck::check(&pmem, &ext2dax_fsck::CheckOptions::default());
        assert!(report.as_ref().unwrap().is_clean(), "{report:?}");
        let image = dir.path().join("image");
        fs::write(&image, bytes(&pmem)).unwrap();
        if judge::present("e2fsck") {
            judge::e2fsck_clean(&image, &block_size.to_string());
        }
        mounted(&image, &dir.path().join("mnt"), |at| {
            for name in ["0", "1023", "1024", "1499"] {
                let mut value = [0; 701];
                let path = at.join(name);
                let len = rustix::fs::getxattr(path, "trusted.large", &mut value[..]);
                assert_eq!((len, value[699]), (Ok(700), 7), "{name}");
            }
        });
    }
}

/// No file, table or directory lies on a bad block, and checkers know all of them.
#[test]
fn bad_blocks_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir_all(at.join("s/sub")).unwrap();
    for nr in 0..60 {
        fs::write(at.join(format!("s/sub/{nr}")), noise(nr * 2000, 1)).unwrap();
    }
    fs::write(at.join("s/large"), noise(5 << 20, 2)).unwrap();
    let expected = look(&at.join("s"));
    // In tables of the first and the second group, single ones, and so many that they need two levels of blocks.
    let mut bad: Vec<u32> = vec![400, 401, 8192 + 300, 30_000];
    bad.extend(2000..2013);
    bad.extend((10_000..10_700).step_by(2));
    for block_size in ["1024", "4096"] {
        let text: String = bad.iter().map(|block| format!("{block}\n")).collect();
        fs::write(at.join("bad"), text).unwrap();
        for contents in [&[][..], &["-d", "s"]] {
            let what = format!("{block_size} {contents:?}");
            let options = ["-q", "-F", "-b", block_size, "-N", "4000", "-l", "bad"];
            let blocks = if block_size == "1024" {
                "40000"
            } else {
                "12000"
            };
            made(at, &[&options[..], contents, &["image", blocks]].concat());
            let image = at.join("image");
            let pmem = Pmem::new(
                ext2dax_pmem::FileRegion::open(&image, ext2dax_pmem::Access::ReadOnly).unwrap(),
            );
            let report = ext2dax_fsck::check(&pmem, &ext2dax_fsck::CheckOptions::default());
            assert!(report.as_ref().unwrap().is_clean(), "{what}: {report:?}");
            drop(pmem);
            if !judge::present("e2fsck") || !judge::present("dumpe2fs") {
                continue;
            }
            judge::e2fsck_clean(&image, &what);
            let listed = Command::new("dumpe2fs").arg("-b").arg(&image).output();
            let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
            let mut listed: Vec<u32> = listed.lines().map(|line| line.parse().unwrap()).collect();
            listed.sort_unstable();
            let mut wanted: Vec<u32> = bad
                .iter()
                .copied()
                .filter(|&block| block < blocks.parse().unwrap())
                .collect();
            wanted.sort_unstable();
            assert_eq!(listed, wanted, "{what}");
            if !contents.is_empty() {
                mounted(&image, &at.join("mnt"), |root| {
                    assert_same(&expected, &look(root), &what);
                });
            }
        }
    }
    fs::write(at.join("bad"), "7\nseven\n").unwrap();
    refused(
        at,
        &["-l", "bad", "other", "8m"],
        "-l bad: line 2: not the number",
    );
    fs::write(at.join("bad"), "1\n").unwrap();
    refused(
        at,
        &["-l", "bad", "-b", "1024", "other", "8m"],
        "block 1 is bad",
    );
}

/// What was in the place of the image before does not show, and takes no room.
#[test]
fn an_image_inside_a_disk_gives_back_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir(at.join("s")).unwrap();
    fs::write(at.join("s/file"), noise(100_000, 1)).unwrap();
    for keep in [false, true] {
        fs::write(at.join("disk"), vec![0x5a; 12 << 20]).unwrap();
        let extended = if keep {
            "offset=1m,nodiscard"
        } else {
            "offset=1m"
        };
        made(at, &["-q", "-E", extended, "-d", "s", "disk", "8m"]);
        if judge::present("e2fsck") {
            let image = format!("{}?offset=1048576", at.join("disk").display());
            judge::e2fsck_clean(Path::new(&image), extended);
        }
        let disk = fs::read(at.join("disk")).unwrap();
        let around = disk[..1 << 20].iter().chain(&disk[9 << 20..]);
        assert!(around.copied().all(|byte| byte == 0x5a));
        let old = disk[1 << 20..9 << 20]
            .iter()
            .filter(|&&byte| byte == 0x5a)
            .count();
        assert_eq!(old > (6 << 20), keep, "{old}");
    }
}
