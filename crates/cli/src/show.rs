//! Times, modes and names as text.

use ext2dax::{Attributes, FileType, Timestamp};
use serde_json::{Value, json};

/// A name as it is if it is UTF-8 without control characters; else with escapes.
pub(crate) fn name(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// What kind of file it is, as stat(1) says it.
pub(crate) fn kind(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Regular => "regular file",
        FileType::Directory => "directory",
        FileType::CharDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Symlink => "symbolic link",
    }
}

/// The ten letters of ls(1).
pub(crate) fn mode(inode: &Attributes) -> String {
    let mut text = String::with_capacity(10);
    text.push(match inode.file_type {
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::CharDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::Symlink => 'l',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = inode.permissions >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (inode.permissions & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// To the minute, UTC.
pub(crate) fn time(time: Timestamp) -> String {
    let (year, month, day) = date(time.secs.div_euclid(86_400));
    let second = time.secs.rem_euclid(86_400);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}",
        second / 3600,
        second / 60 % 60
    )
}

/// To the nanosecond, UTC.
pub(crate) fn exact_time(exact: Timestamp) -> String {
    format!(
        "{}:{:02}.{:09} +0000",
        time(exact),
        exact.secs.rem_euclid(60),
        exact.nanos
    )
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
///
/// Counted in eras of 400 years of 146,097 days that begin on 1 March, so that the leap day is a year's last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Everything that stat answers.
pub(crate) fn attributes(inode: &Attributes) -> Value {
    json!({
        "ino": inode.ino,
        "generation": inode.generation,
        "type": kind(inode.file_type),
        "mode": format!("{:04o}", inode.permissions),
        "links": inode.links,
        "uid": inode.uid,
        "gid": inode.gid,
        "size": inode.size,
        "sectors": inode.sectors,
        "flags": inode.flags.bits(),
        "device": inode.device.map(|device| [device.major, device.minor]),
        "accessed": exact_time(inode.accessed),
        "modified": exact_time(inode.modified),
        "changed": exact_time(inode.changed),
        "created": inode.created.map(exact_time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp { secs, nanos: 5 }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (secs, text) in [
            (0, "1970-01-01 00:00:00.000000005 +0000"),
            (951_782_400, "2000-02-29 00:00:00.000000005 +0000"),
            (-1, "1969-12-31 23:59:59.000000005 +0000"),
            (2_147_483_648, "2038-01-19 03:14:08.000000005 +0000"),
            (-2_147_483_648, "1901-12-13 20:45:52.000000005 +0000"),
            (4_107_542_400, "2100-03-01 00:00:00.000000005 +0000"),
        ] {
            assert_eq!(exact_time(at(secs)), text);
        }
    }

    #[test]
    fn names_that_would_disturb_a_terminal_are_escaped() {
        assert_eq!(name("grün".as_bytes()), "grün");
        assert_eq!(name(b"a\x1b[31m"), "a\\x1b[31m");
        assert_eq!(name(b"\xff"), "\\xff");
    }
}
