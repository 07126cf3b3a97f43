//! Pass 4: the link count of every inode against the entries that lead to it.

use crate::census::{Census, Kind};
use crate::connect::links_at;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::image::Image;
use crate::layout::{ROOT_INO, feature};
use crate::open::Volume;
use crate::parallel::Crew;
use crate::problem::Code;
use crate::scan::field;

/// From so many links on a directory's count stands at 1, if the `dir_nlink` feature is set.
const DIR_LINKS_MAX: u16 = 65_000;

/// Inodes that a thread takes at a time; nearly all of them 64 at a look.
const SPAN: u32 = 1 << 20;

/// Runs pass 4.
pub(crate) fn run(
    image: &Image,
    volume: &Volume,
    census: &Census,
    crew: Crew<'_>,
    findings: &mut Vec<Finding>,
) {
    let layout = &volume.layout;
    let spans = crew.map(layout.inodes.div_ceil(SPAN), |span| {
        let mut found = Vec::new();
        let first = 1 + span * SPAN;
        let count = SPAN.min(layout.inodes - (first - 1));
        for ino in census.inodes.unusual(first, count) {
            let kind = census.kind(ino);
            if kind.used() && (ino == ROOT_INO || ino >= layout.first_ino) {
                check_inode(image, volume, census, (ino, kind), &mut found);
            }
        }
        found
    });
    findings.extend(spans.into_iter().flatten());
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
    let found = match census.inodes.stored_links(ino) {
        Some(links) => links,
        None => image.le16(at),
    };
    let mut counted = census.inodes.links(ino);
    if counted == found {
        return;
    }
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
