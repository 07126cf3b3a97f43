//! Pass 5: bitmaps and counters against what pass 1 counted.

use std::fmt::Write as _;

use crate::Hands;
use crate::census::{Census, Kind};
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::layout::SUPER_AT;
use crate::open::Volume;
use crate::parallel;
use crate::problem::Code;

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
    census: &Census,
    hands: Hands<'_>,
    findings: &mut Vec<Finding>,
) {
    let layout = &volume.layout;
    let buffer = || vec![0; layout.block_size as usize];
    let groups = parallel::map_with(layout.groups, hands.threads, buffer, |bytes, group| {
        if hands.cancel.is_set() {
            return Default::default();
        }
        hands.progress.step(5, group, layout.groups);
        check_group(image, volume, census, group, bytes)
    });
    let mut free = Free::default();
    for (mut found, group) in groups {
        findings.append(&mut found);
        free.blocks += group.blocks;
        free.inodes += group.inodes;
    }
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

fn check_group(
    image: &Image,
    volume: &Volume,
    census: &Census,
    group: u32,
    bytes: &mut [u8],
) -> (Vec<Finding>, Free) {
    let layout = &volume.layout;
    let mut findings = Vec::new();
    let places = volume
        .places
        .get(group as usize)
        .copied()
        .unwrap_or_default();
    let first = layout.group_first(group);
    let first_ino = layout.first_ino_of(group);
    let unused = census.used_in_group(group) == 0;
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
    let used = |bit: u32| census.claimed.word64(u64::from(first) + u64::from(bit));
    let bitmap = read(image, volume, places.block_bitmap, bytes);
    free.blocks = blocks.compare(bitmap, used, &mut findings);
    let used = |bit: u32| census.used_word(first_ino.saturating_add(bit));
    let bitmap = read(image, volume, places.inode_bitmap, bytes);
    free.inodes = match unused {
        true => inodes.compare(bitmap, |_| 0, &mut findings),
        false => inodes.compare(bitmap, used, &mut findings),
    };
    let dirs = census
        .used_inodes(layout, group)
        .filter(|(_, kind)| *kind == Kind::DIRECTORY)
        .count() as u64;
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
    (findings, free)
}

/// The bitmap at `place`, if it has one.
fn read<'b>(image: &Image, volume: &Volume, place: u32, bytes: &'b mut [u8]) -> Option<&'b [u8]> {
    if place == 0 {
        return None;
    }
    image.read(volume.layout.at(place), bytes);
    Some(bytes)
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

    /// Compares the bitmap, if it has a place, with what is used; answers how many are free.
    #[inline]
    fn compare(
        &self,
        bytes: Option<&[u8]>,
        used: impl Fn(u32) -> u64,
        findings: &mut Vec<Finding>,
    ) -> u64 {
        let mut free = 0;
        let Some(bytes) = bytes else {
            let words = (0..self.len).step_by(64);
            return words
                .map(|bit| u64::from((!used(bit) & self.mask(bit)).count_ones()))
                .sum();
        };
        let mut leaked = Runs::default();
        let mut unmarked = Runs::default();
        let mut padded = true;
        for (bit, chunk) in (0_u32..).step_by(64).zip(bytes.as_chunks::<8>().0) {
            let stored = u64::from_le_bytes(*chunk);
            let mask = self.mask(bit);
            let counted = if mask == 0 { 0 } else { used(bit) & mask };
            free += u64::from((!counted & mask).count_ones());
            if stored == counted | !mask {
                continue;
            }
            padded &= stored | mask == u64::MAX;
            leaked.add(self.number + u64::from(bit), stored & !counted & mask);
            unmarked.add(self.number + u64::from(bit), counted & !stored);
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
        free
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
