//! What can be wrong with an image: one kind a check.

use core::fmt;

macro_rules! corrupt_kinds {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty),* $(,)? } = $($text:literal),+;)*) => {
        /// One variant a check. The numbers find the place in debugfs: inode, group, block, byte offset.
        ///
        /// Numbers named `inode`, `group`, `block` (of the image) and `file_block` are in the units that debugfs takes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        #[expect(missing_docs, reason = "fields are named after what they hold; each kind's text shows them in context")]
        pub enum CorruptKind {
            $($(#[$doc])* $name { $($field: $ty),* },)*
        }

        impl fmt::Display for CorruptKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$name { $($field),* } => write!(f, concat!($($text),+), $($field = $field),*),)*
                }
            }
        }
    };
}

corrupt_kinds! {
    // Superblock.
    /// Block sizes are 1 to 64 KiB.
    LogBlockSize { found: u32 } = "superblock: s_log_block_size {found} is outside 0..=6";
    /// Fragments smaller than a block never came to be.
    FragmentSize { found: u32, expected: u32 } =
        "superblock: s_log_frag_size {found} differs from s_log_block_size {expected}";
    /// Block 0 holds the boot bytes only where a block is 1,024 bytes.
    FirstDataBlock { found: u32, expected: u32 } = "superblock: s_first_data_block {found}, must be {expected}";
    /// A multiple of 8, one bitmap block at most, and no more than a 16-bit counter holds.
    BlocksPerGroup { found: u32, max: u32 } =
        "superblock: s_blocks_per_group {found} is not a multiple of 8 in 8..={max}";
    /// Fragments and blocks are the same.
    FragsPerGroup { found: u32, expected: u32 } =
        "superblock: s_frags_per_group {found} differs from s_blocks_per_group {expected}";
    /// One bitmap block at most, and no more than a 16-bit counter holds.
    InodesPerGroup { found: u32, max: u32 } = "superblock: s_inodes_per_group {found} is outside 1..={max}";
    /// A power of two from 128 to the block size.
    InodeSize { found: u32, max: u32 } = "superblock: s_inode_size {found} is not a power of two in 128..={max}";
    /// Inodes 1 to 10 are reserved.
    FirstInode { found: u32, inodes: u32 } = "superblock: s_first_ino {found} is outside 11..={inodes}";
    /// There must be a block behind the boot bytes.
    BlocksCount { found: u32, first_data_block: u32 } =
        "superblock: s_blocks_count {found} leaves no block after s_first_data_block {first_data_block}";
    /// The image is cut short, or the superblock lies.
    RegionTooSmall { blocks: u32, block_size: u32, region_len: u64 } =
        "superblock: s_blocks_count {blocks} x {block_size} bytes does not fit into the image's {region_len} bytes: truncated";
    /// Groups times inodes per group.
    InodesCount { found: u32, groups: u32, inodes_per_group: u32 } =
        "superblock: s_inodes_count {found} is not {groups} groups x {inodes_per_group}";
    /// Half of the blocks at most.
    ReservedBlocks { found: u32, blocks: u32 } =
        "superblock: s_r_blocks_count {found} is more than half of {blocks} blocks";
    /// Inode 7's double indirect block holds one pointer for each.
    ReservedGdtBlocks { found: u32, max: u32 } = "superblock: s_reserved_gdt_blocks {found} is more than {max}";
    /// Not past the last block of descriptors.
    FirstMetaBg { found: u32, max: u32 } = "superblock: s_first_meta_bg {found} is more than {max} descriptor blocks";
    /// A group, or 0 for none.
    BackupGroup { found: u32, groups: u32 } = "superblock: s_backup_bgs names group {found} of {groups}";
    /// Superblock, descriptors, bitmaps and inode table must leave a group room.
    GroupTooSmall { group: u32, blocks: u32, needed: u32 } =
        "group {group}: its {blocks} blocks do not hold the {needed} blocks of its own tables";
    /// A counter larger than what it counts.
    FreeBlocksCount { found: u32, blocks: u32 } = "superblock: s_free_blocks_count {found} is more than {blocks} blocks";
    /// A counter larger than what it counts.
    FreeInodesCount { found: u32, inodes: u32 } = "superblock: s_free_inodes_count {found} is more than {inodes} inodes";

    // Group descriptors.
    /// Tables lie in their own group.
    BlockBitmapOutOfGroup { group: u32, found: u32, first: u32, end: u32 } =
        "group {group}: block bitmap at block {found} lies outside the group ({first}..{end})";
    /// Tables lie in their own group.
    InodeBitmapOutOfGroup { group: u32, found: u32, first: u32, end: u32 } =
        "group {group}: inode bitmap at block {found} lies outside the group ({first}..{end})";
    /// Tables lie in their own group.
    InodeTableOutOfGroup { group: u32, found: u32, len: u32, first: u32, end: u32 } =
        "group {group}: inode table at block {found}, {len} blocks long, lies outside the group ({first}..{end})";
    /// Bitmaps, inode table, superblock and descriptors share no block.
    GroupTablesOverlap { group: u32, block: u32 } = "group {group}: two of its tables claim block {block}";

    /// A group's own tables are in use; a bitmap that says otherwise would hand them out.
    TableMarkedFree { group: u32, block: u32 } = "group {group}: block {block} holds its tables and is marked free";

    // Block numbers.
    /// A pointer leaves the file system.
    BlockOutOfRange { block: u32, first: u32, end: u32 } = "block {block} lies outside the file system ({first}..{end})";
    /// A run leaves the file system.
    RunOutOfRange { block: u32, len: u32, end: u32 } = "blocks {block} + {len} run past the end of the file system ({end})";
    /// A pointer of a file leads into the superblock, a descriptor, a bitmap or an inode table.
    PointerIntoMetadata { inode: u32, block: u32 } = "inode {inode}: block {block} belongs to the file system's own tables";
    /// A pointer of a file leaves the file system.
    PointerOutOfRange { inode: u32, block: u32, file_block: u32 } =
        "inode {inode}: file block {file_block} points to block {block}, outside the file system";
    /// A block in use is marked free.
    BlockMarkedFree { inode: u32, block: u32 } = "inode {inode}: block {block} is in use and marked free";
    /// A pointer was met twice where one tree is walked.
    BlockUsedTwice { inode: u32, block: u32 } = "inode {inode}: block {block} is used twice";

    // Inodes.
    /// Not an inode of this file system.
    InodeOutOfRange { inode: u32, inodes: u32 } = "inode {inode} is outside 1..={inodes}";
    /// A name leads to an inode that no name keeps alive.
    DeadInode { inode: u32 } = "inode {inode} has a name and a link count of 0";
    /// `i_mode` has no known type.
    InodeType { inode: u32, mode: u16 } = "inode {inode}: mode {mode:#08o} is of no known type";
    /// `i_size` is more than a tree of this block size can hold, or than a directory may have.
    InodeFileSize { inode: u32, size: u64, max: u64 } = "inode {inode}: size {size} is more than {max}";
    /// `i_extra_isize` does not fit.
    InodeExtraSize { inode: u32, found: u16, max: u16 } =
        "inode {inode}: i_extra_isize {found} is not a multiple of 4 in 0..={max}";
    /// Directories are whole blocks.
    DirectorySize { inode: u32, size: u64 } = "directory {inode}: size {size} is not a multiple of the block size";
    /// The inode bitmap calls an inode free that has a link count.
    InodeMarkedFree { inode: u32 } = "inode {inode} has links and is marked free";
    /// A directory's tree goes on behind its size, where a new block was to go.
    DirectoryPastEnd { inode: u32, file_block: u32 } =
        "directory {inode}: file block {file_block} lies behind its size and is mapped";
    /// Directories have no holes.
    DirectoryHole { inode: u32, file_block: u32 } = "directory {inode}: file block {file_block} is a hole";
    /// Empty, or longer than a block.
    SymlinkLength { inode: u32, size: u64, max: u64 } = "symlink {inode}: length {size} is outside 1..={max}";
    /// The list of orphans loops, or leads to an inode that cannot be on it.
    OrphanList { inode: u32, next: u32 } = "orphan list: inode {inode} leads to {next}";

    // Directory entries.
    /// A record's length: at least 12, a multiple of 4.
    DirentLength { inode: u32, file_block: u32, offset: u32, found: u32 } =
        "directory {inode}: block {file_block}, offset {offset}: rec_len {found} is not a multiple of 4 from 12 on";
    /// A record leaves its block.
    DirentPastBlock { inode: u32, file_block: u32, offset: u32, found: u32 } =
        "directory {inode}: block {file_block}, offset {offset}: rec_len {found} runs past the end of the block";
    /// A name leaves its record.
    DirentNameLength { inode: u32, file_block: u32, offset: u32, found: u32 } =
        "directory {inode}: block {file_block}, offset {offset}: a name of {found} bytes does not fit into its record";
    /// A name without bytes.
    DirentNameEmpty { inode: u32, file_block: u32, offset: u32 } =
        "directory {inode}: block {file_block}, offset {offset}: empty name";
    /// A name with `/` or a zero byte.
    DirentNameByte { inode: u32, file_block: u32, offset: u32 } =
        "directory {inode}: block {file_block}, offset {offset}: the name has a '/' or a zero byte";
    /// A name of an inode that cannot exist, or that has no name.
    DirentInode { inode: u32, file_block: u32, offset: u32, found: u32 } =
        "directory {inode}: block {file_block}, offset {offset}: entry of inode {found}, which cannot have a name";
    /// The first two entries are `.` and `..`.
    DirectoryDots { inode: u32 } = "directory {inode}: does not begin with '.' and '..'";

    // Directory index.
    /// The root of an index: version, length of its header, levels.
    IndexRoot { inode: u32, found: u8 } = "directory {inode}: root of the index is damaged (byte {found:#04x})";
    /// More entries than the block can hold, or none.
    IndexCount { inode: u32, file_block: u32, count: u16, limit: u16 } =
        "directory {inode}: index block {file_block} says {count} of {limit} entries";

    // Extended attributes.
    /// `h_magic`.
    XattrMagic { inode: u32, block: u32, found: u32 } = "inode {inode}: attribute block {block}: magic {found:#010x}";
    /// Attribute blocks are single.
    XattrBlocks { inode: u32, block: u32, found: u32 } = "inode {inode}: attribute block {block}: h_blocks {found}, must be 1";
    /// `h_refcount` is 1 to 1,024.
    XattrRefcount { inode: u32, block: u32, found: u32 } =
        "inode {inode}: attribute block {block}: h_refcount {found} is outside 1..=1024";
    /// An entry or its name leaves the attribute area.
    XattrEntry { inode: u32, offset: u32 } = "inode {inode}: attribute entry at offset {offset} leaves its area";
    /// A value leaves the attribute area, or overlaps the entries.
    XattrValue { inode: u32, offset: u32, size: u32 } =
        "inode {inode}: attribute entry at offset {offset}: value of {size} bytes leaves its area";
    /// A value in an inode or a block of its own.
    XattrValueBlock { inode: u32, offset: u32, found: u32 } =
        "inode {inode}: attribute entry at offset {offset}: e_value_block {found}, must be 0";
    /// `i_file_acl` leads out of the file system or into its tables.
    XattrBlock { inode: u32, found: u32 } = "inode {inode}: i_file_acl {found} is no block of data";
    /// An access control list that is none.
    XattrAcl { inode: u32 } = "inode {inode}: access control list is damaged";
}
