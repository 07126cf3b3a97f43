//! The images: made by our own mkfs and library, on tmpfs, with holes where no check ever looks.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ext2dax::{FileSystem, MountOptions, OpenOptions};
use ext2dax_fsck::{CheckOptions, repair};
use ext2dax_mkfs::{Inodes, Options};
use ext2dax_pmem::{Access, FileRegion, Off, Pmem};
use rustix::fs::{FallocateFlags, fallocate};
use zerocopy::little_endian::{U16, U32};

/// Names in one directory.
const NAMES: u32 = 1_000;
const BLOCK: u64 = 4096;

fn empty(path: &Path, len: u64, inodes: u32) -> Result<FileSystem> {
    let options = Options {
        inodes: Inodes::Count(inodes),
        ..Options::with_block_size(4096)
    };
    ext2dax_mkfs::make_file(path, &options, len)?;
    let region = FileRegion::open(path, Access::ReadWrite)?;
    Ok(FileSystem::mount(region, &MountOptions::new())?)
}

fn fill(fs: &FileSystem, files: u32, blocks: impl Fn(u32) -> u64, path: &Path) -> Result<()> {
    for i in 0..files {
        let dir = i / NAMES;
        if i % NAMES == 0 {
            fs.create_dir(format!("/directory-{dir}"))?;
        }
        let name = format!("/directory-{dir}/a-file-with-a-name-{i}");
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(fs, &name)?;
        if blocks(i) != 0 {
            file.allocate(0..blocks(i) * BLOCK)?;
        }
        // Contents are zeroes, and so are holes: their memory goes back before it gets too much.
        if i % 50_000 == 49_999 {
            drop_contents(path)?;
        }
    }
    Ok(())
}

/// Blocks of the `i`-th file of a tree of sources: a few empty, half of one or two blocks, some with an indirect block;
/// 5.1 blocks on the average.
fn tree(i: u32) -> u64 {
    match i % 20 {
        0 => 0,
        1..=5 => 1,
        6..=10 => 2,
        11..=14 => u64::from(3 + i / 20 % 2),
        15..=17 => u64::from(5 + i / 20 % 4),
        18 => u64::from(9 + i / 20 % 8),
        _ => u64::from(20 + i / 20 % 35),
    }
}

/// `files` regular files with sizes as in a tree of sources, in directories of 1,000.
///
/// # Errors
/// When there is no space.
pub fn files(path: &Path, files: u32) -> Result<()> {
    let fs = empty(
        path,
        u64::from(files) * 6 * BLOCK + (64 << 20),
        files + files / 8,
    )?;
    fill(&fs, files, tree, path)?;
    fs.unmount()?;
    drop_contents(path)
}

/// `files` regular files of no, one or two blocks.
///
/// # Errors
/// When there is no space.
pub fn small(path: &Path, files: u32) -> Result<()> {
    let fs = empty(
        path,
        u64::from(files) * 3 * BLOCK + (64 << 20),
        files + files / 8,
    )?;
    fill(&fs, files, |i| [0, 1, 1, 2][(i % 4) as usize], path)?;
    fs.unmount()?;
    drop_contents(path)
}

/// A file system of 1 TiB with `files` empty files, spread over all of its groups.
///
/// # Errors
/// When there is no space.
pub fn sparse(path: &Path, files: u32) -> Result<()> {
    let fs = empty(path, 1 << 40, files + files / 4)?;
    fill(&fs, files, |_| 0, path)?;
    fs.unmount()?;
    Ok(())
}

/// One file of 1 GiB of which no two blocks are neighbours.
///
/// The pointers are stored past the library, which would not do such a thing; the checker's repair puts counts and
/// bitmaps in order, and e2fsck has to agree.
///
/// # Errors
/// When the image does not come out clean.
pub fn fragmented(path: &Path) -> Result<()> {
    const BLOCKS: u32 = 1 << 18;
    let fs = empty(path, 4 << 30, 1024)?;
    fs.create("/fragments")?
        .set_len(u64::from(BLOCKS) * BLOCK)?;
    fs.unmount()?;
    let pmem = Pmem::new(FileRegion::open(path, Access::ReadWrite)?);
    let tables = Tables::read(&pmem);
    // Where bitmaps and tables end in a group, and for the descriptors: nothing of ours lies in the first 4,096 blocks.
    let mut free = (0_u32..)
        .map(|i| 4096 + 3 * i)
        .filter(|block| block % tables.blocks_per_group >= 4096);
    let mut next = move || free.next().unwrap_or(0);
    let inode = tables.inode(&pmem, 12);
    ensure!(
        pmem.load(Off::<U16>::new(inode)).get() >> 12 == 8,
        "inode 12 is the file"
    );
    let mut slots = Vec::with_capacity(BLOCKS as usize);
    slots.extend((0..12).map(|i| inode + 40 + i * 4));
    let single = u64::from(next());
    pmem.store(Off::new(inode + 88), U32::new(u32::try_from(single)?));
    slots.extend((0..1024).map(|i| single * BLOCK + i * 4));
    let double = u64::from(next());
    pmem.store(Off::new(inode + 92), U32::new(u32::try_from(double)?));
    for i in 0..1024 {
        if slots.len() >= BLOCKS as usize {
            break;
        }
        let below = next();
        pmem.store(Off::new(double * BLOCK + i * 4), U32::new(below));
        slots.extend((0..1024).map(|k| u64::from(below) * BLOCK + k * 4));
    }
    for slot in slots.into_iter().take(BLOCKS as usize) {
        pmem.store(Off::new(slot), U32::new(next()));
    }
    let repaired = repair(&pmem, &CheckOptions::default(), &mut |_| true)?;
    ensure!(repaired.report.is_clean(), "{:?}", repaired.report.findings);
    Ok(())
}

/// Breaks every inode of an image of [`files`]: a wrong block count in each, and a wrong fragment address in every other.
///
/// # Errors
/// When the image cannot be opened.
pub fn damage(path: &Path, files: u32) -> Result<()> {
    let pmem = Pmem::new(FileRegion::open(path, Access::ReadWrite)?);
    let tables = Tables::read(&pmem);
    for ino in 12..files + files / NAMES {
        let at = tables.inode(&pmem, ino);
        if pmem.load(Off::<U16>::new(at + 26)).get() != 0 {
            pmem.store(Off::new(at + 28), U32::new(3));
            pmem.store(Off::new(at + 112), U32::new(ino % 2));
        }
    }
    Ok(())
}

/// Where the inodes are.
struct Tables {
    inodes_per_group: u32,
    blocks_per_group: u32,
    inode_size: u64,
}

impl Tables {
    fn read(pmem: &Pmem) -> Self {
        let le32 = |at: u64| pmem.load(Off::<U32>::new(1024 + at)).get();
        Self {
            inodes_per_group: le32(40),
            blocks_per_group: le32(32),
            inode_size: u64::from(pmem.load(Off::<U16>::new(1024 + 88)).get()),
        }
    }

    fn inode(&self, pmem: &Pmem, ino: u32) -> u64 {
        let (group, index) = (
            u64::from((ino - 1) / self.inodes_per_group),
            u64::from((ino - 1) % self.inodes_per_group),
        );
        let table = pmem.load(Off::<U32>::new(BLOCK + group * 32 + 8)).get();
        u64::from(table) * BLOCK + index * self.inode_size
    }
}

/// Gives the memory of file contents back to the host: a check never reads them.
fn drop_contents(path: &Path) -> Result<()> {
    let pmem = Pmem::new(FileRegion::open(path, Access::ReadOnlyForced)?);
    let tables = Tables::read(&pmem);
    let inodes = pmem.load(Off::<U32>::new(1024)).get();
    let mut blocks = Vec::new();
    let mut pointers = [0_u8; 60];
    let mut indirect = vec![0_u8; usize::try_from(BLOCK)?];
    let words = |bytes: &[u8]| -> Vec<u32> {
        let (words, _) = bytes.as_chunks::<4>();
        words
            .iter()
            .map(|word| u32::from_le_bytes(*word))
            .filter(|&block| block != 0)
            .collect()
    };
    for ino in 12..=inodes {
        let at = tables.inode(&pmem, ino);
        let mode = pmem.load(Off::<U16>::new(at)).get();
        let links = pmem.load(Off::<U16>::new(at + 26)).get();
        if links != 0 && mode >> 12 == 8 {
            pmem.read(at + 40, &mut pointers);
            blocks.extend(words(&pointers[..48]));
            let single = pmem.load(Off::<U32>::new(at + 88)).get();
            if single != 0 {
                pmem.read(u64::from(single) * BLOCK, &mut indirect);
                blocks.extend(words(&indirect));
            }
        }
    }
    drop(pmem);
    blocks.sort_unstable();
    let file = File::options().write(true).open(path)?;
    for run in blocks.chunk_by(|a, b| a + 1 == *b) {
        let start = u64::from(*run.first().context("a run has a block")?);
        fallocate(
            &file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            start * BLOCK,
            run.len() as u64 * BLOCK,
        )?;
    }
    Ok(())
}
