//! Inodes with what they lead to.

use ext2dax_format::inode::{EXTRA_ISIZE, FAST_SYMLINK_MAX, RawInode, RawInodeExtra};
use ext2dax_format::{InodeFlags, Timestamp, indirect};
use zerocopy::IntoBytes as _;
use zerocopy::little_endian::{U16, U32};

use super::FilledPlan;
use crate::layout::names::Packing;
use crate::layout::{Branches, runs_of};
use crate::tree::{Body, Meta, Numbered};
use crate::write::set_owner;

impl FilledPlan {
    /// The time of a file: as found, but not later than allowed.
    fn time(&self, meta: &Meta) -> Timestamp {
        let image = Timestamp::from_secs(i64::from(self.plan.options().time));
        let time = meta.time.unwrap_or(image);
        match self.latest {
            Some(latest) if time.secs >= latest => Timestamp::from_secs(latest),
            _ => time,
        }
    }

    /// The inode of the file at a place; `to` is zero and as long as an inode.
    pub(super) fn inode(&self, place: u32, to: &mut [u8]) {
        let geometry = self.plan.geometry();
        let id = self.numbered.order[place as usize];
        let node = self.tree.node(id);
        let (need, placed) = (
            &self.needs.all[place as usize],
            &self.layout.files[place as usize],
        );
        let has_extra = geometry.inode_size() > 128;
        let (secs, extra) = self.time(&node.meta).encode(has_extra);
        let links = u16::try_from(self.numbered.links(id)).expect("at most 32,000");
        let mut inode = RawInode {
            i_mode: U16::new(node.body.kind().mode() | node.meta.mode),
            i_links_count: U16::new(links),
            i_atime: U32::new(secs),
            i_ctime: U32::new(secs),
            i_mtime: U32::new(secs),
            i_blocks: U32::new(need.total() * geometry.sectors_per_block()),
            i_file_acl: U32::new(placed.attributes),
            ..RawInode::default()
        };
        set_owner(&mut inode, (node.meta.uid, node.meta.gid));
        match &node.body {
            Body::Directory(_) => {
                let size = need.blocks() << geometry.block_bits();
                inode.i_size = U32::new(size);
                if matches!(need.packing, Some(Packing::Indexed(_))) {
                    inode.i_flags = U32::new(InodeFlags::INDEX.bits());
                }
            }
            Body::Regular(contents) => {
                let halves: [U32; 2] =
                    zerocopy::transmute!(zerocopy::little_endian::U64::new(contents.size));
                [inode.i_size, inode.i_size_high] = halves;
            }
            Body::Symlink(target) => {
                inode.i_size = U32::new(u32::try_from(target.len()).expect("less than a block"));
                if target.len() <= FAST_SYMLINK_MAX {
                    inode.i_block.as_mut_bytes()[..target.len()].copy_from_slice(target);
                }
            }
            Body::Device(_, device) => {
                let (old, new) = device.encode().expect("checked when it was added");
                [inode.i_block[0], inode.i_block[1]] = [U32::new(old), U32::new(new)];
            }
            Body::Fifo | Body::Socket => {}
        }
        self.pointers(place, &mut inode);
        to[..128].copy_from_slice(inode.as_bytes());
        if has_extra {
            let raw = RawInodeExtra {
                i_extra_isize: U16::new(EXTRA_ISIZE),
                i_ctime_extra: U32::new(extra),
                i_mtime_extra: U32::new(extra),
                i_atime_extra: U32::new(extra),
                i_crtime: U32::new(secs),
                i_crtime_extra: U32::new(extra),
                ..RawInodeExtra::default()
            };
            let end = 128 + usize::from(EXTRA_ISIZE);
            to[128..end].copy_from_slice(raw.as_bytes());
            need.attributes
                .write_inode(&node.attributes, &mut to[end..]);
        }
    }

    /// Direct pointers, and those to the tops of the trees of indirect blocks.
    fn pointers(&self, place: u32, inode: &mut RawInode) {
        let placed = &self.layout.files[place as usize];
        for extent in &placed.extents {
            let end = (extent.logical + extent.len).min(indirect::DIRECT);
            for slot in extent.logical..end {
                let block = extent.physical + slot - extent.logical;
                inode.i_block[slot as usize] = U32::new(block);
            }
        }
        if placed.indirect.is_empty() {
            return;
        }
        let need = &self.needs.all[place as usize];
        let runs = runs_of(&self.tree, self.numbered.order[place as usize], need);
        let branches = Branches::new(runs.as_ref(), self.plan.geometry().addr_bits());
        for (slot, nr) in branches.top_slots() {
            inode.i_block[slot as usize] = U32::new(placed.indirect[nr as usize]);
        }
    }

    /// Inode of a place.
    pub(super) fn ino(&self, place: u32) -> ext2dax_format::Ino {
        let geometry = self.plan.geometry();
        let raw = Numbered::ino(place, geometry.first_ino());
        geometry.ino(raw).expect("the plan has an inode for each")
    }

    /// The place of an inode, if it is one of the tree.
    pub(super) fn place_of(&self, ino: u32) -> Option<u32> {
        let first = self.plan.geometry().first_ino();
        match ino {
            2 => Some(0),
            _ => ino
                .checked_sub(first)
                .map(|nr| nr + 1)
                .filter(|&place| place < self.numbered.count()),
        }
    }
}
