//! Bitmaps as copies of bytes: bit `n` is bit `n % 8` of byte `n / 8`.

/// Whether bit `nr` is set; bits past the end count as set (in use).
#[must_use]
pub fn test(bits: &[u8], nr: u32) -> bool {
    bits.get((nr >> 3) as usize)
        .is_none_or(|byte| byte & mask(nr) != 0)
}

/// Sets bit `nr`; past the end nothing happens.
pub fn set(bits: &mut [u8], nr: u32) {
    if let Some(byte) = bits.get_mut((nr >> 3) as usize) {
        *byte |= mask(nr);
    }
}

/// Clears bit `nr`; past the end nothing happens.
pub fn clear(bits: &mut [u8], nr: u32) {
    if let Some(byte) = bits.get_mut((nr >> 3) as usize) {
        *byte &= !mask(nr);
    }
}

/// Sets the bits `from..to`.
pub fn set_range(bits: &mut [u8], from: u32, to: u32) {
    let mut nr = from;
    while nr < to {
        if nr.trailing_zeros() >= 3 && to.saturating_sub(nr) >= 8 {
            if let Some(byte) = bits.get_mut((nr >> 3) as usize) {
                *byte = 0xff;
            }
            nr = nr.saturating_add(8);
        } else {
            set(bits, nr);
            nr = nr.saturating_add(1);
        }
    }
}

/// How many of the first `count` bits are clear.
#[must_use]
pub fn count_clear(bits: &[u8], count: u32) -> u32 {
    let whole = (count >> 3) as usize;
    let full: u32 = bits.iter().take(whole).map(|byte| byte.count_zeros()).sum();
    let rest = count & !7;
    let partial = (rest..count).filter(|&nr| !test(bits, nr)).count();
    full.saturating_add(u32::try_from(partial).unwrap_or(0))
}

/// The first clear bit in `from..to`.
#[must_use]
pub fn find_clear(bits: &[u8], from: u32, to: u32) -> Option<u32> {
    let mut nr = from;
    while nr < to {
        if nr & 7 == 0 && bits.get((nr >> 3) as usize) == Some(&0xff) {
            nr = nr.saturating_add(8);
        } else if test(bits, nr) {
            nr = nr.saturating_add(1);
        } else {
            return Some(nr);
        }
    }
    None
}

const fn mask(nr: u32) -> u8 {
    1 << (nr & 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_agree_with_single_bits() {
        for (from, to) in [(0, 0), (0, 64), (3, 5), (3, 29), (8, 24), (7, 64), (63, 64)] {
            let (mut one, mut many) = ([0_u8; 8], [0_u8; 8]);
            (from..to).for_each(|nr| set(&mut one, nr));
            set_range(&mut many, from, to);
            assert_eq!(one, many, "{from}..{to}");
            assert_eq!(count_clear(&one, 64), 64 - (to - from));
            for limit in 0..64 {
                let counted = (0..limit).filter(|&nr| !test(&one, nr)).count();
                assert_eq!(count_clear(&one, limit) as usize, counted);
                assert_eq!(
                    find_clear(&one, limit, 64),
                    (limit..64).find(|&nr| !test(&one, nr))
                );
            }
        }
    }

    #[test]
    fn bits_past_the_end_are_in_use() {
        let mut bits = [0_u8; 1];
        assert!(test(&bits, 8));
        set(&mut bits, 9);
        clear(&mut bits, 9);
        assert_eq!(find_clear(&bits, 8, 99), None);
    }
}
