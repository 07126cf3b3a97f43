//! What e2fsck finds on a damaged image we find, too: the same class of problem, at the same object.

mod messages;

use std::collections::BTreeSet;

use ext2dax_fsck::Finding;

use crate::judge::{e2fsck, have, ours};
use crate::shared_images;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// The inode whose number follows the word "inode".
    Inode,
    /// The group whose number follows the word "group".
    Group,
    /// The name in quotation marks.
    Name,
    /// The file system.
    All,
}

use About::{All, Group, Inode, Name};
use messages::{MESSAGES, TALK};

/// Where e2fsck says something and we rightly do not: image, part of the message, why.
const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "clear_xattr",
        "has an incorrect filetype (was 7, should be 0)",
        "e2fsck -n leaves the bad attribute block and takes the link for invalid; without the block it is a link",
    ),
    (
        "illibitmap",
        "Inode bitmap differences",
        "the bitmap has no place; what is to stand in it is written when it has one",
    ),
    (
        "illibitmap",
        "Free inodes count wrong",
        "e2fsck -n counts from a bitmap that it could not read; the counts of the image are right",
    ),
    (
        "illibitmap",
        "Directories count wrong",
        "e2fsck -n counts from a bitmap that it could not read; the counts of the image are right",
    ),
];

fn number_after(line: &str, word: &str) -> Option<u32> {
    let lower = line.to_ascii_lowercase();
    let mut rest = lower.as_str();
    while let Some(at) = rest.find(word) {
        rest = &rest[at + word.len()..];
        let digits: String = rest
            .trim_start_matches([' ', '#', '='])
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        if let Ok(number) = digits.parse() {
            return Some(number);
        }
    }
    None
}

/// An inode that a repair clears or turns into a directory: what else is wrong with it as it stands goes with it.
fn is_covered(line: &str, findings: &[Finding]) -> bool {
    let Some(ino) = number_after(line, "inode") else {
        return false;
    };
    findings.iter().any(|finding| {
        finding.ino == ino
            && finding.code.word().starts_with("p1.")
            && ["clear the inode", "make it a directory"].contains(&finding.action())
    })
}

fn is_found(line: &str, codes: &[&str], about: About, findings: &[Finding]) -> bool {
    findings.iter().any(|finding| {
        let class = codes
            .iter()
            .any(|code| finding.code.word().starts_with(code));
        class
            && match about {
                All => true,
                Inode => number_after(line, "inode").is_none_or(|ino| ino == finding.ino),
                Group => {
                    number_after(line, "group").is_none_or(|group| Some(group) == finding.group)
                }
                Name => line
                    .split('\'')
                    .nth(1)
                    .is_none_or(|name| name.as_bytes() == finding.name),
            }
    })
}

/// The messages in what e2fsck printed that have no finding of their class at the same object, and how many there were.
pub(crate) fn unmatched(text: &str, findings: &[Finding]) -> (usize, Vec<String>) {
    let (mut compared, mut wrong) = (0, Vec::new());
    for line in text.lines().map(str::trim).filter(|line| line.len() > 2) {
        let Some((_, codes, about)) = MESSAGES.iter().find(|(part, ..)| line.contains(part)) else {
            if !TALK.iter().any(|part| line.contains(part)) {
                wrong.push(format!("a message that the table does not know: {line}"));
            }
            continue;
        };
        compared += 1;
        if !is_found(line, codes, *about, findings) && !is_covered(line, findings) {
            wrong.push(line.to_owned());
        }
    }
    (compared, wrong)
}

#[test]
fn every_message_of_e2fsck_has_its_finding() {
    if !have("e2fsck") {
        return;
    }
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<usize> = (0..EXPLAINED.len()).collect();
    let mut compared = 0;
    shared_images::for_each(|name, image| {
        let (_, text) = e2fsck(&image);
        let findings = ours(&image).unwrap().findings;
        let (count, lines) = unmatched(&text, &findings);
        compared += count;
        for line in lines {
            match EXPLAINED
                .iter()
                .position(|(image, part, _)| *image == name && line.contains(part))
            {
                Some(nr) => _ = unused.remove(&nr),
                None => wrong.push(format!("{name}: {line}")),
            }
        }
    });
    println!("{compared} messages of e2fsck compared");
    assert!(
        compared == 0 || unused.is_empty(),
        "exceptions that are none any more: {unused:?}"
    );
    assert!(
        wrong.is_empty(),
        "{} not found\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
