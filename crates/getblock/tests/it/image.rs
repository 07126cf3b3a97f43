//! An image from mke2fs, opened as a volume, with files made by hand.

use std::path::{Path, PathBuf};
use std::process::Command;

use ext2dax_format::{FileBlock, Geometry, Ino, RawInode, RawSuperblock};
use ext2dax_getblock::{BlockTree, Hints, Intent, Options, Placement, Volume};
use ext2dax_pmem::{Access, AnonRegion, FileRegion, Off, OpenError, Pmem};
use zerocopy::little_endian::{U16, U32};

/// Block sizes that the format has.
pub(crate) const BLOCK_SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16384, 32768, 65536];

pub(crate) struct Image {
    dir: tempfile::TempDir,
    pub(crate) volume: Volume,
}

/// Behind the predecessor, and not from the reserve.
pub(crate) const HINTS: Hints = Hints {
    goal: None,
    privileged: false,
};

/// Fill holes.
pub(crate) const ALLOCATE: Intent = Intent::Allocate(HINTS);

/// A size for an image of this block size: large blocks need more for a tree of three levels.
pub(crate) fn kib(block_size: u32) -> u32 {
    (16 * block_size).max(16 * 1024)
}

/// Whether the judges are installed. Where `CI` is true they must be.
pub(crate) fn judges() -> bool {
    let found = ["mke2fs", "e2fsck", "debugfs"]
        .iter()
        .all(|tool| Command::new(tool).arg("-V").output().is_ok());
    assert!(
        found || std::env::var_os("CI").is_none(),
        "CI needs e2fsprogs"
    );
    if !found {
        println!("skipped: e2fsprogs is not installed");
    }
    found
}

impl Image {
    /// mke2fs with these options and size in KiB, then opened.
    pub(crate) fn new(options: &[&str], kib: u32) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ext2dax-getblock")
            .tempdir_in(if Path::new("/dev/shm").is_dir() {
                "/dev/shm"
            } else {
                "/tmp"
            })
            .expect("a directory for the image");
        let path = dir.path().join("image");
        let made = Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext2"])
            .args(options)
            .arg(&path)
            .arg(format!("{kib}k"))
            .output()
            .expect("mke2fs");
        assert!(
            made.status.success(),
            "mke2fs {options:?}: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let volume = open(&path, true);
        Self { dir, volume }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Closes and opens again: as after a clean end, or with counters that nobody believes.
    pub(crate) fn reopen(&mut self, trust_counters: bool) {
        self.reopen_with(|path| open(path, trust_counters));
    }

    pub(crate) fn reopen_with(&mut self, open: impl FnOnce(&Path) -> Volume) {
        let idle = Pmem::new(AnonRegion::new(1 << 20).expect("memory"));
        let geometry = *self.volume.geometry();
        // The writer's lock on the file goes with the last handle.
        self.volume = Volume::open(idle, geometry, Options::default()).expect("a place holder");
        self.volume = open(&self.path());
    }

    /// Marks a table of the group as free, behind the volume's back.
    pub(crate) fn corrupt_bitmap(&self, group: u32) {
        let geometry = self.volume.geometry();
        let group = geometry.group(group).expect("a group");
        let pmem = self.volume.pmem();
        let raw = pmem.read_value(Off::new(geometry.desc_offset(group)));
        let desc = geometry
            .group_desc(&raw, group)
            .expect("a sound descriptor");
        let (_, bit) = geometry.locate_block(desc.inode_table);
        let byte = Off::<u8>::new(geometry.offset(desc.block_bitmap) + u64::from(bit / 8));
        pmem.store(byte, pmem.load(byte) & !(1 << (bit % 8)));
    }

    /// A live regular file whose inode lies in this group.
    pub(crate) fn file_in_group(&self, group: u32) -> BlockTree {
        let first = group * self.volume.geometry().inodes_per_group() + 1;
        let parent = self.volume.geometry().ino(first).expect("an inode");
        self.file_near(parent)
    }

    /// A live regular file, written by hand; [`Image::check`] gives it its name.
    pub(crate) fn file(&self) -> BlockTree {
        self.file_near(Ino::ROOT)
    }

    fn file_near(&self, parent: Ino) -> BlockTree {
        let tentative = self
            .volume
            .allocate_inode(Placement::Near { parent })
            .expect("an inode");
        let at = tentative.offset();
        let pmem = self.volume.pmem();
        pmem.zero(at.at(), u64::from(self.volume.geometry().inode_size()));
        pmem.store(
            ext2dax_pmem::field!(at, RawInode, i_mode),
            U16::new(0o100_644),
        );
        pmem.store(
            ext2dax_pmem::field!(at, RawInode, i_links_count),
            U16::new(1),
        );
        pmem.store(
            ext2dax_pmem::field!(at, RawInode, i_generation),
            U32::new(tentative.generation()),
        );
        BlockTree::new(&self.volume, tentative.keep()).expect("a tree")
    }

    /// Sets the size so that the last block is inside it.
    pub(crate) fn set_size(&self, tree: &BlockTree, blocks: u64) {
        let size = blocks << self.volume.geometry().block_bits();
        let pmem = self.volume.pmem();
        let at = tree.offset();
        let low = u32::try_from(size & 0xffff_ffff).expect("masked");
        let high = u32::try_from(size >> 32).expect("shifted");
        pmem.store(ext2dax_pmem::field!(at, RawInode, i_size), U32::new(low));
        pmem.store(
            ext2dax_pmem::field!(at, RawInode, i_size_high),
            U32::new(high),
        );
    }

    /// Writes the counters, closes the image, gives each inode a name and lets e2fsck judge.
    pub(crate) fn check(&self, inodes: &[Ino]) {
        self.volume.write_back_counters();
        let script: String = inodes
            .iter()
            .map(|ino| format!("ln <{0}> file{0}\n", ino.get()))
            .collect();
        let commands = self.dir.path().join("commands");
        std::fs::write(&commands, script).expect("the commands");
        let debugfs = Command::new("debugfs")
            .args(["-w", "-f"])
            .arg(&commands)
            .arg(self.path())
            .output()
            .expect("debugfs");
        assert!(
            debugfs.status.success(),
            "debugfs: {}",
            String::from_utf8_lossy(&debugfs.stderr)
        );
        let e2fsck = Command::new("e2fsck")
            .args(["-f", "-n"])
            .arg(self.path())
            .output()
            .expect("e2fsck");
        assert_eq!(
            e2fsck.status.code(),
            Some(0),
            "e2fsck -fn: {}",
            String::from_utf8_lossy(&e2fsck.stdout)
        );
    }
}

/// The image as a region. Its lock goes with the last copy of the file's descriptor, and the tests beside this one start
/// programs: a child has a copy until it executes its program.
pub(crate) fn region(path: &Path) -> FileRegion {
    for _ in 0..500 {
        match FileRegion::open(path, Access::ReadWrite) {
            Err(OpenError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(5)),
            opened => return opened.expect("the image"),
        }
    }
    panic!("{} stays in use", path.display())
}

fn open(path: &Path, trust_counters: bool) -> Volume {
    let region = region(path);
    let pmem = Pmem::new(region);
    let raw: RawSuperblock = pmem.read_value(Off::new(1024));
    let geometry = Geometry::new(&raw, pmem.len()).expect("a geometry");
    Volume::open(pmem, geometry, Options { trust_counters }).expect("a volume")
}

/// File block numbers around every edge of a tree of this block size: direct, single, double, triple.
pub(crate) fn edges(block_bits: u32) -> Vec<FileBlock> {
    let slots = 1_u64 << (block_bits - 2);
    let starts = [0, 11, 12, 12 + slots, 12 + slots + slots * slots];
    starts
        .into_iter()
        .flat_map(|start| [start.saturating_sub(1), start, start + 1, start + slots])
        .filter_map(|block| u32::try_from(block).ok())
        .map(FileBlock)
        .collect()
}
