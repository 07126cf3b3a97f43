//! Pass 4: the link count of every inode against the entries that lead to it.

use crate::census::{Census, Kind};
use crate::connect::links_at;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::layout::{ROOT_INO, feature};
use crate::open::Volume;
use crate::problem::Code;
use crate::scan::field;

/// From so many links on a directory's count stands at 1, if the `dir_nlink` feature is set.
const DIR_LINKS_MAX: u16 = 65_000;

/// Runs pass 4.
pub(crate) fn run(image: &Image, volume: &Volume, census: &Census, findings: &mut Vec<Finding>) {
    let layout = &volume.layout;
    for group in 0..layout.groups {
        let first = layout.first_ino_of(group);
        for (ino, &kind) in (first..).zip(census.group_kinds(group)) {
            if Kind(kind).used() && (ino == ROOT_INO || ino >= layout.first_ino) {
                check_inode(image, volume, census, ino, findings);
            }
        }
    }
}

fn check_inode(
    image: &Image,
    volume: &Volume,
    census: &Census,
    ino: u32,
    findings: &mut Vec<Finding>,
) {
    let Some(at) = links_at(volume, ino) else {
        return;
    };
    let found = image.le16(at);
    let mut counted = census.links(ino);
    let kind = census.kind(ino);
    let nlink = volume.layout.ro_compat & feature::RO_DIR_NLINK != 0;
    if kind == Kind::DIRECTORY && counted > DIR_LINKS_MAX && nlink {
        counted = 1;
    }
    if counted == 0 && found == 0 {
        return;
    }
    if counted == 0 {
        let empty = image.le32(at - field::LINKS + field::BLOCKS) == 0;
        let plain = kind == Kind::REGULAR || kind == Kind::DIRECTORY;
        let finding = match empty && plain {
            true => Finding::new(Code::UnattachedEmpty).fix(Fix::ClearInode),
            false => Finding::new(Code::Unattached).fix(Fix::Reconnect),
        };
        findings.push(finding.ino(ino));
    } else if counted != found {
        let code = if found > counted {
            Code::CountHigh
        } else {
            Code::CountLow
        };
        let finding = Finding::new(code).ino(ino).found(found).expected(counted);
        findings.push(finding.fix(Fix::half(at, counted)));
    }
}
