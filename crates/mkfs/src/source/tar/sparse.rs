//! Sparse members, in all the forms that GNU tar has had: pieces in the header and in units behind it (the old form),
//! in extended headers (0.0, 0.1), or as text before the data (1.0).
//!
//! GNU tar manual, "Storing Sparse Files".

use super::header::{Header, UNIT};
use super::pax::{self, Extended};
use super::{Archive, Piece};
use crate::source::SourceError;

/// Pieces that a member may have; more need more memory than a name deserves.
const PIECES_MAX: usize = 1 << 20;
/// The same, as a map counts.
const PAIRS_MAX: i64 = 1 << 20;

/// Where the stored bytes belong.
pub(super) struct Map {
    /// The size of the file.
    pub(super) size: u64,
    /// Offset and length of each piece.
    list: Vec<(i64, i64)>,
    /// Units of the member's data that the list itself took.
    pub(super) units: u64,
}

impl Map {
    /// The pieces of a member whose data starts at `at` and is `kept` bytes long.
    pub(super) fn pieces(&self, at: u64, kept: u64) -> Result<Vec<Piece>, &'static str> {
        const WRONG: &str = "the map of a sparse file contradicts itself";
        let (mut pieces, mut used, mut end) = (Vec::new(), 0, 0);
        for &(offset, len) in &self.list {
            let offset = u64::try_from(offset).map_err(|_| WRONG)?;
            let len = u64::try_from(len).map_err(|_| WRONG)?;
            let piece_end = offset.checked_add(len).ok_or(WRONG)?;
            if offset < end || piece_end > self.size || used + len > kept {
                return Err(WRONG);
            }
            if len > 0 {
                pieces.push(Piece {
                    offset,
                    len,
                    at: at + used,
                });
            }
            (used, end) = (used + len, piece_end);
        }
        Ok(pieces)
    }
}

impl Archive<'_> {
    /// The map of a sparse member; `None` for an ordinary one. Reads what of the map stands before the data.
    pub(super) fn sparse_map(
        &mut self,
        header: &Header<'_>,
        extended: &Extended,
        size: u64,
    ) -> Result<Option<Map>, SourceError> {
        if header.kind() == b'S' {
            return self.old_map(header).map(Some);
        }
        let sparse = &extended.sparse;
        if !sparse.is {
            return Ok(None);
        }
        let real = sparse.real_size.and_then(|size| u64::try_from(size).ok());
        let real = real.ok_or_else(|| self.wrong("a sparse file without its size"))?;
        let (list, units) = if sparse.major == Some(1) {
            self.text_map(size)?
        } else {
            let (pairs, rest) = sparse.numbers.as_chunks::<2>();
            if !rest.is_empty() {
                return Err(self.wrong("the map of a sparse file is cut short"));
            }
            (pairs.iter().map(|pair| (pair[0], pair[1])).collect(), 0)
        };
        Ok(Some(Map {
            size: real,
            list,
            units,
        }))
    }

    fn old_map(&mut self, header: &Header<'_>) -> Result<Map, SourceError> {
        const WRONG: &str = "the map of a sparse file cannot be read";
        let (mut list, size, mut more) = header.sparse().ok_or_else(|| self.wrong(WRONG))?;
        while more {
            let unit = self.input.unit().map_err(|error| self.io(error))?;
            let unit = unit.ok_or_else(|| self.wrong("the archive is cut short"))?;
            let next = Header(&unit).more_sparse();
            let (pieces, goes_on) = next.ok_or_else(|| self.wrong(WRONG))?;
            list.extend(pieces);
            more = goes_on && list.len() < PIECES_MAX;
        }
        Ok(Map {
            size: u64::try_from(size).map_err(|_| self.wrong(WRONG))?,
            list,
            // These units are not counted in the size of the member.
            units: 0,
        })
    }

    /// Lines of decimal numbers, the first one how many pairs follow, padded to whole units.
    fn text_map(&mut self, size: u64) -> Result<(Vec<(i64, i64)>, u64), SourceError> {
        let (mut text, mut numbers) = (Vec::new(), Vec::new());
        let mut units = 0;
        loop {
            while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let number = pax::decimal(&text[..end]);
                numbers.push(number.ok_or_else(|| {
                    self.wrong("the map of a sparse file has something else than numbers")
                })?);
                text.drain(..=end);
                let pairs = numbers[0];
                if !(0..=PAIRS_MAX).contains(&pairs) {
                    return Err(self.wrong("the map of a sparse file is too long"));
                }
                if i64::try_from(numbers.len()) == Ok(1 + 2 * pairs) {
                    let (pairs, _) = numbers[1..].as_chunks::<2>();
                    return Ok((pairs.iter().map(|pair| (pair[0], pair[1])).collect(), units));
                }
            }
            if (units + 1) * UNIT as u64 > size || text.len() > UNIT {
                return Err(self.wrong("the map of a sparse file is cut short"));
            }
            let unit = self.input.unit().map_err(|error| self.io(error))?;
            text.extend_from_slice(&unit.ok_or_else(|| self.wrong("the archive is cut short"))?);
            units += 1;
        }
    }
}
