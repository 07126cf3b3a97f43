//! Random operations on several files against a model: a map from file block to block.

use std::collections::{BTreeMap, HashMap};

use ext2dax_format::{Error, FileBlock, FsBlock};
use ext2dax_getblock::{BlockTree, Mapping};

use crate::image::{ALLOCATE, BLOCK_SIZES, Image, judges, kib};

type Model = BTreeMap<u32, FsBlock>;

/// A small generator, so that a printed seed repeats a run anywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 32) % u64::from(sides)).expect("below sides")
    }

    /// A file block: mostly dense, sometimes beyond the edges of the tree.
    fn at(&mut self, slots: u32) -> u32 {
        let base = [
            0,
            0,
            8,
            12 + slots - 4,
            12 + slots,
            12 + slots + slots.saturating_mul(slots).min(1 << 26),
        ];
        base[self.roll(6) as usize] + self.roll(40)
    }
}

fn agree(tree: &BlockTree, model: &Model, seed: u64) {
    // Every mapped block, and the hole behind it.
    for (&at, &block) in model {
        for max in [1, 7, 5000] {
            let found = tree.lookup(FileBlock(at), max).expect("a sound tree");
            let run = found.run().expect("a mapped block");
            assert_eq!(run.start, block, "seed {seed}: block {at}");
            assert!(run.len <= max, "seed {seed}");
            for (index, block) in (0..).zip(run.iter()) {
                assert_eq!(
                    model.get(&(at + index)),
                    Some(&block),
                    "seed {seed}: block {at} + {index}"
                );
            }
        }
        if !model.contains_key(&(at + 1)) {
            let next = model.range(at + 1..).next().map(|(&next, _)| next);
            let hole = tree
                .lookup(FileBlock(at + 1), 100_000)
                .expect("a sound tree");
            let Mapping::Hole(len) = hole else {
                panic!("seed {seed}: {hole:?} behind {at}")
            };
            assert!(
                next.is_none_or(|next| at + 1 + len <= next),
                "seed {seed}: hole over {next:?}"
            );
            let data = tree
                .next_data(FileBlock(at + 1), FileBlock(u32::MAX))
                .expect("a sound tree");
            assert_eq!(
                data.map(|data| data.0),
                next,
                "seed {seed}: data behind {at}"
            );
        }
    }
}

fn run(size: u32, seed: u64) {
    let mut image = Image::new(&["-b", &size.to_string(), "-m", "0"], kib(size) / 2);
    let slots = image.volume.geometry().addr_per_block();
    let geometry = image.volume.geometry();
    let limit =
        u32::try_from(geometry.max_file_size() >> geometry.block_bits()).expect("32 bits") - 4000;
    let mut dice = Dice(seed);
    let inos: Vec<_> = (0..3).map(|_| image.file().ino()).collect();
    let mut models = vec![Model::new(); inos.len()];
    for round in 0..3 {
        let trees: Vec<_> = inos
            .iter()
            .map(|&ino| BlockTree::new(&image.volume, ino).expect("a tree"))
            .collect();
        for _ in 0..60 {
            let file = dice.roll(3) as usize;
            let (tree, model) = (&trees[file], &mut models[file]);
            let (at, len) = (dice.at(slots) % limit, 1 + dice.roll(30));
            let mut guard = tree.lock();
            if dice.roll(3) > 0 {
                match tree.get_blocks(&mut guard, FileBlock(at), len, ALLOCATE) {
                    Ok(Mapping::New(run)) => {
                        for (at, block) in (at..).zip(run.iter()) {
                            assert_eq!(
                                model.insert(at, block),
                                None,
                                "seed {seed}: {at} was a hole"
                            );
                        }
                    }
                    Ok(found) => assert!(found.run().is_some(), "seed {seed}: {found:?}"),
                    Err(error) => assert_eq!(error, Error::NoSpace, "seed {seed}"),
                }
            } else {
                let end = at + len * dice.roll(50);
                let detached = tree
                    .detach(&mut guard, FileBlock(at), FileBlock(end))
                    .expect("a sound tree");
                image.volume.free(detached);
                model.retain(|&block, _| block < at || block >= end);
            }
        }
        let mut owners = HashMap::new();
        for (file, (tree, model)) in trees.iter().zip(&models).enumerate() {
            agree(tree, model, seed);
            for block in model.values() {
                assert_eq!(
                    owners.insert(*block, file),
                    None,
                    "seed {seed}: {block} has two owners"
                );
            }
            let top = model.last_key_value().map_or(0, |(&at, _)| at + 1);
            image.set_size(tree, u64::from(top));
        }
        drop(trees);
        if round == 0 {
            image.check(&inos);
        } else {
            image.check(&[]);
        }
        image.reopen(round % 2 == 0);
    }
}

#[test]
fn random_growth_and_punches_agree_with_a_map_and_with_e2fsck() {
    if !judges() {
        return;
    }
    for size in BLOCK_SIZES {
        for seed in 1..4_u64 {
            println!("block size {size}, seed {seed}");
            run(size, 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        }
    }
}
