//! Times of inodes.

/// A point in time: seconds since 1970-01-01 00:00:00 UTC, and nanoseconds below 1,000,000,000 on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the epoch; negative before it.
    pub secs: i64,
    /// Nanoseconds, always forward from `secs`.
    pub nanos: u32,
}

/// The first second that any inode holds: 1901-12-13 20:45:52.
pub const MIN_SECS: i64 = i32::MIN as i64;
/// The last second that an inode without extra bits holds: 2038-01-19 03:14:07.
pub const MAX_SECS_32: i64 = i32::MAX as i64;
/// The last second with two epoch bits: 2446-05-10 22:38:55.
pub const MAX_SECS_34: i64 = MAX_SECS_32 + (3_i64 << 32);

impl Timestamp {
    /// A time of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }

    /// Reads the 32-bit field, and the extra field if the inode has one.
    ///
    /// # On disk
    /// Linux `ext4/inodes.rst`, "Inode Timestamps": the seconds are signed; two low bits of the extra field extend them
    /// upwards, 30 bits are nanoseconds. Nanoseconds of a billion and more, which nobody writes, are read as 0.
    #[must_use]
    pub const fn decode(secs: u32, extra: Option<u32>) -> Self {
        let low = secs.cast_signed() as i64;
        match extra {
            None => Self {
                secs: low,
                nanos: 0,
            },
            Some(extra) => {
                let nanos = extra >> 2;
                let nanos = if nanos < 1_000_000_000 { nanos } else { 0 };
                Self {
                    secs: low.saturating_add(((extra & 3) as i64) << 32),
                    nanos,
                }
            }
        }
    }

    /// The 32-bit field and the extra field. Without room for the extra field, and beyond what two epoch bits reach, the
    /// time is clamped first: see [`Timestamp::clamp`].
    #[must_use]
    pub const fn encode(self, has_extra: bool) -> (u32, u32) {
        let time = self.clamp(has_extra);
        let low = low_bits(time.secs);
        let epoch = time.secs.saturating_sub(low.cast_signed() as i64) >> 32;
        (low, (low_bits(epoch) & 3) | (time.nanos << 2))
    }

    /// The nearest time that the fields can hold.
    #[must_use]
    pub const fn clamp(self, has_extra: bool) -> Self {
        let max = if has_extra { MAX_SECS_34 } else { MAX_SECS_32 };
        let nanos = if has_extra { self.nanos } else { 0 };
        if self.secs < MIN_SECS {
            Self {
                secs: MIN_SECS,
                nanos: 0,
            }
        } else if self.secs > max {
            Self {
                secs: max,
                nanos: if has_extra { 999_999_999 } else { 0 },
            }
        } else {
            Self {
                secs: self.secs,
                nanos,
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the low 32 bits are what is asked for"
)]
const fn low_bits(value: i64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Linux `ext4/inodes.rst`: epoch bits, sign of the low word, what they mean.
    #[test]
    fn epoch_bits_extend_the_signed_seconds() {
        let table: [(u32, u32, i64); 8] = [
            (0, 0x8000_0000, -0x8000_0000),
            (0, 0x7fff_ffff, 0x7fff_ffff),
            (1, 0x8000_0000, 0x8000_0000),
            (1, 0x7fff_ffff, 0x1_7fff_ffff),
            (2, 0x8000_0000, 0x1_8000_0000),
            (2, 0x7fff_ffff, 0x2_7fff_ffff),
            (3, 0x8000_0000, 0x2_8000_0000),
            (3, 0x7fff_ffff, 0x3_7fff_ffff),
        ];
        for (epoch, low, secs) in table {
            let time = Timestamp {
                secs,
                nanos: 123_456_789,
            };
            let extra = epoch | 123_456_789 << 2;
            assert_eq!(Timestamp::decode(low, Some(extra)), time);
            assert_eq!(time.encode(true), (low, extra));
        }
    }

    #[test]
    fn what_does_not_fit_is_clamped() {
        assert_eq!(
            Timestamp::from_secs(i64::MAX).encode(false),
            (0x7fff_ffff, 0)
        );
        assert_eq!(
            Timestamp::from_secs(i64::MIN).encode(true),
            (0x8000_0000, 0)
        );
        assert_eq!(
            Timestamp::from_secs(MAX_SECS_34 + 1).clamp(true).secs,
            MAX_SECS_34
        );
        assert_eq!(
            Timestamp { secs: 7, nanos: 9 }.clamp(false),
            Timestamp::from_secs(7)
        );
    }

    #[test]
    fn impossible_nanoseconds_read_as_zero() {
        assert_eq!(Timestamp::decode(5, Some(!3)), Timestamp::from_secs(5));
    }
}
