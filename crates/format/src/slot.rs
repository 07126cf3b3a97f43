//! What a mount of this library notes for the next one: whose stores are on the medium, and which operations are in flight.
//!
//! Sixteen lines of 64 bytes, in the boot block (bytes 0 to 1023) when nothing else uses it. Other drivers and checkers
//! look neither at the one place nor at the records. Two lines say which mount wrote last; the others are *intents*, one
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
        crc32fast::hash(self.record(false).as_bytes())
    }

    const fn record(&self, ended: bool) -> RawMount {
        RawMount {
            magic: MOUNT_MAGIC,
            mount_count: U16::new(self.mount_count),
            ended: U16::new(ended as u16),
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
    ended: U16,
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
}

impl MountRecord {
    /// The 64 bytes, as words in the order in which they are to be stored.
    #[must_use]
    pub fn words(&self) -> [U64; 8] {
        seal(self.stamp.record(self.ended).as_bytes())
    }

    /// Reads a record; `None` if there is none, or a torn one.
    #[must_use]
    pub fn parse(line: &[u8; 64]) -> Option<Self> {
        let raw: RawMount = open(line)?;
        (raw.magic == MOUNT_MAGIC).then_some(Self {
            stamp: Stamp {
                mount_count: raw.mount_count.get(),
                mount_time: raw.mount_time.get(),
                write_time: raw.write_time.get(),
                last_check: raw.last_check.get(),
            },
            ended: raw.ended.get() != 0,
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

fn seal(record: &[u8]) -> [U64; 8] {
    let mut line = [0; 64];
    line[..60].copy_from_slice(record);
    line[60..].copy_from_slice(&crc32fast::hash(record).to_le_bytes());
    zerocopy::transmute!(line)
}

fn open<T: FromBytes + KnownLayout + Immutable>(line: &[u8; 64]) -> Option<T> {
    let (record, sum) = line.split_at(60);
    (crc32fast::hash(record).to_le_bytes() == *sum)
        .then(|| T::read_from_bytes(record).ok())
        .flatten()
}
