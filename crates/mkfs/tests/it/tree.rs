//! Source trees with everything in them, and the comparison of what the kernel sees with where it came from.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, Mode, makedev, mknodat};

/// Bytes that are not the same from block to block.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// Makes a tree of all node types, sizes around every edge, odd names, links, attributes and lists. Whether nodes of
/// devices could be made (that needs root).
pub(crate) fn nasty(root: &Path) -> bool {
    let write = |name: &str, bytes: &[u8]| fs::write(root.join(name), bytes).unwrap();
    for len in [
        0,
        1,
        1023,
        1024,
        4095,
        4096,
        4097,
        12 * 1024,
        12 * 1024 + 1,
        49_152,
        49_153,
        300_000,
    ] {
        write(&format!("file-{len}"), &noise(len, len as u64));
    }
    // Larger than 2 MiB, with holes that end nowhere near a block.
    let large = File::create(root.join("large")).unwrap();
    large.write_all_at(&noise(2_500_000, 7), 0).unwrap();
    large.write_all_at(&noise(70_000, 8), 5_000_001).unwrap();
    large.set_len(6_000_000).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(b"far out", (3 << 30) + 77).unwrap();
    write("zeroes", &[0; 200_000]);
    fs::create_dir(root.join("empty")).unwrap();
    fs::create_dir_all(root.join("a/b/c/d")).unwrap();
    write("a/b/c/d/deep", b"down here");
    fs::hard_link(root.join("file-4097"), root.join("a/hard")).unwrap();
    fs::hard_link(root.join("file-4097"), root.join("a/b/harder")).unwrap();
    for len in [1, 59, 60, 500] {
        let target = "t".repeat(len);
        std::os::unix::fs::symlink(target, root.join(format!("link-{len}"))).unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"not \xff utf-8\n")), "x").unwrap();
    write(&"n".repeat(255), b"longest name");
    fs::create_dir(root.join("many")).unwrap();
    for nr in 0..1200 {
        write(&format!("many/a file of some length, number {nr}"), b"");
    }
    let path = |name: &str| root.join(name);
    let attribute = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(path(name), key, value, rustix::fs::XattrFlags::empty()).is_ok()
    };
    // Not every file system has them; the comparison sees what there is.
    attribute("file-1", "user.small", b"in the inode");
    attribute("file-1", "user.empty", b"");
    attribute("file-4096", "user.large", &noise(600, 3));
    attribute("file-4096", "user.small", b"1");
    attribute("a", "user.of.a.directory", b"too");
    let _ = Command::new("setfacl")
        .args(["-m", "u:1000:rx,g:77:w"])
        .arg(path("file-1024"))
        .status();
    let _ = Command::new("setfacl")
        .args(["-m", "d:u:1000:rx"])
        .arg(path("empty"))
        .status();
    let time = |name: &str, seconds: i64, nanos: u32| {
        let time = if seconds < 0 {
            std::time::UNIX_EPOCH - std::time::Duration::from_secs(seconds.unsigned_abs())
        } else {
            std::time::UNIX_EPOCH + std::time::Duration::new(seconds.unsigned_abs(), nanos)
        };
        File::open(path(name)).unwrap().set_modified(time).unwrap();
    };
    time("file-1", 2_600_000_000, 123_456_789);
    time("file-0", -86_400, 0);
    rustix::fs::chmod(path("file-4096"), Mode::from_bits_retain(0o4751)).unwrap();
    let kinds = [
        ("fifo", rustix::fs::FileType::Fifo, 0),
        ("socket", rustix::fs::FileType::Socket, 0),
        ("char", rustix::fs::FileType::CharacterDevice, makedev(5, 1)),
        (
            "block",
            rustix::fs::FileType::BlockDevice,
            makedev(300, 70_000),
        ),
    ];
    let made = kinds.map(|(name, kind, device)| {
        mknodat(CWD, path(name), kind, Mode::from_bits_retain(0o640), device).is_ok()
    });
    let _ = std::os::unix::fs::chown(path("file-1023"), Some(100_000), Some(70_000));
    made.iter().all(|&made| made)
}

/// One file as a comparison sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    size: u64,
    time: (i64, i64),
    device: u64,
    target: Option<Vec<u8>>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Digest of the bytes that are no holes.
    bytes: u32,
}

impl Seen {
    /// Whoever unpacks an archive may put names into a directory after its time was set.
    pub(crate) fn forget_time_of_directory(&mut self) {
        if self.mode & 0o170_000 == 0o040_000 {
            self.time = (0, 0);
        }
    }

    pub(crate) fn is_socket(&self) -> bool {
        self.mode & 0o170_000 == 0o140_000
    }

    /// Links from outside a tree count on the host and not in an image.
    pub(crate) fn forget_links(&mut self) {
        self.links = 0;
    }
}

/// Everything below a directory. `lost+found`, and the root's own line, are not there.
pub(crate) fn look(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path == root.join("lost+found") {
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                pending.push(path.clone());
            }
            let name = path
                .strip_prefix(root)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec();
            all.insert(name, see(&path, &meta));
        }
    }
    all
}

fn see(path: &Path, meta: &fs::Metadata) -> Seen {
    let kind = meta.file_type();
    let special = kind.is_char_device() || kind.is_block_device();
    Seen {
        kind: format!("{kind:?}"),
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        links: meta.nlink(),
        // How large a directory is, is the file system's business.
        size: if meta.is_dir() { 0 } else { meta.len() },
        time: (meta.mtime(), meta.mtime_nsec()),
        device: if special { meta.rdev() } else { 0 },
        target: kind
            .is_symlink()
            .then(|| fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()),
        attributes: attributes(path),
        bytes: if kind.is_file() {
            digest(path, meta.len())
        } else {
            0
        },
    }
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65_536];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}

/// Of every 4 KiB that are not zero, with their place.
fn digest(path: &Path, len: u64) -> u32 {
    let file = File::open(path).unwrap();
    let mut hasher = crc32fast::Hasher::new();
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    while at < len {
        match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => at = data - data % 4096,
            Err(_) => break,
        }
        let step = usize::try_from(len - at).unwrap().min(buffer.len());
        file.read_exact_at(&mut buffer[..step], at).unwrap();
        for (nr, piece) in (0_u64..).zip(buffer[..step].chunks(4096)) {
            if piece.iter().any(|&byte| byte != 0) {
                hasher.update(&(at + nr * 4096).to_le_bytes());
                hasher.update(piece);
            }
        }
        at += step as u64;
    }
    hasher.finalize()
}

/// Fails with the names that differ, a few of them.
pub(crate) fn assert_same(
    source: &BTreeMap<Vec<u8>, Seen>,
    image: &BTreeMap<Vec<u8>, Seen>,
    what: &str,
) {
    let mut wrong = Vec::new();
    for (name, seen) in source {
        match image.get(name) {
            Some(found) if found == seen => {}
            found => wrong.push(format!(
                "{}: {seen:?} became {found:?}",
                String::from_utf8_lossy(name)
            )),
        }
    }
    let extra = image.keys().filter(|name| !source.contains_key(*name));
    wrong.extend(extra.map(|name| format!("{}: not in the source", String::from_utf8_lossy(name))));
    wrong.truncate(5);
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
}
