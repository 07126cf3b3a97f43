//! New names for entries whose names cannot be, or are there twice.

use hashbrown::HashMap;

use crate::Checked;
use crate::dirs::{self, Entry};
use crate::finding::Finding;
use crate::fix::Patch;
use crate::image::Image;
use crate::problem::Code;

/// An entry under a name: the inode it leads to, and its byte offset in the image.
type Place = (u32, u64);

/// What becomes of an entry whose name is there twice.
#[derive(Clone, Copy, Debug)]
enum Step {
    Clear(u64),
    Rename(Place),
}

/// The names of the directory in work, so that many repairs in one directory read it once.
#[derive(Debug, Default)]
pub(super) struct Renames {
    dir: u32,
    names: HashMap<Vec<u8>, Vec<Place>>,
    /// What is still to be done about a name, the last step first; there is one for each finding.
    plans: HashMap<Vec<u8>, Vec<Step>>,
}

impl Renames {
    fn enter(&mut self, image: &Image, checked: &Checked, dir: u32) {
        if self.dir == dir {
            return;
        }
        *self = Self {
            dir,
            ..Self::default()
        };
        let layout = &checked.volume.layout;
        let mut bytes = vec![0; layout.block_size as usize];
        dirs::for_each_block_of(image, &checked.volume, &checked.census, dir, |place| {
            image.read(layout.at(place.block), &mut bytes);
            let mut offset = 0;
            while let Some(entry) = Entry::parse(&bytes, offset) {
                if entry.ino != 0 {
                    let at = layout.at(place.block) + offset as u64;
                    let places = self.names.entry(entry.name.to_vec()).or_default();
                    places.push((entry.ino, at));
                }
                offset += entry.rec_len;
            }
            true
        });
    }

    /// Gives an entry with a name that cannot be, or is there twice, another name that fits into its place. A second entry
    /// that leads to the same inode under the same name goes: nothing is lost with it.
    pub(super) fn rename(
        &mut self,
        image: &Image,
        checked: &Checked,
        finding: &Finding,
        offset: u32,
    ) -> bool {
        self.enter(image, checked, finding.parent);
        let at = checked.volume.layout.at(finding.block) + u64::from(offset);
        if finding.code == Code::BadName {
            let clean = finding.name.iter();
            let clean: Vec<u8> = clean
                .map(|&b| if matches!(b, b'/' | 0) { b'.' } else { b })
                .collect();
            if clean == b"." || clean == b".." {
                return self.move_to_free_name(image, (finding.ino, at), &finding.name, clean);
            }
            // If another has this name, that is the next finding.
            self.store(image, (finding.ino, at), &finding.name, clean);
            return true;
        }
        let places = self.names.get(&finding.name).cloned().unwrap_or_default();
        let plan = self.plans.entry(finding.name.clone());
        match plan.or_insert_with(|| plan_for(places)).pop() {
            None => false,
            Some(Step::Clear(at)) => {
                image.patch(Patch::word(at, 0));
                true
            }
            Some(Step::Rename(place)) => {
                self.move_to_free_name(image, place, &finding.name, finding.name.clone())
            }
        }
    }

    fn move_to_free_name(
        &mut self,
        image: &Image,
        place: Place,
        old: &[u8],
        like: Vec<u8>,
    ) -> bool {
        match unique(&like, &self.names) {
            Some(name) => self.store(image, place, old, name),
            None => image.patch(Patch::word(place.1, 0)),
        }
        true
    }

    fn store(&mut self, image: &Image, place: Place, old: &[u8], name: Vec<u8>) {
        let (_, at) = place;
        for (i, &byte) in (0_u64..).zip(&name) {
            image.patch(Patch::byte(at + 8 + i, byte));
        }
        if name.len() != old.len() {
            image.patch(Patch::byte(
                at + 6,
                u8::try_from(name.len()).unwrap_or(u8::MAX),
            ));
        }
        if let Some(places) = self.names.get_mut(old) {
            places.retain(|&other| other != place);
            if places.is_empty() {
                self.names.remove(old);
            }
        }
        self.names.entry(name).or_default().push(place);
    }
}

/// What is done about the entries that share a name, so that as many stay under the same names as with e2fsck: the inode
/// with the highest number keeps it. Of several entries for one inode every second one goes, the others are renamed.
fn plan_for(mut places: Vec<Place>) -> Vec<Step> {
    places.sort_by_key(|&(ino, _)| std::cmp::Reverse(ino));
    let mut steps = Vec::new();
    while places.len() > 1 {
        let mut left = Vec::new();
        // The entry before, if it still has the name; a cleared one leads to inode 0.
        let mut before = None;
        for &(ino, at) in &places {
            before = match before {
                Some(other) if other == ino => {
                    steps.push(Step::Clear(at));
                    Some(0)
                }
                Some(_) => {
                    steps.push(Step::Rename((ino, at)));
                    None
                }
                None => {
                    left.push((ino, at));
                    Some(ino)
                }
            };
        }
        places = left;
    }
    steps.reverse();
    steps
}

/// A free name like `name` with `~0`, `~1` ... at its end. The tail goes into the padding behind the name where there is
/// some, and over the last bytes where there is none: it fits wherever the name did.
fn unique(name: &[u8], taken: &HashMap<Vec<u8>, Vec<Place>>) -> Option<Vec<u8>> {
    let padded = name.len().next_multiple_of(4);
    let len = padded.min(name.len() + 2).min(255);
    for nr in 0..100_000_u32 {
        let tail = format!("~{nr}");
        let keep = name.get(..len.checked_sub(tail.len())?.min(name.len()))?;
        let other = [keep, tail.as_bytes()].concat();
        if !taken.contains_key(&other) {
            return Some(other);
        }
    }
    None
}
