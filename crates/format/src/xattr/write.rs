//! Attribute blocks as they are made.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::{
    ENTRY, HEADER, MAGIC, NameIndex, RawXattrEntry, RawXattrHeader, block_hash, entry_hash,
    entry_len,
};
use crate::{Error, Result};

/// An attribute to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The prefix.
    pub index: NameIndex,
    /// The name without its prefix, at most 255 bytes.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

impl Entry<'_> {
    /// The order in which entries stand in a block: by prefix number, length of the name, name.
    #[must_use]
    pub fn order(&self, other: &Self) -> core::cmp::Ordering {
        let key = |entry: &Self| (entry.index.raw(), entry.name.len());
        key(self)
            .cmp(&key(other))
            .then_with(|| self.name.cmp(other.name))
    }

    /// Bytes of a block that entry and value take.
    #[must_use]
    pub fn len_in_block(&self) -> u64 {
        let value = u64::try_from(self.value.len()).unwrap_or(u64::MAX);
        u64::from(entry_len(self.name.len())).saturating_add(value.saturating_add(3) & !3)
    }
}

/// Whether a block of `block_size` bytes holds attributes that need `needed` bytes together: head and end mark stand
/// beside them.
#[must_use]
pub const fn fits(needed: u64, block_size: u32) -> bool {
    needed.saturating_add(HEADER as u64).saturating_add(4) <= block_size as u64
}

/// Writes a whole attribute block with one user: entries from the start in the order given, which must be
/// [`Entry::order`], values from the end. Every byte of `block` is written.
///
/// # Errors
/// `NoSpace` if they do not fit; `OutOfRange` for a name of more than 255 bytes. The block's contents are unspecified then.
pub fn write_block<'a>(
    block: &mut [u8],
    entries: impl Iterator<Item = Entry<'a>> + Clone,
) -> Result<()> {
    block.fill(0);
    let hashes = entries
        .clone()
        .map(|entry| entry_hash(entry.name, entry.value));
    let header = RawXattrHeader {
        h_magic: U32::new(MAGIC),
        h_refcount: U32::new(1),
        h_blocks: U32::new(1),
        h_hash: U32::new(block_hash(hashes)),
        ..RawXattrHeader::default()
    };
    header.write_to_prefix(block).map_err(|_| Error::NoSpace)?;
    let mut at = HEADER as usize;
    let mut values_from = block.len();
    for entry in entries {
        let name_len = u8::try_from(entry.name.len()).map_err(|_| Error::OutOfRange)?;
        let next = at.saturating_add(entry_len(entry.name.len()) as usize);
        values_from = values_from
            .checked_sub(entry.value.len().next_multiple_of(4))
            // Four zero bytes end the list.
            .filter(|&from| from >= next.saturating_add(4))
            .ok_or(Error::NoSpace)?;
        let offset = if entry.value.is_empty() {
            0
        } else {
            u16::try_from(values_from).map_err(|_| Error::NoSpace)?
        };
        let head = RawXattrEntry {
            e_name_len: name_len,
            e_name_index: entry.index.raw(),
            e_value_offs: U16::new(offset),
            e_value_block: U32::new(0),
            e_value_size: U32::new(u32::try_from(entry.value.len()).map_err(|_| Error::NoSpace)?),
            e_hash: U32::new(entry_hash(entry.name, entry.value)),
        };
        let name_at = at.saturating_add(ENTRY as usize);
        let put = |block: &mut [u8], at: usize, bytes: &[u8]| {
            block
                .get_mut(at..at.saturating_add(bytes.len()))
                .map(|to| to.copy_from_slice(bytes))
                .ok_or(Error::NoSpace)
        };
        put(block, at, head.as_bytes())?;
        put(block, name_at, entry.name)?;
        put(block, values_from, entry.value)?;
        at = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Attributes;
    use super::*;
    use crate::{Ino, sample};
    use std::vec;
    use std::vec::Vec;

    fn entry<'a>(index: NameIndex, name: &'a [u8], value: &'a [u8]) -> Entry<'a> {
        Entry { index, name, value }
    }

    #[test]
    fn a_block_reads_back_and_carries_its_hashes() {
        let mut entries = [
            entry(NameIndex::Trusted, b"z", b""),
            entry(NameIndex::User, b"long name", b"value"),
            entry(NameIndex::User, b"b", &[9; 100]),
            entry(NameIndex::User, b"a", b"1234"),
        ];
        entries.sort_by(Entry::order);
        let order: Vec<_> = entries.iter().map(|entry| entry.name).collect();
        assert_eq!(order, [&b"a"[..], b"b", b"long name", b"z"]);
        let mut block = vec![0xff; 1024];
        write_block(&mut block, entries.into_iter()).unwrap();
        let at = sample::geometry(1024, 1).fs_block(100).unwrap();
        let read: Vec<_> = Attributes::in_block(&block, Ino::ROOT, at)
            .unwrap()
            .map(|found| found.unwrap())
            .collect();
        assert_eq!(read.len(), 4);
        for (found, entry) in read.iter().zip(&entries) {
            assert_eq!(
                (found.index, found.name, found.value),
                (entry.index, entry.name, entry.value)
            );
            assert_eq!(found.hash, entry_hash(entry.name, entry.value));
        }
        let hash = block_hash(read.iter().map(|found| found.hash));
        assert_eq!(block[12..16], hash.to_le_bytes());
        // Nothing of what was there before remains.
        let used = read.iter().map(|found| found.value.len()).sum::<usize>();
        assert!(block.iter().filter(|byte| **byte == 0xff).count() <= used);
    }

    #[test]
    fn what_fits_by_the_sum_fits_in_fact_and_nothing_more() {
        for size in [1024_u32, 4096, 65_536] {
            let room = size - HEADER - 4 - 20;
            for value in [room - 5, room - 1, room, room + 1, room + 5] {
                let value = vec![1; usize::try_from(value).unwrap()];
                let entry = entry(NameIndex::User, b"name", &value);
                let mut block = vec![0; usize::try_from(size).unwrap()];
                let written = write_block(&mut block, core::iter::once(entry));
                assert_eq!(fits(entry.len_in_block(), size), written.is_ok());
                assert_eq!(
                    written.is_ok(),
                    value.len() <= usize::try_from(room).unwrap()
                );
            }
        }
        let long = [b'n'; 256];
        let entry = entry(NameIndex::User, &long, b"");
        assert_eq!(
            write_block(&mut [0; 1024], core::iter::once(entry)),
            Err(Error::OutOfRange)
        );
    }
}
