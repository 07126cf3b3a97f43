//! What a person reads.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use ext2dax_format::RawSuperblock;
use ext2dax_fsck::{Counts, Finding, Fragmented, Listed, Pass, Report, Severity};
use ext2dax_pmem::{Off, Pmem};

use super::options::Options;

/// Prints a line to standard output; a reader that went away is no error of the check.
pub(super) fn say(options: &Options, line: &str) {
    if !options.json {
        let _ = writeln!(io::stdout(), "{line}");
    }
}

/// Says on standard error what has gone wrong.
pub(super) fn complain(image: &Path, line: &str) {
    let _ = writeln!(io::stderr(), "fsck.ext2dax: {}: {line}", image.display());
}

/// What became of -D.
pub(super) fn print_rebuilt(options: &Options, rebuilt: u64, no_room: u64) {
    let name = options.image.display();
    say(options, &format!("{name}: {rebuilt} directories rebuilt"));
    if no_room != 0 {
        let line = format!("{no_room} directories not rebuilt: there is no room to work in");
        complain(&options.image, &line);
    }
}

/// What became of -E discard.
pub(super) fn print_discarded(options: &Options, bytes: Option<u64>) {
    match bytes {
        Some(bytes) => say(options, &format!("{bytes} bytes of free blocks given back")),
        None => complain(&options.image, "the device cannot take free blocks back"),
    }
}

/// What became of -l and -L.
pub(super) fn print_listed(options: &Options, listed: &Listed) {
    for block in &listed.ignored {
        let line = format!("block {block} is not in the file system: not listed as bad");
        complain(&options.image, &line);
    }
    let name = options.image.display();
    let Listed { before, after, .. } = listed;
    say(
        options,
        &format!("{name}: {after} blocks on the list of bad blocks (before: {before})"),
    );
}

/// Files in more than one piece: number, pieces, blocks.
pub(super) fn print_fragments(options: &Options, fragments: &[Fragmented]) {
    for file in fragments {
        let Fragmented {
            ino,
            blocks,
            pieces,
            ..
        } = file;
        say(
            options,
            &format!("inode {ino}: {pieces} pieces, {blocks} blocks"),
        );
    }
}

/// The one line about an image that is marked clean and due for no check: scripts read it.
pub(super) fn clean_line(pmem: &Pmem, image: &Path) -> Option<String> {
    if pmem.len() < 2048 {
        return None;
    }
    let sb: RawSuperblock = pmem.read_value(Off::new(1024));
    let clean = sb.s_magic.get() == 0xEF53
        && sb.s_rev_level.get() <= 1
        && sb.s_state.get() & 3 == 1
        && sb.s_last_orphan.get() == 0
        && sb.s_feature_incompat.get() & !0x12 == 0;
    let mounts = sb.s_max_mnt_count.get().cast_signed();
    let mounted_often = mounts > 0 && sb.s_mnt_count.get() >= mounts.unsigned_abs();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let interval = u64::from(sb.s_checkinterval.get());
    let due = interval != 0 && now >= u64::from(sb.s_lastcheck.get()) + interval;
    if !clean || mounted_often || due {
        return None;
    }
    let inodes = sb.s_inodes_count.get();
    let blocks = sb.s_blocks_count.get();
    Some(format!(
        "{}: clean, {}/{inodes} files, {}/{blocks} blocks",
        image.display(),
        inodes.checked_sub(sb.s_free_inodes_count.get())?,
        blocks.checked_sub(sb.s_free_blocks_count.get())?,
    ))
}

/// What was repaired, then the findings that are left pass by pass, then a line with the totals.
pub(super) fn print_report(options: &Options, fixed: &[Finding], report: &Report) {
    let mut out = io::stdout().lock();
    let _ = write_report(&mut out, options, fixed, report);
}

/// Words stand out on a terminal, unless it cannot or somebody does not want it: <https://no-color.org>.
fn paint(word: &str, color: &str) -> String {
    let unwanted = |name: &str, is: fn(&std::ffi::OsStr) -> bool| {
        std::env::var_os(name).is_some_and(|value| is(&value))
    };
    if !io::stdout().is_terminal()
        || unwanted("NO_COLOR", |value| !value.is_empty())
        || unwanted("TERM", |value| value == "dumb")
    {
        return word.to_owned();
    }
    format!("\x1b[{color}m{word}\x1b[0m")
}

/// Residue loses nothing when it is repaired, damage may.
pub(super) fn severity(finding: &Finding) -> String {
    match finding.severity {
        Severity::Residue => paint("residue", "33"),
        Severity::Damage => paint("damage", "31"),
    }
}

fn write_finding(out: &mut impl Write, finding: &Finding) -> io::Result<()> {
    let mark = severity(finding);
    let end = if finding.fixed { ". FIXED" } else { "" };
    writeln!(
        out,
        "{} [{} {mark}]: {}{end}",
        finding.text(),
        finding.code.word(),
        finding.action()
    )
}

fn write_report(
    out: &mut impl Write,
    options: &Options,
    fixed: &[Finding],
    report: &Report,
) -> io::Result<()> {
    for finding in fixed {
        write_finding(out, finding)?;
    }
    let chosen =
        |finding: &&Finding| options.only.is_empty() || options.only.contains(&finding.code);
    let hidden = report.findings.len() - report.findings.iter().filter(chosen).count();
    let mut next = report.findings.iter().filter(chosen).peekable();
    for (pass, time) in &report.times {
        let mut first = *pass == Pass::Preamble;
        if !first {
            writeln!(out, "{}", pass.title())?;
        }
        while let Some(finding) = next.next_if(|finding| finding.pass() <= *pass) {
            if first {
                writeln!(out, "{}", pass.title())?;
                first = false;
            }
            write_finding(out, finding)?;
        }
        if options.times > 1 {
            writeln!(out, "{}: {:.3} s", pass.title(), time.as_secs_f64())?;
        }
    }
    if options.times > 0 {
        let all: f64 = report
            .times
            .iter()
            .map(|(_, time)| time.as_secs_f64())
            .sum();
        writeln!(out, "All passes: {all:.3} s")?;
    }
    if options.verbose {
        write_counts(out, &report.summary.counts)?;
    }
    let name = options.image.display();
    if report.summary.needs_recovery {
        writeln!(
            out,
            "{name}: the journal has not been replayed; this is the state without it"
        )?;
    }
    if hidden != 0 {
        writeln!(
            out,
            "{name}: findings of other codes, left as they are: {hidden}"
        )?;
    }
    if !report.is_clean() {
        let residue = report.with_severity(Severity::Residue).count();
        let damage = report.with_severity(Severity::Damage).count();
        writeln!(
            out,
            "\n{name}: ********** WARNING: file system still has errors ({damage} damage, {residue} residue) **********\n"
        )?;
    }
    if !fixed.is_empty() {
        writeln!(out, "\n{name}: ***** FILE SYSTEM WAS MODIFIED *****")?;
    }
    let summary = &report.summary;
    let share = summary.counts.fragmented as f64 * 100.0 / (summary.inodes_used.max(1)) as f64;
    writeln!(
        out,
        "{name}: {}/{} files ({share:.1}% non-contiguous), {}/{} blocks",
        summary.inodes_used, summary.inodes, summary.blocks_used, summary.blocks,
    )
}

fn write_counts(out: &mut impl Write, counts: &Counts) -> io::Result<()> {
    let [
        _,
        regular,
        directories,
        chars,
        blocks,
        fifos,
        sockets,
        links,
        broken,
        reserved,
    ] = counts.kinds;
    writeln!(out)?;
    for (count, what) in [
        (regular, "regular files"),
        (directories, "directories"),
        (chars, "character device files"),
        (blocks, "block device files"),
        (fifos, "fifos"),
        (sockets, "sockets"),
        (links, "symbolic links"),
        (broken, "broken inodes"),
        (reserved, "reserved inodes"),
        (counts.fast_symlinks, "fast symbolic links"),
        (counts.fragmented, "non-contiguous files"),
        (counts.large, "files of 2 GiB and more"),
    ] {
        writeln!(out, "{count:12} {what}")?;
    }
    let [single, double, triple] = counts.indirect;
    writeln!(
        out,
        "             inodes with single/double/triple indirect blocks: {single}/{double}/{triple}"
    )
}
