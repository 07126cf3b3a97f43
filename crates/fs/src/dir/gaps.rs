//! Where a directory has room for another name.
//!
//! Every gap of at least one minimal entry is known, so that an insertion finds its place without reading the directory:
//! a tournament tree over the blocks holds each block's largest gap, and its leftmost leaf that is large enough is found
//! in as many steps as the number of blocks has bits. The lowest block with room wins, as it does in ext2, so that
//! directories stay dense.

use alloc::vec;
use alloc::vec::Vec;

/// The smallest entry: eight bytes of header, one byte of name, rounded to four.
pub(crate) const SMALLEST: u32 = 12;

/// Room behind (or in) one entry. Offsets and lengths are multiples of four and at most 65,536, so both are kept in
/// units of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    entry: u16,
    free: u16,
}

/// The gaps of one directory.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    blocks: Vec<Vec<Gap>>,
    /// A complete binary tree in breadth-first order: `tree[1]` is the root, leaves start at `leaves`, and each node holds
    /// the larger of its children, in units of four bytes.
    tree: Vec<u16>,
    leaves: usize,
}

fn quarter(bytes: u32) -> u16 {
    u16::try_from(bytes / 4)
        .expect("a directory block is at most 64 KiB, so a quarter of it fits 16 bits")
}

impl Gaps {
    /// Adds a block without gaps behind the last one.
    pub(crate) fn push_block(&mut self) {
        self.blocks.push(Vec::new());
        if self.blocks.len() > self.leaves {
            self.leaves = self.blocks.len().next_power_of_two();
            self.tree = vec![0; self.leaves * 2];
            for (block, gaps) in self.blocks.iter().enumerate() {
                self.tree[self.leaves + block] = largest(gaps);
            }
            for node in (1..self.leaves).rev() {
                self.tree[node] = self.tree[2 * node].max(self.tree[2 * node + 1]);
            }
        }
    }

    /// Records that the entry at `entry` of `block` has `free` bytes that a new entry may take; zero forgets it.
    pub(crate) fn set(&mut self, block: u32, entry: u32, free: u32) {
        let gaps = &mut self.blocks[block as usize];
        let place = quarter(entry);
        let known = gaps.iter().position(|gap| gap.entry == place);
        match (known, free >= SMALLEST) {
            (Some(at), true) => gaps[at].free = quarter(free),
            (Some(at), false) => {
                gaps.swap_remove(at);
            }
            (None, true) => gaps.push(Gap {
                entry: place,
                free: quarter(free),
            }),
            (None, false) => return,
        }
        self.update(block as usize);
    }

    /// Forgets every gap of `block`, as when the block is filled for a purpose of its own.
    pub(crate) fn clear_block(&mut self, block: u32) {
        self.blocks[block as usize].clear();
        self.update(block as usize);
    }

    /// The lowest block with a gap of at least `need` bytes, and the offset of the entry whose gap it is.
    pub(crate) fn find(&self, need: u32) -> Option<(u32, u32)> {
        let need = quarter(need);
        if self.tree.get(1).is_none_or(|&top| top < need) {
            return None;
        }
        let mut node = 1;
        while node < self.leaves {
            node *= 2;
            if self.tree[node] < need {
                node += 1;
            }
        }
        let block = u32::try_from(node - self.leaves).ok()?;
        let entry = self.in_block(block, u32::from(need) * 4).next()?;
        Some((block, entry))
    }

    /// The offsets of the entries of `block` that have a gap of at least `need` bytes.
    pub(crate) fn in_block(&self, block: u32, need: u32) -> impl Iterator<Item = u32> + '_ {
        let need = quarter(need);
        let gaps = self
            .blocks
            .get(block as usize)
            .map_or(&[][..], Vec::as_slice);
        // The newest gap is at the end, and it is the one that the next insertion most often takes.
        gaps.iter()
            .rev()
            .filter(move |gap| gap.free >= need)
            .map(|gap| u32::from(gap.entry) * 4)
    }

    fn update(&mut self, block: usize) {
        let mut node = self.leaves + block;
        self.tree[node] = largest(&self.blocks[block]);
        while node > 1 {
            node /= 2;
            let winner = self.tree[2 * node].max(self.tree[2 * node + 1]);
            if self.tree[node] == winner {
                return;
            }
            self.tree[node] = winner;
        }
    }
}

fn largest(gaps: &[Gap]) -> u16 {
    gaps.iter().map(|gap| gap.free).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a list that is searched from its start: the lowest block with room, and a gap that is really there.
    #[test]
    fn finds_the_lowest_block_with_room() {
        let mut gaps = Gaps::default();
        let mut model: Vec<Vec<(u32, u32)>> = Vec::new();
        let mut state = 0x1234_5678_u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for step in 0..20_000 {
            if step % 100 == 0 {
                gaps.push_block();
                model.push(Vec::new());
            }
            let block = random() as usize % model.len();
            let entry = random() % 64 * 12;
            let free = [0, 4, 8, 12, 16, 100, 65_532][random() as usize % 7];
            gaps.set(u32::try_from(block).expect("few blocks"), entry, free);
            model[block].retain(|&(at, _)| at != entry);
            if free >= SMALLEST {
                model[block].push((entry, free));
            }
            let need = [12, 16, 20, 104, 264][random() as usize % 5];
            let want = model
                .iter()
                .position(|gaps| gaps.iter().any(|&(_, free)| free >= need));
            let got = gaps.find(need);
            assert_eq!(
                got.map(|(block, _)| block as usize),
                want,
                "step {step}, need {need}"
            );
            if let Some((block, entry)) = got {
                let free = model[block as usize]
                    .iter()
                    .find(|&&(at, _)| at == entry)
                    .expect("a known gap")
                    .1;
                assert!(free >= need);
            }
        }
    }
}
