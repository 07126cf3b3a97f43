//! Attributes of an inode: what `stat` answers, what a caller may set, and the body of a new inode.

use alloc::vec::Vec;

use ext2dax_format::inode::{self, EXTRA_ISIZE};
use ext2dax_format::{
    Error, FileType, Ino, InodeFlags, RawInode, RawInodeExtra, Result, Timestamp, device::Device,
};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::Node;
use super::record::{self, Record, TimeChange, halves};
use crate::mount::Core;
use crate::xattr::{Protection, without_set_id};

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
    /// does: set-group-id only if the group may execute. Costs two loads where there is nothing to take.
    ///
    /// # Errors
    /// As [`Node::set_attributes`].
    pub(crate) fn clear_privileges(&self) -> Result<()> {
        let record = self.record();
        let has_some = || -> Result<bool> {
            let mode = record.mode();
            Ok(without_set_id(mode) != mode || self.has_capability()?)
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
            bits: without_set_id(old.bits),
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
    /// set and that is not set.
    pub(crate) fn set_flags(&self, flags: InodeFlags) -> Result<()> {
        let record = self.record();
        let core = record.core();
        core.writable()?;
        let _writing = core.gates.write.enter();
        let _inode = self.lock.write();
        self.check_alive()?;
        let old = record.flags();
        let settable = InodeFlags::USER_MODIFIABLE;
        if !flags.difference(old).difference(settable).is_empty() {
            return Err(Error::NotSupported);
        }
        record.set_flags(old.difference(settable) | flags.intersection(settable));
        record.touch_changed();
        record.flush_line0();
        record.pmem().fence();
        Ok(())
    }
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
    /// `i_block` as bytes: text of a fast symlink, a device number, or the first pointers.
    pub(crate) block: [u8; 60],
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
        let inode_size = core.geometry.inode_size();
        let at = core.volume.inode_offset(ino)?;
        // Nearly all inodes have 128 or 256 bytes: no heap for those.
        let (mut usual, mut large) = ([0; 256], Vec::new());
        let bytes = match usual.get_mut(..inode_size as usize) {
            Some(bytes) => bytes,
            None => {
                large.resize(inode_size as usize, 0);
                &mut large
            }
        };
        let raw = self.raw(core);
        let (fixed, rest) = bytes.split_at_mut(size_of::<RawInode>());
        fixed.copy_from_slice(raw.as_bytes());
        if let Some(extra) = rest.get_mut(..size_of::<RawInodeExtra>()) {
            extra.copy_from_slice(self.raw_extra().as_bytes());
        }
        core.pmem.write_flushed(at.at(), bytes);
        Ok(())
    }

    fn raw(&self, core: &Core) -> RawInode {
        let has_extra = core.geometry.inode_size() > 128;
        let seconds = U32::new(self.now.encode(has_extra).0);
        let (uid, uid_high) = halves(self.uid);
        let (gid, gid_high) = halves(self.gid);
        let mut raw = RawInode::new_zeroed();
        raw.i_mode = U16::new(self.mode);
        raw.i_uid = U16::new(uid);
        raw.l_i_uid_high = U16::new(uid_high);
        raw.i_gid = U16::new(gid);
        raw.l_i_gid_high = U16::new(gid_high);
        raw.i_size = U32::new(low_half(self.size));
        raw.i_size_high = U32::new(high_half(self.size));
        raw.i_atime = seconds;
        raw.i_ctime = seconds;
        raw.i_mtime = seconds;
        raw.i_dtime = U32::new(record::death_time(core, self.now));
        raw.i_blocks = U32::new(self.sectors);
        raw.i_flags = U32::new(self.flags.bits());
        raw.i_block.as_mut_bytes().copy_from_slice(&self.block);
        raw.i_generation = U32::new(self.generation);
        raw.i_file_acl = U32::new(self.file_acl);
        raw
    }

    fn raw_extra(&self) -> RawInodeExtra {
        let (seconds, high) = self.now.encode(true);
        let mut extra = RawInodeExtra::new_zeroed();
        extra.i_extra_isize = U16::new(EXTRA_ISIZE);
        extra.i_ctime_extra = U32::new(high);
        extra.i_mtime_extra = U32::new(high);
        extra.i_atime_extra = U32::new(high);
        extra.i_crtime = U32::new(seconds);
        extra.i_crtime_extra = U32::new(high);
        extra
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
