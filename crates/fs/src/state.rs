//! The superblock's running state: whether the file system may be written, and what the medium says about it.

use core::fmt;

use ext2dax_format::slot::Stamp;
use ext2dax_format::superblock::{
    OnError, REVISION_GOOD_OLD, RawSuperblock, STATE_ERROR, STATE_VALID, SUPERBLOCK_OFFSET,
};
use ext2dax_format::{Compat, Error, Result, RoCompat, Timestamp};
use ext2dax_pmem::{Off, Pmem, field};
use ext2dax_sync::atomic::{AtomicBool, Ordering};
use ext2dax_sync::{Mutex, rank};
use zerocopy::little_endian::{U16, U32, U64};

const _: () = {
    let at = core::mem::offset_of!(RawSuperblock, s_wtime);
    assert!(at.is_multiple_of(8));
    assert!(core::mem::offset_of!(RawSuperblock, s_mnt_count) == at + 4);
    assert!(core::mem::offset_of!(RawSuperblock, s_max_mnt_count) == at + 6);
};

/// Where the superblock lies.
pub(crate) const SUPERBLOCK: Off<RawSuperblock> = Off::new(SUPERBLOCK_OFFSET);

/// The state of a mounted file system.
///
/// # Locking
/// `marks` (rank SUPER) orders the changes of `s_state` and of the feature words, which are read, changed and written.
pub(crate) struct State {
    pmem: Pmem,
    read_only: AtomicBool,
    /// Whether the image is known to be clean but for what this mount does: the valid bit was set when it was mounted, or
    /// everything has been looked at since. Only then does unmounting set the bit.
    sound: AtomicBool,
    /// What somebody else left in use was taken over unchecked, by this mount or an earlier one.
    foreign: AtomicBool,
    on_error: OnError,
    large_file: AtomicBool,
    ext_attr: AtomicBool,
    marks: Mutex<()>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("read_only", &self.is_read_only())
            .field("sound", &self.is_sound())
            .field("on_error", &self.on_error)
            .finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn new(
        pmem: Pmem,
        superblock: &RawSuperblock,
        read_only: bool,
        on_error: Option<OnError>,
    ) -> Self {
        let compat = Compat::from_bits_retain(superblock.s_feature_compat.get());
        let ro_compat = RoCompat::from_bits_retain(superblock.s_feature_ro_compat.get());
        Self {
            pmem,
            read_only: AtomicBool::new(read_only),
            sound: AtomicBool::new(superblock.s_state.get() & STATE_VALID != 0),
            foreign: AtomicBool::new(false),
            on_error: on_error.unwrap_or(OnError::from_raw(superblock.s_errors.get())),
            large_file: AtomicBool::new(ro_compat.contains(RoCompat::LARGE_FILE)),
            ext_attr: AtomicBool::new(compat.contains(Compat::EXT_ATTR)),
            marks: Mutex::new(rank::SUPER, ()),
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    pub(crate) fn writable(&self) -> Result<()> {
        if self.is_read_only() {
            Err(Error::ReadOnlyFs)
        } else {
            Ok(())
        }
    }

    /// What the superblock shows.
    fn stamp(&self) -> Stamp {
        Stamp::of(&self.pmem.read_value(SUPERBLOCK))
    }

    /// What the superblock will show once [`State::begin`] has been called with this time.
    pub(crate) fn stamp_of_begin(&self, now: Timestamp) -> Stamp {
        let stamp = self.stamp();
        Stamp {
            mount_count: stamp.mount_count.saturating_add(1),
            mount_time: seconds(now),
            write_time: seconds(now),
            ..stamp
        }
    }

    /// What the superblock will show once [`State::end`] has been called with this time.
    pub(crate) fn stamp_of_end(&self, now: Timestamp) -> Stamp {
        Stamp {
            write_time: seconds(now),
            ..self.stamp()
        }
    }

    /// Whether the image will be clean when it is unmounted.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound.load(Ordering::Relaxed)
    }

    /// What somebody else left in use is in the image.
    pub(crate) fn set_foreign(&self) {
        self.foreign.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign.load(Ordering::Relaxed)
    }

    /// Everything has been looked at and put right.
    pub(crate) fn vouch(&self) {
        self.sound.store(true, Ordering::Relaxed);
    }

    /// Marks the image as in use: the valid bit goes, the mount is counted, the times are set.
    pub(crate) fn begin(&self, now: Timestamp) {
        let stamp = self.stamp_of_begin(now);
        let _marks = self.marks.lock();
        let pmem = &self.pmem;
        pmem.store(
            field!(SUPERBLOCK, RawSuperblock, s_mtime),
            U32::new(stamp.mount_time),
        );
        // The time and the count in one store: on an image that is in use already they are what tells whose it is, and
        // half of them would be nobody's.
        let written = field!(SUPERBLOCK, RawSuperblock, s_wtime);
        let limit = pmem.load(field!(SUPERBLOCK, RawSuperblock, s_max_mnt_count));
        let word = u64::from(stamp.write_time)
            | u64::from(stamp.mount_count) << 32
            | u64::from(limit.get()) << 48;
        pmem.store(Off::<U64>::new(written.at()), U64::new(word));
        let state = field!(SUPERBLOCK, RawSuperblock, s_state);
        // PUBLISH: the image is in use. Before: an unchanged, clean file system. After: one that its next user checks
        // first. Everything above lies in the same line, and nothing visible has been stored yet (rule R9).
        pmem.flush(SUPERBLOCK.at(), 64);
        pmem.publish(state, U16::new(pmem.load(state).get() & !STATE_VALID));
    }

    /// Marks the image as clean, if it is sound. The caller has made everything else durable.
    pub(crate) fn end(&self, now: Timestamp) {
        let _marks = self.marks.lock();
        let pmem = &self.pmem;
        pmem.store(
            field!(SUPERBLOCK, RawSuperblock, s_wtime),
            U32::new(seconds(now)),
        );
        pmem.flush(SUPERBLOCK.at(), 64);
        let state = field!(SUPERBLOCK, RawSuperblock, s_state);
        let valid = if self.is_sound() { STATE_VALID } else { 0 };
        // PUBLISH: the image is clean. Before: in use, complete. After: the same, and the next user need not look.
        pmem.publish(state, U16::new(pmem.load(state).get() | valid));
        self.read_only.store(true, Ordering::Relaxed);
    }

    /// Notes that the image contradicts itself: the error bit is set, and the file system becomes read-only unless its
    /// `s_errors` (or the mount option) says to go on. Other errors are not the image's fault and change nothing.
    pub(crate) fn report(&self, error: Error) {
        if !matches!(error, Error::Corrupt(_)) || self.is_read_only() {
            return;
        }
        let marks = self.marks.lock();
        let state = field!(SUPERBLOCK, RawSuperblock, s_state);
        let old = self.pmem.load(state).get();
        if old & STATE_ERROR == 0 {
            // PUBLISH: the image needs a check. Before and after: the same contents.
            self.pmem.publish(state, U16::new(old | STATE_ERROR));
        }
        drop(marks);
        if self.on_error != OnError::Continue {
            self.read_only.store(true, Ordering::Relaxed);
        }
    }

    /// Must come before the first size of 2 GiB or more is published (rule R9).
    ///
    /// # Errors
    /// `FileTooLarge` on revision 0, which has no feature words; the revision is never raised behind the user's back.
    pub(crate) fn require_large_file(&self) -> Result<()> {
        if self.large_file.load(Ordering::Acquire) {
            return Ok(());
        }
        let _marks = self.marks.lock();
        if self.is_good_old() {
            return Err(Error::FileTooLarge);
        }
        let word = field!(SUPERBLOCK, RawSuperblock, s_feature_ro_compat);
        let bits = self.pmem.load(word).get() | RoCompat::LARGE_FILE.bits();
        // PUBLISH: large files may exist. Before and after: none does.
        self.pmem.publish(word, U32::new(bits));
        self.large_file.store(true, Ordering::Release);
        Ok(())
    }

    /// Must come before the first attribute block is reachable.
    ///
    /// # Errors
    /// `NotSupported` on revision 0, as [`State::require_large_file`].
    pub(crate) fn require_ext_attr(&self) -> Result<()> {
        if self.ext_attr.load(Ordering::Acquire) {
            return Ok(());
        }
        let _marks = self.marks.lock();
        if self.is_good_old() {
            return Err(Error::NotSupported);
        }
        let word = field!(SUPERBLOCK, RawSuperblock, s_feature_compat);
        let bits = self.pmem.load(word).get() | Compat::EXT_ATTR.bits();
        // PUBLISH: attributes may exist. Before and after: none does.
        self.pmem.publish(word, U32::new(bits));
        self.ext_attr.store(true, Ordering::Release);
        Ok(())
    }

    /// Revision 0 has no feature words.
    fn is_good_old(&self) -> bool {
        let revision = field!(SUPERBLOCK, RawSuperblock, s_rev_level);
        self.pmem.load(revision).get() == REVISION_GOOD_OLD
    }
}

/// The superblock's times are unsigned 32-bit seconds, good until 2106.
fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.secs.max(0)).unwrap_or(u32::MAX)
}
