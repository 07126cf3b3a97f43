//! The images of `fixtures/`: what our checker finds, what e2fsck says, and the tree that the library reads.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ext2dax::{FileSystem, MountOptions};
use ext2dax_fsck::{CheckOptions, check};
use ext2dax_pmem::{Access, FileRegion, Pmem};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("image.zst").exists())
        .collect();
    cases.sort();
    cases
}

/// One line an object: type and mode, owner, links, size, time of the last change, name, and what it holds.
fn tree(fs: &FileSystem, dir: &[u8], out: &mut String) {
    let mut entries: Vec<_> = match fs.read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.unwrap()).collect(),
        Err(error) => {
            writeln!(out, "{}: {error}", dir.escape_ascii()).unwrap();
            return;
        }
    };
    entries.sort_by(|a, b| a.file_name().cmp(b.file_name()));
    for entry in entries {
        let path = entry.path();
        let shown = path.escape_ascii();
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            Err(error) => {
                writeln!(out, "{shown}: {error}").unwrap();
                continue;
            }
        };
        let time = meta.modified();
        write!(
            out,
            "{:o} {}:{} {} {} {}.{:09} {shown}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.len(),
            time.secs,
            time.nanos
        )
        .unwrap();
        if meta.is_symlink() {
            write!(
                out,
                " -> {}",
                fs.read_link(&path[..]).unwrap().escape_ascii()
            )
            .unwrap();
        } else if meta.is_file() {
            match fs.read(&path[..]) {
                Ok(bytes) => write!(out, " crc32 {:08x}", crc32fast::hash(&bytes)).unwrap(),
                Err(error) => write!(out, " {error}").unwrap(),
            }
        }
        out.push('\n');
        if meta.is_dir() {
            tree(fs, &path, out);
        }
    }
}

fn describe(image: &Path) -> String {
    let open = || FileRegion::open(image, Access::ReadOnly).unwrap();
    let report = check(&Pmem::new(open()), &CheckOptions::default()).unwrap();
    let mut out = format!("fsck -fn exits {}\n", if report.is_clean() { 0 } else { 4 });
    for finding in &report.findings {
        writeln!(out, "{:?} {}", finding.severity, finding.text()).unwrap();
    }
    let options = MountOptions::new().read_only(true);
    let fs = FileSystem::mount(open(), &options).unwrap();
    tree(&fs, b"/", &mut out);
    out
}

/// An image that another tool made long ago must read tomorrow as it does today, and every change of a verdict must be
/// seen by whoever makes it.
#[test]
fn fixtures_read_and_check_as_expected() {
    let scratch = tempfile::tempdir().unwrap();
    let cases = cases();
    assert!(cases.len() >= 9, "the fixtures are not there: {cases:?}");
    for case in cases {
        let packed = fs::read(case.join("image.zst")).unwrap();
        let image = scratch.path().join("image");
        fs::write(&image, zstd::decode_all(&packed[..]).unwrap()).unwrap();
        let found = describe(&image);
        let expect = case.join("expect");
        if std::env::var_os("EXT2DAX_UPDATE").is_some() {
            fs::write(&expect, &found).unwrap();
        }
        let expected = fs::read_to_string(&expect).unwrap();
        assert_eq!(
            found,
            expected,
            "{}: EXT2DAX_UPDATE=1 writes it anew",
            case.display()
        );
        judge(&image, &case, &found);
    }
}

/// e2fsck must agree about clean or not.
fn judge(image: &Path, case: &Path, found: &str) {
    let Ok(output) = std::process::Command::new("e2fsck")
        .arg("-fn")
        .arg(image)
        .output()
    else {
        assert!(std::env::var_os("CI").is_none(), "e2fsck is missing");
        println!("skipped: e2fsck is missing");
        return;
    };
    let clean = output.status.success();
    assert_eq!(
        clean,
        found.starts_with("fsck -fn exits 0"),
        "{}: e2fsck disagrees:\n{}",
        case.display(),
        String::from_utf8_lossy(&output.stdout)
    );
}
