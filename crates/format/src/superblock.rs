//! The superblock as it lies on the medium.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where the primary superblock starts, in bytes from the start of the file system, at every block size.
pub const SUPERBLOCK_OFFSET: u64 = 1024;

/// `s_magic` of every ext2, ext3 and ext4 file system.
pub const MAGIC: u16 = 0xEF53;

/// `s_state`: unmounted cleanly.
pub const STATE_VALID: u16 = 0x0001;
/// `s_state`: errors were found and not yet repaired.
pub const STATE_ERROR: u16 = 0x0002;
/// `s_state`: orphans are being recovered (ext3 and later).
pub const STATE_ORPHANS: u16 = 0x0004;

/// `s_errors`: go on.
pub const ERRORS_CONTINUE: u16 = 1;
/// `s_errors`: no more writing.
pub const ERRORS_READ_ONLY: u16 = 2;
/// `s_errors`: stop the machine.
pub const ERRORS_PANIC: u16 = 3;

/// `s_creator_os`: Linux.
pub const OS_LINUX: u32 = 0;
/// `s_creator_os`: GNU Hurd.
pub const OS_HURD: u32 = 1;

/// `s_flags`: directory hashes read the bytes of names as signed.
pub const FLAG_SIGNED_HASH: u32 = 0x0001;
/// `s_flags`: directory hashes read the bytes of names as unsigned.
pub const FLAG_UNSIGNED_HASH: u32 = 0x0002;
/// `s_flags`: made for a file system driver under development.
pub const FLAG_TEST_FILESYS: u32 = 0x0004;

/// The revision without a fixed meaning of the fields behind `s_def_resgid`.
pub const REVISION_GOOD_OLD: u32 = 0;
/// The revision with variable inode sizes and feature words.
pub const REVISION_DYNAMIC: u32 = 1;

/// The superblock, 1,024 bytes. Nothing in it is trusted before [`Geometry::new`](crate::Geometry::new) has looked.
///
/// # On disk
/// *The Second Extended File System*, "Superblock"; Linux `ext4/super.rst` for the bytes from 264 on.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the specification's names; each is explained where it is used"
)]
pub struct RawSuperblock {
    pub s_inodes_count: U32,
    pub s_blocks_count: U32,
    pub s_r_blocks_count: U32,
    pub s_free_blocks_count: U32,
    pub s_free_inodes_count: U32,
    pub s_first_data_block: U32,
    pub s_log_block_size: U32,
    pub s_log_frag_size: U32,
    pub s_blocks_per_group: U32,
    pub s_frags_per_group: U32,
    pub s_inodes_per_group: U32,
    pub s_mtime: U32,
    pub s_wtime: U32,
    pub s_mnt_count: U16,
    pub s_max_mnt_count: U16,
    pub s_magic: U16,
    pub s_state: U16,
    pub s_errors: U16,
    pub s_minor_rev_level: U16,
    pub s_lastcheck: U32,
    pub s_checkinterval: U32,
    pub s_creator_os: U32,
    pub s_rev_level: U32,
    pub s_def_resuid: U16,
    pub s_def_resgid: U16,
    pub s_first_ino: U32,
    pub s_inode_size: U16,
    pub s_block_group_nr: U16,
    pub s_feature_compat: U32,
    pub s_feature_incompat: U32,
    pub s_feature_ro_compat: U32,
    pub s_uuid: [u8; 16],
    pub s_volume_name: [u8; 16],
    pub s_last_mounted: [u8; 64],
    pub s_algorithm_usage_bitmap: U32,
    pub s_prealloc_blocks: u8,
    pub s_prealloc_dir_blocks: u8,
    pub s_reserved_gdt_blocks: U16,
    pub s_journal_uuid: [u8; 16],
    pub s_journal_inum: U32,
    pub s_journal_dev: U32,
    pub s_last_orphan: U32,
    pub s_hash_seed: [U32; 4],
    pub s_def_hash_version: u8,
    pub s_jnl_backup_type: u8,
    pub s_desc_size: U16,
    pub s_default_mount_opts: U32,
    pub s_first_meta_bg: U32,
    pub s_mkfs_time: U32,
    pub s_jnl_blocks: [U32; 17],
    pub s_blocks_count_hi: U32,
    pub s_r_blocks_count_hi: U32,
    pub s_free_blocks_count_hi: U32,
    pub s_min_extra_isize: U16,
    pub s_want_extra_isize: U16,
    pub s_flags: U32,
    pub s_raid_stride: U16,
    pub s_mmp_interval: U16,
    pub s_mmp_block: U64,
    pub s_raid_stripe_width: U32,
    pub s_log_groups_per_flex: u8,
    pub s_checksum_type: u8,
    pub s_encryption_level: u8,
    pub s_reserved_pad: u8,
    pub s_kbytes_written: U64,
    pub s_snapshot_inum: U32,
    pub s_snapshot_id: U32,
    pub s_snapshot_r_blocks_count: U64,
    pub s_snapshot_list: U32,
    pub s_error_count: U32,
    pub s_first_error_time: U32,
    pub s_first_error_ino: U32,
    pub s_first_error_block: U64,
    pub s_first_error_func: [u8; 32],
    pub s_first_error_line: U32,
    pub s_last_error_time: U32,
    pub s_last_error_ino: U32,
    pub s_last_error_line: U32,
    pub s_last_error_block: U64,
    pub s_last_error_func: [u8; 32],
    pub s_mount_opts: [u8; 64],
    pub s_usr_quota_inum: U32,
    pub s_grp_quota_inum: U32,
    pub s_overhead_clusters: U32,
    pub s_backup_bgs: [U32; 2],
    pub s_encrypt_algos: [u8; 4],
    pub s_encrypt_pw_salt: [u8; 16],
    pub s_lpf_ino: U32,
    pub s_prj_quota_inum: U32,
    pub s_checksum_seed: U32,
    pub s_wtime_hi: u8,
    pub s_mtime_hi: u8,
    pub s_mkfs_time_hi: u8,
    pub s_lastcheck_hi: u8,
    pub s_first_error_time_hi: u8,
    pub s_last_error_time_hi: u8,
    pub s_first_error_errcode: u8,
    pub s_last_error_errcode: u8,
    pub s_encoding: U16,
    pub s_encoding_flags: U16,
    pub s_orphan_file_inum: U32,
    pub s_reserved: [U32; 94],
    pub s_checksum: U32,
}

const _: () = {
    assert!(size_of::<RawSuperblock>() == 1024);
    assert!(core::mem::offset_of!(RawSuperblock, s_magic) == 56);
    assert!(core::mem::offset_of!(RawSuperblock, s_first_ino) == 84);
    assert!(core::mem::offset_of!(RawSuperblock, s_feature_compat) == 92);
    assert!(core::mem::offset_of!(RawSuperblock, s_last_orphan) == 232);
    assert!(core::mem::offset_of!(RawSuperblock, s_first_meta_bg) == 260);
    assert!(core::mem::offset_of!(RawSuperblock, s_blocks_count_hi) == 336);
    assert!(core::mem::offset_of!(RawSuperblock, s_flags) == 352);
    assert!(core::mem::offset_of!(RawSuperblock, s_mmp_block) == 360);
    assert!(core::mem::offset_of!(RawSuperblock, s_error_count) == 404);
    assert!(core::mem::offset_of!(RawSuperblock, s_mount_opts) == 512);
    assert!(core::mem::offset_of!(RawSuperblock, s_backup_bgs) == 588);
    assert!(core::mem::offset_of!(RawSuperblock, s_lpf_ino) == 616);
    assert!(core::mem::offset_of!(RawSuperblock, s_wtime_hi) == 628);
    assert!(core::mem::offset_of!(RawSuperblock, s_orphan_file_inum) == 640);
    assert!(core::mem::offset_of!(RawSuperblock, s_checksum) == 1020);
};

impl RawSuperblock {
    /// A superblock of zero bytes, to be filled in.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }

    /// The volume name without the zero bytes behind it.
    #[must_use]
    pub fn volume_name(&self) -> &[u8] {
        let len = self
            .s_volume_name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(self.s_volume_name.len());
        self.s_volume_name.get(..len).unwrap_or_default()
    }
}

/// `s_errors` as a word: what to do when damage is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Go on as well as possible.
    #[default]
    Continue,
    /// Refuse every further write.
    ReadOnly,
    /// Stop: the embedder decides how.
    Panic,
}

impl OnError {
    /// Unknown values mean `Continue`, as they do to the Linux drivers.
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        match raw {
            ERRORS_READ_ONLY => Self::ReadOnly,
            ERRORS_PANIC => Self::Panic,
            _ => Self::Continue,
        }
    }
}
