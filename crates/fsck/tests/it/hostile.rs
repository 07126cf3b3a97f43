//! Any bytes are a legal input: no panic, no endless loop, no store on a look.

use std::fs;
use std::time::{Duration, Instant};

use ext2dax_fsck::{CheckOptions, check, repair};
use ext2dax_pmem::{AnonRegion, Pmem};

use crate::campaign::{Random, Target};
use crate::judge::{have, scratch};
use crate::samples::{SHAPES, make};

/// Nothing here takes a second on an idle machine; a machine that is not gets some slack.
const LIMIT: Duration = Duration::from_secs(60);

fn region(bytes: &[u8]) -> Pmem {
    let pmem = Pmem::new(AnonRegion::new(bytes.len() as u64).unwrap());
    pmem.write(0, bytes);
    pmem
}

fn survive(bytes: &[u8], what: &str) {
    let start = Instant::now();
    let pmem = region(bytes);
    let options = CheckOptions {
        threads: 2,
        ..CheckOptions::default()
    };
    let _ = check(&pmem, &options);
    let mut seen = vec![0; bytes.len()];
    pmem.read(0, &mut seen);
    assert!(seen == bytes, "{what}: a check stored something");
    if let Ok(repaired) = repair(&pmem, &options, &mut |_| true) {
        // What was repaired is sound: one more check says the same.
        let again = check(&pmem, &options).unwrap();
        assert_eq!(
            again.findings.len(),
            repaired.report.findings.len(),
            "{what}"
        );
    }
    assert!(
        start.elapsed() < LIMIT,
        "{what}: took {:?}",
        start.elapsed()
    );
}

#[test]
fn bytes_that_are_no_file_system_are_refused() {
    let options = CheckOptions::default();
    for len in [1, 512, 1024, 2048, 4096, 1 << 20] {
        for fill in [0, 0xFF, 0x53] {
            let pmem = region(&vec![fill; len]);
            assert!(check(&pmem, &options).is_err(), "{len} bytes of {fill:#x}");
        }
    }
    let mut random = Random::new(7);
    let noise: Vec<u8> = (0..1 << 20)
        .map(|_| random.next().to_le_bytes()[3])
        .collect();
    assert!(check(&region(&noise), &options).is_err());
}

#[test]
fn many_changed_fields_and_noise_are_survived() {
    if !have("mke2fs") || !have("e2fsck") || !have("debugfs") {
        return;
    }
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let seed = number("EXT2DAX_SEED", 1);
    let count = number(
        "EXT2DAX_COUNT",
        if std::env::var_os("EXT2DAX_SOAK").is_some() {
            40_000
        } else {
            400
        },
    );
    println!("seed {seed}, {count} images: repeat with EXT2DAX_SEED={seed} EXT2DAX_COUNT={count}");
    let dir = scratch();
    for (nr, (name, size, options)) in (0_u64..).zip(SHAPES) {
        let image = dir.path().join(name);
        make(&image, *size, options);
        let target = Target::new(fs::read(&image).unwrap());
        let mut random = Random::new(seed * 104_729 + nr);
        for i in 0..count / SHAPES.len() as u64 {
            let mut bytes = target.bytes.clone();
            let mut what = format!("{name} {i}:");
            for _ in 0..1 + random.below(12) {
                if random.below(3) == 0 {
                    // Noise over some bytes near the front, where the tables are.
                    let at = usize::try_from(2048 + random.below(bytes.len() as u64 / 2)).unwrap();
                    let end = (at + usize::try_from(random.below(3000)).unwrap()).min(bytes.len());
                    bytes[at..end]
                        .iter_mut()
                        .for_each(|byte| *byte = random.next().to_le_bytes()[5]);
                    what += &format!(" noise {at}..{end};");
                } else {
                    let mutation = target.mutate(&mut random);
                    mutation.apply(&mut bytes);
                    what += &format!(" {mutation};");
                }
            }
            survive(&bytes, &what);
        }
    }
}
