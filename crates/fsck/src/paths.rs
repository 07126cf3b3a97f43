//! Names for the inodes of findings, learnt afterwards: a clean image never pays for them.

use hashbrown::{HashMap, HashSet};

use crate::census::Census;
use crate::dirs::{self, Entry};
use crate::finding::Finding;
use crate::image::Image;
use crate::layout::ROOT_INO;
use crate::open::Volume;

/// Findings beyond this number go without a path.
const MOST: usize = 10_000;

/// Fills in the paths of the findings.
pub(crate) fn fill(image: &Image, volume: &Volume, census: &Census, findings: &mut [Finding]) {
    let mut wanted = HashSet::new();
    for finding in findings.iter().take(MOST) {
        let mut ino = if finding.parent != 0 {
            finding.parent
        } else {
            finding.ino
        };
        // A directory needs the names of all its ancestors; a loop of them ends at the second visit.
        while ino > ROOT_INO && wanted.insert(ino) {
            ino = census.parent(ino);
        }
    }
    let names = match wanted.is_empty() {
        true => Names::new(),
        false => find_names(image, volume, census, &wanted),
    };
    for finding in findings.iter_mut().take(MOST) {
        let ino = if finding.parent != 0 {
            finding.parent
        } else {
            finding.ino
        };
        finding.path = path_of(&names, ino).unwrap_or_default();
    }
}

type Names = HashMap<u32, (u32, Vec<u8>)>;

fn find_names(image: &Image, volume: &Volume, census: &Census, wanted: &HashSet<u32>) -> Names {
    let mut names = Names::new();
    let mut bytes = vec![0; volume.layout.block_size as usize];
    dirs::for_each_block(image, volume, census, |dir, place| {
        image.read(volume.layout.at(place.block), &mut bytes);
        let mut offset = 0;
        while let Some(entry) = Entry::parse(&bytes, offset) {
            offset += entry.rec_len;
            if wanted.contains(&entry.ino) && entry.name != b"." && entry.name != b".." {
                names
                    .entry(entry.ino)
                    .or_insert_with(|| (dir.ino, entry.name.to_vec()));
            }
        }
        names.len() < wanted.len()
    });
    names
}

fn path_of(names: &Names, ino: u32) -> Option<Vec<u8>> {
    if ino == ROOT_INO {
        return Some(b"/".to_vec());
    }
    let mut parts = Vec::new();
    let mut ino = ino;
    while ino != ROOT_INO {
        let (parent, name) = names.get(&ino)?;
        parts.push(name);
        if parts.len() > names.len() {
            return None;
        }
        ino = *parent;
    }
    let mut path = Vec::new();
    for name in parts.into_iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    Some(path)
}
