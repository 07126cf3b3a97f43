//! The short way through pass 1: nearly every inode is an ordinary file, directory or short symbolic link, and sound.
//!
//! What is looked at here is the same as on the long way, but only to say "nothing is wrong". As soon as anything is out
//! of the ordinary the inode goes the long way, which knows what to call it; nothing has been claimed then.

use ext2dax_format::{RawInode, RawInodeExtra};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::inode::flag;
use super::{GroupScan, Scan, indirect};
use crate::census::{Dir, Kind};

/// Extra fields that hold all time stamps, to the last one that is known.
const EXTRA_SIZES: [u16; 2] = [28, 32];
const XATTR_MAGIC: [u8; 4] = 0xEA02_0000_u32.to_le_bytes();
const STRANGE_FLAGS: u32 =
    flag::ENCRYPT | flag::INDEX | flag::IMAGIC | flag::EXTENTS | flag::INLINE | flag::CASEFOLD;
/// Direct block pointers.
pub(super) const DIRECT: usize = 12;

/// What the inode is, if it is in use and nothing can be wrong with it; its blocks are claimed then.
#[inline]
pub(super) fn check(
    scan: Scan<'_>,
    ino: u32,
    bytes: &[u8],
    block: &mut [u8],
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
        Kind::REGULAR | Kind::DIRECTORY => claim_blocks(scan, kind, raw, block, out)?,
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

/// Claims the blocks of a file or directory that has direct blocks and perhaps an indirect one, whose size and block count
/// fit them.
#[inline]
fn claim_blocks(
    scan: Scan<'_>,
    kind: Kind,
    raw: &RawInode,
    block: &mut [u8],
    out: &mut GroupScan,
) -> Option<()> {
    let layout = &scan.volume.layout;
    // Nearly every file is one run: what its pointers are follows from the first and from the number of blocks.
    let first = raw.i_block[0].get();
    let blocks = raw.i_blocks.get() / (layout.block_size / 512);
    let mut differences = 0;
    for (i, block) in (0..).zip(&raw.i_block) {
        let expected = if i < blocks { first.wrapping_add(i) } else { 0 };
        differences |= block.get() ^ expected;
    }
    if differences != 0 || blocks as usize > DIRECT {
        let [rest @ .., double, triple] = &raw.i_block;
        return match (rest.last()?.get(), double.get() | triple.get()) {
            (0, 0) => claim_pieces(scan, kind, raw, out),
            (_, 0) => indirect::claim(scan, kind, raw, block, out),
            _ => None,
        };
    }
    let end = first.checked_add(blocks)?;
    if !fits(scan, kind, raw, blocks, blocks) || end > layout.blocks {
        return None;
    }
    if blocks != 0 {
        if first < layout.first_data_block.max(1) {
            return None;
        }
        out.claim_run(scan.census, first, blocks);
    }
    Some(())
}

/// Whether size and block count are those of a file whose last block is the one before `mapped`, and that has `blocks`.
#[inline]
pub(super) fn fits(scan: Scan<'_>, kind: Kind, raw: &RawInode, mapped: u32, blocks: u32) -> bool {
    let layout = &scan.volume.layout;
    let size = u64::from(raw.i_size.get());
    let log = 10 + layout.block_log;
    let size_fits = match kind {
        Kind::DIRECTORY => mapped != 0 && size == u64::from(mapped) << log,
        _ => size >= u64::from(mapped.saturating_sub(1)) << log,
    };
    size_fits && raw.i_blocks.get() == blocks * (layout.block_size / 512)
}

/// Claims direct blocks with holes or jumps among them.
fn claim_pieces(scan: Scan<'_>, kind: Kind, raw: &RawInode, out: &mut GroupScan) -> Option<()> {
    let layout = &scan.volume.layout;
    let direct = raw.i_block.first_chunk::<DIRECT>()?;
    let (mut mapped, mut blocks, mut jumps, mut previous) = (0, 0, 0_u32, 0);
    for (i, block) in (1_u32..).zip(direct) {
        let block = block.get();
        if block == 0 {
            continue;
        }
        if !layout.holds(block) {
            return None;
        }
        (mapped, blocks) = (i, blocks + 1);
        jumps += u32::from(previous != 0 && previous + 1 != block);
        previous = block;
    }
    if !fits(scan, kind, raw, mapped, blocks) {
        return None;
    }
    for block in direct.iter().filter(|block| block.get() != 0) {
        out.claim_run(scan.census, block.get(), 1);
    }
    out.counts.fragmented += u64::from(jumps != 0);
    Some(())
}
