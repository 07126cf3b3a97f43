//! Files as memory in a Linux process: the path layer's door to `fault::host`.

use alloc::sync::Arc;
use core::fmt;
use core::ops::{Deref, Range};

use ext2dax_dax::DaxFile;
use ext2dax_fault::host::{Access, HostMmu, View};
use ext2dax_format::Result;

use super::File;
use crate::inode::{Inode, TreeMap};

/// A file as memory: its pages are the image's blocks. Loads, stores and the rest are [`View`]'s.
///
/// Keeps the file alive, with or without a name, and whether or not the [`File`] it came from is still open. Dropping it
/// ends the mapping: every later access of its addresses is SIGSEGV.
pub struct MappedFile {
    view: Option<View>,
    file: Arc<DaxFile<TreeMap>>,
    inode: Inode,
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedFile")
            .field("inode", &self.inode)
            .field("view", &self.view)
            .finish()
    }
}

impl File {
    /// Shows `range` (bytes; begins on a page, may reach past the end of the file) as memory, through the MMU `mmu`.
    ///
    /// `mmu` must have been made for the image that this file system is mounted from, and its two loops must be running.
    /// A writable view needs a file opened for writing; every view, one opened for reading, as mmap(2) has it.
    ///
    /// # Errors
    /// `NotOpenForRead`, `NotOpenForWrite`; `NotPermitted`, `ReadOnlyFs` for a writable view of what may not change;
    /// `NotSupported` for blocks smaller than a page; and as [`HostMmu::map`].
    pub fn map(&self, mmu: &HostMmu, range: Range<u64>, access: Access) -> Result<MappedFile> {
        self.for_reading()?;
        if access == Access::ReadWrite {
            self.for_writing()?;
        }
        let inode = self.inode();
        let file = inode.check_mappable(access == Access::ReadWrite)?;
        let view = mmu.map(Arc::clone(&file), range, access)?;
        Ok(MappedFile {
            view: Some(view),
            file,
            inode: inode.clone(),
        })
    }
}

impl MappedFile {
    /// Blocks that page faults have attached to holes of the file since it was opened.
    #[must_use]
    pub fn blocks_filled_by_faults(&self) -> u64 {
        self.file.blocks_filled_by_faults()
    }

    /// The mapped file.
    #[must_use]
    pub fn inode(&self) -> &Inode {
        &self.inode
    }
}

impl Deref for MappedFile {
    type Target = View;

    fn deref(&self) -> &View {
        self.view.as_ref().expect("only drop takes the view away")
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if let Some(view) = self.view.take() {
            self.inode.unmapped(&self.file, view.close());
        }
    }
}
