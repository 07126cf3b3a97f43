//! A repair that is killed at any store is finished by the next one.

use std::fs;

use ext2dax_fsck::{CheckOptions, repair};
use ext2dax_pmem::{AnonRegion, EventKind, Pmem, Recorder};

use crate::campaign::{Random, Target};
use crate::judge::{e2fsck, have, scratch};
use crate::samples::{SHAPES, make};
use crate::shared_images;

fn options() -> CheckOptions {
    CheckOptions {
        threads: 1,
        ..CheckOptions::default()
    }
}

fn region(bytes: &[u8]) -> Pmem {
    let pmem = Pmem::new(AnonRegion::new(bytes.len() as u64).unwrap());
    pmem.write(0, bytes);
    pmem
}

/// The stores of a whole repair, in order.
fn stores(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let recorder = Recorder::new();
    let pmem = region(bytes).observed_by(recorder.observer());
    let _ = repair(&pmem, &options(), &mut |_| true);
    let stores = recorder
        .take()
        .into_iter()
        .filter_map(|event| match event.kind {
            EventKind::Store { at, bytes, .. } => Some((usize::try_from(at).unwrap(), bytes)),
            _ => None,
        });
    stores.collect()
}

/// Kills the repair after about `kills` of its stores, spread evenly, and finishes each of the images that are left.
fn check_kills(bytes: &[u8], kills: usize, what: &str) {
    let stores = stores(bytes);
    let step = stores.len().div_ceil(kills).max(1);
    let mut image = bytes.to_vec();
    let dir = scratch();
    let file = dir.path().join("killed");
    for (nr, (at, new)) in stores.iter().enumerate() {
        image[*at..*at + new.len()].copy_from_slice(new);
        if nr % step != 0 {
            continue;
        }
        let pmem = region(&image);
        let repaired = repair(&pmem, &options(), &mut |_| true).unwrap();
        let left: Vec<String> = repaired
            .report
            .findings
            .iter()
            .map(|finding| finding.text())
            .collect();
        assert!(
            left.is_empty(),
            "{what}: killed after store {nr} of {}: {left:?}",
            stores.len()
        );
        let mut end = vec![0; image.len()];
        pmem.read(0, &mut end);
        fs::write(&file, &end).unwrap();
        let (status, text) = e2fsck(&file);
        assert_eq!(
            status,
            0,
            "{what}: killed after store {nr} of {}: {text}",
            stores.len()
        );
    }
}

#[test]
fn a_killed_repair_of_a_damaged_image_is_finished_by_the_next() {
    if !have("e2fsck") {
        return;
    }
    shared_images::for_each(|name, image| {
        let bytes = fs::read(&image).unwrap();
        let kills = if std::env::var_os("EXT2DAX_SOAK").is_some() {
            1000
        } else {
            12
        };
        // The large ones take long and say the same as the small ones.
        if bytes.len() < 4 << 20 {
            check_kills(&bytes, kills, name);
        }
    });
}

#[test]
fn a_killed_repair_after_many_changes_is_finished_by_the_next() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let dir = scratch();
    for (nr, (name, size, options)) in (0_u64..)
        .zip(SHAPES)
        .filter(|(_, (_, size, _))| *size <= 4096)
    {
        let image = dir.path().join(name);
        make(&image, *size, options);
        let target = Target::new(fs::read(&image).unwrap());
        let mut random = Random::new(nr);
        for _ in 0..3 {
            let mut bytes = target.bytes.clone();
            let mut what = (*name).to_owned();
            for _ in 0..6 {
                let mutation = target.mutate(&mut random);
                if !mutation.field.starts_with("superblock") && !mutation.field.starts_with("group")
                {
                    mutation.apply(&mut bytes);
                    what += &format!("; {mutation}");
                }
            }
            check_kills(&bytes, 10, &what);
        }
    }
}
