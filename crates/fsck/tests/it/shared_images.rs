//! The damaged images of e2fsprogs' own test data, where somebody has put them (`EXT2DAX_IMAGES`, or `../shared/images`
//! beside the project). They are GPL and not part of this tree.

use std::path::PathBuf;

use crate::judge::{e2fsck, have, ours, scratch};

/// Images on which `e2fsck -fn` says clean and we do not, and why.
const EXPLAINED: &[(&str, &str)] = &[(
    "extra_journal",
    "e2fsck -n prints that a journal stands in the superblock without its feature, and then exits 0",
)];

/// Where the images are, if they are.
pub(crate) fn folder() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/images");
    let folder = std::env::var_os("EXT2DAX_IMAGES").map_or(beside, PathBuf::from);
    if folder.join("images.tsv").is_file() {
        return Some(folder);
    }
    println!(
        "skipped: no images at {} (set EXT2DAX_IMAGES)",
        folder.display()
    );
    None
}

/// Unpacks every image and calls `with(name, path)`.
pub(crate) fn for_each(mut with: impl FnMut(&str, PathBuf)) {
    let Some(folder) = folder() else { return };
    let table = std::fs::read_to_string(folder.join("images.tsv")).unwrap();
    let dir = scratch();
    for line in table.lines().skip(1) {
        let name = line.split('\t').next().unwrap();
        let packed = std::fs::read(folder.join(format!("{name}.img.zst"))).unwrap();
        let image = dir.path().join(name);
        std::fs::write(&image, zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
        with(name, image);
    }
}

#[test]
fn verdicts_on_damaged_images_agree_with_e2fsck() {
    if !have("e2fsck") {
        return;
    }
    let mut wrong = Vec::new();
    for_each(|name, image| {
        let (status, text) = e2fsck(&image);
        let report = ours(&image).unwrap();
        let explained = EXPLAINED.iter().any(|(image, _)| *image == name);
        if (status == 0) != report.is_clean() && !explained {
            wrong.push(format!(
                "{name}: e2fsck exits {status}, we find {}\n{text}",
                report.findings.len()
            ));
        }
        assert!(
            !explained || status == 0 && !report.is_clean(),
            "{name} is no exception any more"
        );
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
