//! A whole file system as a value: names, attributes, contents by digest, holes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ext2dax::{Error, FileSystem, FileType, Timestamp};
use rustix::fs::SeekFrom;

/// Digests count in chunks of this many bytes; chunks of zeroes do not count, so that a hole and zeroes are alike.
pub const CHUNK: u64 = 4096;

/// Digest of contents that are nothing but zeroes.
pub const EMPTY_DIGEST: u32 = 0;

/// One file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What kind of file it is.
    pub file_type: FileType,
    /// Permission bits.
    pub mode: u16,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Number of names.
    pub links: u64,
    /// Bytes; 0 for directories, whose size is the driver's business, and for what has none.
    pub size: u64,
    /// Digest of the contents, or of a symlink's target.
    pub digest: u32,
    /// Where data lies, in bytes; `None` where nobody can tell.
    pub data: Option<Vec<Range<u64>>>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Modification time, if known.
    pub modified: Option<Timestamp>,
    /// Access time, if known.
    pub accessed: Option<Timestamp>,
    /// Change time, if known.
    pub changed: Option<Timestamp>,
    /// Digest of the extended attributes, lists included; `None` where nobody knows.
    pub attributes: Option<u32>,
    /// Which names are one file: equal within a tree, without meaning outside it.
    pub identity: u64,
}

/// Path from the root without a leading slash (the root itself is empty) -> file.
pub type Tree = BTreeMap<Vec<u8>, Entry>;

/// Digest of one chunk of contents at byte `at`, to be XORed over all chunks. Order does not matter, zeroes do not count.
#[must_use]
pub fn chunk_digest(at: u64, chunk: &[u8]) -> u32 {
    let Some(last) = chunk.iter().rposition(|&byte| byte != 0) else {
        return EMPTY_DIGEST;
    };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&at.to_le_bytes());
    hasher.update(&chunk[..=last]);
    // CRCs are linear: without the product two chunks that changed places would not show in the XOR of both.
    hasher.finalize().wrapping_mul(0x9e37_79b1).rotate_left(7)
}

/// Digest of contents given in one piece.
#[must_use]
pub fn digest(contents: &[u8]) -> u32 {
    (0..)
        .step_by(CHUNK as usize)
        .zip(contents.chunks(CHUNK as usize))
        .fold(EMPTY_DIGEST, |digest, (at, chunk)| {
            digest ^ chunk_digest(at, chunk)
        })
}

/// Digest of the parts of a file where data lies.
fn digest_of(
    data: &[Range<u64>],
    size: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<()>,
) -> Result<u32> {
    let mut digest = EMPTY_DIGEST;
    let mut next = 0;
    let mut buf = vec![0; 256 * CHUNK as usize];
    for range in data {
        let mut at = (range.start / CHUNK * CHUNK).max(next);
        let end = range.end.next_multiple_of(CHUNK).min(size);
        while at < end {
            let len = usize::try_from(end - at)
                .unwrap_or(buf.len())
                .min(buf.len());
            read(&mut buf[..len], at)?;
            for (index, chunk) in buf[..len].chunks(CHUNK as usize).enumerate() {
                digest ^= chunk_digest(at + index as u64 * CHUNK, chunk);
            }
            at += len as u64;
        }
        next = end.next_multiple_of(CHUNK).max(next);
    }
    Ok(digest)
}

/// Reads a mounted image through ours.
///
/// # Errors
/// Whatever a call answers.
pub fn ours(fs: &FileSystem) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let at = [b"/", &path[..]].concat();
        let entry = our_entry(fs, &at).with_context(|| format!("ours: {}", at.escape_ascii()))?;
        if entry.file_type == FileType::Directory {
            for child in fs.read_dir(&at)? {
                let child = child?;
                let mut child_path = path.clone();
                if !path.is_empty() {
                    child_path.push(b'/');
                }
                child_path.extend_from_slice(child.file_name());
                pending.push(child_path);
            }
        }
        ensure!(
            tree.insert(path, entry).is_none(),
            "ours: {} is listed twice",
            at.escape_ascii()
        );
    }
    Ok(tree)
}

fn our_entry(fs: &FileSystem, path: &[u8]) -> Result<Entry> {
    let metadata = fs.symlink_metadata(path)?;
    let mut data = None;
    let mut digest_found = EMPTY_DIGEST;
    match metadata.file_type() {
        FileType::Symlink => digest_found = digest(&fs.read_link(path)?),
        FileType::Regular => {
            let file = fs.open(path)?;
            let mut ranges = Vec::new();
            let mut at = 0;
            loop {
                let start = match file.seek_data(at) {
                    Ok(start) => start,
                    Err(Error::NoSuchOffset) => break,
                    Err(error) => return Err(error.into()),
                };
                at = file.seek_hole(start)?;
                ensure!(start < at, "seek_hole({start}) answers {at}");
                ranges.push(start..at);
            }
            digest_found = digest_of(&ranges, metadata.len(), |buf, at| {
                Ok(file.read_exact_at(buf, at)?)
            })?;
            data = Some(ranges);
        }
        _ => {}
    }
    Ok(Entry {
        file_type: metadata.file_type(),
        mode: metadata.permissions().mode(),
        owner: (metadata.uid(), metadata.gid()),
        links: metadata.nlink().into(),
        size: counted_size(metadata.file_type(), metadata.len()),
        digest: digest_found,
        data,
        device: metadata.rdev().map(|device| (device.major, device.minor)),
        modified: Some(metadata.modified()),
        accessed: Some(metadata.accessed()),
        changed: Some(metadata.changed()),
        attributes: Some(our_attributes(fs, path)?),
        identity: metadata.ino().into(),
    })
}

fn our_attributes(fs: &FileSystem, path: &[u8]) -> Result<u32> {
    let inode = match path.iter().rposition(|&byte| byte == b'/') {
        // Not through a symlink at the end of the path.
        Some(slash) if path.len() > 1 => fs.inode(&path[..=slash])?.lookup(&path[slash + 1..])?,
        _ => fs.root()?,
    };
    let mut found = Vec::new();
    for name in inode.list_xattrs()? {
        let value = inode.xattr(&name)?;
        found.push((name, value));
    }
    Ok(attributes_digest(found))
}

fn host_attributes(path: &Path) -> Result<u32> {
    let mut names = vec![0; 65_536];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(len) => len,
        // Not every file system that a tool extracts to has any.
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0; 65_536];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        found.push((name.to_vec(), value));
    }
    Ok(attributes_digest(found))
}

fn attributes_digest(mut found: Vec<(Vec<u8>, Vec<u8>)>) -> u32 {
    found.sort();
    let mut hasher = crc32fast::Hasher::new();
    for (name, value) in found {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(&name);
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(&value);
    }
    hasher.finalize()
}

fn counted_size(file_type: FileType, size: u64) -> u64 {
    if matches!(file_type, FileType::Regular | FileType::Symlink) {
        size
    } else {
        0
    }
}

/// Reads a directory of the host: a kernel mount, or what a tool extracted.
///
/// # Errors
/// Whatever a call answers.
pub fn host(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let at = root.join(OsStr::from_bytes(&path));
        let entry = host_entry(&at).with_context(|| format!("host: {}", at.display()))?;
        if entry.file_type == FileType::Directory {
            for child in fs::read_dir(&at)? {
                let mut child_path = path.clone();
                if !path.is_empty() {
                    child_path.push(b'/');
                }
                child_path.extend_from_slice(child?.file_name().as_bytes());
                pending.push(child_path);
            }
        }
        tree.insert(path, entry);
    }
    Ok(tree)
}

/// The host's word for a type in ours.
#[must_use]
pub fn type_of(kind: fs::FileType) -> FileType {
    match () {
        () if kind.is_dir() => FileType::Directory,
        () if kind.is_symlink() => FileType::Symlink,
        () if kind.is_char_device() => FileType::CharDevice,
        () if kind.is_block_device() => FileType::BlockDevice,
        () if kind.is_fifo() => FileType::Fifo,
        () if kind.is_socket() => FileType::Socket,
        () => FileType::Regular,
    }
}

fn host_entry(path: &Path) -> Result<Entry> {
    let metadata = fs::symlink_metadata(path)?;
    let file_type = type_of(metadata.file_type());
    let mut data = None;
    let mut digest_found = EMPTY_DIGEST;
    match file_type {
        FileType::Symlink => digest_found = digest(fs::read_link(path)?.as_os_str().as_bytes()),
        FileType::Regular => {
            let file = fs::File::open(path)?;
            let ranges = host_data(&file)?;
            digest_found = digest_of(&ranges, metadata.len(), |buf, at| {
                Ok(std::os::unix::fs::FileExt::read_exact_at(&file, buf, at)?)
            })?;
            data = Some(ranges);
        }
        _ => {}
    }
    let time = |secs, nanos: i64| {
        Some(Timestamp {
            secs,
            nanos: u32::try_from(nanos).unwrap_or(0),
        })
    };
    let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
    let rdev = metadata.rdev();
    Ok(Entry {
        file_type,
        mode: u16::try_from(metadata.mode() & 0o7777)?,
        owner: (metadata.uid(), metadata.gid()),
        links: metadata.nlink(),
        size: counted_size(file_type, metadata.len()),
        digest: digest_found,
        data,
        device: is_device.then(|| (rustix::fs::major(rdev), rustix::fs::minor(rdev))),
        modified: time(metadata.mtime(), metadata.mtime_nsec()),
        accessed: time(metadata.atime(), metadata.atime_nsec()),
        changed: time(metadata.ctime(), metadata.ctime_nsec()),
        attributes: Some(host_attributes(path)?),
        identity: metadata.ino(),
    })
}

fn host_data(file: &fs::File) -> Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(ranges),
            Err(error) => return Err(error.into()),
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        ranges.push(start..at);
    }
}

/// The part of a tree below one of its directories, that directory being the root.
#[must_use]
pub fn below(tree: &Tree, dir: &[u8]) -> Tree {
    let inside = |path: &[u8]| {
        let rest = path.strip_prefix(dir)?;
        match rest.split_first() {
            None => Some(Vec::new()),
            Some((b'/', rest)) => Some(rest.to_vec()),
            Some(_) => None,
        }
    };
    tree.iter()
        .filter_map(|(path, entry)| Some((inside(path)?, entry.clone())))
        .collect()
}

/// What two trees are compared by besides names, types, modes, owners, links, sizes, contents and devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// Access, modification and change times, where both sides know them.
    pub times: bool,
    /// Where data and where holes lie, where both sides know it.
    pub holes: bool,
    /// Not owners, modes above 0777, nor links: a tool that extracts as a plain user cannot keep them.
    pub extracted: bool,
}

/// The differences of two trees, one a line; empty if there are none.
#[must_use]
pub fn differences(left: &Tree, right: &Tree, compare: Compare) -> String {
    let mut text = String::new();
    for (path, entry) in left {
        match right.get(path) {
            None => report(&mut text, path, "only in the first"),
            Some(other) => {
                let differs = entry_differences(entry, other, compare);
                if !differs.is_empty() {
                    report(&mut text, path, &differs);
                }
            }
        }
    }
    for path in right.keys().filter(|path| !left.contains_key(*path)) {
        report(&mut text, path, "only in the second");
    }
    if !compare.extracted && names_by_file(left) != names_by_file(right) {
        text.push_str("names are grouped into files differently\n");
    }
    text
}

fn report(text: &mut String, path: &[u8], what: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "/{}: {what}", path.escape_ascii());
}

fn entry_differences(left: &Entry, right: &Entry, compare: Compare) -> String {
    let mut text = String::new();
    let mut check = |what: &str, equal: bool, values: String| {
        if !equal {
            // Writing to a string cannot fail.
            let _ = write!(text, "{what} {values}; ");
        }
    };
    macro_rules! check {
        ($field:ident) => {
            check(
                stringify!($field),
                left.$field == right.$field,
                format!("{:?} {:?}", left.$field, right.$field),
            )
        };
    }
    check!(file_type);
    check!(size);
    check!(digest);
    if !compare.extracted {
        check!(mode);
        check!(owner);
        check!(links);
        check!(device);
        if left.attributes.is_some() && right.attributes.is_some() {
            check!(attributes);
        }
    }
    if compare.times {
        for (what, left, right) in [
            ("modified", left.modified, right.modified),
            ("accessed", left.accessed, right.accessed),
            ("changed", left.changed, right.changed),
        ] {
            let equal = left.zip(right).is_none_or(|(left, right)| left == right);
            check(what, equal, format!("{left:?} {right:?}"));
        }
    }
    if compare.holes {
        let equal = left
            .data
            .as_ref()
            .zip(right.data.as_ref())
            .is_none_or(|(left, right)| left == right);
        check("data", equal, format!("{:?} {:?}", left.data, right.data));
    }
    text
}

/// The groups of names that are one file.
fn names_by_file(tree: &Tree) -> Vec<Vec<&[u8]>> {
    let mut groups: BTreeMap<u64, Vec<&[u8]>> = BTreeMap::new();
    for (path, entry) in tree
        .iter()
        .filter(|(_, entry)| entry.file_type != FileType::Directory)
    {
        groups.entry(entry.identity).or_default().push(path);
    }
    let mut groups: Vec<_> = groups
        .into_values()
        .filter(|names| names.len() > 1)
        .collect();
    groups.sort();
    groups
}
