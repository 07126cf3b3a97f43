//! The bytes of an archive: a file that can be read anywhere, or a stream whose members are kept in a spool file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ext2dax_pmem::Buffer;

use super::header::UNIT;

/// What an archive is packed with, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packed {
    Plain,
    Gzip,
    Zstd,
    Xz,
    /// Something that is not unpacked here.
    Other(&'static str),
}

impl Packed {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A frame to be skipped may come first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Other("lz4"),
            [b'P', b'K', 3, 4, ..] => Self::Other("zip"),
            _ => Self::Plain,
        }
    }
}

/// An archive while it is read.
pub(super) enum Input {
    /// Members stay where they are.
    File { file: File, at: u64, len: u64 },
    /// Members are copied to the spool as they come.
    Stream {
        from: Box<dyn Read>,
        spool: Spool,
        at: u64,
    },
}

/// Where the members of a stream are kept: a file without a name.
pub(super) struct Spool {
    file: File,
    len: u64,
    buffer: Buffer,
}

impl Input {
    /// Opens an archive; `-` is the standard input. A spool is made in `folder` if one is needed.
    pub(super) fn open(path: &Path, folder: &Path) -> io::Result<Self> {
        let file = if path.as_os_str() == "-" {
            File::from(io::stdin().as_fd().try_clone_to_owned()?)
        } else {
            File::open(path)?
        };
        if file.metadata()?.is_file() {
            // The standard input may have been read before.
            let start = io::Seek::stream_position(&mut &file)?;
            let mut head = [0; 6];
            let found = file.read_at(&mut head, start)?;
            if Packed::of(&head[..found]) == Packed::Plain {
                let len = file.metadata()?.len();
                return Ok(Self::File {
                    file,
                    at: start,
                    len,
                });
            }
        }
        let mut stream = BufReader::with_capacity(256 << 10, file);
        let packed = Packed::of(stream.fill_buf()?);
        let from: Box<dyn Read> = match packed {
            Packed::Plain => Box::new(stream),
            Packed::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
            Packed::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(stream)?),
            Packed::Xz => Box::new(lzma_rust2::XzReader::new(stream, true)),
            Packed::Other(name) => {
                let text = format!("packed with {name}: unpack it on the way, as with {name} -dc");
                return Err(io::Error::other(text));
            }
        };
        Ok(Self::Stream {
            from,
            spool: Spool::new(folder)?,
            at: 0,
        })
    }

    /// Where the next byte is in the archive, unpacked.
    pub(super) fn position(&self) -> u64 {
        match self {
            Self::File { at, .. } | Self::Stream { at, .. } => *at,
        }
    }

    /// The next unit; `None` at the end of the file.
    pub(super) fn unit(&mut self) -> io::Result<Option<[u8; UNIT]>> {
        let mut unit = [0; UNIT];
        match self {
            Self::File { file, at, len } => {
                if *at >= *len {
                    return Ok(None);
                }
                file.read_exact_at(&mut unit, *at)?;
                *at += UNIT as u64;
            }
            Self::Stream { from, at, .. } => {
                let mut done = 0;
                while done < UNIT {
                    match from.read(&mut unit[done..]) {
                        Ok(0) if done == 0 => return Ok(None),
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(len) => done += len,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                *at += UNIT as u64;
            }
        }
        Ok(Some(unit))
    }

    /// Bytes of a member, padding passed over.
    pub(super) fn bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        match self {
            Self::File { file, at, .. } => {
                file.read_exact_at(&mut bytes, *at)?;
                *at += len.next_multiple_of(UNIT) as u64;
            }
            Self::Stream { from, at, .. } => {
                from.read_exact(&mut bytes)?;
                let padding = len.next_multiple_of(UNIT) - len;
                from.read_exact(&mut [0; UNIT][..padding])?;
                *at += (len + padding) as u64;
            }
        }
        Ok(bytes)
    }

    /// Passes over a member and its padding, and says where its bytes can be read later.
    pub(super) fn keep(&mut self, len: u64) -> io::Result<u64> {
        let end = len
            .checked_next_multiple_of(UNIT as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        match self {
            Self::File { at, len: all, .. } => {
                let start = *at;
                *at = start.checked_add(end).ok_or(io::ErrorKind::UnexpectedEof)?;
                if *at > *all && start.saturating_add(len) > *all {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(start)
            }
            Self::Stream { from, spool, at } => {
                let start = spool.len;
                spool.take(from, len)?;
                let padding = usize::try_from(end - len).unwrap_or(0);
                from.read_exact(&mut [0; UNIT][..padding])?;
                *at += end;
                Ok(start)
            }
        }
    }

    /// Reads what follows the end mark, so that the writer of a pipe is not cut off, and gives the file with the
    /// members.
    pub(super) fn finish(self) -> io::Result<File> {
        match self {
            Self::File { file, .. } => Ok(file),
            Self::Stream {
                mut from, spool, ..
            } => {
                io::copy(&mut from, &mut io::sink())?;
                // A hole at the end was not written.
                spool.file.set_len(spool.len)?;
                Ok(spool.file)
            }
        }
    }
}

impl Spool {
    fn new(folder: &Path) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags};
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = match rustix::fs::open(folder, flags, Mode::from_bits_retain(0o600)) {
            Ok(file) => File::from(file),
            Err(_) => named(folder)?,
        };
        Ok(Self {
            file,
            len: 0,
            buffer: Buffer::new(256 << 10),
        })
    }

    /// Copies `len` bytes; stretches of zero bytes become holes, so that a small archive of nothing stays small.
    fn take(&mut self, from: &mut dyn Read, len: u64) -> io::Result<()> {
        let mut left = len;
        while left > 0 {
            let step = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let bytes = &mut self.buffer[..step];
            from.read_exact(bytes)?;
            if bytes.iter().any(|&byte| byte != 0) {
                self.file.write_all_at(bytes, self.len)?;
            }
            self.len += step as u64;
            left -= step as u64;
        }
        Ok(())
    }
}

/// Where the file system has no files without a name: one that loses it at once.
fn named(folder: &Path) -> io::Result<File> {
    let name: PathBuf = folder.join(format!(".ext2dax.{}.spool", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&name)?;
    std::fs::remove_file(&name)?;
    Ok(file)
}
