//! One inode: fields, flags, and what its blocks say about its size.

use ext2dax_format::{RawInode, RawInodeExtra};
use zerocopy::FromBytes as _;

use super::blocks::{check_blocks, walk_bad_blocks};
use super::special;
use super::{GroupScan, Scan, xattr};
use crate::census::Kind;
use crate::finding::Finding;
use crate::fix::{Fix, Patch};
use crate::layout::{ROOT_INO, feature, saturate};
use crate::problem::{Code, Preen, Severity};

pub(crate) const BAD_INO: u32 = 1;
pub(crate) const USR_QUOTA_INO: u32 = 3;
pub(crate) const GRP_QUOTA_INO: u32 = 4;
pub(crate) const BOOT_INO: u32 = 5;
pub(crate) const RESIZE_INO: u32 = 7;
pub(crate) const JOURNAL_INO: u32 = 8;

/// Byte offsets of inode fields that repairs store to.
pub(crate) mod field {
    pub(crate) const MODE: u64 = 0;
    pub(crate) const SIZE: u64 = 4;
    pub(crate) const ATIME: u64 = 8;
    pub(crate) const MTIME: u64 = 16;
    pub(crate) const DTIME: u64 = 20;
    pub(crate) const LINKS: u64 = 26;
    pub(crate) const BLOCKS: u64 = 28;
    pub(crate) const FLAGS: u64 = 32;
    pub(crate) const TRANSLATOR: u64 = 36;
    pub(crate) const BLOCK: u64 = 40;
    pub(crate) const FILE_ACL: u64 = 104;
    pub(crate) const SIZE_HIGH: u64 = 108;
    pub(crate) const FADDR: u64 = 112;
    pub(crate) const BLOCKS_HIGH: u64 = 116;
    pub(crate) const FILE_ACL_HIGH: u64 = 118;
    pub(crate) const EXTRA: u64 = 128;
}

/// Inode flags that the checks ask for.
pub(crate) mod flag {
    pub(crate) const IMMUTABLE: u32 = 0x10;
    pub(crate) const APPEND: u32 = 0x20;
    pub(crate) const ENCRYPT: u32 = 0x800;
    pub(crate) const INDEX: u32 = 0x1000;
    pub(crate) const IMAGIC: u32 = 0x2000;
    pub(crate) const EXTENTS: u32 = 0x8_0000;
    pub(crate) const INLINE: u32 = 0x1000_0000;
    pub(crate) const CASEFOLD: u32 = 0x4000_0000;
}

/// An inode under check.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) scan: Scan<'a>,
    pub(crate) ino: u32,
    pub(crate) at: u64,
    pub(crate) raw: RawInode,
}

impl Subject<'_> {
    pub(crate) fn finding(&self, code: Code) -> Finding {
        Finding::new(code).ino(self.ino)
    }

    pub(crate) fn flags(&self) -> u32 {
        self.raw.i_flags.get()
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    pub(crate) fn size(&self) -> u64 {
        u64::from(self.raw.i_size_high.get()) << 32 | u64::from(self.raw.i_size.get())
    }

    pub(crate) fn clear_flags(&self, flags: u32) -> Fix {
        Fix::word(self.at + field::FLAGS, self.flags() & !flags)
    }

    pub(crate) fn set_size(&self, size: u64) -> Fix {
        let (low, high) = (size & 0xFFFF_FFFF, size >> 32);
        // The larger intermediate value first: between the two stores no byte of the file is past its end.
        let low = Patch::word(self.at + field::SIZE, saturate(low));
        let high = Patch::word(self.at + field::SIZE_HIGH, saturate(high));
        Fix::Patches(if size >= self.size() {
            vec![high, low]
        } else {
            vec![low, high]
        })
    }

    /// Whether `i_block` holds block numbers (and not a device number or the text of a short symbolic link).
    pub(crate) fn has_blocks(&self) -> bool {
        match Kind::of_mode(self.raw.i_mode.get()) {
            Kind::REGULAR | Kind::DIRECTORY => true,
            // A text that fits its size is a text, whatever i_blocks says; unless it is as good a block number.
            Kind::SYMLINK if self.raw.i_file_acl.get() == 0 => {
                self.raw.i_blocks.get() != 0
                    && (!special::is_text(self) || special::is_one_block(self))
            }
            Kind::SYMLINK => {
                self.raw.i_size.get() >= 60
                    || (self.raw.i_size.get() > 4 && self.raw.i_block[1].get() == 0)
            }
            _ => false,
        }
    }
}

/// An inode with link count 0 outside the reserved ones: only its deletion time says something.
#[inline]
pub(super) fn check_free(scan: Scan<'_>, ino: u32, at: u64, bytes: &[u8], out: &mut GroupScan) {
    let Ok((raw, _)) = RawInode::ref_from_prefix(bytes) else {
        return;
    };
    let (dtime, mode) = (raw.i_dtime.get(), raw.i_mode.get());
    if dtime == 0 && mode == 0 {
        return;
    }
    if dtime != 0 && !is_low(scan, dtime) {
        return;
    }
    let listed = || scan.orphans.contains(&ino);
    if dtime != 0 {
        if !listed() {
            let fix = Fix::word(at + field::DTIME, scan.now);
            out.findings
                .push(Finding::new(Code::LowDtime).ino(ino).found(dtime).fix(fix));
        }
    } else if !listed() {
        out.findings.push(
            Finding::new(Code::ZeroDtime)
                .ino(ino)
                .fix(Fix::word(at + field::DTIME, scan.now)),
        );
    }
}

fn is_low(scan: Scan<'_>, dtime: u32) -> bool {
    scan.low_dtime && dtime < scan.volume.layout.inodes
}

/// Checks one inode that may be in use and says what it is.
pub(crate) fn check(
    scan: Scan<'_>,
    (ino, at): (u32, u64),
    bytes: &[u8],
    buffer: &mut [u8],
    out: &mut GroupScan,
) -> Kind {
    let raw = match RawInode::read_from_prefix(bytes) {
        Ok((raw, _)) => raw,
        Err(_) => scan.image.inode(at),
    };
    let subject = Subject { scan, ino, at, raw };
    let listed = scan.orphans.contains(&ino);
    let dtime = subject.raw.i_dtime.get();
    if dtime != 0 && is_low(scan, dtime) && !listed {
        let value = if subject.raw.i_links_count.get() == 0 {
            scan.now
        } else {
            0
        };
        out.findings.push(
            subject
                .finding(Code::LowDtime)
                .found(dtime)
                .fix(Fix::word(at + field::DTIME, value)),
        );
    }
    if let Some(kind) = check_map_flags(&subject, out) {
        return kind;
    }
    if let Some(kind) = check_reserved(&subject, buffer, out) {
        return kind;
    }
    if subject.raw.i_links_count.get() == 0 {
        return if ino < scan.volume.layout.first_ino && ino != ROOT_INO {
            Kind::RESERVED
        } else {
            Kind::FREE
        };
    }
    if dtime != 0 && !is_low(scan, dtime) && ino != ROOT_INO {
        out.findings.push(
            subject
                .finding(Code::DtimeSet)
                .found(dtime)
                .fix(Fix::word(at + field::DTIME, 0)),
        );
    }
    check_fields(&subject, out);
    check_extra(&subject, bytes.get(128..).unwrap_or_default(), out);
    let kind = special::kind(&subject, buffer, out);
    check_blocks(&subject, kind, out);
    kind
}

/// Flags that would change what `i_block` means, on a file system without them.
fn check_map_flags(subject: &Subject<'_>, out: &mut GroupScan) -> Option<Kind> {
    let layout = &subject.scan.volume.layout;
    let kind = Kind::of_mode(subject.raw.i_mode.get());
    if subject.has(flag::CASEFOLD) {
        out.findings.push(
            subject
                .finding(Code::FlagCasefold)
                .fix(subject.clear_flags(flag::CASEFOLD)),
        );
    }
    let linked = subject.raw.i_links_count.get() != 0;
    if subject.has(flag::INLINE) && subject.ino == ROOT_INO {
        // Its blocks are those of a directory: only the flag is wrong.
        let fix = subject.clear_flags(flag::INLINE);
        out.findings
            .push(subject.finding(Code::FlagInline).fix(fix));
    } else if subject.has(flag::INLINE) && subject.ino >= layout.first_ino {
        out.findings
            .push(subject.finding(Code::FlagInline).fix(Fix::ClearInode));
        return Some(kind);
    }
    let special = [BAD_INO, ROOT_INO, JOURNAL_INO].contains(&subject.ino);
    if subject.has(flag::EXTENTS) && (linked || special) {
        let fix = if subject.ino == BAD_INO {
            Fix::ZeroInode
        } else {
            Fix::ClearInode
        };
        out.findings
            .push(subject.finding(Code::FlagExtents).fix(fix));
        return Some(
            if subject.ino < layout.first_ino && subject.ino != ROOT_INO {
                Kind::RESERVED
            } else {
                kind
            },
        );
    }
    None
}

/// Inodes that have a meaning by their number. `None`: the ordinary checks go on.
fn check_reserved(subject: &Subject<'_>, buffer: &mut [u8], out: &mut GroupScan) -> Option<Kind> {
    let raw = &subject.raw;
    let mode = raw.i_mode.get();
    let layout = &subject.scan.volume.layout;
    let contents =
        raw.i_links_count.get() != 0 || raw.i_blocks.get() != 0 || raw.i_block[0].get() != 0;
    match subject.ino {
        BAD_INO => {
            let fields = [
                mode,
                raw.i_uid.get(),
                raw.i_gid.get(),
                raw.i_links_count.get(),
            ];
            if fields.iter().any(|&f| f != 0)
                || raw.i_file_acl.get() != 0
                || subject.has(flag::INLINE)
            {
                out.findings
                    .push(subject.finding(Code::BadBlocksFields).fix(Fix::ZeroInode));
            }
            walk_bad_blocks(subject, out);
            return Some(Kind::RESERVED);
        }
        ROOT_INO => {
            if raw.i_links_count.get() != 0 && Kind::of_mode(mode) != Kind::DIRECTORY {
                // Only the mode may be wrong: then the whole tree is still there.
                let fix = match special::looks_like_dir(subject, Kind::BAD, buffer) {
                    true => Fix::half(subject.at + field::MODE, mode & 0o7777 | 0o040_000),
                    false => Fix::ClearInode,
                };
                out.findings
                    .push(subject.finding(Code::RootNotDir).found(mode).fix(fix));
                return Some(Kind::of_mode(mode));
            }
            if raw.i_dtime.get() != 0 && raw.i_links_count.get() != 0 {
                out.findings.push(
                    subject
                        .finding(Code::RootDtime)
                        .fix(Fix::word(subject.at + field::DTIME, 0)),
                );
            }
            return None;
        }
        JOURNAL_INO if layout.journal_ino == JOURNAL_INO => {
            if Kind::of_mode(mode) != Kind::REGULAR {
                let fix = Fix::half(subject.at + field::MODE, 0o100_000);
                out.findings
                    .push(subject.finding(Code::JournalMode).found(mode).fix(fix));
            }
            check_blocks(subject, Kind::REGULAR, out);
            return Some(Kind::RESERVED);
        }
        JOURNAL_INO | USR_QUOTA_INO | GRP_QUOTA_INO => {
            if !contents {
                return Some(Kind::RESERVED);
            }
            let code = if subject.ino == JOURNAL_INO {
                Code::JournalNotClear
            } else {
                Code::QuotaNotClear
            };
            out.findings.push(subject.finding(code).fix(Fix::ZeroInode));
            return if raw.i_links_count.get() == 0 || subject.ino == JOURNAL_INO {
                Some(Kind::RESERVED)
            } else {
                None
            };
        }
        ino if ino < layout.first_ino => {}
        _ => return None,
    }
    let kind = Kind::of_mode(mode);
    let bad = match subject.ino {
        BOOT_INO => kind == Kind::DIRECTORY,
        RESIZE_INO => mode != 0 && kind != Kind::REGULAR,
        _ => mode != 0,
    };
    if bad {
        out.findings.push(
            subject
                .finding(Code::ReservedMode)
                .found(mode)
                .fix(Fix::half(subject.at + field::MODE, 0)),
        );
    }
    check_blocks(subject, kind, out);
    Some(Kind::RESERVED)
}

fn check_fields(subject: &Subject<'_>, out: &mut GroupScan) {
    let raw = &subject.raw;
    let layout = &subject.scan.volume.layout;
    let dir = Kind::of_mode(raw.i_mode.get()) == Kind::DIRECTORY;
    let mut zero = |code: Code, value: u32, at: u64, half: bool| {
        if value != 0 {
            let at = subject.at + at;
            let fix = if half {
                Fix::half(at, 0)
            } else {
                Fix::word(at, 0)
            };
            out.findings
                .push(subject.finding(code).found(value).fix(fix));
        }
    };
    zero(Code::Faddr, raw.i_faddr.get(), field::FADDR, false);
    if dir {
        zero(
            Code::DirSizeHigh,
            raw.i_size_high.get(),
            field::SIZE_HIGH,
            false,
        );
    }
    if layout.hurd {
        // The Hurd keeps the two fragment bytes where others keep the high half of i_blocks.
        zero(
            Code::Fragment,
            raw.l_i_blocks_high.get().into(),
            field::BLOCKS_HIGH,
            true,
        );
    } else {
        zero(
            Code::FileAclHigh,
            raw.l_i_file_acl_high.get().into(),
            field::FILE_ACL_HIGH,
            true,
        );
        zero(
            Code::BlocksHigh,
            raw.l_i_blocks_high.get().into(),
            field::BLOCKS_HIGH,
            true,
        );
    }
    if subject.has(flag::IMAGIC) && !layout.compat(feature::COMPAT_IMAGIC) {
        out.findings.push(
            subject
                .finding(Code::FlagImagic)
                .fix(subject.clear_flags(flag::IMAGIC)),
        );
    }
}

/// The part of the inode behind byte 128: its length, its attributes, the epochs of its times.
fn check_extra(subject: &Subject<'_>, behind: &[u8], out: &mut GroupScan) {
    let room = behind.len() as u64;
    let Ok((extra, _)) = RawInodeExtra::ref_from_prefix(behind) else {
        return;
    };
    let at = subject.at + field::EXTRA;
    let isize = u64::from(extra.i_extra_isize.get());
    if isize != 0 && (isize < 4 || isize > room || isize % 4 != 0) {
        let want = subject.scan.volume.sb.s_want_extra_isize.get();
        let want = if u64::from(want) >= 4 && u64::from(want) <= room && want.is_multiple_of(4) {
            want
        } else {
            28
        };
        let value = match isize < 4 || isize > room {
            true => want,
            false => u16::try_from((isize + 3) & !3).unwrap_or(want),
        };
        out.findings.push(
            subject
                .finding(Code::ExtraIsize)
                .found(isize)
                .fix(Fix::half(at, value)),
        );
        return;
    }
    if isize < room - 4 {
        let skip = usize::from(extra.i_extra_isize.get());
        let attributes = behind.get(skip..).unwrap_or_default();
        xattr::check_in_inode(subject, at + isize, attributes, out);
    } else {
        return;
    }
    let negative = |time: u32, extra: u32| time & 0x8000_0000 != 0 && extra & 3 == 3;
    let raw = &subject.raw;
    let times = [
        (raw.i_ctime.get(), extra.i_ctime_extra.get(), 4),
        (raw.i_mtime.get(), extra.i_mtime_extra.get(), 8),
        (raw.i_atime.get(), extra.i_atime_extra.get(), 12),
        (extra.i_crtime.get(), extra.i_crtime_extra.get(), 20),
    ];
    let patches: Vec<Patch> = times
        .into_iter()
        .filter(|&(time, extra, _)| negative(time, extra))
        .map(|(_, extra, offset)| Patch::word(at + offset, extra & !3))
        .collect();
    if !patches.is_empty() {
        out.findings
            .push(subject.finding(Code::TimeEpoch).fix(Fix::Patches(patches)));
    }
}

/// A dead or doubtful severity decided by the place: used where the table's value is too mild.
pub(super) fn damage(finding: Finding) -> Finding {
    finding.severity(Severity::Damage).preen(Preen::Manual)
}
