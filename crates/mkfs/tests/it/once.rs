//! Large files are read once: what is guessed from samples is seen when it is copied.

use std::fs;
use std::path::Path;
use std::process::Command;

use ext2dax_mkfs::{Before, FillError, Filling, Medium, Rules, Tree};
use ext2dax_pmem::{AnonRegion, Pmem};

use crate::contents::{made, run};
use crate::judge;
use crate::tree::noise;

fn tree(source: &Path) -> Tree {
    let mut tree = Tree::new();
    tree.add_directory(source, &Rules::default(), 2).unwrap();
    tree
}

/// The image of a plan that has looked at every byte, or has guessed.
fn image(source: &Path, hopeful: bool) -> Result<Vec<u8>, FillError> {
    let filling = Filling {
        hopeful,
        threads: 2,
        ..Filling::default()
    };
    let mut filled = filling.plan(tree(source))?;
    let pmem = Pmem::new(AnonRegion::new(filled.len_bytes()).unwrap());
    filled.write(&Medium::memory(&pmem), Before::Zeroes, |_| {})?;
    let mut bytes = vec![0; usize::try_from(pmem.len()).unwrap()];
    pmem.read(0, &mut bytes);
    Ok(bytes)
}

/// What comes through a pipe cannot be read again, so nothing is guessed of it.
fn same_as_through_a_pipe(dir: &Path) {
    if !judge::present_as("tar", "--version") {
        return;
    }
    let line = format!(
        "tar --format=pax -C s -cf a.tar . && {0} -q -F -d a.tar one auto && cat a.tar | {0} -q -F -d - two auto && cmp one two",
        env!("CARGO_BIN_EXE_mkfs-ext2dax")
    );
    let status = Command::new("sh")
        .current_dir(dir)
        .args(["-c", &line])
        .status();
    assert!(status.unwrap().success());
}

/// A large file was read twice, the first time for blocks of zeroes alone, which most large files do not have. Whatever is guessed,
/// the image must be that of a program that looks at everything.
#[test]
fn a_guess_about_zeroes_changes_no_byte_of_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let source = at.join("s");
    fs::create_dir(&source).unwrap();
    let mut bytes = noise(24 << 20, 5);
    fs::write(source.join("full"), &bytes).unwrap();
    fs::write(source.join("small"), noise(70_000, 6)).unwrap();
    let exact = image(&source, false).unwrap();
    assert!(exact == image(&source, true).unwrap(), "a right guess");
    same_as_through_a_pipe(at);

    // Between the samples.
    bytes[(20 << 20) + (512 << 10)..][..4096].fill(0);
    fs::write(source.join("full"), &bytes).unwrap();
    let wrong = image(&source, true);
    assert!(
        matches!(wrong, Err(FillError::Zeroes)),
        "{:?}",
        wrong.is_ok()
    );
    same_as_through_a_pipe(at);
    made(at, &["-q", "-d", "s", "image"]);
    let exact = fs::read(at.join("image")).unwrap();
    if judge::present("e2fsck") {
        judge::e2fsck_clean(&at.join("image"), "zeroes");
    }
    made(at, &["-q", "-F", "-U", "clear", "-d", "s", "image", "auto"]);
    let found = fs::read(at.join("image")).unwrap();
    assert_eq!(found.len(), exact.len(), "without a digest, too");
    // A size into which it fits because of the hole, and one into which it does not.
    let size = |less: usize| format!("{}s", exact.len() / 512 - less);
    let asked = |size: &str| {
        run(
            at,
            &[
                "-q",
                "-F",
                "-O",
                "^resize_inode",
                "-m",
                "0",
                "-N",
                "16",
                "-d",
                "s",
                "image",
                size,
            ],
        )
    };
    assert!(asked(&size(0)).status.success());
    assert_eq!(asked(&size(8)).status.code(), Some(1));
}
