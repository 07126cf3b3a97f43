//! Listing a directory.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use ext2dax_format::{FileType, Result};

use super::Metadata;
use crate::dir::Entry;
use crate::inode::Inode;
use crate::ops;

/// Entries fetched at a time.
const BATCH: usize = 128;

/// The entries of a directory, `.` and `..` left out. Names that come or go meanwhile may be seen or not; each of the
/// others is seen exactly once.
pub struct ReadDir {
    dir: Arc<Listed>,
    batch: vec::IntoIter<Entry>,
    cookie: u64,
    done: bool,
}

/// The directory that is listed.
struct Listed {
    inode: Inode,
    path: Vec<u8>,
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDir")
            .field("dir", &self.dir.inode)
            .field("cookie", &self.cookie)
            .finish_non_exhaustive()
    }
}

impl ReadDir {
    pub(crate) fn new(inode: Inode, path: &[u8]) -> Self {
        Self {
            dir: Arc::new(Listed {
                inode,
                path: path.to_vec(),
            }),
            batch: Vec::new().into_iter(),
            cookie: 0,
            done: false,
        }
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            for entry in self.batch.by_ref() {
                self.cookie = entry.next;
                if !matches!(&*entry.name, b"." | b"..") {
                    return Some(Ok(DirEntry {
                        dir: Arc::clone(&self.dir),
                        entry,
                    }));
                }
            }
            if self.done {
                return None;
            }
            match self.dir.inode.read_dir(self.cookie, BATCH) {
                Ok(batch) => {
                    self.done = batch.is_empty();
                    self.batch = batch.into_iter();
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// One name of a directory.
pub struct DirEntry {
    dir: Arc<Listed>,
    entry: Entry,
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DirEntry({} -> {})",
            self.file_name().escape_ascii(),
            self.ino()
        )
    }
}

impl DirEntry {
    /// The name: 1 to 255 bytes.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        &self.entry.name
    }

    /// The path that was listed, a slash, and the name.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        let mut path = self.dir.path.clone();
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(self.file_name());
        path
    }

    /// Inode number.
    #[must_use]
    pub fn ino(&self) -> u32 {
        self.entry.ino
    }

    /// What kind of file it is, a symlink itself. Free where entries carry the type.
    ///
    /// # Errors
    /// As [`DirEntry::metadata`].
    pub fn file_type(&self) -> Result<FileType> {
        match self.entry.file_type {
            Some(file_type) => Ok(file_type),
            None => Ok(self.metadata()?.file_type()),
        }
    }

    /// The metadata, of a symlink itself.
    ///
    /// # Errors
    /// `NotFound` if the name is gone by now; `Corrupt`.
    pub fn metadata(&self) -> Result<Metadata> {
        let (mount, dir) = self.dir.inode.parts();
        Ok(Metadata::new(ops::attributes(
            mount,
            dir,
            self.file_name(),
        )?))
    }
}
