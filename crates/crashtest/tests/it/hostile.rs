//! Hostile numbers: every field of a small image set to 0, 1, -1, limits, and random values.
//!
//! The work is done in a process of its own, whose address space and time are limited: a number that sizes memory, or a
//! walk that does not end, kills it, and the test says at which field.

use std::fs::{self, File};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ext2dax_crashtest::hostile::{Outcome, Random, Sample, exercise, region};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Set in the child: where it notes what it is about to do.
const CHILD: &str = "EXT2DAX_HOSTILE_NOTE";
/// Address space of the child. An image is a few hundred KiB; the rest is the program itself and its threads.
const MEMORY: u64 = 2 << 30;
/// Processor seconds of the child.
const SECONDS: u64 = 400;
/// How long one image may take, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` of this binary again, limited; says what it was doing if it dies.
fn in_child(test: &str) {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("note");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, &note)
        .output()
        .unwrap();
    let last = fs::read_to_string(&note).unwrap_or_default();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let tail = stderr.len().saturating_sub(6000);
    assert!(
        output.status.success(),
        "{}: the last field was {last}\n{}",
        output.status,
        stderr.get(tail..).unwrap_or(&stderr)
    );
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

fn child() -> Option<PathBuf> {
    let note = std::env::var_os(CHILD)?;
    let limit = |maximum| Rlimit {
        current: Some(maximum),
        maximum: Some(maximum),
    };
    setrlimit(Resource::As, limit(MEMORY)).unwrap();
    setrlimit(Resource::Cpu, limit(SECONDS)).unwrap();
    let note = PathBuf::from(note);
    let watched = note.clone();
    std::thread::spawn(move || watch(&watched));
    Some(note)
}

/// Ends the process when the note has not changed for a while: one image takes a millisecond.
fn watch(note: &Path) {
    let mut last = String::new();
    loop {
        std::thread::sleep(PATIENCE);
        let now = fs::read_to_string(note).unwrap_or_default();
        if now == last && !now.is_empty() {
            eprintln!("no end within {PATIENCE:?}: {now}");
            std::process::abort();
        }
        last = now;
    }
}

fn seed() -> u64 {
    let given = std::env::var("EXT2DAX_SEED").ok();
    let seed = given.and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("seed {seed} (EXT2DAX_SEED)");
    seed
}

/// Every field of one sample with every value; panics at the end with all that went wrong.
fn all_fields(block_size: u32, note: &Path) {
    let mut random = Random(seed());
    let sample = Sample::new(block_size).unwrap();
    assert!(exercise(&sample.bytes).clean, "the sample itself is good");
    let (mut runs, mut mounted, mut wrote, mut clean) = (0, 0, 0, 0);
    let mut faults = Vec::new();
    for field in &sample.fields {
        for value in sample.values(field, &mut random) {
            let what = format!("{block_size}: {} := {value:#x}", field.name);
            fs::write(note, &what).unwrap();
            let bytes = sample.patched(field, value);
            let before = std::time::Instant::now();
            match catch_unwind(AssertUnwindSafe(|| exercise(&bytes))) {
                Ok(Outcome {
                    names,
                    wrote: for_writing,
                    clean: verdict,
                    ..
                }) => {
                    mounted += usize::from(names.is_some());
                    wrote += usize::from(for_writing);
                    clean += usize::from(verdict);
                }
                Err(_) => faults.push(what.clone()),
            }
            if before.elapsed().as_secs() >= 5 {
                faults.push(format!("{what}: took {:?}", before.elapsed()));
            }
            runs += 1;
        }
    }
    println!(
        "block size {block_size}: {} fields, {runs} images, {mounted} mounted, {wrote} of them for writing, {clean} clean",
        sample.fields.len()
    );
    // A field that nobody looks at leaves the image clean; most do not.
    assert!(mounted > 0 && clean > 0 && clean < runs);
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn every_field_with_hostile_values_at_1_kib() {
    match child() {
        Some(note) => all_fields(1024, &note),
        None => in_child("hostile::every_field_with_hostile_values_at_1_kib"),
    }
}

#[test]
fn every_field_with_hostile_values_at_4_kib() {
    match child() {
        Some(note) => all_fields(4096, &note),
        None => in_child("hostile::every_field_with_hostile_values_at_4_kib"),
    }
}

/// Several numbers at once, anywhere in the image, tables preferred.
#[test]
fn random_bytes_over_a_good_image() {
    let Some(note) = child() else {
        return in_child("hostile::random_bytes_over_a_good_image");
    };
    let mut random = Random(seed());
    let soak = std::env::var_os("EXT2DAX_SOAK").is_some();
    let rounds = if soak { 50_000 } else { 1500 };
    let mut faults = Vec::new();
    for block_size in [1024, 2048] {
        let sample = Sample::new(block_size).unwrap();
        for round in 0..rounds {
            let mut bytes = sample.bytes.clone();
            for _ in 0..=random.next() % 12 {
                let at = if random.next().is_multiple_of(4) {
                    random.next() as usize % bytes.len()
                } else {
                    sample.fields[random.next() as usize % sample.fields.len()].at
                };
                let index = random.next() as usize % (sample.numbers.len() + 2);
                let number = sample.numbers.get(index).copied();
                let value = number.unwrap_or_else(|| random.next());
                for (byte, new) in bytes[at..].iter_mut().zip(value.to_le_bytes()) {
                    *byte = new;
                }
            }
            fs::write(&note, format!("{block_size}: round {round}")).unwrap();
            if catch_unwind(AssertUnwindSafe(|| exercise(&bytes))).is_err() {
                faults.push(format!("{block_size}: round {round}"));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// Every prefix of an image that ends at a block, and some that do not.
#[test]
fn truncated_images_are_answers_too() {
    let Some(note) = child() else {
        return in_child("hostile::truncated_images_are_answers_too");
    };
    let sample = Sample::new(1024).unwrap();
    let odd = [1, 1023, 1025, 1079, 1081, 2047, 2049];
    for end in (1..sample.bytes.len()).step_by(1024).chain(odd) {
        fs::write(&note, format!("{end} bytes")).unwrap();
        assert_eq!(exercise(&sample.bytes[..end]).names, None, "{end} bytes");
    }
}

/// What a user may take for an image. The library answers with one line that says what it is.
#[test]
fn what_is_no_ext2_image_gets_one_clear_line() {
    let good = Sample::new(1024).unwrap().bytes;
    let mut ext4 = good.clone();
    ext4[1024 + 96] = 0x42;
    let table: [(&str, Vec<u8>, &str); 5] = [
        ("short", vec![0; 512], "too short for a superblock"),
        ("zeroes", vec![0; 1 << 20], "no ext2 superblock"),
        ("text", b"plain text\n".repeat(1000), "no ext2 superblock"),
        ("truncated", good[..100 * 1024].to_vec(), "truncated"),
        ("ext4", ext4, "extent"),
    ];
    for (name, bytes, expected) in table {
        let pmem = region(&bytes).unwrap();
        let options = ext2dax::MountOptions::new().read_only(true);
        let mounted = ext2dax::FileSystem::mount_pmem(pmem, &options);
        let error = mounted.expect_err(name).to_string();
        assert!(
            error.contains(expected) && error.lines().count() == 1,
            "{name}: {error}"
        );
    }
}

/// The same through the programs: exit status and one line.
#[test]
fn programs_refuse_what_is_no_image_in_one_line() {
    let Some(fsck) = program("fsck-ext2dax") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    };
    let good = Sample::new(1024).unwrap().bytes;
    let mut ext4 = good.clone();
    ext4[1024 + 96] = 0x42;
    for path in [
        write("empty", b""),
        write("short", &[0; 512]),
        write("gzip", &[&b"\x1f\x8b\x08"[..], &[7; 9000]].concat()),
        write("ext4", &ext4),
        dir.path().to_owned(),
        dir.path().join("missing"),
    ] {
        let output = Command::new(&fsck).arg("-fn").arg(&path).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let status = output.status.code();
        assert_eq!(status, Some(8), "{}: {complaint}", path.display());
        assert_eq!(
            complaint.lines().count(),
            1,
            "{}: {complaint}",
            path.display()
        );
        assert!(complaint.contains(path.to_str().unwrap()), "{complaint}");
    }
}

/// A program of the workspace, built beside this test.
fn program(name: &str) -> Option<PathBuf> {
    let mut path = std::env::current_exe().ok()?;
    path.pop();
    path.pop();
    path.push(name);
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "{name} is not built"
    );
    println!("skipped: {name} is not built: cargo build --workspace");
    None
}
