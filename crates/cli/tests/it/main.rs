//! The tool as its users call it: an image made here, answers and exit statuses compared.

mod mount;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use ext2dax::{FileSystem, MountOptions};
use ext2dax_pmem::{Access, FileRegion};

const WORDS: &str = "the quick brown fox\n";

/// A child holds every open file of ours, and the lock on an image with it, from fork to exec: so no child is started
/// while an image is open here.
static FORKING: Mutex<()> = Mutex::new(());

fn image() -> tempfile::NamedTempFile {
    let _no_child = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
    let image = tempfile::NamedTempFile::new().expect("a file");
    ext2dax_mkfs::make_file(image.path(), &ext2dax_mkfs::Options::default(), 8 << 20)
        .expect("made");
    let region = FileRegion::open(image.path(), Access::ReadWrite).expect("opened");
    let fs = FileSystem::mount(region, &MountOptions::default()).expect("mounted");
    fs.create_dir_all("/srv/data").expect("directories");
    fs.write("/srv/words", WORDS).expect("written");
    fs.write("/srv/.hidden", "x").expect("written");
    fs.write("/srv/data/large", vec![7; 100_000])
        .expect("written");
    fs.symlink("words", "/srv/link").expect("a link");
    fs.unmount().expect("unmounted");
    image
}

fn ext2dax(args: &[&str], image: &Path, paths: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ext2dax"));
    command
        .args(args)
        .arg(image)
        .args(paths)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = {
        let _no_image = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
        command.spawn()
    };
    child
        .and_then(std::process::Child::wait_with_output)
        .expect("the tool runs")
}

fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn ls_lists_names_in_order_and_hides_dots() {
    let image = image();
    assert_eq!(
        stdout(&ext2dax(&["ls"], image.path(), &["/srv"])),
        "data\nlink\nwords\n"
    );
    let all = stdout(&ext2dax(&["ls", "-a"], image.path(), &["/srv"]));
    assert_eq!(all, ".hidden\ndata\nlink\nwords\n");
    let long = stdout(&ext2dax(&["ls", "-l"], image.path(), &["/srv"]));
    let lines: Vec<&str> = long.lines().collect();
    assert!(
        lines[0].starts_with("drwxr-xr-x   2     0     0         4096 "),
        "{long}"
    );
    assert!(
        lines[1].starts_with("lrwxrwxrwx") && lines[1].ends_with(" link -> words"),
        "{long}"
    );
    assert!(
        lines[2].starts_with("-rw-r--r--   1     0     0           20 "),
        "{long}"
    );
    let below = stdout(&ext2dax(&["ls", "-R"], image.path(), &["/srv"]));
    assert_eq!(below, "/srv:\ndata\nlink\nwords\n\n/srv/data:\nlarge\n");
}

#[test]
fn cat_writes_contents_and_goes_on_after_an_error() {
    let image = image();
    assert_eq!(
        stdout(&ext2dax(
            &["cat"],
            image.path(),
            &["/srv/words", "/srv/link"]
        )),
        WORDS.repeat(2)
    );
    let large = ext2dax(&["cat"], image.path(), &["/srv/data/large"]);
    assert!(large.stdout == vec![7; 100_000]);
    let partly = ext2dax(&["cat"], image.path(), &["/srv/none", "/srv/words"]);
    assert_eq!(
        (partly.status.code(), partly.stdout.as_slice()),
        (Some(1), WORDS.as_bytes())
    );
    let complaint = String::from_utf8_lossy(&partly.stderr).into_owned();
    assert!(
        complaint.starts_with("ext2dax cat: ") && complaint.contains("/srv/none: "),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1, "one line a complaint");
    assert_eq!(
        ext2dax(&["cat"], image.path(), &["/srv"]).status.code(),
        Some(1),
        "a directory has no contents"
    );
}

#[test]
fn stat_and_df_answer_in_text_and_as_objects() {
    let image = image();
    let text = stdout(&ext2dax(&["stat"], image.path(), &["/srv/words"]));
    assert!(
        text.contains("Size: 20 ")
            && text.contains("regular file")
            && text.contains("(0644/-rw-r--r--)"),
        "{text}"
    );
    let object: serde_json::Value = serde_json::from_str(&stdout(&ext2dax(
        &["--json", "stat"],
        image.path(),
        &["/srv/link"],
    )))
    .expect("JSON");
    assert_eq!(
        (&object["type"], &object["target"]),
        (&"symbolic link".into(), &"words".into())
    );
    let object: serde_json::Value =
        serde_json::from_str(&stdout(&ext2dax(&["--json", "df"], image.path(), &[])))
            .expect("JSON");
    assert_eq!(object["block_size"], 4096);
    assert_eq!(
        object["blocks"].as_u64(),
        Some(object["blocks_used"].as_u64().unwrap() + object["blocks_free"].as_u64().unwrap())
    );
    assert!(stdout(&ext2dax(&["df"], image.path(), &[])).contains("inodes"));
}

#[test]
fn reading_changes_no_byte_of_the_image() {
    let image = image();
    let before = std::fs::read(image.path()).expect("the image");
    stdout(&ext2dax(&["ls", "-laR"], image.path(), &["/"]));
    stdout(&ext2dax(&["cat"], image.path(), &["/srv/words"]));
    assert!(std::fs::read(image.path()).expect("the image") == before);
}

#[test]
fn what_is_no_image_is_named_and_wrong_usage_is_status_two() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), vec![0; 1 << 20]).expect("zeroes");
    let output = ext2dax(&["ls"], file.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        complaint.contains(&file.path().display().to_string()),
        "{complaint}"
    );
    assert_eq!(
        ext2dax(&["frobnicate"], file.path(), &[]).status.code(),
        Some(2)
    );
}

#[test]
fn the_help_of_mount_names_every_option() {
    let help = Command::new(env!("CARGO_BIN_EXE_ext2dax"))
        .args(["mount", "--help"])
        .output()
        .expect("the tool runs");
    let help = stdout(&help);
    assert!(!ext2dax_fuse::LISTED_OPTIONS.is_empty());
    for (words, _) in ext2dax_fuse::LISTED_OPTIONS {
        assert!(help.contains(words), "{words} is not in:\n{help}");
    }
}
