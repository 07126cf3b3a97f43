//! The names in one directory of the host.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir};

use super::super::SourceError;

/// Bytes of entries that the kernel hands over at once.
const BUFFER: usize = 64 << 10;

/// Names in the order of their bytes, each with the type that the directory says.
pub(super) struct Names {
    /// All of them, each with a zero byte behind it.
    text: Vec<u8>,
    all: Vec<Entry>,
}

struct Entry {
    at: usize,
    /// Without the zero byte.
    len: u16,
    kind: FileType,
}

/// Opens a directory for reading.
pub(super) fn open(path: &Path) -> Result<OwnedFd, SourceError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| SourceError::io(path, errno.into()))
}

impl Names {
    /// All names but `.`, `..` and those to be left out.
    pub(super) fn read(
        directory: &OwnedFd,
        path: &Path,
        is_excluded: impl Fn(&[u8]) -> bool,
    ) -> Result<Self, SourceError> {
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut found = RawDir::new(directory, buffer.spare_capacity_mut());
        let (mut text, mut all) = (Vec::new(), Vec::new());
        while let Some(entry) = found.next() {
            let entry = entry.map_err(|errno| SourceError::io(path, errno.into()))?;
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if bytes == b"." || bytes == b".." || is_excluded(bytes) {
                continue;
            }
            all.push(Entry {
                at: text.len(),
                len: u16::try_from(bytes.len()).expect("less than a record of 64 KiB"),
                kind: entry.file_type(),
            });
            text.extend_from_slice(name.to_bytes_with_nul());
        }
        let mut names = Self { text, all };
        let text = &names.text;
        names
            .all
            .sort_unstable_by(|a, b| a.bytes(text).cmp(b.bytes(text)));
        Ok(names)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.all.iter().map(|entry| entry.bytes(&self.text))
    }

    /// One name, with the type that the directory says.
    pub(super) fn get(&self, nr: usize) -> (&CStr, FileType) {
        let entry = &self.all[nr];
        let end = entry.at + usize::from(entry.len) + 1;
        let name = CStr::from_bytes_with_nul(&self.text[entry.at..end]);
        (name.expect("was one when it was read"), entry.kind)
    }
}

impl Entry {
    fn bytes<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.at..self.at + usize::from(self.len)]
    }
}
