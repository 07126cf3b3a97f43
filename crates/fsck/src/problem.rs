//! The table of problem codes: one variant for each inconsistency that fsck can name.
//!
//! A row holds the word that scripts see (never reused for something else), the pass, how severe the finding is, whether
//! preen may repair it, what is wrong and what the repair does. Texts are templates: `{ino}`, `{block}`, `{group}`,
//! `{name}`, `{at}`, `{found}`, `{expected}`, `{parent}` and `{path}` are filled from the finding.

/// A pass of the check, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Pass {
    /// Superblock, group descriptors, backups, orphan list, resize inode.
    Preamble = 0,
    /// Inodes, their blocks and their sizes; multiply-claimed blocks (1B) as well.
    Inodes = 1,
    /// Directory structure.
    Directories = 2,
    /// Directory connectivity.
    Connectivity = 3,
    /// Reference counts.
    Links = 4,
    /// Bitmaps and counters.
    Bitmaps = 5,
}

impl Pass {
    /// The line that announces the pass.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Preamble => "Checking superblock and group descriptors",
            Self::Inodes => "Pass 1: Checking inodes, blocks, and sizes",
            Self::Directories => "Pass 2: Checking directory structure",
            Self::Connectivity => "Pass 3: Checking directory connectivity",
            Self::Links => "Pass 4: Checking reference counts",
            Self::Bitmaps => "Pass 5: Checking group summary information",
        }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// What an interrupted ext2dax may leave behind: the repair loses nothing.
    Residue,
    /// Everything else.
    Damage,
}

/// Whether preen may repair a finding without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preen {
    /// The rest of the image decides the repair, nothing is lost.
    Safe,
    /// A person has to look.
    Manual,
}

macro_rules! problems {
    ($($variant:ident $word:literal $pass:ident $severity:ident $preen:ident $text:literal => $action:literal;)*) => {
        /// What is inconsistent. `docs/SPEC.md` lists the words with the nearest message of e2fsck.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $text] $variant),* }

        impl Code {
            /// Every code, in the order of the passes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub(crate) fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row { word: $word, pass: Pass::$pass, severity: Severity::$severity,
                        preen: Preen::$preen, text: $text, action: $action }),*
                }
            }
        }
    };
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) word: &'static str,
    pub(crate) pass: Pass,
    pub(crate) severity: Severity,
    pub(crate) preen: Preen,
    pub(crate) text: &'static str,
    pub(crate) action: &'static str,
}

impl Code {
    /// The stable word of this code, for example `p1.block.out-of-range`.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.row().word
    }

    /// The pass that finds it.
    #[must_use]
    pub fn pass(self) -> Pass {
        self.row().pass
    }

    /// Whether preen may repair it.
    #[must_use]
    pub fn preen(self) -> Preen {
        self.row().preen
    }
}

problems! {
    SuperMagic "p0.super.magic" Preamble Damage Manual
        "the superblock at byte {at} has no ext2 magic number" => "restore it from a backup";
    SuperField "p0.super.field" Preamble Damage Manual
        "superblock field {name} is {found}, should be {expected}" => "restore the superblock from a backup";
    SuperInodesCount "p0.super.inodes-count" Preamble Damage Manual
        "superblock counts {found} inodes, its groups hold {expected}" => "store the number of the groups";
    SuperInodesPerGroup "p0.super.inodes-per-group" Preamble Damage Manual
        "the superblock has {found} inodes a group; the count of all and the bitmaps have {expected}" => "store what they have";
    SuperFirstMetaBg "p0.super.first-meta-bg" Preamble Damage Manual
        "s_first_meta_bg is {found}, more than there are descriptor blocks; the descriptors are where {expected} has them" => "store that";
    SuperReserved "p0.super.reserved-blocks" Preamble Damage Manual
        "{found} descriptor blocks are reserved, which meets the groups' own blocks; the resize inode has {expected}" => "store what it has";
    DescFromBackup "p0.group.from-backup" Preamble Damage Manual
        "the primary group descriptors are bad, those of the backup at block {block} are good" => "restore them from the backup";
    GroupBlockBitmap "p0.group.block-bitmap" Preamble Damage Manual
        "group {group}: block bitmap at block {block} lies outside the group or on other metadata" => "give it a new place";
    GroupInodeBitmap "p0.group.inode-bitmap" Preamble Damage Manual
        "group {group}: inode bitmap at block {block} lies outside the group or on other metadata" => "give it a new place";
    GroupInodeTable "p0.group.inode-table" Preamble Damage Manual
        "group {group}: inode table at block {block} lies outside the group or on other metadata" => "give it a new place";
    GroupFlags "p0.group.flags" Preamble Damage Safe
        "group {group} is marked uninitialised ({found}), but the file system has no such groups" => "clear the marks";
    JournalUnexpected "p0.journal.unexpected" Preamble Damage Safe
        "the superblock names a journal, but the has_journal feature is not set" => "clear the journal fields";
    JournalMissing "p0.journal.missing" Preamble Damage Safe
        "the has_journal feature is set, but inode {ino} is no valid journal" => "clear the feature";
    JournalSuper "p0.journal.superblock" Preamble Damage Safe
        "the journal's superblock is corrupt: {name} is {found}" => "store the right value and call the journal empty";
    JournalUnknown "p0.journal.unknown" Preamble Damage Manual
        "the journal has features or a version that nobody here knows: {name} is {found}" => "none";
    QuotaUnexpected "p0.quota.unexpected" Preamble Damage Safe
        "the superblock names inode {ino} for quotas, but the quota feature is not set" => "clear the field";
    ResizeReserved "p0.resize.reserved-blocks" Preamble Damage Manual
        "{found} descriptor blocks are reserved without the resize_inode feature" => "store 0";
    ResizeMetaBg "p0.resize.meta-bg" Preamble Damage Manual
        "resize_inode and meta_bg are both set and do not go together" => "clear resize_inode";
    ResizeNotClear "p0.resize.not-clear" Preamble Damage Safe
        "the resize inode has blocks, but the resize_inode feature is not set" => "clear the inode";
    ResizeInvalid "p0.resize.invalid" Preamble Damage Safe
        "the resize inode is not valid" => "make it again";
    OrphanHead "p0.orphan.head" Preamble Damage Safe
        "the orphan list starts at inode {found}, which cannot be on it" => "clear the head of the list";
    OrphanLink "p0.orphan.link" Preamble Damage Safe
        "orphan inode {ino} continues at inode {found}, which cannot be on the list" => "cut the list there";
    OrphanListed "p0.orphan.listed" Preamble Residue Safe
        "inode {ino} is on the orphan list: its removal or truncation was interrupted" => "complete it";

    LowDtime "p1.inode.low-dtime" Inodes Damage Manual
        "inode {ino} was part of an orphan list, but is not on it (i_dtime {found})" => "repair i_dtime";
    ZeroDtime "p1.inode.zero-dtime" Inodes Residue Safe
        "deleted inode {ino} has no deletion time" => "set i_dtime";
    DtimeSet "p1.inode.dtime-set" Inodes Residue Safe
        "inode {ino} is in use, but has a deletion time" => "clear i_dtime";
    RootNotDir "p1.root.not-a-directory" Inodes Damage Manual
        "the root inode is not a directory (mode {found})" => "clear it, then make a new root";
    RootDtime "p1.root.dtime" Inodes Damage Safe
        "the root inode has a deletion time" => "clear i_dtime";
    BadBlocksFields "p1.bad-blocks.fields" Inodes Damage Manual
        "the bad blocks inode has fields set that must be zero" => "clear the inode";
    BadBlocksMeta "p1.bad-blocks.metadata" Inodes Damage Manual
        "block {block}, which holds the superblock or its descriptors, is on the bad block list" => "take it off the list";
    BadBlocksGroup "p1.bad-blocks.group" Inodes Damage Manual
        "block {block} of the {name} of group {group} is on the bad block list" => "move it to another place";
    BadBlocksOwn "p1.bad-blocks.own" Inodes Damage Manual
        "block {block}, which holds the bad block list, is on that list" => "take it off the list";
    ReservedMode "p1.reserved.mode" Inodes Damage Safe
        "reserved inode {ino} has mode {found}" => "store mode 0";
    JournalMode "p1.journal.mode" Inodes Damage Safe
        "the journal inode is not a regular file (mode {found})" => "make it one";
    JournalNotClear "p1.journal.not-clear" Inodes Damage Safe
        "the journal inode is not in use, but has contents" => "clear it";
    QuotaNotClear "p1.quota.not-clear" Inodes Damage Safe
        "quota inode {ino} is not in use, but has contents" => "clear it";
    FlagExtents "p1.flag.extents" Inodes Damage Manual
        "inode {ino} has the extents flag, but the file system has no extents" => "clear the inode";
    FlagInline "p1.flag.inline-data" Inodes Damage Manual
        "inode {ino} has the inline data flag, but the file system has no inline data" => "clear the inode";
    FlagCasefold "p1.flag.casefold" Inodes Damage Safe
        "inode {ino} has the casefold flag, but the file system has no casefolding" => "clear the flag";
    FlagEncrypt "p1.flag.encrypt" Inodes Damage Manual
        "inode {ino} has the encrypt flag, but no encryption attribute" => "clear the flag";
    FlagImagic "p1.flag.imagic" Inodes Damage Manual
        "inode {ino} has the imagic flag" => "clear the flag";
    FlagSpecial "p1.flag.special" Inodes Damage Manual
        "special file, inode {ino}, has the immutable or append-only flag" => "clear the flags";
    SpecialSize "p1.special.size" Inodes Damage Safe
        "special file, inode {ino}, has size {found}" => "store size 0";
    TreatAsDir "p1.mode.directory" Inodes Damage Manual
        "inode {ino} has mode {found}, but looks like a directory" => "make it a directory";
    BadMode "p1.mode.invalid" Inodes Damage Manual
        "inode {ino} ({path}) has the invalid mode {found}" => "clear the inode";
    BadDevice "p1.special.invalid" Inodes Damage Manual
        "inode {ino} ({path}) is no valid device, FIFO or socket" => "clear the inode";
    BadSymlink "p1.symlink.invalid" Inodes Damage Manual
        "symbolic link {path} (inode {ino}) is invalid" => "clear the inode";
    Faddr "p1.inode.faddr" Inodes Damage Manual
        "inode {ino} ({path}) has i_faddr {found}, should be 0" => "store 0";
    Fragment "p1.inode.fragment" Inodes Damage Manual
        "inode {ino} ({path}) has fragment fields set, should be 0" => "store 0";
    FileAclHigh "p1.inode.file-acl-high" Inodes Damage Manual
        "inode {ino} ({path}) has i_file_acl_high {found}, should be 0" => "store 0";
    BlocksHigh "p1.inode.blocks-high" Inodes Damage Manual
        "inode {ino} ({path}) has i_blocks_hi {found}, should be 0" => "store 0";
    DirSizeHigh "p1.inode.dir-size-high" Inodes Damage Manual
        "directory inode {ino} ({path}) has i_size_high {found}, should be 0" => "store 0";
    FileAclFeature "p1.xattr.no-feature" Inodes Damage Manual
        "inode {ino} ({path}) has an attribute block {block} without the ext_attr feature" => "store i_file_acl 0";
    FileAclRange "p1.xattr.out-of-range" Inodes Damage Manual
        "inode {ino} ({path}) has its attribute block at {block}, outside the file system" => "store i_file_acl 0";
    ExtraIsize "p1.inode.extra-isize" Inodes Damage Safe
        "inode {ino} has i_extra_isize {found}" => "store a valid size";
    TimeEpoch "p1.inode.time-epoch" Inodes Damage Safe
        "a time stamp of inode {ino} is in the old, wrong encoding" => "clear its epoch bits";
    InodeXattr "p1.xattr.in-inode" Inodes Damage Safe
        "attributes inside inode {ino} are invalid: {name} at byte {at}" => "remove them";
    XattrMagic "p1.xattr.magic" Inodes Damage Manual
        "attribute block {block} of inode {ino} has the wrong magic number" => "detach it";
    XattrBlocks "p1.xattr.blocks" Inodes Damage Manual
        "attribute block {block} of inode {ino} says that it is {found} blocks long" => "detach it";
    XattrEntry "p1.xattr.entry" Inodes Damage Manual
        "attribute block {block} of inode {ino} is invalid: {name} at byte {at}" => "detach it";
    XattrRefcount "p1.xattr.refcount" Inodes Damage Manual
        "attribute block {block} has reference count {found}, should be {expected}" => "store the right count";
    BlockRange "p1.block.out-of-range" Inodes Damage Manual
        "inode {ino}: block number {found} at {at} is outside the file system" => "clear the pointer";
    BlockTooMany "p1.block.too-many-bad" Inodes Damage Manual
        "inode {ino} has too many illegal blocks" => "clear the inode";
    IndirectMeta "p1.block.indirect-metadata" Inodes Damage Manual
        "inode {ino}: indirect block {block} holds metadata" => "clear the pointer";
    BlockTooFar "p1.block.too-far" Inodes Damage Manual
        "inode {ino}: block {block} at {at} makes the file too big" => "clear the pointer";
    ZeroLengthDir "p1.dir.empty" Inodes Damage Safe
        "inode {ino} is a directory without blocks" => "clear the inode";
    DirSize "p1.dir.size" Inodes Damage Safe
        "directory inode {ino} has i_size {found}, should be {expected}" => "store the right size";
    PastSize "p1.block.past-size" Inodes Residue Safe
        "inode {ino} has blocks past its size {found}, which should be {expected}" => "store the right size";
    SizeTooLarge "p1.inode.size" Inodes Damage Safe
        "inode {ino} has i_size {found}, should be {expected}" => "store the right size";
    IBlocks "p1.inode.i-blocks" Inodes Residue Safe
        "inode {ino} has i_blocks {found}, should be {expected}" => "store the right count";
    LargeFile "p1.super.large-file" Inodes Damage Safe
        "there are large files, but the large_file feature is not set" => "set the feature";
    HtreeNotDir "p1.htree.not-a-directory" Inodes Damage Safe
        "inode {ino} has the index flag, but is not a directory" => "clear the flag";
    HtreeFeature "p1.htree.no-feature" Inodes Damage Safe
        "inode {ino} has the index flag, but the file system has no dir_index" => "clear the flag";
    HtreeRoot "p1.htree.root" Inodes Damage Safe
        "directory inode {ino} has an invalid index root ({name})" => "clear the index flag";
    SharedBlocks "p1b.block.shared" Inodes Damage Manual
        "inode {ino} ({path}) claims blocks that others claim, too: {name}" => "copy them";

    DirHole "p2.dir.hole" Directories Damage Manual
        "directory inode {ino} has no block {at}" => "allocate one";
    EntryCorrupt "p2.entry.corrupt" Directories Damage Manual
        "directory inode {ino}, block {block}, offset {at}: entry is corrupt" => "salvage";
    MissingDot "p2.dot.missing" Directories Damage Manual
        "directory inode {ino} has no '.'" => "make it";
    NotDot "p2.dot.wrong-name" Directories Damage Manual
        "first entry '{name}' of directory inode {ino} should be '.'" => "make it '.'";
    DotNul "p2.dot.not-terminated" Directories Damage Safe
        "'.' of directory inode {ino} is not followed by NUL" => "store NUL";
    DotInode "p2.dot.inode" Directories Damage Safe
        "'.' of directory inode {ino} leads to inode {found}" => "store its own number";
    DotSplit "p2.dot.big" Directories Damage Safe
        "'.' of directory inode {ino} is {found} bytes long" => "split it";
    MissingDotdot "p2.dotdot.missing" Directories Damage Manual
        "directory inode {ino} has no '..'" => "make it";
    NotDotdot "p2.dotdot.wrong-name" Directories Damage Manual
        "second entry '{name}' of directory inode {ino} should be '..'" => "make it '..'";
    DotdotNul "p2.dotdot.not-terminated" Directories Damage Safe
        "'..' of directory inode {ino} is not followed by NUL" => "store NUL";
    LinkDot "p2.entry.self" Directories Damage Manual
        "entry '{name}' in {path} ({parent}) leads to its own directory" => "clear it";
    EntryInode "p2.entry.inode-range" Directories Damage Manual
        "entry '{name}' in {path} ({parent}) has the invalid inode number {found}" => "clear it";
    DupDot "p2.entry.second-dot" Directories Damage Manual
        "entry '.' in {path} ({parent}) is a second '.'" => "clear it";
    DupDotdot "p2.entry.second-dotdot" Directories Damage Manual
        "entry '..' in {path} ({parent}) is a second '..'" => "clear it";
    LinkRoot "p2.entry.root" Directories Damage Manual
        "entry '{name}' in {path} ({parent}) leads to the root inode" => "clear it";
    NullName "p2.entry.no-name" Directories Damage Manual
        "an entry in {path} ({parent}) has an empty name" => "clear it";
    UnusedInode "p2.entry.dead-inode" Directories Residue Safe
        "entry '{name}' in {path} ({parent}) leads to the deleted or unused inode {ino}" => "clear it";
    BadName "p2.entry.characters" Directories Damage Manual
        "entry '{name}' in {path} ({parent}) has characters that a name cannot have" => "replace them by '.'";
    TypeWrong "p2.entry.type" Directories Damage Manual
        "entry '{name}' in {path} ({parent}) has file type {found}, should be {expected}" => "store the right type";
    TypeMissing "p2.entry.no-type" Directories Residue Safe
        "entry '{name}' in {path} ({parent}) has no file type, should be {expected}" => "store it";
    TypeUnexpected "p2.entry.unexpected-type" Directories Damage Safe
        "entry '{name}' in {path} ({parent}) has file type {found} without the filetype feature" => "store 0";
    LinkDir "p2.entry.second-parent" Directories Damage Manual
        "entry '{name}' in {path} ({parent}) is another link to the directory inode {ino}" => "clear it";
    DupName "p2.entry.duplicate" Directories Damage Manual
        "entry '{name}' in {path} ({parent}) is there twice" => "rename one of them";
    HtreeIndex "p2.htree.index" Directories Damage Safe
        "directory inode {ino}: index is invalid: {name}, block {at}" => "clear the index flag";

    NoRoot "p3.root.missing" Connectivity Damage Manual
        "the root inode is not in use" => "make a new root directory";
    Unconnected "p3.dir.unconnected" Connectivity Damage Manual
        "directory inode {ino} is not connected (its '..' is inode {found})" => "connect it to lost+found";
    DirLoop "p3.dir.loop" Connectivity Damage Manual
        "directory inode {ino} is its own ancestor" => "connect it to lost+found";
    DotdotParent "p3.dotdot.parent" Connectivity Damage Manual
        "'..' of directory inode {ino} ({path}) is inode {found}, should be {expected}" => "store the parent's number";

    UnattachedEmpty "p4.inode.nameless-empty" Links Residue Safe
        "empty inode {ino} has no name" => "clear it";
    Unattached "p4.inode.nameless" Links Damage Manual
        "inode {ino} has no name" => "connect it to lost+found";
    CountHigh "p4.links.too-high" Links Residue Safe
        "inode {ino} ({path}) counts {found} links, should be {expected}" => "store the right count";
    CountLow "p4.links.too-low" Links Damage Safe
        "inode {ino} ({path}) counts {found} links, should be {expected}" => "store the right count";

    BlockLeak "p5.block.leaked" Bitmaps Residue Safe
        "block bitmap of group {group}: blocks marked in use that are free: {name}" => "clear the bits";
    BlockUnmarked "p5.block.unmarked" Bitmaps Damage Safe
        "block bitmap of group {group}: blocks in use that are marked free: {name}" => "set the bits";
    BlockPadding "p5.block.padding" Bitmaps Damage Safe
        "block bitmap of group {group}: padding is not set" => "set it";
    InodeLeak "p5.inode.leaked" Bitmaps Residue Safe
        "inode bitmap of group {group}: inodes marked in use that are free: {name}" => "clear the bits";
    InodeUnmarked "p5.inode.unmarked" Bitmaps Damage Safe
        "inode bitmap of group {group}: inodes in use that are marked free: {name}" => "set the bits";
    InodePadding "p5.inode.padding" Bitmaps Damage Safe
        "inode bitmap of group {group}: padding is not set" => "set it";
    GroupFreeBlocks "p5.count.group-free-blocks" Bitmaps Residue Safe
        "group {group} counts {found} free blocks, should be {expected}" => "store the right count";
    GroupFreeInodes "p5.count.group-free-inodes" Bitmaps Residue Safe
        "group {group} counts {found} free inodes, should be {expected}" => "store the right count";
    GroupDirs "p5.count.group-directories" Bitmaps Residue Safe
        "group {group} counts {found} directories, should be {expected}" => "store the right count";
    FreeBlocks "p5.count.free-blocks" Bitmaps Residue Safe
        "the superblock counts {found} free blocks, should be {expected}" => "store the right count";
    FreeInodes "p5.count.free-inodes" Bitmaps Residue Safe
        "the superblock counts {found} free inodes, should be {expected}" => "store the right count";
}
