//! What one line, or the data lines of one block, may hold.

use std::collections::BTreeMap;

use ext2dax_pmem::Route;

use super::Place;

pub(super) const LINE_BYTES: usize = 64;
const WORD: usize = 8;

/// Part of a store, inside one line.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) sequence: u64,
    /// First byte, from the start of the line.
    pub(super) skew: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) route: Route,
}

impl Change {
    pub(super) fn apply(&self, line: &mut [u8]) {
        line[self.skew..self.skew + self.bytes.len()].copy_from_slice(&self.bytes);
    }

    /// The word `word` of the line, if this covers any of it.
    fn apply_word(&self, line: &mut [u8], word: usize) {
        for (i, byte) in self.bytes.iter().enumerate() {
            if (self.skew + i) / WORD == word {
                line[self.skew + i] = *byte;
            }
        }
    }

    fn poison(&self, line: &mut [u8]) {
        for (i, byte) in line
            .iter_mut()
            .enumerate()
            .skip(self.skew)
            .take(self.bytes.len())
        {
            // Neither zero nor all ones, odd, and different from byte to byte.
            *byte = 0xa5 ^ u8::try_from(i << 1).expect("below 128");
        }
    }
}

/// Lines that are decided together.
#[derive(Debug)]
pub(super) struct Unit {
    /// Each variant: offset and contents of every line of the unit. The first is the oldest, the last the newest.
    pub(super) variants: Vec<Vec<(u64, [u8; LINE_BYTES])>>,
}

/// All that is undecided at one point.
#[derive(Debug)]
pub(super) struct Variants {
    pub(super) units: Vec<Unit>,
}

/// Blocks of undecided bulk data above which they are decided all together: one state of old, new and poison for each
/// would only multiply states that no reader can tell apart.
const SEPARATE_BLOCKS: usize = 3;

impl Variants {
    pub(super) fn of(
        pending: &BTreeMap<u64, Vec<Change>>,
        durable: &[u8],
        place: &dyn Fn(u64) -> Place,
    ) -> Self {
        let mut units = Vec::new();
        let mut blocks: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (line, changes) in pending {
            let bulk_only = changes.iter().all(|change| change.route == Route::Bulk);
            match place(*line) {
                Place::Block(block) if bulk_only => blocks.entry(block).or_default().push(*line),
                place => units.push(single(*line, changes, durable, place)),
            }
        }
        if blocks.len() > SEPARATE_BLOCKS {
            let all = std::mem::take(&mut blocks)
                .into_values()
                .flatten()
                .collect();
            blocks.insert(0, all);
        }
        units.extend(
            blocks
                .into_values()
                .map(|lines| together(&lines, pending, durable)),
        );
        units.retain(|unit| unit.variants.len() > 1);
        Variants { units }
    }
}

fn before(line: u64, durable: &[u8]) -> [u8; LINE_BYTES] {
    let start = usize::try_from(line).expect("inside the image");
    durable[start..start + LINE_BYTES]
        .try_into()
        .expect("a line of the image")
}

/// One line: every prefix of its ordered stores, with its bulk writes there, not there and in parts.
fn single(line: u64, changes: &[Change], durable: &[u8], place: Place) -> Unit {
    let old = before(line, durable);
    let ordered = changes
        .iter()
        .filter(|change| change.route == Route::Ordered)
        .count();
    let mut variants: Vec<[u8; LINE_BYTES]> = Vec::new();
    for prefix in 0..=ordered {
        if place == Place::Record && ![0, ordered / 2, ordered].contains(&prefix) {
            continue;
        }
        let build = |bulk: &dyn Fn(&Change, &mut [u8])| {
            let mut now = old;
            let mut left = prefix;
            for change in changes {
                match change.route {
                    Route::Bulk => bulk(change, &mut now),
                    Route::Ordered if left > 0 => {
                        change.apply(&mut now);
                        left -= 1;
                    }
                    Route::Ordered => {}
                }
            }
            now
        };
        variants.push(build(&|_, _| {}));
        match place {
            Place::Block(_) => variants.push(build(&|change, now| change.poison(now))),
            Place::Record => {}
            Place::Fixed => {
                let words =
                    changed_words(&build(&|_, _| {}), &build(&|change, now| change.apply(now)));
                for part in parts(&words) {
                    variants.push(build(&|change, now| {
                        part.iter().for_each(|word| change.apply_word(now, *word))
                    }));
                }
            }
        }
        variants.push(build(&|change, now| change.apply(now)));
    }
    // Equal variants once each; the newest stays last.
    let newest = variants[variants.len() - 1];
    let mut unique: Vec<[u8; LINE_BYTES]> = Vec::new();
    for variant in variants {
        if variant != newest && !unique.contains(&variant) {
            unique.push(variant);
        }
    }
    unique.push(newest);
    Unit {
        variants: unique
            .into_iter()
            .map(|bytes| vec![(line, bytes)])
            .collect(),
    }
}

fn changed_words(old: &[u8], new: &[u8]) -> Vec<usize> {
    (0..LINE_BYTES / WORD)
        .filter(|word| old[word * WORD..][..WORD] != new[word * WORD..][..WORD])
        .collect()
}

/// Which words of a bulk write may be there: all subsets of a few; of many each alone, each missing, and both halves.
fn parts(words: &[usize]) -> Vec<Vec<usize>> {
    if words.len() <= 3 {
        return (0..1usize << words.len())
            .map(|set| {
                words
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| set >> i & 1 == 1)
                    .map(|(_, word)| *word)
                    .collect()
            })
            .collect();
    }
    let mut parts: Vec<Vec<usize>> = words.iter().map(|word| vec![*word]).collect();
    parts.extend(words.iter().map(|missing| {
        words
            .iter()
            .copied()
            .filter(|word| word != missing)
            .collect()
    }));
    let (low, high) = words.split_at(words.len() / 2);
    parts.extend([low.to_vec(), high.to_vec()]);
    parts
}

/// The bulk-written lines of one data block: all old, all poison, all new.
fn together(lines: &[u64], pending: &BTreeMap<u64, Vec<Change>>, durable: &[u8]) -> Unit {
    let build = |bulk: &dyn Fn(&Change, &mut [u8])| -> Vec<(u64, [u8; LINE_BYTES])> {
        let mut all = Vec::new();
        for line in lines {
            let mut now = before(*line, durable);
            pending[line]
                .iter()
                .for_each(|change| bulk(change, &mut now));
            all.push((*line, now));
        }
        all
    };
    let mut variants = vec![build(&|_, _| {}), build(&|change, now| change.poison(now))];
    let newest = build(&|change, now| change.apply(now));
    variants.retain(|variant| *variant != newest);
    variants.push(newest);
    Unit { variants }
}
