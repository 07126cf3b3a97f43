//! Attributes of an inode: what `stat` answers, what a caller may set, and the body of a new inode.

use ext2dax_format::inode::{self, EXTRA_ISIZE};
use ext2dax_format::{
    Error, FileType, Ino, InodeFlags, RawInodeExtra, Result, Timestamp, device::Device,
};
use ext2dax_pmem::Off;
use zerocopy::little_endian::U64;

use super::Node;
use super::record::{self, Record, TimeChange, halves};
use crate::mount::Core;
use crate::xattr::{Protection, S_ISGID, without_set_id};

/// What is known about an inode without reading its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Inode number.
    pub ino: u32,
    /// Changes whenever the number is used again; (number, generation) names an inode for ever.
    pub generation: u32,
    /// What kind of file it is.
    pub file_type: FileType,
    /// Permission bits with set-id and sticky bits, `0o7777` at most.
    pub permissions: u16,
    /// Names that lead here; a directory counts `.` and each subdirectory's `..`.
    pub links: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes, indirect blocks and the attribute block included.
    pub sectors: u64,
    /// Bytes of one block of this file system.
    pub block_size: u32,
    /// Inode flags as on the medium (`chattr`).
    pub flags: InodeFlags,
    /// Major and minor number of a device.
    pub device: Option<Device>,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of the contents.
    pub modified: Timestamp,
    /// Last change of the inode.
    pub changed: Timestamp,
    /// Creation; only inodes larger than 128 bytes carry it.
    pub created: Option<Timestamp>,
}

/// A change of attributes; what is `None` stays. The change time follows by itself.
///
/// As in Linux, a change of owner or group takes the set-id bits (set-group-id only if the group may execute) and
/// `security.capability` from anything but a directory; the bits stay if `permissions` says so in the same change. A
/// change of permissions reaches the file's access control list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Permission bits, `0o7777` at most.
    pub permissions: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub accessed: Option<Timestamp>,
    /// Last change of the contents.
    pub modified: Option<Timestamp>,
    /// Both times are now, where nothing else is said: allowed on append-only files, where times of the caller's choice
    /// are not.
    pub touch: bool,
}

impl SetAttributes {
    /// Whether it changes something that append-only files keep.
    fn chooses(&self) -> bool {
        self.permissions.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.accessed.is_some()
            || self.modified.is_some()
    }

    fn changes_owner(&self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }
}

/// What `stat` answers, read from the medium; the inode need not be in core.
///
/// The caller sees to it that the number is not given back meanwhile: by the lock of a directory that names it, or by
/// the in-core inode.
///
/// # Errors
/// `Corrupt` if the mode names no file type, or the descriptor of the inode's group is damaged.
pub(crate) fn read(core: &Core, ino: Ino) -> Result<Attributes> {
    let at = core.volume.inode_offset(ino)?;
    let has_extra = core.geometry.inode_size() > 128;
    let (raw, extra) = core.versions.read(ino, || {
        let raw = core.pmem.read_value(at);
        let extra = has_extra.then(|| core.pmem.read_value(at.cast::<RawInodeExtra>().add(128)));
        (raw, extra)
    });
    let file_type = raw.checked_type(ino)?;
    let (accessed, modified, changed) = inode::times(&raw, extra.as_ref());
    let has_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
    Ok(Attributes {
        ino: ino.get(),
        generation: raw.i_generation.get(),
        file_type,
        permissions: raw.i_mode.get() & 0o7777,
        links: raw.i_links_count.get(),
        uid: raw.uid(),
        gid: raw.gid(),
        size: raw.size(),
        sectors: u64::from(raw.i_blocks.get()),
        block_size: core.geometry.block_size(),
        flags: raw.flags(),
        device: has_device.then(|| raw.device()),
        accessed,
        modified,
        changed,
        created: extra.and_then(|extra| extra.create_time()),
    })
}

impl Node {
    /// What `stat` answers.
    ///
    /// # Errors
    /// `Corrupt` if the mode names no file type.
    pub(crate) fn attributes(&self) -> Result<Attributes> {
        read(self.core(), self.ino())
    }

    /// Sets what `change` names, in one epoch; durable on return.
    ///
    /// A change of the high half of an owner touches a second line, and one of attributes a third: intents make each a step
    /// that happens or does not.
    ///
    /// # Errors
    /// `ReadOnlyFs`; `NotPermitted` for an immutable inode, and for an append-only one unless its times become now;
    /// `NotFound` if the inode died meanwhile; `NoSpace`, `Corrupt` if its attributes must change and cannot. Nothing has
    /// changed then.
    pub(crate) fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        let record = self.record();
        let core = record.core();
        core.writable()?;
        let _writing = core.gates.write.enter();
        let _inode = self.lock.write();
        self.check_alive()?;
        let flags = record.flags();
        if flags.contains(InodeFlags::IMMUTABLE)
            || flags.contains(InodeFlags::APPEND) && change.chooses()
        {
            return Err(Error::NotPermitted);
        }
        let gives_away = change.changes_owner() && !self.is_dir();
        let mode = record.mode();
        let bits = match change.permissions {
            None if gives_away && without_set_id(mode) != mode => Some(without_set_id(mode)),
            asked => asked,
        };
        let plan = self.plan_mode(change.permissions, gives_away)?;
        let old = Protection::of(record);
        let new = Protection {
            bits: bits.unwrap_or(old.bits) & 0o7777,
            uid: change.uid.unwrap_or(old.uid),
            gid: change.gid.unwrap_or(old.gid),
        };
        let now = core.now();
        let touched = change.touch.then_some(now);
        let set_times = || {
            record.set_times(TimeChange {
                access: change.accessed.or(touched),
                modify: change.modified.or(touched),
                change: Some(now),
            });
        };
        match plan {
            Some(plan) => plan.commit(self, new, set_times),
            None => self.set_protection_with(new, set_times),
        }
        Ok(())
    }

    /// Takes the set-id bits and `security.capability` from a regular file, as a write or truncation by an ordinary user
    /// does: set-group-id only if the group may execute or a `stranger` to the group writes. Costs two loads where there
    /// is nothing to take.
    ///
    /// # Errors
    /// As [`Node::set_attributes`].
    pub(crate) fn clear_privileges(&self, stranger: bool) -> Result<()> {
        let record = self.record();
        let without = |mode: u16| {
            let group = if stranger { S_ISGID } else { 0 };
            without_set_id(mode) & !group
        };
        let has_some = || -> Result<bool> {
            let mode = record.mode();
            Ok(without(mode) != mode || self.has_capability()?)
        };
        if self.file_type() != FileType::Regular {
            return Ok(());
        }
        {
            let _inode = self.lock.read();
            self.check_alive()?;
            if !has_some()? {
                return Ok(());
            }
        }
        let core = record.core();
        core.writable()?;
        let _writing = core.gates.write.enter();
        let _inode = self.lock.write();
        self.check_alive()?;
        if !has_some()? {
            return Ok(());
        }
        if record.flags().contains(InodeFlags::IMMUTABLE) {
            return Err(Error::NotPermitted);
        }
        let old = Protection::of(record);
        let new = Protection {
            bits: without(old.bits),
            ..old
        };
        match self.plan_mode(None, true)? {
            Some(plan) => plan.commit(self, new, || {}),
            None => self.set_protection(new),
        }
        Ok(())
    }

    /// Sets the generation number, as FS_IOC_SETVERSION does: handles made before lead nowhere.
    ///
    /// # Errors
    /// `ReadOnlyFs`, `NotFound`.
    pub(crate) fn set_generation(&self, generation: u32) -> Result<()> {
        let record = self.record();
        let core = record.core();
        core.writable()?;
        let _writing = core.gates.write.enter();
        let _inode = self.lock.write();
        self.check_alive()?;
        record.set_generation(generation);
        record.touch_changed();
        record.flush();
        // EPOCH: done.
        record.pmem().fence();
        Ok(())
    }

    /// Sets the flags that a user may set; the others stay as they are, whether `flags` has them or not: FS_IOC_GETFLAGS
    /// does not show all of them.
    ///
    /// # Errors
    /// `ReadOnlyFs`, `NotFound` as for the other attributes; `NotSupported` if `flags` asks for one that a user may not
    /// set here and that is not set; `NotPermitted` if the file is immutable, stays so, and another flag would change.
    pub(crate) fn set_flags(&self, flags: InodeFlags) -> Result<()> {
        let record = self.record();
        let core = record.core();
        core.writable()?;
        let _writing = core.gates.write.enter();
        let _inode = self.lock.write();
        self.check_alive()?;
        let old = record.flags();
        let settable = match self.file_type() {
            FileType::Directory => InodeFlags::USER_MODIFIABLE,
            _ => InodeFlags::USER_MODIFIABLE.difference(InodeFlags::DIRSYNC | InodeFlags::TOPDIR),
        };
        if !flags.difference(old).difference(settable).is_empty() {
            return Err(Error::NotSupported);
        }
        let new = old.difference(settable) | flags.intersection(settable);
        if old.intersection(new).contains(InodeFlags::IMMUTABLE) && new != old {
            return Err(Error::NotPermitted);
        }
        record.set_flags(new);
        record.touch_changed();
        record.flush_line0();
        record.pmem().fence();
        Ok(())
    }
}

/// `i_block` of a new inode.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewBlock {
    Empty,
    /// A pointer to the first block.
    First(u32),
    /// The text of a fast symlink, or a device number.
    Bytes([u8; 60]),
}

/// The body of an inode that is about to be named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewInode {
    /// Type and permission bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) flags: InodeFlags,
    pub(crate) generation: u32,
    pub(crate) size: u64,
    /// `i_blocks`.
    pub(crate) sectors: u32,
    pub(crate) block: NewBlock,
    pub(crate) file_acl: u32,
    pub(crate) now: Timestamp,
}

impl NewInode {
    /// Writes the whole inode as a dead one (rule R1: links 0, a death time) and flushes it. Every byte of the slot is
    /// written, so nothing of the number's former life remains (rule R7). Not fenced.
    ///
    /// # Errors
    /// `Corrupt` if the descriptor of the inode's group is damaged.
    pub(crate) fn write_dead(&self, core: &Core, ino: Ino) -> Result<()> {
        let inode_size = core.geometry.inode_size() as usize;
        let at = core.volume.inode_offset(ino)?.at();
        let has_extra = core.geometry.inode_size() > 128;
        let words = self.words(has_extra, record::death_time(core, self.now));
        let filled = inode_size.min(size_of_val(&words));
        core.pmem.write_words(Off::new(at), &words[..filled / 8]);
        if filled < inode_size {
            core.pmem
                .zero(at + filled as u64, (inode_size - filled) as u64);
        }
        core.pmem.flush(at, inode_size as u64);
        Ok(())
    }

    /// The inode as it is to lie on the medium, all that is not zero of it.
    ///
    /// Put together in registers, not in a [`RawInode`](ext2dax_format::RawInode): a structure that was filled field by field and is then copied in
    /// larger pieces has to wait until its fields have reached the cache, behind all that was stored before. A test keeps
    /// the two in step.
    fn words(&self, has_extra: bool, death_time: u32) -> [U64; 32] {
        let word = |low: u32, high: u32| U64::new(u64::from(high) << 32 | u64::from(low));
        let pair = |(low, high): (u16, u16)| u32::from(high) << 16 | u32::from(low);
        let seconds = self.now.encode(has_extra).0;
        let (uid, uid_high) = halves(self.uid);
        let (gid, gid_high) = halves(self.gid);
        let mut words = [U64::ZERO; 32];
        words[0] = word(pair((self.mode, uid)), low_half(self.size));
        words[1] = word(seconds, seconds);
        words[2] = word(seconds, death_time);
        words[3] = word(pair((gid, 0)), self.sectors);
        words[4] = word(self.flags.bits(), 0);
        let mut last = 0;
        match &self.block {
            NewBlock::Empty => {}
            NewBlock::First(block) => words[5] = word(*block, 0),
            NewBlock::Bytes(bytes) => {
                let (eights, rest) = bytes.as_chunks::<8>();
                for (word, bytes) in words[5..].iter_mut().zip(eights) {
                    *word = U64::from_bytes(*bytes);
                }
                last = rest
                    .iter()
                    .rev()
                    .fold(0, |last, &byte| last << 8 | u32::from(byte));
            }
        }
        words[12] = word(last, self.generation);
        words[13] = word(self.file_acl, high_half(self.size));
        words[15] = word(pair((uid_high, gid_high)), 0);
        if has_extra {
            let (seconds, high) = self.now.encode(true);
            words[16] = word(u32::from(EXTRA_ISIZE), high);
            words[17] = word(high, high);
            words[18] = word(seconds, high);
        }
        words
    }
}

/// The words of `i_block` for a device.
///
/// # Errors
/// `Overflow` if the numbers fit into neither encoding.
pub(crate) fn device_words((major, minor): (u32, u32)) -> Result<[u8; 60]> {
    let (old, new) = Device { major, minor }.encode().ok_or(Error::Overflow)?;
    let mut block = [0; 60];
    block[..4].copy_from_slice(&old.to_le_bytes());
    block[4..8].copy_from_slice(&new.to_le_bytes());
    Ok(block)
}

/// Gives life (rule R1): links, then dtime := 0, both in line 0. Flushed, not fenced.
pub(crate) fn give_life(record: &Record, links: u16) {
    record.set_links(links);
    record.pmem().line_order();
    record.set_dtime(0);
    record.flush_line0();
}

/// Takes life (rule R1): dtime, then links := 0, both in line 0. Flushed, not fenced.
pub(crate) fn take_life(record: &Record) {
    record.set_dtime(record.death_time());
    record.pmem().line_order();
    record.set_links(0);
    record.flush_line0();
}

pub(crate) const fn low_half(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

pub(crate) const fn high_half(value: u64) -> u32 {
    (value >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use ext2dax_format::RawInode;
    use zerocopy::{FromBytes, IntoBytes};

    /// The words are put together by hand; the structure says where each field lies.
    #[test]
    fn a_new_inode_lies_as_the_structures_say() {
        let now = Timestamp {
            secs: 0x1_2345_6789,
            nanos: 987_654_321,
        };
        let mut bytes = [0; 60];
        bytes.iter_mut().zip(1..).for_each(|(byte, nr)| *byte = nr);
        let mut inode = NewInode {
            mode: 0o100_644,
            uid: 0x1234_5678,
            gid: 0x9abc_def0,
            flags: InodeFlags::NODUMP,
            generation: 0xcafe_f00d,
            size: 0x12_3456_789a,
            sectors: 0x0102_0304,
            block: NewBlock::Bytes(bytes),
            file_acl: 0x0a0b_0c0d,
            now,
        };
        for has_extra in [false, true] {
            let words = inode.words(has_extra, 0xdead);
            let (raw, rest) = RawInode::read_from_prefix(words.as_bytes()).expect("long enough");
            assert_eq!(raw.i_mode.get(), inode.mode);
            assert_eq!((raw.uid(), raw.gid()), (inode.uid, inode.gid));
            assert_eq!(
                (raw.size(), raw.i_blocks.get()),
                (inode.size, inode.sectors)
            );
            assert_eq!((raw.i_links_count.get(), raw.i_dtime.get()), (0, 0xdead));
            assert_eq!(raw.i_flags.get(), inode.flags.bits());
            assert_eq!(raw.i_block.as_bytes(), bytes);
            assert_eq!(raw.i_generation.get(), inode.generation);
            assert_eq!(raw.i_file_acl.get(), inode.file_acl);
            let (extra, rest) = RawInodeExtra::read_from_prefix(rest).expect("long enough");
            let times = inode::times(&raw, has_extra.then_some(&extra));
            if has_extra {
                assert_eq!(times, (now, now, now));
                assert_eq!(extra.create_time(), Some(now));
            } else {
                assert_eq!(extra.as_bytes(), RawInodeExtra::default().as_bytes());
                let (seconds, _) = now.encode(false);
                let stored = [raw.i_atime, raw.i_mtime, raw.i_ctime];
                assert_eq!(stored.map(|time| time.get()), [seconds; 3]);
            }
            assert!(rest.iter().all(|&byte| byte == 0));
        }
        inode.block = NewBlock::First(77);
        let words = inode.words(true, 0xdead);
        let (raw, _) = RawInode::read_from_prefix(words.as_bytes()).expect("long enough");
        assert_eq!(raw.i_block[0].get(), 77);
        assert!(raw.i_block[1..].iter().all(|block| block.get() == 0));
    }
}
