//! Lines of a device table about files that only the image has: kept until the rest is in.

use ext2dax::{Inode, SetAttributes};
use ext2dax_format::FileType;

use crate::source::{SourceError, Why};
use crate::tree::Attribute;

/// What a line says.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Of a file that is no directory.
    File,
    /// Of a directory, which is made if it is missing.
    Directory,
    /// Of everything below a directory, and of that.
    Recursive,
    Attribute(Attribute),
}

/// A line, kept.
#[derive(Clone, Debug)]
pub(crate) struct Late {
    pub(crate) path: Vec<u8>,
    pub(crate) what: What,
    pub(crate) mode: Option<u16>,
    pub(crate) owner: (u32, u32),
    /// The table and the line, for messages.
    pub(crate) table: Box<[u8]>,
    pub(crate) line: u32,
}

impl Late {
    /// Whether it is no error if nothing has the path.
    pub(super) fn makes(&self) -> bool {
        matches!(self.what, What::Directory)
    }

    fn wrong(&self, what: &'static str) -> SourceError {
        SourceError::new(&self.table, Why::Line(self.line, what))
    }

    pub(super) fn missing(&self) -> SourceError {
        self.wrong(match self.what {
            What::Recursive => "no such directory",
            _ => "no such file",
        })
    }

    pub(super) fn check_kind(&self, kind: FileType) -> Result<(), SourceError> {
        let is_directory = kind == FileType::Directory;
        match self.what {
            What::File if is_directory => Err(self.wrong("a directory; its type is d")),
            What::Directory if !is_directory => Err(self.wrong("no directory; its type is f")),
            _ => Ok(()),
        }
    }

    pub(super) fn change(&self, inode: &Inode) -> ext2dax::Result<()> {
        let is_symlink = inode.file_type() == FileType::Symlink;
        let now = inode.attributes()?.permissions;
        inode.set_attributes(&SetAttributes {
            // Said again, so that a change of owner does not take set-id bits.
            permissions: (!is_symlink).then(|| self.mode.unwrap_or(now)),
            uid: Some(self.owner.0),
            gid: Some(self.owner.1),
            ..SetAttributes::default()
        })
    }
}
