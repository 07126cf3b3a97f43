//! The program: exit status, one line of complaint, and nothing changed when it refuses.

use std::path::Path;
use std::process::{Command, Output};

use crate::judge;

fn run(dir: &Path, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mkfs-ext2dax"));
    command
        .current_dir(dir)
        .args(args.split_whitespace())
        .env_remove("SOURCE_DATE_EPOCH");
    command.output().expect("the program runs")
}

fn made(dir: &Path, args: &str) -> String {
    let output = run(dir, args);
    assert!(
        output.status.success(),
        "{args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn refused(dir: &Path, args: &str, why: &str) {
    let output = run(dir, args);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args}: {complaint}");
    assert_eq!(complaint.lines().count(), 1, "{args}: {complaint}");
    assert!(
        complaint.starts_with("mkfs.ext2dax: ") && complaint.contains(why),
        "{args}: {complaint}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn every_refusal_is_one_line_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let table = [
        ("x", "does not exist; give a size"),
        ("x 8q", "size 8q"),
        ("x 8m extra", "unexpected argument 'extra'"),
        ("", "<IMAGE>"),
        (". 8m", "is a directory"),
        ("-b 3000 x 8m", "block size 3000 is not a power of two"),
        ("-b 131072 x 8m", "block size 131072"),
        ("-b 4096 x 20k", "too small: needs"),
        ("-b x x 8m", "-b x: not a number"),
        ("-I 96 x 8m", "inode size 96"),
        ("-I 8192 x 8m", "inode size 8192"),
        ("-i 1 x 8m", "-i 1: must be"),
        ("-N 0 x 8m", "0 inodes"),
        ("-N 4000000000 x 8m", "4000000000 inodes"),
        ("-g 100 x 8m", "100 blocks per group"),
        ("-m 51 x 8m", "-m 51: must be 0 to 50"),
        ("-r 2 x 8m", "revision 2"),
        ("-L seventeen-letters x 8m", "longer than 16 bytes"),
        ("-U nonsense x 8m", "not a UUID"),
        ("-e explode x 8m", "-e explode"),
        ("-o beos x 8m", "-o beos"),
        ("-O extents x 8m", "-O extents: not a feature of ext2"),
        ("-O has_journal x 8m", "not a feature of ext2"),
        ("-O nonsense x 8m", "unknown feature"),
        ("-O meta_bg x 8m", "add ^resize_inode"),
        ("-O ^sparse_super x 8m", "add ^resize_inode"),
        ("-E nonsense x 8m", "-E nonsense: unknown key"),
        ("-E offset=100 x 8m", "multiple of 512"),
        ("-E root_perms=9 x 8m", "octal"),
        (
            "-O sparse_super2 -E num_backup_sb=3 x 8m",
            "must be 0, 1 or 2",
        ),
        ("-E resize=100 x 8m", "-E resize=100"),
        ("-E resize=more x 8m", "-E resize=more: size more: must be"),
        ("-E resize=20t x 8m", "more blocks than ext2 has"),
        ("-E encoding=utf8 x 8m", "ext4 feature"),
        ("-r 0 -I 256 x 8m", "inodes of revision 0 have 128 bytes"),
        ("-r 0 -O filetype x 8m", "need revision 1"),
        ("-E num_backup_sb=1 x 8m", "needs -O sparse_super2"),
        ("-t ext4 x 8m", "mke2fs -t ext4"),
        ("-T nonsense x 8m", "-T nonsense"),
        ("-c x 8m", "-c: "),
        ("-C 65536 x 8m", "-C: "),
        ("-D x 8m", "-D: "),
        ("-G 16 x 8m", "-G: flex_bg is an ext4 feature"),
        ("-j x 8m", "-j: "),
        ("-J size=4 x 8m", "-J: "),
        ("-l nothing x 8m", "-l nothing: No such file"),
        ("-S x 8m", "-S: there is nothing to write over"),
        ("-z undo x 8m", "-z: there is nothing to write over"),
        ("x 20000t", "more than ext2 can count"),
    ];
    for (args, why) in table {
        refused(dir.path(), args, why);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Everything that was there comes back, whatever was made over it.
#[test]
fn e2undo_brings_back_what_was_overwritten() {
    if !judge::present("e2undo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::create_dir_all(dir.path().join("s/sub")).unwrap();
    for nr in 0..100 {
        let name = dir.path().join(format!("s/sub/{nr}"));
        std::fs::write(name, crate::tree::noise(nr * 300, 1)).unwrap();
    }
    let old = crate::tree::noise(12 << 20, 5);
    for args in [
        "-b 1024 x",
        "-d s x",
        "-E offset=1m -d s x 8m",
        "-b 2048 -g 2048 x",
        "-S x",
    ] {
        std::fs::write(&path, &old).unwrap();
        let _ = std::fs::remove_file(dir.path().join("undo"));
        made(dir.path(), &format!("-q -F -z undo {args}"));
        assert_ne!(std::fs::read(&path).unwrap(), old, "{args}");
        if args != "-S x" {
            let offset = if args.contains("offset") { 1 << 20 } else { 0 };
            let image = format!("{}?offset={offset}", path.display());
            judge::e2fsck_clean(Path::new(&image), args);
        }
        let undone = Command::new("e2undo")
            .args(["undo", "x"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(undone.status.success(), "{args}: {undone:?}");
        assert!(std::fs::read(&path).unwrap() == old, "{args}");
    }
    refused(dir.path(), "-F -z undo x", "-z undo: ");
}

#[test]
fn a_known_signature_is_overwritten_with_force_only() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), "-q x 8m");
    let before = std::fs::read(dir.path().join("x")).unwrap();
    refused(dir.path(), "x", "contains ext2; -F overwrites it");
    assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), before);
    made(dir.path(), "-q -F x");
    assert_ne!(
        std::fs::read(dir.path().join("x")).unwrap(),
        before,
        "another UUID"
    );
}

#[test]
fn dry_run_writes_nothing_and_names_the_backups() {
    let dir = tempfile::tempdir().unwrap();
    let plan = made(dir.path(), "-n -b 1024 x 65536");
    assert!(
        plan.contains("would make 67108864 bytes") && plan.contains("8193, 24577, 40961, 57345"),
        "{plan}"
    );
    assert!(!dir.path().join("x").exists());
    assert_eq!(made(dir.path(), "-q x 8m"), "");
    assert!(
        made(dir.path(), "-n -b -8192 y 8m").contains("blocks of 8192"),
        "at least"
    );
    assert!(
        made(dir.path(), "-n -b -1024 y 8m").contains("blocks of 4096"),
        "at least"
    );
}

#[test]
fn json_is_one_object() {
    let dir = tempfile::tempdir().unwrap();
    let text = made(dir.path(), "--json -L name -b 2k x 4096");
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (object["bytes"].as_u64(), object["label"].as_str()),
        (Some(8 << 20), Some("name")),
        "bare size counts blocks"
    );
    assert_eq!(object["made"], true);
}

#[test]
fn identifiers_are_of_the_kind_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let uuid = |which: &str| {
        let text = made(dir.path(), &format!("--json -F -U {which} x 4m"));
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        object["uuid"].as_str().unwrap().to_owned()
    };
    let version = |text: &str| text.as_bytes()[14];
    let (one, two) = (uuid("time"), uuid("time"));
    assert_eq!((version(&one), one == two), (b'1', false));
    assert_eq!(version(&uuid("random")), b'4');
    let (one, two) = (uuid("content"), uuid("content"));
    assert_eq!((version(&one), one == two), (b'5', true));
    assert_eq!(uuid("clear"), "00000000-0000-0000-0000-000000000000");
    let own = "01234567-89ab-cdef-0123-456789abcdef";
    assert_eq!(uuid(own), own);
}

#[test]
fn an_offset_keeps_what_is_around_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![0x5a; 12 << 20]).unwrap();
    made(dir.path(), "-q -E offset=1m disk 8m");
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 12 << 20);
    assert!(
        bytes[..1 << 20]
            .iter()
            .chain(&bytes[9 << 20..])
            .all(|&byte| byte == 0x5a)
    );
    if judge::present("e2fsck") {
        judge::e2fsck_clean(
            Path::new(&format!("{}?offset=1048576", path.display())),
            "at an offset",
        );
    }
}

#[test]
fn source_date_epoch_makes_images_equal() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mkfs-ext2dax"));
        command
            .current_dir(dir.path())
            .args(["-q", name, "4m"])
            .env("SOURCE_DATE_EPOCH", "1700000000");
        assert!(command.status().unwrap().success());
    }
    let read = |name| std::fs::read(dir.path().join(name)).unwrap();
    assert_eq!(read("one"), read("two"));
}

#[test]
fn json_tells_digest_and_times_that_were_lowered() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("s")).unwrap();
    for (nr, seconds) in [(1, 1_000_000_000), (2, 1_600_000_000), (3, 1_700_000_001)] {
        let file = std::fs::File::create(dir.path().join(format!("s/{nr}"))).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        file.set_modified(time).unwrap();
    }
    let run = |label: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mkfs-ext2dax"));
        command
            .current_dir(dir.path())
            .args(["--json", "-F", "-L", label, "-d", "s", "x", "auto"])
            .env("SOURCE_DATE_EPOCH", "1600000000");
        let output = command.output().unwrap();
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        object["contents"].clone()
    };
    let (one, two) = (run("one"), run("two"));
    assert_eq!(one["clamped_times"], 1);
    assert_eq!(one["digest"].as_str().unwrap().len(), 32);
    assert_eq!(one, two, "the label is no content");
    std::fs::write(dir.path().join("s/1"), "x").unwrap();
    assert_ne!(one["digest"], run("one")["digest"]);
}

#[test]
fn the_environment_gives_time_and_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        "[defaults]\n\tblocksize = 1024\n[fs_types]\n\tnews = {\n\t\tinode_size = 512\n\t}\n";
    std::fs::write(dir.path().join("config"), config).unwrap();
    let run = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mkfs-ext2dax"));
        command
            .current_dir(dir.path())
            .args(["--json", "-F", "-T", "news", "x", "8m"])
            .envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let bytes = std::fs::read(dir.path().join("x")).unwrap();
        // s_mkfs_time.
        let made = u32::from_le_bytes(*bytes[1024 + 264..].first_chunk().unwrap());
        (
            object["block_size"].clone(),
            object["inode_size"].clone(),
            made,
        )
    };
    let (block, inode, _) = run(&[]);
    assert_eq!((block, inode), (4096.into(), 256.into()), "nothing is read");
    let given = [
        ("MKE2FS_CONFIG", "config"),
        ("E2FSPROGS_FAKE_TIME", "1234567890"),
    ];
    assert_eq!(run(&given), (1024.into(), 512.into(), 1_234_567_890));
}

#[test]
fn the_root_directory_has_the_label_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let label = "system_u:object_r:root_t:s0";
    made(
        dir.path(),
        &format!("-q -E root_selinux={label},root_owner=1:2 x 4m"),
    );
    let region =
        ext2dax_pmem::FileRegion::open(dir.path().join("x"), ext2dax_pmem::Access::ReadOnly);
    let options = ext2dax::MountOptions::new().read_only(true);
    let fs = ext2dax::FileSystem::mount(region.unwrap(), &options).unwrap();
    let root = fs.root().unwrap();
    let value = root.xattr(b"security.selinux").unwrap();
    assert_eq!(value, [label.as_bytes(), b"\0"].concat());
    assert_eq!(root.attributes().unwrap().uid, 1);
    assert!(fs.statfs().blocks_free > 900, "as large as asked");
    drop(root);
    fs.unmount().unwrap();
    if judge::present("e2fsck") {
        judge::e2fsck_clean(&dir.path().join("x"), "label");
    }
}

/// What others would still take for theirs goes, also where bytes are to stay.
#[test]
fn old_signatures_at_both_ends_are_wiped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::create_dir(dir.path().join("s")).unwrap();
    let len = (8 << 20) + 4096;
    for contents in ["", "-d s "] {
        let mut old = vec![0x5a_u8; len + (2 << 20)];
        let at = 2 << 20;
        // btrfs; RAID 0.90, which counts from the end in 64 KiB; RAID 1.0, in 8 KiB; the copy of a GPT.
        let places = [
            0x1_0040,
            (len & !0xffff) - 0x1_0000,
            (len & !0xfff) - 0x2000,
            len - 512,
        ];
        for place in places {
            old[at + place..at + place + 8].copy_from_slice(b"SOMEONES");
        }
        std::fs::write(&path, &old).unwrap();
        made(
            dir.path(),
            &format!("-q -E offset=2m,nodiscard {contents}disk"),
        );
        let new = std::fs::read(&path).unwrap();
        assert!(!new.windows(8).any(|window| window == b"SOMEONES"));
        assert!(new[..at] == old[..at]);
        let middle = at + (6 << 20);
        assert_eq!(new[middle], 0x5a, "free blocks keep what they have");
    }
}

#[test]
fn an_offset_off_the_grid_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), "--json -E offset=1m disk 8m");
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && complaint.contains("no multiple of 2 MiB"));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["warnings"].as_array().unwrap().len(), 1);
    let output = run(dir.path(), "--json -F -E offset=1m,align_base=0 disk 8m");
    assert!(output.stderr.is_empty());
}

#[test]
fn progress_goes_to_a_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let shell = "exec 7>lines; \"$0\" -q --progress=7 x 64m";
    let output = Command::new("sh")
        .current_dir(dir.path())
        .args(["-c", shell, env!("CARGO_BIN_EXE_mkfs-ext2dax")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = std::fs::read_to_string(dir.path().join("lines")).unwrap();
    assert_eq!(lines.lines().last(), Some("1 1 1 x"), "{lines}");
    refused(dir.path(), "--progress=99 y 8m", "--progress=99");
    refused(dir.path(), "--progress=x y 8m", "--progress=x: must be");
    assert!(!dir.path().join("y").exists());
}

#[test]
fn a_file_held_by_a_reader_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), "-q x 4m");
    let before = std::fs::read(dir.path().join("x")).unwrap();
    let _reader =
        ext2dax_pmem::FileRegion::open(dir.path().join("x"), ext2dax_pmem::Access::ReadOnly)
            .unwrap();
    refused(dir.path(), "-F x", "in use");
    assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), before);
}

/// Overwriting a mounted image would leave the kernel with a file system that is no more.
#[test]
fn a_mounted_image_is_refused_until_forced_twice() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), "-q x 4m");
    let (image, at) = (dir.path().join("x"), dir.path().join("mnt"));
    std::fs::create_dir(&at).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "ext2", "-o", "loop,ro"])
        .arg(&image)
        .arg(&at)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os("CI").is_none_or(|value| value != "true"),
            "no kernel mount"
        );
        eprintln!("skipped: no kernel mount");
        return;
    }
    let before = std::fs::read(&image).unwrap();
    let output = run(dir.path(), "-F x");
    let complaint = String::from_utf8(output.stderr).unwrap();
    let unchanged = std::fs::read(&image).unwrap() == before;
    judge::unmount(&at);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        complaint.contains("in use") && complaint.contains("-F -F"),
        "{complaint}"
    );
    assert!(unchanged);
}
