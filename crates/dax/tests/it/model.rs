//! Random operations against a vector of bytes.

use ext2dax_dax::DaxFile;
use ext2dax_dax::vecmap::{Owner, VecMap};
use ext2dax_format::Error;
use proptest::prelude::*;

use crate::support::{BLOCK_BITS, Bench, read, write};

#[derive(Clone, Debug)]
enum Op {
    Write { at: u64, len: u64, byte: u8 },
    Truncate { to: u64 },
    Punch { at: u64, len: u64 },
    Zero { at: u64, len: u64 },
    Allocate { at: u64, len: u64 },
    Sync,
    Read { at: u64, len: u64 },
}

/// Positions in eighths of a block, so that edges and whole blocks are as likely as odd places.
fn op() -> impl Strategy<Value = Op> {
    let at = || (0u64..96, 0u64..3).prop_map(|(eighths, odd)| eighths * 8 + odd);
    let len = || 1u64..200;
    prop_oneof![
        4 => (at(), len(), 1u8..).prop_map(|(at, len, byte)| Op::Write { at, len, byte }),
        2 => at().prop_map(|to| Op::Truncate { to }),
        2 => (at(), len()).prop_map(|(at, len)| Op::Punch { at, len }),
        1 => (at(), len()).prop_map(|(at, len)| Op::Zero { at, len }),
        1 => (at(), len()).prop_map(|(at, len)| Op::Allocate { at, len }),
        1 => Just(Op::Sync),
        2 => (at(), len()).prop_map(|(at, len)| Op::Read { at, len }),
    ]
}

struct Pair {
    bench: Bench,
    file: DaxFile<VecMap>,
    model: Vec<u8>,
    /// Bytes per unit of an operation's numbers: an eighth of an eighth of a block.
    scale: u64,
}

impl Pair {
    fn apply(&mut self, op: &Op) {
        let s = self.scale;
        match *op {
            Op::Write { at, len, byte } => {
                let bytes: Vec<u8> = (0..len * s)
                    .map(|n| byte.wrapping_add((n / 7) as u8))
                    .collect();
                assert_eq!(write(&self.file, at * s, &bytes), Ok(bytes.len()));
                let (from, to) = ((at * s) as usize, ((at + len) * s) as usize);
                if self.model.len() < to {
                    self.model.resize(to, 0);
                }
                self.model[from..to].copy_from_slice(&bytes);
            }
            Op::Truncate { to } => {
                self.file.truncate(to * s).unwrap();
                self.model.resize((to * s) as usize, 0);
            }
            Op::Punch { at, len } => {
                self.file.punch(at * s..(at + len) * s).unwrap();
                self.clear(at * s, len * s);
            }
            Op::Zero { at, len } => {
                self.file.zero_range(at * s..(at + len) * s).unwrap();
                self.clear(at * s, len * s);
            }
            Op::Allocate { at, len } => {
                let outside = (at + len) * s > self.model.len() as u64;
                let expected = if outside {
                    Err(Error::NotSupported)
                } else {
                    Ok(())
                };
                assert_eq!(self.file.allocate_range(at * s..(at + len) * s), expected);
            }
            Op::Sync => self.file.sync(0..u64::MAX).unwrap(),
            Op::Read { at, len } => {
                let end = ((at + len) * s).min(self.model.len() as u64);
                let expected = self
                    .model
                    .get((at * s) as usize..end as usize)
                    .unwrap_or_default();
                assert_eq!(read(&self.file, at * s..(at + len) * s), expected);
            }
        }
    }

    fn clear(&mut self, at: u64, len: u64) {
        let end = (at + len).min(self.model.len() as u64) as usize;
        if let Some(part) = self.model.get_mut(at as usize..end) {
            part.fill(0);
        }
    }

    fn check(&self) {
        let size = self.model.len() as u64;
        assert_eq!(self.file.size(), size);
        assert_eq!(self.file.map().media_size(), size, "the medium's size");
        assert_eq!(read(&self.file, 0..size + 1), self.model);
        let (count, last) = self.file.map().attached();
        assert!(
            last.is_none_or(|last| last * self.bench.block < size),
            "F-7: block {last:?} past {size}"
        );
        let blocks = self.bench.store.pmem().len() / self.bench.block;
        let owned = (0..blocks)
            .filter(|n| self.bench.store.owner(*n) == Owner::File(1))
            .count();
        assert_eq!(owned, count, "a block leaked");
        assert_eq!(
            self.bench.store.free_count() + count,
            blocks as usize,
            "a block is in limbo"
        );
        self.check_seek(size);
    }

    /// Every data byte that is not zero lies between a SEEK_DATA and the next SEEK_HOLE, and the walk covers the file.
    fn check_seek(&self, size: u64) {
        let mut at = 0;
        while at < size {
            let data = match self.file.seek_data(at) {
                Ok(data) => data,
                Err(error) => {
                    assert_eq!(error, Error::NoSuchOffset);
                    size
                }
            };
            assert!(
                self.model[at as usize..data as usize]
                    .iter()
                    .all(|byte| *byte == 0),
                "data in a hole"
            );
            if data == size {
                break;
            }
            let hole = self.file.seek_hole(data).unwrap();
            assert!(hole > data && hole <= size);
            at = hole;
        }
        assert_eq!(self.file.seek_data(size), Err(Error::NoSuchOffset));
        assert_eq!(self.file.seek_hole(size), Err(Error::NoSuchOffset));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn content_is_what_a_vector_of_bytes_would_hold(ops in prop::collection::vec(op(), 1..40), which in 0usize..7) {
        let bits = BLOCK_BITS[which];
        let bench = Bench::new(bits, 64);
        let mut pair = Pair { file: bench.file(0), scale: bench.block / 64, bench, model: Vec::new() };
        for op in &ops {
            pair.apply(op);
            pair.check();
        }
    }
}
