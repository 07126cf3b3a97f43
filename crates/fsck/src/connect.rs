//! Pass 3: is every directory reached from the root, and does its `..` lead back.

use crate::census::{Census, Dir, Kind};
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::layout::ROOT_INO;
use crate::open::Volume;
use crate::problem::Code;
use crate::scan::field;

/// Runs pass 3.
pub(crate) fn run(image: &Image, volume: &Volume, census: &Census, findings: &mut Vec<Finding>) {
    if census.kind(ROOT_INO) != Kind::DIRECTORY {
        findings.push(Finding::new(Code::NoRoot).ino(ROOT_INO).fix(Fix::MakeRoot));
    }
    let mut climbs = vec![0; census.dirs.len()];
    for (start, climb) in (0..census.dirs.len()).zip(1..) {
        climb_from(census, start, climb, &mut climbs, findings);
    }
    for dir in &census.dirs {
        check_dotdot(image, volume, census, dir, findings);
    }
}

/// Climbs from a directory until the root or a directory that was climbed from before. `climbs` holds for each directory
/// which climb came through it, 0 for none.
fn climb_from(
    census: &Census,
    start: usize,
    climb: u32,
    climbs: &mut [u32],
    findings: &mut Vec<Finding>,
) {
    let mut index = start;
    while let (Some(dir), Some(seen)) = (census.dirs.get(index), climbs.get_mut(index)) {
        if dir.ino == ROOT_INO || *seen != 0 {
            if *seen == climb {
                findings.push(Finding::new(Code::DirLoop).ino(dir.ino).fix(Fix::Reconnect));
            }
            return;
        }
        *seen = climb;
        let parent = dir.parent();
        if parent == 0 {
            let finding = Finding::new(Code::Unconnected)
                .ino(dir.ino)
                .found(dir.dotdot());
            findings.push(finding.fix(Fix::Reconnect));
            return;
        }
        let Some(next) = census.dir_index(parent) else {
            return;
        };
        index = next;
    }
}

fn check_dotdot(
    image: &Image,
    volume: &Volume,
    census: &Census,
    dir: &Dir,
    findings: &mut Vec<Finding>,
) {
    let parent = census.parent(dir.ino);
    let dotdot = dir.dotdot();
    if parent == 0 || dotdot == parent || dotdot == 0 {
        return;
    }
    let Some(at) = dotdot_at(image, volume, dir.ino) else {
        return;
    };
    let finding = Finding::new(Code::DotdotParent)
        .ino(dir.ino)
        .found(dotdot)
        .expected(parent);
    findings.push(finding.fix(Fix::word(at, parent)));
}

/// Byte offset of the `..` entry, which is the second one of the first block.
pub(crate) fn dotdot_at(image: &Image, volume: &Volume, ino: u32) -> Option<u64> {
    let block = image.inode(volume.inode_at(ino)?).i_block[0].get();
    if !volume.layout.holds(block) {
        return None;
    }
    let at = volume.layout.at(block);
    let first = u64::from(image.le16(at + 4));
    (first >= 12 && first + 12 <= u64::from(volume.layout.block_size)).then_some(at + first)
}

/// Byte offset of `i_links_count`.
pub(crate) fn links_at(volume: &Volume, ino: u32) -> Option<u64> {
    Some(volume.inode_at(ino)? + field::LINKS)
}
