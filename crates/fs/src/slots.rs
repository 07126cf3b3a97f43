//! The records that a mount keeps for the next one: see `ext2dax_format::slot` for what they hold.
//!
//! They lie in the boot block, when it is empty or holds such records already, else in a [hidden file](hidden). Where that
//! cannot be, for want of a block or because its inode is in use, there are none, and then nobody can tell whose stores are
//! on the medium: after a crash it wants a checker.

mod armed;
mod hidden;

use alloc::vec::Vec;
use core::fmt;

use ext2dax_format::Result;
use ext2dax_format::slot::{
    AREA_BYTES, INTENTS, Intent, MOUNT_RECORDS, MountRecord, RECORD_BYTES, Stamp, is_free_or_ours,
};
use ext2dax_getblock::Volume;
use ext2dax_pmem::{Off, Pmem};
use zerocopy::little_endian::{U32, U64};

use armed::Intents;
pub(crate) use armed::{Armed, Mark};
use ext2dax_sync::atomic::{AtomicU32, Ordering};
use hidden::Hidden;

use crate::state::SUPERBLOCK;

/// The records of one image.
pub(crate) struct Slots {
    pmem: Pmem,
    /// Where they lie, if there is a place for them.
    area: Option<u64>,
    /// The file in which they lie, unless that is the boot block.
    hidden: Option<Hidden>,
    /// The [`Stamp::id`] of this mount, which its intents carry.
    mount: AtomicU32,
    intents: Intents,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("area", &self.area)
            .finish_non_exhaustive()
    }
}

impl Slots {
    /// Finds the place of the records. A hidden file comes first; but on an image that is in use the place is where its
    /// last mount is on record, if it is.
    pub(crate) fn find(volume: &Volume) -> Self {
        let hidden = Hidden::find(volume);
        let mut boot = [0; AREA_BYTES];
        volume.pmem().read(0, &mut boot);
        let boot = is_free_or_ours(&boot).then(|| Self::at(volume, Some(0), None));
        let hidden = hidden.map(|file| Self::at(volume, Some(file.area(volume)), Some(file)));
        let known = |slots: &Self| slots.last_mount().is_some();
        match (hidden, boot) {
            (Some(hidden), boot) if known(&hidden) || !hidden.is_unfinished() => match boot {
                Some(boot) if known(&boot) && !known(&hidden) => boot,
                _ => hidden,
            },
            (_, Some(boot)) => boot,
            _ => Self::at(volume, None, None),
        }
    }

    fn at(volume: &Volume, area: Option<u64>, hidden: Option<Hidden>) -> Self {
        Self {
            pmem: volume.pmem().clone(),
            area,
            hidden,
            mount: AtomicU32::new(0),
            intents: Intents::new(),
        }
    }

    /// Makes a place for the records of a clean image that has none, if that can be, out of sight. Durable on return.
    /// [`Slots::settle_in`] does the rest once the image is in use.
    pub(crate) fn with_place(self, volume: &Volume) -> Self {
        if self.area.is_some() {
            return self;
        }
        match Hidden::begin(volume) {
            Some(file) => Self::at(volume, Some(file.area(volume)), Some(file)),
            None => self,
        }
    }

    /// Completes a hidden file that a mount has begun: this one, or one that a crash ended. The image is in use.
    ///
    /// # Errors
    /// `Corrupt`: see [`Hidden::finish`].
    pub(crate) fn settle_in(&self, volume: &Volume) -> Result<()> {
        match &self.hidden {
            Some(file) if file.unfinished => file.finish(volume),
            _ => Ok(()),
        }
    }

    fn is_unfinished(&self) -> bool {
        self.hidden.is_some_and(|file| file.unfinished)
    }

    /// The mount that wrote to the image last, if it was one of this library: the superblock shows what it left there.
    pub(crate) fn last_mount(&self) -> Option<MountRecord> {
        let records = self.records();
        let known = records.into_iter().flatten();
        known
            .filter(|record| self.is_shown(record, &records))
            .max_by_key(|record| record.ended)
    }

    /// Whether the superblock shows what a record says. Write time and mount count come in one store, the mount time in one
    /// before it: a crash between the two leaves that of the next mount, which has a record, too.
    fn is_shown(&self, record: &MountRecord, all: &[Option<MountRecord>]) -> bool {
        let shown = Stamp::of(&self.pmem.read_value(SUPERBLOCK));
        let mut times = all.iter().flatten().map(|record| record.stamp.mount_time);
        let expected = Stamp {
            mount_time: shown.mount_time,
            ..record.stamp
        };
        shown == expected && times.any(|time| time == shown.mount_time)
    }

    fn records(&self) -> [Option<MountRecord>; MOUNT_RECORDS] {
        core::array::from_fn(|index| {
            let mut line = [0; RECORD_BYTES];
            self.pmem.read(self.area? + line_at(index), &mut line);
            MountRecord::parse(&line)
        })
    }

    /// Notes what the superblock is about to show. Durable on return. What is noted of the present state stays.
    pub(crate) fn announce(&self, record: MountRecord) {
        let Some(area) = self.area else { return };
        let records = self.records();
        // A line that says nothing of the present state; if both do, the one that says less.
        let says = |index: &usize| {
            records[*index]
                .filter(|record| self.is_shown(record, &records))
                .map(|record| record.ended)
        };
        let index = (0..records.len()).min_by_key(says).unwrap_or(0);
        let line = area + line_at(index);
        // EPOCH: a record of what is not there yet. Torn, it is none; and the other line stands.
        self.store(line, &record.words());
        self.pmem.fence();
        self.mount.store(record.stamp.id(), Ordering::Relaxed);
    }

    /// The operations that were in flight when the mount with this stamp ended.
    pub(crate) fn in_flight(&self, stamp: Stamp) -> Vec<Intent> {
        let Some(area) = self.area else {
            return Vec::new();
        };
        let mount = stamp.id();
        let lines = (MOUNT_RECORDS..MOUNT_RECORDS + INTENTS).map(|index| area + line_at(index));
        lines
            .filter_map(|line| Intent::parse(&self.pmem.read_value(Off::new(line)), mount))
            .collect()
    }

    fn store(&self, line: u64, words: &[U64; 8]) {
        let offsets = (line..).step_by(8);
        for (at, word) in offsets.zip(words) {
            self.pmem.store(Off::<U64>::new(at), *word);
        }
        self.pmem.flush(line, 64);
    }

    /// Forgets the mount records that do not say what the superblock shows. Durable on return.
    pub(crate) fn forget_others(&self, current: MountRecord) {
        let Some(area) = self.area else { return };
        for (index, record) in self.records().into_iter().enumerate() {
            if record.is_some_and(|record| record != current) {
                let line = area + line_at(index);
                self.void(line);
            }
        }
        self.pmem.fence();
    }

    /// Makes a record invalid. Flushed, not fenced.
    fn void(&self, line: u64) {
        let sum = Off::<U32>::new(line + 60);
        self.pmem.store(sum, U32::new(!self.pmem.load(sum).get()));
        self.pmem.flush(line, 64);
    }

    /// Forgets all intents: what is on the medium does not depend on them. Durable on return.
    pub(crate) fn clear_intents(&self) {
        self.clear(MOUNT_RECORDS..MOUNT_RECORDS + INTENTS);
    }

    /// Leaves the boot block as it was found, a hidden file without a valid record. Durable on return.
    pub(crate) fn clear_all(&self) {
        let Some(area) = self.area else { return };
        if self.hidden.is_none() {
            return self.clear(0..MOUNT_RECORDS + INTENTS);
        }
        for (index, record) in self.records().into_iter().enumerate() {
            if record.is_some() {
                // What is left of it says whose file this is.
                self.void(area + line_at(index));
            }
        }
        self.clear_intents();
    }

    fn clear(&self, lines: core::ops::Range<usize>) {
        let Some(area) = self.area else { return };
        for line in lines.map(|index| area + line_at(index)) {
            // The magic goes last: a line without it belongs to somebody else, unless it is empty.
            for word in (0..8).rev() {
                let word = Off::<U64>::new(line + 8 * word);
                if self.pmem.load(word).get() != 0 {
                    self.pmem.store(word, U64::new(0));
                }
            }
            self.pmem.flush(line, 64);
        }
        self.pmem.fence();
    }
}

/// Where a line lies in the area.
const fn line_at(index: usize) -> u64 {
    (index * RECORD_BYTES) as u64
}
