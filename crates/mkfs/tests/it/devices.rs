//! Block devices: whole ones, partitions, and images inside a disk. Loop devices stand for them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contents::{made, refused};
use crate::judge;
use crate::tree::{assert_same, look, noise};

/// A loop device, until it is dropped.
struct Loop(PathBuf);

impl Loop {
    /// `None` where there are none.
    fn new(file: &Path, args: &[&str]) -> Option<Self> {
        let made = Command::new("losetup")
            .args(["-f", "--show"])
            .args(args)
            .arg(file)
            .output();
        match made {
            Ok(output) if output.status.success() => {
                let name = String::from_utf8(output.stdout).unwrap();
                Some(Self(PathBuf::from(name.trim())))
            }
            other => {
                let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
                assert!(!ci, "no loop device: {other:?}");
                eprintln!("skipped: no loop device");
                None
            }
        }
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

/// A mount, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(device: &str, at: PathBuf) -> Self {
        let _ = fs::create_dir(&at);
        let mount = Command::new("mount")
            .args(["-t", "ext2", "-o", "ro", device])
            .arg(&at)
            .output()
            .unwrap();
        assert!(mount.status.success(), "{mount:?}");
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        judge::unmount(&self.0);
    }
}

fn source(at: &Path) {
    fs::create_dir_all(at.join("s/sub")).unwrap();
    for nr in 0..40 {
        fs::write(at.join(format!("s/sub/{nr}")), noise(nr * 3000, 1)).unwrap();
    }
    fs::write(at.join("s/large"), noise(5 << 20, 2)).unwrap();
}

#[test]
fn a_block_device_is_filled_and_what_it_held_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    source(at);
    let disk = at.join("disk");
    fs::write(&disk, vec![0x5a; 64 << 20]).unwrap();
    let Some(device) = Loop::new(&disk, &[]) else {
        return;
    };
    let name = device.name();
    // As large as the device, although the contents would fit into less.
    let said = made(at, &["-d", "s", name]);
    assert!(said.contains("16384 blocks of 4096"), "{said}");
    assert!(fs::metadata(&disk).unwrap().blocks() * 512 < 32 << 20);
    if judge::present("e2fsck") {
        judge::e2fsck_clean(&device.0, "device");
    }
    refused(at, &["-d", "s", name], "contains ext2; -F overwrites it");
    refused(at, &["-F", name, "65m"], "the device has 67108864");
    {
        let mount = Mount::new(name, at.join("mnt"));
        assert_same(&look(&at.join("s")), &look(&mount.0), "device");
        refused(at, &["-F", "-d", "s", name], "in use (mounted on");
        refused(at, &["--merge", "-d", "s", name], "in use (mounted on");
        // The file behind it is as much in use.
        refused(at, &["-F", "disk"], "in use (by loop");
    }
    // Contents into the device.
    fs::create_dir(at.join("more")).unwrap();
    fs::write(at.join("more/new"), "new").unwrap();
    made(at, &["-q", "--merge", "-d", "more", name]);
    if judge::present("e2fsck") {
        judge::e2fsck_clean(&device.0, "merged");
    }
    // What stays where bytes are to stay does not show.
    drop(device);
    fs::write(&disk, vec![0x5a; 64 << 20]).unwrap();
    let Some(device) = Loop::new(&disk, &[]) else {
        return;
    };
    made(at, &["-q", "-E", "nodiscard", device.name(), "32m"]);
    if judge::present("e2fsck") {
        judge::e2fsck_clean(&device.0, "nodiscard");
    }
    drop(device);
    let bytes = fs::read(&disk).unwrap();
    assert!(bytes[32 << 20..].iter().all(|&byte| byte == 0x5a));
}

/// A disk with a partition from 1 MiB on, 24 MiB long.
fn disk_with_partition(path: &Path) {
    let mut disk = vec![0x5a; 32 << 20];
    disk[..512].fill(0);
    let entry = &mut disk[446..462];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&2048_u32.to_le_bytes());
    entry[12..16].copy_from_slice(&(24_u32 << 11).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(path, disk).unwrap();
}

#[test]
fn a_partition_is_reached_by_its_device_and_by_an_offset() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    source(at);
    let disk = at.join("disk");
    disk_with_partition(&disk);
    let table = fs::read(&disk).unwrap()[..1 << 20].to_vec();
    let Some(device) = Loop::new(&disk, &["-P"]) else {
        return;
    };
    let name = device.name();
    refused(at, &["-d", "s", name], "a whole disk (MBR)");
    // By offset, in the file's device, with the same bytes as in the partition.
    let extended = ["-E", "offset=1m,align_base=1m"];
    made(
        at,
        &[&["-q", "-d", "s"], &extended[..], &[name, "24m"]].concat(),
    );
    let partition = format!("{name}p1");
    if !Path::new(&partition).exists() {
        // A kernel that reads no such tables can be told.
        let numbers = ["1", "2048", "49152"];
        let _ = Command::new("addpart").arg(name).args(numbers).status();
    }
    if Path::new(&partition).exists() {
        let by_offset = fs::read(&partition).unwrap();
        judge::present("e2fsck").then(|| judge::e2fsck_clean(Path::new(&partition), "offset"));
        made(
            at,
            &["-q", "-F", "-E", "align_base=1m", "-d", "s", &partition],
        );
        assert!(fs::read(&partition).unwrap() == by_offset);
        let mount = Mount::new(&partition, at.join("mnt"));
        assert_same(&look(&at.join("s")), &look(&mount.0), "partition");
        refused(at, &["-F", "-d", "s", &partition], "in use (mounted on");
        // Nobody has mounted the disk, but a part of it.
        refused(at, &["-F", "-F", name, "33m"], "the device has");
        refused(at, &["-F", "-d", "s", name], "in use (mounted, or part");
    } else {
        eprintln!("skipped: no partitions of loop devices");
    }
    drop(device);
    let bytes = fs::read(&disk).unwrap();
    assert!(bytes[..1 << 20] == table, "the partition table");
    assert!(bytes[25 << 20..].iter().all(|&byte| byte == 0x5a));
}
