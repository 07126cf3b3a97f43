//! Pass 5: bitmaps and counters against what pass 1 counted.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use ext2dax_pmem::Buffer;
use zerocopy::IntoBytes as _;
use zerocopy::little_endian::U64;

use crate::Hands;
use crate::bits::BitMap;
use crate::census::Census;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::inodes::Inodes;
use crate::layout::{Layout, SUPER_AT};
use crate::open::{GroupPlaces, Volume};
use crate::problem::Code;

/// Groups that a thread takes at a time. So few that there is one span are not worth a thread.
const SPAN: u32 = 64;
/// How many runs a finding lists before it ends in dots.
const RUNS_LISTED: usize = 16;

/// What a group has free.
#[derive(Clone, Copy, Debug, Default)]
struct Free {
    blocks: u64,
    inodes: u64,
}

/// Runs pass 5.
pub(crate) fn run(
    image: &Image,
    volume: &Volume,
    census: &mut Census,
    hands: Hands<'_>,
    findings: &mut Vec<Finding>,
) {
    let layout = &volume.layout;
    let buffer = |_| Buffers {
        stored: Buffer::new(2 * layout.block_size as usize),
        counted: vec![U64::ZERO; layout.block_size as usize / 8],
    };
    let Census {
        claimed,
        inodes,
        used_in_group,
        ..
    } = census;
    let counts = Counts {
        claimed,
        inodes,
        used_in_group,
    };
    let spans = layout.groups.div_ceil(SPAN);
    let (spans, _) = hands.crew.map_with(spans, buffer, |buffers, span| {
        let mut found = (Vec::new(), Free::default());
        let first = span * SPAN;
        for group in first..first.saturating_add(SPAN).min(layout.groups) {
            if hands.cancel.is_set() {
                break;
            }
            hands.progress.step(5, group, layout.groups);
            let free = check_group(image, volume, counts, group, buffers, &mut found.0);
            found.1.blocks += free.blocks;
            found.1.inodes += free.inodes;
        }
        found
    });
    let mut free = Free::default();
    for (mut found, span) in spans {
        findings.append(&mut found);
        free.blocks += span.blocks;
        free.inodes += span.inodes;
    }
    let all = u64::from(layout.blocks - layout.first_data_block);
    census.claimed_count = all.saturating_sub(free.blocks);
    let mut compare = |code: Code, at: u64, stored: u32, counted: u64| {
        if u64::from(stored) != counted {
            let fix = Fix::word(SUPER_AT + at, crate::layout::saturate(counted));
            findings.push(Finding::new(code).found(stored).expected(counted).fix(fix));
        }
    };
    compare(
        Code::FreeBlocks,
        12,
        volume.sb.s_free_blocks_count.get(),
        free.blocks,
    );
    compare(
        Code::FreeInodes,
        16,
        volume.sb.s_free_inodes_count.get(),
        free.inodes,
    );
}

/// What the passes before have counted.
#[derive(Clone, Copy, Debug)]
struct Counts<'a> {
    claimed: &'a BitMap,
    inodes: &'a Inodes,
    used_in_group: &'a [AtomicU32],
}

/// Buffers of one thread: the bitmaps of a group as they are, and one of them as it should be.
#[derive(Debug)]
struct Buffers {
    stored: Buffer,
    counted: Vec<U64>,
}

fn check_group(
    image: &Image,
    volume: &Volume,
    counts: Counts<'_>,
    group: u32,
    buffers: &mut Buffers,
    findings: &mut Vec<Finding>,
) -> Free {
    let layout = &volume.layout;
    let places = volume
        .places
        .get(group as usize)
        .copied()
        .unwrap_or_default();
    let first = layout.group_first(group);
    let first_ino = layout.first_ino_of(group);
    let used = counts.used_in_group.get(group as usize);
    let unused = used.is_none_or(|used| used.load(Ordering::Relaxed) == 0);
    let blocks = BitmapCheck {
        group,
        number: first.into(),
        len: layout.group_len(group),
        codes: [Code::BlockLeak, Code::BlockUnmarked, Code::BlockPadding],
    };
    let inodes = BitmapCheck {
        group,
        number: first_ino.into(),
        len: layout.inodes_per_group,
        codes: [Code::InodeLeak, Code::InodeUnmarked, Code::InodePadding],
    };
    let mut free = Free::default();
    let Buffers { stored, counted } = buffers;
    let (first_bitmap, second_bitmap) = read(image, layout, places, stored);
    counts.claimed.copy(first, counted);
    free.blocks = blocks.compare(first_bitmap, counted, findings);
    for (bit, word) in (0..layout.inodes_per_group).step_by(64).zip(&mut *counted) {
        word.set(match unused {
            true => 0,
            false => counts.inodes.used_word(first_ino.saturating_add(bit)),
        });
    }
    free.inodes = inodes.compare(second_bitmap, counted, findings);
    let dirs = match unused {
        true => 0,
        false => counts.inodes.dirs(first_ino, layout.inodes_per_group),
    };
    let read_at = layout.desc_at(group, volume.copy);
    let store_at = layout.desc_at(group, 0);
    let mut compare = |code: Code, at: u64, counted: u64| {
        let stored = image.le16(read_at + at);
        if u64::from(stored) != counted {
            let value = u16::try_from(counted).unwrap_or(u16::MAX);
            let finding = Finding::new(code)
                .group(group)
                .found(stored)
                .expected(counted);
            findings.push(finding.fix(Fix::half(store_at + at, value)));
        }
    };
    compare(Code::GroupFreeBlocks, 12, free.blocks);
    compare(Code::GroupFreeInodes, 14, free.inodes);
    compare(Code::GroupDirs, 16, dirs);
    free
}

/// The bitmaps of blocks and inodes, as far as they have a place. Mostly they are neighbours, and one call reads both.
fn read<'b>(
    image: &Image,
    layout: &Layout,
    places: GroupPlaces,
    bytes: &'b mut [u8],
) -> (Option<&'b [u8]>, Option<&'b [u8]>) {
    let places = [places.block_bitmap, places.inode_bitmap];
    match places {
        [first, second] if first != 0 && first.checked_add(1) == Some(second) => {
            image.read(layout.at(first), bytes);
        }
        places => {
            let halves = bytes.chunks_exact_mut(layout.block_size as usize);
            for (place, half) in places.into_iter().zip(halves).filter(|half| half.0 != 0) {
                image.read(layout.at(place), half);
            }
        }
    }
    let mut halves = bytes.chunks_exact(layout.block_size as usize);
    let mut half = |place| halves.next().filter(|_| place != 0);
    let [first, second] = places;
    (half(first), half(second))
}

/// The zeroes of a word.
#[inline]
fn count_free(word: &U64) -> u64 {
    match word.get() {
        0 => 64,
        u64::MAX => 0,
        word => word.count_zeros().into(),
    }
}

/// One bitmap of one group.
struct BitmapCheck {
    group: u32,
    /// What the first bit stands for.
    number: u64,
    /// Bits that stand for something; all others have to be set.
    len: u32,
    /// Leaked, unmarked, padding.
    codes: [Code; 3],
}

impl BitmapCheck {
    /// The bits of the word at `bit` that stand for something.
    fn mask(&self, bit: u32) -> u64 {
        match self.len.saturating_sub(bit) {
            0 => 0,
            n @ 1..64 => (1 << n) - 1,
            _ => u64::MAX,
        }
    }

    /// Compares the bitmap, if it has a place, with the bits that were counted; answers how many are free. All bits that
    /// stand for nothing are set in `counted` then.
    fn compare(
        &self,
        stored: Option<&[u8]>,
        counted: &mut [U64],
        findings: &mut Vec<Finding>,
    ) -> u64 {
        let meaning = (self.len as usize / 64).min(counted.len());
        let (words, behind) = counted.split_at_mut(meaning);
        // Whole words are free or taken nearly always.
        let mut free: u64 = words.iter().map(count_free).sum();
        if let [last, padding @ ..] = behind {
            *last |= U64::new(!self.mask(self.len / 64 * 64));
            free += u64::from(last.get().count_zeros());
            padding.fill(U64::new(u64::MAX));
        }
        if let Some(stored) = stored
            && stored != counted.as_bytes()
        {
            self.report(stored.as_chunks::<8>().0.iter().zip(&*counted), findings);
        }
        free
    }

    /// Reports the bits that differ.
    fn report<'a>(
        &self,
        pairs: impl Iterator<Item = (&'a [u8; 8], &'a U64)>,
        findings: &mut Vec<Finding>,
    ) {
        let mut leaked = Runs::default();
        let mut unmarked = Runs::default();
        let mut padded = true;
        for (bit, (stored, counted)) in (0_u32..).step_by(64).zip(pairs) {
            let (stored, counted) = (u64::from_le_bytes(*stored), counted.get());
            let mask = self.mask(bit);
            if stored == counted {
                continue;
            }
            padded &= stored | mask == u64::MAX;
            leaked.add(self.number + u64::from(bit), stored & !counted & mask);
            unmarked.add(self.number + u64::from(bit), counted & !stored & mask);
        }
        for (runs, code) in [leaked, unmarked].into_iter().zip(self.codes) {
            if runs.count != 0 {
                let finding = Finding::new(code)
                    .group(self.group)
                    .name(runs.text().as_bytes());
                findings.push(finding.found(runs.count).fix(Fix::WriteGroup));
            }
        }
        if !padded {
            let [.., code] = self.codes;
            findings.push(Finding::new(code).group(self.group).fix(Fix::WriteGroup));
        }
    }
}

/// Numbers as runs, for people to read.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<(u64, u64)>,
    pub(crate) count: u64,
}

impl Runs {
    fn add(&mut self, first: u64, mut bits: u64) {
        while bits != 0 {
            self.push(first + u64::from(bits.trailing_zeros()));
            bits &= bits - 1;
        }
    }

    pub(crate) fn push(&mut self, number: u64) {
        self.count += 1;
        if let Some((_, last)) = self.runs.last_mut()
            && *last + 1 == number
        {
            *last = number;
            return;
        }
        // One more than is listed, so that the text knows to end in dots.
        if self.runs.len() <= RUNS_LISTED {
            self.runs.push((number, number));
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (i, (first, last)) in self.runs.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            let _ = match i {
                RUNS_LISTED => write!(text, "{space}... ({} in all)", self.count),
                _ if first == last => write!(text, "{space}{first}"),
                _ => write!(text, "{space}{first}--{last}"),
            };
        }
        text
    }
}
