//! An image on the bench: its structures by name, to be changed one by one.

use std::collections::BTreeMap;

use crate::campaign::{Target, le};
use crate::tree::{Node, tree};

/// A good image, and where everything is in it.
#[derive(Clone)]
pub(crate) struct Lab {
    pub(crate) target: Target,
    paths: BTreeMap<Vec<u8>, Node>,
}

impl Lab {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            paths: tree(bytes.clone()),
            target: Target::new(bytes),
        }
    }

    pub(crate) fn put(&mut self, at: usize, width: usize, value: u64) {
        self.target.bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }

    pub(crate) fn get(&self, at: usize, width: usize) -> usize {
        usize::try_from(le(&self.target.bytes, at, width)).unwrap()
    }

    pub(crate) fn ino(&self, path: &str) -> u64 {
        self.paths[path.as_bytes()].ino as u64
    }

    /// Byte offset of a file's inode.
    pub(crate) fn at(&self, path: &str) -> usize {
        self.target.inode(self.paths[path.as_bytes()].ino)
    }

    pub(crate) fn inode(&mut self, path: &str, field: usize, width: usize, value: u64) {
        let at = self.at(path);
        self.put(at + field, width, value);
    }

    /// A field of an inode that has no name.
    pub(crate) fn numbered(&mut self, ino: usize, field: usize, width: usize, value: u64) {
        let at = self.target.inode(ino);
        self.put(at + field, width, value);
    }

    pub(crate) fn flag(&mut self, path: &str, flag: u64) {
        let at = self.at(path) + 32;
        let flags = self.get(at, 4) as u64;
        self.put(at, 4, flags | flag);
    }

    pub(crate) fn sb(&mut self, field: usize, width: usize, value: u64) {
        self.put(1024 + field, width, value);
    }

    pub(crate) fn sb_get(&self, field: usize, width: usize) -> u64 {
        self.get(1024 + field, width) as u64
    }

    pub(crate) fn desc(&mut self, group: usize, field: usize, width: usize, value: u64) {
        let at = self.target.desc(group) + field;
        self.put(at, width, value);
    }

    pub(crate) fn desc_get(&self, group: usize, field: usize) -> usize {
        self.get(self.target.desc(group) + field, 4)
    }

    /// Byte offset of the block in a word of an inode: 40 for the first pointer, 104 for the attributes.
    pub(crate) fn block(&self, path: &str, field: usize) -> usize {
        self.get(self.at(path) + field, 4) * self.target.block_size
    }

    /// Byte offset of an entry in one of the direct blocks of a directory.
    pub(crate) fn entry(&self, dir: &str, name: &str) -> usize {
        let size = self.target.block_size;
        for start in (0..12)
            .map(|i| self.block(dir, 40 + i * 4))
            .filter(|&start| start != 0)
        {
            let mut at = start;
            while at < start + size {
                let len = self.get(at + 6, 1);
                if self.get(at, 4) != 0
                    && &self.target.bytes[at + 8..at + 8 + len] == name.as_bytes()
                {
                    return at;
                }
                at += self.get(at + 4, 2);
            }
        }
        panic!("{dir} has no {name}");
    }

    /// Byte offset and mask of a bit in a bitmap of group 0: field 0 for blocks, 4 for inodes.
    fn bit(&self, field: usize, bit: usize) -> (usize, u64) {
        let bitmap = self.desc_get(0, field) * self.target.block_size;
        (bitmap + bit / 8, 1 << (bit % 8))
    }

    pub(crate) fn is_set(&self, field: usize, bit: usize) -> bool {
        let (at, mask) = self.bit(field, bit);
        self.get(at, 1) as u64 & mask != 0
    }

    pub(crate) fn flip(&mut self, field: usize, bit: usize) {
        let (at, mask) = self.bit(field, bit);
        let byte = self.get(at, 1) as u64;
        self.put(at, 1, byte ^ mask);
    }

    /// The `nth` free block of group 0 from the end, as a number.
    pub(crate) fn free_block(&self, nth: usize) -> u64 {
        let count = self.target.blocks_in_group(0);
        let free = (0..count).rev().filter(|&bit| !self.is_set(0, bit));
        (free.clone().nth(nth).unwrap() + self.target.first) as u64
    }

    /// All free blocks of group 0 as its bitmap has them.
    pub(crate) fn all_free_blocks(&self) -> Vec<u64> {
        let free = (0..self.target.blocks_in_group(0)).filter(|&bit| !self.is_set(0, bit));
        free.map(|bit| (bit + self.target.first) as u64).collect()
    }

    /// Marks a free block as one in use.
    pub(crate) fn mark(&mut self, block: u64) {
        let bit = usize::try_from(block).unwrap() - self.target.first;
        self.flip(0, bit);
    }

    /// Fills a block with one byte.
    pub(crate) fn fill(&mut self, block: u64, byte: u8) {
        let size = self.target.block_size;
        let at = usize::try_from(block).unwrap() * size;
        self.target.bytes[at..at + size].fill(byte);
    }

    /// The first blocks of the groups that hold a backup superblock.
    fn backups(&self) -> Vec<usize> {
        let (size, in_group) = (self.target.block_size, self.get(1024 + 32, 4));
        let blocks = (self.target.first + in_group..).step_by(in_group);
        let inside = blocks.take_while(|block| (block + 2) * size <= self.target.bytes.len());
        inside
            .filter(|block| self.get(block * size + 56, 2) == 0xEF53)
            .collect()
    }

    /// Stores a field of a group's descriptor in every copy behind a backup superblock.
    pub(crate) fn in_backups(&mut self, group: usize, field: usize, width: usize, value: u64) {
        let size = self.target.block_size;
        for block in self.backups() {
            self.put((block + 1) * size + group * 32 + field, width, value);
        }
    }

    /// Leaves no backup superblock that anybody could take for one.
    pub(crate) fn lose_backups(&mut self) {
        for block in self.backups() {
            self.fill(block as u64, 0);
        }
    }

    /// The last free inode of group 0, if there is one.
    pub(crate) fn some_free_inode(&self) -> Option<usize> {
        let bits = (0..self.target.inodes_per_group).rev();
        bits.into_iter()
            .find(|&bit| !self.is_set(4, bit))
            .map(|bit| bit + 1)
    }

    /// A free inode, as a number.
    pub(crate) fn free_inode(&self) -> u64 {
        let count = self.target.inodes_per_group;
        let free = (0..count).rev().find(|&bit| !self.is_set(4, bit));
        free.unwrap() as u64 + 1
    }
}
