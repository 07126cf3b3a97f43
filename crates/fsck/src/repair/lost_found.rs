//! A root for a file system without one, and a place for what has no name.

use hashbrown::HashSet;

use super::dir;
use super::space::Space;
use crate::Checked;
use crate::census::Kind;
use crate::dirs::{Entry, for_each_block_of};
use crate::fix::Patch;
use crate::image::Image;
use crate::layout::ROOT_INO;
use crate::scan::{field, now};

const NAME: &[u8] = b"lost+found";

/// Makes a new root directory. Its inode comes to life last.
pub(super) fn make_root(image: &Image, checked: &Checked, space: &mut Space<'_>) -> bool {
    make_directory(image, checked, space, ROOT_INO, ROOT_INO, 0o040_755)
}

fn make_directory(
    image: &Image,
    checked: &Checked,
    space: &mut Space<'_>,
    ino: u32,
    parent: u32,
    mode: u16,
) -> bool {
    let layout = &checked.volume.layout;
    let Some(at) = checked.volume.inode_at(ino) else {
        return false;
    };
    let Some(block) = space.block() else {
        return false;
    };
    image.write(
        layout.at(block),
        &dir::new_block(layout, Some((ino, parent))),
    );
    let mut body = vec![0; layout.inode_size as usize];
    let mut put = |at: u64, value: &[u8]| {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(slot) = body.get_mut(at..at.saturating_add(value.len())) {
            slot.copy_from_slice(value);
        }
    };
    put(field::MODE, &mode.to_le_bytes());
    put(field::SIZE, &layout.block_size.to_le_bytes());
    for time in [8, 12, 16] {
        put(time, &now().to_le_bytes());
    }
    put(field::BLOCKS, &(layout.block_size / 512).to_le_bytes());
    put(field::BLOCK, &block.to_le_bytes());
    if layout.inode_size > 128 {
        put(field::EXTRA, &32_u16.to_le_bytes());
    }
    image.write(at, &body);
    image.patch(Patch::half(at + field::LINKS, 2));
    true
}

/// The lost+found directory while many inodes move in: its names are read once, and full blocks are not looked at again.
#[derive(Debug, Default)]
pub(super) struct Home {
    ino: Option<u32>,
    taken: HashSet<Vec<u8>>,
    first: u32,
}

impl Home {
    /// Enters an inode without a name, or an unconnected directory, into lost+found as `#INO`.
    pub(super) fn reconnect(
        &mut self,
        image: &Image,
        checked: &Checked,
        space: &mut Space<'_>,
        ino: u32,
    ) -> bool {
        let home = match self.ino {
            Some(home) => home,
            None => {
                // Better in the root directory than nowhere.
                let home = lost_found(image, checked, space).unwrap_or(ROOT_INO);
                let names = dir::names(image, checked, home).into_iter();
                self.taken = names
                    .filter(|(_, ino)| *ino != 0)
                    .map(|(name, _)| name)
                    .collect();
                self.ino = Some(home);
                home
            }
        };
        let kind = checked.census.kind(ino);
        let mut name = format!("#{ino}").into_bytes();
        for nr in 0_u32.. {
            if !self.taken.contains(&name) {
                break;
            }
            name = format!("#{ino}~{nr}").into_bytes();
        }
        let entry = (name.as_slice(), ino, kind.entry_type());
        if !dir::insert(image, checked, space, home, entry, &mut self.first) {
            return false;
        }
        self.taken.insert(name);
        if kind == Kind::DIRECTORY {
            dir::set_dotdot(image, checked, ino, home);
        }
        true
    }
}

/// Takes the name lost+found away from what has it.
fn drop_name(image: &Image, checked: &Checked) {
    let layout = &checked.volume.layout;
    let mut bytes = vec![0; layout.block_size as usize];
    for_each_block_of(image, &checked.volume, &checked.census, ROOT_INO, |place| {
        image.read(layout.at(place.block), &mut bytes);
        let mut offset = 0;
        while let Some(entry) = Entry::parse(&bytes, offset) {
            if entry.ino != 0 && entry.name == NAME {
                image.patch(Patch::word(layout.at(place.block) + offset as u64, 0));
                return false;
            }
            offset += entry.rec_len;
        }
        true
    });
}

/// The lost+found directory; made if it is not there.
fn lost_found(image: &Image, checked: &Checked, space: &mut Space<'_>) -> Option<u32> {
    let there = dir::find(image, checked, ROOT_INO, NAME);
    if let Some(ino) = there {
        // Just made in this round, it is not in the census yet.
        let made = checked.census.kind(ino) == Kind::FREE;
        if made || checked.census.kind(ino) == Kind::DIRECTORY {
            return Some(ino);
        }
        // Something else has the name. If it has no other, it moves in like everything that has none.
        drop_name(image, checked);
    }
    // Its own block, and one for the root directory should that be full: an inode that is taken in vain is a leak.
    if !space.has(2) {
        return None;
    }
    let ino = space.inode()?;
    if !make_directory(image, checked, space, ino, ROOT_INO, 0o040_700) {
        return None;
    }
    let entry = (NAME, ino, Kind::DIRECTORY.0);
    dir::insert(image, checked, space, ROOT_INO, entry, &mut 0).then_some(ino)
}
