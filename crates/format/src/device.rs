//! Device numbers of character and block special files.

/// A device number, as the Linux drivers store it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// 12 bits in the new encoding.
    pub major: u32,
    /// 20 bits in the new encoding.
    pub minor: u32,
}

impl Device {
    /// Reads the first two words of `i_block`: the first is the old encoding if it is not zero.
    ///
    /// # On disk
    /// Old: 8 bits each in the first word. New: 12-bit major and 20-bit minor in the second. As Linux reads them.
    #[must_use]
    pub const fn decode(old: u32, new: u32) -> Self {
        if old == 0 {
            Self {
                major: (new & 0xf_ff00) >> 8,
                minor: (new & 0xff) | ((new >> 12) & 0xf_ff00),
            }
        } else {
            Self {
                major: (old >> 8) & 0xff,
                minor: old & 0xff,
            }
        }
    }

    /// The first two words of `i_block`, `None` if the numbers are too large for either encoding.
    #[must_use]
    pub const fn encode(self) -> Option<(u32, u32)> {
        if self.major < 0x100 && self.minor < 0x100 {
            Some((self.major << 8 | self.minor, 0))
        } else if self.major < 0x1000 && self.minor < 0x10_0000 {
            Some((
                0,
                (self.minor & 0xff) | self.major << 8 | (self.minor & !0xff) << 12,
            ))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_read_back() {
        for (major, minor) in [
            (0, 0),
            (8, 1),
            (255, 255),
            (256, 0),
            (0, 256),
            (4095, 1_048_575),
            (259, 70_000),
        ] {
            let device = Device { major, minor };
            let (old, new) = device.encode().expect("in range");
            assert_eq!(Device::decode(old, new), device, "{major}:{minor}");
            assert_eq!(
                old == 0,
                major > 255 || minor > 255 || (major, minor) == (0, 0)
            );
        }
        assert_eq!(
            Device {
                major: 4096,
                minor: 0
            }
            .encode(),
            None
        );
        assert_eq!(
            Device {
                major: 0,
                minor: 1 << 20
            }
            .encode(),
            None
        );
    }
}
