//! The short way through pass 1: nearly every inode is an ordinary file, directory or short symbolic link, and sound.
//!
//! What is looked at here is the same as on the long way, but only to say "nothing is wrong". As soon as anything is out
//! of the ordinary the inode goes the long way, which knows what to call it; nothing has been claimed then.

use ext2dax_format::{RawInode, RawInodeExtra};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::inode::flag;
use super::{GroupScan, Scan};
use crate::census::{Dir, Kind};

/// Extra fields that hold all time stamps, to the last one that is known.
const EXTRA_SIZES: [u16; 2] = [28, 32];
const XATTR_MAGIC: [u8; 4] = 0xEA02_0000_u32.to_le_bytes();
const STRANGE_FLAGS: u32 =
    flag::ENCRYPT | flag::INDEX | flag::IMAGIC | flag::EXTENTS | flag::INLINE | flag::CASEFOLD;
/// Direct block pointers.
const DIRECT: usize = 12;

/// What the inode is, if it is in use and nothing can be wrong with it; its blocks are claimed then.
#[inline]
pub(super) fn check(
    scan: Scan<'_>,
    ino: u32,
    bytes: &[u8],
    out: &mut GroupScan,
) -> Option<(Kind, u16)> {
    let layout = &scan.volume.layout;
    let (raw, behind) = RawInode::ref_from_prefix(bytes).ok()?;
    if !extra_is_plain(behind) {
        return None;
    }
    let must_be_zero = raw.i_dtime.get()
        | raw.i_flags.get() & STRANGE_FLAGS
        | raw.i_file_acl.get()
        | raw.i_size_high.get()
        | raw.i_faddr.get()
        | u32::from(raw.l_i_blocks_high.get())
        | u32::from(raw.l_i_file_acl_high.get());
    let links = raw.i_links_count.get();
    if must_be_zero != 0 || links == 0 || layout.hurd || raw.i_size.get() >= 1 << 31 {
        return None;
    }
    let kind = Kind::of_mode(raw.i_mode.get());
    match kind {
        Kind::REGULAR | Kind::DIRECTORY => claim_direct(scan, kind, raw, out)?,
        Kind::SYMLINK => {
            let text = raw.i_block.as_bytes();
            let len = text.iter().position(|&byte| byte == 0)?;
            let immutable = raw.i_flags.get() & (flag::IMMUTABLE | flag::APPEND) != 0;
            let plain = raw.i_blocks.get() == 0 && raw.i_size.get() as usize == len && len != 0;
            if immutable || !plain {
                return None;
            }
            out.counts.fast_symlinks += 1;
        }
        _ => return None,
    }
    if kind == Kind::DIRECTORY {
        out.dirs.push(Dir::new(ino));
    }
    Some((kind, links))
}

/// What stands behind the 128 bytes of old: nothing, or the usual extra fields, no attributes inside the inode, and no
/// time stamp in the old wrong encoding.
#[inline]
fn extra_is_plain(bytes: &[u8]) -> bool {
    let Ok((extra, _)) = RawInodeExtra::ref_from_prefix(bytes) else {
        return bytes.is_empty();
    };
    let isize = extra.i_extra_isize.get();
    let behind = usize::from(isize);
    if !EXTRA_SIZES.contains(&isize) || behind + 4 >= bytes.len() {
        return false;
    }
    let epochs = extra.i_ctime_extra.get()
        | extra.i_mtime_extra.get()
        | extra.i_atime_extra.get()
        | extra.i_crtime_extra.get();
    epochs & 3 != 3 && bytes.get(behind..behind + 4) != Some(&XATTR_MAGIC)
}

/// Claims the direct blocks of a file or directory that has no others, whose size and block count fit them.
#[inline]
fn claim_direct(scan: Scan<'_>, kind: Kind, raw: &RawInode, out: &mut GroupScan) -> Option<()> {
    let layout = &scan.volume.layout;
    let (direct, indirect) = raw.i_block.split_at(DIRECT);
    if indirect.iter().any(|block| block.get() != 0) {
        return None;
    }
    // Runs of neighbours: where each starts, and how many blocks it has.
    let mut runs = [(0_u32, 0_u32); DIRECT];
    let (mut count, mut mapped, mut blocks) = (0_usize, 0_u32, 0);
    for (i, block) in (1_u32..).zip(direct) {
        let block = block.get();
        if block == 0 {
            continue;
        }
        if !layout.holds(block) {
            return None;
        }
        (mapped, blocks) = (i, blocks + 1);
        match count.checked_sub(1).and_then(|last| runs.get_mut(last)) {
            Some((start, len)) if *start + *len == block => *len += 1,
            _ => {
                *runs.get_mut(count)? = (block, 1);
                count += 1;
            }
        }
    }
    let size = raw.i_size.get();
    let fits = match kind {
        Kind::DIRECTORY => mapped != 0 && size == mapped << (10 + layout.block_log),
        _ => size >= mapped.saturating_sub(1) << (10 + layout.block_log),
    };
    if !fits || raw.i_blocks.get() != blocks * (layout.block_size / 512) {
        return None;
    }
    for &(start, len) in runs.iter().take(count) {
        scan.census.claim_run(start, len);
    }
    out.counts.fragmented += u64::from(count > 1);
    Some(())
}
