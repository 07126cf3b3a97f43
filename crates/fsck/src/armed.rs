//! Operations of ours that were in flight: what they may have left is Residue, although it looks like damage.
//!
//! Two things cannot be done with one store: a directory that moves to another parent has two names or a stale `..` for a
//! moment, and an attribute block that gets one user less has a count that is off by one. The library notes both before it
//! starts, in the boot block (`ext2dax_format::slot`). The note counts only while the superblock stands as that mount has
//! left it: a repair changes it, and so does any other driver.

use ext2dax_format::slot::{
    AREA_BYTES, Intent, MOUNT_RECORDS, Operation, RECORD_BYTES, Stamp, is_free_or_ours,
};

use crate::finding::Finding;
use crate::fix::Patch;
use crate::image::Image;
use crate::open::Volume;
use crate::problem::{Code, Preen, Severity};

/// Makes Residue of what the operations in flight explain.
pub(crate) fn excuse(image: &Image, volume: &Volume, findings: &mut [Finding]) {
    let wanted = |finding: &Finding| {
        matches!(
            finding.code,
            Code::LinkDir | Code::DotdotParent | Code::XattrRefcount
        )
    };
    if !findings.iter().any(wanted) {
        return;
    }
    let intents = intents(image, volume);
    let moving = |ino: u32| {
        intents.iter().any(|intent| {
            let directory = matches!(
                intent.operation,
                Operation::MoveDirectory | Operation::SwapDirectory | Operation::ExchangeDirectory
            );
            directory && ino != 0 && [intent.subject, intent.other].contains(&ino)
        })
    };
    let leaving = |block: u32| {
        intents
            .iter()
            .any(|intent| intent.operation == Operation::Attributes && intent.from == block)
    };
    let twice: Vec<u32> = findings
        .iter()
        .filter(|finding| finding.code == Code::LinkDir && moving(finding.ino))
        .map(|finding| finding.ino)
        .collect();
    for finding in findings {
        let explained = match finding.code {
            Code::LinkDir | Code::DotdotParent => moving(finding.ino),
            // Both names count as links until one of them goes.
            Code::CountLow => twice.contains(&finding.ino),
            Code::XattrRefcount => {
                leaving(finding.block) && finding.found.abs_diff(finding.expected) == 1
            }
            _ => false,
        };
        if explained {
            finding.severity = Severity::Residue;
            finding.preen = Preen::Safe;
        }
    }
}

fn intents(image: &Image, volume: &Volume) -> Vec<Intent> {
    let mut area = [0; AREA_BYTES];
    image.read(0, &mut area);
    if !is_free_or_ours(&area) {
        return Vec::new();
    }
    let mount = Stamp::of(&volume.sb).id();
    area.as_chunks::<RECORD_BYTES>()
        .0
        .iter()
        .skip(MOUNT_RECORDS)
        .filter_map(|line| Intent::parse(line, mount))
        .collect()
}

/// A repair has decided what became of the operations in flight: their notes go, so that no mount decides again.
pub(crate) fn disarm(image: &Image) {
    let mut area = [0; AREA_BYTES];
    image.read(0, &mut area);
    if !is_free_or_ours(&area) {
        return;
    }
    let lines = area.as_chunks::<RECORD_BYTES>().0.iter();
    for (nr, line) in (0_u64..).zip(lines).skip(MOUNT_RECORDS) {
        if line.iter().any(|&byte| byte != 0) {
            let at = nr * RECORD_BYTES as u64;
            // The checksum goes first: from then on it is no record.
            image.patch(Patch::word(at + 60, 0));
            image.write(at, &[0; RECORD_BYTES]);
        }
    }
}
