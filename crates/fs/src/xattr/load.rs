//! Attributes as they lie on the medium: behind an inode, and in its attribute block.

use alloc::vec;
use alloc::vec::Vec;

use ext2dax_format::inode::RawInodeExtra;
use ext2dax_format::xattr::{Attribute, Attributes, Entry, MAGIC, NameIndex, RawXattrHeader};
use ext2dax_format::{CorruptKind, FsBlock, Result, Run};
use ext2dax_pmem::{Off, field};
use zerocopy::little_endian::U32;

use crate::inode::Record;
use crate::mount::Core;

/// Where an attribute was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Inode,
    Block,
}

/// One attribute, copied out.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) index: NameIndex,
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl Found {
    fn copy(attribute: &Attribute<'_>, place: Place) -> Self {
        Self {
            place,
            index: attribute.index,
            name: attribute.name.to_vec(),
            value: attribute.value.to_vec(),
        }
    }

    pub(super) fn entry(&self) -> Entry<'_> {
        Entry {
            index: self.index,
            name: &self.name,
            value: &self.value,
        }
    }
}

/// Everything that an inode has, each name once: what lies behind the inode hides a namesake in the block.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) found: Vec<Found>,
    pub(super) block: Option<FsBlock>,
    /// How many inodes use the block.
    pub(super) users: u32,
    /// The magic number behind the inode, if there is one: 0 in its place makes those attributes disappear.
    pub(super) in_inode: Option<Off<U32>>,
}

impl Loaded {
    /// Copies all attributes of an inode. The caller holds INODE, shared at least.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(super) fn of(record: &Record) -> Result<Self> {
        let mut all = Self::default();
        if let Some((magic, area)) = in_inode(record)? {
            all.in_inode = Some(magic);
            for attribute in Attributes::in_inode(&area, record.ino()) {
                all.add(&attribute?, Place::Inode);
            }
        }
        if let Some(block) = block_of(record)? {
            all.block = Some(block);
            all.users = record.pmem().load(users_at(record.core(), block)).get();
            let bytes = read_block(record, block);
            for attribute in Attributes::in_block(&bytes, record.ino(), block)? {
                all.add(&attribute?, Place::Block);
            }
        }
        Ok(all)
    }

    fn add(&mut self, attribute: &Attribute<'_>, place: Place) {
        // No driver shows an entry without a prefix number, and checkers refuse it in a block.
        if attribute.index.raw() != 0 && self.find(attribute.index, attribute.name).is_none() {
            self.found.push(Found::copy(attribute, place));
        }
    }

    pub(super) fn find(&self, index: NameIndex, name: &[u8]) -> Option<&Found> {
        self.found
            .iter()
            .find(|found| found.index == index && found.name == name)
    }
}

/// One attribute's value; looks no further than it must.
///
/// # Errors
/// `Corrupt`.
pub(super) fn find(record: &Record, index: NameIndex, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let wanted = |attribute: &Attribute<'_>| attribute.index == index && attribute.name == name;
    if let Some((_, area)) = in_inode(record)? {
        for attribute in Attributes::in_inode(&area, record.ino()) {
            let attribute = attribute?;
            if wanted(&attribute) {
                return Ok(Some(attribute.value.to_vec()));
            }
        }
    }
    let Some(block) = block_of(record)? else {
        return Ok(None);
    };
    let bytes = read_block(record, block);
    for attribute in Attributes::in_block(&bytes, record.ino(), block)? {
        let attribute = attribute?;
        if wanted(&attribute) {
            return Ok(Some(attribute.value.to_vec()));
        }
    }
    Ok(None)
}

/// Whether the inode may have attributes: two loads for one that has none.
///
/// # Errors
/// `Corrupt`.
pub(super) fn has_any(record: &Record) -> Result<bool> {
    Ok(record.file_acl() != 0 || in_inode_magic(record)?.is_some())
}

/// The attribute block, checked to be a block of data.
///
/// # Errors
/// `Corrupt`.
pub(super) fn block_of(record: &Record) -> Result<Option<FsBlock>> {
    let found = record.file_acl();
    if found == 0 {
        return Ok(None);
    }
    let core = record.core();
    let wrong = CorruptKind::XattrBlock {
        inode: record.ino().get(),
        found,
    };
    let block = core.geometry.fs_block(found).map_err(|_| wrong)?;
    if core.volume.is_metadata(Run::single(block))? {
        return Err(wrong.into());
    }
    Ok(Some(block))
}

fn read_block(record: &Record, block: FsBlock) -> Vec<u8> {
    let geometry = &record.core().geometry;
    let mut bytes = vec![0; geometry.block_size() as usize];
    record.pmem().read(geometry.offset(block), &mut bytes);
    bytes
}

/// Where the count of a block's users stands.
pub(super) fn users_at(core: &Core, block: FsBlock) -> Off<U32> {
    let header: Off<RawXattrHeader> = Off::new(core.geometry.offset(block));
    field!(header, RawXattrHeader, h_refcount)
}

/// Where the magic number of attributes behind the inode stands, and how many bytes follow from there on, if it is there.
pub(super) fn in_inode_magic(record: &Record) -> Result<Option<(Off<U32>, u32)>> {
    let core = record.core();
    let inode_size = core.geometry.inode_size();
    let Some(room) = inode_size.checked_sub(128).filter(|&room| room >= 4) else {
        return Ok(None);
    };
    let pmem = &core.pmem;
    let extra = record.at().cast::<RawInodeExtra>().add(128);
    let covered = pmem.load(field!(extra, RawInodeExtra, i_extra_isize)).get();
    if u32::from(covered) > room || !covered.is_multiple_of(4) {
        return Err(CorruptKind::InodeExtraSize {
            inode: record.ino().get(),
            found: covered,
            max: u16::try_from(room).unwrap_or(u16::MAX),
        }
        .into());
    }
    // Without extra fields the bytes behind the inode have no meaning, as in Linux.
    let left = room - u32::from(covered);
    if covered == 0 || left < 4 {
        return Ok(None);
    }
    let at = extra.cast::<U32>().add(u64::from(covered));
    Ok((pmem.load(at).get() == MAGIC).then_some((at, left)))
}

/// The attributes behind the inode, with their magic number.
fn in_inode(record: &Record) -> Result<Option<(Off<U32>, Vec<u8>)>> {
    let Some((at, len)) = in_inode_magic(record)? else {
        return Ok(None);
    };
    let mut area = vec![0; len as usize];
    record.pmem().read(at.at(), &mut area);
    Ok(Some((at, area)))
}
