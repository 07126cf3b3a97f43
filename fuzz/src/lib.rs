//! What the targets share: a good image with some of its numbers changed. Bytes from nothing would fail at the magic
//! number and never get further.

use std::sync::OnceLock;

use ext2dax_crashtest::hostile::Sample;
use libfuzzer_sys::arbitrary::{self, Arbitrary};

/// Good images at two block sizes, with their fields.
fn samples() -> &'static [Sample; 2] {
    static SAMPLES: OnceLock<[Sample; 2]> = OnceLock::new();
    SAMPLES.get_or_init(|| [1024, 4096].map(|size| Sample::new(size).expect("a good image")))
}

/// A good image of 1 KiB blocks.
#[must_use]
pub fn good_image() -> &'static [u8] {
    &samples()[0].bytes
}

/// A change of an image.
#[derive(Arbitrary, Debug)]
pub enum Change {
    /// A known field gets any value.
    Field { field: u16, value: u32 },
    /// A known field gets a number that means something: a table, a limit.
    Meaning { field: u16, number: u8 },
    /// Bytes anywhere.
    Bytes { at: u32, bytes: [u8; 4] },
    /// A block becomes a copy of another one.
    Block { from: u8, to: u8 },
    /// The end is missing.
    Cut { len: u32 },
}

/// An image to be tried.
#[derive(Arbitrary, Debug)]
pub struct Input {
    large_blocks: bool,
    changes: Vec<Change>,
}

impl Input {
    /// The bytes of the image.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        let sample = &samples()[usize::from(self.large_blocks)];
        let block = if self.large_blocks { 4096 } else { 1024 };
        let mut bytes = sample.bytes.clone();
        for change in self.changes.iter().take(64) {
            match *change {
                Change::Field { field, value } => store(sample, &mut bytes, field, value),
                Change::Meaning { field, number } => {
                    let value = sample.numbers[usize::from(number) % sample.numbers.len()];
                    store(sample, &mut bytes, field, value);
                }
                Change::Bytes { at, bytes: new } => put(&mut bytes, at as usize, &new),
                Change::Block { from, to } => {
                    let (from, to) = (usize::from(from) * block, usize::from(to) * block);
                    if from.max(to) + block <= bytes.len() {
                        bytes.copy_within(from..from + block, to);
                    }
                }
                Change::Cut { len } => bytes.truncate(len as usize),
            }
        }
        bytes
    }
}

fn store(sample: &Sample, bytes: &mut [u8], field: u16, value: u32) {
    let field = &sample.fields[usize::from(field) % sample.fields.len()];
    put(bytes, field.at, &value.to_le_bytes()[..field.width]);
}

/// Past the end nothing happens: the image may have been cut.
fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    if let Some(old) = bytes.get_mut(at..at + new.len()) {
        old.copy_from_slice(new);
    }
}
