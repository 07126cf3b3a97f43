//! ioctl: inode flags, generation number, extended flags.
//!
//! Who may change flags is checked by the kernel before (`chattr` asks for ownership, and for a capability where immutable
//! and append-only are concerned).

use ext2dax::{FileType, InodeFlags};

use super::{Answer, Caller, Errno, Server};

/// Commands of `linux/fs.h` in their 64-bit and 32-bit spelling; the arguments are 32 bits wide in both.
const GET_FLAGS: [u32; 2] = [0x8008_6601, 0x8004_6601];
const SET_FLAGS: [u32; 2] = [0x4008_6602, 0x4004_6602];
const GET_VERSION: [u32; 2] = [0x8008_7601, 0x8004_7601];
const SET_VERSION: [u32; 2] = [0x4008_7602, 0x4004_7602];
const GET_EXTENDED: u32 = 0x801c_581f;
const SET_EXTENDED: u32 = 0x401c_5820;

/// Bytes of `struct fsxattr`: flags, extent size hint, extents, project, copy-on-write hint, padding.
const EXTENDED_LEN: usize = 28;

/// Flags that have two names: `FS_XFLAG_...` and the inode flag.
const EXTENDED: [(u32, InodeFlags); 5] = [
    (0x08, InodeFlags::IMMUTABLE),
    (0x10, InodeFlags::APPEND),
    (0x20, InodeFlags::SYNC),
    (0x40, InodeFlags::NOATIME),
    (0x80, InodeFlags::NODUMP),
];

/// Extended flags that the kernel adds by itself and sends back: nothing to store.
const EXTENDED_HAS_ATTRIBUTES: u32 = 0x8000_0000;

#[expect(
    clippy::host_endian_bytes,
    reason = "arguments of an ioctl are in the host's order"
)]
fn word(bytes: &[u8], index: usize) -> Answer<u32> {
    let at = index * 4;
    let word = bytes
        .get(at..at + 4)
        .and_then(|word| word.try_into().ok())
        .ok_or(Errno::EINVAL)?;
    Ok(u32::from_ne_bytes(word))
}

#[expect(
    clippy::host_endian_bytes,
    reason = "arguments of an ioctl are in the host's order"
)]
fn bytes(word: u32) -> [u8; 4] {
    word.to_ne_bytes()
}

fn to_extended(flags: InodeFlags) -> u32 {
    EXTENDED
        .iter()
        .filter(|(_, flag)| flags.contains(*flag))
        .fold(0, |all, (bit, _)| all | bit)
}

impl Server {
    /// ioctl(2): the bytes of the answer.
    ///
    /// # Errors
    /// `ENOTTY` for any other command; `EROFS`; `EPERM` for the version of somebody else's file; `EOPNOTSUPP` for flags and sizes that ext2 has no place for.
    pub fn ioctl(&self, caller: Caller, node: u64, command: u32, input: &[u8]) -> Answer<Vec<u8>> {
        let inode = self.node(node)?;
        if !matches!(inode.file_type(), FileType::Regular | FileType::Directory) {
            return Err(Errno::ENOTTY);
        }
        let attributes = inode.attributes()?;
        let old = attributes.flags;
        match command {
            _ if GET_FLAGS.contains(&command) => Ok(bytes(old.bits()).to_vec()),
            _ if GET_VERSION.contains(&command) => Ok(bytes(attributes.generation).to_vec()),
            _ if SET_FLAGS.contains(&command) => {
                inode.set_flags(InodeFlags::from_bits_retain(word(input, 0)?))?;
                Ok(Vec::new())
            }
            _ if SET_VERSION.contains(&command) => {
                // The kernel checks ownership for the commands that it knows, and this is none of them.
                if !caller.is_root() && caller.uid != attributes.uid {
                    return Err(Errno::EPERM);
                }
                inode.set_generation(word(input, 0)?)?;
                Ok(Vec::new())
            }
            GET_EXTENDED => {
                let mut answer = vec![0; EXTENDED_LEN];
                answer[..4].copy_from_slice(&bytes(to_extended(old)));
                Ok(answer)
            }
            SET_EXTENDED => {
                let asked = word(input, 0)? & !EXTENDED_HAS_ATTRIBUTES;
                let known = EXTENDED.iter().fold(0, |all, (bit, _)| all | bit);
                let hints = [word(input, 1)?, word(input, 3)?, word(input, 4)?];
                if asked & !known != 0 || hints != [0; 3] {
                    return Err(Errno::EOPNOTSUPP);
                }
                let new = EXTENDED.iter().fold(old, |flags, (bit, flag)| {
                    if asked & bit != 0 {
                        flags | *flag
                    } else {
                        flags.difference(*flag)
                    }
                });
                inode.set_flags(new)?;
                Ok(Vec::new())
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}
