//! What an operation of ours in flight may leave is Residue while its record stands, and damage otherwise.

use std::fs;

use ext2dax_format::RawSuperblock;
use ext2dax_format::slot::{Intent, MOUNT_RECORDS, Operation, RECORD_BYTES, Stamp};
use ext2dax_fsck::{CheckOptions, Severity, check, repair_residue};
use ext2dax_pmem::{AnonRegion, Off, Pmem};

use crate::judge::{e2fsck, have, scratch};
use crate::lab::Lab;
use crate::samples;

fn region(bytes: &[u8]) -> Pmem {
    let pmem = Pmem::new(AnonRegion::new(bytes.len() as u64).unwrap());
    pmem.write(0, bytes);
    pmem
}

/// Writes an intent of the mount whose stamp the superblock shows, moved by `years`.
fn arm(pmem: &Pmem, intent: Intent, years: u32) {
    let sb: RawSuperblock = pmem.read_value(Off::new(1024));
    let mut stamp = Stamp::of(&sb);
    stamp.mount_time += years;
    for (i, word) in (0_u64..).zip(intent.words(stamp.id())) {
        let at = (MOUNT_RECORDS * RECORD_BYTES) as u64 + i * 8;
        pmem.write(at, zerocopy::IntoBytes::as_bytes(&word));
    }
}

type Case = (&'static str, fn(&mut Lab) -> Intent);

/// A directory named twice, one with a stale `..`, and an attribute block that counts one user too many.
const CASES: &[Case] = &[
    ("1k", |lab| {
        let at = lab.entry("/", "empty");
        lab.put(at, 4, lab.ino("/a/b"));
        lab.put(at + 7, 1, 2);
        // The count of the new parent has gone up before.
        let links = lab.get(lab.at("/") + 26, 2) as u64;
        lab.inode("/", 26, 2, links + 1);
        // The file that had the entry is gone as well: only the directory is in flight.
        lab.inode("/empty", 26, 2, 0);
        lab.inode("/empty", 20, 4, 1_000_000_000);
        Intent {
            subject: u32::try_from(lab.ino("/a/b")).unwrap(),
            from: u32::try_from(lab.ino("/a")).unwrap(),
            to: 2,
            ..Intent::new(Operation::MoveDirectory)
        }
    }),
    ("1k", |lab| {
        lab.put(lab.entry("/a/b", ".."), 4, 2);
        let links = lab.get(lab.at("/") + 26, 2) as u64;
        lab.inode("/", 26, 2, links + 1);
        Intent {
            subject: u32::try_from(lab.ino("/a/b")).unwrap(),
            ..Intent::new(Operation::MoveDirectory)
        }
    }),
    ("1k-128", |lab| {
        let block = lab.block("/plain", 104);
        lab.put(block + 4, 4, 2);
        Intent {
            subject: u32::try_from(lab.ino("/empty")).unwrap(),
            from: u32::try_from(block / 1024).unwrap(),
            ..Intent::new(Operation::Attributes)
        }
    }),
];

#[test]
fn what_an_armed_operation_leaves_is_residue() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let dir = scratch();
    let options = CheckOptions::default();
    for (nr, (shape, patch)) in CASES.iter().enumerate() {
        let (name, size, args) = *samples::SHAPES.iter().find(|s| s.0 == *shape).unwrap();
        let image = dir.path().join(name);
        samples::make(&image, size, args);
        let mut lab = Lab::new(fs::read(&image).unwrap());
        let intent = patch(&mut lab);

        // A record of another mount excuses nothing, and nothing is written.
        let pmem = region(&lab.target.bytes);
        arm(&pmem, intent, 1);
        let refused = repair_residue(&pmem, &options).unwrap();
        let damaged = refused.report.with_severity(Severity::Damage).count();
        assert!(
            damaged > 0 && refused.fixed.is_empty(),
            "case {nr}: {:?}",
            refused.report.findings
        );

        let pmem = region(&lab.target.bytes);
        arm(&pmem, intent, 0);
        let report = check(&pmem, &options).unwrap();
        assert!(
            !report.is_clean() && report.is_residue_only(),
            "case {nr}: {:?}",
            report.findings
        );
        assert!(report.is_preen_safe(), "case {nr}");
        let repaired = repair_residue(&pmem, &options).unwrap();
        assert!(
            repaired.report.is_clean(),
            "case {nr}: {:?}",
            repaired.report.findings
        );
        let mut after = vec![0; lab.target.bytes.len()];
        pmem.read(0, &mut after);
        fs::write(&image, &after).unwrap();
        let (status, text) = e2fsck(&image);
        assert_eq!(status, 0, "case {nr}: {text}");
        // The repair has changed the superblock, so the record is dead.
        let sb: RawSuperblock = pmem.read_value(Off::new(1024));
        let line = pmem.read_value(Off::new((MOUNT_RECORDS * RECORD_BYTES) as u64));
        assert_eq!(Intent::parse(&line, Stamp::of(&sb).id()), None, "case {nr}");
    }
}
