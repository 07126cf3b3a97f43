//! The image as the checks see it: plain little-endian loads and copies of one block at a time, in place.

use ext2dax_format::RawInode;
use ext2dax_pmem::{Off, Pmem};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros as _, IntoBytes};

use crate::Error;
use crate::fix::{Patch, Width};
use ext2dax_undo::Undo;

/// Access to the bytes of the image. Offsets come from [`crate::layout::Layout`], which keeps them inside the region.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pmem: Pmem,
    undo: Option<Undo>,
}

impl Image {
    pub(crate) fn new(pmem: Pmem) -> Self {
        Self { pmem, undo: None }
    }

    /// Saves every block in `undo` before it is changed for the first time.
    pub(crate) fn saved_to(self, undo: Option<Undo>) -> Self {
        Self { undo, ..self }
    }

    /// Whether the bytes may be changed: they are saved, or need not be.
    fn save(&self, at: u64, len: u64) -> bool {
        self.undo
            .as_ref()
            .is_none_or(|undo| undo.save(&self.pmem, at, len))
    }

    /// Closes the undo file.
    ///
    /// # Errors
    /// It could not be written. Since then nothing has been changed.
    pub(crate) fn finish_undo(&self) -> Result<(), Error> {
        let Some(undo) = &self.undo else {
            return Ok(());
        };
        undo.finish(&self.pmem);
        match undo.failure() {
            Some((path, source)) => Err(Error::Undo { path, source }),
            None => Ok(()),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.pmem.len()
    }

    pub(crate) fn writable(&self) -> bool {
        self.pmem.writable()
    }

    pub(crate) fn le32(&self, at: u64) -> u32 {
        self.pmem.load(Off::<U32>::new(at)).get()
    }

    pub(crate) fn le16(&self, at: u64) -> u16 {
        self.pmem.load(Off::<U16>::new(at)).get()
    }

    pub(crate) fn byte(&self, at: u64) -> u8 {
        self.pmem.load(Off::<u8>::new(at))
    }

    /// Whether a superblock at this offset is the primary one.
    pub(crate) fn is_primary(at: u64) -> bool {
        at == crate::layout::SUPER_AT
    }

    /// Copies bytes out. A check looks at nearly everything once: see [`Pmem::read_once`].
    pub(crate) fn read(&self, at: u64, to: &mut [u8]) {
        self.pmem.read_once(at, to);
    }

    pub(crate) fn value<T: FromBytes + IntoBytes>(&self, at: u64) -> T {
        self.pmem.read_value(Off::new(at))
    }

    pub(crate) fn inode(&self, at: u64) -> RawInode {
        let mut raw = RawInode::new_zeroed();
        self.read(at, raw.as_mut_bytes());
        raw
    }

    /// Stores one word and waits until it is durable: repairs are few, and each must be whole before the next starts.
    pub(crate) fn patch(&self, patch: Patch) {
        let (at, value) = (patch.at, patch.value);
        let bytes = value.to_le_bytes();
        if !self.save(at, 4) {
            return;
        }
        let len = match patch.width {
            Width::Byte => {
                self.pmem.store(Off::<u8>::new(at), bytes[0]);
                1
            }
            Width::Half => {
                self.pmem
                    .store(Off::<U16>::new(at), U16::from_bytes([bytes[0], bytes[1]]));
                2
            }
            Width::Word => {
                self.pmem.store(Off::<U32>::new(at), U32::new(value));
                4
            }
        };
        self.pmem.flush(at, len);
        self.pmem.fence();
    }

    /// Writes bytes that nothing leads to yet, or a whole block that is replaced, and waits until they are durable.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        if !self.save(at, bytes.len() as u64) {
            return;
        }
        self.pmem.write(at, bytes);
        self.pmem.flush(at, bytes.len() as u64);
        self.pmem.fence();
    }
}
