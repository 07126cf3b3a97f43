//! Crash states: everything that the medium may hold after a power loss, built from a recorder's log.
//!
//! The model is that of `docs/DESIGN.md`: an aligned store survives whole or not; ordered stores to one 64-byte line
//! survive as a prefix; lines are independent; a bulk write survives in any part until its lines are flushed and the
//! same thread has fenced. Lines may also be written back without a flush, so a line is undecided from its first store
//! until that flush and fence, across other fences.
//!
//! Crash points are taken just before every fence, at every remark of the log, and at its end. That is all of them: the
//! states at any other moment are among those of the next point.
//!
//! # What is collapsed, and what is sampled
//! Bulk writes to data blocks are undecided as a whole block: old, new, or poison, which no reader may ever look at and
//! which is worse than any part of both. Bulk writes to fixed metadata, which checkers read whether something leads
//! there or not, are taken apart into 8-byte words. Records with a checksum are old, new, or torn in the middle. Where the product over all lines exceeds [`Limits::product`], the
//! point is sampled: every line's variants with all others old and with all others new, and then at random up to the
//! limit. [`Report::sampled`] counts those points, so a complete enumeration says 0.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use ext2dax_pmem::{Event, EventKind, LINE, Route};

mod line;
pub mod mutation;
pub mod oracle;
pub mod preen;
pub mod scenario;
pub mod shown;

use line::{Change, LINE_BYTES, Variants};

/// How readers treat a line, which decides how finely its bulk writes are taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Superblock, descriptors, bitmaps, inode tables: read by every checker, at any time.
    Fixed,
    /// Part of the data block with this number: read only if something leads there.
    Block(u64),
    /// A record of a mount or an operation, which has a checksum: torn in one place it is as good as torn in another.
    Record,
}

/// How much is enumerated.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest product over undecided lines that a point enumerates in full.
    pub product: usize,
    /// Seed of the sampling beyond that.
    pub seed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            product: 4096,
            seed: 1,
        }
    }
}

/// One state that the medium may hold after a crash.
#[derive(Debug)]
pub struct CrashState<'a> {
    /// The whole medium.
    pub image: &'a [u8],
    /// Events of the log that came before the crash.
    pub at: usize,
    /// Remarks of the log that came before the crash: which operations have begun and returned.
    pub marks: &'a [String],
    /// A hash of the image, and of nothing else.
    pub content: u128,
    /// Lines that were undecided, with the variant taken of each: byte offset, index, number of variants.
    pub choices: Vec<(u64, usize, usize)>,
}

impl CrashState<'_> {
    /// A hash of the image less these bytes, which are whole lines.
    pub fn content_without(&self, bytes: std::ops::Range<usize>) -> u128 {
        let lines = (bytes.start as u64..).step_by(LINE_BYTES);
        lines
            .zip(self.image[bytes].chunks(LINE_BYTES))
            .fold(self.content, |all, (line, bytes)| {
                all ^ hash_line(line, bytes)
            })
    }
}

/// What an enumeration went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Crash points with anything undecided, and the last one.
    pub points: usize,
    /// States visited; equal images under the same remarks count once.
    pub states: usize,
    /// Points at which only a part of the product was taken.
    pub sampled: usize,
    /// Fences of the log.
    pub fences: usize,
}

/// The enumeration of one log.
pub struct Enumeration<'a> {
    durable: Vec<u8>,
    pending: BTreeMap<u64, Vec<Change>>,
    /// By thread: lines it has flushed since its last fence, each with the newest change that the flush covers.
    flushed: HashMap<u64, Vec<(u64, u64)>>,
    place: &'a dyn Fn(u64) -> Place,
    limits: Limits,
    marks: Vec<String>,
    seen: HashSet<(usize, u128)>,
    sequence: u64,
    report: Report,
}

impl<'a> Enumeration<'a> {
    /// Starts from a medium that holds `base`, everything durable. `place` says what a byte offset belongs to.
    pub fn new(base: Vec<u8>, place: &'a dyn Fn(u64) -> Place, limits: Limits) -> Self {
        Enumeration {
            durable: base,
            pending: BTreeMap::new(),
            flushed: HashMap::new(),
            place,
            limits,
            marks: Vec::new(),
            seen: HashSet::new(),
            sequence: 0,
            report: Report::default(),
        }
    }

    /// Shows every crash state of `events` to `visit`.
    ///
    /// # Panics
    /// If an event lies outside the image.
    pub fn run(mut self, events: &[Event], visit: &mut dyn FnMut(&CrashState<'_>)) -> Report {
        for (at, event) in events.iter().enumerate() {
            match &event.kind {
                EventKind::Store { at, bytes, route } => self.store(*at, bytes, *route),
                EventKind::Flush(range) => self.flush(event.thread, range.start, range.end),
                EventKind::Fence => {
                    self.point(at, visit);
                    self.fence(event.thread);
                    self.report.fences += 1;
                }
                EventKind::Mark(mark) => {
                    self.point(at, visit);
                    self.marks.push(mark.clone());
                }
            }
        }
        self.point(events.len(), visit);
        self.report
    }

    fn store(&mut self, at: u64, bytes: &[u8], route: Route) {
        let mut at = at;
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let skew = usize::try_from(at % LINE).expect("below 64");
            let (head, rest) = bytes.split_at(bytes.len().min(LINE_BYTES - skew));
            self.sequence += 1;
            let change = Change {
                sequence: self.sequence,
                skew,
                bytes: head.to_vec(),
                route,
            };
            self.pending.entry(at - at % LINE).or_default().push(change);
            at += head.len() as u64;
            bytes = rest;
        }
    }

    fn flush(&mut self, thread: u64, start: u64, end: u64) {
        let mine = self.flushed.entry(thread).or_default();
        for (line, changes) in self.pending.range(start - start % LINE..end) {
            mine.push((*line, changes.last().map_or(0, |change| change.sequence)));
        }
    }

    fn fence(&mut self, thread: u64) {
        for (line, newest) in self.flushed.remove(&thread).unwrap_or_default() {
            let Some(changes) = self.pending.get_mut(&line) else {
                continue;
            };
            let decided = changes
                .iter()
                .take_while(|change| change.sequence <= newest)
                .count();
            let start = usize::try_from(line).expect("inside the image");
            for change in changes.drain(..decided) {
                change.apply(&mut self.durable[start..start + LINE_BYTES]);
            }
            if changes.is_empty() {
                self.pending.remove(&line);
            }
        }
    }

    fn point(&mut self, at: usize, visit: &mut dyn FnMut(&CrashState<'_>)) {
        let variants = Variants::of(&self.pending, &self.durable, self.place);
        let sizes: Vec<usize> = variants
            .units
            .iter()
            .map(|unit| unit.variants.len())
            .collect();
        let product = sizes.iter().try_fold(1usize, |all, n| {
            all.checked_mul(*n).filter(|n| *n <= self.limits.product)
        });
        self.report.points += 1;
        let durable = hash_image(&self.durable);
        let mut image = self.durable.clone();
        let limits = self.limits;
        let mut take =
            |choice: &[usize]| self.visit(at, &variants, choice, durable, &mut image, visit);
        match product {
            Some(_) => every_choice(&sizes, &mut take),
            None => {
                sample(&sizes, limits, &mut take);
                self.report.sampled += 1;
            }
        }
    }

    fn visit(
        &mut self,
        at: usize,
        variants: &Variants,
        choice: &[usize],
        durable: u128,
        image: &mut [u8],
        visit: &mut dyn FnMut(&CrashState<'_>),
    ) {
        let mut content = durable;
        for (unit, taken) in variants.units.iter().zip(choice) {
            for (line, bytes) in &unit.variants[*taken] {
                let start = usize::try_from(*line).expect("inside the image");
                content ^= hash_line(*line, &self.durable[start..start + LINE_BYTES])
                    ^ hash_line(*line, bytes);
            }
        }
        if !self.seen.insert((self.marks.len(), content)) {
            return;
        }
        let mut choices = Vec::new();
        for (unit, taken) in variants.units.iter().zip(choice) {
            choices.push((unit.variants[*taken][0].0, *taken, unit.variants.len()));
            for (line, bytes) in &unit.variants[*taken] {
                let start = usize::try_from(*line).expect("inside the image");
                image[start..start + LINE_BYTES].copy_from_slice(bytes);
            }
        }
        self.report.states += 1;
        visit(&CrashState {
            image,
            at,
            marks: &self.marks,
            content,
            choices,
        });
        for (unit, taken) in variants.units.iter().zip(choice) {
            for (line, _) in &unit.variants[*taken] {
                let start = usize::try_from(*line).expect("inside the image");
                image[start..start + LINE_BYTES]
                    .copy_from_slice(&self.durable[start..start + LINE_BYTES]);
            }
        }
    }
}

/// Counts through all combinations.
fn every_choice(sizes: &[usize], take: &mut dyn FnMut(&[usize])) {
    let mut choice = vec![0; sizes.len()];
    loop {
        take(&choice);
        let Some(at) = (0..sizes.len()).find(|at| choice[*at] + 1 < sizes[*at]) else {
            return;
        };
        choice[at] += 1;
        choice[..at].fill(0);
    }
}

/// Each line on its own against the oldest and the newest of all others, then at random.
fn sample(sizes: &[usize], limits: Limits, take: &mut dyn FnMut(&[usize])) {
    let newest: Vec<usize> = sizes.iter().map(|size| size - 1).collect();
    let mut taken = 0;
    for background in [vec![0; sizes.len()], newest] {
        take(&background);
        for (at, size) in sizes.iter().enumerate() {
            for variant in 0..*size {
                let mut choice = background.clone();
                choice[at] = variant;
                take(&choice);
                taken += 1;
            }
        }
    }
    let mut state = limits.seed.max(1);
    let mut random = |end: usize| {
        // xorshift64*: the same states on every machine.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        usize::try_from(state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).expect("31 bits") % end
    };
    while taken < limits.product {
        let choice: Vec<usize> = sizes.iter().map(|size| random(*size)).collect();
        take(&choice);
        taken += 1;
    }
}

/// Both halves of 128 bits from one fixed hasher: 64 would collide once in some billion states.
fn hash_line(line: u64, bytes: &[u8]) -> u128 {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let half = |salt: u64| u128::from(hasher.hash_one((salt, line, bytes)));
    half(1) << 64 | half(2)
}

/// The images of one enumeration differ in few lines, so the hash is a sum over lines that is updated, not recomputed.
fn hash_image(image: &[u8]) -> u128 {
    (0..)
        .step_by(LINE_BYTES)
        .zip(image.chunks(LINE_BYTES))
        .fold(0, |all, (line, bytes)| all ^ hash_line(line, bytes))
}

impl std::fmt::Debug for Enumeration<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enumeration")
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
