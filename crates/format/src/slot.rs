//! What a mount of this library notes for the next one: whose stores are on the medium, and which operations are in flight.
//!
//! Sixteen lines of 64 bytes, in the boot block (bytes 0 to 1023) when nothing else uses it, else at the beginning of a
//! file of that size with the number [`HIDDEN_INO`] and no name. Other drivers and checkers look neither at the places nor
//! at the records. Two lines say which mount wrote last; the others are *intents*, one
//! for each operation in flight that no single store can do.
//!
//! # On disk
//! Little endian. Every record ends in a CRC-32 of the 60 bytes before it, in the word that is stored last, so a torn
//! record is no record. This is the only thing that the library keeps on a medium beyond ext2, and it may be overwritten
//! by anybody at any time: what is lost is recovery without a checker.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::superblock::RawSuperblock;

/// Bytes of one record: a cache line.
pub const RECORD_BYTES: usize = 64;
/// Bytes of the whole area.
pub const AREA_BYTES: usize = 1024;
/// Lines for mount records, the first of the area. Two, so that one stays while the other is written.
pub const MOUNT_RECORDS: usize = 2;
/// Lines for intents, behind the mount records.
pub const INTENTS: usize = AREA_BYTES / RECORD_BYTES - MOUNT_RECORDS;

/// The inode of the hidden file: the one that is set aside for boot loaders, and that nobody is known to use. Checkers want
/// it to be empty or a regular file.
pub const HIDDEN_INO: u32 = 5;

/// The first bytes of every record; the eighth says what kind it is.
const MAGIC: [u8; 7] = *b"ext2dax";
const MOUNT_MAGIC: [u8; 8] = *b"ext2dax\x01";

/// What every checker and every mount for writing changes in the superblock: as long as it stands as we left it, nobody
/// else has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `s_mnt_count`.
    pub mount_count: u16,
    /// `s_mtime`.
    pub mount_time: u32,
    /// `s_wtime`.
    pub write_time: u32,
    /// `s_lastcheck`.
    pub last_check: u32,
}

impl Stamp {
    /// The stamp that a superblock shows.
    #[must_use]
    pub const fn of(superblock: &RawSuperblock) -> Self {
        Self {
            mount_count: superblock.s_mnt_count.get(),
            mount_time: superblock.s_mtime.get(),
            write_time: superblock.s_wtime.get(),
            last_check: superblock.s_lastcheck.get(),
        }
    }

    /// 32 bits that stand for the stamp in intents.
    #[must_use]
    pub fn id(&self) -> u32 {
        crc32fast::hash(self.record(0).as_bytes())
    }

    const fn record(&self, flags: u16) -> RawMount {
        RawMount {
            magic: MOUNT_MAGIC,
            mount_count: U16::new(self.mount_count),
            flags: U16::new(flags),
            mount_time: U32::new(self.mount_time),
            write_time: U32::new(self.write_time),
            last_check: U32::new(self.last_check),
            zero: [0; 36],
        }
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawMount {
    magic: [u8; 8],
    mount_count: U16,
    flags: U16,
    mount_time: U32,
    write_time: U32,
    last_check: U32,
    zero: [u8; 36],
}

const _: () = assert!(size_of::<RawMount>() == 60);

/// A mount record: this library has mounted the image for writing, and this is what the superblock shows since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountRecord {
    /// What the superblock shows while nobody else has written.
    pub stamp: Stamp,
    /// The mount has come to its end: no operation is in flight.
    pub ended: bool,
    /// It, or one before it, has taken over what somebody else left in use and nobody has checked.
    pub foreign: bool,
}

const ENDED: u16 = 1;
const FOREIGN: u16 = 2;

impl MountRecord {
    /// The 64 bytes, as words in the order in which they are to be stored.
    #[must_use]
    pub fn words(&self) -> [U64; 8] {
        let ended = if self.ended { ENDED } else { 0 };
        let foreign = if self.foreign { FOREIGN } else { 0 };
        seal(self.stamp.record(ended | foreign).as_bytes(), 0)
    }

    /// Reads a record; `None` if there is none, or a torn one.
    #[must_use]
    pub fn parse(line: &[u8; 64]) -> Option<Self> {
        let raw: RawMount = open(line, 0)?;
        (raw.magic == MOUNT_MAGIC).then_some(Self {
            stamp: Stamp {
                mount_count: raw.mount_count.get(),
                mount_time: raw.mount_time.get(),
                write_time: raw.write_time.get(),
                last_check: raw.last_check.get(),
            },
            ended: raw.flags.get() & ENDED != 0,
            foreign: raw.flags.get() & FOREIGN != 0,
        })
    }
}

/// Whether an area holds nothing, or records of this library and nothing else: then it may be written.
#[must_use]
pub fn is_free_or_ours(area: &[u8; 1024]) -> bool {
    // The magic is stored first and taken away last: a torn record has it, too.
    area.chunks_exact(64)
        .all(|line| line.starts_with(&MAGIC) || line.iter().all(|&byte| byte == 0))
}

/// Whether an area was used by this library: a mount record stands there, or is left of one. For places that are not known
/// by their number alone.
#[must_use]
pub fn is_ours(area: &[u8; 1024]) -> bool {
    let mut mounts = area.chunks_exact(64).take(MOUNT_RECORDS);
    is_free_or_ours(area) && mounts.any(|line| line.starts_with(&MOUNT_MAGIC))
}

/// What an operation in flight is. Letters are the rows of the order table for renames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// `subject` gets its first name, `to_place` in `to`; a directory counts in `to`. `value` and `second` are the
    /// blocks that it took for contents and attributes, 0 for none.
    Create = 0x10,
    /// `subject` gets another name, `to_place` in `to`.
    Link,
    /// `subject` was made without a name, and gets its first one, `to_place` in `to`.
    LinkFirst,
    /// `subject` loses its last name, `from_place` in `from`, and dies; a directory counts in `from` no longer.
    Unlink,
    /// `subject` loses one of several names, `from_place` in `from`.
    UnlinkOne,
    /// Row d: `subject` moves from `from_place` in `from` to `to_place` in `to`.
    Move,
    /// Row e: the same, over the last name of `other`. `value` is where the temporary link of `other` lies.
    Replace,
    /// Row f: the same, over one of several names of `other`.
    ReplaceOne,
    /// Row j: `subject` and `other` exchange their names. `value` is where the temporary link of `other` lies.
    Exchange,
    /// Row k: `subject` is a directory and moves from `from_place` in `from` to `to_place` in `to`, over the empty
    /// directory `other` unless that is 0.
    MoveDirectory,
    /// Row h: `subject` takes the name of the empty directory `other`; one store swaps both entries.
    SwapDirectory,
    /// Row j for directories, which have no temporary links: `subject` and `other` exchange their names.
    ExchangeDirectory,
    /// The directory `to` gets the block `to_place`.
    Grow,
    /// The size of `subject` goes from `value` to `second`.
    Resize,
    /// The owner of `subject` becomes `value`, its group `second`, its mode `subject_links`.
    Own,
    /// The attribute block of `subject` is no longer `from` but `to`, 0 for none, and its mode and owner change in the same
    /// moment: `subject_links` and `other_links` are the modes, `value` and `second` the owners with the groups in their
    /// upper halves. `from_links` is how many users `from` has, if others share it; `to_links` is 1 if the attributes
    /// behind the inode go.
    Attributes,
}

impl Operation {
    fn from_raw(raw: u8) -> Option<Self> {
        const ALL: [Operation; 16] = [
            Operation::Create,
            Operation::Link,
            Operation::LinkFirst,
            Operation::Unlink,
            Operation::UnlinkOne,
            Operation::Move,
            Operation::Replace,
            Operation::ReplaceOne,
            Operation::Exchange,
            Operation::MoveDirectory,
            Operation::SwapDirectory,
            Operation::ExchangeDirectory,
            Operation::Grow,
            Operation::Resize,
            Operation::Own,
            Operation::Attributes,
        ];
        ALL.into_iter().find(|operation| *operation as u8 == raw)
    }
}

/// Where an entry of a directory lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryPlace {
    /// Logical block of the directory.
    pub block: u32,
    /// Byte offset in the block, a multiple of four.
    pub offset: u32,
}

/// An operation in flight: what the next mount needs to complete or undo it. What an operation does not use is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each operation says what it uses")]
pub struct Intent {
    pub operation: Operation,
    pub subject: u32,
    pub other: u32,
    pub from: u32,
    pub to: u32,
    pub from_place: EntryPlace,
    pub to_place: EntryPlace,
    /// Link counts before the operation.
    pub subject_links: u16,
    pub other_links: u16,
    pub from_links: u16,
    pub to_links: u16,
    pub value: u64,
    pub second: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIntent {
    magic: [u8; 7],
    operation: u8,
    subject: U32,
    other: U32,
    from: U32,
    to: U32,
    from_block: U32,
    to_block: U32,
    /// In units of four bytes.
    from_offset: U16,
    to_offset: U16,
    subject_links: U16,
    other_links: U16,
    from_links: U16,
    to_links: U16,
    value: U64,
    second: U64,
}

const _: () = assert!(size_of::<RawIntent>() == 60);

impl Intent {
    /// An intent that says nothing yet but what it is.
    #[must_use]
    pub const fn new(operation: Operation) -> Self {
        const NOWHERE: EntryPlace = EntryPlace {
            block: 0,
            offset: 0,
        };
        Self {
            operation,
            subject: 0,
            other: 0,
            from: 0,
            to: 0,
            from_place: NOWHERE,
            to_place: NOWHERE,
            subject_links: 0,
            other_links: 0,
            from_links: 0,
            to_links: 0,
            value: 0,
            second: 0,
        }
    }

    /// The 64 bytes, as words in the order in which they are to be stored. `mount` is the [`Stamp::id`] of the mount: the
    /// checksum covers it, so that no other mount takes the intent for one of its own.
    #[must_use]
    pub fn words(&self, mount: u32) -> [U64; 8] {
        let quarter =
            |place: EntryPlace| U16::new(u16::try_from(place.offset / 4).unwrap_or(u16::MAX));
        let raw = RawIntent {
            magic: MAGIC,
            operation: self.operation as u8,
            subject: U32::new(self.subject),
            other: U32::new(self.other),
            from: U32::new(self.from),
            to: U32::new(self.to),
            from_block: U32::new(self.from_place.block),
            to_block: U32::new(self.to_place.block),
            from_offset: quarter(self.from_place),
            to_offset: quarter(self.to_place),
            subject_links: U16::new(self.subject_links),
            other_links: U16::new(self.other_links),
            from_links: U16::new(self.from_links),
            to_links: U16::new(self.to_links),
            value: U64::new(self.value),
            second: U64::new(self.second),
        };
        seal(raw.as_bytes(), mount)
    }

    /// Reads the intent of a mount; `None` if there is none, a torn one, or one of another mount.
    #[must_use]
    pub fn parse(line: &[u8; 64], mount: u32) -> Option<Self> {
        let raw: RawIntent = open(line, mount)?;
        let place = |block: U32, quarter: U16| EntryPlace {
            block: block.get(),
            offset: u32::from(quarter.get()) * 4,
        };
        Some(Self {
            operation: Operation::from_raw(raw.operation)?,
            subject: raw.subject.get(),
            other: raw.other.get(),
            from: raw.from.get(),
            to: raw.to.get(),
            from_place: place(raw.from_block, raw.from_offset),
            to_place: place(raw.to_block, raw.to_offset),
            subject_links: raw.subject_links.get(),
            other_links: raw.other_links.get(),
            from_links: raw.from_links.get(),
            to_links: raw.to_links.get(),
            value: raw.value.get(),
            second: raw.second.get(),
        })
    }
}

fn sum(record: &[u8], mount: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(mount);
    hasher.update(record);
    hasher.finalize()
}

fn seal(record: &[u8], mount: u32) -> [U64; 8] {
    let mut line = [0; RECORD_BYTES];
    line[..60].copy_from_slice(record);
    line[60..].copy_from_slice(&sum(record, mount).to_le_bytes());
    zerocopy::transmute!(line)
}

fn open<T: FromBytes + KnownLayout + Immutable>(line: &[u8; 64], mount: u32) -> Option<T> {
    let (record, found) = line.split_at(60);
    (record.starts_with(&MAGIC) && sum(record, mount).to_le_bytes() == *found)
        .then(|| T::read_from_bytes(record).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: [U64; 8]) -> [u8; 64] {
        zerocopy::transmute!(words)
    }

    fn intent() -> Intent {
        Intent {
            subject: 12,
            other: 13,
            from: 2,
            to: 0xffff_ffff,
            from_place: EntryPlace {
                block: 7,
                offset: 65_532,
            },
            to_place: EntryPlace {
                block: 8,
                offset: 12,
            },
            subject_links: 1,
            other_links: 32_000,
            from_links: 3,
            to_links: 4,
            value: u64::MAX,
            second: 5,
            ..Intent::new(Operation::Own)
        }
    }

    fn record(ended: bool, foreign: bool) -> MountRecord {
        MountRecord {
            stamp: Stamp {
                mount_count: 1,
                mount_time: 2,
                write_time: 3,
                last_check: 4,
            },
            ended,
            foreign,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let line = bytes(intent().words(99));
        assert_eq!(Intent::parse(&line, 99), Some(intent()));
        assert_eq!(MountRecord::parse(&line), None);
        for (ended, foreign) in [(false, false), (true, false), (false, true), (true, true)] {
            let record = record(ended, foreign);
            assert_eq!(MountRecord::parse(&bytes(record.words())), Some(record));
        }
    }

    #[test]
    fn an_intent_of_another_mount_is_none() {
        assert_eq!(Intent::parse(&bytes(intent().words(99)), 98), None);
    }

    /// Torn between any two words, over zeroes or over another record.
    #[test]
    fn a_torn_record_is_none() {
        let new = intent().words(99);
        let older = Intent {
            subject: 1,
            second: 6,
            ..intent()
        };
        for old in [[U64::ZERO; 8], older.words(99)] {
            for kept in 1..8 {
                let mut torn = new;
                torn[kept..].copy_from_slice(&old[kept..]);
                if torn != new && torn != old {
                    assert_eq!(Intent::parse(&bytes(torn), 99), None, "{kept} words");
                }
            }
        }
    }

    #[test]
    fn the_area_is_ours_when_it_holds_nothing_else() {
        let mut area = [0; AREA_BYTES];
        assert!(is_free_or_ours(&area));
        area[64..128].copy_from_slice(&bytes(intent().words(1)));
        assert!(is_free_or_ours(&area));
        area[72..128].fill(0xff);
        assert!(is_free_or_ours(&area), "a torn record");
        area[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(!is_free_or_ours(&area), "a boot loader");
        assert!(!is_ours(&area));
        area[510..512].fill(0);
        assert!(!is_ours(&area), "no mount record");
        area[..64].copy_from_slice(&bytes(record(false, false).words()));
        assert!(is_ours(&area));
        area[63] ^= 1;
        assert!(is_ours(&area), "a void one");
    }
}
