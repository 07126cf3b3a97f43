//! Every damaged image beside e2fsck: the verdict, preen, the repair, and the verdict after it. `--nocapture` prints the
//! table of the documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use ext2dax_fsck::Severity;

use crate::judge::{have, ours, run};
use crate::shared_images;

/// Exit status of preen that differs from e2fsck's: image, theirs, ours, why.
const PREEN: &[(&str, i32, i32, &str)] = &[
    (
        "h_badnode",
        4,
        1,
        "every name is there without the index, so preen clears a stale one instead of stopping a boot",
    ),
    (
        "hurd",
        4,
        0,
        "e2fsck -n calls the image clean, and -p stops at the filetype feature on a system of the Hurd; we find nothing",
    ),
    (
        "orphan",
        0,
        1,
        "e2fsck completes the orphan list before it counts changes; for us it is a repair like others",
    ),
    (
        "orphan_indirect_inode",
        0,
        1,
        "e2fsck completes the orphan list before it counts changes; for us it is a repair like others",
    ),
    (
        "zero_super",
        8,
        4,
        "e2fsck -p looks for no backup and gives up; we have found one, and leave the decision to a person",
    ),
];

/// The exit status of e2fsck; -1 if it does not come to an end.
fn e2fsck(args: &[&str], image: &Path) -> i32 {
    let image = image.to_str().unwrap();
    let all = [&["-s", "KILL", "5", "e2fsck"][..], args, &[image]].concat();
    run("timeout", &all)
        .status
        .code()
        .map_or(-1, |code| if code == 137 { -1 } else { code })
}

fn fsck(args: &[&str], image: &Path) -> i32 {
    let output = Command::new(env!("CARGO_BIN_EXE_fsck-ext2dax"))
        .args(args)
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    output.status.code().unwrap()
}

#[test]
fn exit_status_of_every_mode_is_that_of_e2fsck_or_explained() {
    if !have("e2fsck") {
        return;
    }
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<usize> = (0..PREEN.len()).collect();
    let mut seen = 0;
    shared_images::for_each(|name, image| {
        seen += 1;
        let whole = fs::read(&image).unwrap();
        let fresh = || fs::write(&image, &whole).unwrap();
        let report = ours(&image).unwrap();
        let count = |severity| report.with_severity(severity).count();
        let looks = (e2fsck(&["-fn"], &image), fsck(&["-fn"], &image));
        let theirs = e2fsck(&["-fp"], &image);
        fresh();
        let preen = (theirs, fsck(&["-fp"], &image));
        fresh();
        let repair = fsck(&["-fy"], &image);
        let after = (e2fsck(&["-fn"], &image), fsck(&["-fy"], &image));
        let shown = if looks.0 == -1 {
            "hangs".to_owned()
        } else {
            looks.0.to_string()
        };
        println!(
            "| {name} | {}, {} | {shown}, {} | {}, {} | {repair} | {} | {} |",
            count(Severity::Residue),
            count(Severity::Damage),
            looks.1,
            preen.0,
            preen.1,
            after.0,
            after.1
        );
        if preen.0 != preen.1 {
            let listed = PREEN.iter().position(|(image, theirs, ours, _)| {
                (*image, *theirs, *ours) == (name, preen.0, preen.1)
            });
            match listed {
                Some(nr) => _ = unused.remove(&nr),
                None => wrong.push(format!("{name}: -p: e2fsck {}, ours {}", preen.0, preen.1)),
            }
        }
        if repair > 1 || after != (0, 0) {
            wrong.push(format!("{name}: -y: {repair}, then {after:?}"));
        }
    });
    assert!(
        seen == 0 || unused.is_empty(),
        "exceptions that are none any more: {unused:?}"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
