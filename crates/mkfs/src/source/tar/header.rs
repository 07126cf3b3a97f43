//! The 512 bytes before every member.
//!
//! POSIX.1-2001 `pax`, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format", for base-256 numbers and the old
//! sparse form.

use ext2dax_format::Timestamp;

/// Bytes of a header and of every other unit of an archive.
pub(super) const UNIT: usize = 512;

/// A header, as it stands.
pub(super) struct Header<'a>(pub(super) &'a [u8; UNIT]);

/// Offset and length of each piece of a sparse file.
pub(super) type Pieces = Vec<(i64, i64)>;

/// Who wrote the last 255 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Before POSIX: they mean nothing.
    Old,
    Ustar,
    Gnu,
}

impl Header<'_> {
    pub(super) fn is_end(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// The sum of all bytes, its own field counted as spaces; some old programs added signed bytes.
    pub(super) fn sum_is_right(&self) -> bool {
        let field = 148..156;
        let byte = |(at, byte): (usize, &u8)| if field.contains(&at) { b' ' } else { *byte };
        let unsigned: i64 = self
            .0
            .iter()
            .enumerate()
            .map(|one| i64::from(byte(one)))
            .sum();
        let signed: i64 = self
            .0
            .iter()
            .enumerate()
            .map(|one| i64::from(byte(one).cast_signed()))
            .sum();
        octal(&self.0[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
    }

    pub(super) fn flavour(&self) -> Flavour {
        match &self.0[257..265] {
            b"ustar  \0" => Flavour::Gnu,
            magic if magic.starts_with(b"ustar") => Flavour::Ustar,
            _ => Flavour::Old,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name, with the prefix that ustar has.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match self.flavour() {
            Flavour::Ustar => text(&self.0[345..500]),
            _ => &[],
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, name].join(&b'/')
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    pub(super) fn time(&self) -> Option<Timestamp> {
        number(&self.0[136..148]).map(Timestamp::from_secs)
    }

    pub(super) fn device(&self) -> (Option<i64>, Option<i64>) {
        (number(&self.0[329..337]), number(&self.0[337..345]))
    }

    /// The pieces of the old sparse form that stand in the header, the true size, and whether more units of pieces
    /// follow.
    pub(super) fn sparse(&self) -> Option<(Pieces, i64, bool)> {
        let pieces = pieces(&self.0[386..482])?;
        Some((pieces, number(&self.0[483..495])?, self.0[482] != 0))
    }

    /// A unit that continues the pieces of the old sparse form.
    pub(super) fn more_sparse(&self) -> Option<(Pieces, bool)> {
        Some((pieces(&self.0[..504])?, self.0[504] != 0))
    }
}

fn pieces(bytes: &[u8]) -> Option<Pieces> {
    let mut all = Vec::new();
    for piece in bytes.chunks_exact(24) {
        if piece[0] == 0 {
            break;
        }
        all.push((number(&piece[..12])?, number(&piece[12..])?));
    }
    Some(all)
}

/// Up to the first zero byte.
fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

/// Octal digits, or a number in base 256 if the first bit is set; an empty field is 0.
fn number(bytes: &[u8]) -> Option<i64> {
    let (&first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        return octal(bytes);
    }
    // The next bit is the sign.
    let start = if first & 0x40 == 0 {
        i64::from(first & 0x3f)
    } else {
        i64::from(first.cast_signed())
    };
    rest.iter().try_fold(start, |value, &byte| {
        value.checked_mul(256)?.checked_add(i64::from(byte))
    })
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let text = bytes.split(|&byte| byte == 0).next()?.trim_ascii();
    text.iter().try_fold(0_i64, |value, &byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(&[0; 8]), Some(0));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 2]), Some(258));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(
            number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]),
            Some(-256)
        );
        let large = [
            0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ];
        assert_eq!(number(&large), Some(i64::MAX));
        let too_large = [0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(number(&too_large), None);
    }
}
