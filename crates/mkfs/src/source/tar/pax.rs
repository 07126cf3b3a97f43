//! Extended headers: records of key and value.
//!
//! POSIX.1-2001 `pax`, "pax Extended Header"; GNU tar manual, "Storing Sparse Files"; the keys `SCHILY.*` are star's.

use ext2dax_format::Timestamp;

/// What extended headers say about the next member, or about all that follow.
#[derive(Clone, Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<i64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) time: Option<Timestamp>,
    pub(super) device: (Option<i64>, Option<i64>),
    /// Full names and values.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Access and default list, as text.
    pub(super) acls: [Option<Vec<u8>>; 2],
    pub(super) sparse: Sparse,
}

/// GNU's sparse files in extended headers, all three versions.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<i64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<i64>,
    /// Pieces of versions 0.0 and 0.1: offset and length by turns.
    pub(super) numbers: Vec<i64>,
    pub(super) is: bool,
}

impl Extended {
    /// Adds the records of one extended header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() && bytes != [0] {
            let space = bytes.iter().take(20).position(|&byte| byte == b' ');
            let space = space.ok_or("extended header: a record without a length")?;
            let len = decimal(&bytes[..space]).and_then(|len| usize::try_from(len).ok());
            let len = len.filter(|&len| len > space + 1 && len <= bytes.len());
            let len = len.ok_or("extended header: the length of a record is wrong")?;
            let (record, rest) = bytes.split_at(len);
            bytes = rest;
            let record = record[space + 1..]
                .strip_suffix(b"\n")
                .ok_or("extended header: a record does not end where it should")?;
            let equals = record.iter().position(|&byte| byte == b'=');
            let equals = equals.ok_or("extended header: a record without a value")?;
            self.record(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const NUMBER: &str = "extended header: a number cannot be read";
        // An empty value takes a record back.
        let text = || Some(value.to_vec()).filter(|value| !value.is_empty());
        let number = || match value {
            b"" => Ok(None),
            _ => decimal(value).map(Some).ok_or(NUMBER),
        };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => {
                self.time = match value {
                    b"" => None,
                    _ => Some(seconds(value).ok_or("extended header: a time cannot be read")?),
                };
            }
            b"SCHILY.devmajor" => self.device.0 = number()?,
            b"SCHILY.devminor" => self.device.1 = number()?,
            b"SCHILY.acl.access" => self.acls[0] = text(),
            b"SCHILY.acl.default" => self.acls[1] = text(),
            b"RHT.security.selinux" => {
                // Stored with the zero byte that the system call gives.
                let mut label = value.to_vec();
                label.push(0);
                self.attributes.push((b"security.selinux".to_vec(), label));
            }
            b"GNU.sparse.major" => (self.sparse.major, self.sparse.is) = (number()?, true),
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                (self.sparse.real_size, self.sparse.is) = (number()?, true);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.numbers.push(decimal(value).ok_or(NUMBER)?);
            }
            b"GNU.sparse.map" => {
                let words = value.split(|&byte| byte == b',');
                let words = words.filter(|word| !word.is_empty());
                let numbers: Option<Vec<i64>> = words.map(decimal).collect();
                self.sparse.numbers = numbers.ok_or(NUMBER)?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attributes.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with any number of decimals, perhaps negative.
fn seconds(text: &[u8]) -> Option<Timestamp> {
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let (whole, fraction) = (parts.next()?, parts.next().unwrap_or(b""));
    let secs = decimal(whole)?;
    let mut nanos = 0_u32;
    for nr in 0..9 {
        let digit = fraction.get(nr).map_or(Some(0), |byte| {
            byte.is_ascii_digit().then(|| u32::from(byte - b'0'))
        })?;
        nanos = nanos * 10 + digit;
    }
    if whole.starts_with(b"-") && nanos > 0 {
        // Nanoseconds count forward.
        return Some(Timestamp {
            secs: secs.checked_sub(1)?,
            nanos: 1_000_000_000 - nanos,
        });
    }
    Some(Timestamp { secs, nanos })
}

/// An access control list in the text form of `getfacl`, as the value of a Linux attribute. Names need a number, as the
/// fourth field or in their own place: the host's names mean nothing in an image.
pub(super) fn acl(text: &[u8]) -> Option<Vec<u8>> {
    let mut entries = Vec::new();
    let lines = text.split(|&byte| byte == b',' || byte == b'\n');
    for line in lines
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
    {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        let (&kind, name, permissions) = match fields[..] {
            [ref kind, name, permissions, ..] => (kind, name, permissions),
            [ref kind, permissions] => (kind, &b""[..], permissions),
            _ => return None,
        };
        let tag = match (kind, name.is_empty()) {
            (b"user" | b"u", true) => 0x01,
            (b"user" | b"u", false) => 0x02,
            (b"group" | b"g", true) => 0x04,
            (b"group" | b"g", false) => 0x08,
            (b"mask" | b"m", _) => 0x10,
            (b"other" | b"o", _) => 0x20,
            _ => return None,
        };
        let id = match tag {
            0x02 | 0x08 => {
                let number = fields.get(3).copied().unwrap_or(name);
                u32::try_from(decimal(number)?).ok()?
            }
            _ => u32::MAX,
        };
        let mut bits = 0_u16;
        for letter in permissions.trim_ascii() {
            bits |= match letter {
                b'r' => 4,
                b'w' => 2,
                b'x' => 1,
                b'-' => 0,
                _ => return None,
            };
        }
        entries.push((tag, id, bits));
    }
    entries.sort_unstable();
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        value.extend_from_slice(&u16::to_le_bytes(tag));
        value.extend_from_slice(&bits.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_by_their_length() {
        let mut extended = Extended::default();
        let text = b"12 path=a\nb\n18 mtime=-1.250000\n";
        assert!(extended.read(text).is_err(), "a length that is wrong");
        let text = b"12 path=a\nb\n19 mtime=-1.250000\n24 SCHILY.xattr.user.x=\n";
        extended.read(text).unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a\nb"[..]));
        let time = Timestamp {
            secs: -2,
            nanos: 750_000_000,
        };
        assert_eq!(extended.time, Some(time));
        assert_eq!(extended.attributes, [(b"user.x".to_vec(), Vec::new())]);
        for bad in [
            &b"5 a=b"[..],
            b"x a=b\n",
            b"99 a=b\n",
            b"6 a b\n",
            b"0 a=b\n",
        ] {
            assert!(extended.read(bad).is_err());
        }
    }

    #[test]
    fn lists_need_numbers() {
        let value = acl(b"user::rwx,user:1000:r-x,group::r--,mask::rwx,other::---").unwrap();
        assert_eq!(value.len(), 4 + 5 * 8);
        assert_eq!(value[12..20], [2, 0, 5, 0, 0xe8, 3, 0, 0]);
        let four = acl(b"user::rwx\nuser:joe:r-x:1000\ngroup::r--\nmask::rwx\nother::---\n");
        assert_eq!(four.unwrap(), value);
        assert_eq!(acl(b"user::rwx,user:joe:r-x,group::r--,other::---"), None);
        assert_eq!(acl(b"nonsense"), None);
    }
}
