//! Files for the tests: every block of the medium holds junk until somebody writes it.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use ext2dax_dax::vecmap::{Store, VecMap};
use ext2dax_dax::{DaxFile, Frame, Gates, MapError, PageTable, Prot, View, ViewSpec};
use ext2dax_format::Error;
use ext2dax_pmem::{AnonRegion, Persist, Pmem, UserSlice, UserSliceMut};

pub(crate) const BLOCK_BITS: [u32; 7] = [10, 11, 12, 13, 14, 15, 16];
pub(crate) const JUNK: u8 = 0xee;

pub(crate) struct Bench {
    pub(crate) store: Arc<Store>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) block: u64,
}

impl Bench {
    pub(crate) fn new(block_bits: u32, blocks: u64) -> Bench {
        Bench::with_persist(block_bits, blocks, Persist::FlushLines)
    }

    pub(crate) fn with_persist(block_bits: u32, blocks: u64, persist: Persist) -> Bench {
        let region = AnonRegion::with_persist(blocks << block_bits, persist)
            .expect("memory for a small medium");
        let pmem = Pmem::new(region);
        let block = 1 << block_bits;
        (0..blocks)
            .for_each(|n| pmem.write(n * block, &vec![JUNK; usize::try_from(block).unwrap()]));
        Bench {
            store: Store::new(pmem, block_bits),
            gates: Arc::new(Gates::new()),
            block,
        }
    }

    pub(crate) fn file(&self, size: u64) -> DaxFile<VecMap> {
        DaxFile::new(
            VecMap::new(&self.store, 1),
            self.store.pmem().clone(),
            self.gates.clone(),
            size,
        )
    }
}

pub(crate) fn read(file: &DaxFile<VecMap>, range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0xaa; usize::try_from(range.end - range.start).unwrap()];
    let read = file
        .read_at(range.start, UserSliceMut::from(&mut bytes[..]))
        .expect("a good tree");
    bytes.truncate(read);
    bytes
}

pub(crate) fn write(file: &DaxFile<VecMap>, at: u64, bytes: &[u8]) -> Result<usize, Error> {
    file.write_at(at, UserSlice::from(bytes))
}

/// Notes what is asked of it.
#[derive(Debug, Default)]
pub(crate) struct Notes(pub(crate) Mutex<Vec<Call>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Map(u64, Frame, u32, Prot),
    Unmap(Range<u64>, bool),
    Protect(Range<u64>),
    Resized(u64),
}

impl Notes {
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
    fn note(&self, call: Call) {
        self.0.lock().unwrap().push(call);
    }
}

impl PageTable for Notes {
    fn map(&self, idx: u64, frame: Frame, pages: u32, prot: Prot) -> Result<(), MapError> {
        self.note(Call::Map(idx, frame, pages, prot));
        Ok(())
    }
    fn map_private(&self, _idx: u64, _source: Frame) -> Result<(), MapError> {
        Ok(())
    }
    fn unmap(&self, pages: Range<u64>, private_too: bool) {
        self.note(Call::Unmap(pages, private_too));
    }
    fn write_protect(&self, pages: Range<u64>) {
        self.note(Call::Protect(pages));
    }
    fn resized(&self, size: u64) {
        self.note(Call::Resized(size));
    }
}

pub(crate) fn attach(file: &DaxFile<VecMap>, pages: Range<u64>) -> (Arc<View>, Arc<Notes>) {
    let table = Arc::new(Notes::default());
    let spec = ViewSpec {
        table: table.clone(),
        pages,
        writable: true,
        shared: true,
        sync: false,
    };
    let view = file.attach(spec).expect("blocks of at least a page");
    table.take();
    (view, table)
}
