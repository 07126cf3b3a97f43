//! Pass 4: the link count of every inode against the entries that lead to it.

use crate::census::{Census, Kind};
use crate::connect::links_at;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::layout::{ROOT_INO, feature};
use crate::open::Volume;
use crate::parallel;
use crate::problem::Code;
use crate::scan::field;

/// From so many links on a directory's count stands at 1, if the `dir_nlink` feature is set.
const DIR_LINKS_MAX: u16 = 65_000;

/// Runs pass 4.
pub(crate) fn run(
    image: &Image,
    volume: &Volume,
    census: &Census,
    threads: usize,
    findings: &mut Vec<Finding>,
) {
    let layout = &volume.layout;
    let groups = parallel::map(layout.groups, threads, |group| {
        let mut found = Vec::new();
        for (ino, kind) in census.used_inodes(layout, group) {
            let counts = ino == ROOT_INO || ino >= layout.first_ino;
            if counts && census.links(ino) != census.stored_links(ino) {
                check_inode(image, volume, census, (ino, kind), &mut found);
            }
        }
        found
    });
    findings.extend(groups.into_iter().flatten());
}

fn check_inode(
    image: &Image,
    volume: &Volume,
    census: &Census,
    (ino, kind): (u32, Kind),
    findings: &mut Vec<Finding>,
) {
    let Some(at) = links_at(volume, ino) else {
        return;
    };
    let found = census.stored_links(ino);
    let mut counted = census.links(ino);
    let nlink = volume.layout.ro_compat & feature::RO_DIR_NLINK != 0;
    if kind == Kind::DIRECTORY && counted > DIR_LINKS_MAX && nlink {
        counted = 1;
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
