//! What an inode is: directories in disguise, devices, symbolic links.

use zerocopy::IntoBytes as _;

use super::GroupScan;
use super::inode::{Subject, damage, field, flag};
use crate::census::Kind;
use crate::fix::Fix;
use crate::problem::Code;

/// Decides the kind of an inode in use.
pub(super) fn kind(subject: &Subject<'_>, buffer: &mut [u8], out: &mut GroupScan) -> Kind {
    let mode = subject.raw.i_mode.get();
    let mut kind = Kind::of_mode(mode);
    if ![Kind::REGULAR, Kind::DIRECTORY, Kind::SYMLINK].contains(&kind)
        && looks_like_dir(subject, kind, buffer)
    {
        let fix = Fix::half(subject.at + field::MODE, mode & 0o7777 | 0o040_000);
        out.findings
            .push(subject.finding(Code::TreatAsDir).found(mode).fix(fix));
        return kind;
    }
    if subject.has(flag::ENCRYPT) {
        let fix = subject.clear_flags(flag::ENCRYPT);
        out.findings
            .push(subject.finding(Code::FlagEncrypt).fix(fix));
    }
    match kind {
        Kind::REGULAR | Kind::DIRECTORY => {}
        Kind::SYMLINK => {
            if valid_symlink(subject, buffer) {
                check_special_flags(subject, out);
                out.counts.fast_symlinks += u64::from(subject.size() < 60);
            } else {
                out.findings
                    .push(subject.finding(Code::BadSymlink).fix(Fix::ClearInode));
                kind = Kind::BAD;
            }
        }
        Kind::BAD => {
            out.findings.push(
                damage(subject.finding(Code::BadMode))
                    .found(mode)
                    .fix(Fix::ClearInode),
            );
        }
        _ if valid_device(subject) => {
            check_special_flags(subject, out);
            if subject.size() != 0 {
                out.findings.push(
                    subject
                        .finding(Code::SpecialSize)
                        .found(subject.size())
                        .fix(subject.set_size(0)),
                );
            }
        }
        _ => {
            out.findings
                .push(subject.finding(Code::BadDevice).fix(Fix::ClearInode));
            kind = Kind::BAD;
        }
    }
    kind
}

fn check_special_flags(subject: &Subject<'_>, out: &mut GroupScan) {
    let flags = flag::IMMUTABLE | flag::APPEND;
    if subject.has(flags) {
        out.findings.push(
            subject
                .finding(Code::FlagSpecial)
                .fix(subject.clear_flags(flags)),
        );
    }
}

/// A count of blocks or an index flag says nothing about what the inode is: they are repaired by themselves, as blocks
/// behind the first one of a link are.
fn valid_device(subject: &Subject<'_>) -> bool {
    // Old drivers left rubbish behind the device number; only with the two flags below is it a sign of damage.
    let rubbish = subject
        .raw
        .i_block
        .iter()
        .skip(4)
        .any(|block| block.get() != 0);
    !(subject.has(flag::IMMUTABLE | flag::APPEND) && rubbish)
}

fn valid_symlink(subject: &Subject<'_>, buffer: &mut [u8]) -> bool {
    let size = subject.size();
    if size == 0 || size > u64::from(u32::MAX) || subject.has(flag::INLINE | flag::EXTENTS) {
        return false;
    }
    let layout = &subject.scan.volume.layout;
    if size < SHORT {
        return is_text(subject);
    }
    let block = subject.raw.i_block[0].get();
    if !layout.holds(block) {
        return false;
    }
    subject.scan.image.read(layout.at(block), buffer);
    let len = text_len(buffer);
    len == size && len < u64::from(layout.block_size)
}

/// Shorter links stand in the inode itself.
const SHORT: u64 = 60;

/// Whether `i_block` holds a text as long as the inode says.
pub(super) fn is_text(subject: &Subject<'_>) -> bool {
    let text = subject.raw.i_block.as_bytes();
    subject.size() < SHORT && text_len(text) == subject.size()
}

/// Whether `i_block` leads to one block, and `i_blocks` counts just that one.
pub(super) fn is_one_block(subject: &Subject<'_>) -> bool {
    let scan = subject.scan;
    let layout = &scan.volume.layout;
    let (first, rest) = (subject.raw.i_block[0].get(), &subject.raw.i_block[1..]);
    subject.raw.i_blocks.get() == layout.block_size / 512
        && rest.iter().all(|block| block.get() == 0)
        && layout.holds(first)
        && !scan.volume.is_metadata(first)
}

fn text_len(text: &[u8]) -> u64 {
    text.iter()
        .position(|&byte| byte == 0)
        .unwrap_or(text.len()) as u64
}

/// A strange mode over the blocks of a directory: the first block begins with `.` and `..`.
pub(super) fn looks_like_dir(subject: &Subject<'_>, kind: Kind, buffer: &mut [u8]) -> bool {
    let scan = subject.scan;
    let layout = &scan.volume.layout;
    let blocks = subject.raw.i_block;
    let first = blocks[0].get();
    if first == 0 {
        return false;
    }
    for block in blocks.iter().map(|b| b.get()).filter(|&b| b != 0) {
        if !layout.holds(block) || scan.volume.is_metadata(block) {
            return false;
        }
    }
    let device = kind == Kind::CHAR || kind == Kind::BLOCK;
    let not_device = blocks.iter().skip(4).any(|b| b.get() != 0);
    if device && subject.raw.i_links_count.get() == 1 && !not_device {
        return false;
    }
    scan.image.read(layout.at(first), buffer);
    let le16 = |at: usize| {
        buffer
            .get(at..at + 2)
            .map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])))
    };
    let byte = |at: usize| buffer.get(at).copied().unwrap_or(0);
    let ino = buffer
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let dot = le16(4);
    let size = layout.block_size as usize;
    if byte(6) != 1
        || byte(8) != b'.'
        || ino != subject.ino
        || dot < 12
        || dot % 4 != 0
        || dot >= size - 12
    {
        return false;
    }
    let dotdot = le16(dot + 4);
    byte(dot + 6) == 2
        && byte(dot + 8) == b'.'
        && byte(dot + 9) == b'.'
        && dotdot >= 12
        && dotdot % 4 == 0
}
