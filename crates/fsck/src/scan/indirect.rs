//! The short way through the blocks of a file that has one indirect block, and no deeper tree.
//!
//! All of it is looked at before anything is claimed, as in [`super::quick`]: whatever is out of the ordinary goes the
//! long way.

use ext2dax_format::RawInode;

use super::quick::{DIRECT, fits};
use super::{GroupScan, Scan};
use crate::census::{Census, Kind};

/// Blocks of the file before those of the indirect block.
const DIRECT_BLOCKS: u32 = 12;

/// What the pointers of an indirect block say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pointers {
    /// Pointers that are not 0.
    blocks: u32,
    /// One more than the place of the last of them.
    mapped: u32,
    /// Smallest and largest block.
    min: u32,
    max: u32,
    /// How many of them do not name the block behind that of the one before.
    jumps: u32,
}

impl Pointers {
    /// Looks at all pointers; `previous` is the block before the first.
    fn read(bytes: &[u8], mut previous: u32) -> Self {
        let mut found = Self {
            min: u32::MAX,
            ..Self::default()
        };
        for (at, line) in (0..).step_by(16).zip(bytes.as_chunks::<64>().0) {
            // Most indirect blocks are nearly empty.
            if is_zero(line) {
                continue;
            }
            for (at, bytes) in (at..).zip(line.as_chunks::<4>().0) {
                let block = u32::from_le_bytes(*bytes);
                if block == 0 {
                    continue;
                }
                found.blocks += 1;
                found.mapped = at + 1;
                found.min = found.min.min(block);
                found.max = found.max.max(block);
                found.jumps += u32::from(previous.wrapping_add(1) != block);
                previous = block;
            }
        }
        found
    }
}

/// Whether sixteen pointers are all 0.
#[inline]
pub(super) fn is_zero(line: &[u8; 64]) -> bool {
    let words = line.as_chunks::<8>().0;
    words
        .iter()
        .fold(0, |all, word| all | u64::from_le_bytes(*word))
        == 0
}

/// Claims the blocks of a file with an indirect block and no others above it. `block` is a buffer of one block.
pub(super) fn claim(
    scan: Scan<'_>,
    kind: Kind,
    raw: &RawInode,
    block: &mut [u8],
    out: &mut GroupScan,
) -> Option<()> {
    let layout = &scan.volume.layout;
    let census = scan.census;
    let (direct, above) = raw.i_block.split_at(DIRECT);
    let indirect = above.first()?.get();
    // How far a directory may reach, and what metadata means as an indirect block, is the long way's to know.
    let plain = kind == Kind::REGULAR && layout.holds(indirect);
    if !plain || scan.volume.is_metadata(indirect) {
        return None;
    }
    // Blocks of this or an earlier inode: whoever comes second is not entered for ever.
    out.claim_pending(census);
    if census.claimed.test(indirect) {
        return None;
    }
    scan.image.read(layout.at(indirect), block);
    let found = Pointers::read(block, indirect);
    if found.blocks == 0 || !layout.holds(found.min) || !layout.holds(found.max) {
        return None;
    }
    let (mut count, mut jumps, mut previous) = (0, 0, 0);
    for pointer in direct {
        let block = pointer.get();
        if block == 0 {
            continue;
        }
        if !layout.holds(block) {
            return None;
        }
        count += 1;
        jumps += u32::from(previous != 0 && previous + 1 != block);
        previous = block;
    }
    let row = count == DIRECT_BLOCKS && jumps == 0;
    jumps += found.jumps + u32::from(previous != 0 && previous + 1 != indirect);
    count += 1 + found.blocks;
    let small = count < layout.blocks_per_group;
    if !small || !fits(scan, kind, raw, DIRECT_BLOCKS + found.mapped, count) {
        return None;
    }
    match row {
        true => out.claim_run(census, previous + 1 - DIRECT_BLOCKS, DIRECT_BLOCKS),
        false => direct
            .iter()
            .filter(|pointer| pointer.get() != 0)
            .for_each(|pointer| out.claim_run(census, pointer.get(), 1)),
    }
    out.claim_run(census, indirect, 1);
    claim_pointers(census, indirect, block, found, out);
    out.counts.fragmented += u64::from(jumps != 0);
    out.counts.indirect[0] += 1;
    Some(())
}

/// Claims what the pointers of an indirect block name.
fn claim_pointers(
    census: &Census,
    indirect: u32,
    bytes: &[u8],
    found: Pointers,
    out: &mut GroupScan,
) {
    if found.jumps == 0 {
        out.claim_run(census, indirect + 1, found.blocks);
        return;
    }
    let (mut start, mut len) = (0, 0);
    for bytes in bytes.as_chunks::<4>().0.iter().take(found.mapped as usize) {
        let block = u32::from_le_bytes(*bytes);
        if block == 0 {
            continue;
        }
        if start + len == block {
            len += 1;
        } else {
            out.claim_run(census, start, len);
            (start, len) = (block, 1);
        }
    }
    out.claim_run(census, start, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_counted_wherever_they_stand() {
        let read = |pointers: &[(usize, u32)], previous| {
            let mut bytes = [0_u8; 1024];
            for &(at, block) in pointers {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&block.to_le_bytes());
            }
            Pointers::read(&bytes, previous)
        };
        let row = read(&[(0, 8), (1, 9), (2, 10)], 7);
        let expected = Pointers {
            blocks: 3,
            mapped: 3,
            min: 8,
            max: 10,
            jumps: 0,
        };
        assert_eq!(row, expected);
        // Holes between neighbours are no jumps, other blocks are.
        assert_eq!(read(&[(0, 8), (40, 9), (255, 10)], 7).jumps, 0);
        assert_eq!(read(&[(0, 8), (40, 9), (255, 10)], 7).mapped, 256);
        assert_eq!(read(&[(15, 8), (16, 10), (17, 9)], 3).jumps, 3);
        assert_eq!(read(&[(15, 8), (16, 10), (17, 9)], 3).max, 10);
        assert_eq!(read(&[], 3).blocks, 0);
    }
}
