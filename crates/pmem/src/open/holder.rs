//! Who holds the lock on an image.

use std::fs::File;

/// How often the list is read before nobody is named.
const ATTEMPTS: usize = 8;

/// Process numbers of those who hold an advisory lock on `file`, as far as the system tells.
///
/// /proc/locks lists `1: FLOCK  ADVISORY  WRITE 1234 00:2d:56 0 EOF`: number, kind, mode, access, process,
/// major:minor:inode (hexadecimal device numbers), range. Processes of another namespace show as 0 or not at all.
pub(super) fn of(file: &File) -> Vec<u32> {
    let Ok(stat) = rustix::fs::fstat(file) else {
        return Vec::new();
    };
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let place = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    // The list is read in pieces: where others take and release locks meanwhile, a line may be left out.
    for _ in 0..ATTEMPTS {
        let Ok(locks) = std::fs::read_to_string("/proc/locks") else {
            break;
        };
        let found = holders(&locks, &place);
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn holders(locks: &str, place: &str) -> Vec<u32> {
    let mut found: Vec<u32> = locks
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // A process that waits stands behind an arrow: `1: -> FLOCK ...`.
            let at = fields.iter().position(|field| *field == place)?;
            if fields.contains(&"->") {
                return None;
            }
            fields[..at].last()?.parse().ok().filter(|pid| *pid != 0)
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_of_one_file_are_found_and_waiters_are_not() {
        let locks = "1: FLOCK  ADVISORY  WRITE 123 00:2d:56 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 124 00:2d:56 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 9 00:2d:57 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 0 00:2d:56 0 EOF\n\
                     nonsense\n";
        assert_eq!(holders(locks, "00:2d:56"), [123]);
        assert_eq!(holders(locks, "00:2d:58"), [0; 0]);
    }
}
