//! Single entries by their place, for the recovery at mount: nobody has built an index yet, and nobody looks.

use alloc::vec;

use ext2dax_format::dirent::{Entries, encode_len};
use ext2dax_format::slot::EntryPlace;
use ext2dax_format::{FileBlock, FileType, Result};
use ext2dax_getblock::Mapping;
use ext2dax_pmem::{Off, Pmem};
use zerocopy::little_endian::{U16, U32};

use crate::inode::Record;

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// Where it lies in the region.
    at: u64,
    /// Where the entry before it in its block lies, and the length of both.
    previous: Option<(u64, u16)>,
    /// What it leads to, 0 if it is empty.
    pub(crate) ino: u32,
}

impl Spot {
    /// The entry at a place; `None` if none begins there. A block that is mapped just behind the directory's end belongs to
    /// it: the crash came between the pointer and the size, and the size is raised.
    ///
    /// # Errors
    /// `Corrupt` if the directory's tree or the block is damaged.
    pub(crate) fn at(dir: &Record, place: EntryPlace) -> Result<Option<Self>> {
        take_in(dir, place.block)?;
        Self::find(dir, place.block, |entry, _| entry == place.offset)
    }

    /// `..`, which stands in the first block.
    ///
    /// # Errors
    /// As [`Spot::at`].
    pub(crate) fn parent(dir: &Record) -> Result<Option<Self>> {
        Self::find(dir, 0, |_, name| name == b"..")
    }

    fn find(dir: &Record, block: u32, is: impl Fn(u32, &[u8]) -> bool) -> Result<Option<Self>> {
        let core = dir.core();
        let geometry = &core.geometry;
        let block_size = geometry.block_size();
        if u64::from(block) >= dir.size() / u64::from(block_size) {
            return Ok(None);
        }
        dir.check_contents()?;
        let Mapping::Existing(run) = dir.tree().lookup(FileBlock(block), 1)? else {
            return Ok(None);
        };
        let at = geometry.offset(run.start);
        let mut bytes = vec![0; block_size as usize];
        core.pmem.read(at, &mut bytes);
        let mut previous = None;
        for entry in Entries::new(&bytes, geometry, dir.ino(), FileBlock(block)) {
            let entry = entry?;
            if is(entry.offset, entry.name) {
                let merged = |(before, len): (u32, u32)| {
                    (at + u64::from(before), encode_len(len + entry.rec_len))
                };
                return Ok(Some(Self {
                    at: at + u64::from(entry.offset),
                    previous: previous.map(merged),
                    ino: entry.ino.map_or(0, |ino| ino.get()),
                }));
            }
            previous = Some((entry.offset, entry.rec_len));
        }
        Ok(None)
    }

    /// Takes the entry out. Flushed, not fenced.
    pub(crate) fn erase(&self, pmem: &Pmem) {
        match self.previous {
            Some((before, merged)) => {
                let at = Off::<U16>::new(before + 4);
                // PUBLISH: a name goes that an interrupted operation made or was to take. Before: it stands. After: slack.
                pmem.store(at, U16::new(merged));
                pmem.flush(at.at(), 2);
            }
            None => self.lead_to(pmem, 0),
        }
    }

    /// Lets the entry lead elsewhere. Flushed, not fenced.
    pub(crate) fn lead_to(&self, pmem: &Pmem, ino: u32) {
        let at = Off::<U32>::new(self.at);
        // PUBLISH: the entry leads to what it is to lead to once the operation is complete, or undone. Before: as the crash
        // left it.
        pmem.store(at, U32::new(ino));
        pmem.flush(at.at(), 4);
    }

    /// Makes the entry's type that of the inode. Flushed, not fenced.
    pub(crate) fn set_kind(&self, record: &Record) -> Result<()> {
        let core = record.core();
        if core.geometry.has_filetype() {
            let kind = FileType::dirent(record.file_type()?);
            core.pmem.store(Off::<u8>::new(self.at + 7), kind);
            core.pmem.flush(self.at + 7, 1);
        }
        Ok(())
    }
}

/// Raises the directory's size over `block`, if that is the next one and has been mapped. Durable on return.
///
/// # Errors
/// `Corrupt` if the directory's tree is damaged.
pub(crate) fn take_in(dir: &Record, block: u32) -> Result<()> {
    let core = dir.core();
    let block_size = u64::from(core.geometry.block_size());
    let size = dir.size();
    let raised = u32::try_from(size + block_size);
    let (true, Ok(raised)) = (size == u64::from(block) * block_size, raised) else {
        return Ok(());
    };
    if let Mapping::Existing(_) = dir.tree().lookup(FileBlock(block), 1)? {
        // PUBLISH: the directory has one block more. Before: a block mapped behind the end, which checkers take in.
        // After: its names are names.
        core.pmem.publish(dir.size_low_at(), U32::new(raised));
    }
    Ok(())
}
